"""Application factory: `create_app` makes the Litestar application of one app's service. `api.components` builds the
parts; here routes, keys, errors, CORS and the OpenAPI document are joined to them.
"""

import asyncio
import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from litestar import Litestar, Request, Response
from litestar.config.cors import CORSConfig
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from prometheus_client import Counter

from api import clocks
from api.catalogue_files import read_catalogue
from api.clocks import Clock
from api.components import CurrentParts, SharedResources, build
from api.console.console import Console, salt_of
from api.console.ledger_counts import LedgerCounts
from api.console.lift_reports import LiftReports, Monitor
from api.console.sessions import ConsoleSessions
from api.exports.log_exports import Exporter, LogExports
from api.guardrails import GuardrailLoop
from api.http.access import AccessControl, check_declared, guard, presented
from api.http.asgi import ProtocolApp
from api.http.browser_access import BrowserAccess
from api.http.error_responses import handle
from api.http.hot_routes import HotRoutes
from api.http.keys import ApiKeys
from api.http.keys import load as load_keys
from api.learning.worker import Worker
from api.ledger.clock_marks import clock_doubts, kept_mark
from api.ledger.recomputation import Recomputer
from api.ledger.watch import LedgerWatch
from api.messages.decisions import Health
from api.metrics import CountResponses, Metrics
from api.people.service import PeopleService
from api.reloading import ConfigurationReload
from api.routes import (
    alarms,
    browser,
    browser_files,
    collector,
    console,
    console_operate,
    console_people,
    docs_page,
    native,
    ofrep,
    operations,
    personalizer,
    releases,
    segment,
    webhooks,
)
from api.routes import clock as clock_routes
from api.routes import events as event_routes
from api.routes import exports as export_routes
from api.routes import health as health_routes
from api.routes import people as people_routes
from api.settings import Settings
from api.stores import Store, open_store
from api.telemetry import access_log
from api.traffic.client_addresses import TrustedProxies, networks
from api.traffic.fair_turns import FairTurns
from api.traffic.request_limits import RequestLimits
from api.webhooks.config import load as load_endpoints
from bandit.catalogue.model import Catalogue
from bandit.errors import InvalidRequest, LedgerError, Problem
from bandit.policies import registry
from bandit.records import Release

if TYPE_CHECKING:  # its packages are an extra
    from api.telemetry.tracing import Tracing

VERSION = importlib.metadata.version("journey-bandit")
_BODY_BYTES = 64_000


def create_app(
    settings: Settings, *, clock: Clock | None = None, store: Store | None = None, tracing: "Tracing | None" = None
) -> Litestar:
    """Litestar application of one app's service, ready to serve: `create_service` without the reload. For tests, tools,
    and ASGI servers that are not ours; arguments and errors are those of `create_service`.
    """
    return create_service(settings, clock=clock, store=store, tracing=tracing).app


class CreatedService(NamedTuple):
    """Service as `create_service` made it: the ASGI application, the reload of its keys, webhooks and catalogue, which
    `api.server.serve` calls on SIGHUP, and its metrics, in which the server counts connections. `leave`: it says from
    then on that it is not ready, ends the export that goes on, and makes no others.
    """

    app: Litestar
    reload: ConfigurationReload
    metrics: Metrics
    leave: Callable[[], None]


def create_service(
    settings: Settings,
    *,
    clock: Clock | None = None,
    store: Store | None = None,
    monitor: Monitor | None = None,
    exporter: Exporter | None = None,
    tracing: "Tracing | None" = None,
) -> CreatedService:
    """Service of one app, ready to serve: it opens the store that the settings name (or takes the one given) and closes
    it at shutdown. Its threads start and stop with the application's lifespan. `monitor` makes the lift reports that
    the console shows, `exporter` the exports of `/v1/export`. `tracing` takes the place of the one that the settings
    ask for.

    Policies of installed packages are known from here on.
    Raises LedgerError when the store cannot be this app's, CatalogueError when the catalogue, the keys or the webhooks
    have mistakes, InvalidRequest for a driven clock outside trials. Any error after the store was opened, or
    taken, closes it.
    """
    pace = time.monotonic if clock is None else _in_seconds(clock)
    registry.search(importlib.metadata.entry_points)
    catalogue = read_catalogue(settings.app)
    keys = load_keys(Path(settings.keys)) if settings.keys else ApiKeys({})
    endpoints = load_endpoints(Path(settings.webhooks)) if settings.webhooks else {}
    store = store or open_store(settings.store, shared=True)
    try:
        clock = clock or (clocks.DrivenClock() if settings.clock == "driven" else clocks.SteadyClock(kept_mark(store)))
        _check_clock(settings, clock, store)
        ground = SharedResources(settings, store, clock, Metrics(), tracing or _tracing(settings, catalogue.app))
        current = CurrentParts(ground, build(ground, catalogue, endpoints))
        return _joined(current, AccessControl(keys, clock), pace, monitor, LogExports(exporter))
    except BaseException:
        store.close()
        raise


def _in_seconds(clock: Clock) -> Callable[[], float]:
    """A clock that was given, in seconds."""
    return lambda: clock() / 1e6


def _joined(
    current: CurrentParts,
    gate: AccessControl,
    pace: Callable[[], float],
    monitor: Monitor | None,
    exports: LogExports,
) -> CreatedService:
    """The application around parts that are built. `pace`: the clock of limits, in seconds."""
    settings, _, _, metrics, tracing = current.ground
    reload = ConfigurationReload(current, gate)
    watch, people = LedgerWatch(current.ground.store, metrics), PeopleService(current)

    def catalogue() -> Catalogue:
        return current.parts.worker.traffic.catalogue()

    counts = LedgerCounts(current.ground.store, catalogue, audit_large=monitor is None)
    guardrails = GuardrailLoop(current)
    lifts = LiftReports(current.ground.store, catalogue, monitor)

    def failing() -> dict[str, str]:
        return watch.failing | reload.failing | guardrails.failing | current.leaving

    app = ProtocolApp(
        route_handlers=[
            *_routes(current, gate, failing, counts, lifts, people),
            *people_routes.routes(people),
            *export_routes.routes(current, exports),
        ],
        lifespan=[_lifespan(current, [reload, watch, people, counts, guardrails, lifts, exports])],
        guards=[] if settings.dev else [guard(gate)],
        middleware=[CountResponses(metrics)],
        cors_config=_cors(settings.cors),
        exception_handlers={Exception: _handle},
        request_max_body_size=_BODY_BYTES,
        openapi_config=docs_page.configuration(current.parts.catalogue, VERSION) if settings.docs else None,
        debug=False,
        logging_config=None,
        plain=lambda path: not any(owns(path) for owns, _ in _REFUSALS),
        refused=_counting(metrics),
    )
    check_declared(app.routes)
    app.hot = HotRoutes(app.routes, None if settings.dev else gate, metrics)
    if settings.access_log:
        app.entry = access_log.logged(app.entry)
    if tracing is not None:
        app.entry = tracing.traced(app.entry)
    app.trial, app.proxies = settings.dev, TrustedProxies(networks(settings.trusted_proxies))
    if not settings.dev:
        turns = FairTurns(pace, held_up=lambda: current.replacing)
        app.limits = RequestLimits(gate.identify, pace, metrics, turns)

    def leave() -> None:
        current.be_leaving()
        exports.end()
        app.delays.end()

    return CreatedService(app, reload, metrics, leave)


def _counting(metrics: Metrics) -> Callable[[str, int], None]:
    """Counts answers that no route gave, by method and status; a method that HTTP does not know is one of others."""
    counters: dict[tuple[str, int], Counter] = {}

    def count(method: str, status: int) -> None:
        counter = counters.get((method, status))
        if counter is None:
            known = method if method in HttpMethod.__members__ else "(other)"
            counter = metrics.responses.labels(known, "(refused)", str(status))
            if known == method:
                counters[method, status] = counter
        counter.inc()

    return count


def _routes(
    current: CurrentParts,
    gate: AccessControl,
    failing: Callable[[], dict[str, str]],
    counts: LedgerCounts,
    lifts: LiftReports,
    people: PeopleService,
) -> list[HTTPRouteHandler]:
    """The handlers of all protocols, of whatever parts are current."""
    settings, store, clock, metrics, _ = current.ground

    async def health() -> Health:
        async with current.inside() as parts:
            return _health(parts.catalogue.app, parts.worker, store, clock, failing())

    def exposition() -> bytes:
        if not current.replacing:  # it does not wait: who scrapes is told what was known before
            found = _failing(current.parts.worker, clock, failing())
            metrics.show_health(found, ready=_ready(found))
            stages = current.parts.catalogue.stages
            metrics.show_budgets({stage: current.parts.service.budgets(stage) for stage in stages})
        return metrics.render()

    def reporter(request: Request[Any, Any, Any]) -> str:
        return "" if settings.dev else gate.named(presented(request))

    salt = salt_of(current)
    recomputer = Recomputer(store, salt)
    desk = Console(
        current, counts, lifts, ConsoleSessions(None if settings.dev else gate, salt, clock), health, recomputer
    )
    return [
        *native.routes(current, reporter, recomputer),
        *event_routes.routes(current, reporter),
        *browser.routes(current, BrowserAccess(gate if settings.keys or not settings.dev else None, clock, metrics)),
        *browser_files.routes(current),
        *segment.routes(current, None if settings.dev else gate),
        *ofrep.routes(current, reporter),
        *collector.routes(current, reporter),
        *personalizer.routes(current, lambda ask: gate.loop(presented(ask)), reporter),
        *webhooks.routes(current),
        *alarms.routes(current, lambda ask: gate.holder(presented(ask))),
        *operations.routes(current, lambda ask: gate.holder(presented(ask))),
        *releases.routes(current, lambda ask: gate.holder(presented(ask))),
        *health_routes.routes(
            health,
            exposition,
            docs_page.PAGES if settings.docs else {},
            scope="" if settings.metrics == "open" else settings.metrics,
        ),
        *console.routes(desk),
        *console_operate.routes(desk, current),
        *console_people.routes(desk, people),
        *(docs_page.routes() if settings.docs else []),
        *(clock_routes.routes(clock) if isinstance(clock, clocks.DrivenClock) else []),
    ]


def _tracing(settings: Settings, app: str) -> "Tracing | None":
    """Traces that go where the settings say, None where they say nothing. InvalidRequest without the extra."""
    if not settings.otlp:
        return None
    try:
        from api.telemetry import tracing

        return tracing.otlp(settings.otlp, app, VERSION)
    except ModuleNotFoundError as error:
        fix = "pip install 'journey-bandit[otel]', or leave --otlp out"
        raise InvalidRequest(Problem("otlp", f"{error.name} is not installed", fix)) from error


def _check_clock(settings: Settings, clock: Clock, store: Store) -> None:
    """InvalidRequest for a driven clock outside trials, LedgerError if it would begin before what the ledger holds."""
    if isinstance(clock, clocks.DrivenClock):
        if not settings.dev:
            fix = "give --dev too, or leave --clock out"
            raise InvalidRequest(Problem("clock", "a driven clock is for trials only", fix))
        if store.counts().decisions:
            raise LedgerError("a driven clock begins with an empty ledger: give --store another file")


class _BesideRequests(Protocol):
    """What works for as long as the service runs."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Context of the service's life."""
        ...


def _lifespan(
    current: CurrentParts, beside: Sequence[_BesideRequests]
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """The writer runs while the service does; then everything queued is committed and the ledger released."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        current.parts.worker.start(asyncio.get_running_loop())
        current.parts.sending.start()
        try:
            async with AsyncExitStack() as running:
                for one in beside:
                    await running.enter_async_context(one.running())
                yield
        finally:
            current.parts.sending.stop()
            current.parts.worker.stop()
            current.ground.store.close()
            if current.ground.tracing is not None:
                await asyncio.to_thread(current.ground.tracing.stop)

    return lifespan


def _health(app: str, worker: Worker, store: Store, clock: Clock, refused: Mapping[str, str]) -> Health:
    failing = _failing(worker, clock, refused)
    status: Literal["ok", "failing"] = "ok" if _ready(failing) else "failing"
    current = worker.releases.current
    shown = {stage: f"{current[stage].model} {_version(current[stage])}" for stage in worker.releases.served}
    described = store.describe()
    if store.shared:
        described["replica"] = "leader" if worker.leading else "follower"
    return Health(
        status=status,
        app=app,
        version=VERSION,
        store=described,
        failing=failing,
        warnings=_warnings(worker),
        releases=shown,
    )


def _failing(worker: Worker, clock: Clock, refused: Mapping[str, str]) -> dict[str, str]:
    """What does not work now, and why, by part. In memory, so that a ledger that cannot be read does not hide it."""
    failing = dict(worker.failing) if worker.alive else {"writer": "its thread has ended"}
    return failing | worker.releases.failing(clock()) | clock_doubts(clock) | dict(refused)


def _ready(failing: Mapping[str, str]) -> bool:
    """Whether it can decide and record all the same."""
    return failing.keys().isdisjoint(("write", "writer", "ledger", "follow", "stopping"))


def _warnings(worker: Worker) -> dict[str, str]:
    """Alarms about keys that nobody has acknowledged, and nudges above their guardrail that are shown all the same.
    Health needs no key, so it names no key.
    """
    open_alarms = {name: len(worker.learning.unacknowledged(name)) for name in worker.learning.reward_watches}
    what = "about keys that report more rewards than were usual → see reward_alarms in /v1/policies, and acknowledge"
    found = {f"reward_alarms {name}": f"{n} alarm(s) {what}" for name, n in open_alarms.items() if n}
    for name in worker.prepared:
        shown = worker.guardrails.raised(name).keys() - worker.pauses.refused(name).keys()
        if shown:
            found[f"guardrail {name}"] = f"{', '.join(sorted(shown))} → see guardrails in /v1/policies, or pause"
        for one in worker.stage_watch.raised(name):
            found[f"{one.name} {name}"] = f"{one.words} → see alarms in /v1/policies"
    return found


def _version(release: Release) -> str:
    return f"{release.version} (judged, one half)" if release.judge else release.version


_REFUSALS: tuple[tuple[Callable[[str], bool], Callable[..., Response[Any]]], ...] = (
    (segment.owns, segment.refusal),
    (ofrep.owns, ofrep.refusal),
    (personalizer.owns, personalizer.refusal),
    (console.owns, console.refusal),
)
"""Protocols with an error shape of their own: which paths are theirs, and what answers an error there."""


def _handle(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Every error in the shape of its protocol, also where no route is reached."""
    refusals = (refusal for owns, refusal in _REFUSALS if owns(request.scope["path"]))
    return next(refusals, handle)(request, error)


def _cors(origins: str) -> CORSConfig | None:
    """Pages of these origins may call, and read what clients need to read."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=[origin.strip() for origin in origins.split(",")],
        allow_methods=["GET", "POST"],
        allow_headers=["Content-Type", "If-None-Match", "X-API-Key", "Authorization", "X-Request-Id", "traceparent"],
        expose_headers=["ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"],
    )
