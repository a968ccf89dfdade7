"""People of whom nothing came for as long as the catalogue keeps them: they are erased, others stay, nothing stalls."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.learning.learner import Learner
from api.ledger import audit
from api.people import records
from api.people.service import PeopleService
from api.settings import Settings
from api.stores.protocol import Store
from api.stores.rest import RestCursor
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.errors import Unavailable
from tests.api.people.test_erasure import others, rebuilt, sums
from tests.api.people.test_planted import SHOP, STORED, found, plant, raw
from tests.waiting import PATIENCE, eventually

DAY = 86_400
KEPT = 'retention = "30d"\n'

Serve = Callable[..., AbstractContextManager[Any]]


class Lent:
    """A store that outlives the service which was given it."""

    def __init__(self, store: Store):
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return (lambda: None) if name == "close" else getattr(self._store, name)


@pytest.fixture
def serve(tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """serve(store, text=): a service that looks for people at rest all the time, by a clock that the test moves."""
    monkeypatch.setattr("api.people.service._EVERY", 0.02)

    @contextmanager
    def running(store: Any, text: str = KEPT) -> Iterator[Any]:
        app = tmp_path / "kept.toml"
        app.write_text(text + SHOP.read_text(encoding="utf-8"), encoding="utf-8")
        settings = Settings(app=str(app), dev=True, salt="pepper")
        with TestClient(create_app(settings, clock=clock, store=Lent(store))) as client:
            yield client

    return running


def ask(client: Any, user: str, stage: str = "look") -> str:
    reply = client.post("/v1/decisions", json={"stage": stage, "user_id": user, "context": {}})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["decision_id"])


def send(client: Any, user: str, **more: Any) -> None:
    event = {"event_id": str(uuid.uuid4()), "event": "Product Added", "user_id": user, **more}
    reply = client.post("/v1/events", json={"events": [event]})
    assert reply.status_code == 200, reply.text


def ids(store: Store, user: str) -> frozenset[bytes]:
    return records.ids_of(store, engine.user_hash(audit.salt_of(store, "pepper"), user))


def known(store: Store, *users: str) -> list[str]:
    """Those of whom the ledger holds anything."""
    return [user for user in users if records.known(store, ids(store, user))]


def metric(client: Any, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"journey_bandit_{name} ")).split()[-1])


def test_who_is_at_rest_goes_and_who_came_back_stays_whole(
    store: Store, serve: Serve, later: Callable[[float], int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "journey_bandit.people")
    everybody = "ann", "bob", "cem", "dot", "eve"
    with serve(store) as client:
        for user in everybody[:4]:
            ask(client, user)
            ask(client, user, "basket")
        send(client, "ann", anonymous_id="a browser")
        send(client, "dot", anonymous_id="her browser")
        send(client, "eve")  # nothing was ever decided
        later(20 * DAY)
        ask(client, "bob")
        send(client, "cem")
        ask(client, "her browser")
        later(9 * DAY)  # all of it is learned, and nobody is at rest yet
        client.get("/v1/policies", params={"wait": True})
        stages = audit.stages(store)
        before = sums(store, stages)
        gone = ids(store, "ann") | ids(store, "eve")
        assert len(gone) == 3
        rows = {f.seq: f for f in store.decisions()}
        events = {user: store.events(ids(store, user)) for user in everybody}
        assert known(store, *everybody) == [*everybody]
        later(DAY + 1)
        assert eventually(lambda: known(store, *everybody) == ["bob", "cem", "dot"])
        assert eventually(lambda: not store.erasures_under_way())
        for user in ("bob", "cem", "dot"):
            assert store.events(ids(store, user)) == events[user]
        for one in store.decisions():
            assert one.decision.is_remainder is (rows[one.seq].decision.user in gone)
            assert one.decision.is_remainder or one.decision.id == rows[one.seq].decision.id
            assert one.settlement == rows[one.seq].settlement
        assert sums(store, stages) == before
        entries = store.erasures()
        assert (sum(one.done for one in entries), sum(one.ids for one in entries)) == (2, 3)
        assert not [one for one in gone if one in b"".join(msgspec.msgpack.encode(entry) for entry in entries)]
        assert metric(client, "people_erased_at_rest_total") == 2
        later(20 * DAY)
        assert eventually(lambda: known(store, *everybody) == [])
        assert eventually(lambda: not store.erasures_under_way())
        assert sums(store, stages) == before
    assert rebuilt(store)
    said = [one.getMessage() for one in caplog.records if "retention" in one.getMessage()]
    assert said
    assert not [line for line in said for user in gone if user.hex() in line]


def test_without_a_retention_nobody_is_erased_and_with_one_only_from_then_on(
    store: Store, serve: Serve, later: Callable[[float], int]
) -> None:
    with serve(store, "") as client:
        ask(client, "ann")
        later(4000 * DAY)
        client.get("/v1/policies", params={"wait": True})
        digests = {one.decision.stage_digest for one in store.decisions()}
        kept = others(store, b"")
    assert known(store, "ann") == ["ann"]
    assert others(store, b"") == kept
    with serve(store) as client:
        assert eventually(lambda: known(store, "ann") == [])
        ask(client, "bob")
        assert {one.decision.stage_digest for one in store.decisions()} == digests  # no new declaration
    assert len(store.declarations().eras) == 1


def test_what_was_open_when_the_service_was_stopped_is_learned_first(
    store: Store, serve: Serve, later: Callable[[float], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, read, learn = list[int](), type(store).at_rest, Learner.step

    def at_rest(self: Any, *args: Any) -> Any:
        looked.append(1)
        return read(self, *args)

    def step(self: Learner, *args: Any, **more: Any) -> int:
        return learn(self, *args, **more) if len(looked) > 3 else 0  # later than the walk

    with serve(store) as client:
        for n in range(40):
            ask(client, f"u-{n}", "basket")
    assert store.counts().pending == 40
    later(4000 * DAY)
    looked.clear()
    monkeypatch.setattr(type(store), "at_rest", at_rest)
    monkeypatch.setattr(Learner, "step", step)
    with serve(store):
        assert eventually(lambda: known(store, *(f"u-{n}" for n in range(40))) == [])
    assert {one.settlement.why for one in store.decisions() if one.settlement} == {"silence"}
    assert all(one.settlement for one in store.decisions())
    assert rebuilt(store)


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def resting(ledger_file: Path, serve: Serve, later: Callable[[float], int]) -> list[str]:
    """A ledger of 24 people with three decisions each, all of them at rest, before any of them is erased."""
    people = [f"u-{n}" for n in range(24)]
    with closing(SqliteStore(ledger_file)) as store, serve(store) as client:
        for stage in ("look", "basket", "later"):
            for user in people:
                ask(client, user, stage)
        later(20 * DAY)
        client.get("/v1/policies", params={"wait": True})
    later(11 * DAY)
    return people


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_one_that_was_cut_off_between_two_steps_goes_on(
    ledger_file: Path, resting: list[str], serve: Serve, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.ledger.erasure.AT_ONCE", 4)
    real, calls = SqliteStore.erase_decisions, []

    def cut(self: SqliteStore, *args: Any) -> bool:
        calls.append(1)
        if len(calls) > step:
            raise Unavailable("the process ends here")
        return real(self, *args)

    monkeypatch.setattr(SqliteStore, "erase_decisions", cut)
    with closing(SqliteStore(ledger_file)) as store:
        before = sums(store, audit.stages(store))
        with serve(store):
            assert eventually(lambda: len(calls) > step)
        assert len(known(store, *resting)) > 0
        assert store.erasures_under_way()
        assert rebuilt(store)
    monkeypatch.setattr(SqliteStore, "erase_decisions", real)
    with closing(SqliteStore(ledger_file)) as store:
        with serve(store):
            assert eventually(lambda: known(store, *resting) == [])
            assert eventually(lambda: not store.erasures_under_way())
        assert sum(one.decisions for one in store.erasures()) == 3 * len(resting)
        assert sums(store, audit.stages(store)) == before
        assert rebuilt(store)


def test_an_erasure_that_is_asked_for_comes_first_and_decisions_are_answered(
    ledger_file: Path, resting: list[str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.ledger.erasure.AT_ONCE", 1)
    real, begun, asked = SqliteStore.erase_decisions, threading.Event(), threading.Event()
    steps, services = list[frozenset[bytes]](), list[PeopleService]()
    step = PeopleService._erase

    async def erase(self: PeopleService) -> bool:
        services.append(self)
        return await step(self)

    def erase_decisions(self: SqliteStore, erasures: Any, *args: Any) -> bool:
        begun.set()
        assert asked.wait(PATIENCE)
        steps.append(frozenset().union(*(one.users for one in erasures)))
        return real(self, erasures, *args)

    monkeypatch.setattr(PeopleService, "_erase", erase)
    monkeypatch.setattr(SqliteStore, "erase_decisions", erase_decisions)
    with closing(SqliteStore(ledger_file)) as store:
        hers = ids(store, "u-23")  # the last of all
        with serve(store) as client, ThreadPoolExecutor(1) as callers:
            assert begun.wait(PATIENCE)
            reply = callers.submit(client.delete, "/v1/users/u-23")
            assert eventually(lambda: services[-1]._asked)
            asked.set()
            made = []
            while store.erasures_under_way():
                made.append(ask(client, "somebody new"))
            assert reply.result().json()["decisions"] == 3
            assert steps[1:4] == [hers] * 3  # the first had begun
            assert eventually(lambda: known(store, *resting) == [])
        assert made
        stay = store.decisions_by_id([uuid.UUID(one) for one in made])
        assert len(stay) == len(made)
        assert not any(one.decision.is_remainder for one in stay.values())


def test_who_comes_back_while_the_page_is_read_is_not_erased(
    ledger_file: Path, resting: list[str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, read, back = SqliteStore.at_rest, threading.Event(), threading.Event()

    def at_rest(self: SqliteStore, *args: Any) -> Any:
        page = real(self, *args)
        read.set()
        assert back.wait(PATIENCE)
        return page

    monkeypatch.setattr(SqliteStore, "at_rest", at_rest)
    with closing(SqliteStore(ledger_file)) as store:
        with serve(store) as client:
            assert read.wait(PATIENCE)
            ask(client, "u-0")
            send(client, "u-1")
            send(client, "u-2", anonymous_id="somebody who joined")
            back.set()
            assert eventually(lambda: known(store, *resting) == ["u-0", "u-1", "u-2"])
        mine = store.erasable(ids(store, "u-0"), 9)
        assert len(mine) == 4
        assert not any(one.decision.is_remainder for one in mine)
        assert len(ids(store, "u-2")) == 2


def test_a_walk_keeps_its_place_in_the_ledger(ledger_file: Path, resting: list[str], serve: Serve) -> None:
    with closing(SqliteStore(ledger_file)) as store:
        with serve(store):
            assert eventually(lambda: known(store, *resting) == [])
            assert eventually(lambda: store.meta().get("retention") == "[72,0]")
        page = store.at_rest(RestCursor(), 2**62, 99, [])
        assert (page.people, page.rows, page.through.decision) == ([], 72, 72)  # remainders are passed over


def test_nothing_of_a_person_at_rest_is_in_file_or_log(
    ledger_file: Path, serve: Serve, later: Callable[[float], int], tmp_path: Path
) -> None:
    with closing(SqliteStore(ledger_file)) as store, serve(store) as client:
        gone = plant(client, "ann")
        hashes = [mark for user in plant_ids(client, gone.user) for mark in (bytes.fromhex(user), user.encode())]
        later(20 * DAY)
        stays = plant(client, "bob")
        client.get("/v1/policies", params={"wait": True})
        assert found(gone, raw(tmp_path)) == found(stays, raw(tmp_path)) == STORED
        assert [mark for mark in hashes if mark in raw(tmp_path)]
        later(10 * DAY + 1)
        assert eventually(lambda: found(gone, raw(tmp_path)) == set())
        assert eventually(lambda: [mark for mark in hashes if mark in raw(tmp_path)] == [])
        assert found(stays, raw(tmp_path)) == STORED


def plant_ids(client: Any, user: str) -> list[str]:
    told: list[str] = client.get(f"/v1/users/{user}/export").json()["ids"]
    assert len(told) == 3
    return told
