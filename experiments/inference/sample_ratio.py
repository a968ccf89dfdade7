"""Is what was shown what was drawn? A sample-ratio test that may be looked at after every decision.

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
    """log E of every bet over n decisions among k arms."""

    n: int
    arms: int
    growth: Array  # (B, tilts)

    @classmethod
    def of(cls, action: NDArray[np.integer], propensity: Array) -> "SampleRatio":
        """Of decisions in any order: what was shown, action (n,), and what it was drawn from, propensity (n, k)."""
        n, k = propensity.shape
        bets = _bets(k)
        won = np.log1p(_TILTS * bets[..., None]).transpose(2, 0, 1) @ np.bincount(action, minlength=k)  # (tilts, B)
        paid = np.zeros((len(bets), len(_TILTS)))
        for start in range(0, n, _BLOCK):
            expected = propensity[start : start + _BLOCK] @ bets.T
            for t, tilt in enumerate(_TILTS):
                paid[:, t] += np.log(np.prod(1.0 + tilt * expected, axis=0))
        return cls(n, k, won.T - paid)

    def __add__(self, other: "SampleRatio") -> "SampleRatio":
        return SampleRatio(self.n + other.n, self.arms, self.growth + other.growth)

    @property
    def evidence(self) -> float:
        """E, an e-value at any time: misrouted if it ever reaches `ALARM`. At most 1e300."""
        return float(np.exp(min(float(special.logsumexp(self.growth)) - np.log(self.growth.size), _MOST)))

    @property
    def suspect(self) -> int:
        """The arm that the strongest bet is about: of a pair, the one that comes too seldom."""
        bet = _bets(self.arms)[int(self.growth.max(axis=1).argmax())]
        return int(bet.argmin() if bet.min() < 0.0 else bet.argmax())


def by_version(version: NDArray[np.integer], action: NDArray[np.integer], propensity: Array) -> dict[int, SampleRatio]:
    """The test of each policy version, (n,) each; `merged` joins parts."""
    each = {int(v): version == v for v in np.unique(version)}
    return {v: SampleRatio.of(action[rows], propensity[rows]) for v, rows in each.items()}


def merged(left: dict[int, SampleRatio], right: dict[int, SampleRatio]) -> dict[int, SampleRatio]:
    """Over both parts."""
    both = {v: left[v] + right[v] for v in left.keys() & right.keys()}
    return {**left, **right, **both}


def _bets(k: int) -> Array:
    """(B, k): each arm more, each arm less, and each less for each other's more."""
    one = np.eye(k)
    pairs = [one[b] - one[a] for a in range(k) for b in range(k) if a != b] if k <= _PAIRED else []
    return np.array([*one, *-one, *pairs])
