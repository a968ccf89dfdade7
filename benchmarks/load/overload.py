"""Overload: what one key that asks for five times what the service can do costs another, and the service.

    python -m benchmarks.load.overload [--seconds 6] [--rounds 3] [--times 5] [--json FILE]

Starts `journey-bandit serve` (travel, SQLite with synchronous=FULL in a temporary folder) with three keys and default
limits, but that `spent` may ask once in a thousand seconds; and the same HTTP server with an application that does
nothing (`--floor PORT`). Both have the last processor of this machine, and their clients the others, so that a
client never takes the service's processor. In each round:

    unloaded    `polite` asks for 50 decisions a second, evenly, and nobody else does
    capacity    `flood` asks for decisions over 32 connections, each again when it is answered
    overload    `flood` asks for so many times that capacity, whether it is answered or not, over 3,800 connections from
                four addresses, and `polite` goes on as before
    refused     `spent` asks for 240 decisions a second over 500 open connections in turn, and every answer is 429
    floor       the application that does nothing is asked as often, and in the same way

Figures are medians over rounds of ratios within a round: what the flood really sent, and goodput (answers 200 of both
keys), to capacity, the latter also by processor second of the service, which travels where others use its processor;
the p99 of what `flood` was given, and that of `polite`, to the unloaded p99, each from when a request was sent;
processor time of a refusal to that of a decision, and to that of the floor. What the service spends while nobody asks
is taken from both. Nothing fails by the clock. Linux only.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple, cast

import numpy as np

from api.http.keys import create
from api.server import free_port, serve
from benchmarks.load import processor
from benchmarks.load.client import HOST, Request, load, noop
from benchmarks.load.open_loop import OfferedLoad, offer
from journey_bandit import processes

_POLITE, _REFUSED = 50.0, 240.0  # requests a second
_IN_TURN = 500  # connections over which refusals are asked for: each is answered after about a second
_SOURCES = tuple(f"127.0.0.{number}" for number in range(2, 6))  # addresses of this machine
_MOST = 3800  # connections: all that the service holds, but for others
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}


class Servers(NamedTuple):
    """The service under load and the floor, by process and port, and the service's keys by name."""

    pid: int
    port: int
    floor_pid: int
    floor_port: int
    keys: dict[str, str]


def decisions(key: str) -> Request:
    """What makes a request for a decision about a person nobody knows, with this key."""

    def made() -> bytes:
        body = json.dumps({"stage": "cart", "user_id": uuid.uuid4().hex, "context": _CONTEXT}).encode()
        head = f"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    return made


def _asking(port: int, key: str, rate: float, seconds: float, connections: int) -> OfferedLoad:
    """Load of a key from four addresses, in a process of its own: two keys wait for the service, not for each other's
    client.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return offer(port, decisions(key), rate=rate, seconds=seconds, connections=connections, sources=_SOURCES)


def _cost(pid: int, port: int, request: Request, seconds: float, status: int) -> float:
    """Processor time in µs of one answer with this status, over connections that are open and used in turn."""
    idle = processor.spent(pid)
    sleep(seconds)
    alone, before = processor.spent(pid).since(idle).total / seconds, list[tuple[processor.ProcessorTime, float]]()
    answered = offer(
        port, request, rate=_REFUSED, seconds=seconds, connections=_IN_TURN, sources=_SOURCES,
        begin=lambda: before.append((processor.spent(pid), perf_counter())),
    )  # fmt: skip
    ((then, start),) = before
    return (processor.spent(pid).since(then).total - alone * (perf_counter() - start)) / answered.statuses[status]


def one_round(servers: Servers, clients: Sequence[Executor], seconds: float, times: float) -> dict[str, Any]:
    """Figures of one round. `clients`: two processes."""
    pid, port, keys = servers.pid, servers.port, servers.keys

    def politely() -> Future[OfferedLoad]:
        return clients[0].submit(_asking, port, keys["polite"], _POLITE, seconds, 32)

    alone = politely().result()
    before = processor.spent(pid)
    full = asyncio.run(load(port, decisions(keys["flood"]), connections=32, seconds=seconds))
    decision = processor.spent(pid).since(before).total / len(full.latencies)
    flooding = clients[1].submit(_asking, port, keys["flood"], times * full.rate, seconds, _MOST)
    asked, before = politely(), processor.spent(pid)
    sleep(seconds)
    used = processor.spent(pid).since(before).total
    other, over = asked.result(), flooding.result()
    refusal = _cost(pid, port, decisions(keys["spent"]), seconds, 429)
    floor = _cost(servers.floor_pid, servers.floor_port, noop, seconds, 200)
    return {
        "unloaded_p50": alone.quantile(50),
        "unloaded_p99": alone.quantile(99),
        "capacity": full.rate,
        "sent": over.sent / seconds / full.rate,
        "goodput": (over.goodput + other.goodput) / full.rate,
        "goodput_cpu": (over.good + other.good) * decision / used,
        "flood_p50": over.quantile(50) / alone.quantile(50),
        "flood_p99": over.quantile(99) / alone.quantile(99),
        "polite_p50": other.quantile(50) / alone.quantile(50),
        "polite_p99": other.quantile(99) / alone.quantile(99),
        "polite_served": other.statuses[200] / max(1, other.due),
        "decision_cpu": decision,
        "refusal_cpu": refusal,
        "floor_cpu": floor,
        "refusal": refusal / decision,
        "refusal_floor": refusal / floor,
        "floor": floor / decision,
        "refused_429": over.statuses[429] / max(1, over.sent),
        "refused_503": over.statuses[503] / max(1, over.sent),
        "lost": over.lost + other.lost,
    }


_WORDS = {
    "unloaded_p50": "unloaded p50, ms",
    "unloaded_p99": "unloaded p99, ms",
    "capacity": "capacity, decisions/s",
    "sent": "sent, × capacity",
    "goodput": "goodput, × capacity",
    "goodput_cpu": "goodput a processor second, × capacity a processor second",
    "flood_p50": "p50 of the flooding key's decisions, × unloaded",
    "flood_p99": "p99 of the flooding key's decisions, × unloaded",
    "polite_p50": "p50 of the polite key, × unloaded",
    "polite_p99": "p99 of the polite key, × unloaded",
    "polite_served": "share of the polite key's requests that were served",
    "decision_cpu": "processor time of a decision, µs",
    "refusal_cpu": "processor time of a refusal, µs",
    "floor_cpu": "processor time of an answer of the floor, µs",
    "refusal": "processor time of a refusal, × a decision",
    "refusal_floor": "processor time of a refusal, × the floor",
    "floor": "processor time of the floor, × a decision",
    "refused_429": "share of the flood answered 429",
    "refused_503": "share of the flood answered 503",
    "lost": "connections that the service closed",
}


@contextmanager
def apart() -> Iterator[set[int]]:
    """Context in which processes that are started have the last processor of those that this one may use; afterwards
    this one has the others. The processors of both are the same where there is one only.
    """
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, mine[-1:])
    try:
        yield set(mine[-1:])
    finally:
        os.sched_setaffinity(0, mine[:-1] or mine)


_HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
_BODY = {"type": "http.response.body", "body": b"ok", "more_body": False}


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """The floor: answers every HTTP request with two bytes."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    await send(_HEAD)
    await send(_BODY)


async def _nothing() -> None:
    """There is nothing to reload."""


@contextmanager
def _running(folder: Path) -> Iterator[Servers]:
    port, floor_port = free_port(HOST), free_port(HOST)
    log, file = folder / "serve.log", folder / "keys.toml"
    keys = {name: create(file, name, ["decide"]) for name in ("polite", "flood", "spent")}
    with file.open("a", encoding="utf-8") as more:
        more.write("rate = 0.001\nburst = 1\n")  # of the last key
    where = ("--app", "travel", "--store", f"sqlite:///{folder}/bench.db", "--port", str(port), "--keys", str(file))
    with apart():
        service = processes.serve(*where, log=log)
        floor = subprocess.Popen([sys.executable, "-m", "benchmarks.load.overload", "--floor", str(floor_port)])
    with processes.stopping(service), processes.stopping(floor):
        processes.wait(service, f"http://{HOST}:{port}/health/ready", log)
        processes.wait(floor, f"http://{HOST}:{floor_port}/", log)
        yield Servers(service.pid, port, floor.pid, floor_port, keys)


@contextmanager
def _clients() -> Iterator[list[Executor]]:
    """Context with two processes that ask, ready to."""
    with ExitStack() as closing:
        made = [closing.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for _ in range(2)]
        for one in made:
            one.submit(sleep, 0.0).result()
        yield list(made)


def _run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    found = []
    with _running(folder) as servers, _clients() as clients:
        asyncio.run(load(servers.port, decisions(servers.keys["flood"]), connections=16, seconds=3.0))  # warm up
        for _ in range(options.rounds):
            found.append(one_round(servers, clients, options.seconds, options.times))
            print(" ".join(f"{name}={value:.3g}" for name, value in found[-1].items()), flush=True)
    return found


def main() -> None:
    """Parse the arguments, start the servers, measure every round, print the medians, and stop the servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=float, default=5.0, help="how many times the capacity is asked for")
    parser.add_argument("--json", type=Path, help="also write the figures of all rounds to this file")
    parser.add_argument("--floor", type=int, metavar="PORT", help="only serve the application that does nothing")
    options = parser.parse_args()
    if options.floor:
        serve(cast(Any, _answer), HOST, options.floor, _nothing, [])
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with tempfile.TemporaryDirectory() as folder:
        found = _run(options, Path(folder))
        sync = processor.sync_milliseconds(Path(folder))
    print()
    for name, words in _WORDS.items():
        print(f"  {words:<58}{float(np.median([one[name] for one in found])):10.3g}")
    print(f"\none fdatasync of 4 KiB: {sync:.2f} ms; load of the machine at the end: {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
