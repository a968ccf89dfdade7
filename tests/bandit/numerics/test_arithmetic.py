"""Arithmetic of our own against numpy's and scipy's, and its exactness against whole fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from bandit.numerics import arithmetic, legendre, logistic

seeds = st.integers(0, 2**32 - 1)


def test_exponentials_and_logarithms_are_those_of_the_library_to_rounding() -> None:
    x = np.concatenate([np.linspace(-700.0, 700.0, 300_001), [0.0, -0.0, 1e-300]])
    np.testing.assert_allclose(arithmetic.exp(x), np.exp(x), rtol=4e-16)
    y = np.concatenate([np.exp(np.linspace(-600, 600, 100_001)), np.linspace(0.5, 2.0, 100_001)])
    np.testing.assert_allclose(arithmetic.log(y), np.log(y), rtol=5e-16, atol=4e-16)
    assert arithmetic.exp(np.array([-1e9])).tolist() == [0.0]
    np.testing.assert_allclose(arithmetic.expit(x), special.expit(x), rtol=1e-15)
    assert arithmetic.logit(0.03) == pytest.approx(float(special.logit(0.03)), rel=1e-15)


def test_the_exponential_of_one_number_has_the_bits_of_that_of_an_array() -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(0, 10, 20_000), rng.uniform(-760, 720, 20_000), [0.0, -0.0, 1e300, -1e300, 0.5]])
    one = np.array([arithmetic.exp_of(value) for value in x.tolist()])
    assert one.tobytes() == arithmetic.exp(x).tobytes()


def test_the_logarithm_of_one_number_has_the_bits_of_that_of_an_array() -> None:
    rng = np.random.default_rng(7)
    x = np.concatenate([np.exp(rng.uniform(-700, 700, 20_000)), rng.uniform(0.5, 2.0, 20_000), [1.0, 0.5, 2.0, 5e-324]])
    one = np.array([arithmetic.log_of(value) for value in x.tolist()])
    assert one.tobytes() == arithmetic.log(x).tobytes()


def test_the_table_of_the_logistic_function_is_off_by_two_tenths_of_a_trillionth() -> None:
    z = np.concatenate([np.linspace(-45, 45, 500_003), [-1e300, 1e300]])
    np.testing.assert_allclose(logistic.values(z), special.expit(z), rtol=0, atol=2e-13)


def test_the_logistic_function_of_one_number_has_the_bits_of_that_of_an_array() -> None:
    rng = np.random.default_rng(6)
    z = np.concatenate([rng.normal(0, 5, 20_000), rng.uniform(-50, 50, 20_000), [0.0, -0.0, 1e300, -1e300, 38.0]])
    assert np.array([logistic.one(value) for value in z.tolist()]).tobytes() == logistic.values(z).tobytes()


@given(seed=seeds, m=st.integers(1, 9), n=st.integers(1, 200), p=st.integers(1, 9), size=st.integers(-30, 30))
def test_a_product_is_the_same_in_every_order(seed: int, m: int, n: int, p: int, size: int) -> None:
    """Columns of the one and rows of the other in another order: a library sums them otherwise."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(m, n)) * 2.0**size, rng.normal(size=(n, p)) * 10.0 ** rng.uniform(-3, 3, p)
    order = rng.permutation(n)
    value = arithmetic.product(a, b)
    assert value.tobytes() == arithmetic.product(a[:, order], b[order]).tobytes()
    bound = n * np.abs(a).max(axis=1, keepdims=True) * np.abs(b).max(axis=0)
    assert (np.abs(value - a @ b) <= 2.0**-43 * bound).all()


def test_a_product_of_few_digits_loses_none() -> None:
    rng = np.random.default_rng(1)
    a, b = (np.rint(rng.uniform(-1, 1, shape) * 4096) / 4096 for shape in ((3, 50), (50, 2)))
    value = arithmetic.product(a, b)
    for i, j in np.ndindex(3, 2):
        pairs = zip(a[i].tolist(), b[:, j].tolist(), strict=True)
        assert Fraction(float(value[i, j])) == sum(Fraction(u) * Fraction(v) for u, v in pairs)


@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 100, 150])
def test_inverses_and_solutions_are_those_of_the_library(n: int) -> None:
    """Also where rows differ by decades in size."""
    rng = np.random.default_rng(n)
    root = rng.normal(size=(3 * n, n)) * 10 ** rng.uniform(-2, 2, n)
    a, b = root.T @ root + np.eye(n), rng.normal(size=(n, 2))
    found, size = arithmetic.inverse(a), np.sqrt(np.diag(a))
    assert np.array_equal(found, found.T)
    np.testing.assert_allclose(found * size * size[:, None], np.linalg.inv(a / size / size[:, None]), rtol=0, atol=1e-9)
    np.testing.assert_allclose(arithmetic.solution(a, b), np.linalg.solve(a, b), rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(arithmetic.applied(found, b[:, 0]), found @ b[:, 0], rtol=1e-9, atol=1e-12)
    half = n // 2
    left = a[half:, half:] - a[half:, :half] @ np.linalg.solve(a[:half, :half], a[:half, half:])
    np.testing.assert_allclose(arithmetic.sweep(a, half)[half:, half:], left, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("n", "pivots"), [(5, 3), (32, 31), (33, 1), (33, 32), (60, 40), (97, 96), (100, 0)])
def test_a_complement_has_the_bits_of_the_sweep(n: int, pivots: int) -> None:
    rng = np.random.default_rng(n + pivots)
    root = rng.normal(size=(2, 3 * n, n)) * 10 ** rng.uniform(-2, 2, n)
    a = root.transpose(0, 2, 1) @ root
    before = a.copy()
    left, found = arithmetic.complement(a, pivots)
    assert left.tobytes() == np.ascontiguousarray(arithmetic.sweep(a, pivots)[:, pivots:, pivots:]).tobytes()
    assert np.log(found).sum(axis=1) == pytest.approx(np.linalg.slogdet(a[:, :pivots, :pivots])[1], rel=1e-9)
    assert np.array_equal(a, before)


def test_a_stack_of_matrices_is_inverted_as_each_alone() -> None:
    root = np.random.default_rng(2).normal(size=(4, 60, 40))
    stack = root.transpose(0, 2, 1) @ root
    for a, found in zip(stack, arithmetic.inverse(stack), strict=True):
        assert arithmetic.inverse(a).tobytes() == found.tobytes()


def test_factors_are_those_of_the_library_and_exist_where_a_pivot_is_nothing() -> None:
    root = np.random.default_rng(3).normal(size=(7, 5, 9))
    a = root @ root.transpose(0, 2, 1)
    factor, diagonal = arithmetic.cholesky(a.transpose(1, 2, 0), np.full(7, 1e-9))
    np.testing.assert_allclose(factor.transpose(2, 0, 1), np.linalg.cholesky(a), atol=1e-12)
    np.testing.assert_allclose(diagonal.T, np.diagonal(np.linalg.cholesky(a), axis1=1, axis2=2), atol=1e-12)
    tied, _ = arithmetic.cholesky(np.ones((3, 3, 1)), np.array([1e-9]))
    assert np.isfinite(tied).all()
    assert tied[1, 1, 0] == np.sqrt(1e-9)


def test_a_sum_over_the_first_axis_goes_from_the_first_to_the_last() -> None:
    values = np.random.default_rng(4).normal(size=(100, 3))
    for part in (values, values[:, :1], values[:, 0], np.asfortranarray(values)):
        slowly = np.zeros(part.shape[1:])
        for row in part:
            slowly = slowly + row
        assert np.array_equal(arithmetic.total(part), slowly)


def test_the_rule_of_quadrature_is_gauss_and_legendre() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(10)
    np.testing.assert_allclose(legendre.NODES, nodes, atol=1e-15)
    np.testing.assert_allclose(legendre.WEIGHTS, weights, atol=1e-15)
    edges = np.array([-1.0, 0.2, 0.9, 3.0])
    t, _ = legendre.points(edges)
    below, whole = legendre.running(np.stack([t**3, np.cos(t)], axis=1), edges)
    np.testing.assert_allclose(below, np.stack([(t**4 - 1) / 4, np.sin(t) + np.sin(1.0)], axis=1), atol=1e-11)
    np.testing.assert_allclose(whole, [20.0, np.sin(3.0) + np.sin(1.0)], atol=1e-11)
