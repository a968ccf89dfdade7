"""Pages in browsers: what a publishable key opens, for whom, from where and how often, and that it opens no more."""

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from api.app import create_app
from api.http.browser_access import signed
from api.http.keys import PublishableKey, create, create_publishable
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from bandit.errors import CatalogueError

Client = TestClient[Litestar]
SHOP, OTHER = "https://shop.example", "https://other.example"
START = 1_767_225_600
TODAY = dt.datetime.fromtimestamp(START, dt.UTC)
VIEW = {"event_id": "e1", "event": "Product Viewed", "properties": {"product_id": "p1"}}


class Pages(NamedTuple):
    """A service for pages: its client, publishable key, clock (seconds) and store."""

    client: Client
    key: PublishableKey
    now: list[float]
    store: MemoryStore

    def send(self, path: str, user: str = "u1", *, origin: str = SHOP, **more: Any) -> Any:
        """What is answered to a page that sends a body as text; a token of the user unless `token` says another."""
        body = {"key": self.key.id, "token": self.token(user), "user_id": user} | more
        headers = {"Origin": origin, "Content-Type": "text/plain;charset=UTF-8"}
        return self.client.post(f"/v1/browser/{path}", content=json.dumps(body), headers=headers)

    def token(self, user: str, lasting: float = 600) -> str:
        return signed(self.key, user, int(self.now[0] + lasting))

    def refused(self, reason: str) -> float:
        text = self.client.get("/metrics").text
        line = f'journey_bandit_browser_refused_total{{reason="{reason}"}} '
        return next((float(one.removeprefix(line)) for one in text.splitlines() if one.startswith(line)), 0.0)


@contextmanager
def serving(tmp_path: Path, app: str = "fashion", **changes: Any) -> Iterator[Pages]:
    file = tmp_path / "keys.toml"
    create(file, "backend", ["decide", "reward", "read", "events"])
    made = create_publishable(file, "shop", [SHOP], "signed", TODAY)
    if changes:
        text, more = file.read_text(), "".join(f"{name} = {json.dumps(value)}\n" for name, value in changes.items())
        file.write_text(text + more)
        made = msgspec.structs.replace(made, **changes)
    now, store = [float(START)], MemoryStore()
    made_app = create_app(Settings(app=app, keys=str(file), salt="s"), clock=lambda: int(now[0] * 1e6), store=store)
    with TestClient(made_app) as client:
        yield Pages(client, made, now, store)


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    with serving(tmp_path) as found:
        yield found


def test_a_page_gets_a_nudge_for_its_user_and_reports_that_it_was_seen(pages: Pages) -> None:
    reply = pages.send("decisions", stage="browsing")
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == SHOP
    assert "Origin" in reply.headers["vary"]
    made = reply.json()
    assert set(made) == {"decision_id", "stage", "nudge", "expires_at", "duplicate"}
    seen = pages.send("activations", decision_id=made["decision_id"])
    assert (seen.status_code, seen.json()) == (200, {"recorded": True, "duplicate": False, "late": False})
    assert pages.send("activations", decision_id=made["decision_id"]).json()["duplicate"]
    found = pages.store.decisions_by_id([uuid.UUID(made["decision_id"])])[uuid.UUID(made["decision_id"])]
    assert found.decision.deferred
    assert [one.kind for one in found.outcomes] == ["activation"]


def test_a_repeated_request_is_the_same_decision(pages: Pages) -> None:
    one = str(uuid.uuid4())
    first, again = (pages.send("decisions", stage="browsing", decision_id=one).json() for _ in range(2))
    assert again == first | {"duplicate": True}


def test_a_page_reports_events_of_its_user(pages: Pages) -> None:
    reply = pages.send("events", events=[VIEW])
    assert reply.status_code == 200
    assert [one["status"] for one in reply.json()["events"]] == [200]
    assert pages.store.counts().decisions == 0


@pytest.mark.parametrize("path", ["decisions", "events", "activations"])
def test_what_is_refused_is_said_and_counted_and_nothing_is_recorded(pages: Pages, path: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "decisions": {"stage": "browsing"},
        "events": {"events": [VIEW]},
        "activations": {"decision_id": str(uuid.uuid4())},
    }
    rest = bodies[path]
    forged = jwt.encode({"sub": "u1", "aud": pages.key.id, "exp": START + 60}, "x" * 43, algorithm="HS256")
    unsigned = jwt.encode({"sub": "u1", "aud": pages.key.id, "exp": START + 60}, "", algorithm="none")
    other_key = jwt.encode({"sub": "u1", "aud": "pub_else", "exp": START + 60}, pages.key.secret, algorithm="HS256")
    endless = jwt.encode({"sub": "u1", "aud": pages.key.id}, pages.key.secret, algorithm="HS256")
    cases: list[tuple[int, str, str, dict[str, Any]]] = [
        (401, "key", "no publishable key", {"key": "pub_shop_AAAAAAAAAAAAAAAA"}),
        (401, "key", "no publishable key", {"key": ""}),
        (403, "origin", "origin", {"origin": OTHER}),
        (403, "origin", "origin", {"origin": "null"}),
        *((401, "token", "who the user is", {"token": t}) for t in ("", "x", forged, unsigned, other_key, endless)),
        (401, "token", "is over", {"token": pages.token("u1", -1)}),
        (401, "token", "more than a day", {"token": pages.token("u1", 25 * 3600)}),
        (403, "user", "another user", {"token": pages.token("u2")}),
    ]
    for status, reason, words, sent in cases:
        before = pages.refused(reason)
        reply = pages.send(path, **(rest | sent))
        assert (reply.status_code, reply.json()["status"]) == (status, status), sent
        assert words in reply.json()["detail"], sent
        assert pages.refused(reason) == before + 1, sent
    counts = pages.store.counts()
    assert (counts.decisions, counts.outcomes) == (0, 0)


def test_a_page_of_another_origin_may_not_read_the_answer(pages: Pages) -> None:
    assert "access-control-allow-origin" not in pages.send("decisions", stage="browsing", origin=OTHER).headers
    refused = pages.send("decisions", stage="browsing", token="x")  # noqa: S106
    assert refused.headers["access-control-allow-origin"] == SHOP  # a page may read why it is refused


def test_a_token_that_is_replayed_later_or_for_another_user_is_refused(pages: Pages) -> None:
    token = pages.token("u1")
    assert pages.send("decisions", stage="browsing", token=token).status_code == 200
    assert pages.send("decisions", "u2", stage="browsing", token=token).status_code == 403
    pages.now[0] += 601
    assert pages.send("decisions", stage="browsing", token=token).status_code == 401


def test_nobody_activates_the_decision_of_another_user(pages: Pages) -> None:
    made = pages.send("decisions", stage="browsing").json()["decision_id"]
    forged = pages.send("activations", "u2", decision_id=made)
    assert (forged.status_code, pages.refused("user")) == (403, 1)
    unknown = pages.send("activations", decision_id=str(uuid.uuid4()))
    assert unknown.status_code == 403
    assert unknown.json()["detail"] == forged.json()["detail"]  # tells nobody which decisions there are
    assert pages.store.counts().outcomes == 0


def test_a_purchase_is_for_the_backend_to_report_unless_the_key_lists_it(tmp_path: Path) -> None:
    order = {"event_id": "o1", "event": "Order Completed", "properties": {"order_id": "o1", "revenue": 99}}
    with serving(tmp_path) as pages:
        refused = pages.send("events", events=[VIEW, order])
        assert (refused.status_code, pages.refused("event")) == (403, 1)
        assert "Order Completed" in refused.json()["detail"]
        assert pages.send("events", events=[VIEW]).json()["events"][0]["event"]["duplicate"] is False  # none was kept
    (tmp_path / "listed").mkdir()
    with serving(tmp_path / "listed", events=["Order Completed"]) as pages:
        assert pages.send("events", events=[order]).status_code == 200
        assert pages.send("events", events=[VIEW]).status_code == 403


def test_one_user_cannot_ask_without_end_and_others_go_on(tmp_path: Path) -> None:
    with serving(tmp_path, per_minute=3, in_all=5) as pages:
        assert [pages.send("events", events=[]).status_code for _ in range(4)] == [200, 200, 200, 429]
        late = pages.send("events", events=[])
        assert (late.status_code, late.headers["retry-after"]) == (429, "20")
        assert late.headers["access-control-allow-origin"] == SHOP
        assert pages.send("events", "u2", events=[]).status_code == 200
        assert pages.send("events", "u3", events=[]).status_code == 200
        assert pages.send("events", "u4", events=[]).status_code == 429  # all together
        pages.now[0] += 20
        assert pages.send("events", events=[]).status_code == 200
        assert pages.refused("rate") == 3


def test_a_key_that_expired_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    made = create_publishable(file, "shop", [SHOP], "signed", TODAY)
    file.write_text(file.read_text() + "expires = 2026-01-01T01:00:00Z\n")
    now = [float(START)]
    app = create_app(
        Settings(app="fashion", keys=str(file), salt="s"), clock=lambda: int(now[0] * 1e6), store=MemoryStore()
    )
    with TestClient(app) as client:
        pages = Pages(client, made, now, MemoryStore())
        assert pages.send("events", events=[]).status_code == 200
        now[0] += 3600
        assert pages.send("events", events=[]).status_code == 401


def test_ids_that_nobody_guesses_need_no_token_but_a_token_that_is_sent_must_be_right(tmp_path: Path) -> None:
    with serving(tmp_path) as signed_only:
        assert signed_only.send("events", events=[], token="").status_code == 401
    file = tmp_path / "keys.toml"
    file.write_text(file.read_text().replace('users = "signed"', 'users = "anyone"'))
    now = [float(START)]
    app = create_app(
        Settings(app="fashion", keys=str(file), salt="s"), clock=lambda: int(now[0] * 1e6), store=MemoryStore()
    )
    with TestClient(app) as client:
        pages = Pages(client, signed_only.key, now, MemoryStore())
        assert pages.send("events", events=[], token="").status_code == 200
        assert pages.send("events", events=[], token=pages.token("u2")).status_code == 403


def test_a_page_cannot_say_what_is_true_of_stock_or_which_nudge_it_wants(pages: Pages) -> None:
    wanted: tuple[tuple[str, Any], ...] = (("evidence", {"stock": 1}), ("include", ["discount"]), ("deferred", False))
    for field, value in wanted:
        said: dict[str, Any] = {field: value}
        reply = pages.send("decisions", stage="browsing", **said)
        assert reply.status_code == 400
        assert field in reply.json()["detail"]


def test_a_publishable_key_opens_no_other_route(pages: Pages) -> None:
    for path in ("/v1/decisions", "/v1/outcomes", "/v1/events", "/v1/track"):
        for headers in ({"X-API-Key": pages.key.id}, {"Authorization": f"Bearer {pages.key.id}"}):
            assert pages.client.post(path, json={}, headers=headers).status_code == 401
    assert pages.client.get("/v1/policies", headers={"X-API-Key": pages.key.secret}).status_code == 401


@pytest.mark.parametrize(
    "origin",
    ["*", "shop.example", "https://shop.example/", "https://shop.example/a", "HTTPS://shop.example", "file://"],
)
def test_what_is_no_origin_is_a_mistake_that_is_named(tmp_path: Path, origin: str) -> None:
    with pytest.raises(CatalogueError, match=r"origins\[0\].*is no origin"):
        create_publishable(tmp_path / "keys.toml", "shop", [origin], "signed", TODAY)
    assert not (tmp_path / "keys.toml").exists()


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    create_publishable(file, "shop", [SHOP], "signed", TODAY)
    with pytest.raises(CatalogueError, match="exists"):
        create_publishable(file, "shop", [SHOP], "anyone", TODAY)
