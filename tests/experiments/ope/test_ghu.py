"""GHU: moments merge, its formula is Johnson's, it is wide where it should be, and it covers what it claims."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from experiments.inference.intervals import Moments, UserSums, bonferroni_level, interval, model_moments, standard_error

RNG = np.random.default_rng


def log(seed: int, n: int, k: int = 3) -> tuple[np.ndarray, ...]:
    """φ, vm, k3m, dm of a log of random propensities, and its users."""
    rng = RNG(seed)
    p, pi, q = rng.dirichlet(np.ones(k), n), rng.dirichlet(np.ones(k), n), rng.random((n, k))
    return rng.exponential(1.0, n), *model_moments(pi, p, q), rng.integers(0, max(n // 3, 1), n)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), max_size=4))
def test_moments_of_parts_add_up_to_those_of_the_whole(seed: int, cuts: list[int]) -> None:
    *columns, _ = log(seed, 40)
    columns.append(columns[0] ** 2)  # even
    edges = [0, *sorted(cuts), 40]
    parts = [Moments.of(*(column[a:b] for column in columns)) for a, b in pairwise(edges)]
    whole, merged = Moments.of(*columns), sum(reversed(parts), Moments())
    for name in ("n", "mean", "m2", "m3", "m4", "variance", "third", "direct", "direct_m2", "even"):
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-9), name
    assert interval(merged) == pytest.approx(interval(whole), rel=1e-9)


def test_a_part_without_a_model_leaves_none() -> None:
    phi, vm, k3m, dm, _ = log(1, 50)
    both = Moments.of(phi, vm, k3m, dm) + Moments.of(phi)
    assert not both.modelled
    assert interval(both) == pytest.approx(interval(Moments.of(np.tile(phi, 2))))


def test_model_moments_are_the_cumulants_of_phi_under_bernoulli_rewards() -> None:
    """Brute force over arms and rewards: given x, φ = dm + w (r − q̂) has variance vm and third central moment k3m."""
    rng = RNG(2)
    p, pi, q = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4)), rng.random(4)
    vm, k3m, dm = (float(part[0]) for part in model_moments(pi[None], p[None], q[None]))
    draws = [(p[a] * (q[a] if r else 1 - q[a]), pi[a] / p[a] * (r - q[a])) for a in range(4) for r in (0, 1)]
    assert [sum(chance * v**j for chance, v in draws) for j in (1, 2, 3)] == pytest.approx([0.0, vm, k3m])
    assert dm == pytest.approx(pi @ q)


def test_an_arm_that_could_not_be_drawn_adds_nothing_to_the_model_variance() -> None:
    p, pi, q = np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]), np.array([[0.3, 0.4]])
    vm, _, dm = model_moments(pi, p, q)
    assert vm[0] == pytest.approx(0.25 * 0.4 * 0.6)
    assert dm[0] == pytest.approx(0.35)


def test_the_interval_is_johnsons_on_the_side_of_the_skewness_and_students_on_the_other() -> None:
    """Johnson 1978, eq. 2.9 for the mean: m + μ3 / 6s²n + (μ3 / 3s⁴)(s² t² / n) at the end in question.

    Without a model μ3 is the sample's times 1 + |γ| / √n.
    """
    phi, n = RNG(3).exponential(1.0, 60), 60
    found = interval(Moments.of(phi))
    square, third = phi.var(ddof=1), ((phi - phi.mean()) ** 3).mean()
    third *= (n / (n - 1)) ** 1.5  # γ is the sample's, the error the unbiased one
    third *= 1.0 + third / square**1.5 / np.sqrt(n)
    z, error = special.stdtrit(n - 1, 0.975), np.sqrt(square / n)
    assert found.high == pytest.approx(phi.mean() + z * error + third / (6 * square * n) * (1 + 2 * z * z))
    assert found.low == pytest.approx(phi.mean() - z * error)
    mirrored = interval(Moments.of(-phi))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_skewed_values_are_covered_where_student_fails() -> None:
    """Weights of 50 at 2 %, as a floor gives: 4,000 logs of 2,000 rounds, q̂ = truth.

    GHU covers 96 %, below 93 % has chance < 1e-6; Student's interval covers less than 93 %.
    """
    rng, n, rate = RNG(12), 2000, 0.05
    count = rng.binomial(n, 0.02 * rate, 4000)  # conversions of the arm
    shown = count + rng.binomial(n - count, 0.02 * (1 - rate) / (1 - 0.02 * rate))
    p, pi, q = np.array([[0.02, 0.98]]), np.array([[1.0, 0.0]]), np.full((1, 2), rate)
    vm, k3m, dm = (np.full(n, part[0]) for part in model_moments(pi, p, q))
    covered = np.zeros(2)
    for hits, rounds in zip(count, shown, strict=True):
        phi = np.full(n, rate)
        phi[:rounds] -= 50 * rate
        phi[:hits] += 50
        found, plain = interval(Moments.of(phi, vm, k3m, dm)), stats.t.interval(0.95, n - 1, phi.mean(), stats.sem(phi))
        covered += [found.low <= rate <= found.high, plain[0] <= rate <= plain[1]]
    assert covered[0] > 0.93 * 4000
    assert covered[1] < 0.93 * 4000


def test_without_skewness_it_is_students_interval() -> None:
    phi = np.array([-1.0, 1.0] * 30)
    assert interval(Moments.of(phi))[1:3] == pytest.approx(stats.t.interval(0.95, 59, 0.0, stats.sem(phi)))


def test_a_reward_that_has_not_come_yet_leaves_the_interval_wide() -> None:
    """100 rounds of weight 10, no conversion, q̂ = 3 %: the sample's spread is 0, the model's is not."""
    zeros, rate = np.zeros(100), np.full(100, 0.03)
    p, pi, q = np.tile([0.1, 0.9], (100, 1)), np.tile([1.0, 0.0], (100, 1)), np.tile([0.03, 0.03], (100, 1))
    moments = Moments.of(rate - 10 * rate * (RNG(0).random(100) < 0.1), *model_moments(pi, p, q))
    assert standard_error(moments) == pytest.approx(math.sqrt(10 * 0.03 * 0.97 / 100))
    found = interval(moments, bounds=(0.0, 1.0))
    assert found.low == 0.0
    assert found.high > 0.1
    assert interval(Moments.of(zeros), bounds=(0.0, 1.0))[1:3] == (0.0, 1.0), "no model and no spread: nothing is known"
    assert interval(Moments.of(zeros))[1:3] == (-math.inf, math.inf)


def test_too_few_rounds_know_nothing() -> None:
    assert math.isnan(interval(Moments()).value)
    assert interval(Moments.of(np.array([0.4])), bounds=(0.0, 1.0))[:3] == (0.4, 0.0, 1.0)


def test_users_who_recur_count_once_each() -> None:
    """Each round repeated ten times by the same user says no more than once; as if independent, it seems to."""
    phi, vm, k3m, dm, _ = log(4, 200)
    user, repeated = np.repeat(np.arange(200), 10), np.repeat(phi, 10)
    clustered = interval(UserSums.of(user, repeated).moments())
    assert clustered == pytest.approx(interval(Moments.of(phi)))
    assert interval(Moments.of(repeated)).high - clustered.value < 0.5 * (clustered.high - clustered.value)
    model = [np.repeat(part, 10) for part in (vm, k3m, dm)]
    assert UserSums.of(user, repeated, *model).moments().variance == pytest.approx(vm.sum() / 10)


def test_users_of_one_round_each_are_rounds() -> None:
    *columns, _ = log(5, 80)
    assert interval(UserSums.of(RNG(5).permutation(80), *columns).moments()) == pytest.approx(
        interval(Moments.of(*columns))
    )


@given(st.integers(0, 2**32), st.integers(0, 60))
def test_sums_by_user_merge(seed: int, cut: int) -> None:
    *columns, user = log(seed, 60)
    parts = [
        UserSums.of(user[rows], *(column[rows] for column in columns)) for rows in (slice(cut, None), slice(0, cut))
    ]
    assert interval((parts[0] + parts[1]).moments()) == pytest.approx(
        interval(UserSums.of(user, *columns).moments()), rel=1e-9
    )


def test_a_level_is_shared_among_arms() -> None:
    assert bonferroni_level(0.95, 5) == pytest.approx(0.99)
    assert bonferroni_level(0.95, 0) == 0.95
