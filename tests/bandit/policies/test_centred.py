"""The centred policy: its sums, its prior, its scale, and the choice in two steps, against dense formulas."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from bandit.arrays import Array
from bandit.belief import Belief, add, empty
from bandit.policies import Centred, Hierarchical, effects
from bandit.policies.protocol import ArmEconomics
from bandit.policies.scale import SCALES

NAMES, KINDS = ("none", "tip", "call", "offer"), ("none", "help", "help", "discount")
ARMS = ArmEconomics(
    NAMES,
    KINDS,
    np.array([1.0, 1.0, 1.0, 0.8]),
    np.array([0.0, 0.002, 0.012, 0.002]),
    ("1", "age", "plan=pro: pro"),
    price=np.array([0.0, 0.002, 0.002, 0.002]),
)
POLICY = Centred(prior_mean=0.2)
K, D = 4, 3
SUM, BOTH = np.sqrt(2 * 0.05**2), (np.hypot(0.10, 0.07), np.hypot(0.033, 0.0231))  # sds of a type and its only nudge


def rows(n: int, seed: int) -> tuple[Array, NDArray[np.intp], Array]:
    """Contexts, arms and the propensities that they were drawn from."""
    rng = np.random.default_rng(seed)
    x = np.rint(np.column_stack([np.ones(n), rng.uniform(-1, 1, n), rng.random(n) < 0.4]) * 4096) / 4096
    p = np.rint(rng.dirichlet(np.ones(K), n) * 2**24) / 2**24
    return x, np.array([rng.choice(K, p=q / q.sum()) for q in p]), p


def learned(n: int, seed: int) -> tuple[Belief, Array, Array, Array]:
    """Belief of n rows, and what it was made of: design rows, τ and ν."""
    x, arm, p = rows(n, seed)
    reward = (np.random.default_rng(seed + 1).random(n) < 0.2).astype(float)
    design = POLICY.design(x, arm, p)
    tau, nu = POLICY.sites(empty(len(POLICY.rows(NAMES)), D), ARMS, design, arm, reward)
    return POLICY.sums(K, design, arm, tau, nu, reward), design, tau, nu


def dense(design: Array) -> Array:
    """(n, P): baseline, all nudges, help, tip, call, offer, which is the only discount."""
    base, tip, call, offer = design.reshape(len(design), K, D).transpose(1, 0, 2)
    return np.concatenate([base, tip + call + offer, tip + call, tip, call, offer], axis=1)


def test_design_rows_are_the_context_times_what_the_draw_added() -> None:
    x, arm, p = rows(200, 1)
    design = POLICY.design(x, arm, p).reshape(200, K, D)
    np.testing.assert_array_equal(design[:, 0], x)
    for a in range(1, K):
        np.testing.assert_array_equal(design[:, a], ((arm == a) - p[:, a])[:, None] * x)


def test_the_sums_over_pairs_of_arms_are_the_regression_on_all_blocks() -> None:
    """Against Λ = Σ τ φφᵀ and b = Σ ν φ of the P coefficients, to the rounding of contributions."""
    belief, design, tau, nu = learned(300, 2)
    layout = effects.layout(POLICY.prior, ARMS, belief)
    phi = dense(design)
    precision, shift = effects.information(layout, belief)
    np.testing.assert_allclose(precision - layout.precision, phi.T @ (tau[:, None] * phi), atol=300 * 9 * 2.0**-25)
    np.testing.assert_allclose(shift - layout.precision @ layout.mean, phi.T @ nu, atol=300 * 9 * 2.0**-25)


def test_the_prior_is_about_effects_at_the_mean_context_and_expects_what_a_nudge_costs() -> None:
    belief = learned(300, 3)[0]
    layout = effects.layout(POLICY.prior, ARMS, belief)
    covariance = np.linalg.inv(layout.precision)
    middle = belief.precision[0, 0] / (belief.precision[0, 0, 0] + 0.25)
    middle[0] = 1.0
    even = np.array([0.0, 0.01 / 0.16, 0.2 / 0.8])  # tip costs nothing, call a hundredth, the offer a fifth of a reward
    expected = zip(range(3, 6), (0.05, 0.05, SUM), 0.5 * even, ((0.10, 0.033),) * 2 + (BOTH,), strict=True)
    for block, own, start, slopes in expected:
        mine = slice(block * D, (block + 1) * D)
        assert middle @ covariance[mine, mine] @ middle == pytest.approx(own**2 + start**2 / 4)
        assert layout.mean[mine] == pytest.approx([start, 0.0, 0.0])
        assert np.sqrt(covariance[mine, mine].diagonal()[1:]) == pytest.approx(slopes)


def test_a_nudge_alone_in_its_type_has_the_prior_of_both_blocks() -> None:
    """Every effect of a type's only nudge is expected as with two blocks: the covariance of what two arms read is that
    of all nudges' block, plus the type's where they share it, plus the nudge's own.
    """
    belief = learned(300, 3)[0]
    layout = effects.layout(POLICY.prior, ARMS, belief)
    reads = np.kron(layout.effect[1:], np.eye(D))[:, D:]
    found = reads @ np.linalg.inv(layout.precision)[D:, D:] @ reads.T
    x = np.array([1.0, *(belief.precision[0, 0, 1:] / (belief.precision[0, 0, 0] + 0.25))])
    each = np.array([x @ found[i * D : (i + 1) * D, j * D : (j + 1) * D] @ x for i in range(3) for j in range(3)])
    even = np.array([0.0, 0.01 / 0.16, 0.2 / 0.8])
    kind = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert each.reshape(3, 3) == pytest.approx(0.1**2 + kind * 0.05**2 + np.diag(0.05**2 + even**2 / 16))


def test_the_scale_is_that_of_the_largest_evidence() -> None:
    """Against the marginal likelihood of the Gaussian sites, computed from their rows."""
    belief, design, tau, nu = learned(400, 4)
    plain, phi = effects.layout(POLICY.prior, ARMS, belief), dense(design)
    some = tau > 1e-6
    values = []
    for scale in SCALES:
        layout = effects.at_scale(plain, scale)
        spread = phi[some] @ np.linalg.inv(layout.precision) @ phi[some].T + np.diag(1.0 / tau[some])
        values.append(stats.multivariate_normal(phi[some] @ layout.mean, spread).logpdf(nu[some] / tau[some]))
    sums = effects.effect_sums(plain, belief)
    ours = [effects.log_evidences(plain, (scale,), *sums)[0] for scale in SCALES]
    assert effects.log_evidences(plain, SCALES, *sums) == ours  # the bits of each alone
    np.testing.assert_allclose(np.diff(ours), np.diff(values), atol=2e-3)
    likely = np.array(values) - 1.5 * np.log(SCALES)  # P(κ) ∝ κ^−1.5
    assert effects.most_likely(plain, belief) == SCALES[int(np.argmax(likely))] <= 4.0


@pytest.mark.parametrize(("size", "least", "most"), [(0.05, 1.0, 1.5), (1.5, 32.0, 128.0)])
def test_small_effects_stay_small_and_large_ones_are_found(size: float, least: float, most: float) -> None:
    rng, n, k = np.random.default_rng(5), 6000, 12
    arms = ArmEconomics(
        ("none", *(f"n{i}" for i in range(k - 1))),
        ("none", *("ab"[i % 2] for i in range(k - 1))),
        np.ones(k),
        np.zeros(k),
    )
    x = np.rint(np.column_stack([np.ones(n), rng.uniform(-1, 1, n)]) * 4096) / 4096
    arm, p = rng.integers(0, k, n), np.full((n, k), 1 / k)
    effect = rng.normal(0, size, (k, 2))
    effect[0] = 0.0
    reward = (rng.random(n) < special.expit(-1.4 + (x * effect[arm]).sum(axis=1))).astype(float)
    belief, design = empty(len(POLICY.rows(arms.names)), 2), POLICY.design(x, arm, p)
    for part in np.array_split(np.arange(n), 6):
        tau, nu = POLICY.sites(belief, arms, design[part], arm[part], reward[part])
        belief = add(belief, POLICY.sums(k, design[part], arm[part], tau, nu, reward[part]))
    assert least <= POLICY.learned(arms, belief)[1] <= most


def test_a_wrong_baseline_is_not_taken_for_an_effect() -> None:
    """The baseline bends in x, and nudges went where it is high: an uncentred posterior is certain of an effect that
    does not exist, this one is not. Effects are compared at x = 1, over 20 logs of 4,000 rows.
    """
    arms = ArmEconomics(("none", "tip"), ("none", "help"), np.ones(2), np.zeros(2))
    hierarchical, errors = Hierarchical(prior_mean=0.3), {"centred": list[float](), "hierarchical": list[float]()}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.rint(np.column_stack([np.ones(4000), rng.uniform(-1, 1, 4000)]) * 4096) / 4096
        p = np.rint((0.02 + 0.96 * (np.abs(x[:, 1]) > 0.5)) * 2**24) / 2**24
        arm = (rng.random(4000) < p).astype(np.intp)
        reward = (rng.random(4000) < special.expit(-1.2 + 1.5 * x[:, 1] ** 2)).astype(float)
        logged = np.column_stack([1.0 - p, p])
        for name, policy in (("centred", Centred(prior_mean=0.3)), ("hierarchical", hierarchical)):
            design = policy.design(x, arm, logged)
            belief = empty(len(policy.rows(arms.names)), 2)
            for part in np.array_split(np.arange(4000), 4):
                tau, nu = policy.sites(belief, arms, design[part], arm[part], reward[part])
                belief = add(belief, policy.sums(2, design[part], arm[part], tau, nu, reward[part]))
            mean = policy.posterior(belief, arms).choose(np.array([1.0, 0.9]), np.ones(2, dtype=bool)).mean
            errors[name].append(float(special.logit(mean[1]) - special.logit(mean[0])))
    assert abs(np.mean(errors["centred"])) < 0.06
    assert np.mean(errors["hierarchical"]) > 0.15


def test_rewards_expected_of_no_nudge_are_those_of_no_nudge() -> None:
    """Where a nudge of +1 logit went to half of the people at x = −1 and to nearly all at x = 1. Over 20 logs of 4,000
    rows the mean error at both ends is at most 0.02 for either arm, 4 standard errors; the baseline as learned is the
    mean over the draws, and half a logit off.
    """
    arms = ArmEconomics(("none", "tip"), ("none", "help"), np.ones(2), np.zeros(2))
    policy, ends = Centred(prior_mean=0.3, common_sd=1.0), np.array([[1.0, -1.0], [1.0, 1.0]])
    found, off = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.rint(np.column_stack([np.ones(4000), rng.uniform(-1, 1, 4000)]) * 4096) / 4096
        p = np.rint((0.725 + 0.225 * x[:, 1]) * 2**24) / 2**24
        arm = (rng.random(4000) < p).astype(np.intp)
        reward = (rng.random(4000) < special.expit(-1.2 + 0.3 * x[:, 1] + arm)).astype(float)
        design = policy.design(x, arm, np.column_stack([1.0 - p, p]))
        belief = empty(len(policy.rows(arms.names)), 2)
        for part in np.array_split(np.arange(4000), 4):
            tau, nu = policy.sites(belief, arms, design[part], arm[part], reward[part])
            belief = add(belief, policy.sums(2, design[part], arm[part], tau, nu, reward[part]))
        found.append([policy.posterior(belief, arms).choose(end, np.ones(2, dtype=bool)).mean for end in ends])
        layout = policy.learned(arms, belief)[0]
        off.append(ends @ effects.posterior(layout, belief).mean[:2])
    truth = special.expit(-1.2 + 0.3 * ends[:, 1:] + np.array([0.0, 1.0]))
    np.testing.assert_allclose(np.mean(found, axis=0), truth, atol=0.02)
    assert (np.mean(off, axis=0) - special.logit(truth[:, 0]) > 0.3).all()


def test_whether_to_show_does_not_depend_on_how_many_nudges_there_are() -> None:
    """Three equal nudges, or nine of them: no nudge has the same probability before any data, at a price."""

    def none(k: int) -> float:
        arms = ArmEconomics(
            ("none", *(f"n{i}" for i in range(k - 1))),
            ("none", *("same",) * (k - 1)),
            np.ones(k),
            np.append(0.0, np.full(k - 1, 0.006)),
            price=np.append(0.0, np.full(k - 1, 0.006)),
        )
        ready = POLICY.posterior(empty(len(POLICY.rows(arms.names)), 2), arms)
        return float(ready.choose(np.array([1.0, 0.2]), np.ones(k, dtype=bool)).propensity[0])

    few, many = none(4), none(10)
    assert few == pytest.approx(many, abs=0.02)
    assert 0.5 < few < 0.8


def test_the_two_steps_are_what_a_million_draws_do() -> None:
    """Draws of the joint posterior, computed here from the covariance of the coefficients: which nudge has the largest
    utility, its sd scaled by α; then whether the draw of their mean gain, its sd scaled by 0.7, is positive. Wrongly
    rejected once in 10⁶ (4.9 standard errors, and 3e-3 of integration); finds an error of 0.006 always.
    """
    belief, _, _, _ = learned(500, 6)
    ready = POLICY.posterior(belief, ARMS)
    x, eligible = np.array([1.0, 0.25, 1.0]), np.array([True, True, True, True])
    p = ready.choose(x, eligible).propensity
    layout, scale = POLICY.learned(ARMS, belief)
    found = effects.from_no_nudge(layout, effects.posterior(layout, belief), belief)
    reads = np.zeros((K, len(found.mean)))
    for a in range(K):
        for i in layout.reads[a]:
            reads[a, i * D : (i + 1) * D] = x
    z, spread = reads @ found.mean, reads @ found.covariance @ reads.T
    at = special.expit(z)
    slope = ARMS.gain * at * (1 - at)
    worth, width = ARMS.gain * at - ARMS.cost, spread * np.multiply.outer(slope, slope)
    alpha = min(0.5, 0.35 + 0.05 * np.log2(scale))
    rng = np.random.default_rng(7)
    best = rng.multivariate_normal(worth[1:], alpha**2 * width[1:, 1:], 10**6).argmax(axis=1)
    share = np.append(-1.0, np.bincount(best, minlength=K - 1) / 10**6)
    shown = float(stats.norm.cdf(share @ worth / (0.7 * np.sqrt(share @ width @ share))))
    wanted = np.append(1.0 - shown, shown * share[1:])
    np.testing.assert_allclose(p, wanted, atol=3e-3 + 4.9 * 0.5e-3)
