"""Making of a service: what is refused, and what is closed then."""

from pathlib import Path

import pytest
from litestar import get
from litestar.exceptions import ImproperlyConfiguredException

from api.app import create_service
from api.clocks import DrivenClock
from api.routes import health
from api.settings import Settings
from api.stores.decision_log import LedgerPosition
from api.stores.memory.store import MemoryStore
from bandit.errors import InvalidRequest


class Closing(MemoryStore):
    """A store that says whether it was closed, and raises what it is given when a service begins to read it."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error, self.closed = error, 0

    def last(self) -> LedgerPosition:
        if self.error:
            raise self.error
        return super().last()

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.mark.parametrize("error", [OSError("the disk"), ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
def test_a_service_that_cannot_be_made_closes_its_store_whatever_the_error(
    catalogue_file: Path, error: BaseException
) -> None:
    store = Closing(error)
    with pytest.raises(type(error)):
        create_service(Settings(app=str(catalogue_file), dev=True), store=store)
    assert store.closed == 1


def test_a_refused_clock_closes_the_store(catalogue_file: Path) -> None:
    store = Closing()
    with pytest.raises(InvalidRequest, match="a driven clock is for trials only"):
        create_service(Settings(app=str(catalogue_file)), clock=DrivenClock(), store=store)
    assert store.closed == 1


@pytest.mark.parametrize("dev", [True, False])
def test_a_service_with_a_route_that_says_not_who_may_call_it_is_not_made(
    catalogue_file: Path, monkeypatch: pytest.MonkeyPatch, dev: bool
) -> None:
    @get("/v1/secret")
    async def secret() -> str:
        return "told"

    store = Closing()
    monkeypatch.setattr(health, "routes", lambda *_, **__: [secret])
    with pytest.raises(ImproperlyConfiguredException, match="/v1/secret: opt needs one of scope"):
        create_service(Settings(app=str(catalogue_file), dev=dev), store=store)
    assert store.closed == 1


def test_a_service_that_is_made_leaves_its_store_open(catalogue_file: Path) -> None:
    store = Closing()
    create_service(Settings(app=str(catalogue_file), dev=True), store=store)
    assert store.closed == 0
