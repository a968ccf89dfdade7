"""Reading keys, webhooks and catalogue anew while the service runs: on SIGHUP.

Each of the three for itself: what has mistakes, or what the ledger refuses, leaves the one that serves, and health and
the log say why.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from api.catalogue_files import read_catalogue
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
    """Called for each SIGHUP. `failing`: what the last one refused, and why."""

    def __init__(self, current: CurrentParts, gate: AccessControl):
        self._current, self._gate = current, gate
        self._settings = current.ground.settings
        self._turn = asyncio.Lock()
        self._running = asyncio.Event()
        self._waiting, self._over = False, False
        self.failing: dict[str, str] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the service does. What is being read anew at its end is finished first, nothing is begun."""
        self._running.set()
        try:
            yield
        finally:
            self._over = True
            await self._turn.acquire()

    async def __call__(self) -> None:
        """Read all of them anew. Signals that come before one is begun are one."""
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
        elif endpoints != serving.sending.endpoints:
            await asyncio.to_thread(serving.sending.replace, endpoints)
        else:
            return
        log.info("webhooks: %s", ", ".join(endpoints) or "none")

    def _fates(self, catalogue: Catalogue) -> list[str]:
        found = catalogue_changes.fates(self._current.ground.store, catalogue, self._settings.salt or None)
        return [f"{fate.what}: {fate.stage}: {fate.why}" for fate in found]

    def _catalogue(self) -> Catalogue:
        """The one that the settings name, if the ledger takes it."""
        catalogue = read_catalogue(self._settings.app)
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
