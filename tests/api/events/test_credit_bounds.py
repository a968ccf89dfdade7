"""Reports of a person with more decisions than are looked at are credited as if all were: whatever comes late, twice,
at the same time, under an id that is joined later, or at the edge of a window.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.stores import ingest
from api.stores.protocol import Store
from bandit.records import Event, Outcome
from tests.api.events.test_events_contract import (
    HOUR,
    MINUTE,
    START,
    Ledger,
    decision,
    each_store,
    event,
    opened,
    user,
)

LOOKED, WHOLE = 4, 1000
STAGES = ("basket", "look", "pay")
SECOND = 1_000_000
GAPS = (0, 0, 1, *[SECOND] * 12, MINUTE, HOUR, 2 * HOUR - 1, 2 * HOUR, 24 * HOUR, 72 * HOUR - 1, 72 * HOUR)


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.sampled_from(STAGES), st.sampled_from(["ann", "ann", "anon"])),
        st.tuples(st.just("look"), st.integers(1, 4), st.just("ann")),  # so many decisions of that stage
        st.tuples(
            st.sampled_from(["ordered", "ordered", "added", "refunded", "seen"]),
            st.sampled_from(["A", "B", "C"]),
            st.sampled_from([0, 0, 0, 1, SECOND, HOUR, 3 * HOUR]),  # how late it comes
        ),
        st.tuples(st.just("again"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("join"), st.just(""), st.just(0)),
    ),
    min_size=12,
    max_size=45,
)
gaps = st.lists(st.sampled_from(GAPS), min_size=45, max_size=45)


@each_store
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=150,
    deadline=None,
    derandomize=True,
)
@given(steps, gaps)
def test_what_is_looked_at_for_reports_changes_no_credit(
    kind: str, tmp_path: Path, story: Sequence[tuple[str, Any, Any]], pauses: Sequence[int]
) -> None:
    """Two ledgers are told the same, one that looks at five decisions of each id, and one that looks at all. They are
    compared until the second one credits a report to a decision that the first is not promised to look at.
    """
    if kind == "sqlite" and len(story) % 4:  # a file each is slow: a quarter of the histories
        return
    with opened(kind, tmp_path) as bounded, opened(kind, tmp_path) as full:
        told = list[Event]()
        now, made = 0, 0
        for i, ((what, which, detail), pause) in enumerate(zip(story, pauses, strict=False)):
            now += pause
            if what in ("decide", "look"):
                many, stage = (1, which) if what == "decide" else (which, what)
                for ledger in (bounded, full):
                    ledger.decided(*(decision(made + 1 + k, stage, detail, now + k) for k in range(many)))
                made, now = made + many, now + many
                continue
            if what == "again" and not told:
                continue
            one = told[which % len(told)] if what == "again" else _event(i, what, which, now - detail)
            told.append(one)
            before = _said(full)
            for ledger, number in ((bounded, LOOKED), (full, WHOLE)):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(ingest, "DECISIONS", number)
                    ledger.take(one, now=START + now)
            if {number for number, _ in _said(full) - before} & _left_out(full):
                return
            assert _said(bounded) == _said(full)


def _event(i: int, what: str, key: str, at: int) -> Event:
    if what == "join":
        return event(f"e{i}", "viewed", "ann", at, "anon", product="shoe")
    if what == "seen":
        return event(f"e{i}", "seen", at=at, promotion="trust")
    return event(f"e{i}", what, at=at, **({"order": key} if what != "added" else {"product": key}))


def _said(ledger: Ledger) -> set[tuple[int, Outcome]]:
    """Outcomes, each with the number of its decision."""
    return {(found.seq, outcome) for found in ledger.store.decisions() for outcome in found.outcomes}


def _left_out(ledger: Ledger) -> set[int]:
    """Numbers of decisions that are before the newest LOOKED + 1 of an id of the person."""
    decisions = list(ledger.store.decisions())
    ids = ledger.store.person(user("ann"), 0).ids
    bounds = [numbers[-LOOKED - 1] for one in ids if len(numbers := _numbers(decisions, one)) > LOOKED]
    return {found.seq for found in decisions if found.seq < max(bounds, default=0)}


def _numbers(decisions: Iterable[Any], one: bytes) -> list[int]:
    return sorted(found.seq for found in decisions if found.decision.user == one)


def test_an_order_keeps_its_decision_when_that_is_not_looked_at_any_more(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is newer than all decisions that are left out, and its own is one of them."""
    monkeypatch.setattr(ingest, "DECISIONS", 8)
    ledger.decided(decision(1), *(decision(n, "look", at=n * SECOND) for n in range(2, 6)))
    ledger.take(event("order", "ordered", at=5 * SECOND + 1, order="A"), now=START + 6 * SECOND)
    before = ledger.outcomes()
    assert before == {1: [("event:order", "reward", 1.0)]}
    ledger.decided(*(decision(n, "look", at=n * SECOND) for n in range(6, 12)))
    ledger.take(event("cart", "added", at=12 * SECOND), now=START + 12 * SECOND)
    assert ledger.outcomes() == before | {11: [("event:cart", "reward", 1.0)]}


def test_what_came_before_all_that_is_looked_at_still_says_when_an_order_was_and_takes_it_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order from before every decision is credited to none, also when it is told again. A refund that came before
    its order takes it back. Why the first report was credited to nothing is not said anew.
    """
    monkeypatch.setattr(ingest, "DECISIONS", 8)
    first = [event("first", "ordered", at=1, order="A"), event("refund", "refunded", at=2, order="B")]
    for told in first:
        ledger.take(told)
    reasons = {(miss.report.event, miss.report.stage): miss.report.reason for miss in ledger.store.missed(9)}
    ledger.decided(*(decision(n, at=n * SECOND) for n in range(1, 12)))
    again = event("again", "ordered", at=12 * SECOND, order="A")
    assert ledger.take(again, now=START + HOUR).credits["again"].missed["basket"].reason == "same fact"
    assert ledger.outcomes() == {}
    assert {
        (miss.report.event, miss.report.stage): miss.report.reason for miss in ledger.store.missed(9)
    }.items() >= reasons.items()
    ledger.take(event("order", "ordered", at=12 * SECOND, order="B"), now=START + HOUR)
    assert [kind for _, kind, _ in ledger.outcomes()[11]] == ["reward", "retraction"]
