"""Mixture of two policies half and half, on the grid of what is drawn from: how a stage decides while a candidate is
judged.

Shapes: k arms, (k,) or (n, k). Both vectors are drawable (whole numbers of 1/UNITS that sum to 1), and so is the
mixture. It is drawn from once: the logged propensity is the probability of the draw, and no coin says which of the two
decided. Against either policy the weight π/p of a draw is at most 2, which is what makes judging cheap.
"""

import numpy as np

from bandit.arrays import Array
from bandit.propensity.floor import UNITS

HEAVIEST = 2.0
"""Largest weight π/p of either policy in a draw from the mixture of both."""


def half_and_half(one: Array, other: Array) -> Array:
    """Drawable propensities ½ one + ½ other, (k,) or (n, k): each row for itself, to the bits of the function for one.

    Halves of a unit are rounded up, and the largest arm, the first of equals, pays for them, at most k/2 units. Every
    other arm keeps at least half of what either policy gives it, so what either may draw can be drawn. 0 where both
    are 0.
    """
    both = (one + other) * UNITS  # whole numbers up to 2²⁵: exact, and so is everything below
    units = np.ceil(both / 2.0)
    most = units.argmax(axis=-1, keepdims=True)
    excess = units.sum(axis=-1, keepdims=True) - UNITS
    np.put_along_axis(units, most, np.take_along_axis(units, most, axis=-1) - excess, axis=-1)
    return np.asarray(units / UNITS, dtype=np.float64)
