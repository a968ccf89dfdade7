"""Decision service that a team would build in a day, as a yardstick: FastAPI, Vowpal Wabbit's squarecb, and SQLite with
synchronous=FULL and one commit for each decision.

    python -m benchmarks.comparison.user_built PORT FILE       served by uvicorn; needs the extra `bench`, and FastAPI

It keeps no promise but durability: no exact propensities, no limits, no delayed rewards, no receipts.
"""

import contextlib
import importlib
import importlib.util
import json
import random
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.server import free_port
from benchmarks.load.client import HOST
from journey_bandit import processes

ARMS = ("none", "reminder", "price_freeze", "discount_5", "discount_10")


def installed() -> bool:
    """Whether what it is built from is installed."""
    return all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "vowpalwabbit"))


@contextlib.contextmanager
def service(folder: Path) -> Iterator[tuple[int, int]]:
    """Context in which it runs with its file in `folder`: its process and its port."""
    port, log = free_port(HOST), folder / "user_built.log"
    command = [sys.executable, "-m", "benchmarks.comparison.user_built", str(port), str(folder / "user_built.db")]
    with log.open("ab") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    with processes.stopping(server):
        processes.wait(server, f"http://{HOST}:{port}/health", log)
        yield server.pid, port


def app(path: str) -> Any:
    """FastAPI application with its table in the file `path`."""
    from fastapi import FastAPI

    model = importlib.import_module("vowpalwabbit").Workspace(f"--cb_explore {len(ARMS)} --squarecb --quiet")
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute(
        "CREATE TABLE IF NOT EXISTS decisions (id TEXT PRIMARY KEY, user TEXT, context TEXT, arm TEXT, p REAL)"
    )
    made = FastAPI()

    @made.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @made.post("/v1/decisions")
    async def decide(body: dict[str, Any]) -> dict[str, Any]:
        features = " ".join(f"{name}:{value}" for name, value in body["context"].items())
        p = model.predict(f"| {features}")
        arm = random.choices(range(len(ARMS)), p)[0]
        row = (uuid.uuid4().hex, body["user_id"], json.dumps(body["context"]), ARMS[arm], p[arm])
        conn.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", row)
        return {"id": row[0], "nudge": row[3], "propensity": row[4]}

    return made


def main() -> None:
    """Serve on a port, with a file."""
    import uvicorn

    uvicorn.run(app(sys.argv[2]), host=HOST, port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
