"""Floors that may differ by arm: against an optimiser, the KKT conditions, and what was before there were any."""

import math
from itertools import compress, permutations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import optimize

from bandit.arrays import Array, Ints, Mask
from bandit.errors import PropensityError
from bandit.propensity import transforms
from bandit.propensity.floor import (
    UNITS,
    affordable,
    affordable_one,
    afforded,
    apportioned,
    apportioned_many,
    floored,
    floored_many,
)
from bandit.propensity.gaussian import TOLERANCE

Case = tuple[Array, Array, Mask]

UNIT = 1.0 / UNITS
EVERYONE = np.ones(3, dtype=bool)

seeds = st.integers(0, 2**32 - 1)


def before(p: Array, floor: float, eligible: Mask) -> Array:
    """`apportioned` as it was while all arms had one floor."""
    may = eligible.tolist()
    floor = min(math.ceil(floor * UNITS), UNITS // sum(may)) / UNITS
    values = [(v + 384.0) - 384.0 for v in p.tolist()]
    total = sum(values)
    if not abs(total - 1.0) <= TOLERANCE:
        raise PropensityError(f"Σp = {total!r}: the vector {values} is not a distribution")
    above = values if all(may) else list(compress(values, may))
    many, scale = len(above), 1.0 / total
    while above and min(above) * scale < floor:
        above = [v for v in above if v * scale >= floor]
        scale = (1.0 - floor * (many - len(above))) / max(sum(above), 1e-300)
    lifted = [v * scale if v * scale > floor else floor for v in values]
    if many != len(lifted):
        lifted = [v if e else 0.0 for v, e in zip(lifted, may, strict=True)]
    scaled = [v * UNITS for v in lifted]
    units = [int(v) for v in scaled]
    missing = UNITS - sum(units)
    if missing:
        lost = [v - u for u, v in zip(units, scaled, strict=True)]
        for _ in range(missing):
            most = lost.index(max(lost))
            units[most] += 1
            lost[most] = -1.0
    return np.array([u / UNITS for u in units])


def projected(p: Array, floor: Array) -> Array:
    """argmin KL(q‖p) over {q ≥ floor, Σq = 1} by bisection on the multiplier: q = max(floor, λp), Σq grows with λ."""
    if floor.sum() >= 1.0 - 1e-12:
        return floor
    scale = optimize.bisect(lambda s: np.maximum(floor, s * p).sum() - 1.0, 0.0, 2.0, xtol=1e-15, rtol=1e-15)
    return np.maximum(floor, scale * p)


def fair(floor: Array, eligible: Mask) -> Array:
    """Floors of eligible arms, scaled to sum to 1 if they sum to more."""
    floor = np.where(eligible, floor, 0.0)
    return np.asarray(floor / max(1.0, floor.sum()))


def distributions(rng: np.random.Generator, n: int, k: int) -> tuple[Array, Mask]:
    """p (n, k), from even to sure, some of its eligible arms with 0, and masks."""
    eligible = rng.random((n, k)) < rng.choice([0.5, 0.8, 1.0], (n, 1))
    eligible[np.arange(n), rng.integers(k, size=n)] = True
    p = np.where(eligible, rng.gamma(10 ** rng.uniform(-2, 1, (n, 1)), size=(n, k)) + 1e-12, 0.0)
    some = p * (rng.random((n, k)) < 0.7)
    p = np.where((rng.random((n, 1)) < 0.3) & (some.sum(axis=1, keepdims=True) > 0.0), some, p)
    return p / p.sum(axis=1, keepdims=True), eligible


def rows(seed: int, k: int, load: float, n: int = 12) -> Case:
    """(p, floor, eligible) of n rows: floors of a row's arms sum to `load`, a third of them are 0, some are tiny."""
    rng = np.random.default_rng(seed)
    p, eligible = distributions(rng, n, k)
    floor = rng.dirichlet(np.full(k, 0.7), n) * (rng.random((n, k)) < 2 / 3)
    floor *= load / np.maximum(floor.sum(axis=1, keepdims=True), 1e-9)
    tiny = rng.random((n, k)) < 0.1
    return p, np.where(tiny, 10 ** rng.uniform(-320, -7, (n, k)), floor), eligible


def on_grid(seed: int, k: int, load: float) -> Case:
    """As `rows`, with floors in whole units that fit: what `floored` takes."""
    p, floor, eligible = rows(seed, k, min(load, 1.0))
    return p, np.floor(floor * UNITS) / UNITS, eligible


cases = st.builds(rows, seeds, st.integers(1, 12), st.floats(0.0, 1.5) | st.sampled_from([0.1, 1.0, 7.0]))
fitting = st.builds(on_grid, seeds, st.integers(1, 12), st.floats(0.0, 1.0) | st.just(1.0))


def reordered(case: Case, order: Ints) -> Case:
    return case[0][:, order], case[1][:, order], case[2][:, order]


# -- the projection --------------------------------------------------------------------------------------------


@given(fitting)
def test_the_projection_meets_the_conditions_that_make_it_the_nearest(case: Case) -> None:
    """KKT of min KL(q‖p) over {q_a ≥ floor_a, Σq = 1}: feasible; one multiplier λ = q_a/p_a for all arms above their
    floors; and no arm at its floor would have more at that λ.
    """
    for p, floor, eligible in zip(*case, strict=True):
        q = floored(p, floor, eligible)
        assert (q[eligible] >= floor[eligible]).all()
        assert (q[~eligible] == 0.0).all()
        assert q.sum() == pytest.approx(1.0, abs=1e-12)
        low = np.where(eligible, floor, 0.0)
        above = eligible & (q > low)
        if above.any():
            scale = (1.0 - low[~above].sum()) / p[above].sum()
            np.testing.assert_allclose(q[above], scale * p[above], rtol=0, atol=1e-12)
            assert (scale * p[~above] <= low[~above] + 1e-12).all()


@given(cases)
def test_what_is_drawn_from_is_the_projection_that_bisection_finds(case: Case) -> None:
    drawn = apportioned_many(*case)
    for row, p, floor, eligible in zip(drawn, *case, strict=True):
        np.testing.assert_allclose(row, projected(p, fair(floor, eligible)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_drawn_from_is_the_projection_that_a_general_optimiser_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(6, 0.5)) * (1 - 6e-4) + 1e-4
    floor = np.where(rng.random(6) < 0.3, 0.0, rng.dirichlet(np.ones(6)) * rng.uniform(0.1, 0.9))

    def divergence(q: Array) -> float:
        return float((q * np.log(np.maximum(q, 1e-12) / p)).sum())

    def slope(q: Array) -> Array:
        return np.asarray(np.log(np.maximum(q, 1e-12) / p) + 1.0)

    total = optimize.LinearConstraint(np.ones((1, 6)), 1.0, 1.0)
    start, bounds = floor + (1.0 - floor.sum()) / 6, [(float(f), 1.0) for f in floor]
    found = optimize.minimize(divergence, start, jac=slope, method="SLSQP", bounds=bounds, constraints=total, tol=1e-15)
    np.testing.assert_allclose(apportioned(p, floor, np.ones(6, dtype=bool)), found.x, rtol=0, atol=1e-6)


def test_lifting_one_arm_may_bring_another_below_its_floor() -> None:
    q = apportioned(np.array([0.0, 0.3125, 0.6875]), np.array([0.5, 0.25, 0.0]), EVERYONE)
    assert q.tolist() == [0.5, 0.25, 0.25]


# -- the grid --------------------------------------------------------------------------------------------------


@given(cases)
def test_what_is_drawn_from_sums_to_one_on_the_grid_and_is_zero_where_ineligible(case: Case) -> None:
    drawn = apportioned_many(*case)
    assert (drawn.sum(axis=1) == 1.0).all()
    assert np.array_equal(np.rint(drawn * UNITS), drawn * UNITS)
    assert (drawn >= 0.0).all()
    assert (drawn[~case[2]] == 0.0).all()


@given(cases)
def test_no_arm_is_below_its_floor_where_the_floors_fit_and_by_a_unit_where_they_do_not(case: Case) -> None:
    """The largest floor may be short by a unit more for each floor of less than a unit."""
    for q, floor, eligible in zip(apportioned_many(*case), case[1], case[2], strict=True):
        low = fair(floor, eligible)
        if np.ceil(low * UNITS).sum() <= UNITS:
            assert (q >= np.ceil(low * UNITS) / UNITS).all()
        else:
            short = np.maximum(low - q, 0.0)
            paid = np.count_nonzero((low > 0.0) & (low < UNIT))
            assert short.max() < (1 + paid) * UNIT + 1e-15
            assert np.delete(short, short.argmax()).max(initial=0.0) < UNIT + 1e-15
        assert (q[eligible & (floor > 0.0)] > 0.0).all()


@given(cases)
def test_one_decision_and_many_have_the_same_bits(case: Case) -> None:
    drawn = apportioned_many(*case)
    for row, p, floor, eligible in zip(drawn, *case, strict=True):
        assert apportioned(p, floor, eligible).tobytes() == row.tobytes()
        assert apportioned_many(p[None], floor[None], eligible[None]).tobytes() == row.tobytes()


@given(fitting)
def test_the_projection_of_one_and_of_many_have_the_same_bits(case: Case) -> None:
    for row, p, floor, eligible in zip(floored_many(*case), *case, strict=True):
        assert floored(p, floor, eligible).tobytes() == row.tobytes()


@given(cases)
def test_floors_of_one_row_hold_for_every_row(case: Case) -> None:
    p, floor, eligible = case
    assert np.array_equal(
        apportioned_many(p, floor[0], eligible), apportioned_many(p, np.tile(floor[0], (len(p), 1)), eligible)
    )


@given(fitting, seeds)
def test_the_order_of_the_arms_shows_in_no_bit_of_the_projection(case: Case, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(case[0].shape[1])
    assert floored_many(*reordered(case, order)).tobytes() == floored_many(*case)[:, order].tobytes()


@given(fitting, seeds)
def test_the_order_of_the_arms_shows_in_what_is_drawn_from_by_a_unit_among_equals_only(case: Case, seed: int) -> None:
    """Largest remainders are rounded up, the first of equals: where no two are equal, the order shows in no bit."""
    order = np.random.default_rng(seed).permutation(case[0].shape[1])
    moved, drawn = apportioned_many(*reordered(case, order)), apportioned_many(*case)[:, order]
    assert np.abs(moved - drawn).max() <= UNIT
    lost = [row[row > 0.0].tolist() for row in floored_many(*case) * UNITS % 1.0]
    distinct = [len(set(row)) == len(row) for row in lost]
    assert np.array_equal(moved[distinct], drawn[distinct])


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_floors_that_sum_to_one_only_in_some_orders_are_the_same_in_all(order: tuple[int, ...]) -> None:
    """0.1 + 0.2 + 0.7 is 1 or 1 − 2⁻⁵³, by the order."""
    at = list(order)
    p, floor = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.2, 0.7])
    expected = apportioned(p, floor, EVERYONE)
    assert apportioned(p[at], floor[at], EVERYONE).tolist() == expected[at].tolist()
    np.testing.assert_allclose(expected, floor, rtol=0, atol=UNIT)


@given(seeds, st.integers(1, 24), st.floats(0.0, 1.0), st.floats(1e-6, 1.0))
def test_floors_that_are_affordable_have_the_same_bits_one_by_one_and_many_at_once(
    seed: int, k: int, share: float, rate: float
) -> None:
    rng = np.random.default_rng(seed)
    _, eligible = distributions(rng, 12, k)
    utility = rng.normal(0.0, 10.0 ** rng.integers(-9, 2), (12, k))
    utility[0] = utility[0, 0]  # all the best
    many = affordable(utility, eligible, share, rate)
    for row, (one, may) in zip(many, zip(utility, eligible, strict=True), strict=True):
        assert affordable_one(one.tolist(), may.tolist(), share, rate).tobytes() == row.tobytes()


@given(seeds, st.integers(2, 24), st.sampled_from((0.01, 0.3, 1.0)), st.floats(1e-6, 1.0))
def test_what_is_drawn_from_under_afforded_floors_has_the_same_bits_one_by_one_and_many_at_once(
    seed: int, k: int, share: float, rate: float
) -> None:
    rng = np.random.default_rng(seed)
    p, eligible = distributions(rng, 12, k)
    eligible[:, 0] = True  # no nudge, to which the ramp gives what the policy does not decide
    mean, gain, cost = rng.random((12, k)), rng.uniform(0.5, 1.0, k), rng.uniform(0.0, 0.1, k)
    ramped = transforms.ramp(p, share) if share < 1.0 else p
    many = apportioned_many(ramped, affordable(gain * mean - cost, eligible, share, rate), eligible)
    for row, one, own, may in zip(many, p, mean, eligible, strict=True):
        assert afforded(one, own, gain, cost, share, rate, may).tobytes() == row.tobytes()


# -- floors that do not fit ------------------------------------------------------------------------------------


def test_floors_that_sum_to_more_than_one_are_scaled() -> None:
    q = apportioned(np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.5, 1.0]), EVERYONE)
    assert q.tolist() == [0.25, 0.25, 0.5]


def test_floors_that_fit_only_without_the_ineligible_are_kept() -> None:
    q = apportioned(np.array([1.0, 0.0, 0.0]), np.array([0.25, 0.5, 0.75]), np.array([True, True, False]))
    assert q.tolist() == [0.5, 0.5, 0.0]


def test_an_arm_with_the_smallest_floor_keeps_a_unit_and_the_largest_pays() -> None:
    floor = np.array([1e-12, 1.0 - 2e-12, 5e-324])
    expected = [UNIT, 1.0 - 2 * UNIT, UNIT]
    p = np.array([0.0, 1.0, 0.0])
    assert apportioned(p, floor, EVERYONE).tolist() == expected
    assert apportioned_many(p[None], floor[None], EVERYONE[None])[0].tolist() == expected


# -- one floor for all arms ------------------------------------------------------------------------------------

common = (
    st.floats(0.0, 0.2) | st.floats(0.0, 2.0) | st.sampled_from([0.0, 0.01, 0.05, 1 / 3, 1 / 7, 0.1, 1.0, UNIT, 1e-9])
)


@given(seeds, st.integers(1, 24), common)
@example(0, 4, 0.25)
def test_one_floor_has_the_bits_it_had_and_those_of_equal_floors(seed: int, k: int, floor: float) -> None:
    p, eligible = distributions(np.random.default_rng(seed), 12, k)
    expected = np.array([before(*row) for row in zip(p, [floor] * 12, eligible, strict=True)])
    one = np.array([apportioned(*row) for row in zip(p, [floor] * 12, eligible, strict=True)])
    assert one.tobytes() == expected.tobytes()
    assert apportioned_many(p, floor, eligible).tobytes() == expected.tobytes()
    assert apportioned_many(p, np.full(p.shape, floor), eligible).tobytes() == expected.tobytes()
    equal = np.array([apportioned(*row) for row in zip(p, np.full(p.shape, floor), eligible, strict=True)])
    assert equal.tobytes() == expected.tobytes()


@given(seeds, st.integers(1, 24))
def test_one_floor_that_the_arms_just_reach_has_the_bits_it_had(seed: int, k: int) -> None:
    """Floors a hair around 1/k, where they fit or do not by a rounding."""
    p, eligible = distributions(np.random.default_rng(seed), 4, k)
    for row, may in zip(p, eligible, strict=True):
        share = 1.0 / may.sum()
        for floor in (math.nextafter(share, 0.0), share, math.nextafter(share, 1.0), share - 1e-9, share + 1e-9):
            expected = before(row, floor, may)
            assert apportioned(row, floor, may).tobytes() == expected.tobytes()
            assert apportioned(row, np.full(k, floor), may).tobytes() == expected.tobytes()
            assert apportioned_many(row[None], np.full((1, k), floor), may[None])[0].tobytes() == expected.tobytes()


# -- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [[0.5, 0.4, 0.0], [math.nan, 0.5, 0.5]])
def test_a_vector_that_is_no_distribution_is_refused_with_floors_by_arm_too(p: list[float]) -> None:
    floor = np.array([0.1, 0.0, 0.2])
    with pytest.raises(PropensityError, match="not a distribution"):
        apportioned(np.array(p), floor, EVERYONE)
    with pytest.raises(PropensityError, match="row 1, "):
        apportioned_many(np.array([[1.0, 0.0, 0.0], p]), floor, np.ones((2, 3), dtype=bool))


def test_floors_of_other_arms_are_refused() -> None:
    for many in (2, 4):
        with pytest.raises(ValueError, match=r"argument 2|broadcast"):
            apportioned(np.array([0.5, 0.25, 0.25]), np.full(many, 0.1), EVERYONE)
        with pytest.raises(ValueError, match="broadcast"):
            apportioned_many(np.tile([0.5, 0.25, 0.25], (5, 1)), np.full((5, many), 0.1), np.tile(EVERYONE, (5, 1)))


def test_arguments_are_left_alone() -> None:
    p, floor = np.array([0.98, 0.02, 0.0]), np.array([0.1, 0.2, 0.9])
    eligible = np.array([True, True, False])
    apportioned(p, floor, eligible)
    apportioned_many(p[None], floor[None], eligible[None])
    assert (p.tolist(), floor.tolist()) == ([0.98, 0.02, 0.0], [0.1, 0.2, 0.9])
