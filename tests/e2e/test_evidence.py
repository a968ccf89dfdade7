"""Simulated people over HTTP, then the ledger's own log evaluated: the simulator's truth is within the interval."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from api.server import free_port
from bandit.snapshot import to_zip
from journey_bandit import processes
from simulations import scenario
from simulations.live import driver
from simulations.live.client import ServiceClient
from simulations.live.driver import LiveRunResult
from tests.waiting import COMMAND_PATIENCE

USERS = 4000
SURE = 0.999999


class Ran(NamedTuple):
    ledger: Path
    truth: LiveRunResult
    first: Path  # snapshot of version 0
    last: Path  # snapshot that learned from everything


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A service of the travel app that simulated people used; it serves while its ledger is read."""
    folder, port = tmp_path_factory.mktemp("evidence"), free_port("127.0.0.1")
    ledger, log = folder / "travel.db", folder / "serve.log"
    options = ("--app", "travel", "--store", f"sqlite:///{ledger}", "--port", str(port), "--dev", "--salt", "evidence")
    with processes.stopping(server := processes.serve(*options, "--clock", "driven", log=log)):
        url = f"http://127.0.0.1:{port}"
        processes.wait(server, f"{url}/health/ready", log)
        world = scenario.load("travel")
        with ServiceClient(url) as client:
            before = client.snapshot(world.stage)
            truth = driver.drive(client, world, before.stage_spec, seed=7, users=USERS, progress=lambda _: None)
            after = client.snapshot(world.stage)
        for name, snapshot in (("first.zip", before), ("last.zip", after)):
            (folder / name).write_bytes(to_zip(snapshot))
        yield Ran(ledger, truth, folder / "first.zip", folder / "last.zip")


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "journey_bandit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_PATIENCE, check=False)


def evaluated(ran: Ran, *arguments: Any) -> dict[str, Any]:
    done = run("evaluate", "--ledger", ran.ledger, "--stage", "cart", "--json", *arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_truth_of_every_policy_is_within_its_interval(ran: Ran) -> None:
    """Net value of four policies, and their lifts over no nudge, each at 1 − 1e-6: false alarm ≤ 1e-5 over all. The
    people drive the clock, so every run is this one. The logged policy's interval is narrower than
    5 EUR: errors from that size on are found.
    """
    names = ["logged", "uniform", "none", "fixed:price_freeze"]
    chosen = [word for name in names for word in ("--policy", name)]
    found = evaluated(ran, *chosen, "--against", "none", "--measure", "net", "--level", SURE)
    log, utility = ran.truth.log.only(~ran.truth.log.holdout), ran.truth.utility[~ran.truth.log.holdout]
    freeze = np.zeros_like(utility)
    freeze[:, 2] = 1.0
    none = np.zeros_like(utility)
    none[:, 0] = 1.0
    policies = [log.propensities, log.eligible / log.eligible.sum(axis=1, keepdims=True), none, freeze]
    for name, pi, body in zip(names, policies, [found, *found["others"]], strict=True):
        assert (body["policy"], body["n"]) == (name, len(log.arm))
        low, high = body["estimates"]["dr"]["interval"]
        assert low <= float((pi * utility).sum(axis=1).mean()) <= high, name
        assert name != "logged" or high - low < 5.0
        low, high = body["contrasts"]["none"]["interval"]
        assert low <= float((pi * utility).sum(axis=1).mean() - utility[:, 0].mean()) <= high, name


def rewards(ledger: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of every decision in order: the reward that was recorded, and the one that came before its window ended."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as conn:
        found = conn.execute(
            "SELECT coalesce(o.value, 0.0), coalesce(o.value * (1 - o.late), 0.0) FROM decisions d "
            "LEFT JOIN outcomes o ON o.decision = d.id ORDER BY d.seq"
        ).fetchall()
    recorded, in_time = np.array(found).T
    return recorded, in_time


def test_rewards_are_those_that_the_people_sent(ran: Ran) -> None:
    """Every reward that was sent is in the ledger, in time, and no other: the people drive the clock."""
    recorded, in_time = rewards(ran.ledger)
    mine = ~ran.truth.log.holdout
    assert np.array_equal(recorded, ran.truth.log.reward)
    assert np.array_equal(in_time, recorded)
    assert recorded.sum() > 100
    found = evaluated(ran, "--policy", "logged", "--measure", "reward")
    assert found["estimates"]["ips"]["value"] == pytest.approx(in_time[mine].mean())
    assert found["holdout"]["n"] == int((~mine).sum())
    assert found["holdout"]["value"] == pytest.approx(in_time[~mine].mean())


def test_a_snapshot_is_judged_only_by_decisions_after_those_it_learned_from(ran: Ran) -> None:
    """Version 0 by all of them; the last snapshot by none, so that the log is refused."""
    first = evaluated(ran, "--policy", ran.first)
    assert first["n"] == np.count_nonzero(~ran.truth.log.holdout)
    done = run("evaluate", "--ledger", ran.ledger, "--stage", "cart", "--policy", ran.last, "--json")
    assert done.returncode == 3, done.stderr
    last = json.loads(done.stdout)
    assert (last["n"], last["estimates"], last["refused"][0]["reason"]) == (0, {}, "empty")
    assert "this snapshot learned from all " in last["refused"][0]["detail"]
    assert "--hold-back" in last["refused"][0]["needed"]


def test_monitor_agrees_with_the_truth(ran: Ran) -> None:
    done = run("monitor", "--ledger", ran.ledger, "--stage", "cart", "--measure", "net", "--level", SURE, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    log, utility = ran.truth.log, ran.truth.utility
    each = np.arange(len(log.arm))
    lift = float((utility[each, log.arm] - utility[:, 0])[~log.holdout].mean())
    for part in ("interval", "sequence"):
        low, high = found["lift"][part]
        assert low <= lift <= high
    assert found["routing"]["alarms"] == []
    assert found["recurring_users"] is False
