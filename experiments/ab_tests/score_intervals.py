"""Score intervals of two rates: their difference and their ratio, with the one p-value that belongs to both (Miettinen
& Nurminen 1985).

z(θ) is the observed contrast less its value under θ, over its standard error with both rates at their likeliest values
under θ. The bounds are where z² reaches the quantile, and p is that of z at "no difference", which is the same for the
difference and for the ratio. So difference, ratio and p agree on what is significant, and the intervals also hold where
a rate is 0 or few convert, unlike those of Wald.

Shapes: scalars.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from experiments.inference.intervals import LEVEL, Interval


class ArmRate(NamedTuple):
    """Rate of an arm: `yes` of `n` people, 0 ≤ yes ≤ n, n > 0."""

    yes: float
    n: float

    @property
    def value(self) -> float:
        """yes / n."""
        return self.yes / self.n


def p_value(arm: ArmRate, control: ArmRate) -> float:
    """Two-sided p of the score test that both rates are equal; 1 where nobody or everybody converts."""
    return float(2.0 * special.ndtr(-abs(_z_difference(arm, control, 0.0))))


def difference(arm: ArmRate, control: ArmRate, level: float = LEVEL) -> Interval:
    """Score interval of arm − control, in [−1, 1]; n is that of the smaller arm."""
    d, z = arm.value - control.value, float(special.ndtri(0.5 + level / 2))
    low = _bound(lambda x: _z_difference(arm, control, x) - z, -1.0, d)
    high = _bound(lambda x: _z_difference(arm, control, x) + z, d, 1.0)
    return Interval(d, low, high, int(min(arm.n, control.n)))


def ratio(arm: ArmRate, control: ArmRate, level: float = LEVEL) -> Interval:
    """Score interval of arm / control, in [0, ∞). The value is NaN and the upper bound ∞ if nobody of the control
    converts; n is that of the smaller arm.
    """
    z, n = float(special.ndtri(0.5 + level / 2)), int(min(arm.n, control.n))
    if control.yes == 0.0:
        return Interval(float("nan"), 0.0, np.inf, n)
    value, most = arm.value / control.value, 1.0 / control.value * 1e6
    low = 0.0 if arm.yes == 0.0 else np.exp(_bound(lambda x: _z_ratio(arm, control, x) - z, -40.0, np.log(value)))
    start = np.log(value) if value > 0.0 else -40.0
    high = np.exp(_bound(lambda x: _z_ratio(arm, control, x) + z, start, np.log(most)))
    return Interval(value, float(low), float(high), n)


def _bound(distance: Callable[[float], float], low: float, high: float) -> float:
    """Where the falling function crosses 0; the end of the range that it does not reach 0 within."""
    if distance(low) <= 0.0:
        return low
    if distance(high) >= 0.0:
        return high
    return float(optimize.brentq(distance, low, high, xtol=1e-13, rtol=1e-12))


def _z_difference(arm: ArmRate, control: ArmRate, delta: float) -> float:
    rate = _likeliest_control(arm, control, delta)
    other = min(max(rate + delta, 0.0), 1.0)
    return _z(arm, control, arm.value - control.value - delta, other * (1.0 - other), rate * (1.0 - rate))


def _likeliest_control(arm: ArmRate, control: ArmRate, delta: float) -> float:
    """The control's likeliest rate where the arm's is `delta` more: the root of the likelihood equation, a cubic, as
    Miettinen & Nurminen give it.
    """
    n, yes = arm.n + control.n, arm.yes + control.yes
    two = (arm.n + 2.0 * control.n) * delta - n - yes
    one = (control.n * delta - n - 2.0 * control.yes) * delta + yes
    none = control.yes * delta * (1.0 - delta)
    centre = two / (3.0 * n)
    q = centre**3 - one * two / (6.0 * n * n) + none / (2.0 * n)
    p = np.copysign(np.sqrt(max(centre * centre - one / (3.0 * n), 0.0)), q)
    angle = (np.pi + np.arccos(np.clip(q / p**3, -1.0, 1.0))) / 3.0 if p else np.pi / 2.0
    found = float(2.0 * p * np.cos(angle) - centre)
    return min(max(found, 0.0, -delta), 1.0, 1.0 - delta)


def _z_ratio(arm: ArmRate, control: ArmRate, log_ratio: float) -> float:
    theta = float(np.exp(log_ratio))
    a, c = (arm.n + control.n) * theta, arm.yes + control.yes
    b = arm.n * theta + arm.yes + control.n + control.yes * theta
    rate = 2.0 * c / (b + float(np.sqrt(max(b * b - 4.0 * a * c, 0.0))))
    rate = min(rate, 1.0, 1.0 / theta)
    other = theta * rate
    return _z(arm, control, arm.value - theta * control.value, other * (1.0 - other), theta**2 * rate * (1.0 - rate))


def _z(arm: ArmRate, control: ArmRate, gap: float, own: float, of_control: float) -> float:
    n = arm.n + control.n
    variance = (own / arm.n + of_control / control.n) * n / (n - 1.0)
    if variance <= 0.0:
        return 0.0 if gap == 0.0 else float(np.copysign(np.inf, gap))
    return float(gap / np.sqrt(variance))
