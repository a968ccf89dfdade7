"""The benchmark of the gate: its variances and its sequence against logs that are drawn, and that it runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.catalogue.net_value import ArmWorth
from bandit.propensity.floor import apportioned_many
from bandit.propensity.mixture import HEAVIEST, half_and_half
from benchmarks.evidence import gate
from benchmarks.evidence.gate import JudgedSituations
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.inference.sequences import Sequence, SequenceDraws, levels
from experiments.promotion.judgement import LIVE, judgement

ROOT = Path(__file__).parents[3]
K, PATIENCE = 4, 120.0


@pytest.fixture(scope="module")
def better() -> JudgedSituations:
    """Situations in which the candidate is better by a tenth of what the live policy earns."""
    rng = np.random.default_rng(11)
    may = np.ones((400, K), dtype=np.bool_)
    live, mine = (apportioned_many(rng.dirichlet(np.full(K, a), 400), 0.02, may) for a in (2.0, 0.5))
    rate = np.clip(0.2 + rng.normal(0.0, 0.05, (400, K)), 0.05, 0.5)
    predicted = np.clip(rate + rng.normal(0.0, 0.05, (400, K)), 0.0, 1.0)
    worth = ArmWorth(np.array([30.0, 30.0, 27.0, 30.0]), np.array([0.0, 0.5, 0.0, 0.2]))
    found = JudgedSituations(live, mine, half_and_half(live, mine), predicted, rate, worth, 0.02)
    return gate.tilted(found, 0.1 * found.earns)


class DrawnRounds(NamedTuple):
    """Situation, arm and reward of n rounds, (n,) each."""

    row: NDArray[np.intp]
    arm: NDArray[np.intp]
    reward: Array


def drawn(found: JudgedSituations, p: Array, n: int, rng: np.random.Generator) -> DrawnRounds:
    """n rounds, the arms drawn from `p`."""
    row = rng.integers(0, len(p), n)
    arm = (rng.random((n, 1)) > np.cumsum(p[row], axis=1)).sum(axis=1).clip(0, K - 1)
    return DrawnRounds(row, arm, (rng.random(n) < found.rate[row, arm]).astype(np.float64))


def test_rates_are_moved_until_the_candidate_is_better_by_so_much(better: JudgedSituations) -> None:
    assert better.lift == pytest.approx(0.1 * gate.tilted(better, 0.0).earns, rel=0.2)
    level = gate.tilted(better, 0.0)
    assert level.lift == pytest.approx(0.0, abs=1e-9)
    assert ((level.rate >= 0.0) & (level.rate <= 1.0)).all()


@pytest.mark.parametrize("mixed", [True, False])
def test_the_variance_of_a_round_is_that_of_drawn_rounds(better: JudgedSituations, mixed: bool) -> None:
    """200,000 rounds: a relative error of 0.02 is some four standard errors."""
    p = better.mixture if mixed else better.live
    row, arm, reward = drawn(better, p, 200_000, np.random.default_rng(3))
    delta, net = better.candidate[row] - better.live[row], better.worth.net(better.predicted)[row]
    each = np.arange(len(row))
    weight = delta[each, arm] / p[row, arm]
    phi = (delta * net).sum(axis=1) + weight * (better.worth.net(reward, arm) - net[each, arm])
    assert gate.variance(better, p, better.worth.net(better.predicted)) == pytest.approx(phi.var(), rel=0.02)
    assert phi.mean() == pytest.approx(better.lift, abs=5.0 * phi.std() / 200_000**0.5)


def test_the_declared_number_has_the_power_that_is_said(better: JudgedSituations) -> None:
    """False alarm ≤ 1e-6: of 200 logs 80 % ± 13.8 points (4.9 standard errors) tell the candidate from a level one."""
    n = round(gate.at_fixed_n(gate.variance(better, better.mixture, better.worth.net(better.predicted)), better.lift))
    assert 300 < n < 5000
    rng, told = np.random.default_rng(4), 0
    for _ in range(200):
        row, arm, reward = drawn(better, better.mixture, n, rng)
        rounds = LoggedRounds(
            action=arm,
            reward=reward,
            pscore=better.mixture[row, arm],
            propensities=better.mixture[row],
            q_hat=better.predicted[row],
            candidate=better.candidate[row],
        )
        verdict = judgement(chunked(rounds), n, n, RewardRange(0.0, 1.0), better.worth).verdict
        assert verdict is not None
        told += verdict.contrasts[LIVE].interval[0] > 0.0
    assert 0.66 <= told / 200 <= 0.94


def test_the_paths_of_wealth_are_those_of_the_sequence(better: JudgedSituations) -> None:
    """The sequence itself on 60 drawn logs: at the number that is said, 80 % ± 26 points (5 standard errors) have told,
    looked at five times on the way.
    """
    n = round(gate.by_sequence(better, better.mixture, HEAVIEST, 1))
    ends = np.array([better.worth.net(np.full(K, reward)) for reward in (0.0, 1.0)])
    low, span = ends.min(), ends.max() - ends.min()
    rng = np.random.default_rng(5)
    made = drawn(better, better.mixture, 60 * n, rng)
    row, arm, reward = made.row.reshape(60, n), made.arm.reshape(60, n), made.reward.reshape(60, n)
    sequence = Sequence.of_lift(levels(HEAVIEST), levels(HEAVIEST), (60,))
    told = np.zeros(60, dtype=np.bool_)
    for part in np.array_split(np.arange(n), 5):
        at = row[:, part]
        value = (better.worth.net(reward[:, part], arm[:, part]) - low) / span
        net = (better.worth.net(better.predicted)[at] - low) / span
        draws = SequenceDraws(arm[:, part], value, better.mixture[at], net)
        sequence = sequence.fed(draws, better.candidate[at], better.live[at])
        told |= sequence.bounds()[0] > 0.0
    assert told.mean() >= 0.54


def test_the_command_runs() -> None:
    words = [sys.executable, "-m", "benchmarks.evidence.gate", "--quick", "--json"]
    done = subprocess.run(words, capture_output=True, cwd=ROOT, timeout=PATIENCE, check=True, text=True)
    told = json.loads(done.stdout)
    (row,) = told["rows"]
    assert (row["app"], row["live"], row["candidate"], told["lift"]) == ("travel", "hierarchical", "linear", 0.02)
    needed = {way: row["needed"][way]["mean"] for way in gate.WAYS}
    assert needed["mixture, fixed n"] < needed["mixture, sequence"] < needed["live, sequence"]
    wrong = [*words, "--pairs", "linear"]
    refused = subprocess.run(wrong, capture_output=True, cwd=ROOT, timeout=PATIENCE, check=False, text=True)
    assert refused.returncode == 1
    assert "pairs as live/candidate" in refused.stderr
