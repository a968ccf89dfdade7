"""Who may do what, which routes there are, errors of routing, and the page at /docs."""

import base64
import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from litestar import Litestar, get
from litestar.exceptions import ImproperlyConfiguredException
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.testing import TestClient

from api.app import create_app
from api.clocks import Clock
from api.http.access import AccessControl, check_declared, guard
from api.http.keys import EVERY, SCOPES, ApiKeys, create
from api.routes import segment
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from bandit.catalogue.loading import shipped
from journey_bandit.testing.store_builders import CATALOGUE
from tests.api.conftest import Hands, served

Client = TestClient[Litestar]
Serving = Callable[..., AbstractContextManager[Client]]

ROUTES = {  # every one, and the scope it needs
    ("POST", "/v1/decisions"): "decide",
    ("POST", "/v1/decisions/batch"): "decide",
    ("GET", "/v1/decisions/{decision_id:uuid}"): "read",
    ("GET", "/v1/decisions/{decision_id:uuid}/recomputation"): "read",
    ("POST", "/v1/outcomes"): "reward",
    ("POST", "/v1/outcomes/batch"): "reward",
    ("POST", "/v1/events"): "events",
    ("GET", "/v1/events/uncredited"): "read",
    ("GET", "/v1/users/{user_id:str}/journey"): "read",
    ("GET", "/v1/users/{user_id:str}/export"): "admin",
    ("DELETE", "/v1/users/{user_id:str}"): "admin",
    ("GET", "/v1/stages"): "read",
    ("GET", "/v1/policies"): "read",
    ("GET", "/v1/policies/{stage:str}/snapshot"): "read",
    ("GET", "/v1/webhooks/dead-letters"): "read",
    ("POST", "/v1/webhooks/dead-letters/retry"): "admin",
    ("PUT", "/v1/policies/{stage:str}/release"): "admin",
    ("POST", "/v1/policies/{stage:str}/rollback"): "admin",
    ("POST", "/v1/policies/{stage:str}/reward-alarms/acknowledge"): "admin",
    **{
        ("POST", f"/v1/policies/{{stage:str}}/{verb}"): "admin"
        for verb in ("pause", "resume", "retire", "ramp", "holdout")
    },
    ("GET", "/v1/operator-actions"): "read",
    ("GET", "/v1/export"): "read",
    ("GET", "/v1/releases"): "read",
    ("POST", "/v1/registry"): "admin",
    ("GET", "/"): None,
    ("GET", "/health/live"): None,
    ("GET", "/health/ready"): None,
    ("GET", "/metrics"): None,
    ("GET", "/docs-assets/{name:str}"): None,
}
FLAGS, LOOP = "/ofrep/v1/evaluate/flags", "/personalizer/{loop:str}/{version:str}"
FOREIGN = {  # their own tests say how they refuse
    ("POST", FLAGS): "decide",
    ("POST", f"{FLAGS}/{{key:str}}"): "decide",
    ("POST", "/v1/data/collector"): "events",
    ("POST", f"{LOOP}/rank"): "decide",
    ("POST", f"{LOOP}/events/{{event:str}}/reward"): "reward",
    ("POST", f"{LOOP}/events/{{event:str}}/activate"): "reward",
    ("POST", f"{LOOP}/multislot/rank"): "decide",
    ("POST", f"{LOOP}/multislot/events/{{event:str}}/reward"): "reward",
    ("POST", f"{LOOP}/multislot/events/{{event:str}}/activate"): "reward",
    ("GET", f"{LOOP}/configurations/service"): "read",
}
BROWSER = {("POST", f"/v1/browser/{name}"): "(none)" for name in ("decisions", "events", "activations")}  # publishable
FILES = {("GET", "/v1/browser/{name:str}"): None, ("GET", "/v1/browser/images/{name:str}"): None}
CONSOLE = {("GET", "/console/sign-in"): None, ("GET", "/console/static/{name:str}"): None} | dict.fromkeys(  # cookies
    [
        ("POST", "/console/sign-in"),
        ("POST", "/console/sign-out"),
        ("GET", "/console"),
        ("GET", "/console/stages/{stage:str}"),
        ("GET", "/console/decisions"),
        ("POST", "/console/decisions"),
        ("GET", "/console/decisions/{decision_id:str}"),
        ("POST", "/console/decisions/{decision_id:str}/recompute"),
        ("GET", "/console/operate"),
        *(("POST", f"/console/operate/{form}") for form in ("nudges", "traffic", "alarms", "dead-letters")),
        ("GET", "/console/people"),
        ("POST", "/console/people"),
        ("POST", "/console/people/export"),
        ("POST", "/console/people/erase"),
    ],
    "(none)",
)
PAGES = {"/docs", "/docs/{path:str}", "/docs/openapi.json", "/docs/oauth2-redirect.html"}  # Litestar's own
DECISION = {"stage": "signup", "user_id": "u"}
SOME_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def call(client: Client, method: str, path: str, **headers: str) -> Any:
    """A request of the route with something in place of its parameters and a body that decides where one is needed."""
    path = (
        path.replace("{decision_id:uuid}", SOME_ID)
        .replace("{stage:str}", "signup")
        .replace("{name:str}", "x")
        .replace("{user_id:str}", "u")
    )
    return client.request(method, path, json=None if method == "GET" else DECISION, headers=headers)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """One real key for each scope and one for all, from a real file."""
    file = tmp_path / "keys.toml"
    return {**{s: create(file, f"only-{s}", [s]) for s in EVERY}, "all": create(file, "all", list(SCOPES))}


@pytest.fixture
def guarded(serving: Serving, keys: dict[str, str], tmp_path: Path) -> Any:
    with serving(keys=str(tmp_path / "keys.toml")) as client:
        yield client


class Closed(NamedTuple):
    """A service whose keys a test has, for requests that it must refuse: they change nothing, so tests share it."""

    client: Client
    keys: dict[str, str]
    hands: Hands


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    folder, hands = tmp_path_factory.mktemp("closed"), Hands()
    (catalogue := folder / "shop.toml").write_text(CATALOGUE, encoding="utf-8")
    key = create(folder / "keys.toml", "all", list(SCOPES))
    with served(hands, catalogue, keys=str(folder / "keys.toml")) as client:
        yield Closed(client, {"all": key}, hands)
        assert client.get("/v1/releases", headers={"X-API-Key": key}).json()["releases"] == []
        assert "decisions_total{" not in client.get("/metrics").text


@pytest.fixture
def closed(shared: Closed) -> Closed:
    """An hour after the test before, so that the limit of keys that are none begins anew."""
    shared.hands.move(3600)
    shared.client.cookies.clear()
    return shared


# -- keys ------------------------------------------------------------------------------------------------------


def test_every_route_is_listed_with_its_scope_or_is_public(client: Client) -> None:
    """A new route must be added to the table above, so that nobody forgets who may call it."""
    found = {
        (method, route.path): None if handler.opt.get("public") else handler.opt.get("scope", "(none)")
        for route in client.app.routes
        for handler in getattr(route, "route_handlers", [])
        for method in handler.http_methods
        if route.path not in PAGES | segment.PATHS and method != "OPTIONS"
    }
    assert found == ROUTES | FOREIGN | BROWSER | FILES | CONSOLE
    assert {route.path for route in client.app.routes} >= PAGES


def app_of(opt: dict[str, Any], **more: Any) -> Litestar:
    @get("/secret", opt=opt)
    async def secret() -> str:
        return "told"

    return Litestar([secret], openapi_config=None, logging_config=None, **more)


@pytest.mark.parametrize("opt", [{"scope": "read"}, {"public": True}, {"own_keys": True}], ids=repr)
def test_a_route_says_who_may_call_it(opt: dict[str, Any]) -> None:
    check_declared(app_of(opt).routes)


@pytest.mark.parametrize(
    "opt", [{}, {"scope": ""}, {"scope": "raed"}, {"public": False}, {"scope": "read", "public": True}], ids=repr
)
def test_a_route_that_does_not_say_who_may_call_it_is_refused_before_the_app_serves(opt: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfiguredException, match="/secret: opt needs one of scope"):
        check_declared(app_of(opt).routes)


def test_the_guard_lets_nobody_to_a_route_that_does_not_say(clock: Clock) -> None:
    """Such as one that is registered after the check."""
    with TestClient(app_of({}, guards=[guard(AccessControl(ApiKeys({}), clock))])) as client:
        assert client.get("/secret").status_code == 500
        assert client.options("/secret").status_code == 204


@pytest.mark.parametrize(("method", "path"), [key for key, scope in ROUTES.items() if scope])
@pytest.mark.parametrize("header", [{}, {"X-API-Key": ""}, {"X-API-Key": "all.wrong"}, {"X-API-Key": "nobody.secret"}])
def test_without_a_key_nobody_gets_in(closed: Closed, method: str, path: str, header: dict[str, str]) -> None:
    reply = call(closed.client, method, path, **header)
    assert (reply.status_code, reply.headers["content-type"]) == (401, "application/problem+json")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert "journey-bandit keys new" in reply.json()["detail"]


@pytest.mark.parametrize(("method", "path"), [key for key, scope in ROUTES.items() if scope])
def test_a_key_opens_the_routes_of_its_scope_and_no_others(
    guarded: Client, keys: dict[str, str], method: str, path: str
) -> None:
    needed = ROUTES[method, path]
    for scope in EVERY:
        reply = call(guarded, method, path, **{"X-API-Key": keys[scope]})
        if scope == needed:
            assert reply.status_code in {200, 400, 404}  # let in; the body or the id may not fit
        else:
            assert reply.status_code == 403
            assert repr(needed) in reply.json()["detail"]


@pytest.mark.parametrize("form", ["X-API-Key: {}", "Authorization: Bearer {}", "Authorization: bearer {}"])
def test_a_key_comes_in_either_header(guarded: Client, keys: dict[str, str], form: str) -> None:
    name, _, value = form.format(keys["all"]).partition(": ")
    assert call(guarded, "POST", "/v1/decisions", **{name: value}).status_code == 200


@pytest.mark.parametrize(
    "forms",
    [
        pytest.param(["X-API-Key: {}", "Authorization: Bearer {}"], id="one in each"),
        pytest.param(["X-API-Key: {}", "X-API-Key: {}"], id="two keys"),
        pytest.param(["Authorization: Bearer {}", "Authorization: Bearer {}"], id="two bearers"),
        pytest.param(["X-API-Key: {}", "Authorization: Basic dTpw"], id="a key and a password"),
        pytest.param(["Authorization: {}"], id="no scheme"),
        pytest.param(["Authorization: Basic {}"], id="another scheme"),
        pytest.param(["X-API-Key: Bearer {}"], id="a scheme in the wrong header"),
        pytest.param(["X-API-Key: {}x"], id="one letter more"),
        pytest.param(["X-API-Key: ALL{}"], id="another name"),
        pytest.param(["Cookie: X-API-Key={}"], id="a cookie"),
    ],
)
def test_a_key_sent_twice_or_otherwise_is_none(closed: Closed, forms: list[str]) -> None:
    sent = [(form.split(": ")[0], form.split(": ")[1].format(closed.keys["all"])) for form in forms]
    assert closed.client.post("/v1/decisions", json=DECISION, headers=sent).status_code == 401


@pytest.mark.parametrize("value", [b"\xff\xfe.\x80", b"all.\xe9", b"." * 500, b"all", b"all."], ids=repr)
def test_a_strange_key_is_refused_like_any_other(closed: Closed, value: bytes) -> None:
    assert closed.client.get("/v1/stages", headers=[(b"X-API-Key", value)]).status_code == 401


def test_a_key_in_the_address_is_none(guarded: Client, keys: dict[str, str]) -> None:
    assert guarded.get("/v1/stages", params={"api_key": keys["all"], "X-API-Key": keys["all"]}).status_code == 401


def test_what_is_public_needs_no_key(guarded: Client) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/docs/openapi.json"):
        assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(("needed", "opened"), [("read", {"read", "all"}), ("metrics", {"metrics"})])
def test_metrics_can_need_a_key_of_their_scope_and_health_never_does(
    catalogue_file: Path, tmp_path: Path, needed: Literal["read", "metrics"], opened: set[str]
) -> None:
    """No key has the scope `metrics` unless it was asked for, so that a scraper's key is one that opens nothing else:
    that no other route lets it in, the test of all routes and scopes says above.
    """
    file = tmp_path / "scraper.toml"
    made = {scope: create(file, scope, [scope]) for scope in EVERY} | {"all": create(file, "all", list(SCOPES))}
    settings = Settings(app=str(catalogue_file), keys=str(file), metrics=needed)
    with TestClient(create_app(settings, store=MemoryStore())) as client:
        assert client.get("/metrics").status_code == 401
        for name, key in made.items():
            status = client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code
            assert (name, status) == (name, 200 if name in opened else 403)
        assert client.get("/health/ready").status_code == 200


def test_the_key_is_looked_at_before_the_body(guarded: Client) -> None:
    assert guarded.post("/v1/decisions", content=b"\xff" * 70_000).status_code == 401


def test_without_a_file_nobody_gets_in(catalogue_file: Path) -> None:
    app = create_app(Settings(app=str(catalogue_file)), store=MemoryStore())
    with TestClient(app) as client:
        assert call(client, "POST", "/v1/decisions", **{"X-API-Key": "."}).status_code == 401
        assert call(client, "GET", "/v1/stages").status_code == 401


# -- errors of routing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 404),
        ("GET", "/nope", 404),
        ("POST", "/v1", 404),
        ("GET", "/v1/decisions/not-a-uuid", 404),
        ("GET", "/v1/decisions/%00", 404),
        ("GET", "/v1/decisions/../../etc/passwd", 404),
        ("GET", "/v2/decisions", 404),
        ("GET", "/%ff%fe", 404),
        ("GET", "/v1/policies/%00/snapshot", 404),
        ("GET", "/v1/policies/%ed%a0%80/snapshot", 404),
        ("GET", "/v1/policies/" + "x" * 5000 + "/snapshot", 404),
        ("GET", "/docs-assets/nope.js", 404),
        ("GET", "/docs-assets/%00", 404),
        ("GET", "/docs-assets/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/docs-assets/" + "x" * 5000, 404),
        ("GET", "/v1/decisions", 405),
        ("DELETE", "/v1/decisions", 405),
        ("PUT", "/v1/outcomes", 405),
        ("POST", "/v1/stages", 405),
        ("BREW", "/v1/decisions", 405),
        ("GET", "/v1/policies?wait=maybe", 400),
        ("GET", "/v1/policies?wait=", 400),
        ("GET", "/v1/policies?wait=%ff", 400),
    ],
)
def test_an_error_of_routing_has_the_same_shape(client: Client, method: str, path: str, status: int) -> None:
    reply = client.request(method, path)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    problem = reply.json()
    assert problem["status"] == status
    assert problem["errors"][0]["field"]
    assert problem["errors"][0]["fix"]


# -- the page --------------------------------------------------------------------------------------------------


def test_the_openapi_document_lists_every_route_with_its_body_and_errors(client: Client) -> None:
    document = client.get("/docs/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    listed = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    wanted = {
        (m, re.sub(r":\w+", "", path)) for m, path in ROUTES if path != "/" and not path.startswith("/docs-assets")
    }
    assert listed == wanted | BROWSER.keys()
    assert document["security"] == [{"key": []}, {"bearer": []}]
    for (method, path), scope in ROUTES.items():
        if path == "/" or path.startswith("/docs-assets"):
            continue
        operation = document["paths"][re.sub(r":\w+", "", path)][method.lower()]
        assert operation["summary"]
        assert "200" in operation["responses"]
        if scope:
            assert {"401", "403"} <= operation["responses"].keys()
        if method == "POST" and not path.endswith("/retry"):  # the only one without a body
            body = operation["requestBody"]["content"]["application/json"]
            name = body["schema"]["$ref"].removeprefix("#/components/schemas/")
            assert document["components"]["schemas"][name]["type"] == "object"
            assert {"400", "413", "503"} <= operation["responses"].keys()
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        part = document
        for step in reference.split("/"):
            part = part[step]


@pytest.mark.parametrize("app", shipped())
def test_the_examples_of_the_page_are_accepted_as_they_stand(app: str) -> None:
    with TestClient(create_app(Settings(app=app, dev=True), store=MemoryStore())) as client:
        paths = client.get("/docs/openapi.json").json()["paths"]

        def example(path: str) -> Any:
            return paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]

        assert client.post("/v1/decisions", json=example("/v1/decisions")).json()["notes"] == []
        batch = client.post("/v1/decisions/batch", json=example("/v1/decisions/batch")).json()
        decided = [item["decision"]["decision_id"] for item in batch["decisions"]]
        outcome = {**example("/v1/outcomes"), "decision_id": decided[0]}
        assert client.post("/v1/outcomes", json=outcome).status_code == 200
        assert client.post("/v1/outcomes/batch", json={"outcomes": [outcome]}).json()["outcomes"][0]["status"] == 200


def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    html = page.text[: page.text.index("SwaggerUIBundle({")]  # what follows is the document itself
    assert re.findall(r"https?://|//cdn", html) == []
    assets = re.findall(r"""(?:src|href)=["']([^"']+)["']""", html)
    local = [path for path in assets if not path.startswith("data:")]
    assert len(local) == 2
    for path in local:
        reply = client.get(path)
        assert reply.status_code == 200
        assert len(reply.content) > 10_000
        kind = reply.headers["content-type"].split(";")[0]
        assert kind == ("text/css" if path.endswith(".css") else "text/javascript")
    assert client.get("/docs/oauth2-redirect.html").text.count("http") == 0


def test_the_page_may_run_its_own_script_alone_and_stand_in_no_frame(client: Client) -> None:
    page = client.get("/docs")
    script = re.search(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    for path in ("/docs", "/docs/openapi.json", "/docs-assets/swagger-ui.css"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert f"script-src 'self' 'sha256-{digest}';" in policy
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_a_title_is_text_on_the_page(tmp_path: Path, catalogue_file: Path) -> None:
    text = catalogue_file.read_text(encoding="utf-8")
    file = tmp_path / "titled.toml"
    file.write_text(f"title = '</title><script>alert(1)</script>'\n{text}", encoding="utf-8")
    with TestClient(create_app(Settings(app=str(file), dev=True), store=MemoryStore())) as client:
        page = client.get("/docs").text
        assert "&lt;/title&gt;&lt;script&gt;alert(1)" in page
        assert "alert(1)</script>" not in page


def test_without_the_page_nothing_of_it_is_served(catalogue_file: Path) -> None:
    settings = Settings(app=str(catalogue_file), dev=True, docs=False)
    with TestClient(create_app(settings, store=MemoryStore())) as client:
        for path in ("/docs", "/docs/openapi.json", "/docs-assets/swagger-ui.css"):
            assert client.get(path).status_code == 404
        assert client.get("/").json() == {"service": "journey-bandit", "health": "/health/ready"}
        assert client.get("/v1/stages").status_code == 200


def test_litestar_still_needs_to_be_told_where_the_page_comes_from() -> None:
    """If its own default became local, the assets we serve could go."""
    assert "https://" in SwaggerRenderPlugin().js_url


# -- keys whose time is over -----------------------------------------------------------------------------------


def test_an_expired_key_is_told_so_in_every_protocol(
    serving: Serving, later: Callable[[float], int], tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    key = create(file, "shop", list(EVERY), expires=dt.datetime(2025, 10, 9, 9, tzinfo=dt.UTC))
    asked = [
        ("/v1/decisions", {"X-API-Key": key}),
        ("/v1/track", {"Authorization": f"Bearer {key}"}),
        ("/personalizer/v1.0/rank", {"Ocp-Apim-Subscription-Key": key}),
        (FLAGS, {"X-API-Key": key}),
        ("/v1/data/collector", {"X-API-Key": key}),
    ]
    with serving(keys=str(file)) as client:
        assert client.post("/v1/decisions", json=DECISION, headers={"X-API-Key": key}).status_code == 200
        later(600)
        for path, headers in asked:
            reply = client.post(path, json=DECISION, headers=headers)
            assert reply.status_code == 401, path
            assert "'shop' expired at 2025-10-09T09:00:00Z" in reply.text, path
            wrong = {name: value + "x" for name, value in headers.items()}
            assert "expired" not in client.post(path, json=DECISION, headers=wrong).text, path


def test_the_bare_address_says_where_to_go_without_a_key(client: Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.json()["docs"] == "/docs"
    for path in ("docs", "openapi", "health"):
        assert client.get(answer.json()[path]).status_code == 200
