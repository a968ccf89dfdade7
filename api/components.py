"""Components of a service under one catalogue, and their replacement while the service runs.

Everything that depends on the catalogue is built again when the catalogue changes, exactly as when a service starts, on
the same ledger, clock and metrics. Requests that come meanwhile wait; requests that had begun are finished first.
Nobody else is kept waiting: a client that is still sending its body has not begun.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple

from api import clocks
from api.catalogue_files import Image, images
from api.clocks import Clock
from api.decisions.budgets import Budgets
from api.decisions.flags import Flags
from api.decisions.ranking import Ranking
from api.decisions.service import DecisionService
from api.events.service import EventService
from api.learning.worker import Worker
from api.ledger import audit
from api.ledger.catalogue_changes import as_begun
from api.metrics import Metrics
from api.settings import Settings
from api.stores import Store
from api.webhooks.config import Endpoint
from api.webhooks.dispatcher import Traceparents, WebhookDispatcher, untraced
from bandit.catalogue.model import Catalogue

if TYPE_CHECKING:  # its packages are an extra
    from api.telemetry.tracing import Tracing


class CatalogueParts(NamedTuple):
    """Components of a service that depend on its catalogue, built together by `build` and replaced together by
    `CurrentParts.replace`. Their worker and their webhook dispatcher are threads: whoever builds them starts and stops
    them.
    """

    catalogue: Catalogue
    worker: Worker
    sending: WebhookDispatcher
    service: DecisionService
    events: EventService
    flags: Flags
    ranking: Ranking
    images: Mapping[str, Image]


class SharedResources(NamedTuple):
    """Resources that outlive a catalogue: settings, the open ledger, clock, metrics, and traces if there are such.
    Parts are built on them; the app's lifespan closes the ledger at the end.
    """

    settings: Settings
    store: Store
    clock: Clock
    metrics: Metrics
    tracing: "Tracing | None" = None


def build(
    ground: SharedResources, catalogue: Catalogue, endpoints: Mapping[str, Endpoint], before: Worker | None = None
) -> CatalogueParts:
    """Parts of a service under a catalogue, not started. Called at the start and by `CurrentParts.replace`. It claims
    and reads the ledger, so it must not run in the event loop of a running service, nor while another worker writes.

    `before` is the worker that has just ended: what it knew of open decisions is reused where a stage is declared as it
    was. Raises LedgerMismatch if the ledger refuses the catalogue or the salt.
    """
    store, salt = ground.store, ground.settings.salt or None
    with store.starting():
        key, catalogue = audit.claim(store, catalogue, salt), as_begun(store, catalogue)
        if not store.shared:
            return _built(ground, catalogue, endpoints, key, before)
        with store.atomic():  # what is read is what is told of from here on
            store.news()
            parts = _built(ground, catalogue, endpoints, key, before)
        parts.worker.register()  # within the transaction it could not be read again
        return parts


def _built(
    ground: SharedResources,
    catalogue: Catalogue,
    endpoints: Mapping[str, Endpoint],
    salt: bytes,
    before: Worker | None,
) -> CatalogueParts:
    """Parts under a catalogue that has claimed the ledger."""
    settings, store, clock, metrics, tracing = ground
    scale = settings.window_scale
    budgets = Budgets(catalogue, store, clock(), scale)
    driven = isinstance(clock, clocks.DrivenClock)
    if isinstance(clock, clocks.SteadyClock):
        clock.longest = round(max(stage.reward.seconds for stage in catalogue.stages.values()) * scale * 1e6)
    worker = Worker(
        store, catalogue, clock, metrics, settings.queue, budgets.settled, scale, asked=driven, before=before
    )
    traceparents: Traceparents = untraced
    if tracing is not None:
        worker.trace_commit, traceparents = tracing.commit, tracing.traceparent
    service = DecisionService(
        catalogue, store, worker, budgets, salt=salt, clock=clock, metrics=metrics, window_scale=scale
    )  # fmt: skip
    return CatalogueParts(
        catalogue=catalogue,
        worker=worker,
        sending=WebhookDispatcher(endpoints, catalogue, store, worker, clock, metrics, traceparents),
        service=service,
        events=EventService(catalogue, store, worker, service.maker, salt=salt, clock=clock, metrics=metrics),
        flags=Flags(service, store, salt=salt, clock=clock, window_scale=scale),
        ranking=Ranking(
            catalogue,
            store,
            worker,
            service.writer,
            salt=salt,
            clock=clock,
            metrics=metrics,
            window_scale=scale,
        ),
        images=images(settings.app, catalogue),
    )


class _Inside(AbstractAsyncContextManager[CatalogueParts]):
    """One call inside the current parts."""

    def __init__(self, current: "CurrentParts"):
        self._current = current

    async def __aenter__(self) -> CatalogueParts:
        return await self._current.enter()

    async def __aexit__(self, *_: object) -> None:
        self._current.leave()


class CurrentParts:
    """Holder of the parts that answer now, and of their replacement. Routes hold it, never a part itself: they are made
    once and outlive a catalogue. A handler reads its body, then enters `inside` for whatever it awaits; what it reads
    without waiting it may take from `parts`.

    Guarantees: a call that has entered `inside` sees one set of parts to its end; `replace` waits for all of them, and
    lets new ones in when the new parts run. The ledger has one writing thread at any time. Belongs to one event loop:
    all its methods run there, and send slow work to other threads.
    """

    def __init__(self, ground: SharedResources, parts: CatalogueParts):
        self.ground = ground
        self.parts = parts
        self.leaving: dict[str, str] = {}  # what health says of a service that is about to stop
        self._inside = 0
        self._open, self._idle = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._idle.set()

    @property
    def replacing(self) -> bool:
        """Whether a replacement goes on, for which everybody waits."""
        return not self._open.is_set()

    def be_leaving(self) -> None:
        """Say from now on that the service is not ready, because it is about to stop."""
        self.leaving = {"stopping": "the service was asked to stop, and serves for a while yet: ask another replica"}

    def inside(self) -> AbstractAsyncContextManager[CatalogueParts]:
        """Context with the parts that answer now, which are not replaced before it ends. It waits while a replacement
        goes on.
        """
        return _Inside(self)

    async def enter(self) -> CatalogueParts:
        """Parts that answer now; they are not replaced before `leave` is called once. For `inside` alone."""
        while not self._open.is_set():  # it may have closed again before this one was woken
            await self._open.wait()
        self._inside += 1
        self._idle.clear()
        return self.parts

    def leave(self) -> None:
        """Let the parts be replaced as far as one call of `enter` is concerned."""
        self._inside -= 1
        if not self._inside:
            self._idle.set()

    async def replace(self, catalogue: Catalogue, endpoints: Mapping[str, Endpoint]) -> None:
        """Serve another catalogue, which the ledger takes, with these webhook endpoints. Called by
        `ConfigurationReload` in the event loop; requests wait meanwhile.

        If the new parts cannot be built, the parts of the present catalogue are built again and serve, and the error
        that was met is raised.
        """
        old = self.parts
        await asyncio.to_thread(old.sending.stop)
        self._open.clear()
        try:
            await self._idle.wait()
            await asyncio.to_thread(old.worker.stop)
            try:
                new = await asyncio.to_thread(build, self.ground, catalogue, endpoints, old.worker)
            except Exception:
                self._begin(await asyncio.to_thread(build, self.ground, old.catalogue, old.sending.endpoints))
                raise
            self._begin(new)
        finally:
            self._open.set()
            if self.parts is not old:
                await asyncio.to_thread(self.parts.sending.start)

    def _begin(self, new: CatalogueParts) -> None:
        new.worker.releases.word = self.parts.worker.releases.word
        new.worker.start(asyncio.get_running_loop())
        self.parts = new
