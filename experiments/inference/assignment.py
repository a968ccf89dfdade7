"""Assignment test: did arms come as often as was declared? Observed against declared shares, with a p-value for one
look.

Given what was known before each draw, the count of an arm less the sum of its propensities has mean 0, and the counts'
covariance is V = Σ (diag p − pp'), whatever the policy learned meanwhile. So (N − Σp)' V⁺ (N − Σp) is χ² with rank V
degrees of freedom in a log that is large enough (Pearson's test where p is constant). Where rounds of one user are one
draw, as in an experiment that assigns users, V is taken from sums by user instead. A log with the propensities of the
drawn arms only is tested if each arm's never changes and they sum to 1.

p < .01 is worth a note: 1 % of sound logs get it. Refusals ask for far more (`diagnostics.DiagnosticLimits.routing`),
by an e-value that may be looked at always.

Shapes: n rounds, k arms, g groups of users.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array, Ints
from experiments.inference.joint_moments import GROUPS
from experiments.inference.wording import number

NOTED = 0.01
"""Shares as far apart as this chance are noted."""

_TOO_CLOSE = 0.005  # chance of shares as near to the declared ones as this, or nearer
_FEWEST = 5.0  # rounds of an arm that are expected: below, χ² is not to be relied on
_LEAST_P, _MOST_EVIDENCE = 1e-9, 1e6  # beyond, more would be said than χ² is good for
_SUM = 1e-3  # how far from 1 the propensities of all arms may sum, if they are written with few digits


class ShareTest(NamedTuple):
    """Result of the assignment test.

    `observed`, `declared`: shares (k,) of the arms, each sums to 1. `p`: the chance of shares as far apart or farther
    if arms were drawn as declared. `copied`: the declared shares are the observed ones, so comparing them tests
    nothing.
    """

    observed: tuple[float, ...]
    declared: tuple[float, ...]
    p: float
    copied: bool

    def note(self, e_value: float) -> str | None:
        """The sentence that a reader of the report has to see; None if p ≥ .01. `e_value`: that of the same log against
        its propensities, which the sentence states beside p.
        """
        seen, said = (", ".join(f"{100 * share:.2f}" for share in part) for part in (self.observed, self.declared))
        if self.copied:
            return (
                f"the propensities are the shares that were observed ({seen} %), so they cannot show whether arms were "
                "assigned as planned: give the shares that were planned, or the propensities of the draw"
            )
        if self.p >= NOTED:
            return None
        return (
            f"arms came in shares of {seen} %, declared are {said} %: by chance p {_p_value(self.p)}, e-value "
            f"{_evidence(e_value)}. Find out whether assignment, exposure or logging lost rounds before relying on this"
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """Sums over the rounds of a log that the assignment test needs. `Assignment()` is the empty log; parts merge by `+`
    in any order. Made by `LogDiagnostics.of` for each part, tested once at the end by `shares`.
    """

    n: int = 0  # rounds
    count: Array = field(default_factory=lambda: np.zeros(0))  # (k,)
    expected: Array | None = None  # (k,) Σp; None: only the drawn arms' propensities are known
    covariance: Array | None = None  # (k, k)
    groups: Array | None = None  # (g, k) by user: count less expected, or only counts
    low: Array = field(default_factory=lambda: np.zeros(0))  # (k,) the drawn arms' least propensity
    high: Array = field(default_factory=lambda: np.zeros(0))  # (k,) and the largest

    @classmethod
    def of(
        cls, action: NDArray[np.integer], pscore: Array, propensity: Array | None = None, group: Ints | None = None
    ) -> "Assignment":
        """The sums of n rounds: `action` (n,) the drawn arms, `pscore` (n,) their propensities, `propensity` (n, k)
        those of all arms if they are logged, `group` (n,) the group of each round's user (see
        `joint_moments.groups_of`) if users may recur.
        """
        if len(action) == 0:
            return cls()
        k = int(action.max()) + 1 if propensity is None else propensity.shape[1]
        low, high = np.full(k, np.inf), np.zeros(k)
        np.minimum.at(low, action, pscore)
        np.maximum.at(high, action, pscore)
        count = np.bincount(action, minlength=k).astype(np.float64)
        by_group = None if group is None else _group_counts(group, action, k)
        if propensity is None:
            return cls(len(action), count, None, None, by_group, low, high)
        expected = propensity.sum(axis=0)
        covariance = np.diag(expected) - propensity.T @ propensity
        if by_group is not None and group is not None:
            by_group -= np.column_stack([np.bincount(group, column, GROUPS) for column in propensity.T])
        return cls(len(action), count, expected, covariance, by_group, propensity.min(axis=0), propensity.max(axis=0))

    def __add__(self, other: "Assignment") -> "Assignment":
        """The sums over both parts. What only one of the parts has (groups, expected counts) is dropped."""
        if not self.n or not other.n:
            return other if not self.n else self
        k = max(len(self.count), len(other.count))
        count = _wide(self.count, k) + _wide(other.count, k)
        low = np.minimum(_wide(self.low, k, np.inf), _wide(other.low, k, np.inf))
        high = np.maximum(_wide(self.high, k), _wide(other.high, k))
        groups = None
        if self.groups is not None and other.groups is not None:
            groups = _columns(self.groups, k) + _columns(other.groups, k)
        both = self.expected is not None and other.expected is not None
        expected = self.expected + other.expected if both else None  # type: ignore[operator]
        covariance = self.covariance + other.covariance if both else None  # type: ignore[operator]
        return Assignment(self.n + other.n, count, expected, covariance, groups, low, high)

    def shares(self) -> ShareTest | None:
        """The test of observed against declared shares. None where the log does not declare shares, an arm is expected
        in fewer than 5 rounds (χ² is not to be relied on there), or fewer than two arms could be drawn.
        """
        expected = self.expected if self.expected is not None else self._declared()
        if expected is None or not ((expected >= _FEWEST) | (expected == 0.0)).all() or (expected > 0.0).sum() < 2:
            return None
        gap = self.count - expected
        statistic, rank = _quadratic(gap, self._variance(expected))
        if rank == 0:
            return None
        p = float(special.chdtrc(rank, statistic))
        declared = expected / expected.sum()
        closer = special.chdtr(rank, statistic) < _TOO_CLOSE
        copied = bool(closer and (self.high - self.low <= 1e-9).all() and not _looks_planned(declared))
        return ShareTest(tuple((self.count / self.n).tolist()), tuple(declared.tolist()), p, copied)

    def _declared(self) -> Array | None:
        """(k,) expected counts, from propensities that never change and sum to 1."""
        if not self.n or (self.count == 0.0).any() or (self.high - self.low > 1e-9).any():
            return None
        return self.n * self.low / self.low.sum() if abs(self.low.sum() - 1.0) <= _SUM else None

    def _variance(self, expected: Array) -> Array:
        """Covariance (k, k) of the counts: from sums by user where users recur, else that of independent draws."""
        p = expected / self.n
        draws = self.n * (np.diag(p) - np.outer(p, p)) if self.covariance is None else self.covariance
        if self.groups is None or self.recurring is False:
            return draws
        table = self.groups if self.expected is not None else self.groups - self.groups.sum(axis=1, keepdims=True) * p
        return np.asarray(table.T @ table, dtype=np.float64)

    @property
    def recurring(self) -> bool:
        """Whether users come back: there are clearly fewer groups of users than rounds. Then V is taken from sums by
        user.
        """
        if self.groups is None:
            return False
        seen = int((self.groups != 0.0).any(axis=1).sum())
        distinct = GROUPS * -np.expm1(-self.n / GROUPS)  # groups that n different users would fill
        return bool(seen < 0.95 * distinct)


def _p_value(p: float) -> str:
    return f"= {number(p, '.2g')}" if p >= _LEAST_P else "below 0.000000001"


def _evidence(e_value: float) -> str:
    return number(e_value, ".3g") if e_value <= _MOST_EVIDENCE else "above 1,000,000"


def _group_counts(group: Ints, action: NDArray[np.integer], k: int) -> Array:
    cells = np.bincount(group * k + action, minlength=GROUPS * k)
    return cells.reshape(GROUPS, k).astype(np.float64)


def _quadratic(gap: Array, variance: Array) -> tuple[float, int]:
    """The quadratic form gap' variance⁺ gap, with the pseudo-inverse of variance (k, k), and the rank of variance."""
    values, vectors = np.linalg.eigh(variance)
    kept = values > 1e-9 * max(float(values.max()), 1e-300)
    along = vectors[:, kept].T @ gap
    return float((along**2 / values[kept]).sum()), int(kept.sum())


def _looks_planned(shares: Array) -> bool:
    """Whether somebody may have planned these shares: whole per cent or tenths of one, or all alike."""
    used = shares[shares > 0.0]
    whole = np.abs(1000.0 * used - np.round(1000.0 * used)) < 1e-3
    return bool(whole.all() or np.ptp(used) < 1e-4)


def _wide(row: Array, k: int, fill: float = 0.0) -> Array:
    return np.pad(row, (0, k - len(row)), constant_values=fill)


def _columns(table: Array, k: int) -> Array:
    return np.pad(table, ((0, 0), (0, k - table.shape[1])))
