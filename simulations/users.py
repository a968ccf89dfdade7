"""Invented people: what the app sees of them, what they would do under every nudge, and the exact value of each nudge.

Generative model (z persona, x observed features, a arm):

    x | z      independent: number position ~ Beta(cμ, c(1 − μ)), boolean ~ Bernoulli, category ~ Categorical
    logit P(reward | z, x, a) = α + intent_z + 1{a ≠ none} (effect_{z,a} + slope_a · x)
    delay | a  ~ Exponential(mean_a); the reward counts if it comes within the attribution window

α makes the rate without a nudge equal to `base`. What the service can know is x, so the value of an arm is
q(x, a) = Σ_z P(z | x) P(reward | z, x, a) P(delay ≤ window | a), with P(z | x) by Bayes: closed form, exact.
The truth of a person is a fixed function of (person, x, arm); batch-mates do not matter.
"""

import math
import uuid
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from bandit.catalogue import Feature, Stage
from bandit.log import Array
from simulations.scenario import Scenario, check


class People(NamedTuple):
    """n people at one stage. Utilities are in the app's currency."""

    ids: list[str]
    decision_ids: list[uuid.UUID]
    contexts: list[dict[str, Any]]
    proofs: list[dict[str, Any]]
    converts: NDArray[np.bool_]  # (n, k) would this person convert within the window under this arm
    delay: Array  # (n, k) seconds from decision to reward
    rate: Array  # (n, k) q(x, a): expected reward within the window, given what can be seen
    utility: Array  # (n, k) expected net value of each arm, given what can be seen


class World:
    """One scenario over one stage. Seeded by index: batch i is the same whatever came before it."""

    def __init__(self, scenario: Scenario, stage: Stage, seed: int):
        check(scenario, stage)
        self.scenario, self.stage, self.seed = scenario, stage, seed
        self._personas = list(scenario.personas.values())
        weights = np.array([p.weight for p in self._personas])
        intents = np.array([p.intent for p in self._personas])
        self._weights = weights
        alpha = optimize.brentq(lambda a: float(weights @ special.expit(a + intents)) - scenario.base, -20.0, 20.0)
        self._level = alpha + intents  # (z,)
        effects = [[0.0, *(p.effects[n] for n in stage.nudges)] for p in self._personas]
        self._effects = np.array(effects)  # (z, k)
        slopes = [[0.0] * len(stage.features)]
        slopes += [[scenario.slopes.get(n, {}).get(f, 0.0) for f in stage.features] for n in stage.nudges]
        self._slopes = np.array(slopes)  # (k, features)
        self._delay = 3600.0 * np.array([scenario.delay_hours[a] for a in stage.arms])

    def people(self, batch: int, n: int) -> People:
        """The people of batch number `batch`."""
        rng = np.random.default_rng([self.seed, batch])
        persona = rng.choice(len(self._weights), size=n, p=self._weights)
        position, contexts = self._features(rng, persona)
        chance = self._chance(position)  # (n, z, k)
        own = chance[np.arange(n), persona]
        delay = -self._delay * np.log1p(-rng.random((n, 1)))
        converts = (rng.random((n, 1)) < own) & (delay <= self.stage.reward.seconds)
        rate = self._rate(position, chance)
        numbers = range(batch * n, (batch + 1) * n)
        return People(
            ids=[f"person-{self.seed}-{i}" for i in numbers],
            decision_ids=[decision_id(f"{self.scenario.app}/{self.scenario.stage}", self.seed, i) for i in numbers],
            contexts=contexts,
            proofs=self._proofs(rng, n),
            converts=converts,
            delay=delay,
            rate=rate,
            utility=self.utility(rate),
        )

    def utility(self, rate: Array) -> Array:
        """Expected net value (n, k) of reward rates (n, k), in currency."""
        nudges = list(self.stage.nudges.values())
        kept = self.stage.reward.value - np.array([0.0, *(n.cost_when_rewarded for n in nudges)])
        return np.asarray(rate * kept - np.array([0.0, *(n.cost for n in nudges)]), dtype=np.float64)

    def _features(self, rng: np.random.Generator, persona: NDArray[np.intp]) -> tuple[Array, list[dict[str, Any]]]:
        """Encoded number, boolean or category index for the slopes and Bayes, (n, features); and what is sent."""
        n = len(persona)
        position = np.empty((n, len(self.stage.features)))
        columns: dict[str, list[Any]] = {}
        c = self.scenario.concentration
        for j, (name, feature) in enumerate(self.stage.features.items()):
            given = [p.features[name] for p in self._personas]
            if feature.type == "category":
                table = np.array([_shares(share, feature) for share in given])
                position[:, j] = (rng.random((n, 1)) > np.cumsum(table, axis=1)[persona]).sum(axis=1)
                columns[name] = [feature.values[int(v)] for v in position[:, j]]
            elif feature.type == "boolean":
                position[:, j] = rng.random(n) < _numbers(given)[persona]
                columns[name] = [bool(v) for v in position[:, j]]
            else:
                mean = _numbers(given)[persona]
                position[:, j] = np.clip(rng.beta(c * mean, c * (1.0 - mean)), 1e-9, 1.0 - 1e-9)
                columns[name] = [_unscaled(feature, float(v)) for v in position[:, j]]
        return position, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _chance(self, position: Array) -> Array:
        """P(reward | z, x, a), (n, z, k), the delay left out."""
        numeric = np.array([f.type != "category" for f in self.stage.features.values()])
        number = np.array([f.type == "number" for f in self.stage.features.values()])
        x = np.where(number, 2.0 * position - 1.0, position) * numeric
        return np.asarray(special.expit(self._level[:, None] + self._effects + (x @ self._slopes.T)[:, None, :]))

    def _rate(self, position: Array, chance: Array) -> Array:
        posterior = self.posterior(position)
        within = -np.expm1(-self.stage.reward.seconds / self._delay)
        return np.asarray(np.einsum("nz,nzk->nk", posterior, chance) * within, dtype=np.float64)

    def posterior(self, position: Array) -> Array:
        """P(z | x), (n, z), by Bayes over the generating densities."""
        logs = np.repeat(np.log(self._weights)[None, :], len(position), axis=0)
        c = self.scenario.concentration
        for j, (name, feature) in enumerate(self.stage.features.items()):
            given = [p.features[name] for p in self._personas]
            at = position[:, j : j + 1]
            if feature.type == "category":
                table = np.log(np.array([_shares(share, feature) for share in given]))
                logs += table[:, at[:, 0].astype(int)].T
            elif feature.type == "boolean":
                true = _numbers(given)
                logs += np.log(np.where(at > 0.5, true, 1.0 - true))
            else:
                a, b = c * _numbers(given), c * (1.0 - _numbers(given))
                logs += (a - 1.0) * np.log(at) + (b - 1.0) * np.log1p(-at) - special.betaln(a, b)
        posterior: Array = np.asarray(special.softmax(logs, axis=1))
        return posterior

    def _proofs(self, rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
        """Evidence the app sends: always true, and not always there."""
        proofs: list[dict[str, Any]] = [{} for _ in range(n)]
        for kind, share in self.scenario.proof.items():
            has = rng.random(n) < share
            stock = rng.integers(1, 4, size=n)
            for i in np.flatnonzero(has):
                proofs[i][kind] = int(stock[i]) if kind == "stock" else "2099-01-01T00:00:00Z"
        return proofs


def decision_id(world: str, seed: int, i: int) -> uuid.UUID:
    """The id of a person's decision: the same in every run with the seed, so that a retry is a retry."""
    return uuid.UUID(bytes=blake2b(f"{world}/{seed}/{i}".encode(), digest_size=16).digest(), version=4)


def _shares(share: Any, feature: Feature) -> list[float]:
    """P(value) in declared order; what a persona leaves out is shared equally among the values it does not name."""
    named = dict(share)
    rest = (1.0 - sum(named.values())) / max(1, len(feature.values) - len(named))
    return [max(float(named.get(v, rest)), 1e-12) for v in feature.values]


def _numbers(given: list[Any]) -> Array:
    return np.asarray(np.clip([float(v) for v in given], 1e-6, 1.0 - 1e-6), dtype=np.float64)


def _unscaled(feature: Feature, position: float) -> float:
    """The number at a position in [0, 1] of its declared range and scale."""
    low, high = float(feature.min or 0.0), float(feature.max or 0.0)
    if feature.scale == "log":
        return low + math.expm1(position * math.log1p(high - low))
    return low + position * (high - low)
