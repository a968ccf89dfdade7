"""What the Python clients send and read: all that the OpenAPI document has, typed errors, and what is refused early."""

import json
import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import journey_bandit_client as package
from journey_bandit_client import (
    AsyncJourneyClient,
    EventResult,
    FieldProblem,
    IdConflictError,
    InvalidRequestError,
    ItemsFailedError,
    JourneyClient,
    KeyRefusedError,
    NotFoundError,
    NudgeDecision,
    NudgeRequest,
    OfferedNudge,
    OfferEvidence,
    OutcomeReport,
    ProblemDetails,
    ReportResult,
    RequestRefusedError,
    ServingRelease,
    UserEvent,
)
from tests.clients.python.conftest import DECIDED, URL, Face, Network

ROOT = Path(__file__).parents[3]
SCHEMAS: dict[str, Any] = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text("utf-8"))["components"][
    "schemas"
]
Client = Callable[..., Face]
PROBLEM = {
    "type": "urn:journey-bandit:problem:invalid-request",
    "title": "The request cannot be used",
    "status": 400,
    "detail": "context.prce: unknown feature",
    "errors": [{"field": "context.prce", "problem": "unknown feature", "fix": "did you mean `price`?"}],
}
JOURNEY: dict[str, Any] = {"stage": "cart", "moment": None, "why": "", "visits": 1, "features": {}, "consent": [],
           "eligible": [], "excluded": {}, "visit_began_at": None, "last_event_at": None}  # fmt: skip


@pytest.mark.parametrize(
    ("mine", "theirs", "own"),
    [
        (NudgeRequest, "DecisionRequest", set()),
        (OfferEvidence, "EvidenceIn", set()),
        (OutcomeReport, "OutcomeRequest", set()),
        (UserEvent, "EventRequest", set()),
        (NudgeDecision, "DecisionReply", {"degraded", "why"}),
        (OfferedNudge, "NudgeOut", set()),
        (ServingRelease, "ReleaseOut", set()),
        (ReportResult, "OutcomeReply", set()),
        (EventResult, "EventReply", set()),
        (ProblemDetails, "ProblemReply", set()),
        (FieldProblem, "Problem", set()),
    ],
)
def test_messages_have_the_fields_of_the_document(mine: Any, theirs: str, own: set[str]) -> None:
    assert set(mine.__struct_fields__) == SCHEMAS[theirs]["properties"].keys() | own


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequestError), (401, KeyRefusedError), (403, KeyRefusedError), (404, NotFoundError),
     (409, IdConflictError), (413, InvalidRequestError), (415, InvalidRequestError), (405, RequestRefusedError),
     (301, RequestRefusedError)],
)  # fmt: skip
def test_a_refusal_has_a_type_and_the_fields_of_its_problem_and_is_not_sent_again(
    client: Client, status: int, kind: type[RequestRefusedError]
) -> None:
    network = Network([(status, {"Content-Type": "application/problem+json"}, {**PROBLEM, "status": status})])
    with pytest.raises(RequestRefusedError, match=f"{status} The request cannot be used: context.prce") as caught:
        client(network).decide("u-1", context={"prce": 1.0})
    assert type(caught.value) is kind
    assert (caught.value.status, len(network.sent)) == (status, 1)
    assert caught.value.problem.type == PROBLEM["type"]
    (error,) = caught.value.errors
    assert (error.field, error.fix) == ("context.prce", "did you mean `price`?")


def test_an_outcome_without_its_token_names_the_field_and_is_no_matter_of_the_key(client: Client) -> None:
    error = {"field": "outcome_token", "problem": "missing", "fix": "send the `outcome_token`"}
    problem = {"type": "urn:journey-bandit:problem:forbidden", "title": "No", "status": 403, "errors": [error]}
    item = {"status": 403, "problem": problem}
    network = Network([(403, {"Content-Type": "application/problem+json"}, problem), (200, {}, {"outcomes": [item]})])
    face, one = client(network), uuid.UUID(int=1)
    with pytest.raises(InvalidRequestError) as alone:
        face.reward(one, 1)
    with pytest.raises(ItemsFailedError) as batch:
        face.report_many([OutcomeReport(decision_id=one, kind="reward", value=1)])
    for told in (alone.value, batch.value.results[0]):
        assert type(told) is InvalidRequestError
        assert told.status == 403
        assert [(wrong.field, wrong.fix) for wrong in told.errors] == [("outcome_token", "send the `outcome_token`")]


def test_a_refusal_of_something_between_is_told_by_its_status(client: Client) -> None:
    for body in (b"<html>Forbidden</html>", b"[1]", b'"no"', b"\xff", b""):
        with pytest.raises(KeyRefusedError, match="403 The answer is no problem document"):
            client(Network([(403, {}, body)])).decide("u-1")


def test_what_a_later_service_adds_is_ignored(client: Client) -> None:
    later = {**DECIDED, "decision_id": str(uuid.UUID(int=1)), "moment": "hesitates", "colour": "blue",
             "release": {"number": 1, "model": "m", "version": "3", "sha256": "ab", "since": 4}}  # fmt: skip
    got = client(Network([(200, {}, later)])).decide("u-1")
    assert (got.nudge.payload, got.moment, got.release.version) == ({"percent": 10}, "hesitates", "3")
    assert (got.propensities["none"], got.degraded, got.expires_at.year) == (0.75, False, 2026)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused_by_name(client: Client, value: float) -> None:
    network = Network([(200, {}, b"")])
    with pytest.raises(ValueError, match=r"context\.price is -?(nan|inf): JSON has no such number"):
        client(network).decide("u-1", context={"price": value})
    with pytest.raises(ValueError, match=r"value is -?(nan|inf)"):
        client(network).reward(uuid.UUID(int=1), value)
    event = UserEvent(event="Viewed", user_id="u", properties={"items": [{"price": value}]})
    with pytest.raises(ValueError, match=r"events\[0\]\.properties\.items\[0\]\.price is"):
        client(network).events([event])
    assert network.sent == []


def test_ids_of_users_are_one_part_of_a_path(client: Client) -> None:
    network = Network([(200, {}, JOURNEY)])
    assert client(network).journey("a/b?c=é").stage == "cart"
    assert network.sent[0].url.raw_path == b"/v1/users/a%2Fb%3Fc%3D%C3%A9/journey"


def test_an_address_may_have_a_path_and_the_key_goes_in_its_header() -> None:
    network = Network([(200, {}, {"seq": 1})])
    with JourneyClient(f"{URL}/shop/", key="backend.secret", **network.options()) as client:
        assert client.receipt(uuid.UUID(int=1)) == {"seq": 1}
    (request,) = network.sent
    assert request.url.path == f"/shop/v1/decisions/{uuid.UUID(int=1)}"
    assert request.headers["x-api-key"] == "backend.secret"


@pytest.mark.parametrize("url", ["nudges.test:8080", "ftp://nudges.test", "http://", "", "http://[::"])
def test_an_address_that_cannot_be_one_is_refused_at_once(url: str) -> None:
    """Later it would look like a service that is away."""
    with pytest.raises(ValueError, match="url is"):
        JourneyClient(url)


@pytest.mark.parametrize(
    "url", ["https://user:secret@nudges.test", "https://secret@nudges.test", "htp://user:secret@nudges.test",
            "user:secret@nudges.test", "https://user:secret@nudges.test:port", "https://:secret@nudges.test"],
)  # fmt: skip
def test_an_address_with_a_password_is_refused_and_not_told(url: str) -> None:
    for kind in (JourneyClient, AsyncJourneyClient):
        with pytest.raises(ValueError, match=r"url (holds a user name or a password|is no address)") as no:
            kind(url)
        assert "secret" not in str(no.value)
        assert no.value.__cause__ is None
        assert no.value.__context__ is None or no.value.__suppress_context__


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_deadline_that_cannot_be_is_refused_and_not_taken_for_a_service_that_is_away(
    client: Client, seconds: float
) -> None:
    network = Network([(200, {}, b"")])
    for name in ("decide_seconds", "report_seconds"):
        with pytest.raises(ValueError, match=f"{name} is"):
            JourneyClient(URL, **{name: seconds})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds is"):
        client(network).decide("u-1", seconds=seconds)
    with pytest.raises(ValueError, match="seconds is"):
        client(network).events([], seconds=seconds)
    assert network.sent == []


@pytest.mark.parametrize("key", ["backend.secret\n", "backend. secret", "backend.sécret"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(ValueError, match="key holds") as caught:
        JourneyClient(URL, key=key)
    assert "backend" not in str(caught.value)


def test_every_exported_name_has_words() -> None:
    assert sorted(package.__all__) == sorted(set(package.__all__))
    for name in package.__all__:
        assert name in ("NO_NUDGE", "Feature") or getattr(package, name).__doc__, name
    assert msgspec.json.encode(package.NO_NUDGE) == b'{"id":"none","type":"none","format":"none","payload":{}}'
