"""Scale of a policy's effects, by evidence: prior sds are declared for small effects, and one factor κ makes them wider
where the data show large ones (empirical Bayes, Robbins 1956).

κ is a function of what the sums are worth at each scale, so the order of rows shows in nothing.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from bandit.arrays import Array
from bandit.numerics import arithmetic

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0)
"""Factors κ that are tried."""

Scales = Literal["declared", "learned", "slopes"]
"""Prior sds of a model for each arm: as declared; all of them κ times that; or those of slopes κ times that."""

_RARE = 1.5  # P(κ) ∝ κ^−1.5: evidence must bring a nat for every doubling
_DOUBTED, _SLOPES_DOUBTED = 4.0, 2.0  # the largest scales that are used as they are found
_CERTAIN, _BEYOND = 3.0, 4.0  # by so many nats more than at `doubted`: κ is so many times the likeliest


def likeliest(log_evidence: Callable[[float], float], doubted: float = _DOUBTED) -> tuple[float, float]:
    """Scale of `SCALES` that is likeliest, tried from 1 upwards until the evidence falls twice in a row; and the scale
    κ to use. `doubted`: the largest scale, one of `SCALES`, that is used as it is found.

    Its prior is P(κ) ∝ κ^−1.5, a nat less for every doubling: where little was shown the evidence is flat to a
    hundredth of a nat, and its maximum could be anywhere.

    They are one, but where the likeliest is above `doubted` and beyond doubt (e³ times as likely as that): there κ is
    four times as much. Rows that were recorded under smaller scales hold large effects down, and arms that have hardly
    been tried are worth trying where effects are large.
    """
    found, at, most, falls = dict[float, float](), 1.0, -np.inf, 0
    for scale in SCALES:
        evidence = log_evidence(scale)
        # not until its sum with the prior falls: evidence that rises slowly at first may rise by far more than that
        falls = 0 if evidence > most else falls + 1
        most = max(evidence, most)
        best = max(found.values(), default=-np.inf)
        found[scale] = evidence - _RARE * float(arithmetic.log(np.array(scale)))
        if found[scale] > best:  # equal evidence does not speak for larger effects
            at = scale
        if falls == 2:
            break
    return at, _BEYOND * at if at > doubted and found[at] - found[doubted] > _CERTAIN else at


def chosen(scales: Scales, log_evidence: Callable[[float], float]) -> tuple[float, float]:
    """As `likeliest`, for a model of each arm by itself whose scales are not as declared. With "slopes" a scale of 3 is
    certain enough to go beyond it: a slope of one arm is learned from that arm's own rows.
    """
    return likeliest(log_evidence, _SLOPES_DOUBTED if scales == "slopes" else _DOUBTED)


def fitted(precision: Array, shift: Array) -> tuple[Array, Array]:
    """Parts of a Gaussian's evidence, over any number of models: log|P| and tᵀP⁻¹t, from P (…, n, n), symmetric and
    positive definite, and t (…, n).
    """
    n = shift.shape[-1]
    joined = np.zeros((*shift.shape[:-1], n + 1, n + 1))
    joined[..., :n, :n], joined[..., :n, n], joined[..., n, :n] = precision, shift, shift
    left, pivots = arithmetic.complement(joined, n)
    return arithmetic.total(np.moveaxis(arithmetic.log(pivots), -1, 0)), -left[..., 0, 0]
