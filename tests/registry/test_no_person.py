"""A registry of policies knows nobody: what people sent, their hashes and the ids of their decisions are in no run, no
artifact, no database and no report that is made from a ledger, before an erasure or after it.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.server import free_port
from journey_bandit import processes
from tests.api.people.test_planted import SHOP, STORED, Planted, found, plant, raw
from tests.registry.conftest import HOST, SALT, Shop
from tests.waiting import COMMAND_PATIENCE, PATIENCE

STAGE = "look"


@pytest.fixture
def kiosk(mlflow: tuple[str, Path], tmp_path: Path) -> Iterator[Shop]:
    """The service of an app with journeys, after 400 people."""
    port, log = free_port(HOST), tmp_path / "serve.log"
    url, store = f"http://{HOST}:{port}", f"sqlite:///{tmp_path / 'ledger.db'}"
    options = {"--app": str(SHOP), "--store": store, "--port": str(port), "--salt": SALT, "--clock": "driven"}
    given = ["--dev", *(word for pair in options.items() for word in pair)]
    with processes.stopping(server := processes.serve(*given, log=log)):
        processes.wait(server, f"{url}/health/ready", log)
        asked = [
            {"stage": STAGE, "user_id": f"other-{n}", "decision_id": str(uuid.UUID(int=n + 1)), "context": {}}
            for n in range(400)
        ]
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            made = client.post("/v1/decisions/batch", json={"decisions": asked})
            told = [
                {"decision_id": one["decision"]["decision_id"], "kind": "reward", "value": 1}
                for n, one in enumerate(made.json()["decisions"])
                if n % 3
            ]
            client.post("/v1/outcomes/batch", json={"outcomes": told}).raise_for_status()
            yield Shop(url, store, mlflow[0], mlflow[1], client)


def pass_a_day(shop: Shop) -> None:
    """Every window ends, and all of it is learned."""
    shop.client.post("/v1/clock", json={"microseconds": 25 * 3600 * 10**6}).raise_for_status()
    shop.get("/v1/policies?wait=true")


def marks_of(shop: Shop, planted: Planted) -> list[bytes]:
    """Hashes of a person's ids and ids of their decisions, as bytes, as hex and as text."""
    told = shop.get(f"/v1/users/{planted.user}/export")
    values = [bytes.fromhex(one) for one in told["ids"]]
    ids = [uuid.UUID(one["decision_id"]) for one in told["decisions"]]
    assert len(values) == 3
    assert len(ids) == 5
    values += [one.bytes for one in ids]
    return [form for one in values for form in (one, one.hex().encode())] + [str(one).encode() for one in ids]


def publish_all(shop: Shop, folder: Path, *, approved: bool) -> bytes:
    """Publish a candidate, `approved` or to be scored on live traffic, have the sync log live runs and that score, and
    evaluate: every byte of the registry and of the reports.
    """
    shown = () if approved else ("--shadow",)
    said = shop.ok("publish", STAGE, "--store", shop.store, "--json", *shown)
    if approved:
        version = json.loads(said.splitlines()[-1])["version"]
        shop.ok("promote", "shop", STAGE, version, "--why", "test", "--override", "test", "--who", "ana")
    words = ["registry", "sync", "--once", "--url", shop.url, "--mlflow", shop.mlflow, "--store", shop.store]
    words += ["--publish-every", "0.1", "--spool", str(folder / "spool")]
    done = subprocess.run(
        [sys.executable, "-m", "journey_bandit", *words], capture_output=True, timeout=COMMAND_PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    ledger = ("--ledger", shop.store.removeprefix("sqlite:///"), "--stage", STAGE)
    reports = [shop.run(command, *ledger, "--json") for command in ("evaluate", "monitor")]
    assert {one.exit_code for one in reports} <= {0, 3}, [one.output for one in reports]  # 3: nothing to be told apart
    kept = [path for root in (shop.artifacts, folder / "spool") for path in sorted(root.rglob("*")) if path.is_file()]
    assert {"mlflow.db", "policy.json"} <= {path.name for path in kept}
    return b"\0".join([*(path.read_bytes() for path in kept), *(one.output.encode() for one in reports), done.stderr])


def test_nothing_of_a_person_is_in_a_registry_or_a_report_before_an_erasure_or_after(
    kiosk: Shop, tmp_path: Path
) -> None:
    with httpx.Client(base_url=kiosk.url, timeout=PATIENCE) as client:
        ann, bob = plant(client, "ann-planted"), plant(client, "bob-planted")
        pass_a_day(kiosk)
        marks = marks_of(kiosk, ann) + marks_of(kiosk, bob)
        ledger = raw(tmp_path)
        assert found(ann, ledger) == found(bob, ledger) == STORED
        assert sum(mark in ledger for mark in marks) >= 16  # they are there to be found
        before = publish_all(kiosk, tmp_path, approved=True)
        for planted, forget in ((ann, False), (bob, True)):
            reply = client.delete(f"/v1/users/{planted.user}", params={"forget": forget})
            assert reply.json()["overwritten"], reply.text
        pass_a_day(kiosk)
        after = publish_all(kiosk, tmp_path, approved=False)
    for whole in (before, after, raw(tmp_path)):
        assert found(ann, whole) | found(bob, whole) == set()
        assert [mark for mark in marks if mark in whole] == []
