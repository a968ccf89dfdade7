"""A ledger with a bit of everything as the service of an older commit wrote it.

`python -m tests.data.ledgers.full COMMIT FILE.db.gz` at the root of a checkout. Three stages, a warm start, two drift
epochs, events that report rewards, a release, an endpoint that never answers, and a second start with a retired nudge
and a new schema. What the old program said of it stands in FILE.json beside it: versions and digests of beliefs.
"""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from api.server import free_port
from tests.data.ledgers.make import HOST, SALT, SCALE, program, release, until_ready

HERE = Path(__file__).parent
WARM = 40


def main(commit: str, to: Path) -> None:
    """Write the ledger, and what the old program says of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        archive = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(folder / "source", filter="data")
        old = _Old(folder, folder / "source")
        old.warm()
        with old.serving() as client:
            old.people(client, range(150), lambda i: i % 2 == 0)
            time.sleep(5.0)
            old.people(client, range(150, 300), lambda _: True)
            time.sleep(5.0)
            client.get("/v1/policies?wait=true")
            release(client)
            old.events(client)
        old.declare_anew()
        with old.serving() as client:
            old.people(client, range(300, 330), lambda i: i % 3 == 0)
            time.sleep(5.0)
            old.people(client, range(330, 350), lambda _: False)
            said = client.get("/v1/policies?wait=true").json()
        verified = old.run("rebuild", "--verify")
        facts = {
            "commit": commit,
            "policies": {p["stage"]: [p["version"], p["belief_sha256"]] for p in said["policies"]},
            "verify": verified.splitlines(),
        }
        to.write_bytes(gzip.compress(old.ledger.read_bytes(), mtime=0))
        to.with_suffix("").with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def declared_anew(text: str) -> str:
    """The catalogue of the second start."""
    head, _, rest = text.replace("schema = 1", "schema = 2").partition("[stages.cart.nudges.few_left]")
    return head + rest[rest.index("[stages.pay]") :]


class _Old:
    """The old program and its ledger."""

    def __init__(self, folder: Path, source: Path):
        self.folder, self.source, self.ledger = folder, source, folder / "shop.db"
        self.catalogue, self.webhooks = folder / "shop.toml", folder / "webhooks.toml"
        self.catalogue.write_text((HERE / "full.toml").read_text(encoding="utf-8"), encoding="utf-8")
        nobody = f"http://{HOST}:{free_port(HOST)}"
        secret = "whsec_" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"
        self.webhooks.write_text(f'[endpoints.crm]\nurl = "{nobody}"\nsecret = "{secret}"\n', encoding="utf-8")

    def declare_anew(self) -> None:
        """Another schema of `plan`, and one nudge of `cart` less."""
        self.catalogue.write_text(declared_anew(self.catalogue.read_text(encoding="utf-8")), encoding="utf-8")

    def run(self, *words: str) -> str:
        command = [*program(self.source), *words, "--store", f"sqlite:///{self.ledger}"]
        around = os.environ | {"JOURNEY_BANDIT_SALT": SALT}
        done = subprocess.run(command, cwd=self.source, env=around, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[httpx.Client]:
        port = free_port(HOST)
        words = ("--app", str(self.catalogue), "--store", f"sqlite:///{self.ledger}", "--port", str(port), "--dev")
        more = ("--salt", SALT, "--window-scale", SCALE, "--webhooks", str(self.webhooks))
        with subprocess.Popen([*program(self.source), "serve", *words, *more], cwd=self.source) as server:
            try:
                with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client:
                    until_ready(client)
                    yield client
            finally:
                server.terminate()

    def warm(self) -> None:
        log = self.folder / "log.csv"
        rows = [f"{i % 100},{'trust' if i % 2 else 'none'},{int(i % 3 == 0)}" for i in range(WARM)]
        log.write_text("\n".join(["price,arm,reward", *rows]) + "\n", encoding="utf-8")
        self.run("warm-start", "--log", str(log), "--app", str(self.catalogue), "--stage", "pay", "--weight", "0.5")

    def people(self, client: httpx.Client, numbers: range, buys: Any) -> None:
        for i in numbers:
            stage = ("cart", "cart", "pay", "plan")[i % 4]
            context = {} if stage == "cart" else {"price": i % 100}
            body = {"stage": stage, "user_id": f"u{i}", "decision_id": str(uuid.UUID(int=i + 1)), "context": context}
            client.post("/v1/decisions", json=body).raise_for_status()
            if buys(i):
                told = {"decision_id": body["decision_id"], "kind": "reward", "value": 1}
                client.post("/v1/outcomes", json=told).raise_for_status()

    def events(self, client: httpx.Client) -> None:
        for i in range(12):
            ask = {"stage": "cart", "user_id": f"e{i}", "decision_id": str(uuid.UUID(int=1000 + i))}
            client.post("/v1/decisions", json=ask).raise_for_status()
            sent = [
                {"event_id": f"a{i}", "event": "Product Added", "user_id": f"e{i}", "properties": {"product_id": "p"}},
                {
                    "event_id": f"o{i}",
                    "event": "Order Completed",
                    "user_id": f"e{i}",
                    "properties": {"order_id": f"o{i}"},
                },
            ]
            client.post("/v1/events", json={"events": sent}).raise_for_status()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
