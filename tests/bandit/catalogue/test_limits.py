"""Caps, cool-downs, quiet hours, consent and the other rules of when a nudge may be shown, each with its reason."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue.limits import AbandonmentLimit, ExclusionRule, GlobalCap, Limits, QuietHours
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import CatalogueError
from bandit.guardrails import (
    DAY,
    DECLINED,
    CapScope,
    Circumstances,
    ClaimEvidence,
    Exposure,
    LocalTime,
    eligible,
    refused,
)

TEXT = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")
NOW = 1_760_000_000_000_000
MINUTE, HOUR = 60_000_000, 3_600_000_000
EVER = 2**62
PLACES: list[CapScope] = [("look", "help"), ("look", "few_left"), ("basket", "reminder"), ("later", "news")]


@pytest.fixture(scope="module")
def plain() -> Catalogue:
    return parse(TEXT)


def around(shown: dict[CapScope, list[int]] | None = None, **more: Any) -> Circumstances:
    """`shown`: how many µs ago."""
    exposures = {
        place: [Exposure(NOW - ago, EVER) for ago in sorted(agos)[::-1]] for place, agos in (shown or {}).items()
    }
    given_ = {"everyone": {}, "consent": set(), "abandoned": (), "began": None, "minutes": {"UTC": 12 * 60}, **more}
    return Circumstances(shown=exposures, **given_)


def limited(
    plain: Catalogue,
    *,
    app: Limits | None = None,
    stage: Limits | None = None,
    nudge: Limits | None = None,
    **more: Any,
) -> Catalogue:
    """The app with limits at the three places; of the stage `look` and its nudge `help`."""
    look = plain.stages["look"]
    helped = msgspec.structs.replace(look.nudges["help"], limits=nudge or Limits(), **more)
    look = msgspec.structs.replace(look, limits=stage or Limits(), nudges={**look.nudges, "help": helped})
    return msgspec.structs.replace(plain, limits=app or Limits(), stages={**plain.stages, "look": look})


def why(catalogue: Catalogue, circumstances: Circumstances, name: str = "help") -> str | None:
    return refused(catalogue, "look", NOW, circumstances).get(name)


def test_an_app_without_limits_refuses_nothing(plain: Catalogue) -> None:
    assert refused(plain, "look", NOW, around({("look", "help"): [1] * 50})) == {}


def test_what_a_user_declined_is_refused_and_nothing_else(plain: Catalogue) -> None:
    declined = around({})._replace(declined=("look.help", "other.more"))
    assert refused(plain, "look", NOW, declined) == {"help": DECLINED}


@pytest.mark.parametrize(
    ("limits", "agos", "reason"),
    [
        (Limits(per_day=2), [DAY - 1], None),
        (Limits(per_day=2), [DAY, 1], None),
        (Limits(per_day=2), [DAY - 1, 1], "cap: 2 {} per day"),
        (Limits(per_week=1), [7 * DAY], None),
        (Limits(per_week=1), [7 * DAY - 1], "cap: 1 {} per week"),
        (Limits(total=3), [99 * DAY, 9 * DAY], None),
        (Limits(total=3), [99 * DAY, 9 * DAY, 1], "cap: 3 {} per user"),
        (Limits(cool_down="2h"), [2 * HOUR], None),
        (Limits(cool_down="2h"), [2 * HOUR - 1, 9 * HOUR], "cool-down: 2h {}"),
        (Limits(per_visit=1), [30 * MINUTE], None),
        (Limits(per_visit=1), [30 * MINUTE - 1], "cap: 1 {} per visit"),
    ],
)
@pytest.mark.parametrize("place", ["app", "stage", "nudge"])
def test_a_cap_counts_what_it_says_where_it_stands(
    plain: Catalogue, place: str, limits: Limits, agos: list[int], reason: str | None
) -> None:
    catalogue = limited(plain, **{place: limits})
    where = {"app": "of the app", "stage": "of stage look", "nudge": "of this nudge"}[place]
    expected = reason.format(where) if reason else None
    elsewhere: dict[str, CapScope] = {
        "app": ("basket", "reminder"),
        "stage": ("look", "few_left"),
        "nudge": ("look", "help"),
    }
    assert why(catalogue, around({elsewhere[place]: agos})) == expected
    beside: dict[str, CapScope] = {
        "app": ("old", "gone"),
        "stage": ("basket", "reminder"),
        "nudge": ("look", "few_left"),
    }
    if place != "app":
        assert why(catalogue, around({beside[place]: agos})) is None


def test_a_visit_begins_when_the_journey_says(plain: Catalogue) -> None:
    catalogue = limited(plain, nudge=Limits(per_visit=1))
    assert (
        why(catalogue, around({("look", "help"): [5 * HOUR]}, began=NOW - 6 * HOUR)) == "cap: 1 of this nudge per visit"
    )
    assert why(catalogue, around({("look", "help"): [5 * HOUR]}, began=NOW - 5 * HOUR)) is not None
    assert why(catalogue, around({("look", "help"): [5 * HOUR]}, began=NOW - 5 * HOUR + 1)) is None


def test_an_exposure_that_lapsed_does_not_count(plain: Catalogue) -> None:
    catalogue = limited(plain, nudge=Limits(total=1))
    lapsed = around()._replace(shown={("look", "help"): [Exposure(NOW - 5, NOW)]})
    waiting = around()._replace(shown={("look", "help"): [Exposure(NOW - 5, NOW + 1)]})
    assert why(catalogue, lapsed) is None
    assert why(catalogue, waiting) == "cap: 1 of this nudge per user"


def test_a_cap_on_everyone_counts_all_users_at_its_place(plain: Catalogue) -> None:
    cap = Limits(everyone=GlobalCap(most=10, per="1d"))
    for place, key in (("app", ("", "")), ("stage", ("look", "")), ("nudge", ("look", "help"))):
        catalogue = limited(plain, **{place: cap})
        assert why(catalogue, around(everyone={key: 9})) is None
        assert (why(catalogue, around(everyone={key: 10})) or "").endswith("for all users per 1d")


@pytest.mark.parametrize(
    ("begin", "end", "clock", "rests"),
    [
        ("22:00", "07:00", "21:59", False),
        ("22:00", "07:00", "22:00", True),
        ("22:00", "07:00", "00:00", True),
        ("22:00", "07:00", "06:59", True),
        ("22:00", "07:00", "07:00", False),
        ("13:00", "14:30", "13:00", True),
        ("13:00", "14:30", "14:30", False),
        ("13:00", "14:30", "02:00", False),
    ],
)
def test_quiet_hours_rest_on_the_clock_of_their_zone(
    plain: Catalogue, begin: str, end: str, clock: str, rests: bool
) -> None:
    catalogue = limited(plain, app=Limits(quiet=QuietHours(begin=begin, end=end, timezone="Asia/Tokyo")))
    minutes = {"UTC": 0, "Asia/Tokyo": int(clock[:2]) * 60 + int(clock[3:])}
    assert why(catalogue, around(minutes=minutes)) == (f"quiet hours: {begin} to {end} Asia/Tokyo" if rests else None)
    other = Limits(quiet=QuietHours(begin=begin, end=end, timezone="Asia/Tokyo", formats=["push"]))
    assert why(limited(plain, app=other), around(minutes=minutes)) is None  # `help` is a banner


def test_consent_is_needed_flag_by_flag(plain: Catalogue) -> None:
    catalogue = limited(plain, consent=["mail", "profile"])
    assert why(catalogue, around()) == "no consent: mail, profile"
    assert why(catalogue, around(consent={"mail"})) == "no consent: profile"
    assert why(catalogue, around(consent={"mail", "profile"})) is None


def test_repeat_abandoners_get_no_discount(plain: Catalogue) -> None:
    catalogue = limited(plain, abandoned=AbandonmentLimit(most=1, within="30d"))
    assert why(catalogue, around(abandoned=(NOW - 5,))) is None
    assert why(catalogue, around(abandoned=(NOW - 30 * DAY, NOW - 5))) is None
    assert why(catalogue, around(abandoned=(NOW - 30 * DAY + 1, NOW - 5))) == (
        "repeat abandoner: 2 visits abandoned in 30d, at most 1"
    )


def test_of_an_exclusive_group_one_is_shown(plain: Catalogue) -> None:
    group = [ExclusionRule(among=["look.help", "mail"], within="2d")]
    catalogue = msgspec.structs.replace(plain, exclusive=group)
    news, own = ("later", "news"), ("look", "help")
    assert why(catalogue, around({news: [2 * DAY - 1]})) == "excluded by later.news, shown within 2d"
    assert why(catalogue, around({news: [2 * DAY]})) is None
    assert why(catalogue, around({own: [5]})) is None  # the same one may come again
    assert why(catalogue, around({("basket", "reminder"): [5], ("old", "gone"): [5]})) is None
    assert why(catalogue, around({news: [5]}), "few_left") is None


@given(
    st.dictionaries(st.sampled_from(PLACES), st.lists(st.integers(0, 9 * DAY), max_size=6), max_size=4),
    st.fixed_dictionaries({k: st.none() | st.integers(1, 4) for k in ("per_day", "per_week", "total")}),
    st.sampled_from(["app", "stage", "nudge"]),
)
def test_what_is_not_refused_is_within_every_cap(plain: Catalogue, shown: Any, caps: Any, place: str) -> None:
    """Counted a second time."""
    catalogue = limited(plain, **{place: Limits(**caps)})
    mine = {"app": PLACES, "stage": PLACES[:2], "nudge": PLACES[:1]}[place]
    times = [ago for p in mine for ago in shown.get(p, [])]
    counts = {"per_day": sum(t < DAY for t in times), "per_week": sum(t < 7 * DAY for t in times), "total": len(times)}
    full = any(most is not None and counts[key] >= most for key, most in caps.items())
    assert (why(catalogue, around(shown)) is not None) == full


def test_a_compressed_clock_compresses_every_span(plain: Catalogue) -> None:
    catalogue = limited(plain, nudge=Limits(per_day=1, cool_down="1h"))
    shown = around({("look", "help"): [100 * 1_000_000]})
    assert refused(catalogue, "look", NOW, shown)["help"] == "cap: 1 of this nudge per day"
    assert refused(catalogue, "look", NOW, shown, scale=1e-3) == {}


@pytest.mark.parametrize(
    ("age", "reason"), [(0, None), (600, None), (601, "not fresh"), (-299, None), (-301, "not fresh")]
)
def test_a_claim_needs_fresh_evidence(plain: Catalogue, age: int, reason: str | None) -> None:
    proof = ClaimEvidence(stock=3, as_of=NOW - age * 1_000_000)
    found = eligible(
        plain.stages["look"], holdout=False, proof=proof, include=None, exclude=(), refused={}, now=NOW
    ).excluded.get("few_left")
    assert (found or "").startswith(reason or "") == (reason is not None or not found)
    assert (found is None) == (reason is None)


def test_the_users_own_clock_counts_before_that_of_the_quiet_hours(plain: Catalogue) -> None:
    catalogue = limited(plain, app=Limits(quiet=QuietHours(begin="22:00", end="07:00", timezone="Asia/Tokyo")))
    night, noon = {"Asia/Tokyo": 23 * 60}, {"Asia/Tokyo": 12 * 60}
    at = LocalTime("America/Lima", 12 * 60)
    assert why(catalogue, around(minutes=night)) == "quiet hours: 22:00 to 07:00 Asia/Tokyo"
    assert why(catalogue, around(minutes=night, local=at)) is None
    asleep = around(minutes=noon, local=at._replace(minute=6 * 60 + 59))
    assert why(catalogue, asleep) == "quiet hours: 22:00 to 07:00 America/Lima"


def test_a_cool_down_of_nothing_is_none(plain: Catalogue) -> None:
    catalogue = limited(plain, nudge=Limits(cool_down="0s"))
    assert why(catalogue, around({("look", "help"): [NOW]})) is None
    parse(f'{TEXT}\n[limits]\ncool_down = "0m"\n')


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ('[limits.quiet]\nfrom = "25:00"\nto = "07:00"', "limits.quiet.from"),
        ('[limits.quiet]\nfrom = "07:00"\nto = "07:00"', "limits.quiet.to"),
        ('[limits]\ncool_down = "soon"', "limits.cool_down"),
        ('[limits.everyone]\nmost = 5\nper = "0s"', "limits.everyone.per"),
        ('[[exclusive]]\namong = ["help"]\nwithin = "0s"', "exclusive[0].within"),
        ("[limits]\nper_day = 0", "limits.per_day"),
        ("[limits]\nper_day = 101", "limits.per_day"),
        ("[limits]\nper_year = 1", "limits.per_year"),
        ('[limits.everyone]\nmost = 5\nper = "d"', "limits.everyone.per"),
        ('[[exclusive]]\namong = ["discount"]\nwithin = "1d"', "exclusive[0].among"),
        ('[[exclusive]]\namong = ["help"]\nwithin = "1"', "exclusive[0].within"),
    ],
)
def test_a_mistake_in_a_limit_is_named(table: str, field: str) -> None:
    tomllib.loads(table)
    with pytest.raises(CatalogueError) as caught:
        parse(f"{TEXT}\n{table}\n")
    assert field in [mistake.field for mistake in caught.value.mistakes]
