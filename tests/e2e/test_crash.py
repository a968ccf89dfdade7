"""kill -9 under load, at random moments: what was acknowledged is never lost, and nothing is applied twice.

Clients ask and report with ids of their own, and repeat whatever was not answered with 200, as every client should. The
attribution windows are compressed to a few seconds, so the learner settles and publishes all the while.
"""

import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from api.ledger import audit
from api.stores import open_store
from tests.faults.service_process import ServiceProcess
from tests.waiting import PATIENCE, eventually

WINDOW_SCALE = "4e-6"  # 72 h in 1.04 s
CLIENTS = 4


class Client(threading.Thread):
    """Asks, reports, and repeats everything until it is answered with 200. Remembers what was answered."""

    def __init__(self, url: str, number: int, done: threading.Event):
        super().__init__(daemon=True)
        self._url, self._done = url, done
        self._random = random.Random(number)
        self.arms: dict[str, str] = {}  # decision → the arm that was answered
        self.rewards: set[str] = set()  # decisions whose reward was acknowledged
        self.repeated = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=5) as http:
            while not self._done.is_set():
                decision = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
                price = self._random.uniform(20, 3000)
                ask = {"stage": "cart", "user_id": decision[:8], "decision_id": decision, "context": {"price": price}}
                self.arms[decision] = self._insist(http, "/v1/decisions", ask)["nudge"]["id"]
                if self._random.random() < 0.6:
                    self._insist(http, "/v1/outcomes", {"decision_id": decision, "kind": "reward", "value": 1})
                    self.rewards.add(decision)
                if self._random.random() < 0.2:  # an impatient client: the same again, although it was answered
                    again = self._insist(http, "/v1/decisions", ask)
                    if again["nudge"]["id"] != self.arms[decision] or not again["duplicate"]:
                        self.wrong.append(f"{decision} was answered differently: {again}")

    def _insist(self, http: httpx.Client, path: str, body: Mapping[str, object]) -> dict[str, dict[str, str]]:
        while True:
            try:
                response = http.post(path, json=body)
            except httpx.TransportError:
                self.repeated += 1
                time.sleep(0.02)
                continue
            if response.status_code == 200:
                answer: dict[str, dict[str, str]] = response.json()
                return answer
            if response.status_code != 503:
                raise AssertionError(f"{response.status_code} {response.text}")
            self.repeated += 1


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[ServiceProcess]:
    running = ServiceProcess(tmp_path, free_port, ["--app", "travel", "--window-scale", WINDOW_SCALE])
    running.start()
    yield running
    running.end()


def more_load(clients: list[Client], count: int) -> None:
    """Return when so many more decisions were answered: moments of load, not of a clock."""
    enough = sum(len(client.arms) for client in clients) + count
    assert eventually(lambda: sum(len(client.arms) for client in clients) >= enough, 0.001)


def crash_and_compare(server: ServiceProcess, folder: Path, kills: int, seed: int) -> None:
    moments, done = random.Random(seed), threading.Event()
    clients = [Client(server.url, seed * 100 + i, done) for i in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in range(kills):
        more_load(clients, moments.randint(1, 200))
        server.kill()
        server.start()
    more_load(clients, 100)
    done.set()
    for client in clients:
        client.join(PATIENCE)
        assert not client.is_alive()
    assert server.stop() == 0, server.log.read_text()

    arms = {k: v for client in clients for k, v in client.arms.items()}
    rewards = {k for client in clients for k in client.rewards}
    assert len(arms) > 100, "too little load to prove anything"
    assert len(rewards) > 50
    assert sum(client.repeated for client in clients) >= kills, "no request was ever interrupted"
    assert [w for client in clients for w in client.wrong] == []
    check_ledger(folder / "ledger.db", arms, rewards)


def check_ledger(path: Path, arms: dict[str, str], rewards: set[str]) -> None:
    """Acknowledged and lost: 0. Applied twice: 0. Belief equal to the ledger's sum, bit for bit."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = {str(uuid.UUID(bytes=i)): arm for i, arm in conn.execute("SELECT id, arm FROM decisions")}
        reported = [str(uuid.UUID(bytes=i)) for (i,) in conn.execute("SELECT decision FROM outcomes")]
        settled = [seq for (seq,) in conn.execute("SELECT decision_seq FROM settlements")]
        learned = conn.execute("SELECT count(*) FROM settlements WHERE learned = 1").fetchone()[0]
        pending = conn.execute("SELECT count(*) FROM pending").fetchone()[0]
        sums = [n for (n,) in conn.execute("SELECT count FROM statistics WHERE stage = 'cart'")]
    assert {k: rows.get(k) for k in arms} == arms, "an acknowledged decision is lost, or differs"
    assert rewards <= set(reported), "an acknowledged outcome is lost"
    assert len(reported) == len(set(reported)), "an outcome was applied twice"
    assert len(settled) == len(set(settled)), "a decision was settled twice"
    assert len(settled) + pending == len(rows)
    assert len(settled) > 50, "nothing was learned under load"
    assert sum(sums) == learned
    store = open_store(f"sqlite:///{path}", read_only=True)
    assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
    store.close()


def test_five_crashes_lose_and_double_nothing(server: ServiceProcess, tmp_path: Path) -> None:
    crash_and_compare(server, tmp_path, kills=5, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_twenty_crashes_lose_and_double_nothing(server: ServiceProcess, tmp_path: Path, seed: int) -> None:
    crash_and_compare(server, tmp_path, kills=20, seed=seed)
