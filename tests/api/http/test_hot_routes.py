"""Hot routes: what is plain takes the short way, and whichever way a request takes, its answer is the same."""

import json
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.testing import TestClient

from api.http.asgi import ProtocolApp
from api.http.hot_routes import HotRoutes
from api.http.keys import create
from api.stores.memory.store import MemoryStore

Serving = Callable[..., AbstractContextManager[TestClient[Litestar]]]

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
ASK = {"stage": "signup", "user_id": "u", "decision_id": ID}
LONG_WAY = {"content-encoding": "identity"}  # what it says is so anyway
BODIES: list[tuple[str, bytes | dict[str, Any]]] = [
    ("/v1/decisions", ASK),
    ("/v1/decisions", ASK | {"user_id": "another"}),  # conflict
    ("/v1/decisions", ASK | {"stage": "sign"}),
    ("/v1/decisions", ASK | {"contxt": {}}),
    ("/v1/decisions", ASK | {"context": {"age": "old", "plam": 1}}),
    ("/v1/decisions", b'{"stage": NaN}'),
    ("/v1/decisions", b"\xff"),
    ("/v1/decisions", b"[" * 5000),
    ("/v1/outcomes", {"decision_id": ID, "kind": "reward"}),
    ("/v1/outcomes", {"decision_id": ID, "kind": "reward", "value": 0.5}),
    ("/v1/outcomes", {"decision_id": str(uuid.UUID(int=1)), "kind": "reward"}),
    ("/v1/events", {"events": [{"event_id": "e", "event": "Opened", "user_id": "u"}, {"event": 3}]}),
    ("/v1/events", {"events": 3}),
    ("/v1/track", {"event": "Opened", "userId": "u", "messageId": "m"}),
    ("/v1/track", {"event": "Opened"}),
    ("/v1/t", b"no"),
]


def hot(client: TestClient[Litestar]) -> HotRoutes:
    app = client.app
    assert isinstance(app, ProtocolApp)
    assert app.hot is not None
    return app.hot


def scope(path: str = "/v1/decisions", method: str = "POST", **headers: str) -> Any:
    given = {"host": "x", "content-length": "90", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }


def test_a_plain_request_takes_the_short_way_and_any_other_the_long_one(serving: Serving) -> None:
    with serving() as client:
        find = hot(client).find
        for path in ("/v1/decisions", "/v1/outcomes", "/v1/events", "/v1/track", "/v1/t", "/v1/identify"):
            found = find(scope(path))
            assert found is not None
            assert found.path == path
        others: list[Any] = [
            scope("/v1/decisions/batch"),
            scope("/v1/decisions/"),
            scope(method="GET"),
            scope(method="HEAD"),
            scope(content_encoding="gzip"),
            scope(transfer_encoding="chunked"),
            scope(expect="100-continue"),
            scope(origin="https://shop.example"),
            scope(host="x/y"),
            scope(content_length="0"),
            scope(content_length="64001"),
            scope(content_length="-1"),
            scope(content_length="x"),
            {**scope(), "headers": [(b"host", b"x")]},
            {**scope(), "headers": [(b"host", b"x"), (b"host", b"y"), (b"content-length", b"9")]},
            {**scope(), "headers": [(b"content-length", b"9")]},
            {**scope(), "headers": [(b"host", b"x"), (b"content-length", b"9"), (b"content-length", b"9")]},
        ]
        for other in others:
            assert find(other) is None, other


def test_a_key_opens_the_short_way_only_if_it_opens_the_route(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    decide, reward = create(file, "app", ["decide"]), create(file, "other", ["reward"])
    with serving(keys=str(file)) as client:
        find = hot(client).find
        assert find(scope(x_api_key=decide)) is not None
        assert find(scope(authorization=f"Bearer {decide}")) is not None
        assert find(scope("/v1/outcomes", x_api_key=reward)) is not None
        for refused in (
            scope(),
            scope(x_api_key=reward),
            scope(x_api_key="app.wrong"),
            scope(authorization=f"Basic {decide}"),
            scope(x_api_key=decide, authorization=f"Bearer {decide}"),
        ):
            assert find(refused) is None
        assert client.post("/v1/decisions", json=ASK, headers={"x-api-key": decide}).status_code == 200
        assert client.post("/v1/decisions", json=ASK).status_code == 401
        assert client.post("/v1/decisions", json=ASK, headers={"x-api-key": reward}).status_code == 403


def test_both_ways_answer_alike_and_count_alike(serving: Serving) -> None:
    """The same requests in the same order, to two services on ledgers of their own."""
    answers, counts = [], []
    for way in ({}, LONG_WAY):
        headers = {"x-request-id": "same", **way}  # which errors name
        with serving(MemoryStore()) as client:
            said = []
            for path, body in BODIES:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                for _ in range(2):  # the second is a duplicate, if the first was taken
                    reply = client.post(path, content=data, headers=headers)
                    kinds = {name: reply.headers.get(name) for name in ("content-type", "retry-after")}
                    said.append((path, reply.status_code, kinds, reply.text))
            answers.append(said)
            lines = client.get("/metrics").text.splitlines()
            counts.append(sorted(line for line in lines if line.startswith("journey_bandit_http_responses_total")))
    assert answers[0] == answers[1]
    assert counts[0] == counts[1]
    assert {status for _, status, _, _ in answers[0]} == {200, 400, 404, 409}
