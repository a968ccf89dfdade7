"""Watch over a ledger's file: what is damaged is said, and the service is not ready."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from api.ledger.watch import EVERY, MOST_LOG, LedgerWatch
from api.metrics import Metrics
from api.stores.memory.store import MemoryStore
from api.stores.sqlite.store import SqliteStore
from bandit.errors import Unavailable
from tests.api.stores.page_damage import overwrite_page
from tests.waiting import eventually

Working = Callable[..., AbstractContextManager[Any]]
Serving = Callable[..., AbstractContextManager[Any]]


class Damaged(MemoryStore):
    """A store whose checks find these, one after another; and whose log is so long."""

    def __init__(self, *found: list[str] | Exception) -> None:
        super().__init__()
        self.found: Iterator[list[str] | Exception] = iter(found)
        self.size, self.asked = 0, 0

    def quick_damages(self, over: Callable[[], bool] = lambda: False) -> list[str]:
        assert not over()
        self.asked += 1
        found = next(self.found)
        if isinstance(found, Exception):
            raise found
        return found

    def log_bytes(self) -> int:
        return self.size


def test_the_ledger_is_looked_at_at_the_start_and_once_a_day_and_health_says_what_is_wrong() -> None:
    store, metrics, pauses = Damaged([], ["page 7"], Unavailable("gone"), []), Metrics(), list[float]()
    seen = list[dict[str, str]]()

    async def live() -> None:
        over = asyncio.Event()

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            seen.append(watch.failing)
            if store.asked == 4:
                over.set()
                await asyncio.Event().wait()

        watch = LedgerWatch(store, metrics, pause)
        async with watch.running():
            await over.wait()

    asyncio.run(live())
    assert pauses == [EVERY] * 4
    fix = " → stop the service and restore a backup"
    assert seen == [{}, {"ledger": f"page 7{fix}"}, {"ledger": f"gone{fix}"}, {}]
    assert b"journey_bandit_ledger_damages 0.0" in metrics.render()


def test_a_log_that_is_not_emptied_is_said() -> None:
    store, metrics = Damaged(), Metrics()
    watch = LedgerWatch(store, metrics)
    store.size = MOST_LOG
    assert watch.failing == {}
    store.size = MOST_LOG + 1
    assert watch.failing["wal"].startswith("the write-ahead log is 160 MB long: something reads the ledger for long")
    assert f"journey_bandit_ledger_log_bytes {MOST_LOG + 1:.6e}".split("e+")[0] in metrics.render().decode()


@pytest.fixture
def path(working: Working, tmp_path: Path) -> Path:
    """A closed ledger with 60 decisions."""
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        for n in range(1, 61):
            desk.ask(n, user=f"u{n}")
    return path


def test_a_service_on_a_damaged_file_is_not_ready_and_says_why(path: Path, serving: Serving) -> None:
    overwrite_page(path, "uncredited")
    with closing(SqliteStore(path, read_only=True)) as store:
        assert store.quick_damages()
        assert store.quick_damages(lambda: True) == []
    with serving(SqliteStore(path)) as client:
        reply = eventually(lambda: found if (found := client.get("/health/ready")).status_code == 503 else None)
        assert reply
        assert reply.json()["status"] == "failing"
        assert "restore a backup" in reply.json()["failing"]["ledger"]


def test_what_cannot_be_read_is_answered_503(path: Path, serving: Serving) -> None:
    overwrite_page(path, "sqlite_autoindex_decisions_1")
    with serving(SqliteStore(path)) as client:
        reply = client.get(f"/v1/decisions/{uuid.UUID(int=1)}")
        assert reply.status_code == 503
        assert "the ledger could not be read" in reply.json()["detail"]
