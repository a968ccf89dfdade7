"""Erasures that wait at the same time: they share commits and passes over the file, and none stands in for another."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.ledger import audit
from api.people import records
from api.settings import Settings
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.errors import Unavailable
from tests.waiting import PATIENCE

PEOPLE = 24
SHOP = Path(__file__).parents[2] / "journey_shop.toml"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    """A service that has decided twice for each of 24 people; each has an event that joins two ids."""
    settings = Settings(app=str(SHOP), store=f"sqlite:///{tmp_path / 'ledger.db'}", dev=True, salt="pepper")
    with TestClient(create_app(settings)) as client:
        asked = [
            {"stage": "look", "user_id": f"u-{n}", "decision_id": str(uuid.UUID(int=1 + 2 * n + i)), "context": {}}
            for n in range(PEOPLE)
            for i in range(2)
        ]
        assert client.post("/v1/decisions/batch", json={"decisions": asked}).status_code == 200
        events = [
            {"event_id": f"e-{n}", "event": "Product Added", "user_id": f"u-{n}", "anonymous_id": f"b-{n}"}
            for n in range(PEOPLE)
        ]
        assert client.post("/v1/events", json={"events": events}).status_code == 200
        yield client


def erase_all(service: Any) -> list[Any]:
    """Erase all but the last two people, every third forgetting; the answers in order."""

    def erase(n: int) -> Any:
        return service.delete(f"/v1/users/u-{n}", params={"forget": n % 3 == 0})

    with ThreadPoolExecutor(PEOPLE) as callers:
        return list(callers.map(erase, range(PEOPLE - 2)))


def known(path: Path) -> set[int]:
    """Numbers of the people of whom the ledger holds anything."""
    with closing(SqliteStore(path, read_only=True)) as store:
        salt = audit.salt_of(store, "pepper")
        of = {n: records.ids_of(store, engine.user_hash(salt, f"u-{n}")) for n in range(PEOPLE)}
        assert all(one.equal for one in audit.rebuild(store, audit.stages(store)))
        assert list(store.damages()) == []
        return {n for n, ids in of.items() if records.known(store, ids)}


def test_they_share_commits_and_passes_and_each_is_told_its_own(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, commits, real = list[int](), list[int](), SqliteStore.overwrite_erased

    def overwrite(self: SqliteStore, first: int, most: int) -> int:
        passes.append(first)
        return real(self, first, most)

    def erase_decisions(self: SqliteStore, *args: Any) -> bool:
        commits.append(1)
        return decisions(self, *args)

    decisions = SqliteStore.erase_decisions
    monkeypatch.setattr(SqliteStore, "overwrite_erased", overwrite)
    monkeypatch.setattr(SqliteStore, "erase_decisions", erase_decisions)
    told = [reply.json() for reply in erase_all(service)]
    for n, one in enumerate(told):
        assert (one["found"], one["forgot"], one["overwritten"]) == (True, n % 3 == 0, True)
        assert (one["decisions"], one["events"], one["ids"]) == (2, 1, 2)
    assert passes.count(1) < PEOPLE / 2
    assert len(commits) < PEOPLE / 2
    assert known(tmp_path / "ledger.db") == {PEOPLE - 2, PEOPLE - 1}


def test_one_that_fails_is_told_so_and_the_others_end(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, bad = SqliteStore.erase_decisions, service.get("/v1/users/u-5/export").json()["ids"][0]

    def fails(self: SqliteStore, erasures: Any, now: int, erased: Any, *rest: Any) -> bool:
        if any(bytes.fromhex(bad) in one.users for one in erasures):
            raise Unavailable("not this one")
        return real(self, erasures, now, erased, *rest)

    monkeypatch.setattr(SqliteStore, "erase_decisions", fails)
    replies = erase_all(service)
    assert {n for n, reply in enumerate(replies) if reply.status_code != 200} == {5}
    assert replies[5].status_code == 503
    assert all(reply.json()["decisions"] == 2 for n, reply in enumerate(replies) if n != 5)
    assert known(tmp_path / "ledger.db") == {5, PEOPLE - 2, PEOPLE - 1}
    monkeypatch.setattr(SqliteStore, "erase_decisions", real)
    assert service.delete("/v1/users/u-5").json()["decisions"] == 2
    assert known(tmp_path / "ledger.db") == {PEOPLE - 2, PEOPLE - 1}


def test_one_person_who_is_asked_for_twice_at_once_is_erased_once(service: Any, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as callers:
        replies = list(callers.map(lambda name: service.delete(f"/v1/users/{name}"), ("u-1", "b-1", "u-1", "b-1")))
    assert all(reply.status_code == 200 for reply in replies)
    assert max(reply.json()["decisions"] for reply in replies) == 2
    assert all(reply.json()["overwritten"] for reply in replies)
    with closing(SqliteStore(tmp_path / "ledger.db", read_only=True)) as store:
        assert sum(one.decisions for one in store.erasures()) == 2
        assert store.erasures_under_way() == []


def test_who_asks_again_before_the_bytes_are_gone_waits_for_them(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, held, seen = SqliteStore.overwrite_erased, threading.Event(), threading.Event()

    def overwrite(self: SqliteStore, first: int, most: int) -> int:
        seen.set()
        return real(self, first, most) if held.is_set() else first

    monkeypatch.setattr(SqliteStore, "overwrite_erased", overwrite)
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(service.delete, "/v1/users/u-1")
        assert seen.wait(PATIENCE)
        assert 1 not in known(tmp_path / "ledger.db")
        again = callers.submit(service.delete, "/v1/users/b-1")
        with pytest.raises(TimeoutError):
            again.result(0.5)
        held.set()
        assert first.result().json() == again.result().json()
    assert first.result().json()["overwritten"]
