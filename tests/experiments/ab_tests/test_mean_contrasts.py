"""Contrasts of means: Welch as scipy has it, Fieller by its definition, Holm by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.ab_tests import mean_contrasts
from experiments.ab_tests.mean_contrasts import PairedEstimates, welch


def pair(a: np.ndarray, c: np.ndarray) -> PairedEstimates:
    return welch((a.mean(), c.mean()), (a.var(ddof=1), c.var(ddof=1)), (len(a), len(c)))


def test_differences_are_those_of_welch() -> None:
    rng = np.random.default_rng(1)
    a, c = rng.normal(5.0, 3.0, 40), rng.normal(4.0, 1.0, 90)
    known = stats.ttest_ind(a, c, equal_var=False)
    low, high = known.confidence_interval(0.9)
    found = mean_contrasts.difference(pair(a, c), 0.9)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert mean_contrasts.p_value(pair(a, c)) == pytest.approx(known.pvalue, rel=1e-10)


def test_fiellers_bounds_are_ratios_that_are_just_not_refuted() -> None:
    found = PairedEstimates(5.5, 5.0, 0.04, 0.09, 0.02, 120.0, 60)
    ratio, t = mean_contrasts.ratio(found), stats.t.ppf(0.975, 120)
    assert ratio is not None
    for rho in (ratio.low, ratio.high):
        error = math.sqrt(0.04 - 2 * rho * 0.02 + rho**2 * 0.09)
        assert abs(5.5 - rho * 5.0) / error == pytest.approx(t)
    assert ratio.low < 1.1 < ratio.high


@pytest.mark.parametrize("control", [0.5, -5.0])
def test_there_is_no_ratio_to_a_mean_near_0_or_below(control: float) -> None:
    assert mean_contrasts.ratio(PairedEstimates(5.5, control, 0.04, 0.09, 0.0, 120.0, 60)) is None


def test_ratios_are_covered_where_the_control_is_uncertain() -> None:
    """Control 1.0 ± .25: 4,000 repetitions; a true coverage of 95 % is above 93.4 % with 1 − 1e-6. The delta method's
    upper end misses here more often than its lower: Fieller's is not symmetrical.
    """
    rng = np.random.default_rng(4)
    hits = []
    for a, c in zip(rng.normal(1.5, 0.2, 4000), rng.normal(1.0, 0.25, 4000), strict=True):
        ratio = mean_contrasts.ratio(PairedEstimates(a, c, 0.04, 0.0625, 0.0, 1e6, 60))
        hits.append(ratio is None or ratio.low <= 1.5 <= ratio.high)
    assert np.mean(hits) > 0.934


def test_nothing_that_varies_says_nothing_of_how_sure_it_is() -> None:
    still = welch((1.0, 1.0), (0.0, 0.0), (60, 60))
    assert mean_contrasts.difference(still).high == math.inf
    assert math.isnan(mean_contrasts.p_value(still))
    assert mean_contrasts.ratio(still) is None


def test_holm_by_hand() -> None:
    """Of .01, .04, .03, .005: 4 × .005, 3 × .01, 2 × .03, and .04 no less than that."""
    assert mean_contrasts.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert mean_contrasts.holm([0.01, math.nan]) == pytest.approx([0.02, math.nan], nan_ok=True)


def test_holm_errs_once_in_a_family_with_a_chance_of_alpha() -> None:
    """Six tests without a difference, 4,000 families: a true rate of 5 % is below 6.8 % with 1 − 1e-6; without the
    correction it is 26 %.
    """
    p = np.random.default_rng(5).random((4000, 6))
    wrong = [min(mean_contrasts.holm(row)) < 0.05 for row in p.tolist()]
    assert np.mean(wrong) < 0.068
    assert np.mean(p.min(axis=1) < 0.05) > 0.2
