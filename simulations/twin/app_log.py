"""App log: the decisions of one stage as a twin is fitted to them, and what each decision found of its user's past.

Shapes: n decisions in the order in which they were made, k arms, d columns of x.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Ints, Mask
from bandit.catalogue.model import Stage

DAY = 86_400_000_000
"""µs."""

WEEK_BEGAN = 345_600_000_000
"""µs from the begin of 1970 to its first Monday."""


class AppLog(NamedTuple):
    """Log of one stage, in the order in which decisions were made.

    `reward` is in its own units, NaN while it is not known; `delay` seconds from the decision to the reward, NaN where
    there was none or nobody noted when it came. `eligible`: which arms could be shown; `out`: the user had switched
    nudges off. `times_known`: whether delays are known at all.
    """

    user: Ints  # (n,)
    at: Ints  # (n,) µs
    arm: NDArray[np.intp]  # (n,)
    reward: Array  # (n,)
    delay: Array  # (n,)
    x: Array  # (n, d)
    eligible: Mask  # (n, k)
    holdout: Mask  # (n,)
    out: Mask  # (n,)
    times_known: bool = True

    def only(self, rows: Mask) -> "AppLog":
        """The decisions where `rows` (n,) is True."""
        return AppLog._make(part[rows] if isinstance(part, np.ndarray) else part for part in self)

    @property
    def day(self) -> Ints:
        """Whole days (n,) since the Monday before the first decision."""
        monday = (self.at.min(initial=self.at.max(initial=0)) - WEEK_BEGAN) // (7 * DAY) * (7 * DAY) + WEEK_BEGAN
        return np.asarray((self.at - monday) // DAY)


class VisitPast(NamedTuple):
    """What n decisions found of their users' past at the stage, and what followed; (n,) each, by the formulas of
    `simulations.dynamics`.

    `fatigue` F as `Fatigue.keeps` lets it fade; `trained` T of a user who learns to wait for coupons; `pulled`: the
    last visit redeemed a coupon. `order`: 0 for a user's first visit, 1 for the second …; `gap`: days to the next
    visit, NaN where there is none in the log. `later_out`: whether nudges are switched off at the next visit.
    """

    fatigue: Array
    trained: Array
    pulled: Mask
    order: Ints
    gap: Array
    later_out: Mask

    def at(self, rows: NDArray[np.intp] | Mask) -> "VisitPast":
        """The past of some of the decisions, by numbers or a mask (n,)."""
        return VisitPast._make(part[rows] for part in self)


def past(log: AppLog, coupon: Mask, *, keeps: float, learns: float, forgets: float) -> VisitPast:
    """The past of every decision of a log. `coupon`: (k,) which arms are coupons; the other arguments are those of
    `Fatigue` and `CouponHabit`.
    """
    n, day = len(log.arm), log.day.astype(np.float64)
    found = np.lexsort((np.arange(n), log.user))
    user = log.user[found]
    starts = np.r_[True, user[1:] != user[:-1]] if n else np.zeros(0, dtype=bool)
    begin = np.flatnonzero(starts)
    order = np.arange(n) - np.repeat(begin, np.diff(np.r_[begin, n]))
    fatigue, trained, pulled = np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool)
    nudged, is_coupon = log.arm[found] > 0, coupon[log.arm[found]]
    redeemed, when = is_coupon & (np.nan_to_num(log.reward[found]) > 0.0), day[found]
    by_order = np.argsort(order, kind="stable")
    edges = np.searchsorted(order[by_order], np.arange(1, int(order.max(initial=0)) + 2))
    for at in range(len(edges) - 1):  # the visits of everybody who comes at least that often
        rows = by_order[edges[at] : edges[at + 1]]
        before = rows - 1
        fatigue[rows] = (fatigue[before] + nudged[before]) * keeps ** np.maximum(when[rows] - when[before], 0.0)
        was = trained[before]
        trained[rows] = np.where(is_coupon[before], was + learns * (1.0 - was), was * (1.0 - forgets))
        pulled[rows] = redeemed[before]
    gap, out = np.full(n, np.nan), np.zeros(n, dtype=bool)
    goes_on = np.flatnonzero(~starts)
    gap[goes_on - 1], out[goes_on - 1] = when[goes_on] - when[goes_on - 1], log.out[found][goes_on]
    place = np.argsort(found)
    return VisitPast(fatigue, trained, pulled, order, gap, out).at(place)


def coupons(stage: Stage) -> Mask:
    """Mask (k,) of coupons, which people can learn to wait for: arms that give away a tenth of a reward or more."""
    least = 0.1 * stage.reward.value
    return np.array([False, *(nudge.cost_when_rewarded >= least for nudge in stage.nudges.values())])
