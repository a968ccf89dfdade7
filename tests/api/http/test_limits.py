"""Limits as clients meet them: which requests are refused, in which shape, and what answers say of what is left."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient, transport

from api.decisions.maker import DecisionMaker
from api.decisions.service import DecisionService
from api.http.asgi import ProtocolApp
from api.http.keys import SCOPES, create, load
from api.traffic.request_limits import RequestLimits, RequestQuota

Serving = Callable[..., AbstractContextManager[TestClient[Litestar]]]
ASK = {"stage": "signup", "user_id": "u"}
LONG_WAY = {"content-encoding": "identity"}  # what it says is so anyway
SHAPES = {  # a path of each protocol → where its errors say the words
    "/v1/decisions": "detail",
    "/v1/decisions/batch": "detail",
    "/v1/events": "detail",
    "/v1/track": "message",
    "/ofrep/v1/evaluate/flags": "errorDetails",
    "/signup/personalizer/v1.0/rank": "error",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def key(file: Path, name: str, **quota: float | None) -> dict[str, str]:
    return {"X-API-Key": create(file, name, list(SCOPES), quota=quota)}


def limits(client: TestClient[Litestar]) -> RequestLimits:
    app = client.app
    assert isinstance(app, ProtocolApp)
    assert app.limits is not None
    return app.limits


@pytest.mark.parametrize("more", [{}, LONG_WAY])
def test_a_key_beyond_its_rate_is_refused_and_another_is_not(
    serving: Serving, file: Path, more: dict[str, str]
) -> None:
    slow, other = key(file, "slow", rate=0.001, burst=2), key(file, "other")
    with serving(keys=str(file)) as client:
        left = []
        for _ in range(2):
            reply = client.post("/v1/decisions", json=ASK, headers=slow | more)
            assert reply.status_code == 200
            assert reply.headers["ratelimit-policy"] == '"key";q=2;w=2000'
            left.append(reply.headers["ratelimit"].partition(";t=")[0])
        assert left == ['"key";r=1', '"key";r=0']
        refused = client.post("/v1/decisions", json=ASK, headers=slow | more)
        assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
        assert 999 <= int(refused.headers["retry-after"]) <= 1001
        problem = refused.json()
        assert (problem["status"], problem["type"]) == (429, "urn:journey-bandit:problem:limit-reached")
        assert "the key 'slow' may send 0.001 requests or items a second (rate), 2 at once (burst)" in problem["detail"]
        assert problem["errors"][0]["fix"] == "wait as long as Retry-After says"
        assert client.post("/v1/decisions", json=ASK, headers=other).status_code == 200
        metrics = client.get("/metrics").text
        assert 'journey_bandit_limited_total{key="slow",limit="rate"} 1.0' in metrics
        assert 'journey_bandit_key_requests_total{key="slow"} 2.0' in metrics
        assert slow["X-API-Key"].partition(".")[2] not in metrics


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("size", [10, 100_000])
def test_each_protocol_says_the_limit_in_its_own_shape(serving: Serving, file: Path, path: str, size: int) -> None:
    slow = key(file, "slow", rate=0.001, burst=1)
    with serving(keys=str(file)) as client:
        client.get("/v1/stages", headers=slow)
        reply = client.post(path, content=b" " * size, headers=slow)
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 999
        assert "(rate)" in str(reply.json()[SHAPES[path]])


def test_a_batch_is_refused_whole_if_its_items_are_more_than_is_left(serving: Serving, file: Path) -> None:
    slow = key(file, "slow", rate=0.001, burst=10)
    with serving(keys=str(file)) as client:
        for path, field, item in (("/v1/decisions/batch", "decisions", ASK), ("/v1/events", "events", {})):
            reply = client.post(path, json={field: [item] * 4}, headers=slow)
            assert (reply.status_code, len(reply.json()[field])) == (200, 4)
        before = client.get("/metrics").text.count("journey_bandit_decisions_total{")
        refused = client.post("/v1/decisions/batch", json={"decisions": [ASK] * 4}, headers=slow)
        assert refused.status_code == 429
        assert "10 at once (burst)" in refused.json()["detail"]
        assert client.get("/metrics").text.count("journey_bandit_decisions_total{") == before
        assert client.post("/v1/decisions", json=ASK, headers=slow).status_code == 200


def test_probes_are_answered_whoever_asks_for_how_much(serving: Serving, file: Path) -> None:
    slow = key(file, "slow", rate=0.001, burst=1)
    with serving(keys=str(file)) as client:
        for _ in range(5):
            assert client.get("/health/ready", headers=slow).status_code == 200
        assert client.get("/v1/stages", headers=slow).status_code == 200
        assert client.get("/v1/stages", headers=slow).status_code == 429
        assert client.head("/v1/stages", headers=slow).content == b""


def test_a_write_key_in_the_body_counts_as_the_key(serving: Serving, file: Path) -> None:
    slow = key(file, "slow", rate=0.001, burst=2)["X-API-Key"]
    event = {"type": "track", "event": "Opened", "userId": "u", "writeKey": slow}
    with serving(keys=str(file)) as client:
        replies = [client.post("/v1/track", json=event | {"messageId": f"m{n}"}) for n in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert "the key 'slow'" in replies[2].json()["message"]
        assert client.post("/v1/track", json=event | {"writeKey": "no.key"}).status_code == 401
        assert all(holder.flying == 0 for holder in limits(client)._addresses.values())


def test_every_visit_ends_whatever_the_answer(serving: Serving, file: Path) -> None:
    fast = key(file, "fast")
    with serving(keys=str(file)) as client:
        client.post("/v1/decisions", json=ASK, headers=fast)
        client.post("/v1/decisions", content=b"{", headers=fast)
        client.post("/v1/decisions", json=ASK, headers=fast | LONG_WAY)
        client.post("/v1/decisions/batch", json={"decisions": [ASK] * 40}, headers=fast)
        client.post("/v1/decisions", content=b"a" * 70_000, headers=fast)
        client.get("/nothing", headers=fast)
        client.get("/v1/policies", params={"wait": "true"}, headers=fast)
        client.get("/v1/stages")
        client.get("/v1/stages", headers={"X-API-Key": "fast.guess"})
        known = limits(client)
        assert [holder.flying for holder in (*known._keys.values(), *known._addresses.values())] == [0, 0]
        assert known.turns._free == known.turns.running


def test_a_page_of_an_origin_that_may_call_may_read_a_refusal(serving: Serving, file: Path) -> None:
    slow = key(file, "slow", rate=0.001, burst=1) | {"Origin": "https://shop.example"}
    with serving(keys=str(file), cors="https://shop.example") as client:
        client.get("/v1/stages", headers=slow)
        refused = client.get("/v1/stages", headers=slow)
        assert refused.status_code == 429
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Retry-After" in refused.headers["access-control-expose-headers"]
        other = client.get("/v1/stages", headers=slow | {"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_trial_without_keys_is_not_limited(serving: Serving) -> None:
    with serving() as client:
        app: Any = client.app
        assert app.limits is None
        assert "ratelimit" not in client.post("/v1/decisions", json=ASK).headers


def test_a_trial_takes_no_writes_from_pages_of_other_origins(serving: Serving) -> None:
    with serving(cors="https://shop.example") as client:

        def status(path: str = "/v1/decisions", **headers: str) -> int:
            return client.post(path, json=ASK, headers=headers).status_code

        assert status() == 200
        assert status(Origin="http://testserver.local", Host="testserver.local") == 200
        assert status(Origin="https://shop.example") == 200
        for origin in ("https://evil.example", "null", "http://testserver.local:81"):
            assert status(Origin=origin) == 403
            assert status("/signup/personalizer/v1.0/rank", Origin=origin) == 403
        assert client.get("/v1/stages", headers={"Origin": "https://evil.example"}).status_code == 200


def test_a_file_of_keys_says_what_each_may_ask_for(file: Path) -> None:
    made = {
        "plain": key(file, "plain"),
        "slow": key(file, "slow", rate=5),
        "small": key(file, "small", rate=0.1),
        "whole": key(file, "whole", rate=5, burst=7, in_flight=2),
    }
    keys = load(file)
    found = {name: keys.valid(header["X-API-Key"], 0) for name, header in made.items()}
    assert {name: one.quota for name, one in found.items() if one} == {
        "plain": RequestQuota(10_000.0, 20_000.0, 128),
        "slow": RequestQuota(5.0, 10.0, 128),
        "small": RequestQuota(0.1, 1.0, 128),
        "whole": RequestQuota(5.0, 7.0, 2),
    }


def test_a_large_batch_lets_others_be_served_in_between(
    serving: Serving, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that comes after a batch of 400 began is prepared and answered before the batch is."""
    prepared, prepare, began = list[str](), DecisionMaker.prepare, asyncio.Event()

    def noted(maker: DecisionMaker, request: Any, *more: Any) -> Any:
        prepared.append(request.user_id)
        began.set()
        return prepare(maker, request, *more)

    monkeypatch.setattr(DecisionMaker, "prepare", noted)
    fast = key(file, "fast")
    with serving(keys=str(file)) as client:
        app: Any = client.app
        ended = list[str]()

        async def call(path: str, body: bytes, name: str) -> None:
            headers = [
                (b"host", b"x"),
                (b"x-api-key", fast["X-API-Key"].encode()),
                (b"content-length", b"%d" % len(body)),
            ]
            scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": headers,
                     "http_version": "1.1", "query_string": b"", "client": ("192.0.2.1", 1), "state": {},
                     "scheme": "http", "server": ("x", 80), "root_path": ""}  # fmt: skip

            async def receive() -> Any:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    ended.append(f"{name} {message['status']}")

            await app(scope, receive, send)

        async def run() -> None:
            items = b",".join(b'{"stage": "signup", "user_id": "u%d"}' % n for n in range(400))
            batch = asyncio.create_task(call("/v1/decisions/batch", b'{"decisions": [' + items + b"]}", "batch"))
            await began.wait()
            await asyncio.gather(batch, call("/v1/decisions", b'{"stage": "signup", "user_id": "one"}', "single"))

        client.blocking_portal.call(run)  # in the loop of the service
        assert ended == ["single 200", "batch 200"]
        assert prepared.index("one") < 100


def test_behind_a_trusted_proxy_a_client_without_a_key_is_counted_by_what_the_proxy_says(
    serving: Serving, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody else's word of who asks is not taken."""
    key(file, "one")
    parse, peer = transport.TestClientTransport.parse_request, ["192.0.2.7"]
    monkeypatch.setattr(
        transport.TestClientTransport,
        "parse_request",
        lambda self, request: parse(self, request) | {"client": (peer[0], 4711)},
    )
    said = [{"X-Forwarded-For": f"203.0.113.9, 198.51.100.{n}"} for n in (1, 1, 2)]
    with serving(keys=str(file), trusted_proxies="192.0.2.0/24") as client:
        for headers in said:
            client.get("/v1/stages", headers=headers)
        assert set(limits(client)._addresses) == {"198.51.100.1", "198.51.100.2"}
        peer[0] = "198.51.100.77"
        client.get("/v1/stages", headers=said[0])
        assert set(limits(client)._addresses) == {"198.51.100.1", "198.51.100.2", "198.51.100.77"}
    with serving(keys=str(file)) as client:
        client.get("/v1/stages", headers=said[0])
        assert set(limits(client)._addresses) == {"198.51.100.77"}


def test_who_waits_for_what_is_learned_holds_no_turn(
    serving: Serving, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, free = key(file, "fast"), list[int]()
    learned = DecisionService.policies

    async def policies(self: DecisionService, *, wait: bool = False) -> Any:
        free.append(limits(client).turns._free)
        return await learned(self, wait=wait)

    monkeypatch.setattr(DecisionService, "policies", policies)
    with serving(keys=str(file)) as client:
        for wait in ("true", "false"):
            assert client.get("/v1/policies", params={"wait": wait}, headers=fast).status_code == 200
        running = limits(client).turns.running
        assert free == [running, running - 1]
