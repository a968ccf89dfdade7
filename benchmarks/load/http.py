"""HTTP load: what the service costs over HTTP with durable writes, as ratios to a no-op route of the same server in the
same run.

    python -m benchmarks.load.http [--connections 1 8 32 128] [--seconds 3] [--rounds 5] [--json FILE]
    python -m benchmarks.load.http --quick                       half a minute: does it run?
    python -m benchmarks.load.http --traces                      what traces cost, see below

Starts `journey-bandit serve` (travel, SQLite with synchronous=FULL in a temporary folder) and sends closed-loop load
from this process over raw keep-alive connections. Windows are so short that as many decisions settle as are made:
`settled` is how many did in the measured time, for each one made. Routes are interleaved; rates and processor times are
medians over rounds, latencies those of all rounds together.

    rate        answers a second, and the ratio to the no-op route's median
    p50, p99    latency in ms
    CPU         µs of processor for one answer: event loop / writer and its learning / HTTP server, and the ratio to
                the no-op's. The processor is shared with this process and with whatever else runs: where the
                machine is busy, this ratio travels and the rate does not.

Where the extra `bench` is installed, `user-built` is what a team would build in a day: FastAPI, Vowpal Wabbit and one
commit for each decision, SQLite with synchronous=FULL (benchmarks/comparison/user_built.py), in the same rounds.

`--traces` compares decisions of a service with `--otlp` with those of one without, in the same rounds: decisions for
each second of the service's processor time, and latencies. The receiver is in this process and takes every span.
"""

import argparse
import asyncio
import contextlib
import http.server
import json
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from api.server import free_port
from benchmarks.comparison import user_built
from benchmarks.load import processor
from benchmarks.load.client import HOST, LoadResult, Request, load, noop, post
from benchmarks.load.processor import ProcessorTime
from journey_bandit import processes

STAGE, WINDOW = "cart", 48 * 3600.0  # seconds, as the travel app declares it
SETTLES = 1.0  # seconds after which a decision settles here
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}
_SETTLED = re.compile(r"^journey_bandit_settlements_total\{[^}]*\} (\S+)$", re.MULTILINE)


class Route(NamedTuple):
    """Route under load: its name in the table, the process that serves it, and what makes its requests."""

    name: str
    pid: int
    port: int
    request: Request


class Measured(NamedTuple):
    """Measured load of one route in one round: the load, the processor time for one answer (µs), and settlements for
    each answer.
    """

    load: LoadResult
    cost: ProcessorTime
    settled: float


class Traffic:
    """Traffic of one app: makes requests, and remembers which decisions wait for their outcome."""

    def __init__(self) -> None:
        self.decided: list[str] = []

    def answered(self, body: bytes) -> None:
        """Remember a decision that was answered."""
        if body.startswith(b'{"decision_id"'):
            self.decided.append(body[16:52].decode())

    def decide(self) -> bytes:
        """HTTP request for a new decision about a person nobody knows, as bytes."""
        return post("/v1/decisions", {"stage": STAGE, "user_id": uuid.uuid4().hex, "context": _CONTEXT})

    def report(self) -> bytes:
        """HTTP request with a reward for the newest decision without one, as bytes; once there is none left, for one
        that has.
        """
        known = self.decided.pop() if len(self.decided) > 1 else self.decided[0]
        return post("/v1/outcomes", {"decision_id": known, "kind": "reward", "value": 1})

    def event(self) -> bytes:
        """HTTP request with one new event of one person, as bytes."""
        user, number = f"u{int(uuid.uuid4()) % 1000}", uuid.uuid4().hex
        body = {"type": "track", "event": "Products Searched", "userId": user, "messageId": number}
        return post("/v1/track", body | {"properties": {"route": number, "days_to_departure": 30}})


async def measure(route: Route, traffic: Traffic, connections: int, seconds: float) -> Measured:
    """Measured load of one route, once for as long as decisions take to settle, then for so many seconds."""
    answered = traffic.answered if route.name.startswith("decision") else None
    if answered:
        await load(route.port, route.request, connections=connections, seconds=1.5 * SETTLES, answered=answered)
    before, settled = processor.spent(route.pid), await _settlements(route)
    found = await load(route.port, route.request, connections=connections, seconds=seconds, answered=answered)
    cost, n = processor.spent(route.pid).since(before), max(len(found.latencies), 1)
    return Measured(found, ProcessorTime(*(part / n for part in cost)), (await _settlements(route) - settled) / n)


async def _settlements(route: Route) -> float:
    """Decisions that the service has settled so far, by its metrics; 0 for another service."""
    if route.name.startswith("user-built"):
        return 0.0
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://{HOST}:{route.port}/metrics")).text
    return sum(float(value) for value in _SETTLED.findall(text))


async def rounds(routes: list[Route], traffic: Traffic, connections: int, seconds: float, many: int) -> Any:
    """Rows of the table for a number of connections: one for each route, medians over rounds in which all take part."""
    found: dict[str, list[Measured]] = {route.name: [] for route in routes}
    for _ in range(many):
        for route in routes:
            found[route.name].append(await measure(route, traffic, connections, seconds))
    base = found[routes[0].name]
    rate, cost = (float(np.median(v)) for v in ([m.load.rate for m in base], [m.cost.total for m in base]))
    return [_row(name, runs, rate, cost) for name, runs in found.items()]


def _row(name: str, runs: list[Measured], rate: float, cost: float) -> dict[str, Any]:
    every = LoadResult(0.0, [v for run in runs for v in run.load.latencies])
    parts = [float(np.median(part)) for part in zip(*(run.cost for run in runs), strict=True)]
    own, total = float(np.median([run.load.rate for run in runs])), float(np.median([run.cost.total for run in runs]))
    return {
        "route": name,
        "rate": own,
        "rate_ratio": own / rate,
        "p50": every.quantile(50),
        "p99": every.quantile(99),
        "cpu": total,
        "cpu_ratio": cost / total,
        "loop": parts[0],
        "writer": parts[1],
        "server": parts[2],
        "settled": float(np.median([run.settled for run in runs])),
    }


def lines(connections: int, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of the table for one number of connections."""
    yield f"\n{connections} connection(s)"
    yield f"  {'':<20}{'rate':>8}  {'× no-op':>7}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}{'loop/writer/server':>22}" + (
        f"{'CPU × no-op':>13}{'settled':>9}"
    )
    for row in rows:
        parts = " / ".join(f"{row[part]:.0f}" for part in ("loop", "writer", "server"))
        yield (
            f"  {row['route']:<20}{row['rate']:8.0f}  {row['rate_ratio']:7.2f}{row['p50']:9.2f}{row['p99']:9.2f}"
            f"{row['cpu']:9.0f}{parts:>22}{row['cpu_ratio']:13.2f}{row['settled']:9.2f}"
        )


@contextlib.contextmanager
def service(folder: Path, *more: str) -> Iterator[tuple[int, int]]:
    """Context in which the service runs with its ledger in `folder`, and `more` options: its process and its port."""
    port, log = free_port(HOST), folder / "serve.log"
    where = ("--app", "travel", "--store", f"sqlite:///{folder}/bench.db", "--port", str(port), "--dev")
    scale = ("--window-scale", str(SETTLES / WINDOW))
    with processes.stopping(processes.serve(*where, *scale, *more, log=log)) as server:
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        yield server.pid, port


class SpanSink(http.server.BaseHTTPRequestHandler):
    """Receiver of spans that takes all and keeps none; `received` is how many bytes came."""

    received = 0

    def do_POST(self) -> None:
        """Take what is sent."""
        SpanSink.received += len(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def span_sink() -> Iterator[str]:
    """Context in which a receiver of spans runs: its address."""
    with http.server.ThreadingHTTPServer((HOST, 0), SpanSink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()


async def _traces(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Decisions without and with traces, in the same rounds. Raises RuntimeError if no span arrived."""
    traffic = Traffic()
    with contextlib.ExitStack() as running:
        sink = running.enter_context(span_sink())
        (folder / "traced").mkdir()
        off, on = (running.enter_context(one) for one in (service(folder), service(folder / "traced", "--otlp", sink)))
        routes = [Route("decision, no traces", *off, traffic.decide), Route("decision, traced", *on, traffic.decide)]
        for route in routes:
            await load(route.port, traffic.decide, connections=8, seconds=2.0)  # warm up
        found = {}
        for connections in options.connections:
            pairs: dict[str, list[Measured]] = {route.name: [] for route in routes}
            for number in range(options.rounds):
                for route in routes if number % 2 else routes[::-1]:  # neither is always the first
                    pairs[route.name].append(await measure(route, traffic, connections, options.seconds))
            without, traced = pairs.values()
            found[connections] = [_row(name, runs, 1.0, 1.0) for name, runs in pairs.items()]
            print(trace_line(connections, without, traced), flush=True)
    if not SpanSink.received:
        raise RuntimeError("no span arrived: the figures compare nothing")
    return {"connections": found}


def trace_line(connections: int, off: list[Measured], on: list[Measured]) -> str:
    """What traces cost at a number of connections, in words: medians over rounds without and with them, and the median
    and the quartiles of the ratios of each round.
    """
    each = {
        "decisions for a second of processor": [[1e6 / one.cost.total for one in runs] for runs in (off, on)],
        "ms p50": [[one.load.quantile(50) for one in runs] for runs in (off, on)],
        "ms p99": [[one.load.quantile(99) for one in runs] for runs in (off, on)],
    }
    said = []
    for name, (before, after) in each.items():
        low, middle, high = np.quantile(np.divide(after, before), (0.25, 0.5, 0.75))
        medians = " → ".join(f"{np.median(part):,.4g}" for part in (before, after))
        said.append(f"{medians} {name} (× {middle:.2f}, quartiles {low:.2f} to {high:.2f})")
    return f"{connections} connection(s), without → with traces: {'; '.join(said)}"


async def _run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    traffic = Traffic()
    with contextlib.ExitStack() as running:
        pid, port = running.enter_context(service(folder))
        routes = [
            Route("no-op route", pid, port, noop),
            Route("decision, durable", pid, port, traffic.decide),
            Route("outcome, durable", pid, port, traffic.report),
            Route("event, durable", pid, port, traffic.event),
        ]
        if user_built.installed():
            rival, its = running.enter_context(user_built.service(folder))
            routes.append(Route("user-built", rival, its, traffic.decide))
        await load(port, traffic.decide, connections=8, seconds=2.0, answered=traffic.answered)  # warm up
        found = {}
        for connections in options.connections:
            found[connections] = await rounds(routes, traffic, connections, options.seconds, options.rounds)
            for line in lines(connections, found[connections]):
                print(line, flush=True)
    return {"connections": found}


def main() -> None:
    """Parse the arguments, start the service in a temporary folder, measure every route, print the table, and stop the
    service.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of 32 connections: does it run?")
    parser.add_argument("--traces", action="store_true", help="compare a service with traces with one without")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    if options.quick:
        options.connections, options.rounds, options.seconds = [32], 1, 2.0
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run((_traces if options.traces else _run)(options, Path(folder)))
        found |= {"sync_ms": processor.sync_milliseconds(Path(folder)), "load": os.getloadavg()[0]}
    print(f"\none fdatasync of 4 KiB: {found['sync_ms']:.2f} ms; load of the machine at the end: {found['load']:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
