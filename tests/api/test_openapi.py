"""The OpenAPI document, read as a generated and strictly typed client reads it: what is not said is not there."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.http.keys import create
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from tools import openapi

SHOP = Path(__file__).parents[1] / "journey_shop.toml"
CONTEXT = {"price": 9.5, "mobile": True}
EVENT = {
    "event_id": "e-1",
    "event": "Product Viewed",
    "user_id": "u-1",
    "properties": {"product_id": "p", "price": 9.5, "tags": ["a", None], "details": {"colour": "blue"}},
}


@pytest.fixture
def client(serving: Callable[..., AbstractContextManager[Any]]) -> Iterator[Any]:
    with serving(app=str(SHOP)) as running:
        yield running


@pytest.fixture
def document(client: Any) -> Any:
    return strict(client.get("/docs/openapi.json").json())


def strict(part: Any) -> Any:
    """An object has the properties that its schema names, unless the schema says what others may be."""
    if isinstance(part, dict):
        closed = {"additionalProperties": False} if part.get("type") == "object" else {}
        return closed | {key: strict(value) for key, value in part.items()}
    return [strict(value) for value in part] if isinstance(part, list) else part


def fits(document: Any, schema: Any, value: Any) -> None:
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"], **schema}
    jsonschema.validate(value, whole)


def called(client: Any, document: Any, method: str, path: str, body: Any = None, **parts: str) -> Any:
    """The reply to a request, both as the document says."""
    operation = document["paths"][path][method]
    if body is not None:
        fits(document, operation["requestBody"]["content"]["application/json"]["schema"], body)
    reply = client.request(method.upper(), path.format(**parts), **({} if body is None else {"json": body}))
    (content,) = operation["responses"][str(reply.status_code)]["content"].values()
    fits(document, content["schema"], reply.json())
    return reply.json()


def test_what_the_service_takes_and_gives_is_what_the_document_says(client: Any, document: Any) -> None:
    asked = {"stage": "look", "user_id": "u-1", "context": CONTEXT, "consent": {"mail": True}, "evidence": {"stock": 3}}
    decided = called(client, document, "post", "/v1/decisions", asked)
    called(client, document, "post", "/v1/decisions/batch", {"decisions": [asked, {**asked, "context": {"x": None}}]})
    outcome = {"decision_id": decided["decision_id"], "kind": "reward", "value": 1}
    called(client, document, "post", "/v1/outcomes", outcome)
    called(client, document, "post", "/v1/outcomes/batch", {"outcomes": [outcome, {**outcome, "value": 2}]})
    called(client, document, "post", "/v1/events", {"events": [EVENT]})
    called(client, document, "post", "/v1/registry", {"reachable": True, "since": "2026-01-01T00:00:00Z",
                                                      "refused": {"look": "digest"}})  # fmt: skip
    called(client, document, "get", "/v1/decisions/{decision_id}", decision_id=decided["decision_id"])
    called(client, document, "get", "/v1/users/{user_id}/journey", user_id="u-1")
    for path in ("/v1/stages", "/v1/policies", "/v1/releases", "/v1/webhooks/dead-letters", "/health/ready"):
        called(client, document, "get", path)
    called(client, document, "post", "/v1/decisions", {**asked, "context": {"nobody": "x"}})  # a problem


def test_no_object_of_free_form_is_closed(document: Any) -> None:
    def tables(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            if part.get("type") == "object" and "properties" not in part:
                yield part
            for inner in part.values():
                yield from tables(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from tables(inner)

    found = list(tables(document))
    assert len(found) > 20
    assert [table for table in found if table["additionalProperties"] is False] == []


def test_a_context_of_lists_is_refused_by_the_document_as_by_the_service(client: Any, document: Any) -> None:
    schema = document["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    asked = {"stage": "look", "user_id": "u-1", "context": CONTEXT}
    fits(document, schema, asked)
    for wrong in ({"context": {"price": [1]}}, {"user_id": 7}, {"extra": 1}, {"consent": {"mail": "yes"}}):
        with pytest.raises(jsonschema.ValidationError):
            fits(document, schema, copy.deepcopy(asked) | wrong)
        assert client.post("/v1/decisions", json=asked | wrong).status_code == 400


def test_generated_names_are_those_of_the_source(document: Any) -> None:
    """Operations and bodies have names of their own: no generator invents any."""
    operations = [one for operations in document["paths"].values() for one in operations.values()]
    names = [one["operationId"] for one in operations]
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    assert len(set(names)) == len(names) > 30
    bodies = [
        content["schema"]
        for one in operations
        for part in (one.get("requestBody", {}), *one["responses"].values())
        for form, content in part.get("content", {}).items()
        if form.endswith("json")
    ]
    free = {"type": "object", "additionalProperties": {"type": "string"}}  # {"status": "ok"}, twice
    assert [schema for schema in bodies if set(schema) != {"$ref"}] == [free, free]
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert used == document["components"]["schemas"].keys()
    assert document["info"]["title"] == "Journey Bandit"


def test_the_document_is_of_no_app_but_for_its_examples() -> None:
    def told(app: str) -> Any:
        served = create_app(Settings(app=app, dev=True, salt="docs"), store=MemoryStore()).openapi_schema.to_schema()
        for operations in served["paths"].values():
            for operation in operations.values():
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    assert content.pop("example")
        return served

    assert told("travel") == told("fashion") == told(str(SHOP))


def test_every_refusal_is_a_problem_document(document: Any) -> None:
    """Also those that are documented by themselves, because a route has parameters."""
    forms = {
        (path, method, status): list(response["content"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, response in operation["responses"].items()
        if int(status) >= 400
    }
    assert len(forms) > 100
    health = ("/health/ready", "get", "503")
    assert {k for k, form in forms.items() if form != ["application/problem+json"]} <= {health}


def test_every_operation_that_limits_refuse_says_so(document: Any) -> None:
    """Probes are never limited. `tests/api/http/test_limits.py` tries refusals."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if path.startswith("/health/"):
                assert "429" not in responses
            else:
                assert all("application/problem+json" in responses[status]["content"] for status in ("429", "503"))


def test_a_refusal_by_a_limit_is_as_the_document_says(
    serving: Callable[..., AbstractContextManager[Any]], document: Any, tmp_path: Path
) -> None:
    slow = {"X-API-Key": create(tmp_path / "keys.toml", "slow", ["read"], quota={"rate": 0.001, "burst": 1})}
    with serving(app=str(SHOP), keys=str(tmp_path / "keys.toml")) as client:
        client.get("/v1/stages", headers=slow)
        refused = client.get("/v1/stages", headers=slow)
    assert refused.status_code == 429
    content = document["paths"]["/v1/stages"]["get"]["responses"]["429"]["content"]
    fits(document, content["application/problem+json"]["schema"], refused.json())


def test_the_kept_document_is_what_the_service_serves() -> None:
    """If not: python -m tools.openapi. `tests/api/http/test_access.py` tries the scopes of the routes."""
    kept = json.loads(openapi.KEPT.read_text(encoding="utf-8"))
    with TestClient(create_app(Settings(app="travel", dev=True, salt="docs"), store=MemoryStore())) as client:
        assert openapi.without_ours(kept) == client.get("/docs/openapi.json").json()
    assert openapi.text(openapi.document()) == openapi.text(kept)
