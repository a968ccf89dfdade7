"""Timing model of a twin: when people come and come again, when rewards come, and who switches nudges off.

    gap between visits   lognormal, at least a day, seen in whole days, censored by the end of the log
    delay of a reward    Weibull of one shape, with a mean for each arm: the law of the delays within the window
    opt-out              P = σ(o + F) after a nudge, seen at the user's next visit

Estimates are modes with weak priors; draws are from the normal approximation at the mode (of logarithms, where a
parameter is positive).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from bandit.arrays import Array, Ints, Mask
from bandit.catalogue.model import Stage
from simulations.scenario import VisitTiming
from simulations.twin.app_log import AppLog, VisitPast

_PSEUDO = 10.0  # rewards with the mean delay of all arms, added to those of each
_FEWEST = 20  # gaps or delays from which a law is fitted
_SHARPEST = np.log(8.0)  # shape of delays that are nearly all the same
_OPT_OUT, _OPT_OUT_SD = -5.0, 1.5
_MOST = 20_000  # of which a law is fitted
_NEVER = -50.0


class DelayLaw(NamedTuple):
    """Law of delays. `hours` (k,) mean by arm, `shape` of the Weibull law; `log_hours_sd` (k,) and `log_shape_sd` of
    their logarithms. `window` in seconds.
    """

    hours: Array
    shape: float
    log_hours_sd: Array
    log_shape_sd: float
    window: float

    def draw(self, rng: np.random.Generator) -> "DelayLaw":
        """A law drawn around this one."""
        hours = self.hours * np.exp(self.log_hours_sd * rng.standard_normal(len(self.hours)))
        return self._replace(hours=hours, shape=self.shape * float(np.exp(self.log_shape_sd * rng.standard_normal())))

    @property
    def within(self) -> Array:
        """P(delay ≤ window) (k,)."""
        scale = 3600.0 * self.hours / special.gamma(1.0 + 1.0 / self.shape)
        return np.asarray(-np.expm1(-((self.window / scale) ** self.shape)))


class VisitLaw(NamedTuple):
    """Law of visits: of the days between them, and of weekdays of first visits, Monday first; `log_gap_se` and
    `log_sd_se`: standard errors of the logarithms of `gap_days` and `gap_sd`. `people_per_day`: first visits.
    """

    gap_days: float
    gap_sd: float
    log_gap_se: float
    log_sd_se: float
    weekly: Array  # (7,), mean 1
    people_per_day: float
    people: int

    def timing(self, pull_forward: float, rng: np.random.Generator | None = None) -> VisitTiming:
        """Timing of a scenario: of this law, or of one drawn around it."""
        noise = np.zeros(2) if rng is None else rng.standard_normal(2)
        return VisitTiming(
            gap_days=round(float(self.gap_days * np.exp(self.log_gap_se * noise[0])), 5),
            gap_sd=round(float(self.gap_sd * np.exp(self.log_sd_se * noise[1])), 5),
            weekly=tuple(np.round(self.weekly, 4).tolist()),
            pull_forward=pull_forward,
        )

    def arrivals(self, rng: np.random.Generator) -> float:
        """People a day, drawn."""
        return self.people_per_day * float(rng.gamma(max(self.people, 1))) / max(self.people, 1)


class OptOutLaw(NamedTuple):
    """Logits of opting out after a nudge where F is 0, and their standard error; −50 where nobody ever did."""

    logits: float
    se: float

    def draw(self, rng: np.random.Generator) -> float:
        """Logits drawn around these."""
        return self.logits + self.se * float(rng.standard_normal())


def delays(stage: Stage, log: AppLog) -> DelayLaw:
    """Law of delays at a stage. Rewards after the window are no rewards, in the log as in the twin, so the law is that
    of what came in time, and its own share beyond the window is small (the reward model makes up for it). Without known
    delays: a tenth of the window, exponential.
    """
    window, k = stage.reward.seconds, len(stage.arms)
    came = (np.nan_to_num(log.reward) > 0.0) & (log.delay <= window)
    seconds, arm = np.maximum(log.delay[came][-_MOST:], 1.0), log.arm[came][-_MOST:]
    if len(seconds) < _FEWEST:
        usual = float(np.mean(seconds)) if len(seconds) else window / 10.0
        return DelayLaw(np.full(k, usual / 3600.0), 1.0, np.full(k, 0.3), 0.1, window)
    (log_scale, log_shape), errors = _mode(
        lambda v: _delay_loss(seconds, v[0], v[1]) + 0.5 * (v[1] / 0.3) ** 2, [np.log(seconds.mean()), 0.0]
    )
    shape = float(np.exp(log_shape))
    scales, sd = np.empty(k), np.empty(k)
    for a in range(k):
        own = seconds[arm == a]
        prior_sd = 1.0 / (shape * np.sqrt(_PSEUDO))
        (found,), (sd[a],) = _mode(
            lambda v, own=own, p=prior_sd: (
                _delay_loss(own, v[0], log_shape)  # type: ignore[misc]
                + 0.5 * ((v[0] - log_scale) / p) ** 2
            ),
            [log_scale],
        )
        scales[a] = np.exp(found)
    hours = scales * special.gamma(1.0 + 1.0 / shape) / 3600.0
    return DelayLaw(hours, shape, sd, float(errors[1]), window)


def _delay_loss(seconds: Array, log_scale: float, log_shape: float) -> float:
    """− log likelihood of delays."""
    z = np.exp(min(log_shape, _SHARPEST)) * (np.log(seconds) - log_scale)
    return float(-(log_shape + z - np.exp(np.minimum(z, 50.0))).sum() + max(0.0, log_shape - _SHARPEST) * 1e3 * len(z))


def visits(log: AppLog, found: VisitPast) -> VisitLaw:
    """Law of the visits to one stage. Needs no reward."""
    day, gap = log.day, found.gap
    return visit_law(day, found.order == 0, gap[~np.isnan(gap)], day.max(initial=0) - day[np.isnan(gap)])


def visit_law(day: Ints, first: Mask, gap: Array, silent: Ints) -> VisitLaw:
    """Law of visits on the days `day` (n,), counted from a Monday; `first` (n,): they are their user's first. `gap`
    (m,): days between visits that were followed by another; `silent` (r,): days since those that were not yet.
    """
    span = int(day.max(initial=0)) - int(day.min(initial=0)) + 1
    counts = np.bincount(day[first] % 7, minlength=7).astype(np.float64)
    shown = np.bincount(np.arange(day.min(initial=0), day.max(initial=0) + 1) % 7, minlength=7)
    weekly = (counts + 10.0 / 7.0) / np.maximum(shown, 1)
    people = int(first.sum())
    rest = silent[silent > 0] + 1.0
    if len(gap) < _FEWEST:
        return VisitLaw(3.0 * span, 0.8, 0.5, 0.2, weekly / weekly.mean(), people / span, people)
    whole, times = np.unique(gap, return_counts=True)
    until, often = np.unique(rest, return_counts=True)

    def loss(v: Array) -> float:
        law = stats.norm(v[0], np.exp(v[1]))
        low = np.where(whole < 2.0, 0.0, law.cdf(np.log(np.maximum(whole, 1.0))))
        inside = np.log(np.maximum(law.cdf(np.log(whole + 1.0)) - low, 1e-300))
        return float(-(times @ inside) - often @ law.logsf(np.log(until)) + 0.5 * ((v[1] - np.log(0.8)) / 0.5) ** 2)

    (centre, log_sd), (gap_se, sd_se) = _mode(loss, [np.log(np.median(gap) + 0.5), np.log(0.8)])
    return VisitLaw(
        float(np.exp(centre)), float(np.exp(log_sd)), gap_se, sd_se, weekly / weekly.mean(), people / span, people
    )


def opt_outs(log: AppLog, found: VisitPast) -> OptOutLaw:
    """Law of opting out: of visits with a nudge whose user came again."""
    tried = (log.arm > 0) & ~np.isnan(found.gap)
    out, tired = found.later_out[tried], found.fatigue[tried]
    if not out.any():
        return OptOutLaw(_NEVER, 0.0)

    def loss(v: Array) -> float:
        eta = v[0] + tired
        return float(-(out * eta - np.logaddexp(0.0, eta)).sum() + 0.5 * ((v[0] - _OPT_OUT) / _OPT_OUT_SD) ** 2)

    (logits,), (se,) = _mode(loss, [_OPT_OUT])
    return OptOutLaw(float(logits), float(se))


def _mode(loss: Callable[[Array], float], start: list[float]) -> tuple[Array, Array]:
    """Where a smooth loss is least, and standard errors by its curvature there."""
    found = optimize.minimize(loss, np.array(start), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-7})
    at, n, step = found.x, len(start), 1e-3
    curve = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            e, f = step * np.eye(n)[i], step * np.eye(n)[j]
            curve[i, j] = (loss(at + e + f) - loss(at + e - f) - loss(at - e + f) + loss(at - e - f)) / (4 * step**2)
    variance = np.diag(np.linalg.inv(curve + 1e-9 * np.eye(n)))
    return at, np.sqrt(np.clip(variance, 0.0, 1.0))


def evidence_shares(stage: Stage, log: AppLog) -> Mapping[str, float]:
    """P(the app can prove a claim) by kind of evidence: how often the nudges that need it could be shown, to people who
    may be shown any. Kinds that no nudge needs are left out.
    """
    anybody = log.eligible[~log.holdout & ~log.out]
    found: dict[str, list[float]] = {}
    for a, nudge in enumerate(stage.nudges.values(), start=1):
        if nudge.evidence is not None and len(anybody):
            found.setdefault(nudge.evidence.kind, []).append(float(anybody[:, a].mean()))
    return {kind: max(shares) for kind, shares in found.items()}
