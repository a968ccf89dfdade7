"""Console: how fast its pages are on a large ledger, and what somebody who looks costs the decisions meanwhile.

    python -m benchmarks.console [--decisions 1000000] [--rate 150] [--seconds 10] [--rounds 6]

Starts a service of the travel app on a SQLite ledger of so many settled decisions: a few thousand that it made itself,
and copies of their rows with other ids, users and times (so the digests of commits do not fit them, which nothing here
reads). First the count of the ledger is waited for, which begins when somebody looks. Then decisions come at a fixed
rate, whether or not the last one is answered, in turns without and with a person who opens a page a second, as rounds
of one run: the pages' times are of those rounds.

    page        ms until a page was there, 50th and 95th percentile of all rounds
    decisions   ms until a decision was answered, 50th and 99th percentile of all rounds, and the ratio of looked at to
                not looked at

The load of the machine at the start is printed. Clients and the service share its processors.
"""

import argparse
import os
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np

from api.server import free_port
from benchmarks.load.client import HOST, post
from benchmarks.load.open_loop import offer
from journey_bandit import processes

_OWN = 4_000  # decisions that the service makes itself
_HOUR = 3_600_000_000
_SCALE = 1e-6  # of windows: what was decided settles at once
_COUNTS = 900.0  # seconds that a service may take to count copied rows at its first start
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}


def decide() -> bytes:
    """HTTP request for a new decision about a person nobody knows, as bytes."""
    return post("/v1/decisions", {"stage": "cart", "user_id": uuid.uuid4().hex, "context": _CONTEXT})


@contextmanager
def serving(folder: Path, scale: float) -> Iterator[str]:
    """Address of a service on the ledger in the folder, ready."""
    port, log = free_port(HOST), folder / "serve.log"
    where = ("--app", "travel", "--store", f"sqlite:///{folder / 'ledger.db'}", "--port", str(port), "--dev")
    server = processes.serve(*where, "--salt", "bench", "--window-scale", str(scale), log=log)
    with processes.stopping(server):
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log, _COUNTS)
        yield f"http://{HOST}:{port}"


def fill(folder: Path, decisions: int) -> None:
    """Ledger of so many settled decisions in the folder."""
    with serving(folder, _SCALE) as url, httpx.Client(base_url=url, timeout=120) as client:
        for start in range(0, _OWN, 500):
            asked = [{"stage": "cart", "user_id": f"u{n}", "context": _CONTEXT} for n in range(start, start + 500)]
            reply = client.post("/v1/decisions/batch", json={"decisions": asked}).raise_for_status()
            made = [item["decision"]["decision_id"] for item in reply.json()["decisions"]]
            told = [{"decision_id": one, "kind": "reward", "value": 1.0} for one in made[::5]]
            client.post("/v1/outcomes/batch", json={"outcomes": told}).raise_for_status()
        client.get("/v1/policies", params={"wait": True}).raise_for_status()
    with closing(sqlite3.connect(folder / "ledger.db")) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        own = conn.execute("SELECT count(*) FROM settlements").fetchone()[0]
        for copy in range(1, -(-decisions // own)):
            copy_rows(conn, own, copy * own, copy * _HOUR)
        conn.commit()


def copy_rows(conn: sqlite3.Connection, first: int, after: int, later: int) -> None:
    """Append copies of the first so many settled decisions, numbered from `after` on, of other people, so many µs
    later.
    """
    other = {"id": "randomblob(16)", "user": "randomblob(16)", "at": f"at + {later}"}
    _copy(conn, "decisions", first, after, other)
    _copy(conn, "settlements", first, after, {"decision_seq": f"decision_seq + {after}"})


def _copy(conn: sqlite3.Connection, table: str, own: int, after: int, other: Mapping[str, str]) -> None:
    columns = [row[1] for row in conn.execute(f"PRAGMA table_info({table})")]
    values = ", ".join({"seq": f"seq + {after}", **other}.get(column, column) for column in columns)
    conn.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE seq <= {own}")  # noqa: S608


class Reader(threading.Thread):
    """Person who opens a page a second, in turn, until `over`; `took`: ms by page."""

    def __init__(self, url: str, pages: Sequence[str], took: dict[str, list[float]]):
        super().__init__(daemon=True)
        self._url, self._pages, self._took, self.over = url, pages, took, threading.Event()

    def run(self) -> None:
        """Open pages until it is over."""
        with httpx.Client(base_url=self._url, timeout=120) as client:
            turn = 0
            while not self.over.wait(1.0):
                page = self._pages[turn % len(self._pages)]
                start, turn = time.perf_counter(), turn + 1
                client.get(f"/console{page}").raise_for_status()
                self._took.setdefault(page, []).append(1000.0 * (time.perf_counter() - start))


def counted(client: httpx.Client) -> float:
    """Seconds until the console has counted the ledger, from the first look on."""
    start = time.perf_counter()
    while "Still counting" in client.get("/console").raise_for_status().text:
        time.sleep(1.0)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark of the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {given.decisions:,} decisions")
    took, latencies = dict[str, list[float]](), {False: list[float](), True: list[float]()}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        fill(folder, given.decisions)
        with serving(folder, 1.0) as url, httpx.Client(base_url=url, timeout=120) as client:
            print(f"counted after {counted(client):.0f} s")
            one = client.post("/v1/decisions", json={"stage": "cart", "user_id": "u"}).json()["decision_id"]
            pages = ["", "/stages/cart", "/decisions", f"/decisions/{one}", "/operate"]
            for turn in range(2 * given.rounds):
                reader = Reader(url, pages, took)
                if turn % 2:
                    reader.start()
                load = offer(int(url.rsplit(":", 1)[1]), decide, rate=given.rate, seconds=given.seconds, connections=64)
                latencies[bool(turn % 2)] += load.latencies
                reader.over.set()
                if turn % 2:
                    reader.join()
    for page in pages:
        name = "receipt" if page.startswith("/decisions/") else page.strip("/") or "overview"
        p50, p95 = np.percentile(took.get(page, [float("nan")]), [50, 95])
        print(f"{name:<14}{len(took.get(page, ())):>6} pages{p50:8.0f}{p95:8.0f} ms")
    alone, looked = (np.percentile(latencies[some], [50, 99]) for some in (False, True))
    print(f"decisions     p50 {alone[0]:.1f} and {looked[0]:.1f} ms, p99 {alone[1]:.1f} and {looked[1]:.1f} ms")
    print(f"              looked at / not: p50 {looked[0] / alone[0]:.2f}, p99 {looked[1] / alone[1]:.2f}")


if __name__ == "__main__":
    main()
