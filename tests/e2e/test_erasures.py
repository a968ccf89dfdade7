"""Erasures while a service is under load, and across its end by SIGKILL: others lose nothing.

    ERASURES=1000 python -m pytest tests/e2e/test_erasures.py

erases so many people; without it, 60.
"""

import os
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.ledger import audit
from api.people import records
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from journey_bandit import processes

MANY = int(os.environ.get("ERASURES", "60"))
CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}


class Traffic(threading.Thread):
    """Client that asks and reports for others, and keeps what was acknowledged."""

    def __init__(self, url: str, name: str):
        super().__init__(daemon=True)
        self._url, self._name = url, name
        self.over = threading.Event()
        self.decided: dict[str, bytes | None] = {}
        self.reported: set[str] = set()
        self.slow: list[float] = []

    def run(self) -> None:
        """Ask, report, until it is over."""
        with httpx.Client(base_url=self._url, timeout=30.0) as http:
            while not self.over.is_set():
                made = str(uuid.uuid4())
                body = {"stage": "cart", "user_id": f"{self._name}-{len(self.decided) % 50}", "context": CONTEXT}
                start = time.perf_counter()
                try:
                    reply = http.post("/v1/decisions", json={**body, "decision_id": made})
                    if reply.status_code == 200:
                        self.slow.append(time.perf_counter() - start)
                        self.decided[made] = None
                        told = http.post("/v1/outcomes", json={"decision_id": made, "kind": "reward", "value": 1})
                        if told.status_code == 200:
                            self.reported.add(made)
                except httpx.TransportError:
                    self.over.wait(0.1)


def populate(url: str, people: int) -> None:
    """People with three decisions each, of which two report, and an event that joins two ids."""
    with httpx.Client(base_url=url, timeout=60.0) as http:
        for start in range(0, people, 100):
            asked = [
                {"stage": "cart", "user_id": f"gone-{n}", "context": CONTEXT, "decision_id": str(uuid.uuid4())}
                for n in range(start, min(start + 100, people))
                for _ in range(3)
            ]
            assert http.post("/v1/decisions/batch", json={"decisions": asked}).status_code == 200
            told = [{"decision_id": one["decision_id"], "kind": "reward", "value": 1} for one in asked[::2]]
            assert http.post("/v1/outcomes/batch", json={"outcomes": told}).status_code == 200
            events = [
                {
                    "event_id": f"joins-{n}",
                    "event": "Products Searched",
                    "user_id": f"gone-{n}",
                    "anonymous_id": f"browser-{n}",
                    "properties": {"route": f"route-of-{n}"},
                }
                for n in range(start, min(start + 100, people))
            ]
            assert http.post("/v1/events", json={"events": events}).status_code == 200


def options(path: Path, port: int) -> list[str]:
    settings = {"--app": "travel", "--store": f"sqlite:///{path}", "--salt": "pepper", "--port": str(port)}
    return ["--dev", "--window-scale", "0.00001", *(word for pair in settings.items() for word in pair)]


def check(path: Path, people: int, traffic: list[Traffic]) -> None:
    """Nobody who was erased is known, everybody else's rows are there, and what was learned follows from the rows."""
    with closing(SqliteStore(path)) as store:
        salt = audit.salt_of(store, "pepper")
        assert store.erasures_under_way() == []
        for n in range(people):
            for name in (f"gone-{n}", f"browser-{n}"):
                assert not records.known(store, records.ids_of(store, engine.user_hash(salt, name)))
        for one in traffic:
            ids = [uuid.UUID(i) for i in one.decided]
            found = store.decisions_by_id(ids)
            assert len(found) == len(ids)
            assert all(found[uuid.UUID(i)].outcomes for i in one.reported)
        assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
        assert list(store.damages()) == []
        page = 1
        while page:
            page = store.overwrite_erased(page, 2048)
    raw = path.read_bytes()
    assert [n for n in range(people) if f'route-of-{n}"'.encode() in raw or f"joins-{n}\0".encode() in raw] == []


@pytest.mark.parametrize("forget", [False, True])
def test_erasures_under_load_take_nothing_from_others(tmp_path: Path, free_port: int, forget: bool) -> None:
    path, url = tmp_path / "ledger.db", f"http://127.0.0.1:{free_port}"
    with processes.stopping(processes.serve(*options(path, free_port), log=tmp_path / "log")) as server:
        processes.wait(server, f"{url}/health/ready", tmp_path / "log")
        populate(url, MANY)
        traffic = [Traffic(url, f"stays-{i}") for i in range(3)]
        for one in traffic:
            one.start()
        start = time.perf_counter()
        with httpx.Client(base_url=url, timeout=60.0) as http:
            for n in range(MANY):
                reply = http.delete(f"/v1/users/gone-{n}", params={"forget": forget})
                assert reply.status_code == 200, reply.text
                assert reply.json()["found"], n
                assert reply.json()["decisions"] == 3
                assert reply.json()["ids"] == 2
        took = time.perf_counter() - start
        for one in traffic:
            one.over.set()
            one.join(30)
    check(path, MANY, traffic)
    slow = sorted(s for one in traffic for s in one.slow)
    assert len(slow) > 50
    p50, p99 = (1000 * slow[int(q * (len(slow) - 1))] for q in (0.5, 0.99))
    beside = f"{len(slow)} decisions beside: {p50:.1f} ms, p99 {p99:.1f} ms, longest {1000 * slow[-1]:.1f} ms"
    print(f"{MANY} erasures in {took:.1f} s; {beside}")


@pytest.mark.parametrize("forget", [False, True])
def test_an_erasure_that_a_kill_cuts_off_is_finished_by_the_next_start(
    tmp_path: Path, free_port: int, forget: bool
) -> None:
    """One person with 400 decisions: twenty steps, and the kill comes within them."""
    path, url = tmp_path / "ledger.db", f"http://127.0.0.1:{free_port}"
    server = processes.serve(*options(path, free_port), log=tmp_path / "log")
    processes.wait(server, f"{url}/health/ready", tmp_path / "log")
    asked = [{"stage": "cart", "user_id": "gone-0", "context": CONTEXT} for _ in range(400)]
    assert httpx.post(f"{url}/v1/decisions/batch", json={"decisions": asked}, timeout=60).status_code == 200
    caller = threading.Thread(
        target=_ask_once, args=(f"{url}/v1/users/gone-0?forget={str(forget).lower()}",), daemon=True
    )
    caller.start()
    deadline = time.monotonic() + 60
    while not seen(path)[1] and time.monotonic() < deadline:
        time.sleep(0.01)
    server.kill()
    server.wait()
    under_way, erased = seen(path)
    assert under_way
    assert 0 < erased < 400
    with processes.stopping(processes.serve(*options(path, free_port), log=tmp_path / "log")) as server:
        processes.wait(server, f"{url}/health/ready", tmp_path / "log")
        deadline = time.monotonic() + 60
        while seen(path)[0] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert seen(path) == (0, 400)
        reply = httpx.delete(f"{url}/v1/users/gone-0", params={"forget": forget}, timeout=60)
        assert not reply.json()["found"]
    check(path, 1, [])


def seen(path: Path) -> tuple[int, int]:
    """How many erasures are under way, and how many decisions are erased."""
    with closing(SqliteStore(path, read_only=True)) as store:
        return len(store.erasures_under_way()), sum(one.decisions for one in store.erasures())


def _ask_once(url: str) -> None:
    try:
        httpx.delete(url, timeout=60)
    except httpx.TransportError:
        return  # the service was killed: that is the test


def test_a_command_on_the_ledger_of_a_running_service_says_how_to_do_it(tmp_path: Path, free_port: int) -> None:
    path, url = tmp_path / "ledger.db", f"http://127.0.0.1:{free_port}"
    with processes.stopping(processes.serve(*options(path, free_port), log=tmp_path / "log")) as server:
        processes.wait(server, f"{url}/health/ready", tmp_path / "log")
        populate(url, 2)

        def run(*words: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, "-m", "journey_bandit", *words],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        refused = run("erase", "gone-0", "--store", f"sqlite:///{path}", "--salt", "pepper")
        assert refused.returncode == 1
        assert "give --url and --key instead of --store" in refused.stderr
        told = run("export-user", "gone-0", "--store", f"sqlite:///{path}", "--salt", "pepper")
        assert told.stdout.count("decision_id") >= 3, told.stderr
        assert "joins-0" in told.stdout
        done: Any = run("erase", "browser-0", "--forget", "--url", url)
        assert "erased: 3 decisions" in done.stdout, done.stderr
        assert "nothing is known" in run("erase", "gone-0", "--url", url).stdout
    done = run("erase", "gone-1", "--store", f"sqlite:///{path}", "--salt", "pepper")
    assert "erased: 3 decisions" in done.stdout, done.stderr
    check(path, 2, [])
