"""Console of one service: the data of each page, gathered in other threads than those that decide."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from api.components import CurrentParts
from api.console import decision_pages, operate_page, overview, person_page, rendering, stage_page
from api.console.ledger_counts import LedgerCounts
from api.console.lift_reports import LiftReports
from api.console.sessions import ConsoleSession, ConsoleSessions
from api.ledger import audit
from api.ledger.recomputation import Recomputation, Recomputer
from api.messages.decisions import Health
from api.times import time_of


class Console:
    """Console of one service: what its pages show. `sessions` say who looks.

    Belongs to one event loop; what reads the ledger or takes long runs in other threads. Methods give the HTML of a
    page.
    """

    def __init__(
        self,
        current: CurrentParts,
        counts: LedgerCounts,
        lifts: LiftReports,
        sessions: ConsoleSessions,
        health: Callable[[], Awaitable[Health]],
        recomputer: Recomputer,
    ):
        self._current, self._health, self._recomputer = current, health, recomputer
        self.counts, self.lifts, self.sessions = counts, lifts, sessions

    async def sign_in(self, then: str, problem: str = "", *, plain: bool = False) -> bytes:
        """Page that asks for a key. `then`: where the person goes on; `problem`: why the last key was refused; `plain`:
        the browser will not keep the session, because nothing encrypts the connection.
        """
        return await self._drawn("sign_in.html", None, then=then, problem=problem, plain=plain)

    async def overview(self, session: ConsoleSession) -> bytes:
        """Overview of the journey."""
        self._look_on()
        health = await self._health()
        async with self._current.inside() as parts:
            found = await asyncio.to_thread(overview.overview, parts, self.counts, self.lifts.known, self._now())
        return await self._drawn("overview.html", session, page=found, health=health, possible=self.lifts.possible)

    async def stage(self, session: ConsoleSession, name: str, form: Mapping[str, str]) -> bytes:
        """Page of one stage; `form`: a context that was typed. Raises NotFound."""
        self._look_on()
        async with self._current.inside() as parts:
            found = await asyncio.to_thread(
                stage_page.stage_page, parts, self.counts, self.lifts.known.get(name), name, form, self._now()
            )
        return await self._drawn(
            "stage.html", session, page=found, prefix=stage_page.PREFIX, possible=self.lifts.possible
        )

    async def decisions(self, session: ConsoleSession, asked: decision_pages.SearchForm) -> bytes:
        """List of decisions. Raises InvalidRequest."""
        store = self._current.ground.store
        found = await asyncio.to_thread(decision_pages.search, store, asked)
        stages = list(self._current.parts.catalogue.stages)
        return await self._drawn("decisions.html", session, page=found, asked=asked, stages=stages)

    async def receipt(
        self, session: ConsoleSession, decision_id: uuid.UUID, result: Recomputation | None = None
    ) -> bytes:
        """Receipt of a decision, with the result of recomputing it, if that was asked for. Raises NotFound."""
        async with self._current.inside() as parts:
            receipt = await parts.service.receipt(decision_id)
        release = None
        if receipt.release is not None:
            release = await asyncio.to_thread(self._current.parts.service.release, receipt.release.number)
        found = decision_pages.receipt_page(receipt)
        return await self._drawn("receipt.html", session, page=found, release=release, result=result)

    async def recomputed(self, decision_id: uuid.UUID) -> Recomputation:
        """Result of recomputing a decision: one at a time, because it counts what had been learned again. Raises
        NotFound, and SnapshotError if the release that decided cannot be read.
        """
        return await self._recomputer.recompute(decision_id)

    async def person(self, session: ConsoleSession, user_id: str = "", *, done: str = "") -> bytes:
        """Page of the person with this id; without one, the form that asks for it. `done`: what was done to them."""
        found = None
        if user_id:
            async with self._current.inside() as parts:
                journey, user = parts.events.journey(user_id), parts.service.user_hash(user_id)
                found = await asyncio.to_thread(person_page.person_page, self._current.ground.store, user, journey)
        whole = self.sessions.may(session, "admin")  # what people sent is else told by exports alone, which need it
        return await self._drawn("person.html", session, page=found, user_id=user_id, whole_events=whole, done=done)

    async def operate(
        self,
        session: ConsoleSession,
        *,
        typed: Mapping[str, str] = MappingProxyType({}),
        problem: str = "",
        done: str = "",
    ) -> bytes:
        """Page of what operators may do, and did. `typed`: what a form of it had sent; `problem`: what was wrong with
        that; `done`: what was done.
        """
        store, may = self._current.ground.store, self.sessions.may(session, "admin")
        keys = self.sessions.keys if may else {}
        async with self._current.inside() as parts:
            found = await asyncio.to_thread(operate_page.operate_page, parts, store, keys, self._now())
        return await self._drawn("operate.html", session, page=found, typed=typed, problem=problem, done=done, may=may)

    def user_hash(self, user_id: str) -> str:
        """Keyed hash of a user's id as hex, which stands in the address of a list in place of the id."""
        return self._current.parts.service.user_hash(user_id).hex()

    async def problem(self, session: ConsoleSession | None, title: str, words: str) -> bytes:
        """Page that says what went wrong."""
        return await self._drawn("problem.html", session, title=title, words=words)

    def _look_on(self) -> None:
        self.counts.look_on()
        self.lifts.look_on()

    def _now(self) -> int:
        return self._current.ground.clock()

    async def _drawn(self, template: str, session: ConsoleSession | None, **values: Any) -> bytes:
        catalogue = self._current.parts.catalogue
        frame = _Frame(
            app=catalogue.title or catalogue.app,
            currency=catalogue.currency,
            mlflow=self._current.ground.settings.mlflow_ui.rstrip("/"),
            trial=self.sessions.trial,
            session=session,
            now=time_of(self._now()),
        )
        return await asyncio.to_thread(rendering.page, template, frame=frame, time_of=time_of, **values)


class _Frame(NamedTuple):
    """What stands around every page; `mlflow`: address of MLflow's pages, "" where none is known."""

    app: str
    currency: str
    mlflow: str
    trial: bool
    session: ConsoleSession | None
    now: Any


def salt_of(current: CurrentParts) -> bytes:
    """Key of the ledger's draws, which the parts have claimed."""
    return audit.salt_of(current.ground.store, current.ground.settings.salt or None)
