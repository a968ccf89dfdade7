"""Events that bring no id, sent to a version before 0.2 and again after the upgrade: they count once."""

import datetime as dt
import gzip
import hashlib
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from api.stores.sqlite.store import SqliteStore
from bandit.records import Event
from tests.data.ledgers.make import SALT, UNNAMED, tell_unnamed

LEDGERS = Path(__file__).parents[2] / "data" / "ledgers"
DAY = 86_400


def events_of(path: Path) -> dict[int, Event]:
    """Events of a ledger that nobody serves, by number."""
    with closing(SqliteStore(path, read_only=True)) as store:
        return dict(store.events_after(0, 100))


def served(path: Path, work: Callable[[Any], None], app: Path = LEDGERS / "shop.toml") -> None:
    settings = Settings(app=str(app), store=f"sqlite:///{path}", salt=SALT, dev=True)
    with TestClient(create_app(settings)) as client:
        work(client)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Ledger in which a version before 0.2 has recorded UNNAMED, brought up to date by this one."""
    path = tmp_path / "shop.db"
    path.write_bytes(gzip.decompress((LEDGERS / "unkeyed-ids.db.gz").read_bytes()))
    served(path, lambda client: client.get("/health/ready").raise_for_status())
    return path


def test_what_an_earlier_version_recorded_is_known_again(old: Path) -> None:
    before = events_of(old)
    assert len(before) == 4
    served(old, tell_unnamed)
    assert events_of(old) == before


def test_what_is_new_counts_once_beside_it(old: Path) -> None:
    new = UNNAMED["/v1/track"][0] | {"userId": "cyd"}

    def tell(client: Any) -> None:
        for _ in range(2):
            client.post("/v1/track", json=new).raise_for_status()

    served(old, tell)
    assert len(events_of(old)) == 5


class _Watched(MemoryStore):
    """Store that remembers which ids it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = list[str]()

    def recorded_events(self, ids: Collection[str]) -> set[str]:
        self.asked += ids
        return super().recorded_events(ids)


@pytest.mark.parametrize("personal", [False, True])
def test_only_what_an_earlier_version_can_have_got_is_looked_up(
    serving: Callable[..., AbstractContextManager[Any]],
    catalogue_file: Path,
    later: Callable[[float], int],
    personal: bool,
) -> None:
    """Up to a day after this version began, as clients' clocks tell it; and under the id that the ledger keeps."""
    text = catalogue_file.read_text(encoding="utf-8")
    catalogue_file.write_text("personal_ids = true\n" + text if personal else text, encoding="utf-8")
    store = _Watched()
    with serving(store=store) as client:

        def tell(seconds: float) -> list[str]:
            at = dt.datetime.fromtimestamp(later(seconds) / 1e6, dt.UTC).isoformat()
            body = {"type": "track", "event": "Order Completed", "userId": "ann", "timestamp": at}
            store.asked.clear()
            client.post("/v1/track", json=body | {"messageId": "m"}).raise_for_status()
            assert store.asked == []
            client.post("/v1/track", json=body).raise_for_status()
            return store.asked.copy()

        (first,) = tell(0)
        (second,) = tell(DAY - 1)
        assert len(first) == len(second) == 32
        assert tell(1) == []
        body = {"type": "track", "event": "Order Completed", "userId": "ann", "messageId": "m" * 200}
        client.post("/v1/track", json=body).raise_for_status()
        unkeyed = hashlib.blake2b(b"m" * 200, digest_size=16).hexdigest()
        (asked,) = store.asked  # when it happened is not said
        assert (asked == unkeyed) != personal
