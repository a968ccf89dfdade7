"""Retries of the Python clients: the same request until it is answered, with pauses that spread, within a deadline."""

import asyncio
import inspect
import random
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from journey_bandit_client import (
    NO_NUDGE,
    AsyncJourneyClient,
    ItemsFailedError,
    JourneyClient,
    NudgeRequest,
    OfferedNudge,
    OutcomeReport,
    RetryPolicy,
    ServiceUnavailableError,
    UserEvent,
)
from tests.clients.python.conftest import DECIDED, URL, Face, Network
from tests.waiting import PATIENCE

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
    for call in ("reward", "activate", "retract"):
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
    assert [len(body["outcomes"]) for body in network.bodies()] == [3] + [1] * 6


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


def test_a_batch_that_is_answered_with_another_number_of_items_is_not_answered(client: Client) -> None:
    network = Network([(200, {}, {"outcomes": []})])
    with pytest.raises(ItemsFailedError, match="0 answers to 1 items"):
        client(network).report_many([OutcomeReport(decision_id=DECISION, kind="activation")])


def test_both_clients_have_the_same_methods_with_the_same_words() -> None:
    def methods(kind: type) -> dict[str, Any]:
        found = {name: member for name, member in vars(kind).items() if callable(member) and name[0] != "_"}
        return {name: (inspect.signature(member), inspect.getdoc(member)) for name, member in found.items()}

    assert methods(JourneyClient) == methods(AsyncJourneyClient)
    assert len(methods(JourneyClient)) == 10
