"""What is kept in memory of one person stops growing, whatever the person does."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from api.decisions.sessions import UserSession, UserSessions
from api.messages.decisions import DecisionRequest
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from bandit.catalogue.loading import parse
from bandit.errors import Overloaded
from bandit.journey import folding
from journey_bandit.testing.store_builders import CATALOGUE

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]
LEARNS = 'policy = { name = "linear", prior_mean = 0.2 }\n'
DECLARED = {
    "no limit": "",
    "contribution limit": 'contribution = { most = 50, per = "7d" }\n',
    "deferred": 'activation = "required"\n',
}
FULL, MORE = 600, 300  # decisions: of three arms, and a hundred exposures of each are kept


def text(declared: str) -> str:
    """The catalogue, whose stage draws all arms equally often, and declares this."""
    assert LEARNS in CATALOGUE
    return CATALOGUE.replace(LEARNS, f'{declared}policy = {{ name = "uniform" }}\n', 1)


def kept(value: Any) -> int:
    """Entries of all containers in which sessions keep what people do."""
    if isinstance(value, UserSessions | UserSession):
        value = {name: part for name, part in vars(value).items() if name not in ("_store", "_rules", "_stages")}
    if isinstance(value, dict):
        return len(value) + sum(map(kept, value.values()))
    return len(value) if isinstance(value, set | list) else 0


@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)
def test_what_is_kept_of_a_person_stops_growing(declared: str, working: Working, later: Later) -> None:
    """Also after a restart, when it is read from the ledger."""
    catalogue, store = parse(text(declared)), MemoryStore()
    with working(store, catalogue) as desk:
        sessions, found = desk.service.maker._sessions, []
        for many in (FULL, MORE):
            for _ in range(many):
                desk.ask()
                later(1)
            found.append(kept(sessions))
    assert found[0] > 200, "hardly anything was counted"
    assert found[0] == found[1]
    again = UserSessions(store, folding.rules(catalogue))
    again.session(next(iter(sessions._live)))
    assert kept(again) <= found[1]


class Full:
    """A worker whose queue is full."""

    def submit(self, *_: Any, **__: Any) -> Any:
        raise Overloaded("the ledger's queue is full")


def test_nothing_is_kept_of_decisions_that_were_not_written(working: Working) -> None:
    with working(MemoryStore(), parse(text(DECLARED["deferred"]))) as desk:
        desk.ask()
        before, desk.service.writer._worker = kept(desk.service.maker._sessions), Full()
        for _ in range(20):
            with pytest.raises(Overloaded):
                desk.run(desk.service.decide(DecisionRequest(stage="signup", user_id="u")))
        assert kept(desk.service.maker._sessions) <= before + 2  # empty tables of the two nudges


def test_a_retry_counts_nothing_at_a_stage_without_a_limit(working: Working, store: Store) -> None:
    """Whichever arm was drawn; no nudge is no exposure, and its retry reserves nothing that stays."""
    with working(store, parse(text(""))) as desk:
        first = [desk.ask(n).nudge.id for n in range(1, 41)]
        assert "none" in first
        (live,) = desk.service.maker._sessions._live.values()
        before = live.shown
        assert [desk.ask(n).nudge.id for n in range(1, 41)] == first
        assert (live.shown, live.in_flight) == (before, {})


def test_a_limit_that_was_lowered_is_logged_when_it_is_reached(
    working: Working, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    with working(store, parse(text('contribution = { most = 9, per = "7d" }\n'))) as desk:
        for _ in range(9):
            desk.ask()
    with (
        working(store, parse(text('contribution = { most = 2, per = "7d" }\n'))) as desk,
        caplog.at_level(logging.WARNING),
    ):
        desk.ask()
    assert "more than 2 decisions at signup within 7d" in caplog.text
    assert [found.decision.contribution for found in store.decisions()] == [1] * 9 + [0]
