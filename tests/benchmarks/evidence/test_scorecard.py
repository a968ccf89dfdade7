"""Intervals keep their promises on logs of an adaptive policy; and those logs are what they say.

The short scorecard: 250 logs a world. A cell that covers 95 % falls below 218 of 250 with chance < 4e-7 (below 1e-6 for
each); one that covers 74 % passes with chance < 1e-6. The full one, 1,000 logs up to n = 10,000:
docs/explanation/inference.md.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bandit.belief import Belief
from bandit.policies import Linear
from bandit.policies.protocol import ArmEconomics
from bandit.propensity.floor import floored
from benchmarks.evidence import scorecard, worlds
from benchmarks.evidence.worlds import BATCH, CONTEXTS, FLOORS, K, logs
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]
LEAST = 218


def test_the_policy_is_the_shipped_one() -> None:
    """Scores and propensities of `linear` after 300 decisions, one decision at a time."""
    sums = np.zeros((K, 4, 4)), np.zeros((K, 4)), np.zeros(K), np.zeros(K)
    for number, batch in enumerate(logs("rare", 2, 400, 3)):
        if number == 3:
            break
        for c, a, r in zip(batch.context[0], batch.action[0], batch.reward[0], strict=True):
            sums[0][a] += np.outer(CONTEXTS[c], CONTEXTS[c])
            sums[1][a] += r * CONTEXTS[c]
            sums[2][a] += 1.0
            sums[3][a] += r
    belief = Belief(n=sums[2], reward=sums[3], square=sums[3], precision=sums[0], shift=sums[1])
    arms = ArmEconomics(tuple("abcde"), ("none",) * K, np.ones(K), np.zeros(K))
    shipped = Linear().posterior(belief, arms)
    for row in range(BATCH):
        found = shipped.choose(CONTEXTS[batch.context[0, row]], np.ones(K, dtype=np.bool_))
        assert batch.q_hat[0, row] == pytest.approx(np.clip(found.mean, 0.0, 1.0))
        assert batch.propensity[0, row] == pytest.approx(worlds.floored(found.propensity, FLOORS), abs=1e-6)


def test_the_floor_is_the_shipped_projection() -> None:
    for p in np.random.default_rng(4).dirichlet(np.full(K, 0.3), 200):
        shipped = floored(p, 0.05, np.ones(K, dtype=np.bool_))
        assert worlds.floored(p, np.full(K, 0.05)) == pytest.approx(shipped)


@pytest.mark.parametrize("world", list(worlds.RATES))
def test_propensities_are_those_of_the_draw_and_rates_those_of_the_truth(world: str) -> None:
    """100,000 decisions: |z| < 5.5, false alarm < 1e-6 for six worlds; mean 1/p is K."""
    counts, expected, spread, inverse, gap, noise = np.zeros(K), np.zeros(K), np.zeros(K), [], 0.0, 0.0
    for batch in logs(world, 50, 2000, 5):
        p = batch.propensity
        counts += np.bincount(batch.action.ravel(), minlength=K)
        expected += p.sum(axis=(0, 1))
        spread += (p * (1 - p)).sum(axis=(0, 1))
        inverse.append(1.0 / np.take_along_axis(p, batch.action[..., None], 2))
        each = np.arange(50)[:, None]
        rate = batch.truth[each, batch.context, batch.action]
        gap += float((batch.reward - rate).sum())
        noise += float((rate * (1 - rate)).sum())
        assert (p >= FLOORS - 1e-12).all()
    assert (np.abs(counts - expected) < 5.5 * np.sqrt(spread)).all()
    weights = np.concatenate(inverse, axis=1).ravel()
    assert abs(weights.mean() - K) < 5.5 * weights.std() / np.sqrt(len(weights))
    assert abs(gap) < (9.0 if world == "recurring" else 5.5) * np.sqrt(noise)  # people who return are not independent


@pytest.mark.parametrize(
    ("world", "sizes"),
    [("rare", (300, 1000)), ("rare tie", (100, 300)), ("tie", (100, 300)), ("recurring", (100, 300))],
)
def test_intervals_and_sequences_cover(world: str, sizes: tuple[int, ...]) -> None:
    assert stats.binom.cdf(LEAST - 1, 250, 0.95) < 1e-6
    assert stats.binom.sf(LEAST - 1, 250, 0.74) < 1e-6
    for row in scorecard.scorecard(world, 250, 77, sizes, resamples=1):
        name = (row["world"], row["policy"], row["n"])
        assert row["coverage"]["dr ghu"] >= LEAST / 250, name
        assert row["stayed"] >= LEAST / 250, name
        assert row["width"]["dr sequence"] > row["width"]["dr student"], name


def test_the_short_scorecard_would_notice_the_plain_bootstrap() -> None:
    """It covers a rare reward's arm in 82 to 86 % of logs at n = 300: fewer than `LEAST`."""
    (row,) = [row for row in scorecard.scorecard("rare", 250, 77, (300,), resamples=200) if row["policy"] == "plan"]
    assert row["coverage"]["dr bootstrap"] < LEAST / 250


@pytest.mark.slow
@pytest.mark.parametrize("world", list(worlds.RATES))
def test_at_ten_thousand_intervals_are_tight_and_sequences_hold_at_every_step(world: str) -> None:
    """Widths against the bootstrap's and Student's; the arm under drift is the exception that is known."""
    for row in scorecard.scorecard(world, 250, 78, (10_000,), resamples=300):
        width, name = row["width"], (row["world"], row["policy"])
        most = 1.4 if name == ("drift", "arm") else 1.2
        assert width["dr ghu"] <= most * width["dr bootstrap"], name
        assert width["dr sequence"] <= 2.0 * width["dr student"], name
        assert row["stayed"] >= LEAST / 250, name
        assert row["coverage"]["dr ghu"] >= LEAST / 250, name


def test_it_runs_and_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "evidence.json"
    command = [sys.executable, "-m", "benchmarks.evidence.scorecard", "--worlds", "mid", "--reps", "4", "--most", "300"]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "dr ghu" in done.stdout
    assert '"coverage"' in out.read_text("utf-8")
