"""Requests that Schemathesis makes from the OpenAPI document, right and wrong ones: each answer is one that the
document names, in the form it names, and never 500; what the document allows is taken, what it forbids is refused.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import urllib3
from hypothesis import HealthCheck, Phase, errors, given, seed, settings
from requests.adapters import BaseAdapter, HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup

from api.http.keys import SCOPES, create

EXAMPLES = 12  # of each operation, right ones and wrong ones
BATCHES = ("/v1/decisions/batch", "/v1/outcomes/batch", "/v1/events")
CONTENT = (
    "no stage has this feature",
    "no stage has a nudge",
    "got `float`",  # JSON Schema calls 1.0 an integer
    "Invalid base64",  # contentEncoding is a note in JSON Schema
)


class InProcess(BaseAdapter):
    """Adapter of `requests` that asks a client of a service in this process."""

    def __init__(self, client: Any):
        super().__init__()
        self._client = client

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The answer to one request."""
        headers = list(request.headers.items())
        got = self._client.request(request.method, request.url, content=request.body, headers=headers)
        found = urllib3.HTTPHeaderDict(got.headers.multi_items())
        body = io.BytesIO(got.content)
        raw = urllib3.HTTPResponse(body=body, headers=found, status=got.status_code, preload_content=False)
        return HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def reached(
    serving: Callable[..., AbstractContextManager[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, dict[str, str]]]:
    """The document of a service in this process, which all requests to it reach; and a key for all of it."""
    headers = {"X-API-Key": create(tmp_path / "keys.toml", "all", list(SCOPES))}
    with serving(app="travel", keys=str(tmp_path / "keys.toml")) as client:
        adapter = InProcess(client)
        monkeypatch.setattr(requests.Session, "get_adapter", lambda *_, **__: adapter)
        schema = schemathesis.openapi.from_dict(client.get("/docs/openapi.json").json())
        schema.config.update(base_url="http://testserver")
        schema.config.generation.update(with_security_parameters=False)
        yield schema, headers


def by_design(failure: Exception, path: str, reply: Any) -> bool:
    """Whether an answer is as it is meant although the document cannot say so: rules that depend on content, and
    batches, in which each item has an answer of its own.
    """
    kind = type(failure).__name__
    if kind == "RejectedPositiveData":
        return all(any(word in e["problem"] for word in CONTENT) for e in reply.json()["errors"])
    return kind == "AcceptedNegativeData" and path in BATCHES


def test_answers_to_generated_requests_are_those_of_the_document(reached: tuple[Any, dict[str, str]]) -> None:
    """All checks but that of keys, which would meet the limit of wrong ones: `test_access.py` has it."""
    schema, headers = reached
    load_all_checks()
    keys, seen, wrong = CHECKS.get_one("ignored_auth"), Counter[tuple[GenerationMode, int]](), list[str]()

    def tried(operation: Any, mode: GenerationMode) -> None:
        @seed(1)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            reply = case.call(headers=headers)
            seen[mode, reply.status_code // 100] += 1
            try:
                case.validate_response(reply, headers=headers, excluded_checks=[keys])
            except FailureGroup as found:
                named = [one for one in found.exceptions if not by_design(one, operation.path, reply)]
                wrong.extend(f"{operation.method} {operation.path}: {type(one).__name__} {one}" for one in named)

        check()

    operations = [one.ok() for one in schema.get_all_operations()]
    for operation in operations:
        tried(operation, GenerationMode.POSITIVE)
        try:
            tried(operation, GenerationMode.NEGATIVE)
        except errors.Unsatisfiable:
            assert operation.method == "get", "a route without a body and parameters has no wrong requests"
    assert wrong == []
    assert len(operations) >= 25
    assert seen[GenerationMode.POSITIVE, 2] >= 5 * EXAMPLES, seen
    assert seen[GenerationMode.NEGATIVE, 4] >= 5 * EXAMPLES, seen
    assert all(status in (2, 4) for _, status in seen), seen
