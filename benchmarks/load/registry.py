"""Registry load: does a registry that is gone slow decisions? p50, p99 with a sync on a healthy MLflow, a stopped one,
a black hole.

    python -m benchmarks.load.registry [--decisions 3000] [--rounds 3]

One service with a durable ledger, one connection. The three conditions take turns within each round, each with a real
`registry sync` at 0.5 s; printed are medians over rounds, and the ratio to the healthy one of the same round. Learning
is checked: settlements must grow in every condition.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from api.server import free_port
from bandit.errors import RemoteError
from journey_bandit import mlflow_server, processes

_HOST = "127.0.0.1"


@contextmanager
def black_hole() -> Iterator[str]:
    """Address of a server that accepts connections and never answers, as a context manager."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                while True:
                    kept.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in kept:
            connection.close()


@contextmanager
def _sync(url: str, mlflow: str, store: str, folder: Path) -> Iterator[None]:
    words = ("registry", "sync", "--url", url, "--mlflow", mlflow, "--store", store, "--every", "0.5")
    command = [sys.executable, "-m", "journey_bandit", *words, "--publish-every", "20", "--spool", str(folder)]
    with processes.stopping(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)):
        deadline = time.monotonic() + 90
        while "journey_bandit_registry_up" not in _lines(url) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield


def _lines(url: str) -> dict[str, float]:
    text = httpx.get(f"{url}/metrics", timeout=10).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _decide(client: httpx.Client, n: int) -> list[float]:
    """Milliseconds of n decisions, each rewarded at once or left silent."""
    took = []
    for i in range(n):
        body = {"stage": "cart", "user_id": str(uuid.uuid4()), "context": {"price": 20.0 + i % 2000}}
        start = time.perf_counter()
        reply = client.post("/v1/decisions", json=body)
        took.append(1000.0 * (time.perf_counter() - start))
        reply.raise_for_status()
    return sorted(took)


def _settled(url: str) -> float:
    return sum(value for name, value in _lines(url).items() if name.startswith("journey_bandit_settlements_total"))


def main() -> None:
    """Parse the arguments, measure the three conditions, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--decisions", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"healthy": [], "stopped": [], "black hole": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, tracking, nobody = (free_port(_HOST) for _ in range(3))
        url, store, log = f"http://{_HOST}:{port}", f"sqlite:///{folder / 'travel.db'}", folder / "serve.log"
        options = ("--app", "travel", "--store", store, "--port", str(port), "--dev", "--window-scale", "1e-6")
        service = stack.enter_context(processes.stopping(processes.serve(*options, log=log)))
        server = stack.enter_context(processes.stopping(mlflow_server.start(folder / "mlflow", _HOST, tracking)))
        processes.wait(service, f"{url}/health/ready", log)
        processes.wait(server, f"http://{_HOST}:{tracking}/health", folder / "mlflow" / "server.log")
        hole = stack.enter_context(black_hole())
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        _decide(client, 300)
        where = {"healthy": f"http://{_HOST}:{tracking}", "stopped": f"http://{_HOST}:{nobody}", "black hole": hole}
        for number in range(given.rounds):
            for name, mlflow in where.items():
                with _sync(url, mlflow, store, folder / f"spool-{name.split()[0]}"):
                    before = _settled(url)
                    took = _decide(client, given.decisions)
                    client.get("/v1/policies", params={"wait": True})
                    if _settled(url) <= before:
                        raise RemoteError("learning stopped")
                    found[name].append((took[len(took) // 2], took[int(len(took) * 0.99)]))
                    failing = client.get("/health/ready").json()["failing"].get("registry", "nothing failing")
                    last = f"p50 {found[name][-1][0]:.2f} ms, p99 {found[name][-1][1]:.2f} ms"
                    print(f"round {number + 1}, {name:<10} {last}; {failing[:60]}")
    for name, rows in found.items():
        p50, p99 = (statistics.median(row[i] for row in rows) for i in (0, 1))
        ratio = statistics.median(mine[1] / healthy[1] for mine, healthy in zip(rows, found["healthy"], strict=True))
        print(f"{name:<10} p50 {p50:.2f} ms  p99 {p99:.2f} ms  p99 against healthy × {ratio:.2f}")


if __name__ == "__main__":
    main()
