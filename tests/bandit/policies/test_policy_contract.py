"""One contract, every policy; then each policy against an oracle of its own."""

import contextlib
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from bandit.arrays import Array
from bandit.belief import Belief, empty, sites
from bandit.catalogue.loading import parse, read_shipped
from bandit.policies import (
    AnyPolicy,
    Beta,
    Centred,
    EpsilonGreedy,
    Fixed,
    Greedy,
    Hierarchical,
    Linear,
    LinUCB,
    Logistic,
    Uniform,
    assumed_density,
)
from bandit.policies.gaussian import HierarchicalGaussian
from bandit.policies.protocol import ArmEconomics, Policy
from bandit.propensity import gaussian
from journey_bandit.testing.policies import LearnerContract, PolicyContract, plain, posterior, world

POLICIES: list[Any] = [
    Uniform(),
    Fixed("a1"),
    Beta(),
    Beta(prior_success=2.0, prior_failure=30.0, alpha=0.3),
    Linear(),
    Hierarchical(),
    Hierarchical(prior_mean=0.3).gaussian(),
    Centred(),
    Centred(prior_mean=0.4),
    Logistic(prior_mean=0.3),
    Greedy(),
    EpsilonGreedy(epsilon=0.2),
    LinUCB(width=0.7),
    Linear(prior_mean=0.5, prior_sd=2.0, slope_sd=1.0, noise_sd=0.5, alpha=1.0),
]
seeds = st.integers(0, 2**32 - 1)


class TestEveryPolicy(PolicyContract):
    policies = POLICIES

    def first_arm_is_special(self, policy: Policy) -> bool:
        return isinstance(policy, Centred | Hierarchical | HierarchicalGaussian)

    def arm_by_name(self, policy: Policy) -> int | None:
        return 1 if isinstance(policy, Fixed) else None

    def relabelling_error(self, policy: Policy) -> float:
        """Correlated scores are integrated over fixed points, which are not symmetric in the arms."""
        return 0.02 if self.first_arm_is_special(policy) else 1e-7

    def learns_its_prior(self, policy: Policy) -> bool:
        return isinstance(policy, Centred)

    def declared(self, policy: Policy) -> Any:
        """A catalogue declares the Gaussian hierarchy as `hierarchical`."""
        return type(policy) if isinstance(policy, HierarchicalGaussian) else AnyPolicy


def test_every_policy_that_a_catalogue_can_name_is_held_to_the_contract() -> None:
    assert {type(policy) for policy in POLICIES} >= set(get_args(AnyPolicy))


class TestLearners(LearnerContract):
    policies = tuple(p for p in POLICIES if isinstance(p, Linear | Beta))


# -- logistic and hierarchical ---------------------------------------------------------------------------------------


def test_assumed_density_filtering_matches_the_tilted_moments() -> None:
    """Against the integrals, by adaptive quadrature: the site adds what the likelihood says, to 1e-5."""
    for mu, s2, reward in [(0.0, 1.0, 1.0), (-3.0, 2.0, 0.0), (-3.0, 2.0, 1.0), (1.5, 0.3, 0.0), (0.2, 1e-3, 1.0)]:

        def tilted(z: float, mu: float = mu, s2: float = s2, reward: float = reward) -> float:
            return float(stats.norm.pdf(z, mu, np.sqrt(s2)) * special.expit(z if reward else -z))

        low, high = mu - 12 * np.sqrt(s2), mu + 12 * np.sqrt(s2)
        total, first, second = (
            integrate.quad(lambda z, e=e: z**e * tilted(z), low, high, points=[mu], epsabs=1e-13)[0] for e in (0, 1, 2)
        )
        mean, variance = first / total, second / total - (first / total) ** 2
        tau, nu = assumed_density.site(mu, s2, reward)
        assert tau == pytest.approx(1 / variance - 1 / s2, abs=1e-5)
        assert nu == pytest.approx(mean / variance - mu / s2, abs=1e-5)


def test_a_sure_score_has_the_likelihoods_own_curvature() -> None:
    wide, narrow = assumed_density.site(0.7, 1.1e-6, 1.0), assumed_density.site(0.7, 0.9e-6, 1.0)
    assert narrow == pytest.approx(wide, abs=1e-4)


@given(seeds)
def test_the_logistic_posterior_is_bayesian_regression_on_its_sites(seed: int) -> None:
    """Disjoint: each arm alone, written out. The mean of the reward is σ(z) averaged, the choice is of independents."""
    w = world(seed, varied=False)
    policy = Logistic(prior_mean=0.3, prior_sd=0.8, slope_sd=0.3, alpha=0.7)
    k, d = len(w.arms), w.x.shape[1]
    tau, nu = policy.sites(empty(k, d), w.facts, w.x, w.arm, w.reward)
    scores = policy.posterior(sites(k, w.x, w.arm, tau, nu, w.reward), w.facts).choose(w.context, w.eligible)
    z, sd = np.zeros(k), np.zeros(k)
    for a in range(k):
        mine = w.arm == a
        prior = np.diag([1 / 0.8**2, *[1 / 0.3**2] * (d - 1)])
        covariance = np.linalg.inv(prior + (w.x[mine].T * tau[mine]) @ w.x[mine])
        start = prior @ np.array([np.log(0.3 / 0.7), *[0.0] * (d - 1)])
        z[a] = w.context @ covariance @ (start + w.x[mine].T @ nu[mine])
        sd[a] = np.sqrt(w.context @ covariance @ w.context)
    np.testing.assert_allclose(scores.mean, special.expit(z / np.sqrt(1 + np.pi / 8 * sd**2)), atol=1e-5)
    p = gaussian.gaussian(z[w.eligible], 0.7 * sd[w.eligible])
    np.testing.assert_allclose(scores.propensity[w.eligible], p, atol=1e-4)


def test_nudges_of_a_type_teach_each_other() -> None:
    """A new nudge of a type that works starts above a new nudge of a type that does not."""
    rng = np.random.default_rng(1)
    arms = ArmEconomics(("none", "a", "b", "c", "d"), ("none", "good", "good", "bad", "bad"), np.ones(5), np.zeros(5))
    arm = rng.choice([0, 1, 3], 3000)
    reward = (rng.random(3000) < np.array([0.2, 0.4, 0.0, 0.1, 0.0])[arm]).astype(float)
    x, policy = np.ones((3000, 1)), Hierarchical(prior_mean=0.2)
    belief = sites(5, x, arm, *policy.sites(empty(5, 1), arms, x, arm, reward), reward)
    mean = policy.posterior(belief, arms).choose(np.ones(1), np.ones(5, dtype=bool)).mean
    assert mean[0] == pytest.approx(0.2, abs=0.03)
    assert mean[1] > mean[2] > mean[0] + 0.02
    assert mean[3] < mean[4] < mean[0] - 0.02


# -- linear ----------------------------------------------------------------------------------------------------


@given(seeds, st.floats(0.1, 2.0))
def test_linear_agrees_with_bayesian_regression_written_out(seed: int, alpha: float) -> None:
    """Row by row in plain numpy, with rewards anywhere on the grid, and no sums of the belief."""
    w = world(seed)
    rng = np.random.default_rng(seed)
    w = w._replace(reward=np.rint(rng.random(len(w.reward)) * 4096) / 4096)
    policy = Linear(prior_mean=0.2, prior_sd=0.4, slope_sd=0.3, noise_sd=0.25, alpha=alpha)
    scores = posterior(policy, w).choose(w.context, w.eligible)

    n, d = w.x.shape
    mine = [w.arm == a for a in range(len(w.arms))]
    rate = (w.reward.sum() + 50 * 0.2) / (n + 50)
    within = sum(((w.reward[m] - w.reward[m].mean()) ** 2).sum() for m in mine if m.any())
    noise = (within + 50 * 0.25**2) / (n + 50)
    prior = np.diag([1 / 0.4**2, *[1 / 0.3**2] * (d - 1)]) / noise
    for a, m in enumerate(mine):
        covariance = np.linalg.inv(prior + w.x[m].T @ w.x[m] / noise)
        mean = covariance @ (prior @ np.array([rate, *[0.0] * (d - 1)]) + w.x[m].T @ w.reward[m] / noise)
        assert scores.mean[a] == pytest.approx(w.context @ mean, abs=1e-7)
        assert scores.sd[a] == pytest.approx(alpha * np.sqrt(w.context @ covariance @ w.context), rel=1e-6)


@given(seeds)
def test_linear_probabilities_are_those_of_its_scores_and_utilities(seed: int) -> None:
    """Two arms, in closed form."""
    w = world(seed)
    pair = np.flatnonzero(np.ones(len(w.arms)))[:2]
    eligible = np.isin(np.arange(len(w.arms)), pair)
    scores = posterior(Linear(), w).choose(w.context, eligible)
    gain, cost = w.facts.gain[pair], w.facts.cost[pair]
    worth, width = gain * scores.mean[pair] - cost, gain * scores.sd[pair]
    assert scores.propensity[0] == pytest.approx(special.ndtr((worth[0] - worth[1]) / np.hypot(*width)), abs=1e-8)


def test_linear_sees_the_context() -> None:
    """Arm 0 pays where the feature is 1, arm 1 where it is −1."""
    x = np.tile([[1.0, 1.0], [1.0, -1.0]], (400, 1))
    arm = np.repeat([0, 1], 400)
    reward = (x[:, 1] == np.where(arm == 0, 1.0, -1.0)).astype(float)
    ready = Linear().posterior(sites(2, x, arm, np.ones(800), reward, reward), plain(2))
    both = np.ones(2, dtype=bool)
    assert ready.choose(np.array([1.0, 1.0]), both).propensity[0] > 0.99
    assert ready.choose(np.array([1.0, -1.0]), both).propensity[1] > 0.99


# -- beta ------------------------------------------------------------------------------------------------------


@given(seeds, st.floats(1.0, 20.0), st.floats(1.0, 20.0), st.floats(0.05, 1.0))
def test_beta_agrees_with_the_conjugate_formulas(seed: int, success: float, failure: float, alpha: float) -> None:
    w = world(seed)
    scores = posterior(Beta(success, failure, alpha), w).choose(w.context, w.eligible)
    for a in range(len(w.arms)):
        won = float(w.reward[w.arm == a].sum())
        lost = float((w.arm == a).sum()) - won
        law = stats.beta((success + won) / alpha**2, (failure + lost) / alpha**2)
        assert scores.mean[a] == pytest.approx(law.mean(), abs=1e-12)
        assert scores.sd[a] == pytest.approx(law.std(), abs=1e-12)


def test_beta_probabilities_are_those_of_a_posterior_draw() -> None:
    """Beta(3, 2) against Beta(1, 4): P = 1 − E(1 − B)⁴ = 13/14."""
    reward, arm = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]), np.array([0, 0, 0, 1, 1, 1])
    x = np.ones((6, 1))
    belief = sites(2, x, arm, np.ones(6), reward, reward)
    ready = Beta().posterior(belief, plain(2))
    p = ready.choose(np.ones(1), np.ones(2, dtype=bool)).propensity
    assert p[0] == pytest.approx(13 / 14, abs=1e-9)


def test_beta_tempering_scales_the_deviation_of_much_data() -> None:
    n = 10_000
    reward, x = np.tile([0.0, 1.0], n // 2), np.ones((n, 1))
    belief = sites(1, x, np.zeros(n, dtype=np.intp), np.ones(n), reward, reward)
    full, half = (
        Beta(alpha=a).posterior(belief, plain(1)).choose(np.ones(1), np.ones(1, dtype=bool)) for a in (1.0, 0.5)
    )
    assert half.mean == full.mean
    assert half.sd[0] / full.sd[0] == pytest.approx(0.5, abs=1e-3)


def test_a_vector_once_given_cannot_spoil_the_next() -> None:
    w = world(1)
    ready = posterior(Beta(), w)
    first = ready.choose(w.context, w.eligible).propensity
    kept = first.copy()
    with contextlib.suppress(ValueError):  # being read-only is one way to keep the promise
        first[:] = 0.0
    assert ready.choose(w.context, w.eligible).propensity.tolist() == kept.tolist()


# -- fixed and uniform -----------------------------------------------------------------------------------------


@given(seeds)
def test_uniform_gives_every_eligible_arm_the_same(seed: int) -> None:
    w = world(seed)
    p = posterior(Uniform(), w).choose(w.context, w.eligible).propensity
    assert set(p[w.eligible].tolist()) == {1.0 / w.eligible.sum()}


@given(seeds)
def test_fixed_takes_its_arm_or_else_the_first_that_may_be_shown(seed: int) -> None:
    w = world(seed)
    chosen = 1 if w.eligible[1] else int(np.flatnonzero(w.eligible)[0])
    p = posterior(Fixed("a1"), w).choose(w.context, w.eligible).propensity
    assert p.tolist() == np.eye(len(w.arms))[chosen].tolist()


def test_fixed_refuses_an_arm_that_is_not_there(make_belief: Callable[..., Belief]) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        Fixed("gone").posterior(make_belief(2, 1, 5, 0), plain(2))


@pytest.mark.parametrize("n", [1e7, 1e9, 1e12])
def test_beta_decides_however_much_it_knows(n: float) -> None:
    """Posteriors too narrow to integrate are taken a little wider: order kept, Σp = 1."""
    belief = empty(3, 1)._replace(n=np.array([n, n, 20.0]), reward=np.array([0.1 * n, 0.1 * n, 2.0]))
    p = Beta(alpha=0.05).posterior(belief, plain(3)).choose(np.ones(1), np.ones(3, dtype=bool)).propensity
    assert p.sum() == pytest.approx(1.0, abs=1e-6)
    assert p[0] == pytest.approx(p[1], abs=1e-6)


# -- the hierarchy for continuous rewards ----------------------------------------------------------------------------


@given(seeds)
def test_the_gaussian_hierarchy_is_bayesian_regression_on_structured_features(seed: int) -> None:
    """Written out with one long φ for each row: baseline, type, nudge; noise from the pooled variance."""
    w = world(seed, varied=False)
    policy = Hierarchical(prior_mean=0.3, alpha=0.6, effect_sd=0.5, effect_slope_sd=0.25).gaussian()
    k, d = len(w.arms), w.x.shape[1]
    belief = sites(k, w.x, w.arm, np.ones(len(w.x)), w.reward, w.reward)
    posterior = policy.posterior(belief, w.facts)
    kinds = list(dict.fromkeys(w.facts.kinds[1:]))

    def phi(x: Array, a: int) -> Array:
        row = np.zeros((1 + len(kinds) + k - 1, d))
        row[0] = x
        if a:
            row[1 + kinds.index(w.facts.kinds[a])] = row[len(kinds) + a] = x
        return row.ravel()

    total = len(w.x) + 50.0
    within = sum(((w.reward[w.arm == a] - w.reward[w.arm == a].mean()) ** 2).sum() for a in np.unique(w.arm))
    noise = np.sqrt((within + 50.0 * 0.3**2) / total)
    rate = (w.reward.sum() + 50.0 * 0.3) / total
    sds = np.array([[1.4, *[0.5] * (d - 1)]] + [[0.5, *[0.25] * (d - 1)]] * (len(kinds) + k - 1))
    sds = 0.35 * sds.ravel()
    rows = np.array([phi(x, a) for x, a in zip(w.x, w.arm, strict=True)])
    covariance = np.linalg.inv(rows.T @ rows + np.diag(sds**-2))
    start = rows.T @ w.reward / noise
    start[0] += rate / noise / sds[0] ** 2
    asked = np.array([phi(w.context, a) for a in range(k)])
    scores = posterior.choose(w.context, w.eligible)
    np.testing.assert_allclose(scores.mean, noise * asked @ covariance @ start, atol=1e-8)
    joint = (0.6 * noise) ** 2 * asked @ covariance @ asked.T
    np.testing.assert_allclose(scores.sd, np.sqrt(joint.diagonal()), atol=1e-8)


def test_a_continuous_reward_is_learned_by_the_gaussian_hierarchy() -> None:
    stage = parse(read_shipped("travel")).stages["cart"]
    binary = msgspec.structs.replace(stage, policy=Hierarchical())
    money = msgspec.structs.replace(binary, reward=msgspec.structs.replace(stage.reward, kind="continuous", max=90.0))
    assert binary.learner == Hierarchical()
    assert money.learner == Hierarchical().gaussian()
    assert (binary.learner.link, money.learner.link) == ("logit", "identity")


# -- baselines -------------------------------------------------------------------------------------------------------


@given(seeds)
def test_baselines_take_the_best_index_of_the_linear_model(seed: int) -> None:
    """The index from `linear`'s own means and sds at alpha = 1, which have no cost here."""
    w = world(seed, varied=False)
    model = posterior(Linear(alpha=1.0), w).choose(w.context, w.eligible)
    shown = np.flatnonzero(w.eligible)
    for policy, index, epsilon in (
        (Greedy(), model.mean, 0.0),
        (LinUCB(width=0.7), model.mean + 0.7 * model.sd, 0.0),
        (EpsilonGreedy(epsilon=0.2), model.mean, 0.2),
    ):
        p = posterior(policy, w).choose(w.context, w.eligible).propensity
        best = shown[index[shown] >= index[shown].max() - 1e-12]
        assert p[best].sum() == pytest.approx(1.0 - epsilon + epsilon * len(best) / len(shown), abs=1e-12)
        others = np.setdiff1d(shown, best)
        np.testing.assert_allclose(p[others], epsilon / len(shown), atol=1e-12)


def test_arms_of_which_nothing_is_known_share_the_greedy_choice() -> None:
    arms = ArmEconomics(("none", "a", "b"), ("none", "x", "y"), np.ones(3), np.zeros(3))
    chosen = Greedy().posterior(empty(3, 2), arms).choose(np.ones(2), np.array([True, True, False]))
    np.testing.assert_array_equal(chosen.propensity, [0.5, 0.5, 0.0])
