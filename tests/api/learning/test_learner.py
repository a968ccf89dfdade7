"""The writer thread learns: at maturity, by the rules of each stage, and the same whatever the order."""

import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.ledger import audit
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.model import Catalogue
from bandit.records import Decision, Outcome
from tests.waiting import eventually

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]
Decide = Callable[..., Decision]
Report = Callable[..., Outcome]

START = 1_760_000_000_000_000
HOUR = 3600


def copies(decision: Decision, numbers: Sequence[int]) -> list[Decision]:
    return [msgspec.structs.replace(decision, id=uuid.UUID(int=n)) for n in numbers]


def learned(store: Store, stage: str = "signup") -> float:
    """Decisions in the stored belief of a stage."""
    spec = audit.stages(store)[stage]
    (result,) = audit.rebuild(store, {stage: spec})
    assert result.equal
    return float(sum(epoch.n.sum() for epoch in result.stored.epochs))


# -- learning --------------------------------------------------------------------------------------------------


def test_a_decision_is_learned_when_its_window_ends_and_not_before(working: Working, later: Later) -> None:
    store = MemoryStore()
    with working(store) as desk:
        arm = desk.ask(1).nudge.id
        desk.report(1)
        later(HOUR - 1e-6)
        assert desk.learn()["signup"][0] == 0
        later(1e-6)
        assert desk.learn()["signup"][0] == 1
        snapshot = desk.worker.prepared["signup"].snapshot
    (found,) = store.decisions()
    assert found.settlement is not None
    assert (found.settlement.reward, found.settlement.why, found.settlement.at) == (1.0, "reward", START + HOUR * 10**6)
    index = snapshot.stage_spec.arms.index(arm)
    assert (snapshot.belief.n[index], snapshot.belief.reward[index], snapshot.belief.n.sum()) == (1.0, 1.0, 1.0)
    assert learned(store) == 1


def test_it_learns_by_itself_while_nobody_writes(working: Working, later: Later) -> None:
    with working(MemoryStore()) as desk:
        desk.ask(1)
        later(HOUR)
        assert eventually(lambda: desk.worker.prepared["signup"].snapshot.version == 1)


def test_what_was_learned_changes_the_next_decision(working: Working, later: Later) -> None:
    with working(MemoryStore()) as desk:
        before = desk.ask(1000, user="x").propensities
        for n in range(1, 60):
            if desk.ask(n).nudge.id == "tip":
                desk.report(n)
        later(HOUR)
        desk.learn()
        after = desk.ask(1001, user="x").propensities
        assert after["tip"] > before["tip"] + 0.2
        assert desk.ask(1000, user="x").propensities == before  # what was decided stays


@pytest.mark.parametrize(
    ("stage", "reports", "reward", "why", "is_learned"),
    [
        ("signup", [], 0.0, "silence", True),
        ("signup", [("reward", None)], 1.0, "reward", True),
        ("signup", [("reward", 1.0), ("retraction", None)], 0.0, "retraction", True),
        ("instant", [("activation", None)], 0.0, "silence", True),
        ("instant", [("reward", 900.0)], 100.0, "reward", True),  # clipped to the declared range
        ("shown", [], 5.0, "not activated", False),
        ("shown", [("activation", None)], 5.0, "silence", True),
        ("shown", [("activation", None), ("reward", 20.0), ("retraction", 12.5)], 7.5, "reward", True),
        ("shown", [("reward", 20.0)], 20.0, "not activated", False),
    ],
)
def test_a_decision_ends_as_its_stage_declares(
    working: Working, later: Later, stage: str, reports: list[Any], reward: float, why: str, is_learned: bool
) -> None:
    store = MemoryStore()
    with working(store) as desk:
        desk.ask(1, stage)
        for kind, value in reports:
            desk.report(1, kind, value)
        later(2 * HOUR)
        desk.learn()
    done = [(s.reward, s.why, s.learned) for f in store.decisions() if (s := f.settlement)]
    assert done == [(reward, why, is_learned)]
    assert learned(store, stage) == is_learned


def test_a_late_outcome_is_recorded_and_changes_nothing_learned(working: Working, later: Later) -> None:
    store = MemoryStore()
    with working(store) as desk:
        desk.ask(1)
        later(HOUR)
        before = desk.learn()
        assert desk.report(1).late
        later(HOUR)
        assert desk.learn() == before
    assert store.counts()._asdict() == {"decisions": 1, "outcomes": 1, "settlements": 1, "pending": 0}


def test_waiting_for_the_learner_waits_for_all_that_matured(working: Working, decide: Decide, later: Later) -> None:
    """More than one batch of the learner."""
    store = MemoryStore()
    with working(store) as desk:

        async def fill() -> None:
            await desk.worker.submit(copies(decide(1), range(1, 9001)))

        desk.run(fill())
        later(HOUR)
        assert desk.learn()["signup"][0] == 9000
    assert learned(store) == 9000


def test_a_restart_goes_on_with_the_stored_belief_without_reading_the_log(
    working: Working, later: Later, tmp_path: Path
) -> None:
    class NoLog(SqliteStore):
        """Refuses to be rebuilt from."""

        def settled(self, stage: str, through: int | None = None, after: int = 0) -> Any:
            raise AssertionError((stage, through, after))

        def decisions(self, stage: str | None = None, since: int = 0, after: int = 0) -> Any:
            raise AssertionError((stage, since, after))

    store = SqliteStore(tmp_path / "ledger.db")
    with working(store) as desk:
        for n in range(1, 8):
            desk.ask(n, age=n)
            desk.report(n)
        later(HOUR)
        before = desk.learn()
    store.close()
    again = NoLog(tmp_path / "ledger.db")
    with working(again) as desk:
        assert desk.learn() == before
        assert desk.ask(8).policy_version == before["signup"][0] == 7
    again.close()


def test_a_stage_that_was_removed_waits_and_does_not_keep_the_others_from_learning(
    working: Working, catalogue: Catalogue, decide: Decide, later: Later
) -> None:
    """However many of its decisions are due, and before all others."""
    store = MemoryStore()
    with working(store) as desk:

        async def fill() -> None:
            await desk.worker.submit(copies(decide(1, "instant"), range(1, 4202)))

        desk.run(fill())
    later(2 * HOUR)
    without = {name: stage for name, stage in catalogue.stages.items() if name != "instant"}
    with working(store, msgspec.structs.replace(catalogue, stages=without)) as desk:
        desk.ask(9000)
        later(HOUR)
        assert desk.learn()["signup"][0] == 1
        assert store.counts().pending == 4201
    with working(store) as desk:
        assert desk.learn()["instant"][0] == 4202
    assert learned(store, "instant") == 4201


# -- the same belief, whatever the order -----------------------------------------------------------------------

ASKED = [(n, ("signup", "basket", "shown", "instant")[n % 4]) for n in range(1, 17)]
REPORTS: list[tuple[int, str, float | None, str]] = [
    *((n, "reward", float(n % 3 == 0), "r") for n, stage in ASKED if stage in ("signup", "basket")),
    *((n, "activation", None, "a") for n, stage in ASKED if stage == "shown"),
    *((n, "reward", 3.7 * n, "r") for n, stage in ASKED if stage in ("shown", "instant")),
    (2, "reward", 1 / 3, "r2"),
    (2, "reward", 0.1, "r3"),
    (2, "retraction", 0.2, "part"),
    (6, "retraction", None, "all"),
    (8, "retraction", None, "all"),
]  # fmt: skip


def play(desk: Any, later: Later, asked: Sequence[Any], reports: Sequence[Any], pauses: int) -> Any:
    """All decisions, all reports with the learner let in now and then, maturity, everything again. What is known."""
    for n, stage in asked:
        desk.ask(n, stage, user=f"user {n}", **({"age": 5 * n} if stage == "signup" else {}))
    for i, report in enumerate(reports, 1):
        desk.report(*report)
        if pauses and i % pauses == 0:
            later(1)
            desk.learn()
    later(2 * HOUR)
    beliefs = {name: digest for name, (_, digest) in desk.learn().items()}
    for report in reports:
        assert desk.report(*report).duplicate
    later(2 * HOUR)
    assert {name: digest for name, (_, digest) in desk.learn().items()} == beliefs
    return beliefs, desk.store.counts()


@pytest.fixture
def expected(working: Working, hands: Any) -> Any:
    with working(MemoryStore()) as desk:
        return play(desk, hands.move, ASKED, REPORTS, pauses=0)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(ASKED), st.permutations(REPORTS), st.lists(st.sampled_from(REPORTS)), st.integers(0, 7))
def test_shuffled_and_repeated_outcomes_end_in_the_same_belief(
    working: Working, hands: Any, expected: Any, asked: Any, reports: Any, repeated: Any, pauses: int
) -> None:
    hands.now = START
    mixed = list(reports)
    for i, report in enumerate(repeated):
        mixed.insert(i * 7919 % (len(mixed) + 1), report)
    with working(MemoryStore()) as desk:
        assert play(desk, hands.move, asked, mixed, pauses) == expected


def test_the_same_belief_from_a_file_as_from_memory_in_another_order(
    working: Working, hands: Any, expected: Any, tmp_path: Path
) -> None:
    hands.now = START
    rng = random.Random(7)
    reports = rng.sample(REPORTS * 2, 2 * len(REPORTS))
    store = SqliteStore(tmp_path / "ledger.db")
    with working(store) as desk:
        assert play(desk, hands.move, rng.sample(ASKED, len(ASKED)), reports, 5) == expected
    store.close()
