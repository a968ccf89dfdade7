"""Lift reports for the console: what each stage earns over no nudge and over its holdout, as `journey-bandit monitor`
says it, made again from time to time while somebody looks.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from api.stores.protocol import Store
from bandit.catalogue.model import Catalogue
from bandit.errors import JourneyBanditError
from bandit.learning.holdout_audit import HoldoutAudit

log = logging.getLogger("journey_bandit.console")

Monitor = Callable[[str], Awaitable[bytes]]
"""Asynchronous function from a stage's name to what `journey-bandit monitor --json` prints of it. Raises
JourneyBanditError with the reason for which it prints nothing.
"""

_LEAST = 60.0  # seconds between the ends and beginnings of two rounds
_AGAIN = 20.0  # times as long as the last round took, before the next
_SEEN = 600.0  # seconds for which reports are kept fresh after somebody looked


class LiftEstimate(msgspec.Struct, frozen=True):
    """Difference a decision, in the app's currency, with the ends of its 95 % interval, and of the sequence that may be
    looked at always (None where it does not hold); ends are None where they are infinite.
    """

    value: float | None
    interval: tuple[float | None, float | None]
    sequence: tuple[float | None, float | None] | None = None


class NetGainSaid(msgspec.Struct, frozen=True):
    """Net gain of a stage in a sentence."""

    said: str


class LiftRefusal(msgspec.Struct, frozen=True):
    """Reason for which the ledger cannot answer, and what would be enough."""

    reason: str
    detail: str
    needed: str


class RoutingCheck(msgspec.Struct, frozen=True):
    """Test of whether nudges are shown as often as they were drawn: its e-value, and versions that raise an alarm."""

    evidence: float
    alarms: list[int]


class MonitorReport(msgspec.Struct, frozen=True):
    """Report of `journey-bandit monitor --json`, as far as the console shows it: `n` decisions whose rewards are final,
    `over_none` by their propensities, `lift` by the holdout; `people`: the audit by the
    holdout. `refused`, `over_none_refused`: why there is no `lift`, and no `over_none`.
    """

    n: int
    money: NetGainSaid | None
    over_none: LiftEstimate | None
    people: HoldoutAudit | None
    lift: LiftEstimate | None
    routing: RoutingCheck
    refused: list[LiftRefusal]
    over_none_refused: list[LiftRefusal]
    notes: list[str]


class StageLift(NamedTuple):
    """Report of one stage, or the `problem` for which there is none; `age` in seconds."""

    report: MonitorReport | None
    problem: str
    age: float


class LiftReports:
    """Reports of one service's stages. `monitor` makes one (None: the ledger can be read by this process alone, so
    there are none).

    Belongs to one event loop. The first `look_on` begins; stages are monitored one after the other, and not again while
    the ledger has no new settlement.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Callable[[], Catalogue],
        monitor: Monitor | None,
        pace: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        self._store, self._catalogue, self._monitor = store, catalogue, monitor
        self._pace, self._pause = pace, pause
        self._found: dict[str, tuple[MonitorReport | None, str, float]] = {}
        self._through: dict[str, tuple[int, str]] = {}  # by stage: settlements when it was monitored, its declaration
        self._looked_at, self._wanted = float("-inf"), asyncio.Event()

    @property
    def known(self) -> Mapping[str, StageLift]:
        """Newest report of each stage that has one."""
        now = self._pace()
        return {name: StageLift(report, problem, now - at) for name, (report, problem, at) in self._found.items()}

    @property
    def possible(self) -> bool:
        """Whether there can be reports."""
        return self._monitor is not None

    def look_on(self) -> None:
        """Somebody looks. Called in the event loop."""
        self._looked_at = self._pace()
        self._wanted.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context of the service's life."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            began = self._pace()
            if began - self._looked_at >= _SEEN:
                self._wanted.clear()
                continue
            await self.round()
            await self._pause(max(_LEAST, _AGAIN * (self._pace() - began)))

    async def round(self) -> None:
        """Monitor each stage whose actions are declared, unless it has a report of as many settlements."""
        if self._monitor is None:
            return
        try:
            through = (await asyncio.to_thread(self._store.last)).settlement
        except Exception as error:
            known = isinstance(error, JourneyBanditError)  # health says what is wrong with the ledger
            log.warning("the console could not read the ledger: %s", error, exc_info=None if known else error)
            return
        stages = self._catalogue().stages.items()
        due = {name: (through, stage.digest()) for name, stage in stages if not stage.has_request_actions}
        for name in [name for name, state in due.items() if self._through.get(name) != state]:
            report, problem = None, ""
            try:
                report = msgspec.json.decode(await self._monitor(name), type=MonitorReport)
            except JourneyBanditError as error:
                problem = str(error)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                log.warning("stage %s could not be monitored", name, exc_info=error)
            self._found[name] = report, problem, self._pace()
            self._through[name] = (-1, "") if problem else due[name]
        self._found = {name: self._found[name] for name in self._catalogue().stages if name in self._found}
