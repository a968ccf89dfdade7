"""Off-policy estimators: what a policy would have earned on a log that another one made.

Every estimator is a number for each round, φ (n,), whose mean is the estimate. With w = π(A|x) / p(A|x), reward r, q̂
the modelled reward of the logged action, and m = Σ_a π(a|x) q̂(x, a):

    ips          w r                                    unbiased; Horvitz & Thompson 1952
    snips        w r / w̄                                steadier, consistent; Swaminathan & Joachims 2015
    dm           m                                      as good as the model
    dr           m + w (r − q̂)                          unbiased; Dudík, Langford & Li 2011
    sndr         m + w (r − q̂) / w̄                      Thomas & Brunskill 2016
    clipped      min(w, c) r                            biased towards 0; Ionides 2008
    clipped_dr   m + min(w, c) (r − q̂)                  biased towards the model; Su et al. 2020
    switch_dr    m + 1{w < τ} w (r − q̂)                 Wang, Agarwal & Dudík 2017
    dros         m + λw / (w² + λ) (r − q̂)              Su, Dimakopoulou, Krishnamurthy & Dudík 2020

"Unbiased" if p is the true propensity and π puts no weight where p is 0. The threshold of `switch_dr` is strict: a
weight that equals τ to rounding goes to the model on every machine.

All arguments and results of the estimators are (n,) arrays; φ is in the unit of the reward. The functions raise
nothing: what a log cannot answer is refused by `experiments.inference.diagnostics`. `EstimatorSums` is what a pass over
a log keeps: it merges by `+`, so that parts may be tallied by several workers.

    value = dr(reward, w, q, model).mean()
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Ints
from experiments.inference.intervals import Moments
from experiments.inference.joint_moments import GroupSums, JointMoments

CLIP, TAU, SHRINK = 10.0, 10.0, 10.0
BIASED = frozenset({"dm", "clipped", "clipped_dr", "switch_dr", "dros"})
"""Estimators that trade bias for width: however long the log, their own intervals need not hold the truth."""


class WeightedRounds(NamedTuple):
    """Importance-weighted rounds of one policy over n rounds of a log: all that the estimators read. `reward`, `q` and
    `model` are in the same unit; `q` and `model` are None where there is no model of rewards.
    """

    reward: Array  # (n,)
    w: Array  # (n,) π / p
    q: Array | None = None  # (n,) q̂ of the logged action
    model: Array | None = None  # (n,) Σ_a π q̂


class EstimatorSettings(NamedTuple):
    """The fixed parameters of the biased estimators: `clip` c of clipped and clipped_dr, `tau` τ of switch_dr, `shrink`
    λ of dros. c and τ are weights, λ is a squared weight.
    """

    clip: float = CLIP
    tau: float = TAU
    shrink: float = SHRINK


def ips(reward: Array, w: Array) -> Array:
    """Inverse propensity score estimator: φ (n,) = w r. Unbiased; its variance grows with the largest weights (Horvitz
    & Thompson 1952).
    """
    return w * reward


def snips(reward: Array, w: Array) -> Array:
    """Self-normalised ips: φ (n,) = w r / w̄, with w̄ the mean weight of these rounds. NaN where all weights are 0
    (Swaminathan & Joachims 2015).
    """
    return w * reward / _mean(w)


def dm(model: Array) -> Array:
    """Direct method: φ (n,) = m, the policy's expected reward by the model alone. As good as the model, whatever the
    propensities are.
    """
    return model


def dr(reward: Array, w: Array, q: Array, model: Array) -> Array:
    """Doubly robust estimator: φ (n,) = m + w (r − q̂). Unbiased for any model, less noisy with a good one (Dudík,
    Langford & Li 2011).
    """
    return model + w * (reward - q)


def sndr(reward: Array, w: Array, q: Array, model: Array) -> Array:
    """Self-normalised dr: φ (n,) = m + w (r − q̂) / w̄, with w̄ the mean weight of these rounds. NaN where all weights
    are 0 (Thomas & Brunskill 2016).
    """
    return model + w * (reward - q) / _mean(w)


def clipped(reward: Array, w: Array, clip: float = CLIP) -> Array:
    """Clipped ips: φ (n,) = min(w, c) r, with weights of at most `clip`. Biased towards 0, for rewards ≥ 0 (Ionides
    2008).
    """
    return np.minimum(w, clip) * reward


def clipped_dr(reward: Array, w: Array, q: Array, model: Array, clip: float = CLIP) -> Array:
    """Clipped dr: φ (n,) = m + min(w, c) (r − q̂), with weights of at most `clip`. Biased towards the model (Su et al.
    2020).
    """
    return model + np.minimum(w, clip) * (reward - q)


def switch_dr(reward: Array, w: Array, q: Array, model: Array, tau: float = TAU) -> Array:
    """Switch-DR estimator: φ (n,) is dr where w < `tau`, strictly, and the model m elsewhere (Wang, Agarwal & Dudík
    2017).
    """
    return model + np.where(w < tau, w, 0.0) * (reward - q)


def dros(reward: Array, w: Array, q: Array, model: Array, shrink: float = SHRINK) -> Array:
    """Doubly robust estimator with optimistically shrunk weights, φ (n,) = m + λw / (w² + λ) (r − q̂); λ = ∞ is dr, λ =
    0 is dm (Su, Dimakopoulou, Krishnamurthy & Dudík 2020).
    """
    return model + shrunk(w, shrink) * (reward - q)


def shrunk(w: Array, shrink: float) -> Array:
    """The shrunk weights λw / (w² + λ), (n,), of `dros`; w itself for λ = ∞, and 0 where w is 0."""
    return w if np.isinf(shrink) else np.asarray(shrink * w / np.where(w > 0.0, w * w + shrink, 1.0), dtype=np.float64)


def _mean(w: Array) -> float:
    mean = float(w.mean()) if len(w) else 0.0
    return mean if mean > 0.0 else float("nan")


# The numbers that every estimate is made of, and each estimate as a sum of ratios of their means.
_WEIGHTED = ("one", "w", "wr", "clipped")
_MODELLED = (*_WEIGHTED, "model", "error", "clipped_error", "switched_error", "shrunk_error")
_RATIOS: dict[str, tuple[tuple[str, str], ...]] = {
    "snips": (("wr", "w"),),
    "ips": (("wr", "one"),),
    "clipped": (("clipped", "one"),),
    "dm": (("model", "one"),),
    "sndr": (("model", "one"), ("error", "w")),
    "clipped_dr": (("model", "one"), ("clipped_error", "one")),
    "switch_dr": (("model", "one"), ("switched_error", "one")),
    "dros": (("model", "one"), ("shrunk_error", "one")),
    "dr": (("model", "one"), ("error", "one")),
}


@dataclass(frozen=True, slots=True)
class EstimatorSums:
    """All estimates of one policy, as sums over the rounds of a log. Merges by `+` in any order, to rounding; of
    constant size.

    `sums`: joint moments by round, or sums by group of users where users recur. `modelled`: whether there was a model
    of rewards in every part, without which only ips, snips and clipped exist.
    """

    sums: JointMoments | GroupSums
    modelled: bool

    @classmethod
    def of(
        cls,
        rounds: WeightedRounds,
        knobs: EstimatorSettings = EstimatorSettings(),  # noqa: B008
        group: Ints | None = None,
    ) -> "EstimatorSums":
        """The sums of n > 0 rounds. `group` (n,): the group of each round's user (see `joint_moments.groups_of`), if
        rounds of one user may depend on each other.
        """
        r, w, q, model = rounds
        columns = [np.ones_like(w), w, w * r, clipped(r, w, knobs.clip)]
        if q is not None and model is not None:
            error = r - q
            weights = (w, np.minimum(w, knobs.clip), np.where(w < knobs.tau, w, 0.0), shrunk(w, knobs.shrink))
            columns += [model, *(weight * error for weight in weights)]
        values = np.column_stack(columns)
        return cls(
            JointMoments.of(values) if group is None else GroupSums.of(group, values), len(columns) > len(_WEIGHTED)
        )

    def __add__(self, other: "EstimatorSums") -> "EstimatorSums":
        """The sums over both parts of a log, tallied with the same settings. Raises TypeError if only one of them has
        users.
        """
        if isinstance(self.sums, GroupSums) and isinstance(other.sums, GroupSums):
            return EstimatorSums(self.sums + other.sums, self.modelled and other.modelled)
        if isinstance(self.sums, JointMoments) and isinstance(other.sums, JointMoments):
            return EstimatorSums(self.sums + other.sums, self.modelled and other.modelled)
        raise TypeError("one part of the log has users and the other has not")

    def estimates(self) -> dict[str, Moments]:
        """{estimator: moments}, each to be handed to `intervals.interval`; standard errors of ratios are by the delta
        method. Ratios whose weights are all 0 are left out.
        """
        joint = self.sums.joint() if isinstance(self.sums, GroupSums) else self.sums
        names = _MODELLED if self.modelled else _WEIGHTED
        at = {name: i for i, name in enumerate(names)}
        found = {}
        for estimate, ratios in _RATIOS.items():
            if all(part in at and over in at and joint.mean[at[over]] > 0.0 for part, over in ratios):
                found[estimate] = _estimate(joint, [(at[part], at[over]) for part, over in ratios])
        return found


def _estimate(joint: JointMoments, ratios: list[tuple[int, int]]) -> Moments:
    """Moments of an estimate that is a sum of ratios Σ numerator / denominator of means, by the delta method."""
    value, gradient = 0.0, np.zeros(len(joint.mean))
    for part, over in ratios:
        share = joint.mean[part] / joint.mean[over]
        value += float(share)
        gradient[part] += 1.0 / joint.mean[over]
        gradient[over] -= share / joint.mean[over]
    return joint.along(gradient, value)
