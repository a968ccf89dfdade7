"""Sums of many logs at once, those that intervals rest on: a sixtieth of the time of evaluating logs one by one.

What `experiments.ope.accumulate` sums over the rounds of a log without q̂ and x, whose arms are drawn with constant
propensities: the fitted model, φ, the guard's moments, the dispersion. Intervals are then made of them by
`experiments.inference.intervals` and `experiments.inference.dispersion`.
`tests/benchmarks/evidence/test_reward_kinds.py` compares the result with `evaluate` on logs of every kind. `user` are
groups of users there: `evaluate` spreads users over 2¹⁶ of them, where two rarely meet.

Shapes: R logs of n rounds, k = 3 arms, f folds.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Ints
from experiments.data.rounds import RewardRange
from experiments.inference.dispersion import Dispersion
from experiments.inference.intervals import Moments
from experiments.ope.reward_model import FOLDS, POOLED, RIDGE

_TARGETS = {"arm": (0.0, 0.0, 1.0), "uniform": (1 / 3, 1 / 3, 1 / 3), "lift": (-1.0, 0.0, 1.0)}
POLICIES = tuple(_TARGETS)
_ARMS = 3


class LogMoments(NamedTuple):
    """Logs in one block, R of n rounds: action, reward and user (R, n), and `span`, the declared range of rewards, or
    None.
    """

    action: Ints  # (R, n)
    reward: Array  # (R, n)
    user: Ints | None  # (R, n) whole numbers from 0
    span: tuple[float, float] | None


def moments(logs: LogMoments, drawn: Array) -> dict[str, list[Moments]]:
    """Guarded moments of each of R logs, {policy: R moments}; `drawn` (k,): the constant propensities of the arms."""
    q = _model(logs)  # (R, n, k)
    low, high = logs.span or (0.0, 1.0)
    scaled = np.clip((q - low) / (high - low), 0.0, 1.0)
    spread = scaled * (1.0 - scaled)
    mine = np.take_along_axis(q, logs.action[..., None], 2)[..., 0]
    around = [Dispersion.of(*each, RewardRange(low, high)) for each in zip(logs.reward, mine, strict=True)]
    found = {}
    for policy, target in _TARGETS.items():
        pi = np.array(target)
        square = (pi * (high - low)) ** 2 / drawn
        cube = (pi * (high - low)) ** 3 / drawn**2
        direct = q @ pi
        phi = direct + (pi / drawn)[logs.action] * (logs.reward - mine)
        even = np.full(phi.shape, float((pi**2 / drawn).sum()))
        columns = phi, spread @ square, (spread * (1.0 - 2.0 * scaled)) @ cube, direct, even
        each = _by_user(logs.user, *columns) if logs.user is not None else zip(*columns, strict=True)
        totals = (Moments.of(*parts) for parts in each)
        found[policy] = [d.guarded(m, ranged=logs.span is not None) for d, m in zip(around, totals, strict=True)]
    return found


def _by_user(user: Ints, *columns: Array) -> Iterator[tuple[Array, ...]]:
    """For each log: the columns of `Moments.of`, one row a user, linearised as `inference.ByUser` does."""
    many, n = user.shape
    width = int(user.max()) + 1
    key = (np.arange(many)[:, None] * width + user).ravel()

    def summed(values: Array) -> Array:
        return np.asarray(np.bincount(key, values.ravel(), many * width), dtype=np.float64).reshape(many, width)

    rounds, parts = summed(np.ones(user.shape)), [summed(column) for column in columns]
    for i in range(many):
        there = rounds[i] > 0.0
        own, (phi, vm, k3m, dm, even) = rounds[i][there], (part[i][there] for part in parts)
        each = float(own.mean())
        phi, dm = ((total - total.sum() / n * own) / each + total.sum() / n for total in (phi, dm))
        yield phi, vm / each**2, k3m / each**3, dm, even / each**2


def _model(logs: LogMoments) -> Array:
    """q̂ of every arm, (R, n, k), by means of the other folds that shrink towards that of all arms."""
    many, n = logs.action.shape
    fold = (np.broadcast_to(np.arange(n), (many, n)) if logs.user is None else logs.user) % FOLDS
    cell = (np.arange(many)[:, None] * FOLDS + fold) * _ARMS + logs.action
    shape, size = (many, FOLDS, _ARMS), many * FOLDS * _ARMS
    count = np.bincount(cell.ravel(), minlength=size).reshape(shape).astype(np.float64)
    total = np.bincount(cell.ravel(), logs.reward.ravel(), size).reshape(shape)
    count, total = (part.sum(axis=1, keepdims=True) - part for part in (count, total))
    pooled = total.sum(axis=2, keepdims=True) / (count.sum(axis=2, keepdims=True) + POOLED)
    theta = (total + RIDGE * pooled) / (count + RIDGE)  # (R, folds, k)
    q = np.take_along_axis(theta, np.repeat(fold[..., None], _ARMS, axis=2), 1)
    ends = (part[:, None, None] for part in (logs.reward.min(axis=1), logs.reward.max(axis=1)))
    return np.asarray(np.clip(q, *ends), dtype=np.float64)
