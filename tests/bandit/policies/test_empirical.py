"""Prior scales learned from the sums: empirical Bayes mends a prior that was guessed wrongly."""

import numpy as np
import pytest

from bandit.belief import Belief, add, empty, sites
from bandit.policies import Hierarchical, hierarchy
from bandit.policies.protocol import ArmEconomics

K, D = 8, 4
ARMS = ArmEconomics(
    ("none", *(f"a{i}" for i in range(1, K))), ("none", *(f"t{i % 3}" for i in range(1, K))), np.ones(K), np.zeros(K)
)


def world(seed: int, effect_sd: float, rows: int) -> Belief:
    """Sums of Gaussian rows of unit precision whose effects have this sd, of intercepts and of slopes."""
    rng = np.random.default_rng(seed)
    beta, kinds = rng.normal(0, 0.5, D), rng.normal(0, effect_sd, (3, D))
    theta = np.array([beta] + [beta + kinds[i % 3] + rng.normal(0, effect_sd, D) for i in range(1, K)])
    x = np.rint(rng.uniform(-1, 1, (rows, D)) * 4096) / 4096
    x[:, 0] = 1.0
    arm, total = rng.integers(0, K, rows), empty(K, D)
    z = np.einsum("nd,nd->n", x, theta[arm]) + rng.normal(0, 2.0, rows)
    for part in range(0, rows, 1000):
        s = slice(part, part + 1000)
        nu = np.clip(0.25 * z[s], -1, 1)
        total = add(total, sites(K, x[s], arm[s], np.full(len(nu), 0.25), nu, np.zeros(len(nu))))
    return total


@pytest.mark.parametrize(("declared", "true"), [(2.0, 0.3), (0.05, 0.5)])
def test_scales_move_to_what_the_data_show(declared: float, true: float) -> None:
    """Mean over 8 worlds: the learned sd of effects is at least twice as close to the truth in logarithms."""
    policy = Hierarchical(effect_sd=declared, effect_slope_sd=declared, scales="learned")
    found = []
    for seed in range(8):
        belief = world(seed, true, 6000)
        layout = policy.layout(ARMS, D)
        learned = hierarchy.empirical(layout, belief, hierarchy.grouped(layout))
        found.append(1.0 / np.sqrt(learned.precision[-1]))
    assert 2 * abs(np.mean(np.log(found)) - np.log(true)) < abs(np.log(declared) - np.log(true))


def test_without_data_scales_stay_as_declared() -> None:
    layout = Hierarchical().layout(ARMS, D)
    learned = hierarchy.empirical(layout, empty(K, D), hierarchy.grouped(layout))
    np.testing.assert_allclose(learned.precision, layout.precision, rtol=1e-9)


def test_groups_are_baseline_and_effects_intercepts_and_slopes() -> None:
    layout = Hierarchical().layout(ARMS, D)
    groups = hierarchy.grouped(layout)
    assert groups[:D].tolist() == [0, 1, 1, 1]
    assert groups[D:].reshape(-1, D).tolist() == [[2, 3, 3, 3]] * (3 + K - 1)


def test_learned_scales_repair_a_prior_that_is_far_too_wide() -> None:
    """Mean squared error of effects over 8 worlds with little data: at least a fifth less than with the wide prior."""
    wide = Hierarchical(effect_sd=3.0, effect_slope_sd=3.0)
    errors = {"declared": 0.0, "learned": 0.0}
    for seed in range(8):
        little, much = world(seed, 0.2, 300), world(seed, 0.2, 300)
        truth = hierarchy.means(Hierarchical(effect_sd=0.2, effect_slope_sd=0.2).layout(ARMS, D), much)
        layout = wide.layout(ARMS, D)
        errors["declared"] += float(((hierarchy.means(layout, little) - truth) ** 2).mean())
        learned = hierarchy.empirical(layout, little, hierarchy.grouped(layout))
        errors["learned"] += float(((hierarchy.means(learned, little) - truth) ** 2).mean())
    assert errors["learned"] < 0.8 * errors["declared"]
