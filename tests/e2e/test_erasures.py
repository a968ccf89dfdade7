"""Erasures while a service is under load, and across its end by SIGKILL: others lose nothing.

    python -m pytest tests/e2e/test_erasures.py -m slow -s

erases 1,000 people in each way, and prints how long that took; the short form erases 60.
"""

import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
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
from journey_bandit.testing.store_builders import ContractLedger
from tests.waiting import PATIENCE, eventually

AT_ONCE = 16  # erasures that wait at the same time
STAY = 50  # people of before who stay
RECEIPTS = 60  # of all decisions, that are computed again
CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}


class Traffic(threading.Thread):
    """Client that asks and reports for others, and keeps what was acknowledged."""

    def __init__(self, url: str, name: str):
        super().__init__(daemon=True)
        self._url, self._name = url, name
        self.over = threading.Event()
        self.decided: dict[str, str] = {}  # arms by id
        self.reported: set[str] = set()
        self.slow: list[float] = []

    def run(self) -> None:
        """Ask, report, until it is over."""
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as http:
            while not self.over.is_set():
                made = str(uuid.uuid4())
                body = {"stage": "cart", "user_id": f"{self._name}-{len(self.decided) % 50}", "context": CONTEXT}
                start = time.perf_counter()
                try:
                    reply = http.post("/v1/decisions", json={**body, "decision_id": made})
                    if reply.status_code == 200:
                        self.slow.append(time.perf_counter() - start)
                        self.decided[made] = reply.json()["nudge"]["id"]
                        told = http.post("/v1/outcomes", json={"decision_id": made, "kind": "reward", "value": 1})
                        if told.status_code == 200:
                            self.reported.add(made)
                except httpx.TransportError:
                    self.over.wait(0.1)


def populate(url: str, people: int, name: str = "gone") -> None:
    """People with three decisions each, of which two report, and an event that joins two ids."""
    with httpx.Client(base_url=url, timeout=PATIENCE) as http:
        for start in range(0, people, 100):
            asked = [
                {"stage": "cart", "user_id": f"{name}-{n}", "context": CONTEXT, "decision_id": str(uuid.uuid4())}
                for n in range(start, min(start + 100, people))
                for _ in range(3)
            ]
            assert http.post("/v1/decisions/batch", json={"decisions": asked}).status_code == 200
            told = [{"decision_id": one["decision_id"], "kind": "reward", "value": 1} for one in asked[::2]]
            assert http.post("/v1/outcomes/batch", json={"outcomes": told}).status_code == 200
            events = [
                {
                    "event_id": f"{name}-joins-{n}",
                    "event": "Products Searched",
                    "user_id": f"{name}-{n}",
                    "anonymous_id": f"{name}-browser-{n}",
                    "properties": {"route": f"route-of-{name}-{n}"},
                }
                for n in range(start, min(start + 100, people))
            ]
            assert http.post("/v1/events", json={"events": events}).status_code == 200


def options(path: Path, port: int) -> list[str]:
    settings = {"--app": "travel", "--store": f"sqlite:///{path}", "--salt": "pepper", "--port": str(port)}
    return ["--dev", "--window-scale", "0.00001", *(word for pair in settings.items() for word in pair)]


def rows_of(path: Path, people: int, name: str) -> list[Any]:
    """All that the ledger holds of these people's decisions and events, as values that are equal only bit for bit."""
    with closing(SqliteStore(path, read_only=True)) as store:
        salt = audit.salt_of(store, "pepper")
        ids = [store.person(engine.user_hash(salt, f"{name}-{n}"), 0).ids for n in range(people)]
        assert all(len(joined) == 2 for joined in ids)
        rows = [found for joined in ids for found in store.erasable(joined, 9)]
        assert len(rows) == 3 * people
        decided = [(one.seq, ContractLedger.bits(one.decision), one.outcomes) for one in rows]
        return [decided, [store.events(joined) for joined in ids]]


def check(path: Path, people: int, traffic: list[Traffic]) -> None:
    """Nobody who was erased is known, everybody else's rows are there, and what was learned follows from the rows."""
    with closing(SqliteStore(path)) as store:
        salt = audit.salt_of(store, "pepper")
        assert store.erasures_under_way() == []
        for n in range(people):
            for name in (f"gone-{n}", f"gone-browser-{n}"):
                assert not records.known(store, records.ids_of(store, engine.user_hash(salt, name)))
        for one in traffic:
            ids = [uuid.UUID(i) for i in one.decided]
            found = store.decisions_by_id(ids)
            assert len(found) == len(ids)
            assert all(found[uuid.UUID(i)].outcomes for i in one.reported)
            assert all(found[uuid.UUID(i)].decision.arm == arm for i, arm in one.decided.items())
        check_receipts(store, salt)
        assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
        assert list(store.damages()) == []
        page = 1
        while page:
            page = store.overwrite_erased(page, 2048)
    raw = path.read_bytes()
    marks = [[f"{word}-{n}".encode() for word in ("route-of-gone", "gone-joins")] for n in range(people)]
    assert [n for n, mine in enumerate(marks) if any(mark in raw for mark in mine)] == []


def check_receipts(store: SqliteStore, salt: bytes) -> None:
    """Receipts of other people, from the whole ledger, hold: those that rest on what is forgotten as far as they can
    be computed again.
    """
    others, specs = [one for one in store.decisions() if not one.decision.is_remainder], store.specs()
    for found in others[:: 1 + len(others) // RECEIPTS]:
        if different := audit.differences(store, found, salt):
            assert audit.rests_on_forgotten(store, found)
            assert audit.drawn_as_recorded(found.decision, specs, different)


@pytest.mark.parametrize("forget", [False, True])
def test_sixty_erasures_under_load_take_nothing_from_others(tmp_path: Path, free_port: int, forget: bool) -> None:
    erase_under_load(tmp_path, free_port, 60, forget=forget)


@pytest.mark.slow
@pytest.mark.parametrize("forget", [False, True])
def test_a_thousand_erasures_under_load_take_nothing_from_others(tmp_path: Path, free_port: int, forget: bool) -> None:
    erase_under_load(tmp_path, free_port, 1000, forget=forget)


def erase_under_load(folder: Path, port: int, many: int, *, forget: bool) -> None:
    """Erase so many people while three clients decide and report, then check everybody else, and say how it went."""
    path, url = folder / "ledger.db", f"http://127.0.0.1:{port}"
    with processes.stopping(processes.serve(*options(path, port), log=folder / "log")) as server:
        processes.wait(server, f"{url}/health/ready", folder / "log")
        populate(url, STAY, "kept")
        populate(url, many)
        before = rows_of(path, STAY, "kept")
        traffic = [Traffic(url, f"stays-{i}") for i in range(3)]
        for one in traffic:
            one.start()
        assert eventually(lambda: sum(len(one.slow) for one in traffic) >= 100, 0.1)
        alone = measured(traffic)
        start = time.perf_counter()
        with httpx.Client(base_url=url, timeout=PATIENCE) as http, ThreadPoolExecutor(AT_ONCE) as callers:

            def erase(n: int) -> dict[str, Any]:
                reply = http.delete(f"/v1/users/gone-{n}", params={"forget": forget})
                assert reply.status_code == 200, reply.text
                told: dict[str, Any] = reply.json()
                return told

            told = list(callers.map(erase, range(many)))
        took = time.perf_counter() - start
        beside = measured(traffic)
        assert {(one["found"], one["decisions"], one["events"], one["ids"]) for one in told} == {(True, 3, 1, 2)}
        assert all(one["overwritten"] for one in told)
        for one in traffic:
            one.over.set()
            one.join(PATIENCE)
            assert not one.is_alive()
    check(path, many, traffic)
    assert rows_of(path, STAY, "kept") == before
    print(
        f"{many} erasures in {took:.1f} s ({took / many:.3f} s each)", f"before: {alone}", f"beside: {beside}", sep="; "
    )


def measured(traffic: list[Traffic]) -> str:
    """How long decisions took since the last time."""
    slow = list[float]()
    for one in traffic:
        taken, one.slow = one.slow, []
        slow += taken
    slow.sort()
    assert len(slow) > 5
    p50, p99 = (1000 * slow[int(q * (len(slow) - 1))] for q in (0.5, 0.99))
    return f"{len(slow)} decisions, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {1000 * slow[-1]:.1f} ms"


@pytest.mark.parametrize("forget", [False, True])
def test_an_erasure_that_a_kill_cuts_off_is_finished_by_the_next_start(
    tmp_path: Path, free_port: int, forget: bool
) -> None:
    """One person with 400 decisions: twenty steps, and the kill comes within them."""
    path, url = tmp_path / "ledger.db", f"http://127.0.0.1:{free_port}"
    server = processes.serve(*options(path, free_port), log=tmp_path / "log")
    processes.wait(server, f"{url}/health/ready", tmp_path / "log")
    asked = [{"stage": "cart", "user_id": "gone-0", "context": CONTEXT} for _ in range(400)]
    assert httpx.post(f"{url}/v1/decisions/batch", json={"decisions": asked}, timeout=PATIENCE).status_code == 200
    caller = threading.Thread(
        target=_ask_once, args=(f"{url}/v1/users/gone-0?forget={str(forget).lower()}",), daemon=True
    )
    caller.start()
    assert eventually(lambda: seen(path)[1])
    server.kill()
    server.wait()
    under_way, erased = seen(path)
    assert under_way
    assert 0 < erased < 400
    with processes.stopping(processes.serve(*options(path, free_port), log=tmp_path / "log")) as server:
        processes.wait(server, f"{url}/health/ready", tmp_path / "log")
        assert eventually(lambda: not seen(path)[0], 0.1)
        assert seen(path) == (0, 400)
        reply = httpx.delete(f"{url}/v1/users/gone-0", params={"forget": forget}, timeout=PATIENCE)
        assert not reply.json()["found"]
    check(path, 1, [])


def seen(path: Path) -> tuple[int, int]:
    """How many erasures are under way, and how many decisions are erased."""
    with closing(SqliteStore(path, read_only=True)) as store:
        return len(store.erasures_under_way()), sum(one.decisions for one in store.erasures())


def _ask_once(url: str) -> None:
    try:
        httpx.delete(url, timeout=PATIENCE)
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
                timeout=PATIENCE,
                check=False,
            )

        refused = run("erase", "gone-0", "--store", f"sqlite:///{path}", "--salt", "pepper")
        assert refused.returncode == 1
        assert "give --url and --key instead of --store" in refused.stderr
        told = run("export-user", "gone-0", "--store", f"sqlite:///{path}", "--salt", "pepper")
        assert told.stdout.count("decision_id") >= 3, told.stderr
        assert "gone-joins-0" in told.stdout
        done: Any = run("erase", "gone-browser-0", "--forget", "--url", url)
        assert "erased: 3 decisions" in done.stdout, done.stderr
        assert "nothing is known" in run("erase", "gone-0", "--url", url).stdout
    done = run("erase", "gone-1", "--store", f"sqlite:///{path}", "--salt", "pepper")
    assert "erased: 3 decisions" in done.stdout, done.stderr
    check(path, 2, [])
