"""Sample-ratio test: is what was shown what was drawn? It may be looked at after every decision.

If arms are drawn from the logged vector p, then for any tilt of the odds that is fixed beforehand,

    E = Π_t (1 + τ·b(A_t)) / (1 + τ·Σ_a p_t(a) b(a)),

is a product of factors of mean 1, whatever the policy learns meanwhile (Lindon & Malek 2022). b is +1 or −1 on one arm
("this arm comes too often, too seldom"), or −1 on one and +1 on another ("this one is shown as that one"), and τ is
.03, .1 or .3. The test mixes all of them; under the null E reaches 100 with chance ≤ 1 % (Ville). The logarithms
are sums: parts merge by `+`, and the sum over the versions of a stage tests the stage. A loss is found sooner where the
arm is often shown: docs/explanation/inference.md has the figures.

Shapes: n decisions, k arms, B bets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array

ALARM = 100.0
"""Evidence at which routing is called wrong: false alarms ≤ 1 %, at all times together."""

_TILTS = np.array([0.03, 0.1, 0.3])
_PAIRED = 8  # arms up to which pairs are bet on: their number is k (k − 1)
_BLOCK = 1024  # rows multiplied before a logarithm is taken: 0.7^1024 = 1e-159 is a float
_MOST = 690.0  # of log E


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The sample-ratio test over n decisions among k arms, as the log E of every bet. Merges by `+` in any order; all
    parts have to have the same arms. Used by the lift monitor for each policy version, and by the diagnostics of a log.
    """

    n: int
    arms: int
    growth: Array  # (B, tilts)

    @classmethod
    def of(cls, action: NDArray[np.integer], propensity: Array) -> "SampleRatio":
        """The test of n decisions in any order: `action` (n,) what was shown, `propensity` (n, k) what it was drawn
        from, 0 for arms that could not be drawn.
        """
        n, k = propensity.shape
        bets = _bets(k)
        won = np.log1p(_TILTS * bets[..., None]).transpose(2, 0, 1) @ np.bincount(action, minlength=k)  # (tilts, B)
        paid = np.zeros((len(bets), len(_TILTS)))
        for start in range(0, n, _BLOCK):
            expected = propensity[start : start + _BLOCK] @ bets.T
            for t, tilt in enumerate(_TILTS):
                paid[:, t] += np.log(np.prod(1.0 + tilt * expected, axis=0))
        return cls(n, k, won.T - paid)

    @classmethod
    def of_counts(cls, count: Array, shares: Array) -> "SampleRatio":
        """The test of draws that all had the same `shares` (k,), by how often each arm came, `count` (k,)."""
        bets, n = _bets(len(shares)), float(count.sum())
        won = np.log1p(_TILTS * bets[..., None]).transpose(0, 2, 1) @ count
        return cls(int(n), len(shares), won - n * np.log1p(_TILTS * (bets @ shares)[:, None]))

    def __add__(self, other: "SampleRatio") -> "SampleRatio":
        """The test over the decisions of both, which have the same k arms."""
        return SampleRatio(self.n + other.n, self.arms, self.growth + other.growth)

    @property
    def evidence(self) -> float:
        """E, an e-value at any time: arms are called misrouted if it ever reaches `ALARM`. At most 1e300."""
        return float(np.exp(min(float(special.logsumexp(self.growth)) - np.log(self.growth.size), _MOST)))

    @property
    def suspect(self) -> int:
        """Number of the arm that the strongest bet is about: of a pair of arms, the one that comes too seldom."""
        bet = _bets(self.arms)[int(self.growth.max(axis=1).argmax())]
        return int(bet.argmin() if bet.min() < 0.0 else bet.argmax())


def by_version(version: NDArray[np.integer], action: NDArray[np.integer], propensity: Array) -> dict[int, SampleRatio]:
    """{version: test} of each policy version in a log; `version` and `action` (n,), `propensity` (n, k). `merged` joins
    parts; `intervals.e_bh` decides over many versions.
    """
    each = {int(v): version == v for v in np.unique(version)}
    return {v: SampleRatio.of(action[rows], propensity[rows]) for v, rows in each.items()}


def merged(left: dict[int, SampleRatio], right: dict[int, SampleRatio]) -> dict[int, SampleRatio]:
    """{version: test} over both parts of a log; versions that are in both are added."""
    both = {v: left[v] + right[v] for v in left.keys() & right.keys()}
    return {**left, **right, **both}


def _bets(k: int) -> Array:
    """Bets b (B, k) on the arms: each arm comes more, each arm comes less, and for each pair, one comes less and the
    other more.
    """
    one = np.eye(k)
    pairs = [one[b] - one[a] for a in range(k) for b in range(k) if a != b] if k <= _PAIRED else []
    return np.array([*one, *-one, *pairs])
