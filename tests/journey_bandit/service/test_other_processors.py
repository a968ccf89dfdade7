"""A ledger that a service wrote here, audited by the command on other processors."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.settings import Settings
from api.stores.sql.rows.commits import CommitChain
from api.stores.sql.schema import SCHEMA
from tests.bandit.test_processors import OURS, VARIANTS

N = 200
START = 1_760_000_000_000_000
STAGE = """
[stages.{name}]
policy = {policy}
reward = {reward}
[stages.{name}.features]
steps = {{ type = "number", min = 0, max = 10, default = 0 }}
pro = {{ type = "boolean", default = false }}
plan = {{ type = "category", values = ["free", "pro"], default = "free" }}
[stages.{name}.nudges]
tip = {{ type = "help", format = "banner" }}
video = {{ type = "help", format = "sheet" }}
gift = {{ type = "bonus", format = "sheet", cost = 0.1 }}
"""
BINARY = '{ kind = "binary", window = "24h", delay = "2h" }'
REVENUE = '{ kind = "revenue", window = "24h", min = 0, max = 50 }'
STAGES = [
    ("welcome", '{ name = "hierarchical" }', BINARY),
    ("browse", '{ name = "linear" }', BINARY),
    ("cart", '{ name = "logistic", prior_mean = 0.1 }', BINARY),
    ("pay", '{ name = "beta", alpha = 0.5 }', BINARY),
    ("return", '{ name = "hierarchical" }', REVENUE),
]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 decisions of five policies, with rewards, silence and decisions that are still open."""
    folder = tmp_path_factory.mktemp("bits")
    parts = [STAGE.format(name=name, policy=policy, reward=reward) for name, policy, reward in STAGES]
    (app := folder / "bits.toml").write_text('app = "bits"\ncurrency = "EUR"\n' + "".join(parts), "utf-8")
    now, rng, store = [START], np.random.default_rng(11), f"sqlite:///{folder / 'bits.db'}"
    with TestClient(create_app(Settings(app=str(app), dev=True, store=store), clock=lambda: now[0])) as client:
        for n in range(N):
            name, _, reward = STAGES[n % len(STAGES)]
            context = {"steps": float(rng.uniform(0, 10)), "pro": bool(n % 3 == 0), "plan": ("free", "pro")[n % 2]}
            reply = client.post("/v1/decisions", json={"stage": name, "user_id": f"u{n}", "context": context})
            made = reply.raise_for_status().json()["decision_id"]
            now[0] += 1_800_000_000
            if rng.random() < 0.4:
                value = float(rng.gamma(2.0, 7.3)) if reward is REVENUE else 1.0
                outcome = {"decision_id": made, "kind": "reward", "value": value}
                client.post("/v1/outcomes", json=outcome).raise_for_status()
            client.get("/v1/policies", params={"wait": True}).raise_for_status()
    return folder / "bits.db"


QUICK = ("here", "Haswell", "Prescott", "no vectors")
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ("here", *VARIANTS)]


@pytest.mark.parametrize("name", ALL)
def test_every_receipt_and_belief_holds_on_another_processor(ledger: Path, name: str) -> None:
    plain = {key: value for key, value in os.environ.items() if key not in OURS}
    command = [sys.executable, "-m", "journey_bandit", "rebuild", "--verify", "--receipts", str(N)]
    done = subprocess.run(
        [*command, "--store", f"sqlite:///{ledger}"],
        env=plain | VARIANTS.get(name, {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    *beliefs, receipts = done.stdout.splitlines()
    assert len(beliefs) == len(STAGES)
    assert receipts == f"receipts: 0 of {N} differ"


def test_a_changed_receipt_is_named(ledger: Path, tmp_path: Path) -> None:
    """The audit of the last decisions is not blind: one score of one decision is off by its last bit."""
    copy = tmp_path / "copy.db"
    source = f"file:{ledger}?mode=ro"
    with closing(sqlite3.connect(source, uri=True)) as found, closing(sqlite3.connect(copy)) as to, to:
        found.backup(to)
        (mean,) = to.execute("SELECT mean FROM decisions WHERE seq = 150").fetchone()
        off = np.nextafter(np.frombuffer(mean, "<f8"), np.inf)
        to.execute("UPDATE decisions SET mean = ? WHERE seq = 150", (off.astype("<f8").tobytes(),))
        to.execute("DELETE FROM commits")  # else the digest of the commit finds it, whatever receipts say
        CommitChain(SCHEMA).seal(to)
    command = [
        sys.executable,
        "-m",
        "journey_bandit",
        "rebuild",
        "--verify",
        "--store",
        f"sqlite:///{copy}",
        "--receipts",
    ]
    for last, status, said in (("49", 0, "receipts: 0 of 49 differ"), ("60", 1, "receipts: 1 of 60 differ")):
        done = subprocess.run([*command, last], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (status, said)
    assert "DIFFERENT in mean" in done.stdout
