"""Retries of the Python clients: the same request until it is answered, with pauses that spread, within a deadline."""

import asyncio
import contextvars
import datetime as dt
import gc
import inspect
import os
import random
import socket
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from api.routes import events as events_api
from api.routes import native
from journey_bandit_client import (
    NO_NUDGE,
    AsyncJourneyClient,
    ItemsFailedError,
    JourneyClient,
    JourneyClientError,
    KeyRefusedError,
    NudgeRequest,
    OfferedNudge,
    OutcomeReport,
    RetryPolicy,
    ServiceUnavailableError,
    UserEvent,
)
from journey_bandit_client.calls import MOST_BYTES
from journey_bandit_client.deadline import DeadlineRunner
from tests.clients.python.conftest import DECIDED, URL, Face, Network
from tests.waiting import COMMAND_PATIENCE, PATIENCE, eventually

Client = Callable[..., Face]
DECISION = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
AWAY = httpx.ConnectError("refused")
RECORDED = {"recorded": True, "duplicate": False, "late": False}
BUSY = {"type": "urn:journey-bandit:problem:overloaded", "title": "Retry later", "status": 503, "detail": "full"}


def decided(asked: Any) -> Any:
    return {**DECIDED, "decision_id": asked["decision_id"]}


def test_a_pause_is_drawn_evenly_up_to_a_bound_that_doubles() -> None:
    """Full jitter. 4,000 draws: false alarm ≤ 1e-6; a mean that is off by 3 % of the bound is found."""
    policy, chance = RetryPolicy(shortest=0.1, longest=1.0), random.Random(1)
    for attempt, bound in enumerate((0.1, 0.2, 0.4, 0.8, 1.0, 1.0)):
        pauses = [policy.pause(attempt, 0.0, chance.random) for _ in range(4000)]
        assert 0 <= min(pauses) < 0.01 * bound
        assert 0.99 * bound < max(pauses) < bound
        assert sum(pauses) / 4000 == pytest.approx(bound / 2, abs=0.0235 * bound)
    assert policy.pause(10**6, 0.0, lambda: 0.5) == 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tries": 0}, "tries is 0: at least 1"),
        ({"shortest": 0.0}, "shortest is 0.0"),
        ({"longest": 0.01}, "longest 0.01"),
        ({"longest": float("inf")}, "longest inf"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(change: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RetryPolicy(**change)


@pytest.mark.parametrize("failure", [
    AWAY, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), (429, {}, b""), (500, {}, b"{}"),
    (502, {}, b"<html>"), (503, {}, BUSY), (504, {}, b""), (408, {}, b""), (200, {}, b"<html>sign in</html>"),
    (200, {}, b'{"decision_id"'),
    (200, {}, b"{}"),
], ids=str)  # fmt: skip
def test_the_same_request_is_sent_until_it_is_answered(client: Client, failure: Any) -> None:
    network = Network([failure, failure, (200, {}, decided)])
    got = client(network).decide("u-1", stage="cart", context={"price": 9.5})
    first, *others = [request.content for request in network.sent]
    assert others == [first, first]
    assert not got.degraded
    assert str(got.decision_id) == network.bodies()[0]["decision_id"]
    assert got.decision_id.version == 4
    assert network.pauses == [0.025, 0.05]  # half of 0.05 and 0.1


@pytest.mark.parametrize(("headers", "asked"), [
    ({"Retry-After": "3"}, 3), ({"Retry-After": "soon"}, 0), ({"Retry-After": "-3"}, 0),
    ({"Retry-After": "Thu, 01 Jan 2026 00:00:07 GMT", "Date": "Thu, 01 Jan 2026 00:00:03 GMT"}, 4),
    ({"Retry-After": "Thu, 01 Jan 2026 00:00:01 GMT", "Date": "Thu, 01 Jan 2026 00:00:03 GMT"}, 0),
    ({"Retry-After": "Thu, 01 Jan 2026 00:00:07 GMT"}, 0),
])  # fmt: skip
def test_a_retry_waits_as_long_as_it_is_asked_to_and_a_drawn_time_more(
    client: Client, headers: dict[str, str], asked: float
) -> None:
    network = Network([(429, headers, b""), (200, {}, RECORDED)])
    assert client(network).reward(DECISION, 1).recorded
    assert network.pauses == [asked + 0.025]


def test_reports_of_a_decision_bring_the_token_that_came_with_it(client: Client) -> None:
    decided: tuple[int, Any, Any] = (200, {}, {**DECIDED, "decision_id": str(DECISION), "outcome_token": "ab" * 16})
    network = Network([decided, *[(200, {}, {"recorded": True})] * 6])
    face = client(network)
    decision = face.decide("u-1", stage="cart")
    for report in (face.reward, face.activate, face.retract, face.opt_out):
        report(decision)
    face.reward(DECISION)
    face.reward(msgspec.structs.replace(decision, outcome_token=None))
    assert [body.get("outcome_token") for body in network.bodies()[1:]] == ["ab" * 16] * 4 + [None] * 2


def test_an_opt_out_says_so_and_has_no_value(client: Client) -> None:
    network = Network([(200, {}, RECORDED)])
    when = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert client(network).opt_out(DECISION, occurred_at=when).recorded
    sent = {"decision_id": str(DECISION), "kind": "opt_out", "occurred_at": "2026-01-02T00:00:00Z"}
    assert network.bodies() == [sent]
    assert network.sent[0].url.path == "/v1/outcomes"


def test_nothing_is_waited_for_beyond_the_deadline(client: Client) -> None:
    network = Network([(503, {"Retry-After": "1"}, BUSY)])
    got = client(network, decide_seconds=0.9).decide("u-1")
    assert (got.degraded, len(network.sent), network.pauses) == (True, 1, [])
    assert "503 full" in got.why


def test_each_attempt_has_what_is_left(client: Client) -> None:
    network = Network([AWAY], takes=0.2)
    client(network, retries=RetryPolicy(tries=100, shortest=0.1, longest=0.1), decide_seconds=1.0).decide("u-1")
    given = [request.extensions["timeout"]["read"] for request in network.sent]
    assert given == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert network.now - 1000 <= 1.0 + 1e-9


def test_tries_are_bounded(client: Client) -> None:
    network = Network([AWAY])
    with pytest.raises(ServiceUnavailableError) as caught:
        client(network, retries=RetryPolicy(tries=3)).reward(DECISION)
    assert (caught.value.attempts, len(network.sent), len(network.pauses)) == (3, 3, 2)
    assert "ConnectError: refused" in caught.value.why


def test_where_the_service_is_away_the_fallback_is_given_and_nothing_is_reported_for_it(client: Client) -> None:
    network = Network([AWAY])
    got = client(network).decide("u-1", stage="cart")
    assert (got.nudge, got.degraded, got.decision_id, got.propensity) == (NO_NUDGE, True, None, None)
    before = len(network.sent)
    for call in ("reward", "activate", "retract", "opt_out"):
        result = getattr(client(network), call)(got)
        assert (result.recorded, len(result.notes)) == (False, 1)
    assert len(network.sent) == before
    static = OfferedNudge("free_returns", "info", "banner", {"text": "Returns are free"})
    assert client(network, fallback=static).decide("u-1").nudge is static


def test_a_late_answer_is_given_up_by_asyncio_although_the_transport_waits() -> None:
    async def endless(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def ask() -> Any:
        async with AsyncJourneyClient(URL, transport=httpx.MockTransport(endless), decide_seconds=0.02) as client:
            return await client.decide("u-1")

    got = asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert got.degraded
    assert "no answer within" in got.why


def test_a_name_that_is_looked_up_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up has no timeout of its own, and neither have many addresses one after the other."""
    looked_up = threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        looked_up.wait(PATIENCE)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with JourneyClient(URL, decide_seconds=0.02) as client:
        got = client.decide("u-1")
    assert not looked_up.is_set()
    looked_up.set()
    assert got.degraded
    assert "no answer within 0.02 s" in got.why


def test_requests_that_were_given_up_are_bounded_and_end() -> None:
    runner, go = DeadlineRunner(most=2), threading.Event()
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"no answer within 0.01 s"):
            runner.run(lambda: go.wait(PATIENCE), 0.01)
    with pytest.raises(TimeoutError, match="2 earlier requests have not ended"):
        runner.run(go.set, 1.0)
    assert not go.is_set()
    go.set()

    def again() -> str:
        try:
            return runner.run(lambda: "answered", PATIENCE)
        except TimeoutError:
            return ""

    assert eventually(again) == "answered"


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_request_while_the_interpreter_ends_is_sent_by_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    network = Network([AWAY, (200, {}, RECORDED)])
    with JourneyClient(URL, sleep=network.sleep, **network.options()) as client:
        assert client.reward(DECISION, 1).recorded


def test_a_request_that_gets_no_thread_is_a_failed_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system bounds the threads: sent by its caller, it would have no deadline."""
    network = Network([(200, {}, RECORDED)])
    with monkeypatch.context() as patch, JourneyClient(URL, sleep=network.sleep, **network.options()) as client:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(ServiceUnavailableError, match="6 attempts: no thread for the request: can't start"):
            client.reward(DECISION, 1)
    assert (network.sent, len(network.pauses)) == ([], 5)
    runner = DeadlineRunner(most=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(TimeoutError, match="no thread for the request"):
            runner.run(lambda: "", 1.0)
    assert runner.run(lambda: "answered", PATIENCE) == "answered"


AT_THE_END = """
import threading
from journey_bandit_client.deadline import DeadlineRunner

class LastReport:
    def __init__(self):
        self.runner, self.thread = DeadlineRunner(), threading.current_thread
    def __del__(self):
        print("sent by", self.runner.run(lambda: self.thread().name, 60.0))

last = LastReport()
"""
IN_A_CHILD = """
import os, threading
from journey_bandit_client.deadline import DeadlineRunner

runner, go = DeadlineRunner(most=1), threading.Event()
try:
    runner.run(go.wait, 0.01)
except TimeoutError:
    pass
child = os.fork()
if not child:
    print("sent by", runner.run(lambda: "a child", 60.0), flush=True)
    os._exit(0)
os.waitpid(child, 0)
try:
    runner.run(lambda: "", 60.0)
except TimeoutError as error:
    print(error)
go.set()
"""


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (AT_THE_END, ["sent by MainThread"]),
        pytest.param(
            IN_A_CHILD,
            ["sent by a child", "1 earlier requests have not ended"],
            marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
        ),
    ],
    ids=["the end", "a fork"],
)
def test_requests_end_with_their_process_and_hold_no_slot_of_a_child(program: str, told: list[str]) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=COMMAND_PATIENCE, check=True)
    assert done.stdout.splitlines() == told


class _Request:
    """What a request holds in memory."""


@pytest.mark.parametrize("given_up", [False, True])
def test_a_failed_request_is_let_go_without_the_garbage_collector(given_up: bool) -> None:
    runner, go, told = DeadlineRunner(), threading.Event(), list[type[OSError]]()

    def fail() -> weakref.ref[_Request]:
        request = _Request()

        def send(held: _Request = request) -> None:
            go.wait(PATIENCE if given_up else 0)
            raise ConnectionError(f"cut {type(held)}")

        try:
            runner.run(send, 0.01 if given_up else PATIENCE)
        except OSError as error:
            told.append(type(error))
            return weakref.ref(request)
        raise AssertionError("unreachable")

    gc.disable()
    try:
        request = fail()
        go.set()
        assert eventually(lambda: request() is None)
        assert told == [TimeoutError if given_up else ConnectionError]
    finally:
        gc.enable()


def test_a_request_sees_the_context_of_its_caller() -> None:
    """Tracing keeps the span of the caller there."""
    span = contextvars.ContextVar("span", default="")
    seen = []

    def answer(_: httpx.Request) -> httpx.Response:
        seen.append(span.get())
        return httpx.Response(200, json=RECORDED)

    span.set("a")
    with JourneyClient(URL, transport=httpx.MockTransport(answer)) as client:
        client.reward(DECISION, 1)
    assert seen == ["a"]


CALLERS = 120  # more than the 100 connections that httpx has by default


class AnswersTogether:
    """A service in a thread that answers none before all have asked, each on a connection of its own."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return f"http://127.0.0.1:{self._port}"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)

    async def _serve(self) -> None:
        self._loop, self._end, self._all = asyncio.get_running_loop(), asyncio.Event(), asyncio.Barrier(CALLERS)
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=2 * CALLERS)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._end.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        await self._all.wait()
        body = msgspec.json.encode(RECORDED)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_no_request_waits_for_the_connections_of_others(waits: bool) -> None:
    def from_threads(url: str) -> list[bool]:
        with JourneyClient(url, report_seconds=PATIENCE) as client, ThreadPoolExecutor(CALLERS) as pool:
            return list(pool.map(lambda _: client.reward(DECISION, 1).recorded, range(CALLERS)))

    async def from_tasks(url: str) -> list[bool]:
        async with AsyncJourneyClient(url, report_seconds=PATIENCE) as client:
            results = await asyncio.gather(*(client.reward(DECISION, 1) for _ in range(CALLERS)))
            return [one.recorded for one in results]

    with AnswersTogether() as url:
        assert (asyncio.run(from_tasks(url)) if waits else from_threads(url)) == [True] * CALLERS


# -- batches ---------------------------------------------------------------------------------------------------


def test_only_items_that_were_not_taken_are_sent_again(client: Client) -> None:
    first = {"events": [{"status": 200, "event": {"recorded": True, "duplicate": False, "known": True}},
                        {"status": 503, "problem": BUSY}, {"status": 503, "problem": BUSY}]}  # fmt: skip
    rest = {
        "events": [{"status": 200, "event": {"recorded": True, "duplicate": False, "known": n == 0}} for n in (0, 1)]
    }
    network = Network([(200, {}, first), (200, {}, rest)])
    events = [UserEvent(event="Product Viewed", user_id=user) for user in "abc"]
    assert [result.known for result in client(network).events(events)] == [True, True, False]
    ids = [[event["event_id"] for event in body["events"]] for body in network.bodies()]
    assert ids == [[event.event_id for event in events], [event.event_id for event in events[1:]]]


def test_what_fails_of_a_batch_is_raised_with_what_did_not(client: Client) -> None:
    wrong = {"type": "urn:x", "title": "No", "status": 404, "detail": "no such decision", "errors": []}
    reply = {"outcomes": [{"status": 200, "outcome": RECORDED}, {"status": 404, "problem": wrong},
                          {"status": 503, "problem": BUSY}]}  # fmt: skip
    network = Network([(200, {}, reply), AWAY])
    outcomes = [OutcomeReport(decision_id=DECISION, kind="reward", outcome_id=str(n)) for n in range(3)]
    with pytest.raises(ItemsFailedError, match="2 of 3 items failed; the first, item 1: 404 No") as caught:
        client(network).report_many(outcomes)
    good, refused, lost = caught.value.results
    assert good.recorded
    assert refused.status == 404
    assert isinstance(lost, ServiceUnavailableError)
    assert [len(body["outcomes"]) for body in network.bodies()] == [3] + [1] * 5


def test_decisions_of_a_batch_that_do_not_come_are_degraded(client: Client) -> None:
    def answer(asked: Any) -> Any:
        first, _ = asked["decisions"]
        return {"decisions": [{"status": 200, "decision": decided(first)}, {"status": 503, "problem": BUSY}]}

    network = Network([(200, {}, answer), AWAY])
    requests = [NudgeRequest(user_id=user, stage="cart") for user in "ab"]
    good, lost = client(network).decide_many(requests)
    assert (good.decision_id, good.degraded) == (requests[0].decision_id, False)
    assert (lost.decision_id, lost.degraded, lost.nudge) == (None, True, NO_NUDGE)


def test_long_batches_are_sent_by_the_thousand(client: Client) -> None:
    def answer(sent: Any) -> Any:
        return {
            "events": [{"status": 200, "event": {"recorded": True, "duplicate": False, "known": True}}]
            * len(sent["events"])
        }

    network = Network([(200, {}, answer)])
    events = [UserEvent(event="Viewed", user_id="u", event_id=str(n)) for n in range(2500)]
    assert len(client(network).events(events)) == 2500
    assert [len(body["events"]) for body in network.bodies()] == [1000, 1000, 500]
    assert [event["event_id"] for body in network.bodies() for event in body["events"]] == [e.event_id for e in events]
    assert client(network).events([]) == []


EVENT = {"recorded": True, "duplicate": False, "known": True}
GONE = {"type": "urn:journey-bandit:problem:unauthorized", "title": "Who asks", "status": 401, "detail": "no such key"}


UNKNOWN = {"type": "urn:journey-bandit:problem:unavailable", "title": "Retry", "status": 503, "detail": "disk full"}
LIMITED = {"type": "urn:journey-bandit:problem:limit-reached", "title": "Busy", "status": 503, "detail": "wait"}


def taken(sent: Any) -> Any:
    return {"events": [{"status": 200, "event": EVENT} for _ in sent["events"]]}


def first_of_each(sent: Any) -> Any:
    """The first item was surely not recorded, the second maybe; the others were."""
    statuses = [{"status": 503, "problem": BUSY}, {"status": 503, "problem": UNKNOWN}]
    return {"events": statuses + taken(sent)["events"][2:]}


def many(count: int, **properties: Any) -> list[UserEvent]:
    return [UserEvent(event="Viewed", user_id="u", event_id=str(n), properties=properties) for n in range(count)]


def test_a_refusal_between_two_requests_of_a_batch_loses_no_result(client: Client) -> None:
    network = Network([(200, {}, taken), (401, {}, GONE)])
    with pytest.raises(ItemsFailedError, match="1500 of 2500 items failed; the first, item 1000: 401") as caught:
        client(network).events(many(2500))
    results = caught.value.results
    assert all(result.known for result in results[:1000])
    assert all(isinstance(result, KeyRefusedError) for result in results[1000:])
    assert [len(body["events"]) for body in network.bodies()] == [1000, 1000]


def test_a_refusal_of_the_items_that_are_sent_again_loses_no_result(client: Client) -> None:
    first = {"events": [{"status": 503, "problem": BUSY}, {"status": 200, "event": EVENT}]}
    network = Network([(200, {}, first), (401, {}, GONE)])
    with pytest.raises(ItemsFailedError, match="1 of 2 items failed; the first, item 0: 401") as caught:
        client(network).events(many(2))
    refused, good = caught.value.results
    assert isinstance(refused, KeyRefusedError)
    assert good.known
    assert len(network.sent) == 2


def test_decisions_before_a_refusal_are_kept(client: Client) -> None:
    def answer(asked: Any) -> Any:
        return {"decisions": [{"status": 200, "decision": decided(one)} for one in asked["decisions"]]}

    network = Network([(200, {}, answer), (401, {}, GONE)])
    requests = [NudgeRequest(user_id="u", stage="cart") for _ in range(1001)]
    with pytest.raises(ItemsFailedError, match="1 of 1001 items failed") as caught:
        client(network).decide_many(requests)
    assert [one.decision_id for one in caught.value.results[:1000]] == [one.decision_id for one in requests[:1000]]


def test_a_part_that_may_have_been_recorded_is_told_beside_a_later_refusal(client: Client) -> None:
    network = Network([AWAY, (401, {}, GONE)])
    with pytest.raises(ItemsFailedError) as caught:
        client(network, retries=RetryPolicy(tries=1)).events(many(1001))
    assert [type(one) for one in caught.value.results[999:]] == [ServiceUnavailableError, KeyRefusedError]


def test_items_whose_answer_was_lost_before_a_refusal_may_have_been_recorded(client: Client) -> None:
    network = Network([(200, {}, taken), AWAY, (401, {}, GONE)])
    with pytest.raises(ItemsFailedError, match="1500 of 2500 items failed; the first, item 1000: no answer") as caught:
        client(network).events(many(2500))
    lost, never_sent = caught.value.results[1000:2000], caught.value.results[2000:]
    words = "ConnectError: refused; then it was refused: 401 Who asks: no such key"
    assert {(type(one), one.attempts, one.why) for one in lost} == {(ServiceUnavailableError, 2, words)}
    assert {type(one) for one in never_sent} == {KeyRefusedError}
    assert [len(body["events"]) for body in network.bodies()] == [1000, 1000, 1000]


@pytest.mark.parametrize(
    ("first", "kinds"),
    [
        (AWAY, [ServiceUnavailableError] * 1000 + [KeyRefusedError]),
        ((504, {}, b""), [ServiceUnavailableError] * 1000 + [KeyRefusedError]),
        ((503, {}, UNKNOWN), [ServiceUnavailableError] * 1000 + [KeyRefusedError]),
        ((200, {}, first_of_each), [KeyRefusedError, ServiceUnavailableError, KeyRefusedError]),
    ],
    ids=["no answer", "504", "503", "items"],
)
def test_a_refusal_is_the_error_of_items_that_were_surely_not_recorded(client: Client, first: Any, kinds: Any) -> None:
    network = Network([first, (401, {}, GONE)])
    with pytest.raises(ItemsFailedError) as caught:
        client(network).events(many(1001))
    failed = [type(one) for one in caught.value.results if isinstance(one, JourneyClientError)]
    assert failed == kinds


def test_a_call_that_may_have_been_recorded_is_not_known_to_be_refused(client: Client) -> None:
    words = "after 2 attempts: ConnectError: refused; then it was refused: 401 Who asks: no such key"
    with pytest.raises(ServiceUnavailableError, match=words):
        client(Network([AWAY, (401, {}, GONE)])).reward(DECISION, 1)
    got = client(Network([AWAY, (401, {}, GONE)])).decide("u-1")
    assert got.degraded
    assert words in got.why


@pytest.mark.parametrize("first", [(429, {}, b""), (503, {}, BUSY), (503, {}, LIMITED)], ids=["429", "busy", "limit"])
def test_a_refusal_after_an_answer_that_nothing_was_recorded_is_raised(client: Client, first: Any) -> None:
    with pytest.raises(KeyRefusedError, match="no such key"):
        client(Network([first, (401, {}, GONE)])).reward(DECISION, 1)
    with pytest.raises(KeyRefusedError, match="no such key"):
        client(Network([first, (401, {}, GONE)])).events(many(2))


def test_a_first_request_that_is_refused_is_the_error_of_the_batch(client: Client) -> None:
    network = Network([(401, {}, GONE)])
    with pytest.raises(KeyRefusedError, match="no such key"):
        client(network).events(many(1001))
    assert len(network.sent) == 1


def test_tries_bound_the_requests_of_a_batch_whatever_becomes_of_them(client: Client) -> None:
    def busy(sent: Any) -> Any:
        return {"events": [{"status": 503, "problem": BUSY} for _ in sent["events"]]}

    network = Network([AWAY, (200, {}, busy), (429, {"Retry-After": "1"}, b""), (200, {}, busy)])
    with pytest.raises(ItemsFailedError, match="no answer of the service after 4 attempts: 503 full"):
        client(network, retries=RetryPolicy(tries=4)).events(many(3))
    assert len(network.sent) == 4
    assert network.pauses == [0.025, 0.05, 1.1]


def test_no_request_is_larger_than_the_service_takes(client: Client) -> None:
    network = Network([(200, {}, taken)])
    events = many(1500, note="é" * 2000)  # some 4,100 bytes each
    assert len(client(network).events(events)) == 1500
    sizes = [len(request.content) for request in network.sent]
    assert max(sizes) <= MOST_BYTES < max(sizes) + 4200
    assert [event["event_id"] for body in network.bodies() for event in body["events"]] == [e.event_id for e in events]
    assert MOST_BYTES == native._BATCH_BYTES == events_api._BATCH_BYTES


@pytest.mark.parametrize(("more", "parts"), [(0, [3]), (1, [2, 1])])
def test_items_share_a_request_to_its_last_byte(client: Client, more: int, parts: list[int]) -> None:
    network = Network([(200, {}, taken)])
    room = MOST_BYTES - len(msgspec.json.encode({"events": [*many(2), *many(1, note="")]}))
    client(network).events([*many(2), *many(1, note="x" * (room + more))])
    assert [len(body["events"]) for body in network.bodies()] == parts


def test_an_item_may_fill_a_request_and_no_more(client: Client) -> None:
    network = Network([(200, {}, taken)])
    room = MOST_BYTES - len(msgspec.json.encode({"events": many(1, note="")}))
    client(network).events([*many(1), *many(1, note="x" * room), *many(1)])
    assert [len(body["events"]) for body in network.bodies()] == [1, 1, 1]
    assert len(network.sent[1].content) == MOST_BYTES
    with pytest.raises(ValueError, match=r"events\[1\] has 3,999,988 bytes: an item may have 3,999,987"):
        client(network).events([*many(1), *many(1, note="x" * (room + 1))])
    assert len(network.sent) == 3


def test_a_batch_that_is_answered_with_another_number_of_items_is_not_answered(client: Client) -> None:
    network = Network([(200, {}, {"outcomes": []})])
    with pytest.raises(ItemsFailedError, match="0 answers to 1 items"):
        client(network).report_many([OutcomeReport(decision_id=DECISION, kind="activation")])


def test_both_clients_have_the_same_methods_with_the_same_words() -> None:
    def methods(kind: type) -> dict[str, Any]:
        found = {name: member for name, member in vars(kind).items() if callable(member) and name[0] != "_"}
        return {name: (inspect.signature(member), inspect.getdoc(member)) for name, member in found.items()}

    assert methods(JourneyClient) == methods(AsyncJourneyClient)
    assert len(methods(JourneyClient)) == 11
