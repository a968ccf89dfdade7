"""The writer thread: commits that callers share, a bounded queue, and failures that pass."""

import asyncio
import sqlite3
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import msgspec
import pytest

from api.ledger import audit
from api.stores.decision_log import OutcomeReceipt, RecordedDecision
from api.stores.learning_state import StatisticsUpdate
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from bandit.catalogue.model import Stage
from bandit.errors import Unavailable
from bandit.records import Decision, MaturedDecision, Outcome, Settlement
from tests.waiting import PATIENCE, eventually

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]
Decide = Callable[..., Decision]
Report = Callable[..., Outcome]

START = 1_760_000_000_000_000
HOUR = 3600


class Gated(MemoryStore):
    """Holds transactions until the gate is opened, and remembers how many rows each had."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def record(
        self, decisions: Sequence[Decision], outcomes: Sequence[Outcome], now: int, specs: Mapping[str, Stage]
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        self.sizes.append(len(decisions) + len(outcomes))
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return super().record(decisions, outcomes, now, specs)


class Faulty(MemoryStore):
    """Raises `write` or `learn` while they are set: before it does what it is asked for, or `after`."""

    def __init__(self) -> None:
        super().__init__()
        self.write: Exception | None = None
        self.learn: Exception | None = None
        self.after = False

    def _write(self) -> None:
        if self.write:
            raise self.write

    def set_meta(self, values: Mapping[str, str]) -> None:
        self._write()
        super().set_meta(values)

    def record(
        self, decisions: Sequence[Decision], outcomes: Sequence[Outcome], now: int, specs: Mapping[str, Stage]
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        if not self.after:
            self._write()
        answer = super().record(decisions, outcomes, now, specs)
        self._write()
        return answer

    def settle(
        self, settlements: Sequence[Settlement], updates: Sequence[StatisticsUpdate] = (), standing: Sequence[int] = ()
    ) -> dict[str, int]:
        if self.learn and not self.after:
            raise self.learn
        versions = super().settle(settlements, updates, standing)
        if self.learn:
            raise self.learn
        return versions


def copies(decision: Decision, numbers: Sequence[int]) -> list[Decision]:
    return [msgspec.structs.replace(decision, id=uuid.UUID(int=n)) for n in numbers]


def learned(store: Store, stage: str = "signup") -> float:
    """Decisions in the stored belief of a stage."""
    spec = audit.stages(store)[stage]
    (result,) = audit.rebuild(store, {stage: spec})
    assert result.equal
    return float(sum(epoch.n.sum() for epoch in result.stored.epochs))


# -- commits ---------------------------------------------------------------------------------------------------


def settled(store: Store, many: int) -> bool:
    return store.counts().settlements == many


def test_all_that_queued_during_a_commit_share_the_next_one_and_each_caller_gets_its_own_answer(
    working: Working, decide: Decide, outcome: Report
) -> None:
    store = Gated()
    with working(store) as desk:

        async def scenario() -> Any:
            first = desk.worker.submit([decide(1)])
            assert await asyncio.to_thread(store.entered.wait, 30)
            others = [desk.worker.submit([decide(n), decide(n + 100)], [outcome(n)]) for n in range(2, 42)]
            store.gate.set()
            return await asyncio.gather(first, *others)

        answers = desk.run(scenario())
    assert store.sizes == [1, 120]
    assert [[k.decision.id.int for k in kept] for kept, _ in answers] == [[1]] + [[n, n + 100] for n in range(2, 42)]
    assert [[n.status for n in noted] for _, noted in answers] == [[]] + [["recorded"]] * 40


def test_one_transaction_has_at_most_four_thousand_rows(working: Working, decide: Decide) -> None:
    store = Gated()
    with working(store) as desk:

        async def scenario() -> None:
            jobs = [desk.worker.submit([decide(1)])]
            assert await asyncio.to_thread(store.entered.wait, 30)
            jobs += [desk.worker.submit(copies(decide(1), range(s, s + 1000))) for s in range(1000, 6000, 1000)]
            store.gate.set()
            await asyncio.gather(*jobs)

        desk.run(scenario())
    assert store.sizes == [1, 4000, 1000]


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_has_room(working: Working, decide: Decide) -> None:
    store = Gated()
    with working(store, bound=3) as desk:

        async def scenario() -> None:
            first = desk.worker.submit([decide(1)])
            assert await asyncio.to_thread(store.entered.wait, 30)
            waiting = [desk.worker.submit([decide(n)]) for n in (2, 3, 4)]
            with pytest.raises(Unavailable, match="queue is full"):
                desk.worker.submit([decide(5)])
            with pytest.raises(Unavailable, match="queue is full"):
                desk.worker.submit(learn=True)
            store.gate.set()
            await asyncio.gather(first, *waiting)
            await desk.worker.submit([decide(5)])

        desk.run(scenario())
    assert [f.decision.id.int for f in store.decisions()] == [1, 2, 3, 4, 5]


def test_stopping_commits_what_is_queued_and_takes_nothing_more(working: Working, decide: Decide) -> None:
    store = Gated()
    with working(store) as desk:

        async def queue() -> list[Any]:
            jobs = [desk.worker.submit([decide(1)])]
            assert await asyncio.to_thread(store.entered.wait, 30)
            return jobs + [desk.worker.submit([decide(n)]) for n in range(2, 9)]

        jobs = desk.run(queue())
        threading.Timer(0.05, store.gate.set).start()
        desk.worker.stop()
        assert not desk.worker.alive
        assert store.counts().decisions == 8
        answers = desk.run(asyncio.wait_for(asyncio.gather(*jobs), 5))
        assert [kept[0].decision.id.int for kept, _ in answers] == list(range(1, 9))
        with pytest.raises(Unavailable, match="stopping"):
            desk.ask(9)


def test_a_caller_that_went_away_does_not_keep_the_others_from_their_answer(working: Working, decide: Decide) -> None:
    store = Gated()
    with working(store) as desk:

        async def scenario() -> Any:
            gone, there = desk.worker.submit([decide(1)]), desk.worker.submit([decide(2)])
            gone.cancel()
            store.gate.set()
            return await there

        kept, _ = desk.run(scenario())
        assert kept[0].decision.id.int == 2
        assert desk.ask(3).duplicate is False
    assert store.counts().decisions == 3


# -- failures that pass ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [Unavailable("disk full"), sqlite3.OperationalError("disk I/O error"), KeyError("odd")], ids=repr
)
def test_when_writing_fails_callers_are_told_and_health_says_so_until_it_works_again(
    working: Working, error: Exception
) -> None:
    store = Faulty()
    with working(store) as desk:
        store.write = error
        with pytest.raises(Unavailable):
            desk.ask(1)
        with pytest.raises(Unavailable):
            desk.learn()
        assert desk.worker.failing.keys() == {"write"}
        store.write = None
        assert eventually(lambda: not desk.worker.failing)  # although nobody writes
        assert desk.ask(1).duplicate is False
    assert store.counts().decisions == 1


def test_a_write_that_failed_but_was_done_is_found_by_the_retry(working: Working) -> None:
    """An error is not "not done": the id is the only truth."""
    store = Faulty()
    with working(store) as desk:
        store.after, store.write = True, Unavailable("fsync failed")
        with pytest.raises(Unavailable):
            desk.ask(1)
        store.write = None
        assert desk.ask(1).duplicate is True
    assert store.counts().decisions == 1


def test_when_learning_fails_decisions_go_on_and_health_says_so(working: Working, later: Later) -> None:
    store = Faulty()
    with working(store) as desk:
        desk.ask(1)
        later(HOUR)
        desk.learn()
        store.learn = Unavailable("disk full")
        desk.ask(2)
        later(HOUR)
        for n in range(3, 6):
            assert desk.ask(n).policy_version == 1
            with pytest.raises(Unavailable, match="could not be learned"):
                desk.learn()
            assert desk.worker.failing.keys() == {"learn"}
        store.learn = None
        assert eventually(lambda: not desk.worker.failing)
        assert desk.learn()["signup"][0] == 2
    assert learned(store) == 2


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done all the same"])
def test_when_learning_fails_everything_is_learned_exactly_once_in_the_end(
    working: Working, later: Later, after: bool
) -> None:
    store = Faulty()
    store.after = after
    with working(store) as desk:
        for n in range(1, 13):
            store.learn = Unavailable("fsync failed") if n % 6 in (3, 4, 5) else None
            desk.ask(n)
            desk.report(n)
            later(HOUR)
            with suppress(Unavailable):
                desk.learn()
        assert desk.learn()["signup"][0] == 12
        assert desk.worker.prepared["signup"].snapshot.belief.n.sum() == 12
    assert learned(store) == 12


def test_a_caller_that_leaves_before_its_work_is_begun_ends_nothing(working: Callable[..., Any]) -> None:
    """Work that waits behind other work and is cancelled, as when a client hangs up: the writer goes on."""
    with working(MemoryStore()) as desk:
        begun, go_on = threading.Event(), threading.Event()

        def slow() -> bool:
            begun.set()
            return go_on.wait(PATIENCE)

        first = desk.worker.run(slow)
        assert begun.wait(PATIENCE)
        left, done = desk.worker.run(lambda: "never"), desk.worker.run(lambda: "done")
        assert left.cancel()
        assert not first.cancel()  # what was begun is finished
        go_on.set()
        assert (first.result(PATIENCE), done.result(PATIENCE)) == (True, "done")
        assert desk.worker.alive


class AskedFor(MemoryStore):
    """A ledger that remembers how many matured decisions it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.most: list[int] = []

    def matured(self, now: int, limit: int, stages: Collection[str]) -> list[MaturedDecision]:
        self.most.append(limit)
        return super().matured(now, limit, stages)


def test_as_many_settle_at_once_as_were_decided_since_within_bounds(working: Working, decide: Decide) -> None:
    store = AskedFor()
    with working(store) as desk:

        async def made(many: int) -> None:
            await desk.worker.submit(copies(decide(1), range(many * 10, many * 11)))

        for many, next_step in ((200, 200), (2000, 256), (5, 128)):
            desk.learn()
            before = len(store.most)
            desk.run(made(many))
            desk.learn()
            assert next_step in store.most[before:]  # the first look after the commit
            assert set(store.most[before:]) <= {next_step, 128}


def test_callers_and_settling_do_not_wait_for_policies_that_are_being_computed(working: Working, later: Later) -> None:
    """As where so many decisions are open that computing takes long; who waits for all of it gets all of it."""
    store = MemoryStore()
    with working(store) as desk:
        go_on = threading.Event()
        desk.worker.learning._elsewhere.submit(go_on.wait, PATIENCE)
        for n in range(1, 4):
            desk.ask(n)
            later(HOUR)
            assert eventually(partial(settled, store, n))
        assert desk.worker.prepared["signup"].snapshot.version == 0
        go_on.set()
        assert eventually(lambda: desk.worker.prepared["signup"].snapshot.version == 3)
        desk.ask(4)
        later(HOUR)
        assert desk.learn()["signup"][0] == 4
        assert desk.worker.prepared["signup"].snapshot.version == 4


def test_while_policies_cannot_be_computed_health_says_so_and_says_it_once(
    working: Working, later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    """What matures meanwhile is settled, which does not mean that learning works."""

    def fail() -> None:
        raise ValueError("not positive definite")

    store = MemoryStore()
    with working(store) as desk:
        learning, registry = desk.worker.learning, desk.worker._metrics.registry
        prepare = learning._prepare
        desk.worker.run(lambda: setattr(learning, "_prepare", lambda _: fail)).result(PATIENCE)
        for n in range(1, 5):
            desk.ask(n)
            later(HOUR)
            assert eventually(partial(settled, store, n))
        name = "journey_bandit_ledger_errors_total"
        assert eventually(lambda: registry.get_sample_value(name, {"what": "learn"}) >= 5.0)
        assert "learn works again" not in caplog.text
        assert caplog.text.count("learn fails") == 1
        assert desk.worker.failing.keys() == {"learn"}
        desk.worker.run(lambda: setattr(learning, "_prepare", prepare)).result(PATIENCE)
        assert eventually(lambda: not desk.worker.failing)
        assert desk.learn()["signup"][0] == 4
