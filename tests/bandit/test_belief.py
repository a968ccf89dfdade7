"""The belief is an exact sum: any order, any batching, any number of learners and taking back end in the same bits."""

from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bandit import belief
from bandit.arrays import Array
from bandit.belief import Belief, add, empty, sites

Rows = tuple[Array, NDArray[np.intp], Array, Array, Array]

K = 3
seeds = st.integers(0, 2**32 - 1)


def rows(seed: int, n: int = 40, d: int = 4) -> Rows:
    """(x, arm, τ, ν, reward) of n random sites: x on its grid, the rest anywhere."""
    rng = np.random.default_rng(seed)
    x = np.rint(rng.uniform(-1, 1, (n, d)) * 4096) / 4096
    return x, rng.integers(0, K, n), rng.uniform(-1, 1, n), rng.uniform(-1, 1, n), rng.random(n)


def subtract(left: Belief, right: Belief) -> Belief:
    """What is left when the rows of `right` are taken back."""
    return Belief(*(a - b for a, b in zip(left, right, strict=True)))


def take(all_rows: Rows, which: Any) -> Belief:
    x, arm, tau, nu, reward = (part[which] for part in all_rows)
    return sites(K, x, arm, tau, nu, reward)


def changed(total: Belief, part: str, index: tuple[int, ...], by: float) -> Belief:
    values = getattr(total, part).copy()
    values[index] += by
    return total._replace(**{part: values})


@given(seeds, st.data())
def test_any_order_batching_and_split_into_learners_ends_in_the_same_bits(seed: int, data: st.DataObject) -> None:
    """τ and ν are off the grid, as those of an approximate policy would be."""
    everything = rows(seed)
    n = len(everything[0])
    order = np.array(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=8)))
    owners = data.draw(st.lists(st.integers(0, 2), min_size=len(cuts) + 1, max_size=len(cuts) + 1))
    learners = [empty(K, 4)] * 3
    for owner, batch in zip(owners, np.split(order, cuts), strict=True):
        learners[owner] = add(learners[owner], take(everything, batch))
    assert reduce(add, learners).digest() == take(everything, slice(None)).digest()


def test_without_the_grid_the_order_shows() -> None:
    """The same sums in plain float64: the 15 orders give more than one result, with the grid just one."""
    everything = rows(0, n=400)
    x, _, tau, _, _ = everything
    orders = [np.random.default_rng(i).permutation(400) for i in range(15)]
    plain = {reduce(np.add, (tau[i] * np.outer(x[i], x[i]) for i in order)).tobytes() for order in orders}
    exact = {reduce(add, (take(everything, [i]) for i in order)).digest() for order in orders}
    assert len(plain) > 10
    assert len(exact) == 1


def test_the_sums_are_those_of_rational_arithmetic() -> None:
    x, arm, tau, nu, reward = everything = rows(7, n=1800, d=2)  # more rows of an arm than one chunk holds
    total = take(everything, slice(None))

    def grid(value: float) -> Fraction:
        return Fraction(round(Fraction(value) * 2**24), 2**24)  # round() and rint both round half to even

    for a in range(K):
        mine = np.flatnonzero(arm == a)
        assert total.n[a] == len(mine)
        assert Fraction(total.reward[a]) == sum(grid(reward[i]) for i in mine)
        assert Fraction(total.square[a]) == sum(grid(float(grid(reward[i])) ** 2) for i in mine)
        for p in range(2):
            assert Fraction(total.shift[a, p]) == sum(grid(nu[i] * x[i, p]) for i in mine)
            for q in range(2):
                assert Fraction(total.precision[a, p, q]) == sum(grid(tau[i] * (x[i, p] * x[i, q])) for i in mine)


@given(seeds)
def test_the_short_cut_for_unit_precision_has_the_bits_of_the_general_path(seed: int) -> None:
    """A further row of τ = ½ for each arm forces the general path; taking it back is exact."""
    x, arm, _, nu, reward = everything = rows(seed)
    unit = (x, arm, np.ones(len(x)), nu, reward)
    extra = (x[:K], np.arange(K), np.full(K, 0.5), nu[:K], reward[:K])
    both = sites(K, *(np.concatenate(pair) for pair in zip(unit, extra, strict=True)))
    assert subtract(both, sites(K, *extra)).digest() == sites(K, *unit).digest()
    assert sites(K, *unit).digest() != take(everything, slice(None)).digest()


@given(seeds, st.integers(0, 40))
def test_taking_rows_back_is_never_having_seen_them(seed: int, kept: int) -> None:
    everything = rows(seed)
    whole, gone = take(everything, slice(None)), take(everything, slice(kept, None))
    assert subtract(whole, gone).digest() == take(everything, slice(kept)).digest()


@pytest.mark.parametrize("position", [0, 2, 3, 4], ids=["x", "tau", "nu", "reward"])
@pytest.mark.parametrize("value", [1.001, -1.001, np.nan, np.inf, -np.inf])
def test_what_would_break_exactness_is_refused(position: int, value: float) -> None:
    everything = rows(1)
    everything[position].flat[5] = value
    with pytest.raises(ValueError, match=r"outside \[-1, 1\]"):
        take(everything, slice(None))


def test_features_off_the_grid_are_refused() -> None:
    """With τ = 1 they would be summed as they are, and the order would show."""
    everything = rows(1)
    everything[0][3, 2] = 0.1
    with pytest.raises(ValueError, match="grid"):
        take(everything, slice(None))


def test_values_at_the_very_ends_are_taken() -> None:
    one = np.ones(1)
    total = sites(1, np.array([[1.0, -1.0]]), np.zeros(1, dtype=np.intp), one, -one, one)
    assert total.precision.tolist() == [[[1.0, -1.0], [-1.0, 1.0]]]
    assert total.shift.tolist() == [[-1.0, 1.0]]


def test_the_capacity_is_where_float64_stops_being_exact() -> None:
    assert belief.CAPACITY * belief.GRID == 2.0**53
    assert belief.X_GRID**2 == belief.GRID


def test_beyond_the_capacity_nothing_is_added_without_saying_so() -> None:
    """At 2²⁹ rows the smallest contribution still counts; at twice as many it would be lost."""
    full = empty(1, 1)._replace(n=np.array([2.0**29 - 1]), reward=np.array([2.0**29 - 1]))
    least = empty(1, 1)._replace(n=np.ones(1), reward=np.array([2.0**-24]))
    assert add(full, least).reward[0] - full.reward[0] == 2.0**-24
    with pytest.raises(ValueError, match="536870913 rows: sums are exact up to 536870912"):
        add(add(full, least), least)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_a_negative_zero_is_a_zero(tau: float) -> None:
    """They are equal and have other bits."""
    arm, reward = np.zeros(1, dtype=np.intp), np.zeros(1)
    minus = sites(1, np.array([[1.0, -0.0]]), arm, np.array([tau]), np.array([-0.0]), reward)
    plus = sites(1, np.array([[1.0, 0.0]]), arm, np.array([tau]), np.array([0.0]), reward)
    assert minus.digest() == plus.digest()


def test_an_empty_belief_is_the_zero_of_the_sum() -> None:
    some = take(rows(3), slice(None))
    assert add(empty(K, 4), some).digest() == some.digest()
    assert take(rows(3), slice(0)).digest() == empty(K, 4).digest()
    assert subtract(some, some).digest() == empty(K, 4).digest()


@pytest.mark.parametrize(
    ("part", "index"),
    [("n", (0,)), ("reward", (1,)), ("square", (2,)), ("precision", (0, 1, 2)), ("shift", (2, 3))],
)
def test_the_digest_sees_the_smallest_change_of_any_part(part: str, index: tuple[int, ...]) -> None:
    some = take(rows(4), slice(None))
    assert changed(some, part, index, 2.0**-24).digest() != some.digest()


def test_the_digest_sees_the_shape() -> None:
    assert empty(9, 1).digest() != empty(5, 2).digest()  # 45 zeros each


def test_sums_make_new_values_and_leave_the_old_alone() -> None:
    left, right = take(rows(5), slice(None)), take(rows(6), slice(None))
    before = left.digest(), right.digest()
    for part in (*left, *right):
        part.flags.writeable = False
    add(left, right)
    subtract(left, right)
    assert (left.digest(), right.digest()) == before
