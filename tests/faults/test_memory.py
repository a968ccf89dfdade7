"""What a service keeps in memory stops growing once the histories that it keeps of people are full."""

import gc
import itertools
import sys
import threading
import time
import tracemalloc
import uuid
from collections import Counter
from pathlib import Path

import msgspec
from litestar.testing import TestClient

from api.app import create_app
from api.decisions.sessions import UserSessions
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from bandit.catalogue.loading import parse
from bandit.journey import folding
from journey_bandit.testing.store_builders import START, decisions_of
from tests.faults.resources import BOUNDS
from tests.faults.steady_load import CATALOGUE, USERS, Acknowledged, SteadyClient

FULL, MORE = 450, 600  # rounds: a history is full after a hundred decisions for each of three arms
SCALE = 1e-4  # of windows: an hour in 0.36 s
LEARNS = 'policy = { name = "linear" }'


def test_memory_stops_growing_when_histories_are_full(tmp_path: Path) -> None:
    """Of one person who asks, reports and tells events without end. Counted are Python's blocks of memory, and objects
    by type, garbage collected: what is kept of each round is a block more for each, and an object if it may refer to
    others. Both are counted over two times as many rounds, because a leak grows in both, and what is loaded or filled
    once in one of them.
    """
    assert LEARNS in CATALOGUE
    app = tmp_path / "soak.toml"
    app.write_text(CATALOGUE.replace(LEARNS, 'policy = { name = "uniform" }'), encoding="utf-8")
    settings = Settings(app=str(app), store=f"sqlite:///{tmp_path / 'ledger.db'}", salt="soak", dev=True)
    settings = msgspec.structs.replace(settings, window_scale=SCALE)
    acknowledged = Acknowledged(tmp_path / "acknowledged.txt")
    blocks, types = list[int](), list[Counter[str]]()
    client = SteadyClient("", 1, 0.0, acknowledged, threading.Event(), users=1)
    with TestClient(create_app(settings)) as http:
        for many in (FULL, MORE, MORE):
            for _ in range(many):
                client._round(http)
            time.sleep(2 * 3600 * SCALE)
            http.get("/v1/policies", params={"wait": True}).raise_for_status()  # every window has ended and is settled
            client.took = client.took[:0]
            gc.collect()
            blocks.append(sys.getallocatedblocks())
            types.append(Counter(type(one).__qualname__ for one in gc.get_objects()))
    acknowledged.close()
    print(f"\nblocks of memory {blocks}, objects {[counted.total() for counted in types]}")
    assert min(blocks[1] - blocks[0], blocks[2] - blocks[1]) < MORE
    more = {name: min(types[1][name] - types[0][name], types[2][name] - types[1][name]) for name in types[2]}
    assert {name: many for name, many in more.items() if many > MORE // 4} == {}


def test_full_histories_of_the_soaks_people_are_smaller_than_its_bound() -> None:
    """Measured of a tenth of them: two nudges, a hundred exposures of each, and nothing more for what comes after."""
    catalogue = parse(CATALOGUE)
    first, arms = decisions_of(catalogue)(1, "cart"), catalogue.stages["cart"].arms
    sessions, people, number, taken = UserSessions(MemoryStore(), folding.rules(catalogue)), USERS // 10, 1, list[int]()
    tracemalloc.start()
    try:
        for _ in range(2):
            for user, _, arm in itertools.product(range(people), range(100), arms):
                number += 1
                made = msgspec.structs.replace(first, id=uuid.UUID(int=number << 64), at=START + number, arm=arm)
                made = msgspec.structs.replace(made, user=user.to_bytes(16, "big"))
                sessions.reserve(made)
                sessions.commit([made])
            gc.collect()
            taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    print(f"{people} people: {taken[0] / 1e6:.2f} MB, and after as many decisions again {taken[1] / 1e6:.2f} MB")
    assert taken[1] < 1.25 * taken[0]
    assert max(taken) * USERS / people < 1000 * BOUNDS["memory, kB"]
