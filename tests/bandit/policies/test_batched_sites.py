"""Sites of many rows at once: each is that of its row alone, and what is learned so is what is learned one by one."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from bandit.belief import Belief, empty
from bandit.policies import Centred, Hierarchical, assumed_density, quadratic_forms
from bandit.policies.protocol import ArmEconomics

K, D = 4, 6
ARMS = ArmEconomics(("none", "a", "b", "c"), ("none", "t", "t", "u"), np.ones(K), np.zeros(K), ("1",) * D)


def test_batches_are_all_rows_once_in_order_and_at_once_only_after_many_more() -> None:
    for known, n in ((0.0, 5000), (2047.9, 300), (1e6, 1300), (2048.0, 0)):
        found = list(assumed_density.batches(known, n))
        assert [row for rows, _ in found for row in range(rows.start, rows.stop)] == list(range(n))
        for rows, at_once in found:
            assert at_once == (known + rows.start >= 2048)
            assert rows.stop - rows.start <= (min((known + rows.start) / 16, 512) if at_once else 128)


def test_a_site_of_many_is_that_of_its_row_alone() -> None:
    """But for rounding: ν is a difference of means over variances, so that the last bit of m/v counts where v is tiny.
    Which of two formulas rounds how depends on the processor.
    """
    rng = np.random.default_rng(1)
    n = 3000
    mean, variance = rng.normal(0, 3, n), 10 ** rng.uniform(-7, 1.5, n)
    mean[:4], variance[:4] = (900.0, -900.0, 900.0, -900.0), (1.0, 1.0, 1e-9, 1e-9)
    reward = np.where(rng.random(n) < 0.5, np.rint(rng.random(n)), rng.random(n))
    tau, nu = assumed_density.at_once(mean, variance, reward)
    rows = zip(mean.tolist(), variance.tolist(), reward.tolist(), strict=True)
    alone = np.array([assumed_density.site(m, v, r) for m, v, r in rows])
    last_bits = 4.0 * np.finfo(np.float64).eps * np.stack([1.0 / variance, np.abs(mean) / variance], axis=1)
    limit = 1e-9 + 1e-9 * np.abs(alone) + last_bits
    assert (np.abs(np.stack([tau, nu], axis=1) - alone) <= limit).all()


@pytest.mark.parametrize("policy", [Centred(), Hierarchical()], ids=["centred", "hierarchical"])
def test_what_is_learned_at_once_is_what_is_learned_one_by_one(policy: Centred | Hierarchical) -> None:
    """Large effects, 6,000 rows, after 2,048: posterior means differ by less than a twentieth of their sds."""
    rng = np.random.default_rng(2)
    n = 6000
    x = np.rint(np.column_stack([np.ones(n), rng.uniform(-1, 1, (n, D - 1))]) * 4096) / 4096
    arm = rng.integers(0, K, n)
    theta = rng.normal(0, 0.6, (K, D)) - np.array([2.0] + [0.0] * (D - 1))
    reward = (rng.random(n) < special.expit((x * theta[arm]).sum(axis=1))).astype(float)
    design = policy.design(x, arm, np.full((n, K), 1.0 / K))
    found = []
    for size in (n, 16):
        belief = empty(len(policy.rows(ARMS.names)), D)
        first = slice(0, 2048)
        belief = learned(policy, belief, design[first], arm[first], reward[first])
        for start in range(2048, n, size):
            rows = slice(start, start + size)
            belief = learned(policy, belief, design[rows], arm[rows], reward[rows])
        found.append(policy.posterior(belief, ARMS))
    at = np.rint(np.column_stack([np.ones(200), rng.uniform(-1, 1, (200, D - 1))]) * 4096) / 4096
    values = [posterior.forms.many(at) for posterior in found]
    place = quadratic_forms.places(K).diagonal()
    sds = [np.sqrt(spread[:, place]) for _, spread in values]
    assert (np.abs(values[0][0] - values[1][0]) < 0.05 * sds[1]).all()
    np.testing.assert_allclose(sds[0], sds[1], rtol=0.01)


def learned(
    policy: Centred | Hierarchical, belief: Belief, design: Array, arm: NDArray[np.intp], reward: Array
) -> Belief:
    """Belief after these rows as well."""
    tau, nu = policy.sites(belief, ARMS, design, arm, reward)
    part = policy.sums(K, design, arm, tau, nu, reward)
    return Belief(*(a + b for a, b in zip(belief, part, strict=True)))
