"""Delay of answers: the probability that an answer would have come by now, if one comes at all. Silence so far is not
zero yet.

A pending decision of age a that nobody answered counts as a failure with weight F(a), the share of all answers that
come by age a; one that was answered counts whole. F is the product limit estimator of right-truncated delays, in its
reverse hazards (Lagakos, Barraj & De Gruttola 1988):

    h_b = (answers in bucket b) / (answers at or below b of decisions old enough to show b),  F(b) = Π_{j>b} (1 − h_j)

so that answers to young decisions, which must have been fast, do not make delays look short. Counts add up over
decisions; each nudge is shrunk towards its stage, the stage towards an exponential of the typical delay (Joulani 2013;
Vernade 2017; Wu & Wager 2022 weight pending rows this way).

The typical delay is the declared one. Where none is declared it is unknown, from a hundredth of the window to twice the
window, all as likely on a log scale until answers come: the exponentials of `_MEANS` are weighted by the likelihood of
the answers, each truncated at the age of its decision. One default would not do: the product limit cannot overrule it
before decisions are old, because answers to decisions of age a at most do not say what share of all comes by a, unless
delays have a form. Nor are ten answers enough to know the form: until more have come, all that is open counts in part
(`trust`), answers as well as silence, so that neither is taken for more than it is.

Ages and delays are shares of the attribution window, so nothing here depends on units. Shapes: k arms, B buckets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.numerics import arithmetic

_LOG_512 = 6.238324625039508
_LOG_200 = 5.298317366548036
EDGES = np.concatenate(
    [[0.0], arithmetic.exp(-_LOG_512 * (np.arange(23, -1, -1) / 23.0))]
)  # (B + 1,) shares of the window
BUCKETS = len(EDGES) - 1
_TO_PRIOR = 10.0  # answers that the declared delay is worth to a stage
_MEANS = 0.01 * arithmetic.exp(_LOG_200 * (np.arange(9) / 8.0))  # (9,) typical delays where none is declared
_LEAST = 1e-9  # of a likelihood: an answer that comes when hardly any should is an exception, not a proof
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


def trust(settled: Array, pending: AnswerDelays, typical: float | None) -> float:
    """Weight in [0, 1] of what is open: how surely it is known how late answers come. 1 where `typical` is declared,
    else n / (n + 10) after n answers: nothing before the first, half after ten. Arguments as in `distribution`.
    """
    answers = float(settled.sum()) + len(pending.arm)
    return 1.0 if typical is not None else answers / (answers + _TO_PRIOR)


def distribution(settled: Array, pending: AnswerDelays, typical: float | None) -> Array:
    """Distribution F of delays at EDGES for each arm, (k, B + 1), from 0 to 1. settled: as `counted`, (k, B); typical:
    the declared mean delay, as a share of the window, None if it is not declared.
    """
    k = len(settled)
    came = bucket(pending.delay)
    over = np.zeros((k, BUCKETS + 1))  # decisions too young to show more, by the first bucket they cannot show
    np.add.at(over, (pending.arm, np.maximum(bucket(pending.age), came) + 1), 1.0)
    events = settled + counted(k, pending.arm, pending.delay)
    at_risk = np.cumsum(events - over[:, :-1], axis=1)
    prior = _likely(settled, pending) if typical is None else _exponential(np.array([typical]))[0]
    stage = _shrunk(events.sum(axis=0, keepdims=True), at_risk.sum(axis=0, keepdims=True), prior[None], _TO_PRIOR)
    return _shrunk(events, at_risk, stage, _TO_STAGE)


def _exponential(means: Array) -> Array:
    """Distributions of exponential delays that come within the window, at EDGES: (m, B + 1) for means (m,)."""
    return np.asarray(
        (1.0 - arithmetic.exp(-EDGES / means[:, None])) / (1.0 - arithmetic.exp(-1.0 / means))[:, None],
        dtype=np.float64,
    )


def _likely(settled: Array, pending: AnswerDelays) -> Array:
    """Distribution at EDGES, (B + 1,): exponentials of `_MEANS`, weighted by how likely they make the answers."""
    laws = _exponential(_MEANS)
    density = arithmetic.log(np.maximum(np.diff(laws, axis=1).T, _LEAST))  # (B, m)
    said = arithmetic.total(settled.sum(axis=0)[:, None] * density)
    if len(pending.arm):
        seen = np.maximum(
            np.stack([answered_by(laws, np.full(1, m), pending.age) for m in range(len(laws))], 1), _LEAST
        )
        said = said + arithmetic.total(density[bucket(pending.delay)] - arithmetic.log(seen))
    weight = arithmetic.exp(said - said.max())
    return arithmetic.total(weight[:, None] * laws) / arithmetic.total(weight)


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
