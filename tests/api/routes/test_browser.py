"""Pages in browsers: what a publishable key opens, for whom, from where and how often, and that it opens no more."""

import datetime as dt
import hashlib
import json
import re
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

import bandit.catalogue.apps
from api.app import create_app
from api.decisions.pages import EXCLUDED, PageView
from api.http.browser_access import signed
from api.http.keys import PublishableKey, create, create_publishable
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from bandit.catalogue.content.checks import check_pages
from bandit.catalogue.content.model import PagesRule
from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import CatalogueError
from bandit.guardrails import DECLINED

Client = TestClient[Litestar]
SHOP, OTHER = "https://shop.example", "https://other.example"
IMAGES = Path(str(bandit.catalogue.apps.__path__[0])) / "images"
START = 1_767_225_600
TODAY = dt.datetime.fromtimestamp(START, dt.UTC)
VIEW = {"event_id": "e1", "event": "Product Viewed", "properties": {"product_id": "p1"}}


class Pages(NamedTuple):
    """A service for pages: its client, publishable key, clock (seconds) and store."""

    client: Client
    key: PublishableKey
    now: list[float]
    store: MemoryStore
    secret: str = ""

    def send(self, path: str, user: str = "u1", *, origin: str = SHOP, **more: Any) -> Any:
        """What is answered to a page that sends a body as text; a token of the user unless `token` says another."""
        body = {"key": self.key.id, "token": self.token(user), "user_id": user} | more
        headers = {"Origin": origin, "Content-Type": "text/plain;charset=UTF-8"}
        return self.client.post(f"/v1/browser/{path}", content=json.dumps(body), headers=headers)

    def token(self, user: str, lasting: float = 600) -> str:
        return signed(self.key, user, int(self.now[0] + lasting))

    def evidence(self, found: dict[str, Any], user: str = "u1", *, signed_ago: float = 0) -> str:
        return signed(self.key, user, int(self.now[0] + 600), iat=int(self.now[0] - signed_ago), evidence=found)

    def backend(self, method: str, path: str) -> Any:
        return self.client.request(method, path, headers={"X-API-Key": self.secret}).json()

    def refused(self, reason: str) -> float:
        text = self.client.get("/metrics").text
        line = f'journey_bandit_browser_refused_total{{reason="{reason}"}} '
        return next((float(one.removeprefix(line)) for one in text.splitlines() if one.startswith(line)), 0.0)


def always(tmp_path: Path, nudge: str, more: str = "") -> str:
    """The shop, with one nudge shown in browsing wherever it may be, and without a control group."""
    text = read_shipped("fashion").replace("holdout = 0.05", "holdout = 0")
    centred = 'policy = { name = "centred", prior_mean = 0.07 }'
    assert text.count(centred) == 1
    file = tmp_path / "shop.toml"
    file.write_text(text.replace(centred, f'policy = {{ name = "fixed", arm = "{nudge}" }}\nfloor = 0.0') + more)
    return str(file)


@contextmanager
def serving(tmp_path: Path, app: str = "fashion", **changes: Any) -> Iterator[Pages]:
    file = tmp_path / "keys.toml"
    secret = create(file, "backend", ["decide", "reward", "read", "events"])
    made = create_publishable(file, "shop", [SHOP], "signed", TODAY)
    if changes:
        text, more = file.read_text(), "".join(f"{name} = {json.dumps(value)}\n" for name, value in changes.items())
        file.write_text(text + more)
        made = msgspec.structs.replace(made, **changes)
    now, store = [float(START)], MemoryStore()
    made_app = create_app(Settings(app=app, keys=str(file), salt="s"), clock=lambda: int(now[0] * 1e6), store=store)
    with TestClient(made_app) as client:
        yield Pages(client, made, now, store, secret)


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
    assert set(made) == {"decision_id", "stage", "nudge", "expires_at", "now", "duplicate"}
    assert made["now"] == "2026-01-01T00:00:00Z"
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
        refused = pages.send("events", events=[order, VIEW])
        assert (refused.status_code, pages.refused("event")) == (200, 1)
        first, second = refused.json()["events"]
        assert (first["status"], second["status"]) == (403, 200)  # the others are kept
        assert "Order Completed" in first["problem"]["detail"]
    (tmp_path / "listed").mkdir()
    with serving(tmp_path / "listed", events=["Order Completed"]) as pages:
        answers = pages.send("events", events=[order, VIEW]).json()["events"]
        assert [one["status"] for one in answers] == [200, 403]


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


def test_evidence_that_the_backend_signed_is_shown_with_its_age(tmp_path: Path) -> None:
    with serving(tmp_path, always(tmp_path, "low_stock")) as pages:
        sent = pages.evidence({"stock": 3}, signed_ago=60)
        made = pages.send("decisions", stage="browsing", evidence=sent, locale="de-AT").json()
        assert made["nudge"]["id"] == "low_stock"
        assert made["evidence"] == {"stock": 3, "as_of": "2025-12-31T23:59:00Z"}
        assert made["content"]["locale"] == "de"
        assert "{stock}" in made["content"]["title"]
        again = pages.send("decisions", stage="browsing", evidence=sent, decision_id=made["decision_id"]).json()
        assert again["evidence"] == made["evidence"]
        older = pages.evidence({"stock": 3}, signed_ago=3600)  # the claim needs one of 15 minutes
        assert pages.send("decisions", stage="browsing", evidence=older).json()["nudge"]["id"] == "none"
        assert pages.send("decisions", stage="browsing").json()["nudge"]["id"] == "none"


def test_evidence_that_nobody_signed_or_for_somebody_else_is_refused_and_counted(tmp_path: Path) -> None:
    with serving(tmp_path, always(tmp_path, "low_stock")) as pages:
        good = {"sub": "u1", "aud": pages.key.id, "exp": START + 60, "iat": START, "evidence": {"stock": 3}}

        def answered(claims: dict[str, Any], secret: str = "") -> tuple[int, str]:
            sent = jwt.encode(claims, secret or pages.key.secret, algorithm="HS256")
            reply = pages.send("decisions", stage="browsing", evidence=sent)
            return reply.status_code, reply.json().get("detail", "")

        assert answered(good)[0] == 200
        assert answered(good, "x" * 43) == (401, answered(good, "x" * 43)[1])
        for name in good:
            assert answered({key: value for key, value in good.items() if key != name})[0] == 401, name
        assert answered(good | {"exp": START})[0] == 401
        assert answered(good | {"aud": "pub_else"})[0] == 401
        assert (answered(good | {"sub": "u2"})[0], pages.refused("user")) == (403, 1)
        for wrong in ({"stock": "3"}, {"stock": -1}, {"deadline": "soon"}, {"stok": 3}, [3], {"stock": 3.5}):
            assert answered(good | {"evidence": wrong})[0] == 400, wrong
        assert pages.refused("token") == 9
        assert pages.store.counts().decisions == 1


def test_a_page_is_offered_only_what_it_can_show(tmp_path: Path) -> None:
    with serving(tmp_path, always(tmp_path, "size_help")) as pages:
        assert pages.send("decisions", stage="browsing").json()["nudge"]["id"] == "size_help"
        made = pages.send("decisions", stage="browsing", formats=["banner"]).json()
        assert made["nudge"]["id"] == "none"
        kept = pages.store.decisions_by_id([uuid.UUID(made["decision_id"])])[uuid.UUID(made["decision_id"])].decision
        assert kept.excluded["size_help"] == "format: this page shows no inline_widget"
        assert "low_stock" not in {n for n, why in kept.excluded.items() if why.startswith("format")}
    other = tmp_path / "other"
    other.mkdir()
    with serving(other, always(other, "size_help")) as pages:
        hesitate(pages)
        shown = pages.send("decisions").json()
        assert shown["nudge"]["id"] == "size_help"
        narrower = pages.send("decisions", formats=["banner"]).json()  # what was decided before does not fit here
        assert (narrower["nudge"]["id"], narrower["duplicate"]) == ("none", False)
    for stage in parse(read_shipped("fashion")).stages.values():
        messages = {name for name, nudge in stage.nudges.items() if nudge.format in ("push", "mail")}
        assert messages <= set(PageView().unfit(stage))


def hesitate(pages: Pages, times: int = 3) -> None:
    for i in range(times):
        pages.send("events", events=[VIEW | {"event_id": f"v{i}-{pages.now[0]}"}])


def test_nothing_is_shown_or_learned_on_pages_that_the_catalogue_excludes(tmp_path: Path) -> None:
    more = '\n[pages]\nexcluded = ["/checkout/pay*"]\n'
    text = re.sub(r"(?ms)^\[pages\]\n.*?(?=^\[|\Z)", "", Path(always(tmp_path, "size_help")).read_text())
    (tmp_path / "shop.toml").write_text(text + more)
    with serving(tmp_path, str(tmp_path / "shop.toml")) as pages:
        hesitate(pages)
        for ask in ({}, {"stage": "browsing"}):
            made = pages.send("decisions", page="/checkout/payment", **ask).json()
            assert (made["nudge"]["id"], made["moment"]) == ("none", None)
            kept = pages.store.decisions_by_id([uuid.UUID(made["decision_id"])])[uuid.UUID(made["decision_id"])]
            assert not kept.decision.is_actionable
            assert kept.decision.excluded["size_help"] == f"not now: {EXCLUDED}"
        shown = pages.send("decisions", page="/product").json()
        assert shown["nudge"]["id"] == "size_help"  # the page that shows nothing has not used up the moment
        again = pages.send("decisions", page="/checkout/payment").json()
        assert (again["nudge"]["id"], again["duplicate"]) == ("none", False)
        assert pages.send("decisions", page="/product").json()["decision_id"] == shown["decision_id"]


def test_what_a_user_declined_is_not_shown_again_from_the_next_request_on(tmp_path: Path) -> None:
    with serving(tmp_path, always(tmp_path, "size_help")) as pages:
        hesitate(pages)
        made = pages.send("decisions").json()
        assert made["nudge"]["id"] == "size_help"
        assert pages.send("decisions").json()["decision_id"] == made["decision_id"]
        declined = {"event_id": f"{made['decision_id']}:declined", "event": "Nudge Declined"}
        properties = {"nudge": "browsing.size_help", "decision": made["decision_id"]}
        (answer,) = pages.send("events", events=[declined | {"properties": properties}]).json()["events"]
        assert (answer["status"], answer["event"]["known"]) == (200, True)
        for ask in ({}, {"stage": "browsing"}):
            after = pages.send("decisions", **ask).json()
            assert (after["nudge"]["id"], after["duplicate"]) == ("none", False)
            kept = pages.store.decisions_by_id([uuid.UUID(after["decision_id"])])[uuid.UUID(after["decision_id"])]
            assert kept.decision.excluded["size_help"] == DECLINED
        assert pages.send("decisions", "u2", stage="browsing").json()["nudge"]["id"] == "size_help"
        pages.now[0] += 400 * 86_400
        hesitate(pages)
        assert pages.send("decisions").json()["nudge"]["id"] == "none"


def test_an_id_that_is_sent_again_shows_nothing_that_may_not_be_shown_now(tmp_path: Path) -> None:
    with serving(tmp_path, always(tmp_path, "low_stock")) as pages:
        ask = {"stage": "browsing", "evidence": pages.evidence({"stock": 3}), "decision_id": str(uuid.uuid4())}
        assert pages.send("decisions", **ask).json()["nudge"]["id"] == "low_stock"
        assert pages.send("decisions", **ask).json()["duplicate"]
        for other in ({"page": "/checkout/card"}, {"formats": ["popup"]}):
            refused = pages.send("decisions", **ask, **other)
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (409, "decision_id")
        pages.now[0] += 16 * 60  # the claim needs a count of the last 15 minutes
        assert pages.send("decisions", **ask).status_code == 401  # the token of the evidence has ended, too
        older = signed(pages.key, "u1", int(pages.now[0] + 60), iat=START, evidence={"stock": 3})
        assert pages.send("decisions", **ask | {"evidence": older}).status_code == 409
        pages.now[0] -= 16 * 60
        declined = {"event_id": "d", "event": "Nudge Declined", "properties": {"nudge": "browsing.low_stock"}}
        pages.send("events", events=[declined])
        assert pages.send("decisions", **ask).status_code == 409


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/kasse/überprüfen*", "/kasse/%C3%BCberpr%C3%BCfen/karte"),
        ("/checkout/card", "/Checkout/Card"),
        ("/checkout/card", "//checkout//card"),
        ("/Checkout/card", "/checkout/%63ard"),
        ("/#/checkout/*", "/#/checkout/card"),
    ],
)
def test_the_same_page_is_excluded_however_its_path_is_written(pattern: str, path: str) -> None:
    rule = PagesRule(excluded=[pattern])
    assert list(check_pages("pages", rule)) == []
    assert rule.excludes(path)
    assert not rule.excludes("/checkout")


def test_that_a_nudge_was_declined_may_always_be_said(tmp_path: Path) -> None:
    with serving(tmp_path, events=["Product Viewed"]) as pages:
        names = ("Nudge Declined", "Nudge Clicked", "Nudge Dismissed", "Product Viewed", "Checkout Started")
        sent = [{"event_id": name, "event": name, "properties": {"nudge": "browsing.size_help"}} for name in names]
        answers = pages.send("events", events=sent).json()["events"]
        assert [one["status"] for one in answers] == [200, 200, 200, 200, 403]


def test_numbers_that_no_clock_has_are_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as pages:
        claims = {"sub": "u1", "aud": pages.key.id, "exp": START + 60, "iat": START, "evidence": {"stock": 3}}
        for wrong in ({"exp": 10**400}, {"exp": -(10**400)}, {"iat": 10**17}, {"iat": 10**400}, {"iat": -(10**17)}):
            token = jwt.encode(claims | wrong, pages.key.secret, algorithm="HS256")
            assert pages.send("decisions", stage="browsing", evidence=token).status_code in (400, 401), wrong


def test_a_page_says_how_long_ago_something_happened(pages: Pages) -> None:
    def at(user: str, **when: Any) -> tuple[int, str]:
        event = VIEW | {"event_id": f"{user}-{pages.now[0]}"} | when
        (answer,) = pages.send("events", user, events=[event]).json()["events"]
        journey = pages.backend("GET", f"/v1/users/{user}/journey")
        return answer["status"], journey["last_event_at"] or ""

    assert at("a", ago=90.5) == (200, "2025-12-31T23:58:29.500000Z")
    assert at("b", ago=0) == (200, "2026-01-01T00:00:00Z")
    assert at("c") == (200, "2026-01-01T00:00:00Z")
    assert at("d", occurred_at="2025-12-31T22:00:00Z") == (200, "2025-12-31T22:00:00Z")
    for wrong in ({"ago": -1}, {"ago": 31 * 86_400}, {"ago": "1"}, {"ago": 1, "occurred_at": "2025-12-31T22:00:00Z"}):
        assert at("e", **wrong) == (400, "")
    pages.now[0] += 60
    (again,) = pages.send("events", "a", events=[VIEW | {"event_id": f"a-{START}.0", "ago": 150.5}]).json()["events"]
    assert again["event"]["duplicate"]


def test_an_event_that_cannot_be_read_costs_no_other(pages: Pages) -> None:
    sent: list[Any] = [{"event_id": "x"}, VIEW, 7, {"event_id": "", "event": "Product Viewed"}]
    answers = pages.send("events", events=sent).json()["events"]
    assert [one["status"] for one in answers] == [400, 200, 400, 400]
    assert answers[0]["problem"]["errors"][0]["field"] == "events[0].event"
    assert pages.send("events", events=[VIEW] * 51).status_code == 400
    assert pages.send("events", events={}).status_code == 400


def test_pages_of_a_trial_need_keys_only_where_it_has_some(tmp_path: Path) -> None:
    claims = {"sub": "u1", "iat": START, "evidence": {"stock": 3}}
    body = {
        "user_id": "u1",
        "stage": "browsing",
        "evidence": jwt.encode(claims, "a trial without keys takes any secret"),
    }
    with TestClient(create_app(Settings(app="fashion", dev=True, store="memory://"))) as client:
        assert client.post("/v1/browser/decisions", json=body).status_code == 200
        assert client.post("/v1/browser/decisions", json=body | {"evidence": "x"}).status_code == 401
    file = tmp_path / "keys.toml"
    create_publishable(file, "shop", [SHOP], "signed", TODAY)
    with TestClient(create_app(Settings(app="fashion", dev=True, keys=str(file), store="memory://"))) as client:
        assert client.post("/v1/browser/decisions", json=body).status_code == 401
        assert client.post("/v1/decisions", json={"user_id": "u1", "stage": "browsing"}).status_code == 200


def test_the_script_is_served_packed_and_kept_until_it_changes(pages: Pages) -> None:
    plain = pages.client.get("/v1/browser/journey.js", headers={"Accept-Encoding": "identity"})
    assert (plain.status_code, plain.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert (plain.headers["access-control-allow-origin"], plain.headers["x-content-type-options"]) == ("*", "nosniff")
    packed = pages.client.get("/v1/browser/journey.js", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) <= 12_000
    refused = pages.client.get("/v1/browser/journey.js", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers
    for header in (plain.headers["etag"], f'"x", W/{plain.headers["etag"]}', "*"):
        assert pages.client.get("/v1/browser/journey.js", headers={"If-None-Match": header}).status_code == 304
    assert pages.client.get("/v1/browser/journey.js", headers={"If-None-Match": '"x"'}).status_code == 200
    number = hashlib.sha256(plain.content).hexdigest()[:12]
    pinned = pages.client.get(f"/v1/browser/journey-{number}.js")
    assert pinned.content == plain.content
    assert "immutable" in pinned.headers["cache-control"]
    assert pages.client.get("/v1/browser/journey-000000000000.js").status_code == 404
    assert "Journey" in pages.client.get("/v1/browser/journey.d.ts").text


def test_images_that_the_catalogue_names_are_served_and_no_other_file(tmp_path: Path) -> None:
    with serving(tmp_path, "travel") as pages:
        found = pages.client.get("/v1/browser/images/hold.svg")
        assert (found.status_code, found.content) == (200, (IMAGES / "hold.svg").read_bytes())
        assert found.headers["content-type"] == "image/svg+xml"
        assert found.headers["content-security-policy"].startswith("default-src 'none'")
        for path in ("gift.svg", "keys.toml", "..%2Ftravel.toml", "%2Fetc%2Fpasswd", "__init__.py"):
            assert pages.client.get(f"/v1/browser/images/{path}").status_code == 404, path


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
