"""Thompson-sampling propensities for independent Beta posteriors: P(arm wins), by quadrature with + − × ÷ √ only, the
same bits on every processor.

Each arm brings panels at its own scale: in log odds, where a Beta density is log-concave and nearly normal, at
multiples of its width there, and further out for its exponential tails. Distribution functions are running integrals of
the densities over the same panels, and each density is divided by its own whole integral, so that no Beta function is
needed. Shapes: k arms.
"""

import numpy as np

from bandit.arrays import Array
from bandit.errors import PropensityError
from bandit.numerics import arithmetic, legendre
from bandit.propensity.gaussian import TOLERANCE

_WIDTHS = np.arange(-8.0, 8.1, 1.0)
_TAILS = np.array([0.06, 0.12, 0.25, 0.5, 1.0])
_FALL = 32.0  # logs that a density falls by in its tails


def wins(a: Array, b: Array, gain: Array, cost: Array) -> Array:
    """Win probabilities P(gain_a·B_a − cost_a is the largest), (k,), for independent B_a ~ Beta(a_a, b_a), gain > 0, a
    and b ≥ 1; all arguments (k,), gain and cost in units of the reward range.

    Error ≤ 1e-7 absolute over the stress suite. Below a or b = 1 a density has no bound, and no such promise is made.
    Raises PropensityError when Σp stays away from 1 by more than TOLERANCE after refinement.
    """
    if len(a) == 1:
        return np.ones(1)
    p = np.full(len(a), np.nan)
    breaks = _breaks(a, b) if np.isfinite(a + b + gain + cost).all() else np.zeros((len(a), 0))
    for shares in (breaks, _halved(_halved(breaks))) if breaks.size else ():
        ends = np.concatenate([np.zeros((len(a), 1)), shares, np.ones((len(a), 1))], axis=1)
        p = _integrated(np.unique(ends * gain[:, None] - cost[:, None]), a, b, gain, cost)
        if abs(float(arithmetic.total(p)) - 1.0) <= TOLERANCE:
            return p
    raise PropensityError(f"Σp = {float(p.sum())!r} for a = {a.tolist()} and b = {b.tolist()}")


def _breaks(a: Array, b: Array) -> Array:
    """Where panels meet, as shares in (0, 1), (k, breaks) in ascending order."""
    width, middle = np.sqrt((a + b) / (a * b)), arithmetic.log(a / b)
    centre = _WIDTHS * width[:, None]
    low = -8.0 * width[:, None] - _TAILS[::-1] * (_FALL / a)[:, None]
    high = 8.0 * width[:, None] + _TAILS * (_FALL / b)[:, None]
    return arithmetic.expit(middle[:, None] + np.concatenate([low, centre, high], axis=1))


def _halved(breaks: Array) -> Array:
    return np.sort(np.concatenate([breaks, 0.5 * (breaks[:, 1:] + breaks[:, :-1])], axis=1), axis=1)


def _integrated(edges: Array, a: Array, b: Array, gain: Array, cost: Array) -> Array:
    """∫ f_a Π_{j≠a} F_j over the panels between sorted edges."""
    t, weight = legendre.points(edges)
    share = (t[:, None] + cost) / gain  # (nodes, k)
    inside = (share > 0.0) & (share < 1.0)
    safe, top = np.where(inside, share, 0.5), a / (a + b)
    height = (a - 1.0) * arithmetic.log(safe / top) + (b - 1.0) * arithmetic.log((1.0 - safe) / (1.0 - top))
    density = np.where(inside, arithmetic.exp(np.minimum(height, 700.0)), 0.0)
    below, whole = legendre.running(density, edges)
    below, density = np.clip(below / whole, 0.0, 1.0), density / whole
    ones = np.ones((len(t), 1))  # prefix and suffix products leave one arm out without dividing
    prefix = np.cumprod(np.concatenate([ones, below[:, :-1]], axis=1), axis=1)
    suffix = np.cumprod(np.concatenate([ones, below[:, :0:-1]], axis=1), axis=1)[:, ::-1]
    return arithmetic.total(weight[:, None] * (density * prefix * suffix))
