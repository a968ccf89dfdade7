"""The journey is a function of the events: any order, any batching, the same state; moments are what they say."""

import itertools
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError, InvalidRequest
from bandit.journey import folding
from bandit.journey.folding import JourneyFold, JourneyState
from bandit.records import Event

TEXT = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")
START = 1_760_000_000_000_000
SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
NAMES = ("step", "signed", "viewed", "added", "paying", "ordered", "refunded", "identified", "nudge_declined", "")


@pytest.fixture(scope="module")
def rules() -> JourneyFold:
    return folding.rules(parse(TEXT))


def event(name: str, at: int, id_: str = "", **properties: Any) -> Event:
    return Event(
        id=id_ or f"{name}-{at}", user=b"u", at=START + at, received=START + at, name=name, properties=properties
    )


def moment(rules: JourneyFold, events: list[Event], at: int) -> str | None:
    state = folding.fold(rules, events) if events else None
    return folding.read(rules, state, START + at).moment


gaps = st.sampled_from(
    [0, SECOND, 29 * SECOND, 31 * SECOND, 9 * MINUTE, 11 * MINUTE, 29 * MINUTE, 31 * MINUTE, 3 * HOUR, 8 * DAY]
)
steps = st.tuples(gaps, st.sampled_from(NAMES), st.sampled_from(["a", "b", None]))
stories = st.lists(steps, min_size=1, max_size=40)


def told(story: list[tuple[int, str, str | None]]) -> list[Event]:
    at, found = 0, []
    for i, (gap, name, product) in enumerate(story):
        at += gap
        about = {"viewed": "product", "added": "product", "nudge_declined": "nudge"}.get(name)
        properties = {about: product} if product and about else {}
        found.append(event(name, at, f"e{i:03d}", **properties))
    return found


def test_what_a_user_declined_is_remembered_for_ever_and_once(rules: JourneyFold) -> None:
    said = [event("nudge_declined", at, nudge=nudge) for at, nudge in ((1, "b.y"), (2, "a.x"), (3, "b.y"))]
    later = [event("viewed", DAY * i, product=f"p{i}") for i in range(1, 300)]
    state = folding.fold(rules, [*later, *said, event("nudge_declined", 4)])
    assert state.declined == ("b.y", "a.x")
    assert folding.properties(rules, rules.named["Nudge Declined"], {"nudge": "a.x", "more": 1}, str).values == {
        "nudge": "a.x"
    }


def test_no_app_declares_an_event_that_every_app_has() -> None:
    for more in (
        '[journey.events.nudge_declined]\nnames = ["No"]\n',
        '[journey.events.no]\nnames = ["Nudge Declined"]\n',
    ):
        with pytest.raises(CatalogueError) as error:
            parse(TEXT + more)
        assert "nudge_declined" in str(error.value)


# -- the fold ----------------------------------------------------------------------------------------------------


@given(stories, st.data())
def test_the_state_does_not_depend_on_the_order_of_arrival(rules: JourneyFold, story: Any, data: st.DataObject) -> None:
    events = told(story)
    assert folding.fold(rules, data.draw(st.permutations(events))) == folding.fold(rules, events)


@given(stories, st.integers(0, 40))
def test_folding_on_equals_folding_from_scratch(rules: JourneyFold, story: Any, cut: int) -> None:
    """Also after the state went through its bytes."""
    events = told(story)
    head, tail = events[:cut], events[cut:]
    whole = folding.fold(rules, events)
    if not head or not tail:
        return
    state = folding.fold(rules, head)
    assert folding.follows(rules, state, tail)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=JourneyState)
    assert folding.fold(rules, tail, kept) == whole


def test_an_event_that_happened_before_the_last_one_does_not_follow(rules: JourneyFold) -> None:
    state = folding.fold(rules, [event("viewed", 10, "m")])
    assert not folding.follows(rules, state, [event("viewed", 9)])
    assert not folding.follows(rules, state, [event("viewed", 10, "a")])
    assert not folding.follows(rules, state, [event("viewed", 20), event("viewed", 5)])
    assert folding.follows(rules, state, [event("viewed", 10, "z")])
    assert not folding.follows(rules, None, [event("viewed", 10)])
    assert not folding.follows(rules, msgspec.structs.replace(state, rules="of old"), [event("viewed", 20)])


def test_a_state_stays_small_whatever_the_number_of_events(rules: JourneyFold) -> None:
    """10,000 events about 10,000 products: under 4 KB."""
    state = folding.fold(rules, [event("viewed", i * MINUTE, product=f"product-{i}") for i in range(10_000)])
    assert state.seen["viewed"].count == state.count == 10_000
    assert len(msgspec.msgpack.encode(state)) < 4096


@given(stories)
def test_visits_counts_and_the_stage_are_what_a_person_would_count(rules: JourneyFold, story: Any) -> None:
    events = told(story)
    state = folding.fold(rules, events)
    pauses = [b.at - a.at > 30 * MINUTE for a, b in itertools.pairwise(events)]
    assert state.visits == 1 + sum(pauses)
    assert state.began == ([events[0].at] + [e.at for e, new in zip(events[1:], pauses, strict=True) if new])[-1]
    assert {n: s.count for n, s in state.seen.items()} == {
        n: sum(e.name == n for e in events) for n in {e.name for e in events} - {""}
    }
    stages = {n: r.stage for n, r in rules.catalogue.journey.events.items() if r.stage}
    assert state.stage == ([rules.start] + [stages[e.name] for e in events if e.name in stages])[-1]


# -- moments -----------------------------------------------------------------------------------------------------


@given(stories, gaps)
def test_moments_hold_exactly_when_their_words_say_so(rules: JourneyFold, story: Any, later: int) -> None:
    """Against the rules written a second time, over the whole list of events."""
    events = told(story)
    now = events[-1].at + later
    state = folding.fold(rules, events)
    found = folding.read(rules, state, now)
    expected = {
        "start": ("returns", _returns(events, now)),
        "look": ("hesitates", _hesitates(events, now)),
        "basket": ("idle", _since(events, now, "added", 10 * MINUTE, 7 * DAY) and now - events[-1].at >= 10 * MINUTE),
        "pay": ("lingers", _since(events, now, "paying", 30 * SECOND, HOUR)),
        "later": ("week", _since(events, now, "ordered", 7 * DAY, 10**18, without=())),
    }
    name, holds = expected[found.stage]
    assert found.moment == (name if holds else None), found


def _since(
    events: list[Event], now: int, name: str, after: int, until: int, without: tuple[str, ...] = ("ordered",)
) -> bool:
    last = max((e.at for e in events if e.name == name), default=None)
    if last is None or any(e.name in without and e.at >= last for e in events):
        return False
    return after <= now - last <= until


def _hesitates(events: list[Event], now: int) -> bool:
    views = [e for e in events if e.name == "viewed"]
    product = views[-1].properties.get("product") if views else None
    if product is None:
        return False
    cut = max((e.at for e in events if e.name == "added" and e.properties.get("product") == product), default=-1)
    same = [e for e in views[-32:] if e.properties.get("product") == product]
    return sum(e.at > cut and e.at >= now - 7 * DAY for e in same) >= 3


def _returns(events: list[Event], now: int) -> bool:
    began = [e.at for i, e in enumerate(events) if i == 0 or e.at - events[i - 1].at > 30 * MINUTE][-1]
    left = max((e.at for e in events if e.name == "step" and e.at < began), default=None)
    if left is None or now - events[-1].at > 30 * MINUTE:
        return False
    if any(e.name == "signed" and e.at >= left for e in events):
        return False
    return 2 * HOUR <= began - left <= 30 * DAY


def test_three_views_of_one_product_and_not_of_three(rules: JourneyFold) -> None:
    same = [event("viewed", i * MINUTE, product="shoe") for i in range(3)]
    mixed = [event("viewed", i * MINUTE, product=p) for i, p in enumerate("abc")]
    assert moment(rules, same[:2], 3 * MINUTE) is None
    assert moment(rules, same, 3 * MINUTE) == "hesitates"
    assert moment(rules, mixed, 3 * MINUTE) is None
    assert moment(rules, same, 8 * DAY) is None  # within 7 days


def test_adding_another_product_does_not_end_a_hesitation_but_moves_the_stage(rules: JourneyFold) -> None:
    views = [event("viewed", i * MINUTE, product="shoe") for i in range(3)]
    other, back = event("added", 4 * MINUTE, product="hat"), event("viewed", 5 * MINUTE, product="shoe")
    assert moment(rules, [*views, other], 5 * MINUTE) is None
    assert moment(rules, [*views, other, back], 6 * MINUTE) == "hesitates"
    assert moment(rules, [*views, event("added", 4 * MINUTE, product="shoe"), back], 6 * MINUTE) is None


def test_why_says_which_rule_holds(rules: JourneyFold) -> None:
    state = folding.fold(rules, [event("viewed", i * MINUTE, product="shoe") for i in range(3)])
    found = folding.read(rules, state, START + 3 * MINUTE)
    assert found == ("look", "hesitates", "viewed came 3 times about the same, without added")
    assert folding.read(rules, None, START) == ("start", None, "no event of this user is known")


# -- facts and properties ------------------------------------------------------------------------------------------


def test_facts_give_the_features_and_leave_out_what_would_not_fit(rules: JourneyFold) -> None:
    stage = rules.catalogue.stages["look"]
    views = [
        event("viewed", i * MINUTE, product="shoe", price="19.90" if i else "none", colour="red" if i < 2 else "green")
        for i in range(3)
    ]
    found = folding.features(rules, stage, folding.fold(rules, views), START + 4 * MINUTE)
    assert found == {"views": 3.0, "price": 19.9, "minutes": 4.0, "visits": 1.0, "bought": False}
    assert folding.features(rules, stage, None, START) == {}


def test_only_declared_properties_are_kept(rules: JourneyFold) -> None:
    sent = {"product_id": "p" * 64, "price": 5, "details": {"colour": "red"}, "email": "a@b.c"}
    assert folding.properties(rules, "viewed", sent, str).values == {"product": "p" * 64, "price": 5.0, "colour": "red"}
    for bad in ("p" * 65, ["x"], {"x": 1}, float("nan"), 10**400, 1e16):
        values, notes = folding.properties(rules, "viewed", {"details": {"colour": bad}}, str)
        assert values == {}
        assert [note.partition(" ")[0] for note in notes] == ["properties.details.colour"]
    assert folding.properties(rules, "", sent, str).values == {}


@pytest.mark.parametrize("sent", [1001, 1001.0, "1001"])
def test_an_id_is_one_text_whatever_type_it_came_in(rules: JourneyFold, sent: object) -> None:
    assert folding.properties(rules, "ordered", {"order_id": sent}, str).values["order"] == "1001"


@pytest.mark.parametrize("sent", ["x" * 65, "x" * 256, 10**16, 10**30, 12.5, " 7 ", "ÄÖ"])
def test_a_long_id_is_an_id(rules: JourneyFold, sent: object) -> None:
    assert folding.properties(rules, "ordered", {"order_id": sent}, str).values["order"] == str(sent)


@pytest.mark.parametrize("sent", ["x" * 257, True, ["1"], {"id": 1}, 10**300, float("inf")])
def test_what_cannot_be_an_id_is_refused_and_not_read_as_absent(rules: JourneyFold, sent: object) -> None:
    if isinstance(sent, float):
        sent = [sent]
    with pytest.raises(InvalidRequest, match=r"properties\.order_id"):
        folding.properties(rules, "ordered", {"order_id": sent}, str)


@pytest.mark.parametrize("sent", [None, ""])
def test_no_id_is_none(rules: JourneyFold, sent: object) -> None:
    assert folding.properties(rules, "ordered", {"order_id": sent}, str).values == {"order": None}
    assert folding.properties(rules, "ordered", {}, str).values == {}


@pytest.mark.parametrize("sent", [["50"], {"amount": 5}, "5" * 65, 1e16])
def test_an_amount_that_cannot_be_kept_is_unreadable_and_not_missing(rules: JourneyFold, sent: object) -> None:
    assert folding.properties(rules, "ordered", {"revenue": sent}, str).values == {"revenue": folding.UNREADABLE}


def test_a_currency_is_kept_where_it_is_not_the_apps(rules: JourneyFold) -> None:
    def kept(currency: object) -> object:
        return folding.properties(rules, "ordered", {"currency": currency}, str).values.get(folding.CURRENCY)

    assert [kept(c) for c in ("USD", "usd", rules.catalogue.currency, "", None)] == ["USD", "USD", None, None, None]
    for bad in (5, "dollars and cents"):
        with pytest.raises(InvalidRequest, match=r"properties\.currency"):
            kept(bad)
    assert folding.properties(rules, "viewed", {"currency": "USD"}, str).values == {}  # it carries no amount


def test_null_takes_an_earlier_value_away(rules: JourneyFold) -> None:
    given, taken = event("viewed", 0, colour="red"), event("viewed", MINUTE, colour=None)
    assert folding.fold(rules, [given, taken]).seen["viewed"].properties["colour"] is None
    assert folding.fold(rules, [taken, event("viewed", 0)]).seen["viewed"].properties == {"colour": None}


def test_events_about_a_placeholder_are_about_nothing_in_particular(rules: JourneyFold) -> None:
    views = [event("viewed", i * MINUTE, product=word) for i, word in enumerate(["undefined", "0", "null"])]
    state = folding.fold(rules, views)
    assert {key for _, key in state.seen["viewed"].recent} == {None}
    assert folding.read(rules, state, START + 5 * MINUTE).moment is None


def test_an_abandoned_visit_is_counted_when_the_next_one_begins(rules: JourneyFold) -> None:
    added, back = event("added", 0), event("viewed", 3 * HOUR)
    assert folding.fold(rules, [added]).abandoned == ()
    assert folding.fold(rules, [added, back]).abandoned == (added.at,)
    assert folding.fold(rules, [added, event("ordered", 1), back]).abandoned == ()
    assert folding.fold(rules, [added, back, event("viewed", 6 * HOUR)]).abandoned == (added.at,)


def test_consent_is_what_was_said_last(rules: JourneyFold) -> None:
    yes, no = event("identified", 0, mail=True), event("identified", 1, mail=False)
    assert folding.flags(rules, folding.fold(rules, [yes])) == {"mail"}
    assert folding.flags(rules, folding.fold(rules, [no, yes])) == set()
    assert folding.flags(rules, None) == set()


# -- declarations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("journey.visit", "soon", "journey.visit"),
        ("journey.start", "cellar", "journey.start"),
        ("journey.events.viewed.key", "sku", "journey.events.viewed.key"),
        ("journey.events.viewed.stage", "cellar", "journey.events.viewed.stage"),
        ("journey.events.viewed.names", ["Product Added"], "journey.events.added.names"),
        ("journey.events.viewed.names", [], "journey.events.viewed.names"),
        ("journey.abandoned.event", "ran", "journey.abandoned"),
        ("journey.consent.mail.property", "sms", "journey.consent.mail"),
        ("stages.look.moments.hesitates.event", "vieved", "stages.look.moments.hesitates"),
        ("stages.look.moments.hesitates.without", ["ran"], "stages.look.moments.hesitates"),
        ("stages.look.moments.hesitates.times", 31, "stages.look.moments.hesitates.times"),
        ("stages.look.moments.hesitates.kind", "sometimes", "stages.look.moments.hesitates.kind"),
        ("stages.basket.moments.idle.after", "8d", "stages.basket.moments.idle.until"),
        ("stages.basket.moments.idle.after", "10", "stages.basket.moments.idle.after"),
        ("stages.look.derived.view", {"kind": "visits"}, "stages.look.derived.view"),
        ("stages.look.derived.views", {"kind": "ever", "event": "viewed"}, "stages.look.derived.views"),
        ("stages.look.derived.price.property", "cost", "stages.look.derived.price"),
        (
            "stages.start.derived.steps",
            {"kind": "count", "event": "step", "same": True},
            "stages.start.derived.steps.same",
        ),
        ("stages.look.outcomes.ran", {"kind": "reward"}, "stages.look.outcomes.ran"),
        ("stages.later.outcomes.ordered", {"kind": "reward"}, "stages.later.outcomes.ordered.value"),
        ("stages.basket.outcomes.refunded.value", "amount", "stages.basket.outcomes.refunded.value"),
        ("stages.basket.outcomes.refunded.of", "added", "stages.basket.outcomes.refunded.of"),
        ("stages.basket.outcomes.ordered.of", "added", "stages.basket.outcomes.ordered.of"),
        ("stages.pay.outcomes.seen.by", "banner", "stages.pay.outcomes.seen.by"),
    ],
)
def test_a_mistake_in_a_declaration_is_named_with_its_fix(path: str, value: Any, field: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse(changed(path, value))
    (mistake,) = [m for m in caught.value.mistakes if m.field == field]
    assert mistake.problem
    assert mistake.fix


def changed(path: str, value: Any) -> str:
    """The catalogue as TOML of one inline table for each top-level key, with one value replaced."""
    raw = tomllib.loads(TEXT)
    table = raw
    *steps, last = path.split(".")
    for step in steps:
        table = table[step]
    table[last] = value
    return "\n".join(f"{key} = {_toml(inner)}" for key, inner in raw.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_the_helper_above_changes_nothing_else() -> None:
    assert parse(changed("journey.visit", "30m")) == parse(TEXT)


def test_a_personal_property_is_kept_as_its_hash_whatever_form_it_was_sent_in() -> None:
    declared = TEXT.replace('order = "order_id"', 'order = { name = "order_id", personal = true }')
    declared = declared.replace('price = "price"', 'price = "price", colours = { name = "colours", personal = true }')
    rules = folding.rules(parse(declared))

    def kept(event_: str, sent: dict[str, Any]) -> dict[str, Any]:
        return folding.properties(rules, event_, sent, lambda text: f"<{text}>").values

    assert [kept("ordered", {"order_id": sent}) for sent in (1001, 1001.0, "1001")] == [{"order": "<1001>"}] * 3
    assert kept("ordered", {"order_id": "o" * 256}) == {"order": f"<{'o' * 256}>"}
    assert kept("ordered", {"order_id": "null"}) == {"order": "null"}  # it identifies no order, hashed or not
    assert kept("ordered", {"order_id": None}) == kept("ordered", {"order_id": ""}) == {"order": None}
    colours = ("red", 5, True, None)
    found = [kept("viewed", {"colours": colour}) for colour in colours]
    assert found == [{"colours": "<red>"}, {"colours": "<5>"}, {"colours": "<True>"}, {"colours": None}]
    assert kept("viewed", {"colours": "c" * 65, "price": 5}) == {"price": 5.0}


@pytest.mark.parametrize(
    ("plain", "personal", "path", "problem"),
    [
        ('price = "price"', 'price = { name = "price", personal = true }', "stages.look.derived.price", "a feature"),
        (
            '= "revenue" }\nkey',
            '= { name = "revenue", personal = true } }\nkey',
            "stages.later.outcomes.ordered.value",
            "an amount",
        ),
        ('"promotion_id"', '{ name = "promotion_id", personal = true }', "stages.pay.outcomes.seen.by", "the name of"),
        ('"wants_mail"', '{ name = "wants_mail", personal = true }', "journey.consent.mail", "a consent"),
        (
            'order = "order_id", revenue',
            'order = { name = "order_id", personal = true }, revenue',
            "stages.basket.outcomes.refunded.of",
            "only one of them is personal",
        ),
        (
            'product = "product_id", price',
            'product = { name = "product_id", personal = true }, price',
            "stages.look.moments.hesitates",
            "only one of them is personal",
        ),
        (
            'product = "product_id", price',
            'product = "product_id", copy = { name = "product_id", personal = true }, price',
            "journey.events.viewed.properties.copy",
            "'product_id' is personal, and properties.product keeps its value as it was sent",
        ),
        (
            'order = "order_id", revenue',
            'order = "order_id", code = { name = "currency", personal = true }, revenue',
            "journey.events.ordered.properties.code",
            "'currency' is personal, and currency keeps its value as it was sent",
        ),
        ("mobile = { ", "mobile = { personal = true, ", "stages.look.features.mobile.personal", "is learned from"),
        ('"email"', "{ personal = true }", "journey.events.viewed.properties.mail.name", "missing"),
        ('"email"', "3", "journey.events.viewed.properties.mail", "Expected"),
    ],
)
def test_what_must_be_read_is_not_personal(plain: str, personal: str, path: str, problem: str) -> None:
    text = TEXT.replace('price = "price"', 'price = "price", mail = "email"')
    with pytest.raises(CatalogueError) as error:
        parse(text.replace(plain, personal))
    assert path in {one.field for one in error.value.mistakes}
    assert all(problem in one.problem for one in error.value.mistakes)


def test_a_value_is_personal_twice_or_is_another_events() -> None:
    twice = ', copies = { name = "details.mail", personal = true }, mail = { name = "details.mail", personal = true }'
    text = TEXT.replace('price = "price"', f'price = "price"{twice}')
    text = text.replace('"wants_mail"', '"wants_mail", code = { name = "currency", personal = true }')  # of no amount
    events = parse(text).journey.events
    assert [events["viewed"].is_personal(name) for name in ("copies", "mail")] == [True, True]
    assert events["identified"].is_personal("code")
