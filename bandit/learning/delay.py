"""Delay of answers: the probability that an answer would have come by now, if one comes at all. Silence so far is not
zero yet.

A pending decision of age a that nobody answered counts as a failure with weight F(a), the share of all answers that
come by age a; one that was answered counts whole. F is the product limit estimator of right-truncated delays, in its
reverse hazards (Lagakos, Barraj & De Gruttola 1988):

    h_b = (answers in bucket b) / (answers at or below b of decisions old enough to show b),  F(b) = Π_{j>b} (1 − h_j)

so that answers to young decisions, which must have been fast, do not make delays look short. Counts add up over
decisions; each nudge is shrunk towards its stage, the stage towards an exponential of the declared typical delay
(Joulani 2013; Vernade 2017; Wu & Wager 2022 weight pending rows this way).

Ages and delays are shares of the attribution window, so nothing here depends on units. Shapes: k arms, B buckets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.numerics import arithmetic

_LOG_512 = 6.238324625039508
EDGES = np.concatenate(
    [[0.0], arithmetic.exp(-_LOG_512 * (np.arange(23, -1, -1) / 23.0))]
)  # (B + 1,) shares of the window
BUCKETS = len(EDGES) - 1
_TO_PRIOR = 10.0  # answers that the declared delay is worth to a stage
_TO_STAGE = 10.0  # answers that the stage is worth to a nudge


class AnswerDelays(NamedTuple):
    """Delays of answered decisions that are still pending: arm (n,) indices, delay (n,) and age (n,) as shares of the
    window.
    """

    arm: NDArray[np.intp]
    delay: Array
    age: Array


def counted(k: int, arm: NDArray[np.intp], delay: Array) -> Array:
    """Histogram of delays of settled decisions by arm and bucket, (k, B), from arm (n,) and delay (n,): whole numbers,
    which add up exactly.
    """
    counts = np.zeros((k, BUCKETS))
    np.add.at(counts, (arm, bucket(delay)), 1.0)
    return counts


def bucket(share: Array) -> NDArray[np.intp]:
    """Bucket index of each share of the window, (n,) in and out: bucket b is (EDGES[b], EDGES[b + 1]]."""
    return np.clip(np.searchsorted(EDGES, share, side="left") - 1, 0, BUCKETS - 1)


def distribution(settled: Array, pending: AnswerDelays, typical: float) -> Array:
    """Distribution F of delays at EDGES for each arm, (k, B + 1), from 0 to 1. settled: as `counted`, (k, B); typical:
    the declared mean delay, as a share of the window.
    """
    k = len(settled)
    came = bucket(pending.delay)
    over = np.zeros((k, BUCKETS + 1))  # decisions too young to show more, by the first bucket they cannot show
    np.add.at(over, (pending.arm, np.maximum(bucket(pending.age), came) + 1), 1.0)
    events = settled + counted(k, pending.arm, pending.delay)
    at_risk = np.cumsum(events - over[:, :-1], axis=1)
    prior = (1.0 - arithmetic.exp(-EDGES / typical)) / (1.0 - arithmetic.exp(np.array(-1.0 / typical)))
    stage = _shrunk(events.sum(axis=0, keepdims=True), at_risk.sum(axis=0, keepdims=True), prior[None], _TO_PRIOR)
    return _shrunk(events, at_risk, stage, _TO_STAGE)


def _shrunk(events: Array, at_risk: Array, prior: Array, worth: float) -> Array:
    """Product limit with `worth` answers added that follow `prior` (1, B + 1)."""
    hazard = (events + worth * np.diff(prior, axis=1)) / np.maximum(at_risk + worth * prior[:, 1:], 1e-300)
    below = np.cumprod(1.0 - hazard[:, :0:-1], axis=1)[:, ::-1]  # F at edges 1 … B − 1
    ones, zeros = np.ones((len(events), 1)), np.zeros((len(events), 1))
    return np.concatenate([zeros, below, ones], axis=1)


def answered_by(f: Array, arm: NDArray[np.intp], age: Array) -> Array:
    """Probability F(age) that an answer of each decision's arm would have come by its age, (n,), linear between edges;
    f (k, B + 1), arm (n,), age (n,) as shares of the window.
    """
    low = bucket(age)
    share = np.clip((age - EDGES[low]) / (EDGES[low + 1] - EDGES[low]), 0.0, 1.0)
    return np.asarray(f[arm, low] * (1.0 - share) + f[arm, low + 1] * share, dtype=np.float64)
