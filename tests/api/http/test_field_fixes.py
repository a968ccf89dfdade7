"""An error about a field names what belongs there: the fields and values of its type, the closest first."""

import json
from typing import Any

import msgspec
import pytest

from api.http import field_fixes
from api.http.request_body import BodyShape
from api.messages.decisions import DecisionBatch, DecisionRequest, OutcomeBatch, OutcomeRequest
from api.messages.events import EventBatch, EventRequest
from api.messages.releases import ReleaseRequest, RollbackRequest
from bandit.errors import InvalidRequest, Problem

ID = "019df0a5-3c00-7000-8000-000000000000"
BODIES = (
    DecisionRequest, DecisionBatch, OutcomeRequest, OutcomeBatch, EventRequest, EventBatch, ReleaseRequest,
    RollbackRequest,
)  # fmt: skip


def refused(type_: type[Any], body: Any) -> Problem:
    with pytest.raises(InvalidRequest) as error:
        BodyShape(type_).read(json.dumps(body).encode())
    (problem,) = error.value.problems
    return problem


KINDS = "known: activation, opt_out, retraction, reward"


@pytest.mark.parametrize(
    ("type_", "body", "field", "fix"),
    [
        (DecisionRequest, {"user": "u"}, "user", "did you mean `user_id`? known: consent, context, decision_id, "),
        (DecisionRequest, {"user_id": "u", "evidence": {"dedline": 1}}, "evidence.dedline",
         "did you mean `deadline`? known: as_of, deadline, stock"),
        (DecisionRequest, {"stage": "cart"}, "user_id", "add it: a text"),
        (DecisionRequest, {"user_id": 5}, "user_id", "write a text"),
        (DecisionRequest, {"user_id": "u", "evidence": {"stock": 1.5}}, "evidence.stock", "write a whole number"),
        (DecisionRequest, {"user_id": "u", "consent": {"push": 1}}, "consent[...]", "write true or false"),
        (DecisionRequest, {"user_id": "u", "include": [3]}, "include[0]", "write a text"),
        (DecisionRequest, {"user_id": "u", "context": {"": 1}}, "context", "write a name that is not empty"),
        (OutcomeRequest, {"decision_id": ID, "kind": "click"}, "kind", KINDS),
        (OutcomeRequest, {"decision_id": ID, "kind": "rewrad"}, "kind", "did you mean `reward`? known: "),
        (OutcomeRequest, {"decision_id": ID, "kind": 5}, "kind", KINDS),
        (OutcomeRequest, {"decision_id": "7", "kind": "reward"}, "decision_id", "write a UUID, such as 019d"),
        (OutcomeRequest, {"decision_id": ID, "kind": "reward", "occurred_at": "yesterday"}, "occurred_at",
         "write a time with its zone (RFC 3339), such as 2026-05-01T12:00:00Z"),
        (OutcomeRequest, {"decision_id": ID, "kind": "reward", "occurred_at": "2026-05-01T12:00:00"}, "occurred_at",
         "write a time with its zone"),
        (OutcomeRequest, {"decision_id": ID}, "kind", "add it: one of reward, activation, retraction"),
        (EventRequest, {"event_id": "1", "event": "a", "user": "u"}, "user", "did you mean `user_id`? known: "),
        (DecisionBatch, {"decisions": [{"user": "u"}]}, "decisions[0].user", "did you mean `user_id`? known: "),
    ],
)  # fmt: skip
def test_the_fix_says_what_belongs_there(type_: type[Any], body: Any, field: str, fix: str) -> None:
    problem = refused(type_, body)
    assert problem.field == field
    assert problem.fix.startswith(fix)


@pytest.mark.parametrize("type_", BODIES)
def test_no_field_of_our_own_messages_is_left_without_a_fix(type_: type[msgspec.Struct]) -> None:
    """Whatever is wrong with it; and a field that is not known names all that are."""
    for field in msgspec.structs.fields(type_):
        assert field_fixes.fix(type_, f".{field.encode_name}", "Expected something") != field_fixes.SEE, field.name
        missing = f"Object missing required field `{field.encode_name}`"
        assert field_fixes.fix(type_, "", missing) != field_fixes.SEE, field.name
    known = field_fixes.fix(type_, "", "Object contains unknown field `zzz`")
    assert all(field.encode_name in known for field in msgspec.structs.fields(type_))


def test_a_path_that_leads_nowhere_is_answered_with_the_documentation() -> None:
    for where in (".nothing", ".user_id.more", "[0]", ".context[...].deep"):
        assert field_fixes.fix(DecisionRequest, where, "Expected `int`") == field_fixes.SEE
