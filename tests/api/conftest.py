"""Builders shared by the tests of the service: a small catalogue, decisions of the real engine, a clock to move."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from api.app import create_app
from api.clocks import Clock
from api.decisions.budgets import Budgets
from api.decisions.service import DecisionService
from api.events.service import EventReceipt, EventService, ReceivedEvent
from api.learning.worker import Worker
from api.ledger import audit
from api.messages.decisions import DecisionReply, DecisionRequest, OutcomeReply, OutcomeRequest
from api.metrics import Metrics
from api.settings import Settings
from api.stores.event_log import Status
from api.stores.memory.store import MemoryStore
from api.stores.postgres.store import PostgresStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import InvalidRequest
from journey_bandit.testing.store_builders import (
    CATALOGUE,
    START,
    ContractLedger,
    Decide,
    Report,
    decisions_of,
    reported,
)
from tests import postgres
from tests.postgres import PostgresServer


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> int:
        self.now += round(seconds * 1e6)
        return self.now


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def clock(hands: Hands) -> Clock:
    """Microseconds since 1970, as `later` left them."""
    return hands


@pytest.fixture
def later(hands: Hands) -> Callable[[float], int]:
    """Move the clock by so many seconds; the new time."""
    return hands.move


@pytest.fixture(scope="session")
def catalogue_text() -> str:
    return CATALOGUE


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return parse(CATALOGUE)


@pytest.fixture(scope="session")
def decide(catalogue: Catalogue) -> Decide:
    return decisions_of(catalogue)


@pytest.fixture(scope="session")
def outcome() -> Report:
    return reported


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server whose commits do not wait for the disk."""
    with postgres.server() as running:
        yield running


@contextmanager
def opened(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Store]:
    """A new store of one kind. What was done to a ledger is found whole afterwards."""
    if kind == "memory":
        yield MemoryStore()
        return
    if kind == "sqlite":
        yield (made := SqliteStore(path := folder / "ledger.db"))
        made.close()
        with closing(SqliteStore(path, read_only=True)) as after:
            assert list(after.damages()) == []
        return
    running: PostgresServer = request.getfixturevalue("postgres_server")
    with running.schema() as url, closing(PostgresStore(url)) as kept:
        yield kept
        assert list(kept.damages()) == []


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store without a server in turn: what is asked of one is asked of all."""
    with opened(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture
def claimed(catalogue: Catalogue) -> Callable[..., ContractLedger]:
    """claimed(store, catalogue=): a store that knows the declarations."""
    return lambda store, other=None: ContractLedger(store, other or catalogue)


class Desk:
    """The service without HTTP: its own event loop, the real worker, and calls that wait for their answer."""

    def __init__(self, store: Store, catalogue: Catalogue, clock: Clock, salt: str | None, bound: int):
        key = audit.claim(store, catalogue, salt)
        self.store, self.catalogue, self.clock, self.salt = store, catalogue, clock, key
        self.loop = asyncio.new_event_loop()
        self.budgets = Budgets(catalogue, store, clock())
        self.worker = Worker(store, catalogue, clock, Metrics(), bound, self.budgets.settled)
        self.service = DecisionService(
            catalogue, store, self.worker, self.budgets, salt=key, clock=clock, metrics=Metrics()
        )

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def send(self, *sent: ReceivedEvent) -> list[Status]:
        """Events, as they reach the service."""
        events = EventService(
            self.catalogue,
            self.store,
            self.worker,
            self.service.maker,
            salt=self.salt,
            clock=self.clock,
            metrics=Metrics(),
        )
        taken: list[EventReceipt | InvalidRequest] = self.run(events.take(sent))
        return [one.status for one in taken if isinstance(one, EventReceipt)]

    def ask(self, n: int | None = None, stage: str = "signup", user: str = "u", **context: Any) -> DecisionReply:
        given = None if n is None else uuid.UUID(int=n)
        reply: DecisionReply = self.run(
            self.service.decide(DecisionRequest(stage=stage, user_id=user, context=context, decision_id=given))
        )
        return reply

    def report(self, n: int, kind: Any = "reward", value: float | None = None, name: str | None = None) -> OutcomeReply:
        request = OutcomeRequest(decision_id=uuid.UUID(int=n), kind=kind, value=value, outcome_id=name)
        reply: OutcomeReply = self.run(self.service.report(request))
        return reply

    def learn(self) -> dict[str, tuple[int, str]]:
        """Version and belief of each stage after all that matured was learned."""
        policies = self.run(self.service.policies(wait=True)).policies
        return {p.stage: (p.version, p.belief_sha256) for p in policies}


@pytest.fixture
def working(clock: Clock, catalogue: Catalogue) -> Callable[..., AbstractContextManager[Desk]]:
    """working(store, catalogue=, salt=, bound=): a desk with its worker running; the store stays open."""

    @contextmanager
    def work(
        store: Store, other: Catalogue | None = None, *, salt: str | None = "salt", bound: int = 10_000
    ) -> Iterator[Desk]:
        desk = Desk(store, other or catalogue, clock, salt, bound)
        desk.worker.start(desk.loop)
        try:
            yield desk
        finally:
            desk.worker.stop()
            desk.loop.run_until_complete(asyncio.sleep(0))
            desk.loop.close()

    return work


@pytest.fixture
def catalogue_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(CATALOGUE, encoding="utf-8")
    return path


class Caller(TestClient[Litestar]):
    """A client of a running service."""

    def ask(self, stage: str = "signup", user: str = "u", **more: Any) -> Any:
        """The decision of a request that must be accepted."""
        reply = self.post("/v1/decisions", json={"stage": stage, "user_id": user, **more})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def tell(self, decision: Any, kind: str = "reward", **more: Any) -> Any:
        """The answer to an outcome that must be accepted."""
        reply = self.post("/v1/outcomes", json={"decision_id": decision["decision_id"], "kind": kind, **more})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def learned(self) -> Any:
        """The live policy of each stage after all that matured was learned."""
        reply = self.get("/v1/policies", params={"wait": True})
        assert reply.status_code == 200, reply.text
        return {policy["stage"]: policy for policy in reply.json()["policies"]}


@pytest.fixture(scope="session")
def refused() -> Callable[[Any, int, str], Any]:
    """refused(reply, status, field): it is a problem of that status whose first error names the field and a fix."""

    def check(reply: Any, status: int, field: str) -> Any:
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json"), reply.text
        problem = reply.json()
        assert problem.keys() == {"type", "title", "status", "detail", "errors", "request_id"}
        assert problem["request_id"] == reply.headers["x-request-id"]
        assert problem["status"] == status
        assert problem["detail"]
        assert all(e["field"] and e["problem"] and e["fix"] for e in problem["errors"])
        assert problem["errors"][0]["field"] == field
        return problem["errors"][0]

    return check


@contextmanager
def served(clock: Clock, catalogue_file: Path, store: Store | None = None, **settings: Any) -> Iterator[Caller]:
    """A running service of a catalogue, without keys unless a file is given."""
    chosen = {"app": str(catalogue_file), "salt": "salt", "dev": "keys" not in settings, **settings}
    app = create_app(Settings(**chosen), clock=clock, store=store or MemoryStore())
    with Caller(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def serving(clock: Clock, catalogue_file: Path) -> Callable[..., AbstractContextManager[Caller]]:
    """serving(store=, keys=, …): a running service of the small catalogue, without keys unless a file is given."""
    return partial(served, clock, catalogue_file)


@pytest.fixture
def client(serving: Callable[..., AbstractContextManager[Caller]]) -> Iterator[Caller]:
    with serving() as running:
        yield running
