"""Silence of outcomes: the stated probability is the frequency, whatever the rate is."""

import math

import numpy as np
import pytest
from scipy import stats

from bandit.alarms.silence import OutcomeGaps, Silence, silence


@pytest.mark.parametrize("n", [1, 5, 50])
@pytest.mark.parametrize("rate", [1e-9, 3.0])
def test_a_silence_so_unlikely_comes_just_so_often(n: int, rate: float) -> None:
    """20,000 times n gaps and one more, of which the probability at its end is uniform. False alarm ≤ 1e-6: 2 % ± 0.5
    points of 20,000 (binomial, 4.9 sd). Detects an error of a point with probability 1 − 1e-6.
    """
    rng = np.random.default_rng(n)
    earlier, gap = rng.gamma(n, 1.0 / rate, 20_000), rng.exponential(1.0 / rate, 20_000)
    found = [silence(OutcomeGaps(n, lasted), since).probability for lasted, since in zip(earlier, gap, strict=True)]
    assert abs(np.mean(np.array(found) <= 0.02) - 0.02) < 0.005


def test_the_probability_is_that_of_the_f_distribution() -> None:
    """d/T·n of an exponential and a gamma variable has Fisher's F with 2 and 2n degrees of freedom."""
    for n, lasted, since in ((3, 7.0, 2.0), (40, 1e9, 3e8), (1000, 50.0, 0.7)):
        found = silence(OutcomeGaps(n, lasted), since)
        assert found.probability == pytest.approx(stats.f.sf(n * since / lasted, 2, 2 * n), rel=1e-9)
        assert found.expected == pytest.approx(n * since / lasted)


def test_with_many_gaps_it_is_the_probability_under_a_known_rate() -> None:
    found = silence(OutcomeGaps(10**7, 1e7), 9.0)
    assert found.probability == pytest.approx(math.exp(-9.0), rel=1e-4)


def test_of_decisions_that_each_have_an_outcome_it_claims_no_more_than_is_true() -> None:
    """Measured in decisions, with chance 0.3 each: alarms at 2 % or less come with 2 % or less. False alarm ≤ 1e-6."""
    rng = np.random.default_rng(4)
    gaps = rng.geometric(0.3, (20_000, 31))
    found = [silence(OutcomeGaps(30, float(row[:30].sum())), float(row[30] - 1)).probability for row in gaps]
    assert np.mean(np.array(found) <= 0.02) < 0.025


@pytest.mark.parametrize(("earlier", "since"), [((0, 0.0), 5.0), ((3, 0.0), 5.0), ((3, 10.0), 0.0)])
def test_without_a_rate_or_a_silence_nothing_is_unlikely(earlier: tuple[int, float], since: float) -> None:
    assert silence(OutcomeGaps(*earlier), since) == Silence(0.0, 1.0)
