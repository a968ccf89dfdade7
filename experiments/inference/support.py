"""Support of a log for a policy, arm by arm: how often the policy would choose an arm, with which propensity the log
could show it, what the log's rounds of that arm are worth, and whether they can answer.

`refusals` of a whole log are in `diagnostics`; this says which arms an answer rests on. Shapes: n rounds, k arms.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array

_ENOUGH, _PLENTY = 50.0, 200.0  # effective rounds of an arm, as `diagnostics.DiagnosticLimits` has them of all
_UNSUPPORTED = 0.001  # of all choices
_LITTLE = 0.01  # of all choices: how few are called few; small propensities may make them weigh much all the same

Answer = Literal["answers", "thin", "cannot say", "not asked"]


class ArmSupport(NamedTuple):
    """Support of one arm. `share`: how often the policy would choose it, in [0, 1]; `rounds` in which the log shows it,
    worth `ess` of equal weight; `least`: least propensity with which the log could show it where the policy would (NaN:
    it never could); `unsupported`: how often the policy would choose it where the log could not, in [0, 1] of all
    rounds. `answer`: whether the log can say what the arm brings; `why`: what is missing, "" if nothing is.
    """

    arm: int
    share: float
    rounds: int
    least: float
    ess: float
    unsupported: float
    answer: Answer
    why: str


def _none() -> Array:
    return np.zeros((0, 5))


@dataclass(frozen=True, slots=True)
class SupportSums:
    """Sums over rounds, arm by arm; parts merge by `+` in any order, to rounding. `SupportSums()` is the empty log.

    `sums` (k, 5): rounds of the arm, Σw and Σw² over them, Σπ, Σπ where the arm's propensity is 0. `least` (k,): the
    least propensity above 0 where π > 0, ∞ where there is none.
    """

    n: int = 0
    sums: Array = field(default_factory=_none)
    least: Array = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(
        cls, action: NDArray[np.integer], pscore: Array, weight: Array, pi: Array | None, propensity: Array | None
    ) -> "SupportSums":
        """The sums of n rounds; action, pscore and weight (n,), pi and propensity (n, k) where they are known. Without
        pi it is estimated from the weights, without propensity the least one is that of rounds that showed the arm.
        """
        wide = propensity if propensity is not None else pi
        k = wide.shape[1] if wide is not None else int(action.max(initial=-1)) + 1
        own = [np.bincount(action, part, minlength=k) for part in (np.ones(len(action)), weight, weight * weight)]
        chosen = own[1] if pi is None else pi.sum(axis=0)
        never = np.zeros(k) if pi is None or propensity is None else (pi * (propensity == 0.0)).sum(axis=0)
        least = np.full(k, np.inf)
        if propensity is None:
            np.minimum.at(least, action, np.where(weight > 0.0, pscore, np.inf))
        else:
            may = propensity > 0.0 if pi is None else (propensity > 0.0) & (pi > 0.0)
            least = np.where(may, propensity, np.inf).min(axis=0, initial=np.inf)
        return cls(len(action), np.column_stack([*own, chosen, never]), least)

    def __add__(self, other: "SupportSums") -> "SupportSums":
        """The sums over both parts."""
        k = max(len(self.sums), len(other.sums))
        one, two = (np.pad(part.sums, ((0, k - len(part.sums)), (0, 0))) for part in (self, other))
        least = [np.pad(part.least, (0, k - len(part.least)), constant_values=np.inf) for part in (self, other)]
        return SupportSums(self.n + other.n, one + two, np.minimum(*least))

    def arms(self) -> tuple[ArmSupport, ...]:
        """Support of each of the k arms, in their order."""
        return tuple(self._arm(a) for a in range(len(self.sums)))

    def _arm(self, a: int) -> ArmSupport:
        rounds, weight, square, chosen, never = self.sums[a].tolist()
        n, least = max(self.n, 1), float(self.least[a])
        ess = weight * weight / square if square else 0.0
        answer, why = _answer(int(rounds), ess, chosen / n, never / n)
        shown = least if np.isfinite(least) else np.nan
        return ArmSupport(a, chosen / n, int(rounds), shown, ess, never / n, answer, why)


def _answer(rounds: int, ess: float, share: float, never: float) -> tuple[Answer, str]:
    if share == 0.0:
        return "not asked", ""
    if never > _UNSUPPORTED or never >= share:
        return (
            "cannot say",
            f"in {never / share:.1%} of the rounds in which the policy would show it, the log never could",
        )
    if ess == 0.0:
        return "cannot say", "the log never shows it where the policy would"
    seen = f"{rounds:,} round{'' if rounds == 1 else 's'}, worth {ess:.{1 if ess < _ENOUGH else 0}f}"
    if ess < _ENOUGH:
        return "cannot say", f"{seen}; {_ENOUGH:g} are needed, {_ENOUGH / ess:.1f} times such a log"
    if ess < _PLENTY:
        return "thin", f"{seen}: look twice below {_PLENTY:g}"
    return "answers", ""


def sentence(support: tuple[ArmSupport, ...], names: tuple[str, ...]) -> str:
    """A sentence on the arms that the policy would choose and the log cannot answer for, with how often it would choose
    them, and what that means for the estimate of the whole policy; "" if there is none.
    """
    silent = [arm for arm in support if arm.answer == "cannot say"]
    if not silent:
        return ""
    said = ", ".join(f"{name_of(arm.arm, names)} ({arm.share:.1%} of its choices)" for arm in silent)
    little = sum(arm.share for arm in silent) < _LITTLE
    rests = f": less than {_LITTLE:.0%} of its choices in all" if little else ", on which its estimate rests"
    return f"The log cannot say what the policy's choices bring for {said}{rests}"


def least_words(arm: ArmSupport) -> str:
    """Least propensity with which the log could show the arm where the policy would, in words: "never", and with how
    often it could not show it at all.
    """
    if np.isnan(arm.least):
        return "never"
    lacks = arm.unsupported / arm.share if arm.share else 0.0
    return f"0 in {lacks:.1%}, else {arm.least:.3g}" if lacks > 0.0 else f"{arm.least:.3g}"


def name_of(arm: int, names: tuple[str, ...]) -> str:
    """Name of an arm, or its number where the log does not name them."""
    return names[arm] if arm < len(names) else f"arm {arm}"
