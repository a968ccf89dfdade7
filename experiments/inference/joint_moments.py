"""Joint moments of several numbers over rounds, as sums that merge: enough for any ratio of means, its standard error
and its skewness, in one pass, in memory that does not grow with the log.

A self-normalised estimate is f(v̄) of a mean vector v̄ (m,). To first order it varies like the mean of ∇f(v̄)·v, so its
central moments are those of the vector along the gradient (the delta method). `JointMoments` keeps the vector's central
moments up to the third; `GroupSums` keeps sums by group of users, where rounds of one user may depend on each other.
"""

from dataclasses import dataclass

import numpy as np

from bandit.arrays import Array, Ints
from experiments.inference.intervals import Moments

GROUPS = 1 << 16  # of users: a user's rounds are all in one
_ROUNDING = 1e-12  # of a variance, against what the numbers vary each for itself
_BLOCK = 16_384  # rows at once, for the third moments
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio: neighbouring numbers fall far apart


def groups_of(user: Ints) -> Ints:
    """The group of each user, (n,) int64 in 0 … GROUPS − 1, from user keys (n,): a fixed hash, the same in every part
    of a log.

    Fewer users than groups rarely share one; sharing costs degrees of freedom and nothing else, because a group holds
    whole users.
    """
    return ((user.astype(np.uint64) * _SPREAD) >> np.uint64(48)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class JointMoments:
    """Central moments up to the third of n vectors of m numbers. Merges by `+`, to rounding (Pébay 2008); there is no
    empty value.
    """

    n: int
    mean: Array  # (m,)
    second: Array  # (m, m) Σ dd', d = v − mean
    third: Array  # (m, m, m) Σ d⊗d⊗d

    @classmethod
    def of(cls, values: Array) -> "JointMoments":
        """The moments of the rows of `values` (n, m), n > 0. Third moments are summed in blocks of 16,384 rows, which
        bounds memory.
        """
        n, m = values.shape
        mean = values.mean(axis=0)
        second, third = np.zeros((m, m)), np.zeros((m * m, m))
        for start in range(0, n, _BLOCK):
            d = values[start : start + _BLOCK] - mean
            second += d.T @ d
            third += (d[:, :, None] * d[:, None, :]).reshape(len(d), m * m).T @ d
        return cls(n, mean, second, third.reshape(m, m, m))

    def __add__(self, other: "JointMoments") -> "JointMoments":
        """The moments over both sets of rows, as if they had been one."""
        n = self.n + other.n
        a, b, d = self.n / n, other.n / n, other.mean - self.mean
        square, tilt = self.n * b * np.outer(d, d), a * other.second - b * self.second
        third = self.third + other.third + (a - b) * square[:, :, None] * d
        third += d[:, None, None] * tilt + d[:, None] * tilt[:, None, :] + tilt[:, :, None] * d
        return JointMoments(n, a * self.mean + b * other.mean, self.second + other.second + square, third)

    def along(self, gradient: Array, value: float) -> Moments:
        """Moments of an estimate `value` that varies along `gradient` (m,), by the delta method; without a model of
        rewards. Where the numbers cancel to rounding, the estimate is taken not to vary.
        """
        m2, apart = float(gradient @ self.second @ gradient), np.abs(gradient) @ np.sqrt(np.diag(self.second))
        if m2 <= _ROUNDING * apart**2:
            return Moments(self.n, value, modelled=False)
        m3 = float(np.einsum("i,j,k,ijk", gradient, gradient, gradient, self.third))
        return Moments(self.n, value, m2, m3, modelled=False)


@dataclass(frozen=True, slots=True)
class GroupSums:
    """Sums of m numbers by group of users, for logs in which users recur. Merges by `+`, to rounding; of constant size,
    65,536 rows.
    """

    sums: Array  # (GROUPS, m), the first column counts rounds

    @classmethod
    def of(cls, group: Ints, values: Array) -> "GroupSums":
        """The sums of rows `values` (n, m), each of a `group` (n,) as `groups_of` gives it. The first column of
        `values` has to be 1, so that it counts rounds.
        """
        return cls(np.column_stack([np.bincount(group, column, GROUPS) for column in values.T]))

    def __add__(self, other: "GroupSums") -> "GroupSums":
        """The sums over both sets of rows, group by group."""
        return GroupSums(self.sums + other.sums)

    def joint(self) -> JointMoments:
        """The joint moments with the groups that have rounds as the units, scaled so that the mean is the mean over
        rounds.
        """
        sums = self.sums[self.sums[:, 0] > 0.0]
        return JointMoments.of(sums / sums[:, 0].mean())
