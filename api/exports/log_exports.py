"""Log exports of a service: what is asked for, and the one that is made or sent at a time."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from api.exports import export_folders
from api.exports.export_folders import ExportFolder
from api.traffic.refusals import LimitReached
from bandit.errors import RemoteError

log = logging.getLogger("journey_bandit.exports")

TABLES = ("outcomes", "settlements", "events")
"""Tables of the ledger that an export may have beside the decisions."""

_WAIT = 30.0  # seconds after which somebody else may ask again


class ExportOrder(NamedTuple):
    """Order of a stage's export: decisions made at `since` or later and before `until` (µs since 1970; None: all), with
    these tables of `TABLES` beside them.
    """

    stage: str
    since: int | None
    until: int | None
    tables: Sequence[str]


Exporter = Callable[[ExportOrder, Path], Awaitable[None]]
"""Asynchronous function that writes what is ordered to a folder, which it makes, as `journey-bandit export` does. What
it started ends when it is cancelled. Raises RemoteError with the reason if there is no export afterwards.
"""

Check = Callable[[], Awaitable[None]]
"""Asynchronous function that raises what is wrong with orders, before anything is made."""


async def _nothing() -> None:
    """No check."""


class LogExports:
    """Exports of one service. `exporter` writes one; None: no other process can read the ledger, so there are none.

    One is made or sent at a time: it takes a processor, and room on the disk. Belongs to one event loop.
    """

    def __init__(self, exporter: Exporter | None):
        self._exporter = exporter
        self._task: asyncio.Task[object] | None = None
        self._ending = False

    @property
    def possible(self) -> bool:
        """Whether there can be exports."""
        return self._exporter is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context of the service's life: what a killed one left is removed first, and an export that goes on is ended
        last.
        """
        if self.possible:
            await asyncio.to_thread(_remove_left)
        try:
            yield
        finally:
            self.end()
            if self._task is not None:
                await asyncio.gather(self._task, return_exceptions=True)

    def end(self) -> None:
        """End the export that goes on, and refuse others from now on: the service stops."""
        self._ending = True
        if self._task is not None:
            self._task.cancel()

    @staticmethod
    def ended() -> LimitReached:
        """Refusal (503) of an export that `end` has ended."""
        return LimitReached(503, "the service stops, and makes no export (exports)", "ask again later", _WAIT)

    async def checked(self, check: Check) -> None:
        """Check what is asked for, and make nothing. Raises what `check` raises, and LimitReached as `made` does."""
        async with self._alone():
            await check()

    @asynccontextmanager
    async def made(self, orders: Sequence[ExportOrder], check: Check = _nothing) -> AsyncIterator[Path]:
        """Context with a folder that holds an export for each order, under the name of its stage; it is removed at the
        end. Raises LimitReached (503) while another is checked, made or sent and after `end`, then what `check` raises,
        RemoteError if it cannot be made.
        """
        async with self._alone():
            await check()
            folder = _new_folder()
            try:
                await self._write(orders, folder.path)
                yield folder.path
            finally:
                await _removed(folder)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        if self._ending:
            raise self.ended()
        if self._task is not None:
            detail = "an export is being made or sent, and there is one at a time (exports)"
            raise LimitReached(503, detail, "ask again later", _WAIT)
        self._task = asyncio.current_task()
        try:
            yield
        finally:
            self._task = None

    async def _write(self, orders: Sequence[ExportOrder], folder: Path) -> None:
        assert self._exporter is not None  # noqa: S101 - `possible` was asked
        began, stages = time.monotonic(), ", ".join(order.stage for order in orders)
        log.info("an export of %s has begun", stages)
        try:
            for order in orders:
                await self._exporter(order, folder / order.stage)
        except RemoteError as error:
            log.error("the export of %s failed: %s", stages, error)
            raise
        except asyncio.CancelledError:
            log.info("the export of %s was given up: its client went, or the service stops", stages)
            raise
        log.info("the export of %s was written within %.1f s", stages, time.monotonic() - began)


def _new_folder() -> ExportFolder:
    try:
        return export_folders.new()
    except OSError as error:
        raise RemoteError(f"there is no folder for an export: {error}; set TMPDIR to another one") from error


async def _removed(folder: ExportFolder) -> None:
    """Return when a thread has removed a folder. A task that is cancelled meanwhile waits for it, too: the folder would
    stay if the thread had not begun.
    """
    removing, given_up = asyncio.get_running_loop().run_in_executor(None, folder.remove), False
    while not removing.done():
        try:
            await asyncio.wait((removing,))
        except asyncio.CancelledError:
            given_up = True
    if given_up:
        raise asyncio.CancelledError


def _remove_left() -> None:
    try:
        export_folders.remove_left()
    except (OSError, RemoteError) as error:  # exports do not keep a service from deciding
        log.warning("exports that a killed service may have left were not looked for: %s", error)
