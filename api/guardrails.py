"""Guardrails of a running service: nudges above their declared bound are stopped, and what the alarms of a stage ask
for is done, without anybody having to look.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from api.components import CurrentParts
from api.learning.worker import Worker
from bandit.errors import InvalidRequest, JourneyBanditError

log = logging.getLogger("journey_bandit.guardrails")

EVERY = 1.0
"""Seconds between two looks."""

_SHARE = 4.0  # pause after a page, as a multiple of what it took


class GuardrailLoop:
    """Loop that looks at the guardrails and stage alarms of the current catalogue, from its event loop, in another
    thread; where several replicas share a ledger, the one that leads acts.
    """

    def __init__(self, current: CurrentParts, pause: Callable[[float], Awaitable[None]] = asyncio.sleep):
        self._current, self._pause = current, pause
        self._refused = ""
        self.failing: dict[str, str] = {}
        """What health says: "guardrails", while they cannot be looked at."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context of the service's life."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            began, more = asyncio.get_running_loop().time(), False
            try:
                more = await self.look()
                if self._refused and not self.failing:
                    log.error("guardrails: %s", self._refused)
                self.failing = {"guardrails": self._refused} if self._refused else {}
            except Exception as error:
                known = isinstance(error, JourneyBanditError)
                if not self.failing:
                    log.error("guardrails wait: %s", error, exc_info=None if known else error)
                self.failing["guardrails"] = f"{type(error).__name__}: {error}"
            took = asyncio.get_running_loop().time() - began
            await self._pause(_SHARE * took if more else max(EVERY, _SHARE * took))

    async def look(self) -> bool:
        """Take in the next page of settlements, and stop what is above its bound, or roll back; whether there is more
        to take in. Raises Unavailable and Overloaded where the ledger cannot be read or written.
        """
        worker, clock, more = self._current.parts.worker, self._current.ground.clock, False
        for watch in (worker.guardrails, worker.stage_watch):
            if watch:
                more |= await asyncio.shield(asyncio.to_thread(watch.look, clock()))
        if worker.leading:
            for action in (*worker.guardrails.due(clock()), *worker.stage_watch.due(clock())):
                kept = await asyncio.wrap_future(worker.operate(action))
                log.warning("stage %s: %s %s: %s", kept.stage, kept.verb, kept.nudge or "every nudge", kept.reason)
            self._refused = await self._roll_back(worker)
        return more

    async def _roll_back(self, worker: Worker) -> str:
        """Take back what alarms ask for; a release that cannot be taken back keeps no other from it. Returns the last
        refusal, "" for none.
        """
        refused = ""
        for asked in worker.stage_watch.rollbacks():
            try:
                back = await asyncio.wrap_future(worker.roll_back(asked, self._current.ground.clock()))
            except InvalidRequest as error:
                refused = f"{asked.stage} cannot be rolled back: {error}"
                continue
            if back is not None:
                log.warning("stage %s: back to %s: %s", asked.stage, back.version or "what is learned", asked.reason)
        return refused
