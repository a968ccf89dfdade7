"""create_app: the only place where things are constructed."""

import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import litestar_offline_docs
from litestar import Litestar, Request, Response, get
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, NotFoundException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme
from litestar.params import FromPath
from litestar.response import File

from api import ledger
from api.budgets import Budgets
from api.catalogues import read_catalogue
from api.events import Events
from api.keys import Keys
from api.keys import load as load_keys
from api.messages import Health
from api.metrics import CountResponses, Metrics
from api.problems import handle
from api.routes import events as event_routes
from api.routes import health, native, releases, segment
from api.service import Service
from api.settings import Settings
from api.stores import Store, open_store
from api.worker import Clock, Worker
from bandit.catalogue import Catalogue
from bandit.errors import LedgerError

VERSION = importlib.metadata.version("journey-bandit")
_BODY_BYTES = 64_000
_ASSETS = "/docs-assets"
_ASSET_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
}


def wall_clock() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def create_app(settings: Settings, *, clock: Clock = wall_clock, store: Store | None = None) -> Litestar:
    """The service of one app, ready to serve. Opens the store (or takes the one given) and closes it at shutdown.

    Raises LedgerError when the store cannot be this app's, CatalogueError when the catalogue or the keys have mistakes.
    """
    catalogue = read_catalogue(settings.app)
    keys = load_keys(Path(settings.keys)) if settings.keys else Keys({})
    ledger_store = store or open_store(settings.store)
    try:
        salt = ledger.claim(ledger_store, catalogue, settings.salt or None)
    except LedgerError:
        ledger_store.close()
        raise
    metrics = Metrics()
    budgets = Budgets(catalogue, ledger_store, clock(), settings.window_scale)
    worker = Worker(ledger_store, catalogue, clock, metrics, settings.queue, budgets.settled, settings.window_scale)
    service = Service(
        catalogue,
        ledger_store,
        worker,
        budgets,
        salt=salt,
        clock=clock,
        metrics=metrics,
        window_scale=settings.window_scale,
    )

    events = Events(catalogue, worker, service.asking, salt=salt, clock=clock, metrics=metrics)
    scopes = None if settings.dev else keys.scopes

    return Litestar(
        route_handlers=[
            *native.routes(service),
            *event_routes.routes(events, catalogue),
            *segment.routes(events, scopes, metrics),
            *releases.routes(worker, catalogue, clock),
            *health.routes(lambda: _health(catalogue.app, worker, ledger_store, clock()), metrics),
            _assets(),
        ],
        lifespan=[_lifespan(worker, ledger_store)],
        guards=[] if settings.dev else [guard(keys)],
        middleware=[CountResponses(metrics)],
        exception_handlers={Exception: _handle},
        request_max_body_size=_BODY_BYTES,
        openapi_config=_openapi(catalogue),
        debug=False,
        logging_config=None,
    )


def _lifespan(worker: Worker, store: Store) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """The writer runs while the service does; then everything queued is committed and the ledger released."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            worker.stop()
            store.close()

    return lifespan


def _health(app: str, worker: Worker, store: Store, now: int) -> Health:
    failing = dict(worker.failing) if worker.alive else {"writer": "its thread has ended"}
    failing |= worker.releases.failing(now)
    broken = not failing.keys().isdisjoint(("write", "writer"))
    status: Literal["ok", "failing"] = "failing" if broken else "ok"
    current = worker.releases.current
    shown = {stage: f"{current[stage].model} {current[stage].version}" for stage in worker.releases.lives}
    return Health(status=status, app=app, version=VERSION, store=store.describe(), failing=failing, releases=shown)


def _handle(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Every error in the shape of its protocol, also where no route is reached."""
    spoken = segment.refusal if request.url.path in segment.PATHS else handle
    return spoken(request, error)


def guard(keys: Keys) -> Any:
    """Refuse requests without a key of the route's scope, before their body is read."""

    def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if handler.opt.get("public") or "scope" not in handler.opt:
            return
        scopes = keys.scopes(_presented(connection))
        if scopes is None:
            raise NotAuthorizedException(
                "send a key as X-API-Key or Authorization: Bearer; make one with `journey-bandit keys new`",
                headers={"WWW-Authenticate": 'Bearer realm="journey-bandit"'},
            )
        if handler.opt["scope"] not in scopes:
            raise PermissionDeniedException(f"this route needs the scope {handler.opt['scope']!r}")

    return check


def _presented(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The key sent, or "". Two of them are none: which one counts must not depend on a proxy."""
    keys = connection.headers.getall("x-api-key", [])
    others = connection.headers.getall("authorization", [])
    if len(keys) + len(others) != 1:
        return ""
    scheme, _, value = (others or [f"Bearer {keys[0]}"])[0].partition(" ")
    return value if scheme.lower() == "bearer" else ""


def _assets() -> HTTPRouteHandler:
    """The files of the page at /docs, served by us: it works without internet. By name: no path reaches the disk."""
    folder = Path(litestar_offline_docs.__file__).parent / "static"

    @get(f"{_ASSETS}/{{name:str}}", include_in_schema=False, opt={"public": True})
    async def asset(name: FromPath[str]) -> File:
        if name not in _ASSET_TYPES:
            raise NotFoundException
        return File(folder / name, media_type=_ASSET_TYPES[name], content_disposition_type="inline")

    return asset


def _openapi(catalogue: Catalogue) -> OpenAPIConfig:
    swagger = SwaggerRenderPlugin(
        js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        css_url=f"{_ASSETS}/swagger-ui.css",
        standalone_preset_js_url=f"{_ASSETS}/swagger-ui-standalone-preset.js",
        favicon='<link rel="icon" href="data:,">',  # Litestar's own comes from another host
        path="/",
    )
    schemes: dict[str, SecurityScheme | Reference] = {
        "key": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
        "bearer": SecurityScheme(type="http", scheme="bearer"),
    }
    return OpenAPIConfig(
        title=f"Journey Bandit: {catalogue.title or catalogue.app}",
        version=VERSION,
        description="Which nudge, if any, and with which probability. Every 200 of a POST is on disk.",
        path="/docs",
        render_plugins=[swagger],
        components=Components(security_schemes=schemes),
        security=[{"key": []}, {"bearer": []}],
    )
