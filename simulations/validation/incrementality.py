"""Incrementality of one nudge given to everyone, taken apart: who buys more because of it, and who gets for free what
they bought anyway.

Exact expected values of first visits, by persona. For an arm a with margin M, cost c per reward and s per showing:

    U_a − U_0 = M (p_a − p_0)  −  c·min(p_0, p_a)  −  c·(p_a − p_0)⁺  −  s
                 won              given to sure       given to the won    shown
"""

from typing import NamedTuple

import numpy as np

from bandit.arrays import Array
from simulations.population import Population
from simulations.visits import VisitSituation

SAMPLE = 100_000


class IncrementalPart(NamedTuple):
    """Parts of a nudge's net value for one persona, means per person, in the app's currency. `weight`: the persona's
    share of people; rates are in [0, 1].
    """

    persona: str
    weight: float
    rate: float  # reward rate without a nudge
    lifted: float  # … with it
    won: float  # margin of rewards that the nudge brought
    sure: float  # cost of the nudge for rewards that would have come anyway
    others: float  # … for those it brought
    shown: float  # cost of showing it

    @property
    def net(self) -> float:
        """Net value U_a − U_0 of the nudge per person, in currency."""
        return self.won - self.sure - self.others - self.shown


def incremental_parts(people: Population, arm: str, seed: int = 0) -> list[IncrementalPart]:
    """The parts of each persona, and last those of everybody, for the nudge `arm`, by 100,000 contexts for each
    persona. Raises ValueError if the stage has no such arm.
    """
    a = people.stage.arms.index(arm)
    margin = people.stage.reward.value * people.amount
    cost = margin - float(people.worth.gain[a]) * people.amount
    rng, parts = np.random.default_rng(seed), []
    for z, name in enumerate(people.personas):
        persona = np.full(SAMPLE, z)
        normal, uniform = rng.standard_normal((SAMPLE, people.normals)), rng.random((SAMPLE, people.uniforms))
        position = people.positions(persona, normal, uniform)
        score = people.score(z, position, VisitSituation.first(SAMPLE))
        p = people.average(score) * people.within
        parts.append(
            _persona_part(name, float(people.weights[z]), p[:, 0], p[:, a], margin, cost, float(people.worth.cost[a]))
        )
    return [*parts, _everybody(parts)]


def _persona_part(
    name: str, weight: float, p0: Array, pa: Array, margin: float, cost: float, shown: float
) -> IncrementalPart:
    return IncrementalPart(
        persona=name,
        weight=weight,
        rate=float(p0.mean()),
        lifted=float(pa.mean()),
        won=margin * float((pa - p0).mean()),
        sure=cost * float(np.minimum(p0, pa).mean()),
        others=cost * float(np.maximum(pa - p0, 0.0).mean()),
        shown=shown,
    )


def _everybody(parts: list[IncrementalPart]) -> IncrementalPart:
    weight = np.array([p.weight for p in parts])
    means = {f: float(weight @ np.array([getattr(p, f) for p in parts])) for f in IncrementalPart._fields[2:]}
    return IncrementalPart(persona="everybody", weight=1.0, **means)
