"""Load of clients that only hold connections: whether new clients are served meanwhile, and what it costs in memory.

    python -m benchmarks.load.edge [--silent 2500] [--stuck 1100] [--seconds 12]

Starts `journey-bandit serve` (travel, in memory) with its default bounds. First `--silent` connections are opened that
send nothing, then `--stuck` ones that ask for the largest script of the page at /docs and read nothing; all come from
one address, which new clients share. Each new client opens a connection and asks for a decision, fifty a second; it is
served if it has a whole answer within five seconds. Memory is the service's own, compared with what it was before.
Linux only: it reads /proc. It opens as many files as it has connections (`ulimit -n`).
"""

import argparse
import asyncio
import os
import resource
import socket
import tempfile
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from api.server import free_port
from benchmarks.load import processor
from benchmarks.load.client import HOST, post
from journey_bandit import processes

_PATIENCE = 5.0  # seconds
_APART = 0.02  # seconds between two new clients
_LARGE = b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
_DECISION = post("/v1/decisions", {"stage": "cart", "user_id": "u"})


class NewClients(NamedTuple):
    """New clients of one spell: how many were served, of how many, and how long those took in ms."""

    served: int
    asked: int
    latencies: list[float]

    def line(self, what: str, before: float, now: float) -> str:
        """Line of the table; memory in MB."""
        p50, p99 = np.percentile(self.latencies or [float("nan")], [50, 99])
        share = 100.0 * self.served / self.asked
        return f"  {what:<28}{self.served:>6} of {self.asked:<6}{share:7.1f} %{p50:9.1f}{p99:9.1f}{now - before:+10.0f}"


async def _ask(port: int) -> float | None:
    """Time that a new client's decision took in ms; None if it was not answered."""
    start = perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(_DECISION)
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return 1000.0 * (perf_counter() - start) if head.startswith(b"HTTP/1.1 200") else None


async def new_clients(port: int, seconds: float) -> NewClients:
    """New clients that come for so many seconds, evenly."""
    tasks = []
    for _ in range(round(seconds / _APART)):
        tasks.append(asyncio.create_task(_ask(port)))
        await asyncio.sleep(_APART)
    took = await asyncio.gather(*tasks)
    served = [one for one in took if one is not None]
    return NewClients(len(served), len(took), served)


def hold(port: int, many: int, request: bytes) -> list[socket.socket]:
    """Connections that send `request` and read nothing."""
    held = []
    for _ in range(many):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect((HOST, port))
        made.sendall(request)
        held.append(made)
    return held


def _run(options: argparse.Namespace, folder: Path) -> None:
    port, log = free_port(HOST), folder / "serve.log"
    where = ("--app", "travel", "--store", "memory://", "--port", str(port), "--dev")
    with processes.stopping(processes.serve(*where, log=log)) as server:
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        asyncio.run(new_clients(port, 2.0))  # warm up
        before = processor.megabytes(server.pid)[0]
        print(f"  {'':<28}{'new clients served':<24}{'p50 ms':>9}{'p99 ms':>8}{'memory MB':>11}")
        spells = [("nobody else", 0, b""), (f"{options.silent} silent", options.silent, b"")]
        for what, many, request in [*spells, (f"{options.stuck} that never read", options.stuck, _LARGE)]:
            held = hold(port, many, request)
            found = asyncio.run(new_clients(port, options.seconds))
            print(found.line(what, before, processor.megabytes(server.pid)[0]), flush=True)
            for one in held:
                one.close()


def main() -> None:
    """Parse the arguments, start the service, let the clients come, print the table, and stop the service."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--silent", type=int, default=2500)
    parser.add_argument("--stuck", type=int, default=1100)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with tempfile.TemporaryDirectory() as folder:
        _run(options, Path(folder))
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
