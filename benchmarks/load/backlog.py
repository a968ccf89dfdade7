"""Backlog: what a service costs that starts on a large ledger, with open decisions or with matured ones to settle.

    python -m benchmarks.load.backlog [--open 10000 100000 1000000] [--matured 100000] [--people 10000 1000000]
    python -m benchmarks.load.backlog --quick           half a minute: does it run?

Every line is a ledger that is written here first, with decisions that the engine made for as many people as decisions,
and a `journey-bandit serve` process that starts on it (travel, SQLite with synchronous=FULL, real clock).

    ready       s of processor that the process has used when it says that it is ready, imports included
    all known   s of processor until all that is open is known, and policies rest on it (or until all is settled)
    memory      MB that the process holds then, and the most it held
    p50, p99    ms of a decision, a few every quarter of a second, until then and afterwards

Processor times travel to other machines; latencies do less.
"""

import argparse
import asyncio
import itertools
import os
import re
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import numpy as np

from api.ledger import audit, exposures
from api.ledger.statistics_store import key_of
from api.server import free_port
from api.stores import open_store
from api.stores.learning_state import StatisticsUpdate
from bandit import engine
from bandit.catalogue.loading import parse, read_shipped
from bandit.engine import DecisionQuery
from bandit.records import Decision, Outcome
from bandit.snapshot import Snapshot
from benchmarks.load import processor
from benchmarks.load.client import HOST, LoadResult, load, post
from journey_bandit import processes

STAGE, WINDOW, DAY = "cart", 48 * 3_600_000_000, 86_400_000_000  # µs
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}
_BATCH = 4000
_READING = re.compile(r"^journey_bandit_reading_open_decisions (\S+)$", re.MULTILINE)
_SETTLED = re.compile(r"^journey_bandit_settlements_total\{[^}]*\} (\S+)$", re.MULTILINE)


class Backlog(NamedTuple):
    """Backlog of one line: so many decisions, and whether their windows are over."""

    decisions: int
    matured: bool


class Started(NamedTuple):
    """What a start on a backlog cost: s of processor and MB when ready and when all is known or settled, the most MB
    that the process held, s of the clock from the one to the other, and the load meanwhile and afterwards.
    """

    ready: float
    known: float
    seconds: float
    memory: float
    most: float
    meanwhile: LoadResult
    afterwards: LoadResult


def write(file: Path, backlog: Backlog) -> None:
    """Write a ledger of so many decisions at one stage, one in twelve of them rewarded, spread over the last day."""
    catalogue = parse(read_shipped("travel"), "travel")
    store = open_store(f"sqlite:///{file}")
    salt = audit.claim(store, catalogue, None)
    live = engine.prepare(Snapshot.untrained(catalogue, STAGE))
    start = time.time_ns() // 1000 - DAY - (WINDOW if backlog.matured else 0)
    rng = np.random.default_rng(1)
    asked = (DecisionQuery(id=uuid.uuid4(), user_id=f"u{i}", context=_CONTEXT) for i in itertools.count())
    each = (engine.decide(live, query, now=start, salt=salt) for query in asked)
    made = next(one for one in each if not one.holdout)  # who is held out teaches nothing
    logs = exposures.load(store, catalogue.stages)
    for first in range(0, backlog.decisions, _BATCH):
        numbers = range(first, min(first + _BATCH, backlog.decisions))
        some = [_another(made, rng, start + i * DAY // backlog.decisions) for i in numbers]
        told = [
            Outcome(decision=d.id, id="r", kind="reward", value=1.0, occurred=d.at, received=d.at + 1)
            for d in some[::12]
        ]
        store.record(some, [], start, store.specs())
        store.record([], told, start, store.specs())
        logs[STAGE].put_decisions(some, store.specs())
    for name, stage in catalogue.stages.items():  # as a service that stopped has left it
        kept = exposures.stored(stage, logs[name], store.last().decision)
        store.settle([], [StatisticsUpdate(key_of(name, stage), (), {}, exposures=kept)])
    store.close()


def _another(made: Decision, rng: np.random.Generator, at: int) -> Decision:
    """The decision made again for another person, in another context, at another time."""
    x = np.rint(rng.uniform(-1.0, 1.0, len(made.x)) * 4096) / 4096
    x[0] = 1.0
    one = uuid.UUID(bytes=rng.bytes(16), version=4)
    return msgspec.structs.replace(made, id=one, user=rng.bytes(16), unit=b"", x=x, at=at, expires=at + WINDOW)


async def started(folder: Path, backlog: Backlog) -> Started:
    """What it costs to start the service on the ledger in `folder`."""
    port, log = free_port(HOST), folder / "serve.log"
    where = ("--app", "travel", "--store", f"sqlite:///{folder}/bench.db", "--port", str(port), "--dev")
    with processes.stopping(processes.serve(*where, log=log)) as server:
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        ready, begun, latencies = processor.spent(server.pid).total / 1e6, time.monotonic(), list[float]()
        while not await _done(port, backlog):
            some = await load(port, _decision, connections=2, seconds=0.02)
            latencies += some.latencies
            await asyncio.sleep(0.2)
        seconds, known = time.monotonic() - begun, processor.spent(server.pid).total / 1e6
        memory, most = processor.megabytes(server.pid)
        quiet = list[float]()
        for _ in range(40):
            quiet += (await load(port, _decision, connections=2, seconds=0.02)).latencies
            await asyncio.sleep(0.2)
    return Started(
        ready, known, seconds, memory, most, *(LoadResult(0.0, some or [0.0]) for some in (latencies, quiet))
    )


async def _done(port: int, backlog: Backlog) -> bool:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://{HOST}:{port}/metrics")).text
    if backlog.matured:
        return sum(float(value) for value in _SETTLED.findall(text)) >= backlog.decisions
    return all(float(value) == 0.0 for value in _READING.findall(text))


def _decision() -> bytes:
    return post("/v1/decisions", {"stage": STAGE, "user_id": uuid.uuid4().hex, "context": _CONTEXT})


def main() -> None:
    """Parse the arguments, write each ledger into a temporary folder, start the service on it, and print what that
    cost.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--matured", type=int, nargs="*", default=[100_000])
    parser.add_argument("--quick", action="store_true", help="ten thousand open, ten thousand matured")
    given = parser.parse_args()
    if given.quick:
        given.open, given.matured = [10_000], [10_000]
    print(
        f"load {os.getloadavg()[0]:.1f}\n{'':<22}{'ready s':>9}{'all known s':>13}{'after s':>9}{'MB':>7}{'most':>7}",
        end="",
    )
    print(f"{'p50, p99 ms':>16}{'afterwards':>16}")
    for backlog in (
        *(Backlog(n, matured=False) for n in given.open),
        *(Backlog(n, matured=True) for n in given.matured),
    ):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder / "bench.db", backlog)
            print(_line(backlog, asyncio.run(started(folder, backlog))), flush=True)


def _line(backlog: Backlog, found: Started) -> str:
    what = f"{backlog.decisions:,} {'matured' if backlog.matured else 'open'}"
    loads = "".join(f"{one.quantile(50):>9.1f},{one.quantile(99):>6.1f}" for one in (found.meanwhile, found.afterwards))
    times = f"{found.ready:9.2f}{found.known:13.1f}{found.seconds:9.1f}"
    return f"{what:<22}{times}{found.memory:7.0f}{found.most:7.0f}{loads}"


if __name__ == "__main__":
    main()
