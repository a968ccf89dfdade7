"""Visitors: people of one scenario who come to its rich stage the first time, one by one, which is what a live service
meets.

The model is that of `population`, at F = T = t = 0. `rate` and `utility` are what can be known from the context:
personas by Bayes, user effects by quadrature, delays in closed form.
"""

import uuid
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.catalogue.model import Stage
from simulations.population import Population
from simulations.scenario import Scenario
from simulations.visits import VisitSituation


class FirstVisits(NamedTuple):
    """n people at one stage with their requests and their truth; utilities are in the app's currency.

    `ids`, `decision_ids`, `contexts` and `proofs` (evidence of claims) are what is sent, n each; the arrays are what
    only the simulator knows.
    """

    ids: list[str]
    decision_ids: list[uuid.UUID]
    contexts: list[dict[str, Any]]
    proofs: list[dict[str, Any]]
    converts: NDArray[np.bool_]  # (n, k) would this person convert within the window under this arm
    delay: Array  # (n, k) seconds from decision to reward
    rate: Array  # (n, k) q(x, a): expected reward within the window, given what can be seen
    utility: Array  # (n, k) expected net value of each arm, given what can be seen


class VisitorStream:
    """Endless stream of visitors of one scenario at one stage, in batches seeded by index: batch i is the same whatever
    came before it. Raises CatalogueError if the scenario does not fit the stage.
    """

    def __init__(self, scenario: Scenario, stage: Stage, seed: int):
        self.scenario, self.stage, self.seed = scenario, stage, seed
        self.population = Population(scenario, stage)

    def people(self, batch: int, n: int) -> FirstVisits:
        """The n people of batch number `batch`. The same batch needs the same n in every call, because ids are numbered
        by batch · n.
        """
        rng, made = np.random.default_rng([self.seed, batch]), self.population
        persona = rng.choice(len(made.weights), size=n, p=made.weights)
        position = made.positions(persona, rng.standard_normal((n, made.normals)), rng.random((n, made.uniforms)))
        first = VisitSituation.first(n)
        chance = made.chance(persona, rng.standard_normal(n), position, first)
        delay = made.delay(rng.random(n))
        converts = (rng.random((n, 1)) < chance) & (delay <= self.stage.reward.seconds)
        rate = made.rate(position, first)
        numbers = range(batch * n, (batch + 1) * n)
        return FirstVisits(
            ids=[f"person-{self.seed}-{i}" for i in numbers],
            decision_ids=[decision_id(f"{self.scenario.app}/{self.scenario.stage}", self.seed, i) for i in numbers],
            contexts=made.contexts(position),
            proofs=self._proofs(rng, n),
            converts=converts,
            delay=delay,
            rate=rate,
            utility=made.utility(rate),
        )

    def _proofs(self, rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
        """Evidence of claims that the app sends with each of n requests: always true, and not always there."""
        proofs: list[dict[str, Any]] = [{} for _ in range(n)]
        for kind, share in self.scenario.proof.items():
            has = rng.random(n) < share
            stock = rng.integers(1, 4, size=n)
            for i in np.flatnonzero(has):
                proofs[i][kind] = int(stock[i]) if kind == "stock" else "2099-01-01T00:00:00Z"
        return proofs


def decision_id(world: str, seed: int, i: int) -> uuid.UUID:
    """UUID of person number `i`'s decision in a world and seed: the same in every run, so that a retry is a retry."""
    return uuid.UUID(bytes=blake2b(f"{world}/{seed}/{i}".encode(), digest_size=16).digest(), version=4)
