"""Effects by declared segment, shrunk towards each other, with the worst one named: whom does a policy help, whom does
it hurt?

Each segment's mean m_s ± e_s is an estimate of θ_s ~ N(μ, τ²), with flat priors on μ and τ (Gelman 2006). Given τ, with
w_s = 1/(e_s² + τ²), μ̂ = Σwm/Σw and B_s = e_s² w_s,

    θ_s ~ N(m_s − B_s (m_s − μ̂),  e_s² (1 − B_s) + B_s² / Σw),    p(τ) ∝ (Σw)^−½ Π w_s^½ exp(−½ Σ w_s (m_s − μ̂)²);

mean and variance are those of the mixture over a grid of τ. The least mean is so partly by luck: shrinking takes that
out. `joint` intervals are GHU at a level that all segments share (Bonferroni): "this segment is hurt" is claimed by
them alone, wrongly in at most 5 % of reports.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from experiments.inference.intervals import LEVEL, Interval, Moments, bonferroni_level, interval, standard_error

_GRID = 201  # values of τ


class SegmentEffect(NamedTuple):
    """The effect in one segment, in the unit of the value. `joint` uses the segment's own rounds and covers together
    with all other segments' at the level asked for; `shrunk` also uses what the other segments say.
    """

    name: str  # of the segment
    joint: Interval  # of its own rounds; all segments' cover together
    shrunk: Interval  # with what the others say


class SegmentEffects(NamedTuple):
    """Effects of all segments, in the order given, with the mean μ of their distribution and its spread τ: how much
    effects differ beyond chance. Both are in the unit of the value. `segments` has one entry at least.
    """

    mean: float  # μ
    spread: float
    segments: tuple[SegmentEffect, ...]

    @property
    def worst(self) -> SegmentEffect:
        """The segment with the least shrunk effect. It need not be hurt."""
        return min(self.segments, key=lambda segment: segment.shrunk.value)

    @property
    def hurt(self) -> tuple[SegmentEffect, ...]:
        """The segments whose effect is surely negative: the upper end of the joint interval is below 0."""
        return tuple(segment for segment in self.segments if segment.joint.high < 0.0)


def by_segment(segment: NDArray[np.str_], *columns: Array) -> dict[str, Moments]:
    """{segment: moments} of the rounds of each segment named in `segment` (n,). `columns`: φ, and if there is a model
    vm, k3m, dm and even, (n,) each, as `Moments.of` takes them.
    """
    rows = {str(name): segment == name for name in np.unique(segment)}
    return {name: Moments.of(*(column[mine] for column in columns)) for name, mine in rows.items()}


def merged(left: dict[str, Moments], right: dict[str, Moments]) -> dict[str, Moments]:
    """{segment: moments} over both parts of a log; a segment may be in one part only."""
    return {name: left.get(name, Moments()) + right.get(name, Moments()) for name in {**left, **right}}


def effects(
    moments: dict[str, Moments], level: float = LEVEL, bounds: tuple[float, float] | None = None
) -> SegmentEffects | None:
    """Effects of the segments that have two rounds or more and vary; None if there are none. `level`: of each shrunk
    interval, and of all joint ones together. `bounds`: what an effect cannot leave, in its unit.
    """
    known = {name: part for name, part in moments.items() if part.n > 1 and standard_error(part) > 0.0}
    if not known:
        return None
    shared = bonferroni_level(level, len(known))
    means = np.array([part.mean for part in known.values()])
    errors = np.array([standard_error(part) for part in known.values()])
    mu, spread, value, error = _shrink(means, errors)
    z = float(special.ndtri(0.5 + level / 2))
    found = []
    for i, (name, part) in enumerate(known.items()):
        shrunk = Interval(float(value[i]), float(value[i] - z * error[i]), float(value[i] + z * error[i]), part.n)
        found.append(SegmentEffect(name, interval(part, shared, bounds), shrunk))
    return SegmentEffects(mu, spread, tuple(found))


def _shrink(m: Array, e: Array) -> tuple[float, float, Array, Array]:
    """Posterior means of μ and τ; posterior mean and sd of every θ (S,)."""
    if len(m) < 2:
        return float(m[0]), 0.0, m, e
    tau = np.linspace(0.0, 3.0 * (float(m.std()) + float(np.median(e))), _GRID)[:, None]
    w = 1.0 / (e**2 + tau**2)  # (grid, S)
    total = w.sum(axis=1, keepdims=True)
    mu = (w * m).sum(axis=1, keepdims=True) / total
    log_p = 0.5 * (np.log(w).sum(axis=1) - np.log(total[:, 0]) - (w * (m - mu) ** 2).sum(axis=1))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    b = e**2 * w
    mean, variance = m - b * (m - mu), e**2 * (1.0 - b) + b**2 / total
    value = p @ mean
    return float(p @ mu[:, 0]), float(p @ tau[:, 0]), value, np.sqrt(p @ (variance + (mean - value) ** 2))
