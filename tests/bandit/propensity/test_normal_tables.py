"""Φ and Φ⁻¹ by table against scipy's."""

import numpy as np
import pytest
from scipy import special

from bandit.arrays import Array
from bandit.propensity import normal_tables


def below(x: Array) -> Array:
    out = np.empty_like(x)
    normal_tables.below(x.copy(), out, normal_tables.scratch(x.shape))
    return out


def quantile(p: Array) -> Array:
    out = np.empty_like(p)
    normal_tables.quantile(p.copy(), out, normal_tables.scratch(p.shape))
    return out


def test_the_normal_law_is_off_by_at_most_a_tenth_of_a_billionth() -> None:
    x = np.concatenate([np.linspace(-9, 9, 1_000_003), [-np.inf, -1e300, -40.0, 0.0, 40.0, 1e300, np.inf]])
    np.testing.assert_allclose(below(x), special.ndtr(x), rtol=0, atol=1e-10)
    assert [normal_tables.one(v) for v in x[::997].tolist()] == below(x[::997]).tolist()


def test_its_inverse_is_off_by_at_most_twenty_billionths() -> None:
    tail = 2.0 ** -np.linspace(1, 64, 500_009)
    p = np.concatenate([tail, 1.0 - tail[tail > 2.0**-53], np.linspace(0.001, 0.999, 500_009)])
    np.testing.assert_allclose(quantile(p), special.ndtri(p), rtol=0, atol=2e-8)


def test_a_probability_of_nothing_is_far_out_and_finite() -> None:
    x = quantile(np.array([0.0, 1e-300, 2.0**-65]))
    assert ((x > -9.5) & (x < -9.0)).all()


@pytest.mark.parametrize("f", [below, quantile])
def test_both_rise_except_by_less_than_their_error(f: object) -> None:
    assert callable(f)
    values = f(np.linspace(0.0005, 0.9995, 400_001))
    assert np.diff(values).min() > -2e-8


def test_neighbours_do_not_matter() -> None:
    p = np.random.default_rng(0).random(1000)
    for f in (below, quantile):
        assert np.array([f(p[i : i + 1])[0] for i in range(1000)]).tobytes() == f(p).tobytes()


def test_its_density_comes_with_it() -> None:
    x = np.linspace(-8.4, 8.4, 300_007)
    out, density = np.empty_like(x), np.empty_like(x)
    normal_tables.both(x, out, density, normal_tables.scratch(x.shape))
    assert np.array_equal(out, below(x))
    np.testing.assert_allclose(density, np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), rtol=0, atol=4e-10)
    assert (density / out <= 10.0).all(), "nothing is divided by 0"
