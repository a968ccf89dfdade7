"""Correlated scores: against closed forms, independent quadrature and a finer integration."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import erfc, sqrt

import numpy as np
import pytest

from bandit.arrays import Array
from bandit.errors import PropensityError
from bandit.numerics import versions
from bandit.propensity import correlated as by_points
from bandit.propensity import gaussian
from bandit.propensity.correlated import correlated, correlated_many, finely

EARLIER = [
    "7b20497063b0d93f744db6382ffbc63fd81daae1c6ddae3f117526174cf6d63f",
    "3c55315c931d423f5682f874705ec23f99e7894d273e9a3e9bee79f980a3533e8e643952f929d03ffd881383b456bd3f8c6951d11048df3f",
]
"""Propensities as float64 in hexadecimal, computed by the code before arithmetic 4."""


def law(rng: np.random.Generator, k: int) -> tuple[Array, Array]:
    """A random law of scores: correlated, of very different widths, with a common part that cancels."""
    root = rng.normal(size=(k, k + 2)) * 10 ** rng.uniform(-0.5, 0.5, (k, 1))
    own = root @ root.T / (k + 2)
    covariance = own + rng.uniform(0, 3) * np.ones((k, k))
    return rng.normal(0, np.sqrt(own.diagonal().mean()) * rng.uniform(0.2, 2), k), covariance


def variation(p: Array, q: Array) -> float:
    return float(0.5 * np.abs(p - q).sum())


def test_two_arms_are_the_closed_form() -> None:
    mean, covariance = np.array([0.3, -0.1]), np.array([[1.0, 0.6], [0.6, 2.0]])
    exact = 0.5 * erfc(-0.4 / sqrt(2 * (1.0 + 2.0 - 1.2)))
    assert correlated(mean, covariance) == pytest.approx([exact, 1 - exact], abs=1e-10)


def test_three_centred_arms_are_the_closed_form() -> None:
    """P(D₁ > 0, D₂ > 0) = 1/4 + asin(ρ)/2π for the two differences of an arm."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        _, c = law(rng, 3)
        p = correlated(np.zeros(3), c)
        for a in range(3):
            i, j = [b for b in range(3) if b != a]
            cross = c[a, a] - c[a, i] - c[a, j] + c[i, j]
            rho = cross / np.sqrt((c[a, a] + c[i, i] - 2 * c[a, i]) * (c[a, a] + c[j, j] - 2 * c[a, j]))
            assert p[a] == pytest.approx(0.25 + np.arcsin(rho) / (2 * np.pi), abs=2e-3)


@pytest.mark.parametrize("k", [3, 5, 8])
def test_independent_scores_agree_with_quadrature(k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(40):
        mean, sd = rng.normal(0, 1, k), 10 ** rng.uniform(-1, 0.5, k)
        assert variation(correlated(mean, np.diag(sd**2)), gaussian.gaussian(mean, sd)) <= 3e-3


def wild(rng: np.random.Generator, k: int) -> tuple[Array, Array]:
    """A random law of two factors and little else; in half of them an arm is nearly another's double."""
    factors = rng.normal(size=(k, 2)) * 10 ** rng.uniform(-0.5, 0.5, (k, 1))
    if rng.random() < 0.5:
        factors[1] = factors[0]
    covariance = factors @ factors.T + np.diag(10 ** rng.uniform(-2.0, 0.0, k))
    return rng.normal(0, 0.7, k), covariance


@pytest.mark.parametrize(("make", "most"), [(law, 3e-3), (wild, 8e-3)])
@pytest.mark.parametrize("k", [3, 4, 5, 6, 7, 8])
def test_the_error_is_bounded(k: int, make: Callable[..., tuple[Array, Array]], most: float) -> None:
    """Against the same integral over 2¹⁴ points, whose own error is 2e-4 or less. Nothing was fitted to these laws: of
    240 others of each kind and number of arms, the worst were off by 1.7e-3 and 6.2e-3.
    """
    rng = np.random.default_rng(100 + k)
    for _ in range(20):
        mean, covariance = make(rng, k)
        assert variation(correlated(mean, covariance), finely(mean, covariance, 2**14)) <= most


def test_many_arms_that_the_points_serve_badly_get_finer_ones_alone_and_in_a_batch() -> None:
    """Sixty arms of three strong factors: over 512 points Σp of some is off by more than the alarm takes."""
    rng, laws, off = np.random.default_rng(1), list[tuple[Array, Array]](), 0
    rule = by_points._rule()
    for _ in range(12):
        root = rng.normal(size=(60, 3)) * 0.3
        laws.append((np.zeros(60), root @ root.T + np.eye(60) * rng.uniform(0.5, 1.0)))
        p = by_points._genz(laws[-1][0][None], laws[-1][1][None], rule.points(60), rule.sharp)
        off += bool(abs(p.sum() - 1.0) > by_points.ALARM)
    assert off
    alone = [correlated(*law) for law in laws]
    means, covariances = np.array([m for m, _ in laws]), np.array([c for _, c in laws])
    many = correlated_many(means, covariances, np.ones(means.shape, dtype=bool))
    assert [p.tobytes() for p in alone] == [p.tobytes() for p in many]


def test_what_was_decided_earlier_is_integrated_as_it_was() -> None:
    """One law over 128 points, one over 384, by the code of then; and nothing of it stays afterwards."""
    rng = np.random.default_rng(11)
    four, seven = law(rng, 4), law(rng, 7)
    now = correlated(*four), correlated(*seven)
    with versions.recorded_in(versions.OPEN_EVERYWHERE):
        then = correlated(*four), correlated(*seven)
        many = correlated_many(four[0][None], four[1][None], np.ones((1, 4), dtype=bool))[0]
    assert [p.tobytes().hex() for p in then] == EARLIER
    assert np.array_equal(many, then[0])
    assert not np.array_equal(then[0], now[0])
    assert np.array_equal(correlated(*four), now[0])


def test_a_common_part_cancels() -> None:
    rng = np.random.default_rng(3)
    mean, covariance = law(rng, 5)
    assert np.allclose(correlated(mean, covariance), correlated(mean + 7.0, covariance + 2.0), atol=1e-7)


def test_identical_arms_share_equally() -> None:
    """Scores that move together entirely are a tie, not a division by zero."""
    p = correlated(np.full(4, 0.2), np.full((4, 4), 0.5))
    assert p == pytest.approx([0.25] * 4, abs=5e-3)


def test_an_arm_far_behind_has_no_chance_and_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    mean, covariance = law(rng, 4)
    wide = np.zeros((5, 5))
    wide[:4, :4] = covariance
    wide[4, 4] = 0.01
    p = correlated(np.append(mean, mean.min() - 1000.0), wide)
    assert p[4] == 0.0
    assert np.array_equal(p[:4], correlated(mean, covariance))


def test_relabelling_relabels() -> None:
    rng = np.random.default_rng(5)
    mean, covariance = law(rng, 6)
    order = rng.permutation(6)
    assert (
        variation(correlated(mean, covariance)[order], correlated(mean[order], covariance[np.ix_(order, order)])) < 3e-3
    )


def test_the_same_scores_give_the_same_bits_and_are_not_touched() -> None:
    mean, covariance = law(np.random.default_rng(6), 6)
    before = mean.copy(), covariance.copy()
    assert np.array_equal(correlated(mean, covariance), correlated(mean, covariance))
    assert np.array_equal(mean, before[0])
    assert np.array_equal(covariance, before[1])


def test_threads_get_the_bits_that_one_alone_gets() -> None:
    rng = np.random.default_rng(9)
    cases = [law(rng, k) for _ in range(20) for k in (2, 3, 6, 8)]
    alone = [correlated(*case).tobytes() for case in cases]
    with ThreadPoolExecutor(8) as pool:
        assert [p.tobytes() for p in pool.map(lambda case: correlated(*case), cases)] == alone


def test_the_unit_of_the_scores_does_not_matter() -> None:
    """Millionths or millions: what is added against ties scales with the variances."""
    mean, covariance = law(np.random.default_rng(10), 5)
    for unit in (1e-6, 1e6):
        assert np.allclose(correlated(mean * unit, covariance * unit**2), correlated(mean, covariance), atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_law_is_refused(bad: float) -> None:
    with pytest.raises(PropensityError):
        correlated(np.array([0.0, bad, 1.0]), np.eye(3))
    with pytest.raises(PropensityError):
        correlated(np.zeros(65), np.eye(65))


def test_independent_marginals_would_be_wrong() -> None:
    """Two arms that move together against one that does not: why the covariance matters."""
    mean = np.array([0.0, 0.0, 0.0])
    covariance = np.array([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert variation(correlated(mean, covariance), gaussian.gaussian(mean, np.ones(3))) > 0.1
