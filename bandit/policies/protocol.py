"""What every policy offers. Two steps: `posterior` once for each snapshot, `choose` once for each decision.

Shapes: k arms, d features, n rows. Rewards are scaled to [0, 1]; utilities are in units of the reward range:
utility of arm a = gain_a · reward − cost_a.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bandit.belief import Belief

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Utility(NamedTuple):
    """What a reward is worth and what an arm costs, per arm, in units of the reward range."""

    gain: Array  # (k,) > 0
    cost: Array  # (k,)


class Scores(NamedTuple):
    """What the posterior says of each arm's expected reward at this context, and the choice it implies.

    `mean` is the q̂ that off-policy evaluation needs, logged at decision time. `propensity` is before the floor:
    exactly 0 where ineligible.
    """

    mean: Array  # (k,) posterior mean of the reward, in [0, 1] units
    sd: Array  # (k,) posterior sd of the reward, tempered as the policy samples it
    propensity: Array  # (k,)


class Posterior(Protocol):
    """A belief made ready for decisions. Immutable; the same inputs give the same bits."""

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores at x (d,) with `eligible` (k,) arms, of which at least one is True."""
        ...


class Policy(Protocol):
    """Frozen hyperparameters of one algorithm."""

    def sites(self, x: Array, reward: Array) -> tuple[Array, Array]:
        """(τ, ν) of n rows: x (n, d), reward (n,) in [0, 1]."""
        ...

    def posterior(self, belief: Belief, arms: tuple[str, ...], utility: Utility) -> Posterior:
        """The posterior of a belief over `arms`."""
        ...


def unit_sites(reward: Array) -> tuple[Array, Array]:
    """Sites in units of the noise: τ = 1, ν = r. Shared by every policy that is exact in its sums."""
    return np.ones_like(reward), reward


def empirical(belief: Belief) -> tuple[Array, Array]:
    """Mean reward of each arm and its standard error, with one pseudo-observation at ½ each way."""
    mean = (belief.reward + 0.5) / (belief.n + 1.0)
    return mean, np.sqrt(mean * (1.0 - mean) / (belief.n + 1.0))
