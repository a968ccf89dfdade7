"""Commits of which it is not known whether they are durable, and are: what was learned, the loss account, receipts and
journeys are those of the ledger all the same.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from litestar.testing import TestClient

from api.app import create_app
from api.ledger import audit
from api.settings import Settings
from api.stores import open_store
from api.stores.sqlite.store import SqliteStore
from bandit.errors import Unavailable

APP = """
app = "shoes"
currency = "EUR"
[journey.events.viewed]
names = ["Viewed"]
stage = "till"
[stages.till]
policy = { name = "centred" }
reward = { kind = "binary", window = "1h", value = 10.0 }
[stages.till.features]
views = { type = "number", min = 0, max = 9, default = 0 }
[stages.till.derived]
views = { kind = "count", event = "viewed", within = "7d" }
[stages.till.nudges.mail]
type = "reminder"
format = "mail"
"""
HOUR = 3_600_000_000


class Clock:
    now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now


class Forgetful(SqliteStore):
    """A ledger whose disk fails once, after the rows of a transaction are on it."""

    fails = False

    @contextmanager
    def atomic(self) -> Iterator[object]:
        with super().atomic() as whole:
            yield whole
        if self.fails:
            self.fails = False
            raise Unavailable("fsync failed")


def day(client: Any, clock: Clock, rng: np.random.Generator) -> None:
    ids = [str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(120)]
    asks = [{"stage": "till", "user_id": i, "decision_id": i} for i in ids]
    while client.post("/v1/decisions/batch", json={"decisions": asks}).status_code == 503:
        pass  # a client sends the same again
    told = [{"decision_id": i, "kind": "reward"} for i in ids if rng.random() < 0.2]
    while client.post("/v1/outcomes/batch", json={"outcomes": told}).status_code == 503:
        pass
    clock.now += 13 * HOUR
    assert client.get("/v1/policies?wait=true").status_code == 200


def running(path: Path, store: Any, clock: Clock) -> TestClient[Any]:
    return TestClient(create_app(Settings(app=str(path), dev=True, salt="s"), clock=clock, store=store))


def test_an_account_counts_what_was_written_although_the_disk_failed(tmp_path: Path) -> None:
    path, file, clock, rng = tmp_path / "shoes.toml", tmp_path / "ledger.db", Clock(), np.random.default_rng(1)
    path.write_text(APP)
    store = Forgetful(file)
    with running(path, store, clock) as client:
        for n in range(6):
            store.fails = n in (2, 4)
            day(client, clock, rng)
            assert not store.fails
        (before,) = client.get("/v1/policies").json()["policies"]
    with running(path, SqliteStore(file), clock) as client:
        (after,) = client.get("/v1/policies").json()["policies"]
        assert after == before
        assert after["loss"]["budget"] > 0.0
        day(client, clock, rng)
    kept = open_store(f"sqlite:///{file}")
    try:
        assert all(one.equal for one in audit.rebuild(kept, audit.stages(kept)))
        salt = audit.salt_of(kept, "s")
        found = list(kept.decisions())
        assert len(found) == 7 * 120
        assert [audit.differences(kept, one, salt) for one in found[::41]] == [[]] * len(found[::41])
    finally:
        kept.close()


def test_a_journey_counts_what_was_written_although_the_disk_failed(tmp_path: Path) -> None:
    path, clock = tmp_path / "shoes.toml", Clock()
    path.write_text(APP)
    store = Forgetful(tmp_path / "ledger.db")
    event = {"events": [{"event_id": "e", "event": "Viewed", "user_id": "u"}]}
    with running(path, store, clock) as client:
        assert client.get("/v1/users/u/journey").json()["events"] == {}
        store.fails = True
        assert client.post("/v1/events", json=event).status_code == 503
        assert client.post("/v1/events", json=event).json()["events"][0]["event"]["duplicate"] is True
        assert client.get("/v1/users/u/journey").json()["events"]["viewed"]["count"] == 1
