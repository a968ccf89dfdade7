"""Logs of an adaptive policy in worlds where every policy's value is known: what intervals are scored on.

The policy is `linear` as shipped (Thompson sampling, alpha 0.5, batches of 100 decisions), for R logs at once: five
arms, no nudge among them; three binary features, so eight contexts. Every arm keeps 2 %, no nudge 10 %, and the arm
is drawn from the logged vector.

    rare       converting 3 to 10 %, arms differ
    rare tie   3 %, all arms equal: the policy never settles
    mid        20 to 40 %
    tie        15 %, all arms equal
    drift      rare, and the order of the arms is reversed after 5,000 decisions: the target is the mean so far
    recurring  mid, 2,000 people who return about five times each, with habits of their own (sd 1 in logits)

Shapes: R logs, c contexts, k arms, d features, b decisions of a batch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from bandit.policies import Linear

K, D, BATCH, MOST = 5, 4, 100, 10_000
FLOORS = np.array([0.10, 0.02, 0.02, 0.02, 0.02])
CONTEXTS = np.array([[1.0, a, b, c] for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, 1.0)])
HABIT, PEOPLE, TURN = 1.0, 2000, 5000
RATES = {
    "rare": (0.03, 0.045, 0.06, 0.08, 0.10),
    "rare tie": (0.03,) * K,
    "mid": (0.20, 0.25, 0.30, 0.35, 0.40),
    "tie": (0.15,) * K,
    "drift": (0.03, 0.045, 0.06, 0.08, 0.10),
    "recurring": (0.20, 0.25, 0.30, 0.35, 0.40),
}
_SLOPE = {"rare": 0.25, "rare tie": 0.25, "drift": 0.25}  # sd in logits; else 0.35
_GRID = np.linspace(-1.0, 1.0, 65)
_HERMITE = np.polynomial.hermite_e.hermegauss(21)


class LogBatch(NamedTuple):
    """Batch of b decisions of R logs: action, reward, context and user (R, b), propensity and q̂ (R, b, k), and the
    true values of arms at their time.
    """

    action: NDArray[np.intp]  # (R, b)
    reward: Array  # (R, b)
    propensity: Array  # (R, b, k)
    q_hat: Array  # (R, b, k)
    context: NDArray[np.intp]  # (R, b)
    user: NDArray[np.int64]  # (R, b)
    truth: Array  # (R, c, k) expected reward


class _Sums(NamedTuple):
    """What `linear` learns from, in place: the one mutable thing here."""

    precision: Array  # (R, k, d, d)
    shift: Array  # (R, k, d)
    shown: Array  # (R, k)
    won: Array  # (R, k), also Σr²


def logs(world: str, count: int, n: int, seed: int) -> Iterator[LogBatch]:
    """Logs of n decisions in one world, `count` at once, batch by batch; the same seed gives the same logs."""
    rng = np.random.default_rng(seed)
    z = _logits(world, count, rng)
    habit = rng.normal(0.0, HABIT, (count, PEOPLE)) if world == "recurring" else np.zeros((count, 1))
    home = rng.integers(0, len(CONTEXTS), (count, PEOPLE))
    each = np.arange(count)[:, None]
    sums = _Sums(*(np.zeros(s) for s in ((count, K, D, D), (count, K, D), (count, K), (count, K))))
    for start in range(0, n, BATCH):
        mean, sd = posterior(sums.precision, sums.shift, sums.shown, sums.won)
        p = floored(wins(mean, sd), FLOORS)
        user = np.broadcast_to(np.arange(start, start + BATCH), (count, BATCH))
        if world == "recurring":
            user = rng.integers(0, PEOPLE, (count, BATCH))
        context = home[each, user] if world == "recurring" else rng.integers(0, len(CONTEXTS), (count, BATCH))
        drawn = p[each, context]
        action = np.minimum((drawn.cumsum(axis=2) < rng.random((count, BATCH, 1))).sum(axis=2), K - 1)
        now = z[:, :, ::-1] if world == "drift" and start >= TURN else z
        chance = special.expit(now[each, context, action] + habit[each, user % habit.shape[1]])
        reward = (rng.random((count, BATCH)) < chance).astype(np.float64)
        q_hat = np.clip(mean, 0.0, 1.0)[each, context]
        yield LogBatch(action, reward, drawn, q_hat, context, user, _rates(world, now))
        _learn(sums, context, action, reward)


def _logits(world: str, count: int, rng: np.random.Generator) -> Array:
    """(R, c, k); where arms tie, they tie in every context."""
    tied = "tie" in world
    slopes = rng.normal(0.0, _SLOPE.get(world, 0.35), (count, D - 1, 1 if tied else K))
    return np.asarray(special.logit(np.array(RATES[world])) + CONTEXTS[:, 1:] @ slopes, dtype=np.float64)


def _rates(world: str, z: Array) -> Array:
    """Expected reward over people's habits, which nobody sees."""
    if world != "recurring":
        return np.asarray(special.expit(z), dtype=np.float64)
    nodes, weights = _HERMITE
    return np.asarray(special.expit(z[..., None] + HABIT * nodes) @ (weights / weights.sum()), dtype=np.float64)


def posterior(precision: Array, shift: Array, count: Array, won: Array) -> tuple[Array, Array]:
    """Mean and sd (R, c, k) of `linear`'s scores in every context, from sums of the logs so far; `won` is Σr and Σr²,
    as rewards are 0 or 1.
    """
    rules, pseudo = Linear(), 50.0
    total = count.sum(axis=1) + pseudo
    rate = (won.sum(axis=1) + pseudo * rules.prior_mean) / total
    within = (won - won**2 / np.maximum(count, 1.0)).sum(axis=1)
    noise = (within + pseudo * rules.noise_sd**2) / total
    prior = np.full(D, rules.slope_sd**-2.0)
    prior[0] = rules.prior_sd**-2.0
    inverse = np.linalg.inv(precision + np.diag(prior))
    start = shift.copy()
    start[..., 0] += prior[0] * rate[:, None]
    mean = CONTEXTS @ (inverse @ start[..., None])[..., 0].swapaxes(1, 2)
    variance = np.einsum("cd,rkde,ce->rck", CONTEXTS, inverse, CONTEXTS) * (rules.alpha**2 * noise)[:, None, None]
    return mean, np.sqrt(variance)


def wins(mean: Array, sd: Array) -> Array:
    """Win probabilities (…, k) of independent normal scores with mean and sd (…, k), by the trapezoidal rule over six
    sds around the winner.
    """
    low, high = (mean - 6.0 * sd).max(axis=-1), (mean + 6.0 * sd).max(axis=-1)
    t = 0.5 * (low + high)[..., None, None] + 0.5 * (high - low)[..., None, None] * _GRID
    z = (t - mean[..., None]) / sd[..., None]
    below = np.maximum(special.ndtr(z), 1e-300)
    p = (np.exp(-0.5 * z * z) / below / sd[..., None] * below.prod(axis=-2, keepdims=True)).sum(axis=-1)
    return np.asarray(p / p.sum(axis=-1, keepdims=True), dtype=np.float64)


def floored(p: Array, floors: Array) -> Array:
    """KL projection of p (…, k) onto {p ≥ floors (k,)}: as `bandit.propensity.floor.floored`, with a floor for each
    arm.
    """
    low = np.zeros(p.shape, dtype=np.bool_)
    lifted = p
    for _ in range(p.shape[-1]):
        rest = 1.0 - np.where(low, floors, 0.0).sum(axis=-1, keepdims=True)
        free = np.where(low, 0.0, p).sum(axis=-1, keepdims=True)
        lifted = np.where(low, floors, p * rest / free)
        low |= lifted < floors
    return lifted


def _learn(sums: _Sums, context: NDArray[np.intp], action: NDArray[np.intp], reward: Array) -> None:
    x = CONTEXTS[context]
    for a in range(K):
        mine = (action == a).astype(np.float64)
        sums.precision[:, a] += np.einsum("rb,rbd,rbe->rde", mine, x, x, optimize=True)
        sums.shift[:, a] += np.einsum("rb,rbd->rd", mine * reward, x)
        sums.shown[:, a] += mine.sum(axis=1)
        sums.won[:, a] += (mine * reward).sum(axis=1)
