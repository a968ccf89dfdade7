"""Score intervals: the published figures, one p for difference and ratio, and coverage where rates are small."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.ab_tests import score_intervals
from experiments.ab_tests.score_intervals import ArmRate


@pytest.mark.parametrize(
    ("arm", "control", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0528, 0.3382),  # Newcombe 1998, table II, method 6
        ((9, 10), (3, 10), 0.1700, 0.8406),
        ((10, 10), (0, 10), 0.6636, 1.0),  # by hand: 19 (1 − δ) / (1 + δ) = z²
        ((5, 56), (0, 29), -0.0326, 0.1933),
    ],
)
def test_the_difference_equals_the_published_examples(
    arm: tuple[int, int], control: tuple[int, int], low: float, high: float
) -> None:
    found = score_intervals.difference(ArmRate(*arm), ArmRate(*control))
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_p_is_pearsons_with_the_factor_of_miettinen_and_nurminen() -> None:
    arm, control = ArmRate(560, 10_000), ArmRate(500, 10_000)
    chi2 = stats.chi2_contingency([[560, 9440], [500, 9500]], correction=False).statistic
    assert score_intervals.p_value(arm, control) == pytest.approx(stats.chi2.sf(chi2 * 19_999 / 20_000, 1), rel=1e-10)


def test_bounds_are_where_the_score_test_is_just_not_significant() -> None:
    """The likeliest rates by search, not by the cubic; the ratio's bounds likewise."""
    arm, control, z = ArmRate(7, 90), ArmRate(3, 110), stats.norm.ppf(0.975)

    def score(theta: float, *, ratio: bool) -> float:
        grid = np.linspace(1e-7, 1.0 - 1e-7, 2_000_001)
        other = grid * theta if ratio else grid + theta
        ok = (other > 0.0) & (other < 1.0)
        p, q = grid[ok], other[ok]
        best = np.argmax(7 * np.log(q) + 83 * np.log1p(-q) + 3 * np.log(p) + 107 * np.log1p(-p))
        p0, q0, factor = p[best], q[best], theta if ratio else 1.0
        variance = (q0 * (1 - q0) / 90 + factor**2 * p0 * (1 - p0) / 110) * 200 / 199
        gap = 7 / 90 - theta * 3 / 110 if ratio else 7 / 90 - 3 / 110 - theta
        return float(gap / math.sqrt(variance))

    gap, times = score_intervals.difference(arm, control), score_intervals.ratio(arm, control)
    for found, ratio in ((gap, False), (times, True)):
        assert score(found.low, ratio=ratio) == pytest.approx(z, abs=2e-5)
        assert score(found.high, ratio=ratio) == pytest.approx(-z, abs=2e-5)


def test_difference_ratio_and_p_agree_on_what_is_significant() -> None:
    rng = np.random.default_rng(1)
    for yes, other, n, m in zip(*rng.integers(1, [[30], [30], [400], [400]], (4, 300)), strict=True):
        arm, control = ArmRate(float(yes), float(n + 30)), ArmRate(float(other), float(m + 30))
        gap, times = score_intervals.difference(arm, control), score_intervals.ratio(arm, control)
        p = score_intervals.p_value(arm, control)
        assert (p < 0.05) == (gap.low > 0.0 or gap.high < 0.0) == (times.low > 1.0 or times.high < 1.0)


def test_where_nobody_converts_bounds_say_how_little_is_known() -> None:
    none = ArmRate(0, 100)
    found = score_intervals.difference(none, none)
    assert found.low == pytest.approx(-found.high)
    assert 0.03 < found.high < 0.05
    assert score_intervals.p_value(none, none) == 1.0
    assert score_intervals.ratio(ArmRate(5, 100), none).high == math.inf
    assert score_intervals.ratio(none, ArmRate(5, 100)).low == 0.0


@pytest.mark.parametrize(
    ("rate", "lift", "n", "m"), [(0.01, 0.0, 300, 300), (0.01, 0.01, 400, 1200), (0.4, 0.1, 60, 90)]
)
def test_differences_and_ratios_are_covered(rate: float, lift: float, n: int, m: int) -> None:
    """2,000 repetitions: a true coverage of 94.5 % is above 92.2 % with 1 − 1e-5, one of 90 % with 0.001."""
    rng = np.random.default_rng(2)
    yes, other = rng.binomial(n, rate + lift, 2000), rng.binomial(m, rate, 2000)
    hits = np.zeros(2)
    for a, c in zip(yes.tolist(), other.tolist(), strict=True):
        gap, times = (f(ArmRate(a, n), ArmRate(c, m)) for f in (score_intervals.difference, score_intervals.ratio))
        hits += (gap.low <= lift <= gap.high, times.low <= (rate + lift) / rate <= times.high)
    assert (hits / 2000 > 0.922).all()
