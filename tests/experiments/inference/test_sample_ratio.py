"""Misrouted exposures are found, clean logs are left alone, parts merge, A/A checks pass as often as they say."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from bandit.arrays import Array
from experiments.inference import sample_ratio
from experiments.inference.intervals import Interval, Moments, difference, interval
from experiments.inference.sample_ratio import ALARM, SampleRatio, by_version, merged

ARMS, N = 5, 5000
Ints = NDArray[np.integer]


def apart(left: Moments, right: Moments, level: float = 0.95) -> Interval:
    """The difference of two groups of users: an A/A check passes if it holds 0."""
    return difference(interval(left, level), interval(right, level))


def stretch(seed: int, share: float = 0.4, lost: float = 0.0, n: int = N) -> tuple[Ints, Array]:
    """A policy that learns: every 100 decisions it draws arm 1 with `share` and the rest anew, none below 2 %.

    `lost` of arm 1's exposures show no nudge instead.
    """
    rng = np.random.default_rng(seed)
    rest = rng.dirichlet(np.full(ARMS - 1, 5.0), n // 100).repeat(100, axis=0)
    p = np.maximum(np.insert(rest * (1 - share), 1, share, axis=1), 0.02)
    p /= p.sum(axis=1, keepdims=True)
    action = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return np.where((action == 1) & (rng.random(n) < lost), 0, action), p


def alarms(runs: range, share: float, lost: float) -> Iterator[bool]:
    """Whether each run, looked at every 100 decisions, ever raises the alarm."""
    for seed in runs:
        action, p = stretch(seed, share, lost)
        growth = [SampleRatio.of(action[a : a + 100], p[a : a + 100]).growth for a in range(0, N, 100)]
        path = special.logsumexp(np.cumsum(growth, axis=0), axis=(1, 2)) - np.log(growth[0].size)
        yield bool(path.max() >= np.log(ALARM))


def test_ten_percent_of_an_arm_misrouted_is_found_within_5000_decisions() -> None:
    """60 runs. Found in 99 % (slow suite): 8 or more misses have chance < 1e-6; detects a power of 60 %."""
    assert sum(alarms(range(60), 0.4, 0.1)) >= 53


def test_clean_runs_raise_no_alarm() -> None:
    """100 runs, chance ≤ 1 % each (Ville): 9 or more have chance < 1e-6."""
    assert stats.binom.sf(8, 100, 0.01) < 1e-6
    assert sum(alarms(range(1000, 1100), 0.4, 0.0)) <= 8


@pytest.mark.slow
def test_at_most_one_percent_of_1000_clean_runs_raise_an_alarm() -> None:
    assert sum(alarms(range(2000, 3000), 0.4, 0.0)) <= 10


@pytest.mark.slow
@pytest.mark.parametrize(("share", "least"), [(0.2, 600), (0.3, 960), (0.4, 990)])
def test_power_over_1000_runs_grows_with_the_share_of_the_arm(share: float, least: int) -> None:
    """10 % of an arm's exposures are lost: found within 5,000 decisions in so many of 1,000 runs."""
    assert sum(alarms(range(2000, 3000), share, 0.1)) >= least


def test_the_suspect_is_named() -> None:
    found = SampleRatio.of(*stretch(1, lost=0.2))
    assert found.evidence > ALARM
    assert found.suspect == 1


def test_every_factor_has_mean_one() -> None:
    """Exactly, over the arms that a vector can draw."""
    p = np.array([[0.1, 0.25, 0.65]])
    factors = np.array([np.exp(SampleRatio.of(np.array([a]), p).growth) for a in range(3)])
    assert np.einsum("a,abt->bt", p[0], factors) == pytest.approx(np.ones(factors.shape[1:]))


def test_versions_merge_and_the_wrong_one_is_picked_out() -> None:
    """Ten versions, one misrouted."""
    parts = [stretch(s, lost=0.1 if s == 3 else 0.0) for s in range(10)]
    version = np.arange(10).repeat(N)
    action, p = (np.concatenate(column) for column in zip(*parts, strict=True))
    whole = by_version(version, action, p)
    half = len(version) // 2 + 700
    both = merged(
        by_version(version[half:], action[half:], p[half:]), by_version(version[:half], action[:half], p[:half])
    )
    assert whole.keys() == both.keys()
    assert all(whole[v].growth == pytest.approx(both[v].growth) for v in whole)
    evidence = np.array([whole[v].evidence for v in range(10)])
    assert np.flatnonzero(evidence >= 10 / 0.01).tolist() == [3]  # 1 % over all ten versions
    assert np.delete(evidence, 3).max() < 10 / 0.01 / 2
    stage = sum(list(whole.values())[1:], whole[0])
    assert stage.n == 10 * N


def test_many_arms_are_tested_one_by_one() -> None:
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.ones(34), 3000)
    found = SampleRatio.of((p.cumsum(axis=1) < rng.random((3000, 1))).sum(axis=1).clip(max=33), p)
    assert len(found.growth) == 2 * 34
    assert found.evidence < ALARM


def test_evidence_is_finite_however_strong() -> None:
    action, p = stretch(5, lost=1.0)
    assert np.isfinite((sum([SampleRatio.of(action, p)] * 50, SampleRatio.of(action, p))).evidence)


def test_an_a_a_check_passes_as_often_as_it_says() -> None:
    """2,000 pairs of 500 users at 10 %: MOVER at 99 % fails in 1 %; 45 or more have chance < 1e-6."""
    rng = np.random.default_rng(6)
    assert stats.binom.sf(44, 2000, 0.01) < 1e-6
    draws = (rng.random((2000, 2, 500)) < 0.1).astype(float)
    found = [apart(Moments.of(a), Moments.of(b), 0.99) for a, b in draws]
    failed = sum(not one.low <= 0.0 <= one.high for one in found)
    assert failed <= 44


def test_an_a_a_check_finds_a_group_that_was_treated_otherwise() -> None:
    rng = np.random.default_rng(7)
    left, right = (Moments.of((rng.random(5000) < rate).astype(float)) for rate in (0.1, 0.14))
    assert apart(left, right).high < 0.0


def test_bets_are_as_described() -> None:
    assert sample_ratio._bets(2).tolist() == [[1, 0], [0, 1], [-1, 0], [0, -1], [-1, 1], [1, -1]]


def test_counts_of_constant_shares_say_what_the_rows_say() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    action = np.random.default_rng(1).choice(3, 2000, p=[0.45, 0.3, 0.25])
    rows = SampleRatio.of(action, np.tile(shares, (2000, 1)))
    counts = SampleRatio.of_counts(np.bincount(action).astype(float), shares)
    assert counts.growth == pytest.approx(rows.growth)
    assert (counts.n, counts.arms, counts.suspect) == (rows.n, rows.arms, rows.suspect)
