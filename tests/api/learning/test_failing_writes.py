"""What does not work is said until it works: a commit of something else does not make it whole."""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.events.service import ReceivedEvent
from api.learning.worker import Worker
from api.stores.decision_log import DecisionRecord, OutcomeReceipt, RecordedDecision
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.model import Stage
from bandit.errors import Unavailable
from bandit.records import Decision, Outcome
from tests.api.stores.page_damage import overwrite_page
from tests.waiting import eventually

Working = Callable[..., AbstractContextManager[Any]]
Serving = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

HOUR = 3600
TRIALS = 5


@pytest.fixture
def path(working: Working, tmp_path: Path) -> Path:
    """A closed ledger with 60 decisions, each with an outcome."""
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        for n in range(1, 61):
            desk.ask(n, user=f"u{n}")
            desk.report(n)
    return path


def errors(worker: Worker, what: str) -> float:
    """How often it has failed so far."""
    return worker._metrics.registry.get_sample_value("journey_bandit_ledger_errors_total", {"what": what}) or 0.0


def more_errors(worker: Worker, what: str, than: float) -> bool:
    return errors(worker, what) > than


def report(desk: Any) -> None:
    desk.report(1, "activation")


def ask(desk: Any) -> None:
    desk.ask(user="somebody")


def send(desk: Any) -> None:
    desk.send(ReceivedEvent(str(uuid.uuid4()), "opened", "somebody", None, {}, None))


@pytest.mark.parametrize(
    ("broken", "write", "sound"),
    [
        ("sqlite_autoindex_outcomes_1", report, ask),
        ("sqlite_autoindex_events_1", send, ask),
        ("pending_due", ask, send),
    ],
)
def test_while_a_table_is_broken_writing_fails_whatever_else_is_committed(
    broken: str,
    write: Callable[[Any], None],
    sound: Callable[[Any], None],
    working: Working,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(SqliteStore(path)) as store, working(store) as desk:
        overwrite_page(path, broken)  # after the start, which reads every index
        with pytest.raises(Unavailable):
            write(desk)
        for _ in range(TRIALS):
            so_far = errors(desk.worker, "write")
            sound(desk)
            assert eventually(partial(more_errors, desk.worker, "write", so_far))
            assert "malformed" in desk.worker.failing["write"]
    assert "write works again" not in caplog.text
    assert caplog.text.count("write fails") == 1


def test_a_service_on_a_broken_table_stays_unready_while_decisions_are_recorded(path: Path, serving: Serving) -> None:
    with serving(SqliteStore(path)) as client:
        overwrite_page(path, "sqlite_autoindex_outcomes_1")
        decided = client.ask(user="somebody")
        assert client.post("/v1/outcomes", json={"decision_id": decided["decision_id"], "kind": "reward"}).is_error
        for n in range(TRIALS):
            client.ask(user=f"somebody else {n}")
            state = client.get("/health/ready")
            assert state.status_code == 503
            assert "malformed" in state.json()["failing"]["write"]


class OutcomesFail(SqliteStore):
    """A ledger that takes no outcomes while `broken`."""

    broken = False

    def record(
        self, decisions: Sequence[Decision], outcomes: Sequence[Outcome], now: int, specs: Mapping[str, Stage]
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        answer = super().record(decisions, outcomes, now, specs)
        if self.broken and outcomes:
            raise Unavailable("its table is broken")
        return answer


def test_once_those_rows_can_be_written_it_works_again_and_nothing_of_the_trials_is_left(
    working: Working, tmp_path: Path
) -> None:
    with closing(OutcomesFail(tmp_path / "ledger.db")) as store:
        with working(store) as desk:
            desk.ask(1)
            store.broken = True
            with pytest.raises(Unavailable):
                desk.report(1)
            desk.ask(2)
            assert eventually(partial(more_errors, desk.worker, "write", 3))
            assert desk.worker.failing.keys() == {"write"}
            store.broken = False
            assert eventually(lambda: not desk.worker.failing)
            assert store.counts().outcomes == 0
            assert desk.report(1).duplicate is False
        assert list(store.damages()) == []


def test_another_worker_on_the_same_ledger_goes_on_saying_it(working: Working, tmp_path: Path) -> None:
    """As after a catalogue was read again: nobody has mended the disk."""
    with closing(OutcomesFail(tmp_path / "ledger.db")) as store, working(store) as desk:
        desk.ask(1)
        store.broken = True
        with pytest.raises(Unavailable):
            desk.report(1)
        desk.worker.stop()
        second = Worker(store, desk.catalogue, desk.clock, desk.worker._metrics, before=desk.worker)
        assert second.failing.keys() == {"write"}
        so_far = errors(second, "write")
        second.start()
        assert eventually(partial(more_errors, second, "write", so_far + TRIALS))
        store.broken = False
        assert eventually(lambda: not second.failing)
        second.stop()


class RowsFail(SqliteStore):
    """A ledger with a mistake that certain rows meet."""

    def record(
        self, decisions: Sequence[Decision], outcomes: Sequence[Outcome], now: int, specs: Mapping[str, Stage]
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        if outcomes:
            raise KeyError("odd")
        return super().record(decisions, outcomes, now, specs)


def test_a_mistake_that_certain_rows_meet_does_not_say_that_the_ledger_cannot_be_written(
    working: Working, tmp_path: Path
) -> None:
    with closing(RowsFail(tmp_path / "ledger.db")) as store, working(store) as desk:
        desk.ask(1)
        with pytest.raises(Unavailable):
            desk.report(1)
        assert eventually(lambda: not desk.worker.failing)


def test_learning_that_meets_a_broken_table_is_said_until_it_settles_what_it_could_not(
    working: Working, path: Path, later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    overwrite_page(path, "settlements_stage")
    with closing(SqliteStore(path)) as store, working(store) as desk:
        later(2 * HOUR)
        assert eventually(lambda: desk.worker.failing)
        for n in range(TRIALS):
            so_far = errors(desk.worker, "learn")
            desk.ask(100 + n)
            assert eventually(partial(more_errors, desk.worker, "learn", so_far))
            assert desk.worker.failing.keys() == {"learn"}
    assert "works again" not in caplog.text


class LateOpenDecisionsFail(SqliteStore):
    """A ledger of which open decisions from the thirtieth on cannot be read while `broken`."""

    broken = True

    def open_after(self, after: int, most: int, stages: Collection[str]) -> list[DecisionRecord]:
        if self.broken and after >= 30:
            raise Unavailable("that page is broken")
        return super().open_after(after, most, stages)


def test_learning_works_again_once_all_is_read_not_when_the_first_pages_are(
    working: Working, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.learning.learner.AT_START", 10)
    monkeypatch.setattr("api.learning.worker._STEP", 10)
    with closing(LateOpenDecisionsFail(path)) as store, working(store) as desk:
        assert eventually(partial(more_errors, desk.worker, "learn", TRIALS))
        assert desk.worker.failing.keys() == {"learn"}
        assert "works again" not in caplog.text
        store.broken = False
        assert eventually(lambda: not desk.worker.failing)
