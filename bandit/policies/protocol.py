"""What every policy offers. Two steps: `posterior` once for each snapshot, `choose` once for each decision.

Shapes: k arms, d features, n rows. Rewards are scaled to [0, 1]; utilities are in units of the reward range:
utility of arm a = gain_a · reward − cost_a.
"""

from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import Belief, sites, weighted

Sites = tuple[Array, Array]


class CoefficientFactor(NamedTuple):
    """What others' data say of coefficients, as information: exp(−½ θ'Pθ + s'θ). Each is a (nudge type, column)."""

    keys: tuple[tuple[str, str], ...]  # n of them
    precision: Array  # (n, n)
    shift: Array  # (n,)


class RetiredArms(NamedTuple):
    """What r nudges have taught that are not declared any more. Hierarchical policies keep it in what nudges share."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    precision: Array  # (r, d, d)
    shift: Array  # (r, d)


class ArmEconomics(NamedTuple):
    """What a policy knows of the k arms of a stage, no nudge first. Gain and cost are in units of the reward range:
    the utility of an arm is gain · reward − cost, with the reward in [0, 1].
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]  # the nudge's type: what hierarchical policies share across
    gain: Array  # (k,) > 0, what a reward is worth
    cost: Array  # (k,)
    columns: tuple[str, ...] = ()  # d names; equal names mean equal things in every stage of the app
    cross_stage_factor: CoefficientFactor | None = (
        None  # what the app's other stages have learned about types of nudges
    )
    retired: RetiredArms | None = None
    price: Array | None = None  # (k,) the part of the cost that is a price: nobody pays it, the choice counts it


class Scores(NamedTuple):
    """What the posterior says of each arm's expected reward at this context, and the choice it implies.

    `mean` is the q̂ that off-policy evaluation needs, logged at decision time. `propensity` is before the floor:
    exactly 0 where ineligible.
    """

    mean: Array  # (k,) posterior mean of the reward, in [0, 1] units
    sd: Array  # (k,) posterior sd of the reward, tempered as the policy samples it
    propensity: Array  # (k,)


class Posterior(Protocol):
    """A belief made ready for decisions: k arms, d features. Computed once a snapshot, called once a decision.

    Immutable, so that any number of threads may call it; the same inputs give the same bits. What raises here refuses
    the decision: nothing is drawn.
    """

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores at x (d,) with `eligible` (k,) arms, of which at least one is True."""
        ...

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """`choose` for every row of x (n, d) and `eligible` (n, k), each for itself; every part is (n, k).

        The same rules, computed for many decisions at once, and the same bits.
        """
        ...


class Policy(Protocol):
    """Frozen hyperparameters of one algorithm: what a catalogue names under `policy`.

    A `msgspec.Struct` with a tag, whose methods are pure: they read no clock and no file, draw no random numbers, and
    change none of their arguments. Shapes: k arms (no nudge first), d features, n rows; rewards are in [0, 1].
    `journey_bandit.testing.policies` has the contract as tests, `ExactSites` the methods of policies whose sites are
    their rewards. A package offers its own under the entry point group `journey_bandit.policies`.
    """

    @property
    def link(self) -> Literal["identity", "logit"]:
        """What a site's shift is in units of. A belief of one link says nothing to a policy of the other."""
        ...

    def rows(self, arms: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the rows of a belief over `arms` (k,): the arms themselves for most policies (`ArmRows`)."""
        ...

    def design(self, x: Array, arm: NDArray[np.intp], propensity: Array) -> Array:
        """What n decisions are learned from, (n, D): their contexts x (n, d) for most policies. The arms shown (n,),
        and the propensities (n, k) that they were drawn from, may be part of it.
        """
        ...

    def sums(self, k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array) -> Belief:
        """Belief of n settled rows over k arms, exact in any order; x (n, D) as `design` made it."""
        ...

    def weighted_sums(
        self, k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array, weight: Array
    ) -> Belief:
        """Belief of n rows that count in part; weight (n,), which tau and nu hold already. Never stored."""
        ...

    def sites(self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array) -> Sites:
        """(τ, ν) of n rows learned after `belief`: x (n, D) as `design` made it, arm (n,), reward (n,) in [0, 1]."""
        ...

    def provisional(
        self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array, weight: Array
    ) -> Sites:
        """(τ, ν) of n rows that are not settled yet and count in part, beyond `belief`: weight (n,) in (0, 1]."""
        ...

    def posterior(self, belief: Belief, arms: ArmEconomics) -> Posterior:
        """The posterior of a belief over `arms`."""
        ...

    def message(self, belief: Belief, arms: ArmEconomics) -> CoefficientFactor | None:
        """What the belief of this stage says to the app's other stages, `arms.cross_stage_factor` left out; None
        if nothing.
        """
        ...


class ArmRows:
    """A belief with one row for each arm, learned from contexts as they are. For every policy that needs no more."""

    def rows(self, arms: tuple[str, ...]) -> tuple[str, ...]:
        """The arms themselves."""
        return arms

    def design(self, x: Array, arm: NDArray[np.intp], propensity: Array) -> Array:  # noqa: ARG002
        """The contexts, (n, d)."""
        return x

    def sums(self, k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array) -> Belief:
        """Sums of the sites at each row's own arm, as `bandit.belief.sites`."""
        return sites(k, x, arm, tau, nu, reward)

    def weighted_sums(
        self, k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array, weight: Array
    ) -> Belief:
        """Sums of rows that count in part, as `bandit.belief.weighted`."""
        return weighted(k, x, arm, tau, nu, reward, weight)


class ExactSites(ArmRows):
    """Sites in units of the noise: τ = 1, ν = r (n,). For every policy that is exact in its sums, in any order: it then
    needs a `posterior` only.
    """

    @property
    def link(self) -> Literal["identity", "logit"]:
        """Shifts are rewards."""
        return "identity"

    def sites(self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array) -> Sites:  # noqa: ARG002
        """They depend on nothing but the reward."""
        return np.ones_like(reward), reward

    def provisional(
        self,
        belief: Belief,  # noqa: ARG002
        arms: ArmEconomics,  # noqa: ARG002
        x: Array,  # noqa: ARG002
        arm: NDArray[np.intp],  # noqa: ARG002
        reward: Array,
        weight: Array,
    ) -> Sites:
        """A part of a row is worth that part."""
        return weight, weight * reward

    def message(self, belief: Belief, arms: ArmEconomics) -> CoefficientFactor | None:  # noqa: ARG002
        """Stages share nothing."""
        return None


def tiled(values: Array, n: int) -> Array:
    """(k,) → (n, k), the same in each row."""
    return np.tile(values, (n, 1))


def empirical(belief: Belief) -> tuple[Array, Array]:
    """Mean reward of each arm and its standard error, with one pseudo-observation at ½ each way."""
    mean = (belief.reward + 0.5) / (belief.n + 1.0)
    return mean, np.sqrt(mean * (1.0 - mean) / (belief.n + 1.0))
