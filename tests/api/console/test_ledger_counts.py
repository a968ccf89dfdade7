"""The counts that pages show are those of the ledger, whatever happens to it, and cost what was added."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from api.console import ledger_counts
from api.console.ledger_counts import ACTION, ArmCounts, LedgerCounts, StageCounts, kind_of
from api.learning import holdout
from api.stores.decision_log import DecisionTallies
from api.stores.protocol import Store
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.guardrails import DAY
from journey_bandit.testing.store_builders import CATALOGUE, STAGES
from tests.api.conftest import Desk
from tests.waiting import eventually

Working = Callable[..., AbstractContextManager[Desk]]
HOUR = 3600.0
GRACE = CATALOGUE.replace('window = "1h", value = 10.0', 'window = "1h", value = 10.0, grace = "2h"')


def by_hand(store: Store, stage: str) -> StageCounts:
    """The same counts, by reading every decision."""
    found, people = StageCounts(), set[bytes]()
    for record in store.decisions(stage):
        made, done = record.decision, record.settlement
        arm = found.arms.setdefault(made.arm, ArmCounts())
        arm.shown += 1
        arm.asked += made.is_actionable
        found.held += made.holdout
        found.not_now += not made.is_actionable
        found.days.setdefault(made.at // DAY, Counter())[made.arm] += 1
        if not made.is_remainder:
            people.add(made.user)
        for nudge, reason in made.excluded.items():
            found.arms.setdefault(nudge, ArmCounts()).excluded[kind_of(reason)] += 1
        if done is not None:
            arm.settled += 1
            arm.learned += done.learned
            arm.reward += done.reward if done.learned else 0.0
    found.people = len(people)
    return found


def fill(desk: Desk, later: Callable[[float], int], people: int = 12) -> None:
    """Decisions at every stage on two days, some rewarded, some settled by silence, some still open."""
    for n in range(people):
        for place, stage in enumerate(STAGES):
            number = 100 * n + place + 1
            desk.ask(number, stage, user=f"u{n % 7}")
            if n % 3 == 0 and stage != "shown":
                desk.report(number, value=1.0)
            if n % 4 == 0 and stage == "shown":
                desk.report(number, "activation", name="seen")
        if n == people // 2:
            later(20 * HOUR)
    desk.learn()


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_counts, "SLICE", 5)


def test_counts_are_those_of_the_ledger(
    store: Store, working: Working, catalogue: Catalogue, later: Callable[[float], int]
) -> None:
    counts = LedgerCounts(store, lambda: catalogue)
    with working(store) as desk:
        for _ in range(2):
            fill(desk, later) if not store.counts().decisions else desk.ask(5000, user="new")
            assert counts.catch_up(30.0).complete
            for stage in STAGES:
                assert counts.stage(stage) == by_hand(store, stage)
    signup = counts.stage("signup")
    assert (signup.people, signup.whole.shown, len(signup.days)) == (8, 13, 2)
    assert 0 < signup.whole.settled < signup.whole.shown
    assert signup.whole.open == 13 - signup.whole.settled
    assert signup.arms["offer"].excluded == {"no evidence": 13}
    assert store.counts().pending == sum(counts.stage(stage).whole.open for stage in STAGES)
    assert counts.stage("nobody's") == StageCounts()


def test_a_correction_changes_the_reward_and_no_number_of_decisions(
    store: Store, working: Working, later: Callable[[float], int]
) -> None:
    graceful = parse(GRACE)
    counts = LedgerCounts(store, lambda: graceful)
    with working(store, graceful) as desk:
        desk.ask(1)
        later(HOUR)
        desk.learn()
        counts.catch_up(30.0)
        before = counts.stage("signup").whole
        assert (before.settled, before.learned, before.reward) == (1, 1, 0.0)
        desk.report(1, value=1.0)
        desk.learn()
        counts.catch_up(30.0)
        after = counts.stage("signup").whole
        assert (after.settled, after.learned, after.reward, after.open) == (1, 1, 1.0, 0)
        assert counts.stage("signup") == by_hand(store, "signup")


def test_after_an_erasure_the_ledger_is_counted_again(desk: Any, later: Callable[[float], int]) -> None:
    with desk() as client:
        for user in ("ann", "bob", "ann"):
            client.ask(user=user)
        assert client.page("/console/stages/signup").fact("People") == "2"
        assert client.delete("/v1/users/ann?forget=true").status_code == 200
        assert eventually(lambda: client.page("/console/stages/signup").fact("People") == "1")
        page = client.page("/console/stages/signup")
        assert (page.fact("Decisions"), page.fact("Open")) == ("1", "1")


def test_while_it_counts_it_says_how_far_it_is(
    store: Store, working: Working, catalogue: Catalogue, later: Callable[[float], int]
) -> None:
    counts = LedgerCounts(store, lambda: catalogue)
    with working(store) as desk:
        fill(desk, later)
    found = counts.catch_up(0.0)
    assert (found.complete, found.counted.decision, found.newest.decision) == (False, 5, 48)
    assert 0.0 < found.share < 1.0
    assert sum(counts.stage(stage).whole.shown for stage in STAGES) == 5
    assert counts.catch_up(30.0).complete


def test_the_audit_of_a_large_ledger_is_left_to_the_pauses_of_counting(
    store: Store, working: Working, catalogue: Catalogue, later: Callable[[float], int], monkeypatch: Any
) -> None:
    """However little of it is counted, a page does not wait for it."""
    monkeypatch.setattr(ledger_counts, "_SMALL", 20)
    counts = LedgerCounts(store, lambda: catalogue)
    with working(store) as desk:
        fill(desk, later)
    counts.catch_up(0.0)
    assert counts.progress.counted.settlement < 20 < counts.progress.newest.settlement
    assert counts.audits() == ({}, None)
    counts.catch_up(30.0)
    assert counts.audits() == ({}, None)
    counts._look()
    found, age = counts.audits()
    assert found["basket"] == holdout.audit_of(store, "basket", catalogue.stages["basket"])
    assert age is not None


def test_each_row_is_read_once(
    store: Store, working: Working, catalogue: Catalogue, later: Callable[[float], int], monkeypatch: Any
) -> None:
    counts, ranges, tally = LedgerCounts(store, lambda: catalogue), list[tuple[int, int]](), store.tally_decisions

    def seen(after: int, through: int) -> DecisionTallies:
        ranges.append((after, through))
        return tally(after, through)

    monkeypatch.setattr(store, "tally_decisions", seen)
    with working(store) as desk:
        fill(desk, later)
        counts.catch_up(30.0)
        desk.ask(5000)
        counts.catch_up(30.0)
        counts.catch_up(30.0)
    assert ranges[0][0] == 0
    assert [after for after, _ in ranges[1:]] == [through for _, through in ranges[:-1]]
    assert ranges[-1] == (48, 49)


def test_it_looks_by_itself_and_ends_with_the_service(
    store: Store, working: Working, catalogue: Catalogue, later: Callable[[float], int]
) -> None:
    counts = LedgerCounts(store, lambda: catalogue)

    async def run() -> None:
        async with counts.running():
            await asyncio.sleep(0.05)
            assert counts.progress.counted.decision == 0, "nobody has looked"
            counts.look_on()
            async with asyncio.timeout(30):
                while not counts.progress.complete or counts.progress.counted.decision < 48:
                    await asyncio.sleep(0.01)

    with working(store) as desk:
        fill(desk, later)
        desk.run(run())
    assert counts.stage("basket") == by_hand(store, "basket")


def test_actions_of_requests_are_counted_together() -> None:
    assert ledger_counts._named("rank", "an action of a client", {"rank"}) == ACTION
    assert ledger_counts._named("signup", "tip", {"rank"}) == "tip"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("cap: 1 of this nudge per 7d", "cap"),
        ("no consent: push", "no consent"),
        ("paused", "paused"),
        ("", ""),
        ("paused by key ana, for eva: refunds", "paused by"),
        ("taken by slot 'top'", "taken by slot"),
    ],
)
def test_reasons_are_counted_by_kind(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind


def test_many_users_are_counted_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_counts, "_PENDING", 10)
    found, hashes = ledger_counts._UserSet(), [n.to_bytes(8, "big") * 2 for n in range(100)]
    for start in range(0, 100, 7):
        found.add(set(hashes[start : start + 14]))
    assert len(found) == 100
