"""The benchmark of the learned price: its worlds, its truth by hand, and that it runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence import price
from simulations.offline.runner import SimulationCell

ROOT = Path(__file__).parents[3]
PATIENCE = 120.0


def test_worlds_go_from_no_fatigue_to_strong() -> None:
    for app in ("travel", "fintech"):
        tired = [price.world(app, strength).fatigue for strength in price.STRENGTHS]
        assert [one.tires for one in tired] == pytest.approx([0.0, 0.1 / 3, 0.2 / 3, 0.1])
        assert [one.leaves for one in tired][1:] == pytest.approx([0.5 / 3, 0.7 / 3, 0.3])
        assert price.world(app, 1.0).visits.pull_forward == 0.0


def test_the_truth_is_nothing_without_fatigue_and_that_of_the_world_with_it() -> None:
    """With no `dulls`, what a recent nudge takes is `tires`, exactly."""
    made = {}
    for strength in (0.0, 1.0):
        cell = SimulationCell(scenario=price.world("fintech", strength), policy="uniform", users=300, days=8, seed=1)
        made[strength] = price.log(cell)
    assert made[0.0].truth == (0.0, 0.0)
    assert made[1.0].truth.tired == pytest.approx(0.1, abs=0.02)
    assert 0.02 < made[1.0].truth.price < 0.2
    log = made[1.0]
    assert len(log.settled.reward) == len(log.found.centred)
    assert abs(log.found.centred.mean()) < 5 * log.found.centred.std() / np.sqrt(len(log.found.centred) / 3)


def test_it_runs() -> None:
    command = [sys.executable, "-m", "benchmarks.evidence.price", "--quick", "--apps", "fintech", "--workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "learned: the true price is in" in done.stdout
    assert "naive regression: mean error" in done.stdout
