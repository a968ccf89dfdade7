"""Diagnostics of a log: sums that merge, what they say about overlap and propensities, and the reasons to refuse.

`LogDiagnostics` of the parts of a log is added up; `refusals` are reasons not to answer at all, `warnings` reasons to
look twice. Each names what was found and what data would be enough. Thresholds are in `DiagnosticLimits`.

Whether logged propensities are those that arms were drawn from is tested by e-values, so that no log is refused by
looking often: by Π (1 + λ (1{A=a}/p − 1)) for each arm, whose factors have mean ≤ 1 (= 1 where the arm is always
eligible), and, where all arms' propensities are logged, by `sample_ratio.SampleRatio`, which finds small shifts sooner.

Shapes: n rounds, k arms.
"""

from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array, Ints
from experiments.inference.assignment import Assignment, ShareTest
from experiments.inference.sample_ratio import SampleRatio
from experiments.inference.support import SupportSums

_BETS = np.array([0.01, 0.03, 0.1, 0.3])
_BINS = 10  # of q̂ in [0, 1]
_MOST = 690.0  # of the log of an e-value


class DiagnosticLimits(NamedTuple):
    """Thresholds of the diagnostics: beyond the first group (up to `weight_z`) the evaluator refuses, beyond those
    called warn_… it warns. Each field says its unit beside it.
    """

    ess: float = 50.0  # (Σw)²/Σw² (Kish)
    conversions: int = 10  # rounds of weight > 0 whose reward is not 0
    unsupported: float = 0.001  # share of π on arms that could not be drawn
    matured: float = 0.9  # share of rows before the first unknown reward
    routing: float = 1e4  # e-value against the logged propensities: a sound log is refused once in 10,000
    weight_z: float = 5.0  # standard errors of the mean weight from 1
    warn_ess: float = 200.0  # rounds of equal weight
    warn_ess_share: float = 0.05  # ess over rounds
    warn_conversions: int = 50  # rounds of weight > 0 whose reward is not 0
    warn_heaviest: float = 0.05  # share of Σw in one round
    warn_calibration: float = 5.0  # standard errors of mean r − q̂, in any tenth of q̂
    warn_gap: float = 2.0  # standard errors between dr and snips


LIMITS = DiagnosticLimits()


class Refusal(NamedTuple):
    """One reason why a log cannot answer for a policy.

    `reason`: a stable word for programs (empty, unmatured, deterministic, propensities, support, weights, ess,
    conversions). `detail`: what was found, in a sentence. `needed`: which data would be enough.
    """

    reason: str
    detail: str
    needed: str


def _empty_arms() -> Array:
    return np.zeros((0, 2 + len(_BETS)))


def _empty_bins() -> Array:
    return np.zeros((_BINS, 4))


@dataclass(frozen=True, slots=True)
class LogDiagnostics:
    """Sums over the rounds of a log that count, for one policy. `LogDiagnostics()` is the empty log; parts merge by `+`
    in any order, to rounding.

    Made for each chunk by `experiments.ope.accumulate`; read by `refusals`, `warnings` and `summary`. w is the weight
    π/p of a round.
    """

    rows: int = 0  # all, with those whose reward is not known yet and those after them
    n: int = 0  # that count
    weight: float = 0.0  # Σw
    weight_square: float = 0.0  # Σw²
    conversions: int = 0  # rounds of weight > 0 whose reward is not 0
    unsupported: float = 0.0  # Σ of π over arms that could not be drawn
    certain: int = 0  # propensity 1
    strayed: int = 0  # propensity of the arm is not that of its column
    columns: int = 0  # rounds with every arm's propensity
    inverse: float = 0.0  # Σ 1/p
    inverse_square: float = 0.0  # Σ 1/p²
    heaviest: float = 0.0  # the largest w
    arms: Array = field(default_factory=_empty_arms)  # (k, …): rounds, Σ1/p, Σ log(1 + λ(1/p − 1)) − log(1 − λ)
    bins: Array = field(default_factory=_empty_bins)  # (10, …): rounds, Σq̂, Σr, Σ(r − q̂)²
    routing: SampleRatio | None = None  # None: not every arm's propensity is logged
    assignment: Assignment = field(default_factory=Assignment)
    versions: dict[int, int] = field(default_factory=dict)  # policy version → rounds
    support: SupportSums = field(default_factory=SupportSums)  # arm by arm

    @classmethod
    def of(
        cls,
        action: NDArray[np.integer],
        reward: Array,
        pscore: Array,
        weight: Array,
        *,
        pi: Array | None = None,
        propensity: Array | None = None,
        q_hat: Array | None = None,
        version: NDArray[np.integer] | None = None,
        group: Ints | None = None,
        rewarded: NDArray[np.bool_] | None = None,
        unmatured: int = 0,
    ) -> "LogDiagnostics":
        """The sums of n rounds. `action`, `reward`, `pscore`, `weight`: (n,) each; reward scaled so that its range is 1
        wide; `pi` and `propensity` (n, k) if known; `q_hat` (n,) of the drawn arm, scaled to [0, 1]; `version` (n,) of
        the policy.

        `group` (n,): of users, where they may recur. `rewarded` (n,): which rewards count as conversions, where
        `reward` does not say it; else those that are not 0. `unmatured`: rows of this part from the first unknown
        reward on; they are not among the n.
        """
        names, counts = np.unique([] if version is None else version, return_counts=True)
        part = cls(
            rows=len(action) + unmatured,
            n=len(action),
            weight=float(weight.sum()),
            weight_square=float(weight @ weight),
            conversions=int(((weight > 0.0) & (reward != 0.0 if rewarded is None else rewarded)).sum()),
            certain=int((pscore >= 1.0).sum()),
            inverse=float((1.0 / pscore).sum()),
            inverse_square=float((pscore**-2.0).sum()),
            heaviest=float(weight.max(initial=0.0)),
            arms=_arm_sums(action, 1.0 / pscore),
            bins=_empty_bins() if q_hat is None else _bin_sums(q_hat, reward),
            assignment=Assignment.of(action, pscore, propensity, group),
            versions=dict(zip(names.astype(int).tolist(), counts.tolist(), strict=True)),
            support=SupportSums.of(action, pscore, weight, pi, propensity),
        )
        if propensity is None:
            return part
        return replace(
            part,
            columns=part.n,
            unsupported=0.0 if pi is None else float((pi * (propensity == 0.0)).sum()),
            strayed=int((np.abs(propensity[np.arange(part.n), action] - pscore) > 1e-6).sum()),
            routing=SampleRatio.of(action, propensity),
        )

    def __add__(self, other: "LogDiagnostics") -> "LogDiagnostics":
        """The sums over both parts; the heaviest round of both, and counts of policy versions added up."""
        merged = {
            f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name not in _MERGED_APART
        }
        both = self.routing and other.routing and self.routing + other.routing
        return LogDiagnostics(
            heaviest=max(self.heaviest, other.heaviest),
            arms=_padded(self.arms, len(other.arms)) + _padded(other.arms, len(self.arms)),
            routing=both or self.routing or other.routing,
            versions={
                v: self.versions.get(v, 0) + other.versions.get(v, 0) for v in sorted({*self.versions, *other.versions})
            },
            **merged,
        )

    @property
    def ess(self) -> float:
        """Effective sample size (Σw)²/Σw²: how many rounds of equal weight would say as much (Kish 1965); 0 without any
        weight.
        """
        return self.weight**2 / self.weight_square if self.weight_square else 0.0

    @property
    def weight_z(self) -> float:
        """z of the mean weight: its distance from the expected 1, in standard errors; 0 where it cannot be told."""
        return _z(self.weight, self.weight_square, self.n, 1.0)

    @property
    def propensity_e_value(self) -> float:
        """e-value against "arms were drawn from the logged propensities": the mean of both tests of the module, where
        there are both. 1 for an empty log, at most e^690.
        """
        seen = self.arms[self.arms[:, 0] > 0.0]
        if not len(seen):
            return 1.0
        growth = seen[:, 2:] + self.n * np.log1p(-_BETS)
        drawn = float(np.exp(min(special.logsumexp(growth) - np.log(growth.size), _MOST)))
        return drawn if self.routing is None else 0.5 * (drawn + self.routing.evidence)

    @property
    def shares(self) -> ShareTest | None:
        """Observed and declared shares of the arms, where the log says enough to compare them; else None. See
        `assignment`.
        """
        return self.assignment.shares()

    @property
    def propensities_too_large(self) -> bool:
        """Whether mean 1/p is far below the number of arms that were drawn (5 standard errors): propensities are too
        large, or not all arms were eligible. Asked only of logs with the drawn arm's propensity alone.
        """
        seen = int((self.arms[:, 0] > 0.0).sum())
        if self.columns or not self.n or self.inverse / self.n > 0.9 * seen:
            return False
        return _z(self.inverse, self.inverse_square, self.n, float(seen)) < -5.0

    @property
    def calibration_z(self) -> float:
        """Calibration of q̂: the largest |z| of mean r − q̂ over tenths of q̂ with 20 rounds or more; 0 if there are
        none.
        """
        _, q, r, square = self.bins[self.bins[:, 0] >= 20.0].T
        error = np.sqrt(np.maximum(square, 1e-12))
        return float(np.abs((r - q) / error).max(initial=0.0))

    def summary(self) -> dict[str, float]:
        """The diagnostics as {name: number}, for reports and JSON. Shares are in [0, 1], z in standard errors."""
        n = max(self.n, 1)
        return {
            "ess": self.ess,
            "ess_share": self.ess / n,
            "max_weight": self.heaviest,
            "max_weight_share": self.heaviest / self.weight if self.weight else 0.0,
            "mean_weight": self.weight / n,
            "mean_weight_z": self.weight_z,
            "conversions": float(self.conversions),
            "unsupported": self.unsupported / n,
            "matured": self.n / self.rows if self.rows else 0.0,
            "propensity_evidence": self.propensity_e_value,
            "calibration_z": self.calibration_z,
            "versions": float(len(self.versions)),
        }


_MERGED_APART = ("heaviest", "arms", "routing", "versions")


def _arm_sums(action: NDArray[np.integer], inverse: Array) -> Array:
    bets = np.log1p(_BETS[:, None] * (inverse - 1.0)) - np.log1p(-_BETS)[:, None]
    return np.column_stack([np.bincount(action, part) for part in (np.ones_like(inverse), inverse, *bets)])


def _bin_sums(q_hat: Array, reward: Array) -> Array:
    where = np.clip((q_hat * _BINS).astype(np.int64), 0, _BINS - 1)
    columns = (np.ones_like(q_hat), q_hat, reward, (reward - q_hat) ** 2)
    return np.column_stack([np.bincount(where, column, _BINS) for column in columns])


def _padded(table: Array, k: int) -> Array:
    return np.pad(table, ((0, max(k - len(table), 0)), (0, 0)))


def _z(total: float, square: float, n: int, expected: float) -> float:
    """z of a mean. Where all values are equal: 0 if as expected, else ±∞."""
    if n < 2:
        return 0.0
    mean = total / n
    variance = max(square / n - mean * mean, 0.0) / n
    gap = mean - expected
    if abs(gap) < 1e-6:
        return 0.0
    return gap / float(np.sqrt(variance)) if variance > 1e-18 else float(np.copysign(np.inf, gap))


def refusals(evidence: LogDiagnostics, limits: DiagnosticLimits = LIMITS) -> list[Refusal]:
    """Reasons why this log cannot answer for this policy; an empty list if it can. Reasons about the log come first;
    without rounds or without randomisation they are the only ones, because weights mean nothing then.
    """
    found = _about_the_log(evidence, limits)
    if any(refusal.reason in ("empty", "deterministic") for refusal in found):
        return found  # weights mean nothing then
    return found + _about_the_policy(evidence, limits, sound=not found)


def _about_the_log(e: LogDiagnostics, limits: DiagnosticLimits) -> list[Refusal]:
    found = []
    if e.n == 0:
        detail = f"none of {e.rows:,} rounds counts" if e.rows else "there are no rounds"
        return [Refusal("empty", detail, "rounds whose rewards are known")]
    if e.n < limits.matured * e.rows:
        detail = f"rewards are known for the first {e.n:,} of {e.rows:,} rounds only ({e.n / e.rows:.0%})"
        found.append(Refusal("unmatured", detail, f"wait until their windows end, or end the log after round {e.n:,}"))
    if e.certain == e.n:
        detail = "every logged propensity is 1: no arm was left to chance, or the propensities were not logged"
        return [*found, Refusal("deterministic", detail, "a log of a policy that randomises, with its propensities")]
    return found + _about_propensities(e, limits)


def _about_propensities(e: LogDiagnostics, limits: DiagnosticLimits) -> list[Refusal]:
    needed = (
        "the propensities that arms were really drawn from, for all arms (p_0 …): the shares that were planned, not "
        "those that were observed, which would only hide the fault. If these are the planned ones, find out whether "
        "assignment, exposure or logging is broken"
    )
    if e.strayed:
        detail = f"in {e.strayed:,} rounds pscore is not the propensity that the arm's own column gives"
        return [Refusal("propensities", detail, needed)]
    if e.propensity_e_value >= limits.routing:
        shown = ", ".join(f"{count:,.0f}" for count in e.arms[:6, 0])
        detail = f"arms were not drawn as logged: e-value {e.propensity_e_value:.3g}; they came {shown} … times"
        return [Refusal("propensities", detail, needed)]
    if e.propensities_too_large:
        seen = int((e.arms[:, 0] > 0.0).sum())
        detail = f"mean 1/p is {e.inverse / e.n:.3g}, but {seen} arms were drawn: it should be {seen}"
        return [Refusal("propensities", detail, needed)]
    return []


def _about_the_policy(e: LogDiagnostics, limits: DiagnosticLimits, *, sound: bool) -> list[Refusal]:
    share = e.unsupported / e.n
    if share > limits.unsupported or e.weight == 0.0:
        detail = f"{share:.1%} of the policy's choices could never be drawn" if e.weight else "no round has its arm"
        return [Refusal("support", detail, "a log with a floor: every arm that the policy may choose has p > 0")]
    found = []
    if sound and abs(e.weight_z) > limits.weight_z:
        detail = f"the mean weight is {e.weight / e.n:.3g}, not 1 ({e.weight_z:+.1f} standard errors)"
        needed = "p > 0 for every arm that the policy may choose, and propensities that are those of the draw"
        found.append(Refusal("weights", detail, needed))
    if e.ess < limits.ess:
        times = limits.ess / e.ess
        detail = f"the weights are worth {e.ess:.1f} rounds of {e.n:,}; {limits.ess:g} are needed"
        needed = f"about {e.n * times:,.0f} such rounds, or a policy closer to the one that made the log"
        found.append(Refusal("ess", detail, needed))
    if e.conversions < limits.conversions:
        detail = f"{e.conversions} rounds with this policy's arms had a reward; {limits.conversions} are needed"
        needed = f"about {e.n * limits.conversions / max(e.conversions, 1):,.0f} rounds like these, or more"
        found.append(Refusal("conversions", detail, needed))
    return found


def warnings(
    evidence: LogDiagnostics, gap: float | None = None, error: float | None = None, limits: DiagnosticLimits = LIMITS
) -> list[str]:
    """Reasons to look twice at an answer, as sentences; none of them withholds it. `gap`: dr − snips and `error`: the
    standard error of dr, both in the reward's units, where both estimates exist.
    """
    e, n = evidence, max(evidence.n, 1)
    found = []
    if e.ess < max(limits.warn_ess, limits.warn_ess_share * n):
        found.append(f"the weights are worth {e.ess:,.0f} rounds of {e.n:,}")
    if e.conversions < limits.warn_conversions:
        found.append(f"only {e.conversions} rounds with this policy's arms had a reward")
    if e.weight and e.heaviest > limits.warn_heaviest * e.weight:
        found.append(f"one round has {e.heaviest / e.weight:.0%} of all weight")
    if e.calibration_z > limits.warn_calibration:
        found.append(
            f"the reward model q̂ is off by {e.calibration_z:.1f} standard errors in a tenth of its range: do not "
            "believe dm, which rests on it alone"
        )
    if gap is not None and error and abs(gap) > limits.warn_gap * error:
        found.append(f"dr and snips differ by {abs(gap) / error:.1f} standard errors")
    if len(e.versions) > 1:
        most = max(e.versions.values()) / n
        found.append(f"{len(e.versions)} policy versions made the log, the most frequent {most:.0%} of it")
    return found
