"""The Python clients against a real service: a round trip, a service that is killed again and again, lost answers."""

import asyncio
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from api.server import free_port
from journey_bandit_client import (
    AsyncJourneyClient,
    IdConflictError,
    InvalidRequestError,
    JourneyClient,
    NotFoundError,
    NudgeDecision,
    NudgeRequest,
    OutcomeReport,
    RetryPolicy,
    UserEvent,
)
from tests.clients import ledger_rows
from tests.faults.service_process import ServiceProcess
from tests.waiting import PATIENCE, eventually

CALLERS, KILLS = 8, 3
INSISTENT = RetryPolicy(tries=10**6, shortest=0.01, longest=0.1)


@contextmanager
def running(folder: Path) -> Iterator[ServiceProcess]:
    options = ["--app", "travel", "--salt", "clients", "--window-scale", "4e-6"]  # 72 h in 1.04 s
    process = ServiceProcess(folder, free_port("127.0.0.1"), options)
    try:
        process.start()
        yield process
    finally:
        process.end()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One for all tests that leave it running."""
    with running(tmp_path_factory.mktemp("service")) as process:
        yield process


def test_a_round_trip(service: ServiceProcess) -> None:
    with JourneyClient(service.url, decide_seconds=PATIENCE, report_seconds=PATIENCE) as client:
        (event,) = client.events([UserEvent(event="Flight Viewed", user_id="u-1", properties={"price": 90})])
        assert (event.recorded, event.duplicate) == (True, False)
        assert client.journey("u-1").visits == 1
        decision = client.decide("u-1", stage="cart", context={"price": 120.0})
        assert (decision.degraded, decision.duplicate, decision.stage) == (False, False, "cart")
        assert decision.propensity == decision.propensities[decision.nudge.id]
        again = client.decide("u-1", stage="cart", context={"price": 120.0}, decision_id=decision.decision_id)
        assert again == msgspec.structs.replace(decision, duplicate=True)
        with pytest.raises(IdConflictError):
            client.decide("u-1", stage="cart", context={"price": 121.0}, decision_id=decision.decision_id)
        assert client.activate(decision).recorded
        assert [client.reward(decision, 1).duplicate for _ in range(2)] == [False, True]
        assert client.retract(decision).recorded
        assert [client.opt_out(decision).duplicate for _ in range(2)] == [False, True]
        assert decision.decision_id is not None
        kinds = [one["kind"] for one in client.receipt(decision.decision_id)["outcomes"]]
        assert sorted(kinds) == ["activation", "opt_out", "retraction", "reward"]
        with pytest.raises(InvalidRequestError) as wrong:
            client.decide("u-1", stage="cart", context={"prce": 1.0})
        assert [error.field for error in wrong.value.errors] == ["context.prce"]
        with pytest.raises(NotFoundError):
            client.reward(uuid.uuid4(), 1)


def test_a_round_trip_of_asyncio_in_batches(service: ServiceProcess) -> None:
    async def talk() -> tuple[list[NudgeDecision], list[bool]]:
        async with AsyncJourneyClient(service.url, decide_seconds=PATIENCE, report_seconds=PATIENCE) as client:
            requests = [NudgeRequest(user_id=f"u{n}", stage="cart") for n in range(20)]
            decisions = await client.decide_many(requests)
            assert [one.decision_id for one in decisions] == [one.decision_id for one in requests]
            told = [OutcomeReport(decision_id=one.decision_id, kind="reward", value=1) for one in requests]
            results = await client.report_many([*told, told[0]])
            single = await asyncio.gather(*(client.decide(f"v{n}", stage="cart") for n in range(20)))
            return [*decisions, *single], [one.duplicate for one in results]

    decisions, duplicates = asyncio.run(talk())
    assert len({one.decision_id for one in decisions}) == 40
    assert duplicates == [False] * 20 + [True]


class Caller(threading.Thread):
    """Decides, rewards and reports events through one client that others use too, until told to stop; keeps what it
    was answered.
    """

    def __init__(self, client: JourneyClient, number: int, done: threading.Event):
        super().__init__(daemon=True)
        self._client, self._done, self._random = client, done, random.Random(number)
        self.decisions: list[NudgeDecision] = []
        self.rewarded: list[uuid.UUID] = []
        self.events: list[str] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self._done.is_set():
                self._once()
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failure = error

    def _once(self) -> None:
        user = f"u{self._random.getrandbits(32)}"
        decision = self._client.decide(user, stage="cart", context={"price": self._random.uniform(20, 3000)})
        self.decisions.append(decision)
        if self._random.random() < 0.5 and decision.decision_id is not None:
            self._client.reward(decision, 1)
            self.rewarded.append(decision.decision_id)
        events = [UserEvent(event="Flight Viewed", user_id=user) for _ in range(self._random.randint(1, 3))]
        self._client.events(events)
        self.events += [event.event_id for event in events]


def several(callers: list[Caller], more: int) -> Callable[[], bool]:
    """Whether so many more decisions were answered than now."""
    enough = sum(len(caller.decisions) for caller in callers) + more
    return lambda: any(c.failure for c in callers) or sum(len(c.decisions) for c in callers) >= enough


def test_retries_through_a_service_that_is_killed_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    done, sent, guard = threading.Event(), [0], threading.Lock()

    class Counting(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            with guard:
                sent[0] += 1
            return super().handle_request(request)

    with (
        running(tmp_path) as service,
        JourneyClient(
            service.url,
            retries=INSISTENT,
            transport=Counting(),
            decide_seconds=PATIENCE,
            report_seconds=PATIENCE,
        ) as client,
    ):
        callers = [Caller(client, number, done) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        for kill in range(KILLS):
            assert eventually(several(callers, 60 + 37 * kill), 0.001)
            service.kill()
            service.start()
        assert eventually(several(callers, 60), 0.001)
        done.set()
        for caller in callers:
            caller.join(PATIENCE)
        assert service.stop() == 0, service.log.read_text()
    assert [caller.failure for caller in callers if caller.failure or caller.is_alive()] == []
    decisions = [decision for caller in callers for decision in caller.decisions]
    rewarded = [decision for caller in callers for decision in caller.rewarded]
    events = [event for caller in callers for event in caller.events]
    assert not any(decision.degraded for decision in decisions)
    assert sent[0] >= len(decisions) + len(rewarded) + len(decisions) + KILLS, "no request was ever interrupted"

    made = {decision.decision_id: decision.nudge.id for decision in decisions if decision.decision_id is not None}
    assert ledger_rows.read(tmp_path / "ledger.db") == (made, sorted(rewarded), sorted(events))


class LosingAnswers(httpx.HTTPTransport):
    """A network that brings every request, and loses every answer."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        super().handle_request(request).read()
        raise httpx.ReadTimeout("lost")


def test_a_deferred_decision_whose_answer_was_lost_teaches_nothing(service: ServiceProcess) -> None:
    lost = uuid.uuid4()
    retries = RetryPolicy(tries=2)
    with JourneyClient(service.url, transport=LosingAnswers(), retries=retries, decide_seconds=PATIENCE) as client:
        decision = client.decide("u-1", stage="cart", deferred=True, decision_id=lost)
        assert (decision.degraded, decision.decision_id, decision.nudge.id) == (True, None, "none")
        assert not client.activate(decision).recorded
        assert not client.reward(decision, 1).recorded
    with JourneyClient(service.url, report_seconds=PATIENCE) as client:
        assert eventually(lambda: client.receipt(lost)["settled"])
        receipt = client.receipt(lost)
    assert receipt["settled"]["learned"] is False
    assert receipt["outcomes"] == []
