"""Half of one policy and half of another: drawable, exact, and of nothing that one of them may draw too little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.arrays import Array
from bandit.propensity.floor import UNITS, apportioned_many
from bandit.propensity.mixture import HEAVIEST, half_and_half


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    """Two drawable vectors (k,), with arms of a single unit and of none among them."""
    k = draw(st.integers(1, 12))
    both = []
    for _ in range(2):
        small = [draw(st.sampled_from([0, 0, 1, 2, 3, 1000, UNITS // k])) for _ in range(k - 1)]
        units = np.array([*small, UNITS - sum(small)], dtype=np.float64)
        both.append(np.roll(units, draw(st.integers(0, k - 1))) / UNITS)
    return both[0], both[1]


@given(pairs())
def test_half_of_each_is_drawable_and_leaves_no_arm_out(pair: tuple[Array, Array]) -> None:
    one, other = pair
    p = half_and_half(one, other)
    assert p.sum() == 1.0
    assert np.array_equal(p * UNITS, np.floor(p * UNITS))
    assert np.array_equal(p > 0.0, (one > 0.0) | (other > 0.0))
    rest = np.arange(len(p)) != np.ceil(0.5 * (one + other) * UNITS).argmax()  # all but the one that pays
    assert (HEAVIEST * p >= np.maximum(one, other))[rest].all()
    assert (np.abs(p - 0.5 * (one + other)) <= 0.5 / UNITS)[rest].all()
    assert abs(p - 0.5 * (one + other)).max() <= 0.5 * len(p) / UNITS
    assert np.array_equal(p, half_and_half(other, one))


@pytest.mark.parametrize("k", [2, 5, 30])
def test_many_rows_have_the_bits_of_one(k: int) -> None:
    rng = np.random.default_rng(k)
    every = np.ones((500, k), dtype=np.bool_)
    one, other = (apportioned_many(rng.dirichlet(np.full(k, 0.3), 500), 1e-4, every) for _ in range(2))
    together = half_and_half(one, other)
    assert all(np.array_equal(together[i], half_and_half(one[i], other[i])) for i in range(500))
    assert np.array_equal(half_and_half(one, one), one)
