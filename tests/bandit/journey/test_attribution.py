"""Which decision an event speaks about: the last one before it within its window, each credit once, in any order."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue.loading import parse
from bandit.journey import folding
from bandit.journey.attribution import Attribution, CreditableDecision, CreditedOutcome, CreditState, attribute
from bandit.journey.folding import JourneyFold
from bandit.records import Event

TEXT = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def rules() -> JourneyFold:
    return folding.rules(parse(TEXT))


def decision(n: int, stage: str, hour: float, hours: float = 72, activated: float | None = None) -> CreditableDecision:
    at = round(hour * HOUR)
    arm = {"basket": "reminder", "pay": "trust", "later": "news", "look": "help"}[stage]
    shown = None if activated is None else round(activated * HOUR)
    return CreditableDecision(uuid.UUID(int=n), stage, arm, at, at + round(hours * HOUR), shown)


def event(name: str, hour: float, id_: str = "", **properties: Any) -> Event:
    at = round(hour * HOUR)
    return Event(id=id_ or f"{name}@{hour}", user=b"u", at=at, received=at, name=name, properties=properties)


def credited(
    rules: JourneyFold,
    events: Sequence[Event],
    decisions: Sequence[CreditableDecision],
    done: Mapping[tuple[str, str], CreditState] | None = None,
) -> list[tuple[str, str, int, str, float | None]]:
    found = attribute(rules, events, decisions, done or {})
    return [(c.event, c.stage, c.decision.int, c.kind, c.value) for c in found.credited]


def in_force(
    found: Attribution, before: Mapping[tuple[str, str], CreditState] | None = None
) -> dict[tuple[str, str], CreditState]:
    """The credits after what was found is recorded, as a store keeps them."""
    states = dict(before or {})
    for c in found.credited:
        states[c.event, c.stage] = CreditState(c.decision, "" if c.voids else c.outcome, c.fact, c.changes)
    return states


def missed(
    rules: JourneyFold, events: Sequence[Event], decisions: Sequence[CreditableDecision], stage: str
) -> dict[str, str]:
    return {m.event: m.reason for m in attribute(rules, events, decisions, {}).uncredited if m.stage == stage}


def test_a_reward_goes_to_the_last_decision_before_it_within_its_window(rules: JourneyFold) -> None:
    decisions = [
        decision(1, "basket", 0),
        decision(2, "basket", 10),
        decision(3, "basket", 20),
        decision(4, "look", 11),
    ]
    for hour, expected in ((9.9, 1), (10, 2), (19.9, 2), (20, 3), (91.9, 3)):
        assert credited(rules, [event("ordered", hour, "e")], decisions) == [("e", "basket", expected, "reward", 1.0)]
    for hour in (-0.1, 92, 500):
        assert credited(rules, [event("ordered", hour, "e")], decisions) == []


def test_one_event_may_be_the_reward_of_several_stages_once_each(rules: JourneyFold) -> None:
    decisions = [decision(1, "basket", 0), decision(2, "later", 1)]
    order = event("ordered", 2, "e", revenue="49.50")
    first = credited(rules, [order], decisions)
    assert first == [("e", "basket", 1, "reward", 1.0), ("e", "later", 2, "reward", 49.5)]
    done = in_force(attribute(rules, [order], decisions, {}))
    assert credited(rules, [order], decisions, done) == []


def test_a_reward_without_its_amount_is_none(rules: JourneyFold) -> None:
    for revenue in ({}, {"revenue": "free"}, {"revenue": True}):
        assert credited(rules, [event("ordered", 2, **revenue)], [decision(2, "later", 1)]) == []


def test_a_refund_finds_its_order_by_key_even_if_it_came_first(rules: JourneyFold) -> None:
    decisions = [decision(1, "basket", 0), decision(2, "basket", 10)]
    orders = [event("ordered", 5, "o1", order="A"), event("ordered", 15, "o2", order="B")]
    refund = event("refunded", 30, "r", order="A")
    assert credited(rules, [refund], decisions) == []
    assert credited(rules, [refund, *orders], decisions) == [
        ("o1", "basket", 1, "reward", 1.0),
        ("o2", "basket", 2, "reward", 1.0),
        ("r", "basket", 1, "retraction", None),
    ]
    early = event("refunded", 1, "r", order="B")  # clocks differ: before its order
    assert credited(rules, [early, *orders], decisions)[-1] == ("r", "basket", 2, "retraction", None)
    assert credited(rules, [event("refunded", 30, "r", order="C"), *orders], decisions)[2:] == []


def test_an_order_is_taken_back_once_however_often_its_refund_is_told(rules: JourneyFold) -> None:
    order = event("ordered", 5, "o", order="A")
    refunds = [event("refunded", 6 + i, f"r{i}", order="A") for i in range(3)]
    found = credited(rules, [order, *refunds], [decision(1, "basket", 0)])
    assert [c[0] for c in found] == ["o", "r0"]
    done = in_force(attribute(rules, [order, refunds[1]], [decision(1, "basket", 0)], {}))
    assert credited(rules, [order, *refunds], [decision(1, "basket", 0)], done) == []


def test_parts_of_a_continuous_reward_are_taken_back_one_by_one(rules: JourneyFold) -> None:
    order = event("ordered", 5, "o", order="A", revenue=100.0)
    refunds = [event("refunded", 6 + i, f"r{i}", order="A", amount=30.0) for i in range(2)]
    found = credited(rules, [order, *refunds], [decision(1, "later", 0)])
    assert [(c[0], c[4]) for c in found] == [("o", 100.0), ("r0", 30.0), ("r1", 30.0)]


def test_a_reward_passes_over_what_waits_for_its_activation_if_it_can(rules: JourneyFold) -> None:
    """Of a stage whose decisions count as shown: one that was only prefetched does not take the reward away."""
    seen, prefetched = decision(1, "basket", 0), decision(2, "basket", 1)._replace(deferred=True)
    order = event("ordered", 5)
    assert [c[2] for c in credited(rules, [order], [seen, prefetched])] == [1]
    assert [c[2] for c in credited(rules, [order], [prefetched])] == [2]  # recorded, and not learned
    shown = prefetched._replace(activated=2 * HOUR)
    assert [c[2] for c in credited(rules, [order], [seen, shown])] == [2]
    assert [c[2] for c in credited(rules, [event("ordered", 1.5)], [seen, shown])] == [1]  # before it was shown


def test_an_activation_names_the_nudge_or_the_decision(rules: JourneyFold) -> None:
    decisions = [decision(1, "pay", 0, 2), decision(2, "pay", 1, 2)]
    for promotion, expected in (("trust", [2]), (str(uuid.UUID(int=1)), [1]), ("banner", []), (None, [2])):
        given_ = {"promotion": promotion} if promotion else {}
        assert [c[2] for c in credited(rules, [event("seen", 1.5, **given_)], decisions)] == expected


def test_an_opt_out_goes_to_what_was_shown_last_and_stays_there() -> None:
    events = """[journey.events.seen]
"""
    declared = """[journey.events.muted]
names = ["Muted"]
[journey.events.seen]
"""
    text = TEXT.replace(events, declared).replace(
        "[stages.later]", 'outcomes.muted = { kind = "opt_out" }\n\n[stages.later]', 1
    )
    rules = folding.rules(parse(text))
    decisions = [decision(1, "pay", 0, activated=0.1), decision(2, "pay", 1)]
    muted = event("muted", 1.5, "m")
    found = attribute(rules, [muted], decisions, {})
    assert [(c.event, c.decision.int, c.kind, c.value) for c in found.credited] == [("m", 1, "opt_out", None)]
    seen = event("seen", 1.2, "s", promotion=str(uuid.UUID(int=2)))
    assert [c[:3] for c in credited(rules, [muted, seen], decisions)] == [("s", "pay", 2), ("m", "pay", 2)]
    assert [c[:3] for c in credited(rules, [muted, seen], decisions, in_force(found))] == [("s", "pay", 2)]
    assert missed(rules, [event("muted", 99.0, "m")], decisions, "pay") == {"m": "no open decision"}
    nothing = decision(3, "pay", 1.4, activated=1.41)._replace(arm="none")
    assert [c[2] for c in credited(rules, [muted], [decisions[0], nothing])] == [1]  # "none" annoyed nobody
    assert [c[2] for c in credited(rules, [muted], [nothing])] == [3]


def test_an_opt_out_that_is_told_twice_under_one_key_counts_once() -> None:
    declared = """[journey.events.muted]
names = ["Muted"]
properties = { list = "list" }
key = "list"
[journey.events.seen]
"""
    text = TEXT.replace("[journey.events.seen]\n", declared).replace(
        "[stages.later]", 'outcomes.muted = { kind = "opt_out" }\n\n[stages.later]', 1
    )
    rules = folding.rules(parse(text))
    decisions = [decision(1, "pay", 0, activated=0.1), decision(2, "pay", 1, activated=1.1)]
    page, office = event("muted", 0.5, "page", list="mails"), event("muted", 1.5, "office", list="mails")
    other = event("muted", 1.6, "other", list="push")
    found = attribute(rules, [page, office, other], decisions, {})
    assert [(c.event, c.decision.int) for c in found.credited] == [("page", 1), ("other", 2)]
    assert [(m.event, m.reason) for m in found.uncredited] == [("office", "same fact")]
    again = attribute(rules, [page, office, other], decisions, in_force(found))
    assert again.credited == []


def test_where_showing_is_reported_a_reward_goes_to_what_was_shown(rules: JourneyFold) -> None:
    shown, later = decision(1, "pay", 0, activated=0.1), decision(2, "pay", 1)
    order = event("ordered", 1.5, "o")
    assert credited(rules, [order], [shown, later]) == [("o", "pay", 1, "reward", 1.0)]
    assert credited(rules, [order], [decision(1, "pay", 0), later]) == [("o", "pay", 2, "reward", 1.0)]
    seen = event("seen", 1.2, "s", promotion=str(uuid.UUID(int=1)))
    assert [c[2] for c in credited(rules, [order, seen], [decision(1, "pay", 0), later])] == [1, 1]


moves = st.lists(
    st.tuples(
        st.sampled_from(["ordered", "refunded", "seen", "added"]),
        st.integers(0, 200),
        st.sampled_from(["A", "B", "C"]),
        st.sampled_from(["trust", "banner"]),
    ),
    max_size=12,
)
asked = st.lists(st.tuples(st.sampled_from(["basket", "pay", "look"]), st.integers(0, 150)), max_size=8)


@given(moves, asked, st.data())
def test_credits_do_not_depend_on_the_order_of_events_and_are_given_once(
    rules: JourneyFold, story: Any, questions: Any, data: st.DataObject
) -> None:
    events = [
        event(name, hour, f"e{i:02d}", order=order, promotion=promotion)
        for i, (name, hour, order, promotion) in enumerate(story)
    ]
    decisions = [decision(i + 1, stage, hour) for i, (stage, hour) in enumerate(questions)]
    whole = attribute(rules, events, decisions, {})
    assert attribute(rules, data.draw(st.permutations(events)), decisions, {}) == whole
    done = in_force(whole)
    assert len(done) == len(whole.credited)
    assert attribute(rules, events, decisions, done).credited == []
    _check(whole.credited, decisions)
    assert {(c.event, c.stage) for c in whole.credited}.isdisjoint((m.event, m.stage) for m in whole.uncredited)


@given(moves, asked, st.data())
def test_credits_in_the_end_do_not_depend_on_what_was_heard_first(
    rules: JourneyFold, story: Any, questions: Any, data: st.DataObject
) -> None:
    """Rewards and what is taken back, by decision; activations stay where they were credited, so they come first."""
    events = [
        event(name, hour, f"e{i:02d}", order=order) for i, (name, hour, order, _) in enumerate(story) if name != "seen"
    ]
    decisions = [decision(i + 1, stage, hour) for i, (stage, hour) in enumerate(questions)]
    end = in_force(attribute(rules, events, decisions, {}))
    heard, states = list[Event](), dict[tuple[str, str], CreditState]()
    for one in data.draw(st.permutations(events)):
        heard.append(one)
        states = in_force(attribute(rules, heard, decisions, states), states)
    assert _counted(states) == _counted(end)


def _counted(states: Mapping[tuple[str, str], CreditState]) -> set[tuple[str, uuid.UUID, str]]:
    """What is credited, without which of two reports of one refund is."""
    return {(stage, s.decision, s.fact) for (_, stage), s in states.items() if s.outcome}


def _check(found: list[CreditedOutcome], decisions: list[CreditableDecision]) -> None:
    by_id = {d.id: d for d in decisions}
    net: dict[uuid.UUID, float] = {}
    for c in found:
        d = by_id[c.decision]
        assert d.stage == c.stage
        if c.kind != "retraction":
            assert d.at <= c.occurred < d.expires
        if c.kind != "activation":
            net[d.id] = net.get(d.id, 0.0) + (1.0 if c.value is None else c.value) * (1 if c.kind == "reward" else -1)
    assert all(value >= 0.0 for value in net.values())


windows = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(1, 40),
        st.sampled_from(["trust", "none"]),
        st.none() | st.integers(0, 60),
    ),
    max_size=8,
)
MUTED = TEXT.replace(
    "[journey.events.seen]\n", '[journey.events.muted]\nnames = ["Muted"]\n[journey.events.seen]\n'
).replace("[stages.later]", 'outcomes.muted = { kind = "opt_out" }\n\n[stages.later]', 1)


@given(windows, st.sampled_from(["ordered", "seen", "muted"]), st.integers(0, 60), st.sampled_from(["", "trust", "2"]))
def test_the_decision_of_a_report_is_the_one_that_a_look_at_all_of_them_finds(
    made: Any, name: str, at: int, named: str
) -> None:
    """Windows of any length: one that was opened before may end after one that was opened later."""
    decisions = [
        decision(i + 1, "pay", hour, hours, shown)._replace(arm=arm) for i, (hour, hours, arm, shown) in enumerate(made)
    ]
    said = {"promotion": str(uuid.UUID(int=2)) if named == "2" else named} if named and name == "seen" else {}
    found = attribute(folding.rules(parse(MUTED)), [event(name, at, "e", **said)], decisions, {})
    best = list[CreditableDecision]()
    for one in sorted(decisions, key=lambda d: (d.at, d.id)):
        if one.at <= at * HOUR < one.expires and (not said or said["promotion"] in (one.arm, str(one.id))):
            best.append(one)
    if name == "muted":
        best = [one for one in best if one.arm != "none"] or best
    if name != "seen":
        best = [one for one in best if one.activated is not None and one.activated <= at * HOUR] or best
    assert [c.decision for c in found.credited if c.stage == "pay"] == [one.id for one in best[-1:]]


class _Counted(CreditableDecision):
    """Decision that counts how often anybody looks when a window ends."""

    looks = 0

    @property
    def expires(self) -> int:
        _Counted.looks += 1
        return self[4]


def test_reports_look_at_the_decisions_that_are_open_and_not_at_all_of_a_person(rules: JourneyFold) -> None:
    """A thousand reports of one person who was asked about 5,000 times: five million looks at each further report held
    up everybody's writes for half a second.
    """
    decisions = [_Counted(*decision(i, "basket", i, 3)) for i in range(1, 5001)]
    orders = [event("ordered", 5 * i + 0.5, f"e{i}", order=f"o{i}") for i in range(1000)]
    _Counted.looks = 0
    assert len(credited(rules, orders, decisions)) == 999  # nothing was open at the first
    assert _Counted.looks < 5000 + 4 * 1000


# -- facts -----------------------------------------------------------------------------------------------------------


def test_an_order_that_two_pages_report_is_one_reward_of_the_first(rules: JourneyFold) -> None:
    decisions = [decision(1, "basket", 0), decision(2, "basket", 10)]
    twice = [event("ordered", 5, "page", order="A"), event("ordered", 15, "office", order="A")]
    assert credited(rules, twice, decisions) == [("page", "basket", 1, "reward", 1.0)]
    assert missed(rules, twice, decisions, "basket")["office"] == "same fact"
    other = event("ordered", 15, "o2", order="B")
    assert [c[0] for c in credited(rules, [*twice, other], decisions)] == ["page", "o2"]


def test_a_reward_moves_to_the_decision_of_a_report_that_comes_late_but_happened_first(rules: JourneyFold) -> None:
    decisions = [decision(1, "basket", 0), decision(2, "basket", 10)]
    page, office = event("ordered", 5, "page", order="A"), event("ordered", 15, "office", order="A")
    before = in_force(attribute(rules, [office], decisions, {}))
    assert before["office", "basket"].decision.int == 2
    found = attribute(rules, [office, page], decisions, before)
    assert [(c.decision.int, c.kind, c.voids) for c in found.credited] == [
        (2, "retraction", "event:office"),
        (1, "reward", ""),
    ]


def test_a_reward_of_a_decision_that_is_settled_stays_there(rules: JourneyFold) -> None:
    decisions = [decision(1, "basket", 0), decision(2, "basket", 10)]
    page, office = event("ordered", 5, "page", order="A"), event("ordered", 15, "office", order="A")
    before = {k: s._replace(final=True) for k, s in in_force(attribute(rules, [office], decisions, {})).items()}
    found = attribute(rules, [office, page], decisions, before)
    assert found.credited == []
    assert {m.event: m.reason for m in found.uncredited if m.stage == "basket"} == {"page": "same fact"}


def test_a_whole_refund_takes_back_what_parts_have_left(rules: JourneyFold) -> None:
    events = [
        event("ordered", 5, "o", order="A", revenue=100.0),
        event("refunded", 6, "part", order="A", amount=-30.0),
        event("refunded", 7, "whole", order="A"),
        event("refunded", 8, "again", order="A"),
    ]
    found = credited(rules, events, [decision(1, "later", 0)])
    assert [(c[0], c[4]) for c in found] == [("o", 100.0), ("part", 30.0), ("whole", None)]
    assert missed(rules, events, [decision(1, "later", 0)], "later")["again"] == "taken back already"


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"order": "A"}, "no value"),
        ({"order": "A", "revenue": ""}, "no value"),
        ({"order": "A", "revenue": "49,90"}, "unreadable value"),
        ({"order": "A", "revenue": "$50"}, "unreadable value"),
        ({"order": "A", "revenue": True}, "unreadable value"),
        ({"order": "A", "revenue": 50.0, folding.CURRENCY: "USD"}, "currency"),
    ],
)
def test_a_reward_that_cannot_be_counted_says_why(rules: JourneyFold, properties: dict[str, Any], reason: str) -> None:
    order = event("ordered", 5, "o", **properties)
    assert missed(rules, [order], [decision(1, "later", 0)], "later")["o"] == reason
    good = event("ordered", 6, "office", order="A", revenue=49.9)  # another report of the same order can be read
    assert credited(rules, [order, good], [decision(1, "later", 0)]) == [("office", "later", 1, "reward", 49.9)]


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({}, "no key"),
        ({"order": "undefined"}, "no key"),
        ({"order": "B"}, "nothing to take back"),
        ({"order": "A", "amount": "20 EUR"}, "unreadable value"),
        ({"order": "A", "amount": 0.0}, "no value"),
        ({"order": "A", "amount": 5.0, folding.CURRENCY: "USD"}, "currency"),
    ],
)
def test_a_refund_that_cannot_be_counted_takes_nothing_back(
    rules: JourneyFold, properties: dict[str, Any], reason: str
) -> None:
    order = event("ordered", 5, "o", order="A", revenue=100.0)
    refund = event("refunded", 6, "r", **properties)
    decisions = [decision(1, "later", 0)]
    assert [c[0] for c in credited(rules, [order, refund], decisions)] == ["o"]
    assert missed(rules, [order, refund], decisions, "later")["r"] == reason


def test_a_reward_of_nobody_and_one_out_of_time_say_so(rules: JourneyFold) -> None:
    order = event("ordered", 500, "o")
    assert missed(rules, [order], [], "basket")["o"] == "no decision"
    assert missed(rules, [order], [decision(1, "basket", 0)], "basket")["o"] == "no open decision"
    seen = event("seen", 1.5, "s", promotion="banner")
    assert missed(rules, [seen], [decision(1, "pay", 0)], "pay")["s"] == "another nudge"


def test_an_amount_in_a_declared_currency_is_converted() -> None:
    rated = folding.rules(parse(TEXT + "\n[rates]\nUSD = 0.5\n"))
    order = event("ordered", 5, "o", order="A", revenue=50.0, **{folding.CURRENCY: "USD"})
    assert credited(rated, [order], [decision(1, "later", 0)]) == [("o", "later", 1, "reward", 25.0)]


def test_ids_recorded_as_numbers_by_earlier_versions_are_the_same_ids(rules: JourneyFold) -> None:
    order, refund = event("ordered", 5, "o", order=1001.0), event("refunded", 6, "r", order="1001")
    assert [c[0] for c in credited(rules, [order, refund], [decision(1, "basket", 0)])] == ["o", "r"]
