"""Overload: what one key that asks for five times what the service can do costs another, and the service.

    python -m benchmarks.load.overload [--seconds 6] [--rounds 3] [--times 5] [--json FILE]

Starts `journey-bandit serve` (travel, SQLite with synchronous=FULL in a temporary folder) with three keys and default
limits, but that `spent` may ask once in a thousand seconds. In each round:

    unloaded    `polite` asks for 50 decisions a second, evenly, and nobody else does
    capacity    `flood` asks for decisions over 32 connections, each again when it is answered
    overload    `flood` asks for so many times that capacity, whether it is answered or not, over 512 connections, and
                `polite` goes on as before
    refused     `spent` asks over 512 connections, each again when it is answered, and every answer is 429

Figures are medians over rounds of ratios within a round: goodput (answers 200 of both keys) to capacity; the p99 of
what `flood` was given, and that of `polite`, to the unloaded p99; processor time of a refusal to that of a decision.
The flood comes from this process, the polite key's requests from another, and both share the processors with the
service: a client that sends so much takes a processor by itself, which the goodput shows. Nothing fails by the clock.
"""

import argparse
import asyncio
import json
import os
import tempfile
import uuid
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from api.http.keys import create
from api.server import free_port
from benchmarks.load import processor
from benchmarks.load.client import HOST, Request
from benchmarks.load.open_loop import OfferedLoad, offer
from journey_bandit import processes

_POLITE = 50.0  # requests a second
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}


def decisions(key: str) -> Request:
    """What makes a request for a decision about a person nobody knows, with this key."""

    def made() -> bytes:
        body = json.dumps({"stage": "cart", "user_id": uuid.uuid4().hex, "context": _CONTEXT}).encode()
        head = f"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    return made


async def _closed(port: int, request: Request, seconds: float) -> OfferedLoad:
    """Load over 32 connections, each of which asks again when it is answered."""
    return await offer(port, request, rate=20_000.0, seconds=seconds, connections=32)


def _politely(port: int, key: str, seconds: float) -> OfferedLoad:
    """Load of the polite key, in a process of its own: what it waits for is the service, not the flood's client."""
    return asyncio.run(offer(port, decisions(key), rate=_POLITE, seconds=seconds, connections=32))


async def one_round(port: int, pid: int, keys: dict[str, str], seconds: float, times: float) -> dict[str, Any]:
    """Figures of one round."""
    flood, spent = decisions(keys["flood"]), decisions(keys["spent"])
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        alone = await loop.run_in_executor(elsewhere, _politely, port, keys["polite"], seconds)
        before = processor.spent(pid)
        full = await _closed(port, flood, seconds)
        decision = processor.spent(pid).since(before).total / full.statuses[200]
        over, other = await asyncio.gather(
            offer(port, flood, rate=times * full.goodput, seconds=seconds, connections=512),
            loop.run_in_executor(elsewhere, _politely, port, keys["polite"], seconds),
        )
    before = processor.spent(pid)
    refused = await offer(port, spent, rate=20_000.0, seconds=seconds, connections=512)
    refusal = processor.spent(pid).since(before).total / max(1, refused.statuses[429])
    return {
        "unloaded_p99": alone.quantile(99),
        "capacity": full.goodput,
        "offered": over.due / seconds / full.goodput,
        "sent": over.sent / seconds / full.goodput,
        "goodput": (over.goodput + other.goodput) / full.goodput,
        "flood_p99": over.quantile(99) / alone.quantile(99),
        "polite_p50": other.quantile(50) / alone.quantile(50),
        "polite_p99": other.quantile(99) / alone.quantile(99),
        "polite_served": other.statuses[200] / max(1, other.due),
        "decision_cpu": decision,
        "refusal_cpu": refusal,
        "refusal": refusal / decision,
        "refused_429": over.statuses[429] / max(1, over.sent),
        "refused_503": over.statuses[503] / max(1, over.sent),
    }


_WORDS = {
    "unloaded_p99": "unloaded p99, ms",
    "capacity": "capacity, decisions/s",
    "offered": "due, × capacity",
    "sent": "sent, × capacity",
    "goodput": "goodput, × capacity",
    "flood_p99": "p99 of the flooding key's decisions, × unloaded",
    "polite_p50": "p50 of the polite key, × unloaded",
    "polite_p99": "p99 of the polite key, × unloaded",
    "polite_served": "share of the polite key's requests that were served",
    "decision_cpu": "processor time of a decision, µs",
    "refusal_cpu": "processor time of a refusal, µs",
    "refusal": "processor time of a refusal, × a decision",
    "refused_429": "share of the flood answered 429",
    "refused_503": "share of the flood answered 503",
}


def _run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    port, log, file = free_port(HOST), folder / "serve.log", folder / "keys.toml"
    keys = {name: create(file, name, ["decide"]) for name in ("polite", "flood", "spent")}
    with file.open("a", encoding="utf-8") as more:
        more.write("rate = 0.001\nburst = 1\n")  # of the last key
    where = ("--app", "travel", "--store", f"sqlite:///{folder}/bench.db", "--port", str(port), "--keys", str(file))
    with processes.stopping(processes.serve(*where, log=log)) as server:
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        asyncio.run(_closed(port, decisions(keys["flood"]), 3.0))  # warm up
        found = []
        for _ in range(options.rounds):
            found.append(asyncio.run(one_round(port, server.pid, keys, options.seconds, options.times)))
            print(" ".join(f"{name}={value:.3g}" for name, value in found[-1].items()), flush=True)
    return found


def main() -> None:
    """Parse the arguments, start the service, measure every round, print the medians, and stop the service."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=float, default=5.0, help="how many times the capacity is asked for")
    parser.add_argument("--json", type=Path, help="also write the figures of all rounds to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = _run(options, Path(folder))
        sync = processor.sync_milliseconds(Path(folder))
    print()
    for name, words in _WORDS.items():
        print(f"  {words:<56}{float(np.median([one[name] for one in found])):10.3g}")
    print(f"\none fdatasync of 4 KiB: {sync:.2f} ms; load of the machine at the end: {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
