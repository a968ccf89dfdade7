"""What was reserved is kept or given back once, whatever happens between the decision and the disk."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.decisions.sessions import UserSession
from api.messages.decisions import DecisionRequest
from api.stores.memory.store import MemoryStore
from bandit.catalogue.limits import Limits
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import Overloaded, Unavailable
from bandit.policies import Fixed

TEXT = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")
Working = Callable[..., Any]
REQUEST = DecisionRequest(stage="start", user_id="u")


def one_a_day() -> Catalogue:
    """The shop, which always shows the nudge of `start`, and to nobody more than one a day."""
    shop = parse(TEXT)
    start = msgspec.structs.replace(
        shop.stages["start"], policy=Fixed(arm=shop.stages["start"].arms[1]), holdout=0.0, floor=0.0
    )
    return msgspec.structs.replace(shop, limits=Limits(per_day=1), stages={**shop.stages, "start": start})


class Refusing:
    """A worker that takes nothing, or leaves the caller in the dark."""

    def __init__(self, answer: Exception | None, loop: asyncio.AbstractEventLoop):
        self.answer, self.loop = answer, loop

    def submit(self, *_: Any, **__: Any) -> "asyncio.Future[Any]":
        if isinstance(self.answer, Overloaded):
            raise self.answer
        future = self.loop.create_future()
        if self.answer:
            future.set_exception(self.answer)
        return future


def session(desk: Any) -> UserSession:
    (found,) = desk.service.maker._sessions._live.values()
    assert isinstance(found, UserSession)
    return found


def test_what_was_refused_before_it_was_written_is_given_back(working: Working) -> None:
    with working(MemoryStore(), one_a_day()) as desk:
        writer, worker = desk.service.writer, desk.worker
        writer._worker = Refusing(Overloaded("the ledger's queue is full"), desk.loop)
        with pytest.raises(Overloaded):
            desk.run(desk.service.decide(REQUEST))
        assert (session(desk).in_flight, [e for mine in session(desk).shown.values() for e in mine]) == ({}, [])
        writer._worker = worker
        assert desk.run(desk.service.decide(REQUEST)).nudge.id != "none"


@pytest.mark.parametrize("answer", [Unavailable("disk full"), None], ids=["the disk fails", "the caller leaves"])
def test_what_may_have_been_written_stays_reserved_and_holds_nobody_in_memory(
    working: Working, answer: Exception | None
) -> None:
    with working(MemoryStore(), one_a_day()) as desk:
        writer, worker = desk.service.writer, desk.worker
        writer._worker = Refusing(answer, desk.loop)

        async def leave() -> None:
            asking = asyncio.ensure_future(desk.service.decide(REQUEST))
            await asyncio.sleep(0)
            asking.cancel()
            await asking

        with pytest.raises(Unavailable if answer else asyncio.CancelledError):
            desk.run(desk.service.decide(REQUEST) if answer else leave())
        assert session(desk).in_flight == {}
        writer._worker = worker
        assert desk.run(desk.service.decide(REQUEST)).nudge.id == "none"  # the cap counts what may have been shown
