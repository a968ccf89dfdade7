"""Probabilities over arms against closed forms and adaptive quadrature; the floor, the draw and the hash."""

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats

from bandit.arrays import Array
from bandit.errors import PropensityError
from bandit.propensity import beta, gaussian
from bandit.propensity.draw import draw, unit
from bandit.propensity.floor import floored

Case = tuple[Array, float, NDArray[np.bool_]]
Law = Callable[[float], tuple[Array, Array]]

seeds = st.integers(0, 2**32 - 1)


def quadrature(law: Law, points: Array) -> Array:
    """∫ f_a Π_{j≠a} F_j, adaptively between `points`: the oracle."""

    def integrand(t: float) -> Array:
        density, below = law(t)
        others = np.where(np.eye(len(below), dtype=bool), 1.0, below[None, :])
        return np.asarray(density * others.prod(axis=1))

    points = np.unique(points)
    result = integrate.quad_vec(integrand, points[0], points[-1], epsabs=1e-11, points=points[1:-1], norm="max")[0]
    return np.asarray(result)


def gaussian_oracle(mean: Array, sd: Array) -> Array:
    def law(t: float) -> tuple[Array, Array]:
        z = (t - mean) / sd
        return stats.norm.pdf(z) / sd, special.ndtr(z)

    points = (mean[:, None] + sd[:, None] * np.linspace(-9, 9, 7)).ravel()
    return quadrature(law, np.clip(points, np.max(mean - 9 * sd), np.max(mean + 9 * sd)))


def beta_oracle(a: Array, b: Array, gain: Array, cost: Array) -> Array:
    def law(t: float) -> tuple[Array, Array]:
        dist = stats.beta(a, b)
        return np.asarray(dist.pdf((t + cost) / gain) / gain), np.asarray(dist.cdf((t + cost) / gain))

    levels = np.array([0, 1e-12, 1e-9, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9, 1])
    points = special.betaincinv(a[:, None], b[:, None], levels) * gain[:, None] - cost[:, None]
    return quadrature(law, np.clip(points.ravel(), points[:, 0].max(), None))


# -- normal scores ---------------------------------------------------------------------------------------------


@given(st.floats(-50, 50), st.floats(-3, 3), st.floats(-3, 3))
def test_two_normal_arms_agree_with_the_closed_form(gap: float, log_sd0: float, log_sd1: float) -> None:
    """Widths from 1e-3 to 1e3, so up to a million times apart."""
    sd = np.array([10.0**log_sd0, 10.0**log_sd1])
    p = gaussian.gaussian(np.array([gap, 0.0]), sd)
    assert p[0] == pytest.approx(special.ndtr(gap / math.hypot(*sd)), abs=1e-8)
    assert p.sum() == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("k", range(2, 21))
def test_many_normal_arms_agree_with_adaptive_quadrature(k: int) -> None:
    rng = np.random.default_rng(k)
    for spread, width in ((1.0, 3.0), (1e-9, 0.0), (0.3, 0.1), (3.0, 1.0)):
        mean, sd = rng.normal(0, spread, k), 10.0 ** rng.uniform(-width, width, k)
        np.testing.assert_allclose(gaussian.gaussian(mean, sd), gaussian_oracle(mean, sd), rtol=0, atol=1e-8)


def test_nearly_equal_arms_are_the_hard_case_and_hold_the_bound() -> None:
    """Arms of one width share their panels, and the product of the others' laws is steep: 7 panels err by 1e-7 here."""
    rng = np.random.default_rng(18)
    mean, sd = rng.normal(0, 1e-3, 18), rng.normal(1, 0.04, 18)
    np.testing.assert_allclose(gaussian.gaussian(mean, sd), gaussian_oracle(mean, sd), rtol=0, atol=1e-8)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("sd", [1e-3, 1.0, 1e3])
def test_identical_normal_arms_share_equally(k: int, sd: float) -> None:
    np.testing.assert_allclose(gaussian.gaussian(np.full(k, 0.7), np.full(k, sd)), 1 / k, rtol=0, atol=1e-8)


def test_a_tie_of_a_billionth_is_a_tie() -> None:
    p = gaussian.gaussian(np.linspace(0.0, 5e-9, 6), np.ones(6))
    np.testing.assert_allclose(p, 1 / 6, rtol=0, atol=1e-8)
    assert (np.diff(p) > 0).all()  # and still in the right order


def test_a_dominated_arm_has_no_share_and_costs_the_others_nothing() -> None:
    p = gaussian.gaussian(np.array([0.0, -40.0, 0.1]), np.array([1.0, 1.0, 2.0]))
    alone = gaussian.gaussian(np.array([0.0, 0.1]), np.array([1.0, 2.0]))
    assert p[1] == 0.0
    assert p[[0, 2]].tolist() == alone.tolist()


def test_a_clear_winner_takes_all() -> None:
    assert gaussian.gaussian(np.array([0.0, 100.0, 1.0]), np.ones(3)).tolist() == [0.0, 1.0, 0.0]


@given(seeds, st.integers(2, 12))
def test_relabelling_normal_arms_relabels_their_shares(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    mean, sd, order = rng.normal(0, 1, k), 10.0 ** rng.uniform(-2, 2, k), rng.permutation(k)
    p = gaussian.gaussian(mean, sd)
    np.testing.assert_allclose(gaussian.gaussian(mean[order], sd[order]), p[order], rtol=0, atol=1e-12)


@given(seeds, st.floats(-100, 100), st.floats(-3, 3))
def test_neither_origin_nor_unit_of_utility_matters(seed: int, shift: float, log_scale: float) -> None:
    rng = np.random.default_rng(seed)
    mean, sd, scale = rng.normal(0, 1, 5), rng.uniform(0.1, 2, 5), 10.0**log_scale
    moved = gaussian.gaussian(scale * (mean + shift), scale * sd)
    np.testing.assert_allclose(moved, gaussian.gaussian(mean, sd), rtol=0, atol=1e-9)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_laws_that_are_not_normal_are_refused(position: int, wrong: float) -> None:
    values = [np.array([0.0, 0.5]), np.ones(2)]
    values[position][1] = wrong
    with pytest.raises(PropensityError, match="not normal laws"):
        gaussian.gaussian(*values)


@pytest.mark.parametrize("sd", [0.0, -1.0])
def test_a_width_that_is_not_positive_is_refused(sd: float) -> None:
    with pytest.raises(PropensityError, match="not normal laws"):
        gaussian.gaussian(np.zeros(2), np.array([sd, 1.0]))


@pytest.mark.parametrize(
    ("mean", "sd"),
    [([1.0, 0.3, 0.3], [1.0, 1e-18, 1e-18]), ([1e12, 1e12, 1e12], [1e-9, 1e-9, 1e-9])],
    ids=["under a wide arm", "alone"],
)
def test_integration_that_fails_raises_the_alarm(mean: list[float], sd: list[float]) -> None:
    """Widths below the spacing of floats around the means: no grid can tell the arms apart."""
    with pytest.raises(PropensityError, match="Σp"):
        gaussian.gaussian(np.array(mean), np.array(sd))


def laws(rng: np.random.Generator, k: int) -> dict[str, tuple[Array, Array]]:
    """The stress suite: means and sds of k arms, of every kind that has broken a rule of integration."""
    ties = np.where(rng.random(k) < 0.5, 0.0, rng.normal(0, 1e-9, k))
    narrow = np.where(np.arange(k) % 2, 1e-3, rng.uniform(0.5, 2, k))
    return {
        "alike": (rng.normal(0, 10 ** rng.uniform(-3, 1.3), k), rng.normal(1, 0.04, k)),
        "a decade": (rng.normal(0, 1, k), 10 ** rng.uniform(-0.5, 0.5, k)),
        "two decades": (rng.normal(0, 3, k), 10 ** rng.uniform(-1, 1, k)),
        "six decades": (rng.normal(0, 1, k), 10 ** rng.uniform(-3, 3, k)),
        "ties": (ties, np.full(k, 10.0 ** rng.uniform(-3, 3))),
        "ties of two widths": (ties, narrow),
        "dominated": (np.where(np.arange(k) < 2, 0.0, -rng.uniform(5, 12, k)), rng.uniform(0.3, 1, k)),
        "far apart": (rng.normal(0, 30, k), 10 ** rng.uniform(-2, 1, k)),
    }


@pytest.mark.parametrize("k", range(2, 21))
def test_the_stress_suite_holds_the_bound(k: int) -> None:
    for mean, sd in laws(np.random.default_rng(1000 + k), k).values():
        np.testing.assert_allclose(gaussian.gaussian(mean, sd), gaussian_oracle(mean, sd), rtol=0, atol=1e-8)


@pytest.mark.parametrize("k", range(3, 21))
def test_one_grid_and_many_panels_agree_wherever_the_grid_is_used(k: int) -> None:
    """Two rules with nothing in common but the integrand; the grid's error at its step is proved to be 5.4e-9·p_a."""
    rng, used = np.random.default_rng(2000 + k), 0
    for _ in range(60):
        for mean, sd in laws(rng, k).values():
            p = gaussian.trapezoid(mean.tolist(), sd.tolist())
            if p.sum() > 0.5:
                used += 1
                panels = gaussian._fine_panels(mean.tolist(), sd.tolist())
                np.testing.assert_allclose(p, panels, rtol=0, atol=9e-9)
    assert used > 200


def test_a_narrow_arm_far_below_wide_ones_is_no_division_by_zero() -> None:
    mean, sd = np.array([0.0, 500.0, 500.0]), np.array([1.0, 10.0, 80.0])
    np.testing.assert_allclose(gaussian.gaussian(mean, sd), gaussian_oracle(mean, sd), rtol=0, atol=1e-8)


@given(st.floats(-50, 50), st.floats(-3, 3), st.floats(-3, 3))
def test_two_arms_have_the_closed_form_to_the_error_of_the_tables(gap: float, log_sd0: float, log_sd1: float) -> None:
    """`normal_tables` promises Φ to 1e-10; an arm whose probability is 4e-11 or less is none."""
    sd = np.array([10.0**log_sd0, 10.0**log_sd1])
    p = gaussian.gaussian(np.array([gap, 0.0]), sd)
    assert p[1] == pytest.approx(special.ndtr(-gap / math.hypot(*sd)), abs=1e-10)
    assert p.sum() == pytest.approx(1.0, abs=1e-15)


def test_threads_get_the_bits_that_one_alone_gets() -> None:
    """Nothing is shared between calls, and what came before leaves no trace."""
    rng = np.random.default_rng(5)
    cases = [law for _ in range(40) for k in (2, 3, 6, 11) for law in laws(rng, k).values()]
    alone = [gaussian.gaussian(*case).tobytes() for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert [p.tobytes() for p in pool.map(lambda case: gaussian.gaussian(*case), cases)] == alone
    assert [gaussian.gaussian(*case).tobytes() for case in reversed(cases)] == alone[::-1]


# -- Beta scores -----------------------------------------------------------------------------------------------


def beta_two_arms(a: Array, b: Array) -> float:
    """P(B₀ > B₁) for whole a₀: a finite sum, Σ_{i<a₀} B(a₁+i, b₀+b₁) / ((b₀+i)·B(1+i, b₀)·B(a₁, b₁))."""
    i = np.arange(a[0])
    logs = special.betaln(a[1] + i, b[0] + b[1]) - np.log(b[0] + i)
    return float(np.exp(logs - special.betaln(1 + i, b[0]) - special.betaln(a[1], b[1])).sum())


@given(st.tuples(*[st.integers(1, 10_000)] * 4))
def test_two_beta_arms_agree_with_the_finite_sum(counts: tuple[int, int, int, int]) -> None:
    a, b = np.array(counts[:2], dtype=float), np.array(counts[2:], dtype=float)
    p = beta.wins(a, b, np.ones(2), np.zeros(2))
    np.testing.assert_allclose(p, [beta_two_arms(a, b), beta_two_arms(a[::-1], b[::-1])], rtol=0, atol=1e-8)


@pytest.mark.parametrize("priced", [False, True])
@pytest.mark.parametrize("most", [0.5, 10.0, 10_000.0])
def test_beta_arms_with_gains_and_costs_agree_with_adaptive_quadrature(most: float, priced: bool) -> None:
    """Parameters need not be whole: tempering divides them."""
    rng = np.random.default_rng(int(most))
    for k in (2, 3, 6):
        a, b = 1 + rng.uniform(0, most, k), 1 + rng.uniform(0, most, k)
        gain, cost = (rng.uniform(0.3, 1, k), rng.uniform(-0.1, 0.2, k)) if priced else (np.ones(k), np.zeros(k))
        p = beta.wins(a, b, gain, cost)
        np.testing.assert_allclose(p, beta_oracle(a, b, gain, cost), rtol=0, atol=1e-7)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.05, 1.05), (1.0, 10_000.0), (300.0, 9_700.0)])
def test_identical_beta_arms_share_equally(k: int, a: float, b: float) -> None:
    p = beta.wins(np.full(k, a), np.full(k, b), np.ones(k), np.zeros(k))
    np.testing.assert_allclose(p, 1 / k, rtol=0, atol=1e-7)


def test_a_beta_arm_that_can_never_pay_has_no_share() -> None:
    """At best 0.2·1 − 0.3 < 0, what showing nothing pays at worst."""
    p = beta.wins(np.array([1.0, 50.0]), np.array([1.0, 1.0]), np.array([1.0, 0.2]), np.array([0.0, 0.3]))
    np.testing.assert_allclose(p, [1.0, 0.0], rtol=0, atol=1e-9)


@given(seeds, st.integers(2, 8))
def test_relabelling_beta_arms_relabels_their_shares(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    laws = rng.uniform(1, 200, k), rng.uniform(1, 200, k), rng.uniform(0.5, 1, k), rng.uniform(0, 0.1, k)
    order = rng.permutation(k)
    p = beta.wins(*laws)
    np.testing.assert_allclose(beta.wins(*(v[order] for v in laws)), p[order], rtol=0, atol=1e-12)


def test_beta_laws_that_are_none_raise_the_alarm() -> None:
    with pytest.raises(PropensityError, match="Σp"):
        beta.wins(np.array([math.nan, 1.0]), np.ones(2), np.ones(2), np.zeros(2))


# -- the floor -------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """(p, floor, eligible): p may be very uneven, and 0 for eligible arms too."""
    k = draw(st.integers(1, 12))
    eligible = np.array(draw(st.lists(st.booleans(), min_size=k, max_size=k)))
    weights = np.array(draw(st.lists(st.just(0.0) | st.floats(1e-9, 1.0), min_size=k, max_size=k))) * eligible
    assume(weights.sum() > 0.0)
    floor = draw(st.floats(0.0, 0.999)) / np.count_nonzero(eligible)
    return weights / weights.sum(), floor, eligible


@given(cases())
def test_the_floor_gives_a_distribution_with_no_eligible_arm_below_it(case: Case) -> None:
    p, floor, eligible = case
    result = floored(p, floor, eligible)
    assert result.sum() == pytest.approx(1.0, abs=1e-12)
    assert (result[eligible] >= floor).all()
    assert (result[~eligible] == 0.0).all()


@given(cases())
def test_the_floor_keeps_the_order_and_the_odds_above_it(case: Case) -> None:
    p, floor, eligible = case
    result = floored(p, floor, eligible)
    order = np.argsort(p[eligible], kind="stable")
    assert (np.diff(result[eligible][order]) >= 0.0).all()
    above = eligible & (result > floor)
    np.testing.assert_allclose(result[above] * p[above].sum(), p[above] * result[above].sum(), rtol=0, atol=1e-12)


@given(cases())
def test_flooring_twice_is_flooring_once(case: Case) -> None:
    p, floor, eligible = case
    once = floored(p, floor, eligible)
    np.testing.assert_allclose(floored(once, floor, eligible), once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_floor_is_the_projection_in_relative_entropy(seed: int) -> None:
    """Against a general optimiser of KL(q‖p) over {q ≥ floor, Σq = 1}."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(6, 0.3)) * 0.999 + 0.001 / 6
    floor = 0.05

    def divergence(q: Array) -> float:
        return float(special.rel_entr(q, p).sum())

    total = optimize.LinearConstraint(np.ones((1, 6)), 1.0, 1.0)
    start, bounds = np.repeat(1 / 6, 6), [(floor, 1.0)] * 6
    found = optimize.minimize(divergence, start, method="SLSQP", bounds=bounds, constraints=total, tol=1e-14)
    mine = floored(p, floor, np.ones(6, dtype=bool))
    assert divergence(mine) <= found.fun + 1e-9
    np.testing.assert_allclose(mine, found.x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("p", [[0.5, 0.501], [0.5, 0.499], [math.nan, 1.0], [math.inf, 0.0], [0.0, 0.0]])
def test_what_does_not_sum_to_one_is_an_alarm_and_not_renormalised(p: list[float]) -> None:
    with pytest.raises(PropensityError, match="Σp"):
        floored(np.array(p), 0.01, np.ones(2, dtype=bool))


def test_rounding_within_the_tolerance_is_forgiven() -> None:
    result = floored(np.array([0.5, 0.5 + 9e-7]), 0.0, np.ones(2, dtype=bool))
    assert result.sum() == pytest.approx(1.0, abs=1e-15)


def test_flooring_leaves_its_argument_alone() -> None:
    p = np.array([0.001, 0.999, 0.0])
    floored(p, 0.1, np.array([True, True, False]))
    assert p.tolist() == [0.001, 0.999, 0.0]


# -- the draw --------------------------------------------------------------------------------------------------

LAST = 1.0 - 2.0**-53  # the largest u there is


@pytest.mark.parametrize(
    ("u", "arm"),
    [(0.0, 1), (0.25 - 2**-54, 1), (0.25, 3), (0.75 - 2**-53, 3), (0.75, 4), (LAST, 4)],
)
def test_each_arm_owns_an_interval_as_long_as_its_probability(u: float, arm: int) -> None:
    assert draw(np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]), u) == arm


@given(cases(), st.floats(0.0, 1.0, exclude_max=True) | st.sampled_from([0.0, LAST, 5e-324]))
def test_the_draw_inverts_the_distribution_and_never_takes_an_arm_without_share(case: Case, u: float) -> None:
    p = floored(*case)
    arm = draw(p, u)
    assert p[arm] > 0.0
    assert p[:arm].sum() - 1e-12 <= u <= p[: arm + 1].sum() + 1e-12


def test_hashed_draws_are_as_frequent_as_stated() -> None:
    """Hoeffding over 5 arms: false alarm ≤ 1e-6; detects any error ≥ 0.022 with probability 1 − 1e-6."""
    n, p = 70_000, np.array([0.01, 0.2, 0.0, 0.3, 0.49])
    bound = math.sqrt(math.log(2 * len(p) / 1e-6) / (2 * n))
    arms = [draw(p, unit(b"salt", b"draw", i.to_bytes(16, "big"))) for i in range(n)]
    frequency = np.bincount(arms, minlength=len(p)) / n
    assert np.abs(frequency - p).max() < bound < 0.011
    assert frequency[2] == 0.0


# -- the hash --------------------------------------------------------------------------------------------------


def test_hashed_numbers_are_uniform() -> None:
    """Dvoretzky–Kiefer–Wolfowitz: false alarm ≤ 1e-6; detects any distance ≥ 0.024 with probability 1 − 1e-6."""
    n = 50_000
    u = np.sort([unit(b"salt", b"draw", i.to_bytes(16, "big")) for i in range(n)])
    assert u[0] >= 0.0
    assert u[-1] < 1.0
    distance = np.abs(np.append(u, 1.0)[:-1] - (np.arange(n) + 0.5) / n).max() + 0.5 / n
    assert distance < math.sqrt(math.log(2 / 1e-6) / (2 * n)) < 0.0121


def test_anybody_with_the_key_can_recompute_the_number() -> None:
    """Stated here a second time: receipts must mean the same for ever."""
    for i in range(100):
        text = (4).to_bytes(8, "big") + b"draw" + (1).to_bytes(8, "big") + bytes([i])
        digest = hashlib.blake2b(text, digest_size=8, key=b"salt").digest()
        assert unit(b"salt", b"draw", bytes([i])) == (int.from_bytes(digest, "big") >> 11) / 2**53


parts = st.lists(st.binary(max_size=3) | st.sampled_from([b"\x1f", b"\x00", b"a\x1fb"]), max_size=4)


@given(parts, parts)
def test_different_parts_give_different_numbers(left: list[bytes], right: list[bytes]) -> None:
    assert (unit(b"salt", *left) == unit(b"salt", *right)) == (left == right)


def test_different_keys_give_different_numbers() -> None:
    assert len({unit(bytes([key]), b"draw") for key in range(100)}) == 100
