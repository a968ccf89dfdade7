"""Which decision an event speaks about: the last one before it within its window, each credit once, in any order."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit import journey
from bandit.attribution import Candidate, Credited, attribute
from bandit.catalogue import parse
from bandit.journey import Rules
from bandit.records import Event

TEXT = (Path(__file__).parents[1] / "journey_shop.toml").read_text(encoding="utf-8")
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def rules() -> Rules:
    return journey.rules(parse(TEXT))


def decision(n: int, stage: str, hour: float, hours: float = 72, activated: float | None = None) -> Candidate:
    at = round(hour * HOUR)
    arm = {"basket": "reminder", "pay": "trust", "later": "news", "look": "help"}[stage]
    shown = None if activated is None else round(activated * HOUR)
    return Candidate(uuid.UUID(int=n), stage, arm, at, at + round(hours * HOUR), shown)


def event(name: str, hour: float, id_: str = "", **properties: Any) -> Event:
    at = round(hour * HOUR)
    return Event(id=id_ or f"{name}@{hour}", user=b"u", at=at, received=at, name=name, properties=properties)


def credited(
    rules: Rules, events: Sequence[Event], decisions: Sequence[Candidate], done: dict[Any, uuid.UUID] | None = None
) -> list[tuple[str, str, int, str, float | None]]:
    found = attribute(rules, events, decisions, done or {})
    return [(c.event, c.stage, c.decision.int, c.kind, c.value) for c in found]


def test_a_reward_goes_to_the_last_decision_before_it_within_its_window(rules: Rules) -> None:
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


def test_one_event_may_be_the_reward_of_several_stages_once_each(rules: Rules) -> None:
    decisions = [decision(1, "basket", 0), decision(2, "later", 1)]
    order = event("ordered", 2, "e", revenue="49.50")
    first = credited(rules, [order], decisions)
    assert first == [("e", "basket", 1, "reward", 1.0), ("e", "later", 2, "reward", 49.5)]
    done = {(e, stage): uuid.UUID(int=n) for e, stage, n, _, _ in first}
    assert credited(rules, [order], [*decisions, decision(3, "basket", 1)], done) == []


def test_a_reward_without_its_amount_is_none(rules: Rules) -> None:
    for revenue in ({}, {"revenue": "free"}, {"revenue": True}):
        assert credited(rules, [event("ordered", 2, **revenue)], [decision(2, "later", 1)]) == []


def test_a_refund_finds_its_order_by_key_even_if_it_came_first(rules: Rules) -> None:
    decisions = [decision(1, "basket", 0), decision(2, "basket", 10)]
    orders = [event("ordered", 5, "o1", order="A"), event("ordered", 15, "o2", order="B")]
    refund = event("refunded", 30, "r", order="A")
    assert credited(rules, [refund], decisions) == []
    assert credited(rules, [refund, *orders], decisions) == [
        ("o1", "basket", 1, "reward", 1.0),
        ("o2", "basket", 2, "reward", 1.0),
        ("r", "basket", 1, "retraction", 1.0),
    ]
    early = event("refunded", 1, "r", order="B")  # clocks differ: before its order
    assert credited(rules, [early, *orders], decisions)[-1] == ("r", "basket", 2, "retraction", 1.0)
    assert credited(rules, [event("refunded", 30, "r", order="C"), *orders], decisions)[2:] == []


def test_an_order_is_taken_back_once_however_often_its_refund_is_told(rules: Rules) -> None:
    order = event("ordered", 5, "o", order="A")
    refunds = [event("refunded", 6 + i, f"r{i}", order="A") for i in range(3)]
    found = credited(rules, [order, *refunds], [decision(1, "basket", 0)])
    assert [c[0] for c in found] == ["o", "r0"]
    done = {("o", "basket"): uuid.UUID(int=1), ("r1", "basket"): uuid.UUID(int=1)}
    assert credited(rules, [order, *refunds], [decision(1, "basket", 0)], done) == []


def test_parts_of_a_continuous_reward_are_taken_back_one_by_one(rules: Rules) -> None:
    order = event("ordered", 5, "o", order="A", revenue=100.0)
    refunds = [event("refunded", 6 + i, f"r{i}", order="A", amount=30.0) for i in range(2)]
    found = credited(rules, [order, *refunds], [decision(1, "later", 0)])
    assert [(c[0], c[4]) for c in found] == [("o", 100.0), ("r0", 30.0), ("r1", 30.0)]


def test_a_reward_passes_over_what_waits_for_its_activation_if_it_can(rules: Rules) -> None:
    """Of a stage whose decisions count as shown: one that was only prefetched does not take the reward away."""
    seen, prefetched = decision(1, "basket", 0), decision(2, "basket", 1)._replace(deferred=True)
    order = event("ordered", 5)
    assert [c[2] for c in credited(rules, [order], [seen, prefetched])] == [1]
    assert [c[2] for c in credited(rules, [order], [prefetched])] == [2]  # recorded, and not learned
    shown = prefetched._replace(activated=2 * HOUR)
    assert [c[2] for c in credited(rules, [order], [seen, shown])] == [2]
    assert [c[2] for c in credited(rules, [event("ordered", 1.5)], [seen, shown])] == [1]  # before it was shown


def test_an_activation_names_the_nudge_or_the_decision(rules: Rules) -> None:
    decisions = [decision(1, "pay", 0, 2), decision(2, "pay", 1, 2)]
    for promotion, expected in (("trust", [2]), (str(uuid.UUID(int=1)), [1]), ("banner", []), (None, [2])):
        given_ = {"promotion": promotion} if promotion else {}
        assert [c[2] for c in credited(rules, [event("seen", 1.5, **given_)], decisions)] == expected


def test_where_showing_is_reported_a_reward_goes_to_what_was_shown(rules: Rules) -> None:
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
    rules: Rules, story: Any, questions: Any, data: st.DataObject
) -> None:
    events = [
        event(name, hour, f"e{i:02d}", order=order, promotion=promotion)
        for i, (name, hour, order, promotion) in enumerate(story)
    ]
    decisions = [decision(i + 1, stage, hour) for i, (stage, hour) in enumerate(questions)]
    whole = list(attribute(rules, events, decisions, {}))
    assert list(attribute(rules, data.draw(st.permutations(events)), decisions, {})) == whole
    done = {(c.event, c.stage): c.decision for c in whole}
    assert len(done) == len(whole)
    assert list(attribute(rules, events, decisions, done)) == []
    _check(whole, decisions)


def _check(found: list[Credited], decisions: list[Candidate]) -> None:
    by_id = {d.id: d for d in decisions}
    net: dict[uuid.UUID, float] = {}
    for c in found:
        d = by_id[c.decision]
        assert d.stage == c.stage
        if c.kind != "retraction":
            assert d.at <= c.occurred < d.expires
        if c.kind != "activation":
            net[d.id] = net.get(d.id, 0.0) + (c.value or 0.0) * (1 if c.kind == "reward" else -1)
    assert all(value >= 0.0 for value in net.values())
