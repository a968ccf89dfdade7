"""Regression adjustment: the formulae with interactions written out, coverage, and what it gains."""

import numpy as np
import pytest

from experiments.ab_tests import adjustment, mean_contrasts


def test_the_effect_is_that_of_one_regression_with_interactions() -> None:
    """Lin's: outcome on arm, centred covariates and their products; HC2 by its definition (White 1980, MacKinnon &
    White 1985), and the spread of the slopes.
    """
    rng = np.random.default_rng(1)
    arm, x = rng.integers(0, 2, 120), rng.normal(size=(120, 2)) * (1.0, 9.0)
    y = 2.0 + arm * (0.5 + x[:, 0]) + x @ (1.0, -0.2) + rng.normal(0.0, 1.0 + arm)
    found = adjustment.adjusted(arm, y, x, 2).pair(1, 0)
    d = x - x.mean(axis=0)
    z = np.column_stack([np.ones(120), arm, d, d * arm[:, None]])
    inverse = np.linalg.inv(z.T @ z)
    beta = inverse @ z.T @ y
    weight = (y - z @ beta) ** 2 / (1.0 - np.einsum("ij,jk,ik->i", z, inverse, z))
    hc2 = inverse @ (z.T * weight) @ z @ inverse
    slopes = beta[4:]
    assert found.arm - found.control == pytest.approx(beta[1])
    assert found.error**2 == pytest.approx(hc2[1, 1] + slopes @ (d.T @ d / 120) @ slopes / 120)


def test_one_earlier_measurement_narrows_the_interval_as_cuped_does() -> None:
    """Correlation ρ = .8: the error is √(1 − ρ²) = .6 of the plain one; 20,000 people, to 3 %."""
    rng = np.random.default_rng(2)
    before, arm = rng.normal(size=20_000), rng.integers(0, 2, 20_000)
    y = 0.8 * before + 0.6 * rng.normal(size=20_000) + 0.05 * arm
    found = adjustment.adjusted(arm, y, before[:, None], 2).pair(1, 0)
    plain = np.sqrt(y[arm == 0].var() / (arm == 0).sum() + y[arm == 1].var() / (arm == 1).sum())
    assert found.error / plain == pytest.approx(0.6, rel=0.03)


def test_effects_are_covered_though_the_model_is_wrong_and_effects_vary() -> None:
    """A curved outcome, unequal arms, an effect that grows with x: 2,000 repetitions of 300 people; a true coverage of
    94.5 % is above 92.2 % with 1 − 1e-5. Without B Σ B' / n it is 91 %.
    """
    rng, hits = np.random.default_rng(3), []
    for _ in range(2000):
        x = rng.normal(size=300)
        arm = (rng.random(300) < 0.4).astype(int)
        y = x**2 + arm * (1.0 + 2.0 * x) + rng.normal(size=300)
        found = mean_contrasts.difference(adjustment.adjusted(arm, y, x[:, None], 2).pair(1, 0))
        hits.append(found.low <= 1.0 <= found.high)
    assert np.mean(hits) > 0.922


def test_covariates_that_say_the_same_twice_or_nothing_change_nothing() -> None:
    rng = np.random.default_rng(4)
    x, arm = rng.normal(size=(200, 1)), rng.integers(0, 3, 200)
    y = x[:, 0] + rng.normal(size=200)
    once = adjustment.adjusted(arm, y, x, 3).pair(2, 0)
    again = adjustment.adjusted(arm, y, np.column_stack([x, 3.0 * x, np.ones(200)]), 3).pair(2, 0)
    assert (again.arm, again.error) == pytest.approx((once.arm, once.error))


def test_covariates_of_few_people_add_no_error_and_no_false_alarms() -> None:
    """A flag of 3 of 300 people, who may all be in one arm, and countries of one person each; outcomes near 100 ± 1.
    1,000 tests each: a true level of 5 % is below 8.4 % with 1 − 1e-6; the differences vary as those of plain means,
    σ √(4 / 300) = .1155, to 12 % (4.9 standard errors); their mean is within 4.9 standard errors of 0.
    """
    rng = np.random.default_rng(6)
    for x in ((np.arange(300) < 3).astype(float)[:, None], np.eye(300)[:, :20]):
        pairs = []
        for _ in range(1000):
            arm = rng.integers(0, 2, 300)
            pairs.append(adjustment.adjusted(arm, 100.0 + rng.normal(size=300), x, 2).pair(1, 0))
        gaps = np.array([pair.arm - pair.control for pair in pairs])
        assert np.mean([mean_contrasts.p_value(pair) < 0.05 for pair in pairs]) < 0.084
        assert gaps.std() == pytest.approx(0.1155, rel=0.12)
        assert abs(gaps.mean()) < 4.9 * 0.1155 / np.sqrt(1000)


def test_a_covariate_without_a_slope_in_an_arm_moves_nothing_there() -> None:
    """Three people with a flag, all in one arm: the other arm has its plain mean and variance, HC2 of a mean alone."""
    rng = np.random.default_rng(7)
    arm, x = np.arange(300) % 2, np.isin(np.arange(300), (1, 3, 5)).astype(float)[:, None]
    y = 40.0 + rng.normal(size=300)
    found = adjustment.adjusted(arm, y, x, 2)
    assert found.mean[0] == pytest.approx(y[arm == 0].mean(), rel=1e-12)
    assert found.covariance[0, 0] == pytest.approx(y[arm == 0].var(ddof=1) / 150, rel=1e-9)
    rest, flagged = y[(arm == 1) & (x[:, 0] == 0)].mean(), y[x[:, 0] == 1].mean()
    assert found.mean[1] == pytest.approx(0.99 * rest + 0.01 * flagged, rel=1e-12)  # 3 of 300 have the flag


def test_whom_the_regression_fits_whatever_they_did_counts_with_the_variance_of_the_others() -> None:
    """One person with a flag, of 4 in the arm and 8 in all: weights 1 / 8 for that person, 7 / 8 for the mean of three
    others, whose variance is that of all.
    """
    arm, x = np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.eye(8)[:, :1]
    y = np.array([50.0, 1.0, 2.0, 6.0, 0.0, 1.0, 2.0, 3.0])
    found = adjustment.adjusted(arm, y, x, 2)
    variance = y[1:4].var(ddof=1)
    slope = 50.0 - 3.0
    of_slopes = slope**2 * (1 / 8 * 7 / 8) / 8
    assert found.covariance[1, 1] - of_slopes == pytest.approx(variance / 64 + 49 / 64 * variance / 3)


def test_what_everybody_has_more_moves_only_the_means() -> None:
    rng = np.random.default_rng(8)
    arm, x = np.arange(90) % 3, np.column_stack([rng.normal(size=90), np.arange(90) == 4, np.full(90, 0.1)])
    y = rng.normal(size=90)
    one, two = adjustment.adjusted(arm, y, x, 3), adjustment.adjusted(arm, y + 1000.0, x, 3)
    assert two.mean - 1000.0 == pytest.approx(one.mean, abs=1e-10)
    assert two.covariance == pytest.approx(one.covariance, rel=1e-9)


def test_a_covariate_that_the_arm_changed_is_found() -> None:
    rng = np.random.default_rng(5)
    arm, x = rng.integers(0, 3, 3000), rng.normal(size=(3000, 2))
    p = [adjustment.balance_p(rng.integers(0, 3, 300), rng.normal(size=(300, 2)), 3) for _ in range(400)]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.07)  # sound: 4.6 standard errors
    assert adjustment.balance_p(arm, x + 0.3 * (arm[:, None] == 2), 3) < 1e-6


def test_balance_is_seen_whatever_the_units_of_other_covariates() -> None:
    """A yes at 70 % and 30 %, beside an earlier revenue of large amounts; and a covariate that is the same for all."""
    rng = np.random.default_rng(9)
    arm = np.repeat([0, 1], 1000)
    yes, revenue = (rng.random(2000) < np.where(arm == 0, 0.7, 0.3)).astype(float), rng.normal(0.0, 174_000.0, 2000)
    both = adjustment.balance_p(arm, np.column_stack([yes, revenue]), 2)
    assert both < 1e-50
    assert adjustment.balance_p(arm, np.column_stack([yes, revenue / 174_000.0]), 2) == pytest.approx(both, rel=1e-6)
    assert adjustment.balance_p(arm, np.full((2000, 1), 0.1), 2) == 1.0
