"""HTTP load: what the service costs over HTTP with durable writes, as ratios to a no-op route of the same server in the
same run.

    python -m benchmarks.load.http [--seconds 2] [--rounds 5]

Starts `journey-bandit serve` (travel, SQLite with synchronous=FULL in a temporary folder) and sends closed-loop load
from this process over raw keep-alive connections. Routes are interleaved; figures are medians over rounds.
"""

import argparse
import asyncio
import json
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from api.server import free_port
from journey_bandit import processes

HOST = "127.0.0.1"
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}


class LoadResult:
    """Closed-loop load on one service: requests over keep-alive connections, each sending the next when the last is
    answered.
    """

    def __init__(self, port: int):
        self.port = port
        self.decided: list[str] = []

    async def run(self, request: Callable[[], bytes], connections: int, seconds: float) -> tuple[float, list[float]]:
        """Run a load for so many seconds; (requests a second, latencies in ms). Raises RuntimeError on any answer but
        200.
        """
        latencies: list[float] = []
        start = perf_counter()
        await asyncio.gather(*(self._one(request, start + seconds, latencies) for _ in range(connections)))
        return len(latencies) / (perf_counter() - start), latencies

    async def _one(self, request: Callable[[], bytes], end: float, latencies: list[float]) -> None:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        while perf_counter() < end:
            sent = perf_counter()
            writer.write(request())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            latencies.append(1000 * (perf_counter() - sent))
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{head[:80]!r} {body[:300]!r}")
            if body.startswith(b'{"decision_id"'):
                self.decided.append(body[16:52].decode())
        writer.close()
        await writer.wait_closed()

    def noop(self) -> bytes:
        """HTTP request to a Litestar route that does nothing, as bytes: the yardstick."""
        return b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"

    def decide(self) -> bytes:
        """HTTP request for a new decision, as bytes."""
        return post("/v1/decisions", {"stage": "cart", "user_id": uuid.uuid4().hex, "context": _CONTEXT})

    def report(self) -> bytes:
        """HTTP request with a reward for a decision that has none yet, as bytes; once there is none left, for one that
        has.
        """
        known = self.decided.pop() if len(self.decided) > 1 else self.decided[0]
        return post("/v1/outcomes", {"decision_id": known, "kind": "reward", "value": 1})


def post(path: str, body: object) -> bytes:
    """HTTP POST request to `path` with a JSON body, headers included, as bytes that go over a raw keep-alive
    connection.
    """
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


async def measure(port: int, seconds: float, rounds: int) -> None:
    """Measure every route in turn, over rounds of so many seconds, and print the table of rates,
    latencies and ratios.
    """
    load = LoadResult(port)
    routes = {"no-op route": load.noop, "decision, durable": load.decide, "outcome, durable": load.report}
    await load.run(load.decide, 8, 1.0)  # warm up
    for connections in (1, 32):
        rates: dict[str, list[float]] = {name: [] for name in routes}
        times: dict[str, list[float]] = {name: [] for name in routes}
        for _ in range(rounds):
            for name, request in routes.items():
                rate, latencies = await load.run(request, connections, seconds)
                rates[name].append(rate)
                times[name] += latencies
        base = float(np.median(rates["no-op route"]))
        print(f"{connections} connection(s), {rounds} rounds of {seconds:g} s, interleaved")
        for name in routes:
            rate = float(np.median(rates[name]))
            p50, p99 = np.percentile(times[name], [50, 99])
            print(f"  {name:<18} {rate:8.0f}/s  {rate / base:5.2f} × no-op   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")


def main() -> None:
    """Parse the arguments, start the service in a temporary folder, measure every route, print the table, and stop the
    service.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port, log = free_port(HOST), Path(folder) / "serve.log"
        where = ("--app", "travel", "--store", f"sqlite:///{folder}/bench.db", "--port", str(port), "--dev")
        with processes.stopping(server := processes.serve(*where, log=log)):
            processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
            asyncio.run(measure(port, options.seconds, options.rounds))


if __name__ == "__main__":
    main()
