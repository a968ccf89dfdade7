"""A small ledger as the service of an older commit wrote it: `python tests/data/ledgers/make.py COMMIT FILE.gz`; with
`--unnamed` at the end, one that has UNNAMED, events that bring no id, and no decisions.

Run it at the root of a checkout. The commit's own code serves, from a copy in a temporary folder, with the packages
that are installed now. Which commit made which file is in the README beside this.
"""

import base64
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import httpx

from api.server import free_port

HERE = Path(__file__).parent
UNNAMED: dict[str, list[dict[str, Any]]] = {
    "/v1/data/collector": [
        {
            "events": [
                {"kind": "tracking", "key": "Order Completed", "userKey": "ann", "creationDate": 1764500000.5},
                {"kind": "tracking", "key": "Product Viewed", "userKey": "bob", "trackingEventDetails": {"price": 3}},
            ]
        }
    ],
    "/v1/track": [
        {"type": "track", "event": "Order Completed", "userId": "ann", "timestamp": "2025-11-30T12:00:00Z"},
        {"type": "track", "event": "Order Completed", "userId": "bob", "messageId": "long " * 40},
    ],
}
"""Bodies by path: four events, of which two say when they happened."""
HOST, SALT, SCALE = "127.0.0.1", "pepper", "1e-4"  # a window of 10 hours is 3.6 seconds


def main(commit: str, to: Path, *, unnamed: bool = False) -> None:
    """Serve 30 people, wait until their windows end, then 8 more who stay open; a release where there are releases. Or
    tell it the events that are `unnamed`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        source, port = Path(temporary) / "source", free_port(HOST)
        ledger = Path(temporary) / "shop.db"
        archive = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(source, filter="data")
        words = ("--app", str(HERE / "shop.toml"), "--store", f"sqlite:///{ledger}", "--port", str(port), "--dev")
        command = [*program(source), "serve", *words, "--salt", SALT, "--window-scale", SCALE]
        with subprocess.Popen(command, cwd=source) as server:
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client:
                until_ready(client)
                if unnamed:
                    tell_unnamed(client)
                else:
                    _people(client, range(30))
                    time.sleep(6.0)
                    release(client)
                    _people(client, range(30, 38))
                    _event(client)
            server.terminate()
            server.wait()  # the ledger's log is in its file then
        to.write_bytes(gzip.compress(ledger.read_bytes(), mtime=0))


def program(source: Path) -> list[str]:
    """The command line of a checkout."""
    return [sys.executable, "-m", "journey_bandit" if (source / "journey_bandit").is_dir() else "cli.main"]


def until_ready(client: httpx.Client) -> None:
    for _ in range(200):
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the service did not start")


def _people(client: httpx.Client, numbers: range) -> None:
    for i in numbers:
        context = {"price": 3 * i, "returning": i % 2 == 0}
        body = {"stage": "cart", "user_id": f"u{i}", "decision_id": str(uuid.UUID(int=i + 1)), "context": context}
        client.post("/v1/decisions", json=body).raise_for_status()
        if i % 3 == 0:
            time.sleep(0.1)
            told = {"decision_id": body["decision_id"], "kind": "reward", "value": 1}
            client.post("/v1/outcomes", json=told).raise_for_status()


def release(client: httpx.Client) -> None:
    snapshot = client.get("/v1/policies/cart/snapshot")
    if snapshot.status_code != 200 or client.get("/v1/releases").status_code != 200:
        return
    with zipfile.ZipFile(io.BytesIO(snapshot.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    policies: list[dict[str, Any]] = client.get("/v1/policies").json()["policies"]
    body = {
        "model": "shop-cart", "version": "1", "approved_by": "ana", "approved_at": "2026-01-01T00:00:00Z",
        "reason": "better", "sha256": hashlib.sha256(files["policy.json"]).hexdigest(),
        "belief_sha256": policies[0]["belief_sha256"],
        "policy": base64.b64encode(files["policy.json"]).decode(),
        "posterior": base64.b64encode(files["posterior.npz"]).decode(),
    }  # fmt: skip
    client.put("/v1/policies/cart/release", json=body).raise_for_status()


def tell_unnamed(client: httpx.Client) -> None:
    """Tell the events that bring no id."""
    for path, bodies in UNNAMED.items():
        for body in bodies:
            client.post(path, json=body).raise_for_status()


def _event(client: httpx.Client) -> None:
    body = {"events": [{"event_id": "e1", "event": "Order Completed", "user_id": "u31"}]}
    client.post("/v1/events", json=body)  # 404 before there were events


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), unnamed="--unnamed" in sys.argv)
