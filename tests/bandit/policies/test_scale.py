"""Scales that are learned by `linear` and `logistic`: their evidence against rows, what they find, and digests."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from bandit.arrays import Array
from bandit.belief import Belief, add, empty, sites
from bandit.catalogue.loading import parse
from bandit.policies import Linear, Logistic
from bandit.policies.hierarchical import curved
from bandit.policies.protocol import ArmEconomics
from bandit.policies.scale import SCALES, Scales, chosen, fitted, likeliest

K, D = 6, 3
ARMS = ArmEconomics(
    ("none", *(f"a{i}" for i in range(1, K))), ("none", *("t" for _ in range(1, K))), np.ones(K), np.zeros(K)
)


def rows(effect: float, n: int, seed: int) -> tuple[Array, NDArray[np.intp], Array]:
    """n contexts, arms and binary rewards, whose logits have intercepts and slopes of sd `effect` about −1.4."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, effect, (K, D)) + np.array([-1.4, 0.0, 0.0])
    x = np.rint(np.column_stack([np.ones(n), rng.uniform(-1, 1, (n, D - 1))]) * 4096) / 4096
    arm = rng.integers(0, K, n)
    return x, arm, (rng.random(n) < special.expit((x * theta[arm]).sum(axis=1))).astype(float)


def learned(policy: Linear | Logistic, effect: float, n: int, seed: int) -> Belief:
    x, arm, reward = rows(effect, n, seed)
    belief = empty(K, D)
    for part in np.array_split(np.arange(n), 10):
        tau, nu = policy.sites(belief, ARMS, x[part], arm[part], reward[part])
        belief = add(belief, sites(K, x[part], arm[part], tau, nu, reward[part]))
    return belief


def test_parts_of_the_evidence_are_those_of_dense_algebra() -> None:
    rng = np.random.default_rng(1)
    root, t = rng.normal(size=(4, 5, 5)), rng.normal(size=(4, 5))
    precision = root @ root.transpose(0, 2, 1) + np.eye(5)
    determinants, fit = fitted(precision, t)
    assert determinants == pytest.approx(np.linalg.slogdet(precision)[1])
    assert fit == pytest.approx(np.einsum("ki,ki->k", t, np.linalg.solve(precision, t[:, :, None])[:, :, 0]))


def test_the_likeliest_is_taken_and_four_times_as_much_only_beyond_doubt() -> None:
    def peak(at: float, height: float) -> tuple[float, float]:
        return likeliest(lambda scale: -height * abs(float(np.log2(scale / at))))

    assert likeliest(lambda _: 0.0) == (1.0, 1.0)
    assert peak(3.0, 9.0) == (3.0, 3.0)
    assert peak(8.0, 3.0) == (8.0, 8.0)
    assert peak(8.0, 9.0) == (8.0, 32.0)


def test_evidence_that_is_nearly_flat_points_nowhere() -> None:
    """As it was with a thousand decisions of which one showed a nudge: a tenth of a nat between 1 and 32."""
    assert likeliest(lambda scale: 0.06 * float(np.log2(scale))) == (1.0, 1.0)
    assert likeliest(lambda scale: 3.0 * float(np.log2(scale)))[0] == 32.0


def test_evidence_that_rises_slowly_at_first_is_followed_to_its_peak() -> None:
    """As it was of 400 decisions, 360 of them with a nudge that brings 0.8 where nothing brings 0.2: from 1 to 2 the
    evidence rises by less than the prior falls, up to 16 by 11 nats.
    """
    seen = {1.0: -18.86, 1.5: -18.41, 2.0: -17.83, 3.0: -16.42, 4.0: -14.89, 8.0: -10.22, 16.0: -7.68, 32.0: -8.37}
    assert likeliest(seen.__getitem__) == (16.0, 64.0)
    fallen = iter((0.0, -1.0, -2.0))
    assert likeliest(lambda _: next(fallen)) == (1.0, 1.0)  # tried no further


def test_the_curvature_of_an_open_row_has_the_bound_of_its_likelihood() -> None:
    """F p(1 − p), reached by an answered row; floored, a row that is nearly sure to answer had any number of it."""
    z, weight = np.linspace(-30, 30, 601), np.array([[0.001], [0.5], [0.95], [0.999], [1.0]])
    p = special.expit(z)
    tau = np.array([curved(z, np.zeros(601), np.zeros(601), np.full(601, w[0]), bounded=True)[0] for w in weight])
    assert (tau <= weight * p * (1 - p) * (1 + 1e-9)).all()
    assert tau[-1] == pytest.approx(p * (1 - p), rel=2e-3)
    assert (tau > 0.0).all()


@pytest.mark.parametrize("scales", ["learned", "slopes"])
def test_the_evidence_of_a_regression_is_that_of_its_rows(scales: Scales) -> None:
    """With the noise that is left at each scale, N(r − r̄; 0, σ²(I + φVφᵀ)), up to the 50 rows that σ² starts with."""
    x, arm, reward = rows(1.0, 900, 2)
    policy = Linear(prior_mean=0.2, noise_sd=0.4, scales=scales)
    belief = sites(K, x, arm, np.ones(len(x)), reward, reward)
    rate = (reward.sum() + 50 * 0.2) / (len(x) + 50)
    dense = np.zeros((len(x), K * D))
    for i, a in enumerate(arm):
        dense[i, a * D : (a + 1) * D] = x[i]
    values, left = [], []
    for scale in SCALES:
        start = 0.2 if scales == "slopes" else 0.2 * scale
        variance = np.tile([start**2, *[(0.06 * scale) ** 2] * (D - 1)], K)
        spread = np.eye(len(x)) + (dense * variance) @ dense.T
        squares = (reward - rate) @ np.linalg.solve(spread, reward - rate) + 50 * 0.16
        left.append(squares / (len(x) + 50))
        evidence = -0.5 * np.linalg.slogdet(spread)[1] - 0.5 * (len(x) + 50) * np.log(left[-1])
        values.append(evidence - 1.5 * np.log(scale))  # P(κ) ∝ κ^−1.5
    at = int(np.argmax(values))
    scale, noise = policy._learned(belief, rate, scales)
    assert scale == SCALES[at] * _beyond(values, scales)
    assert noise == pytest.approx(left[at], rel=1e-6)


def _beyond(values: list[float], scales: Scales) -> float:
    """How many times the likeliest scale is used, from the log posterior at each of `SCALES`."""
    at, doubted = int(np.argmax(values)), {"learned": 4, "slopes": 2}[scales]  # 4.0 and 2.0
    return 4.0 if at > doubted and values[at] - values[doubted] > 3.0 else 1.0


@pytest.mark.parametrize("scales", ["learned", "slopes"])
def test_the_evidence_of_a_logistic_model_is_that_of_its_sites(scales: Scales) -> None:
    policy = Logistic(prior_mean=0.2, prior_sd=0.1, slope_sd=0.1, scales=scales)
    x, arm, reward = rows(0.6, 900, 3)
    tau, nu = policy.sites(empty(K, D), ARMS, x, arm, reward)
    belief = sites(K, x, arm, tau, nu, reward)
    some, values = tau > 1e-6, []
    for scale in SCALES:
        value = 0.0
        for a in range(K):
            mine = some & (arm == a)
            widths = np.array([1.0 if scales == "slopes" else scale, *[scale] * (D - 1)])
            spread = 0.01 * (x[mine] * widths**2) @ x[mine].T + np.diag(1.0 / tau[mine])
            value += stats.multivariate_normal(np.full(mine.sum(), special.logit(0.2)), spread).logpdf(
                nu[mine] / tau[mine]
            )
        values.append(value - 1.5 * np.log(scale))
    at = int(np.argmax(values))
    widened = policy.layout(ARMS, D).precision / policy.learned(ARMS, belief).precision
    wanted = np.full((K, D), SCALES[at] * _beyond(values, scales))
    if scales == "slopes":
        wanted[:, 0] = 1.0
    assert np.sqrt(widened) == pytest.approx(wanted.ravel())


@pytest.mark.parametrize(("effect", "least", "most"), [(0.05, 1.0, 1.5), (2.0, 8.0, 128.0)])
def test_linear_stays_narrow_for_small_effects_and_finds_large_ones(effect: float, least: float, most: float) -> None:
    policy = Linear(prior_mean=0.2, prior_sd=0.05, slope_sd=0.05, noise_sd=0.4, scales="learned")
    belief = learned(policy, effect, 4000, 5)
    assert least <= policy._learned(belief, 0.2, "learned")[0] <= most


def test_of_slopes_a_scale_of_three_is_certain_enough_to_go_beyond_it() -> None:
    evidence = {scale: -20.0 * abs(float(np.log2(scale / 3.0))) for scale in SCALES}
    assert chosen("learned", evidence.__getitem__) == (3.0, 3.0)
    assert chosen("slopes", evidence.__getitem__) == (3.0, 12.0)
    doubtful = {scale: 0.05 * part for scale, part in evidence.items()}
    assert chosen("slopes", doubtful.__getitem__)[0] == chosen("slopes", doubtful.__getitem__)[1]


def test_a_stage_that_does_not_ask_for_it_keeps_its_digest_and_its_bits() -> None:
    """The digests are those that a version without the setting computed."""
    text = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "linear", prior_mean = 0.2 }
reward = { kind = "binary", window = "1d", value = 20.0 }
features = {}
[stages.cart.nudges.tip]
type = "help"
format = "tooltip"
"""
    plain = parse(text).stages["cart"]
    asked = parse(text.replace("0.2 }", '0.2, scales = "learned" }')).stages["cart"]
    logistic = parse(text.replace("linear", "logistic")).stages["cart"]
    assert plain.digest() == "7f83e59ac43ff54c37fce4698369aa50"
    assert logistic.digest() == "9bfbc0274ba93a6870f6352a11f9bcfb"
    assert asked.digest() != plain.digest()
    assert asked.learning_digest() == plain.learning_digest()
    assert msgspec.json.encode(Linear()) == msgspec.json.encode(Linear(scales=msgspec.UNSET))
    belief = learned(Linear(), 0.5, 500, 6)
    x = np.array([1.0, 0.25, -0.5])
    everyone = np.ones(K, dtype=bool)
    same = [
        Linear(scales=scales).posterior(belief, ARMS).choose(x, everyone).propensity
        for scales in (msgspec.UNSET, "declared")
    ]
    assert same[0].tobytes() == same[1].tobytes()
