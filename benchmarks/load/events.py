"""Event load: what events cost over HTTP with durable writes, and whether a decision's time depends on how long a
journey is.

    python -m benchmarks.load.events [--seconds 2] [--rounds 5] [--users 100]

Starts `journey-bandit serve` (travel, SQLite, synchronous=FULL, a temporary folder). Events go through the Segment
intake, 100 a batch, each about one of 1,000 users; rates are ratios to a no-op route of the same server, interleaved.
Decisions without a stage are asked for users with 10, 100 and 1,000 events: the first of each user reads the journey
from the ledger ("cold"), the others find it in memory ("warm").
"""

import argparse
import asyncio
import datetime as dt
import itertools
import tempfile
from pathlib import Path
from time import perf_counter

import httpx
import numpy as np

from api.server import free_port
from benchmarks.load.client import HOST, load, noop, post
from journey_bandit import processes

BATCH = 100
LENGTHS = (10, 100, 1000)
WARM = 10  # decisions of each user after the first


class EventIntake:
    """Request maker for the intake: batches of new events, and decisions that the journey answers."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def batch(self) -> bytes:
        """HTTP request with 100 new events of 100 users, as bytes."""
        return post("/v1/batch", {"batch": [_track(n, f"u{n % 1000}") for n in itertools.islice(self._numbers, BATCH)]})

    def single(self) -> bytes:
        """HTTP request with one new event, as bytes."""
        n = next(self._numbers)
        return post("/v1/track", _track(n, f"u{n % 1000}"))


def _track(n: int, user: str) -> dict[str, object]:
    properties = {"route": f"r{n}", "days_to_departure": 30}  # never twice: no moment holds, each decision is new
    return {
        "type": "track",
        "event": "Products Searched",
        "userId": user,
        "messageId": f"m-{user}-{n}",
        "timestamp": dt.datetime.now(dt.UTC).isoformat(),
        "properties": properties,
    }


async def rates(port: int, seconds: float, rounds: int) -> None:
    """Print events a second, in batches and alone, and their ratios to a no-op route; medians over rounds of so many
    seconds.
    """
    made = EventIntake()
    routes = {"no-op route": (noop, 1), "single events": (made.single, 1), "batches of 100": (made.batch, BATCH)}
    await load(port, made.batch, connections=4, seconds=1.0)  # warm up
    for connections in (1, 8):
        found: dict[str, list[float]] = {name: [] for name in routes}
        times: dict[str, list[float]] = {name: [] for name in routes}
        for _ in range(rounds):
            for name, (request, each) in routes.items():
                done = await load(port, request, connections=connections, seconds=seconds)
                found[name].append(done.rate * each)
                times[name] += done.latencies
        base = float(np.median(found["no-op route"]))
        print(f"{connections} connection(s), {rounds} rounds of {seconds:g} s, interleaved")
        for name in routes:
            rate = float(np.median(found[name]))
            p50, p99 = np.percentile(times[name], [50, 99])
            print(f"  {name:<16} {rate:8.0f}/s  {rate / base:5.2f} × no-op   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")


def latencies(url: str, users: int) -> None:
    """Print how long a decision takes (ms) by the number of events of its user, cold and warm; lengths
    are interleaved.
    """
    cold: dict[int, list[float]] = {n: [] for n in LENGTHS}
    warm: dict[int, list[float]] = {n: [] for n in LENGTHS}
    with httpx.Client(base_url=url, timeout=60) as client:
        for length in LENGTHS:
            for user in range(users):
                for start in range(0, length, BATCH):
                    count = min(BATCH, length - start)
                    events = [_track(start + i, f"{length}-{user}") for i in range(count)]
                    client.post("/v1/batch", json={"batch": events}).raise_for_status()
        for user in range(users):
            for length in LENGTHS:
                for i in range(1 + WARM):
                    sent = perf_counter()
                    client.post("/v1/decisions", json={"user_id": f"{length}-{user}"}).raise_for_status()
                    (warm if i else cold)[length].append(1000 * (perf_counter() - sent))
    print(f"decisions without a stage, {users} users of each length")
    for name, times in (("cold", cold), ("warm", warm)):
        base = float(np.median(times[LENGTHS[0]]))
        for length in LENGTHS:
            p50, p99 = np.percentile(times[length], [50, 99])
            print(f"  {name}  {length:5d} events   p50 {p50:5.2f} ms ({p50 / base:4.2f} ×)   p99 {p99:5.2f} ms")


def main() -> None:
    """Parse the arguments, start the service in a temporary folder, measure rates and latencies, print them, and stop
    the service.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port, log = free_port(HOST), Path(folder) / "serve.log"
        where = ("--app", "travel", "--store", f"sqlite:///{folder}/bench.db", "--port", str(port), "--dev")
        with processes.stopping(server := processes.serve(*where, log=log)):
            url = f"http://{HOST}:{port}"
            processes.wait(server, f"{url}/health/ready", log)
            latencies(url, options.users)
            asyncio.run(rates(port, options.seconds, options.rounds))


if __name__ == "__main__":
    main()
