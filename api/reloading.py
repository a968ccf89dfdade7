"""Configuration reload: reading keys, webhooks and catalogue again on SIGHUP, while the service runs.

Each of the three is read by itself: one that has mistakes, or that the ledger refuses, leaves in force the one that
serves, and health and the log say why.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from api.catalogue_files import images, read_catalogue
from api.components import CurrentParts
from api.http.access import AccessControl
from api.http.keys import load as load_keys
from api.ledger import catalogue_changes
from api.webhooks.config import Endpoint
from api.webhooks.config import load as load_endpoints
from bandit.catalogue.model import Catalogue
from bandit.errors import JourneyBanditError, LedgerMismatch

log = logging.getLogger("journey_bandit.reload")

T = TypeVar("T")


class ConfigurationReload:
    """Reload of one service's keys, webhooks and catalogue, called by `api.server.serve` for each SIGHUP.

    Guarantees: reloads run one after another; signals that come before a waiting one has begun count as one with it;
    nothing is begun before the service runs or after it has begun to stop. A file that cannot be used changes nothing.
    `failing` maps "reload keys", "reload webhooks" or "reload catalogue" to what the last reload refused and why;
    `/health/ready` shows it. Belongs to one event loop; files are read, and catalogues compared with the ledger, in
    other threads.
    """

    def __init__(self, current: CurrentParts, gate: AccessControl):
        self._current, self._gate = current, gate
        self._settings = current.ground.settings
        self._turn = asyncio.Lock()
        self._running = asyncio.Event()
        self._waiting, self._over = False, False
        self.failing: dict[str, str] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context of the service's life, entered by the lifespan of the app. Reloads wait for its beginning. At its end
        a reload that runs is finished first, and none is begun afterwards.
        """
        self._running.set()
        try:
            yield
        finally:
            self._over = True
            await self._turn.acquire()

    async def __call__(self) -> None:
        """Read keys, webhooks and catalogue again, and serve what can be used. Returns at once if another call waits to
        begin, which will read the same files. Raises nothing for files with mistakes: `failing` says it.
        """
        if self._waiting:
            return
        self._waiting = True
        await self._running.wait()
        async with self._turn:
            self._waiting = False
            if not self._over:
                await self._reload()

    async def _reload(self) -> None:
        settings, serving = self._settings, self._current.parts
        if settings.keys:
            keys = await self._read("keys", lambda: load_keys(Path(settings.keys)))
            if keys is not None:
                self._gate.keys = keys
                log.info("keys: %d are accepted now", len(keys))
        endpoints = serving.sending.endpoints
        if settings.webhooks:
            found = await self._read("webhooks", lambda: load_endpoints(Path(settings.webhooks)))
            endpoints = endpoints if found is None else found
        catalogue = await self._read("catalogue", self._catalogue) or serving.catalogue
        try:
            await self._serve(catalogue, endpoints)
        except Exception as error:  # noqa: BLE001 - whatever it was: the service goes on, and must say so
            self._refused("catalogue", f"{type(error).__name__}: {error}")

    async def _serve(self, catalogue: Catalogue, endpoints: Mapping[str, Endpoint]) -> None:
        serving = self._current.parts
        if catalogue != serving.catalogue:
            for line in await asyncio.to_thread(self._fates, catalogue):
                log.info("catalogue: %s", line)
            await self._current.replace(catalogue, endpoints)
            log.info("catalogue: %s serves %s", self._settings.app, ", ".join(catalogue.stages))
        else:
            pictures = await asyncio.to_thread(images, self._settings.app, catalogue)
            if pictures != serving.images:
                self._current.parts = serving._replace(images=pictures)
                log.info("images: %s", ", ".join(pictures))
            if endpoints == serving.sending.endpoints:
                return
            await asyncio.to_thread(serving.sending.replace, endpoints)
        log.info("webhooks: %s", ", ".join(endpoints) or "none")

    def _fates(self, catalogue: Catalogue) -> list[str]:
        found = catalogue_changes.fates(self._current.ground.store, catalogue, self._settings.salt or None)
        return [f"{fate.what}: {fate.stage}: {fate.why}" for fate in found]

    def _catalogue(self) -> Catalogue:
        """The one that the settings name, if the ledger takes it."""
        catalogue = catalogue_changes.as_begun(self._current.ground.store, read_catalogue(self._settings.app))
        wrong = catalogue_changes.refusals(self._current.ground.store, catalogue, self._settings.salt or None)
        if wrong:
            raise LedgerMismatch("\n".join(wrong))
        return catalogue

    async def _read(self, what: str, read: Callable[[], T]) -> T | None:
        """What is read, or None if it cannot be used."""
        try:
            found = await asyncio.to_thread(read)
        except (JourneyBanditError, OSError) as error:
            self._refused(what, str(error))
            return None
        self.failing.pop(f"reload {what}", None)
        return found

    def _refused(self, what: str, why: str) -> None:
        self.failing[f"reload {what}"] = f"refused, the one before goes on: {why}"
        log.error("%s refused, the one before goes on: %s", what, why)
