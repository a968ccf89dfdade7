"""Dynamic programme of the long run: what nudging now costs later, over (visits left, fatigue).

A user has `visits` visits, with contexts and gaps drawn independently. V_s(F) is the best expected net value of the
last s of them:

    V_s(F) = E_y max{ U_0(y, F) + C_s(F),  max_{a ≠ none} U_a(y, F) + N_s(F) }
    C_s(F) = E_Δ V_{s−1}(keeps^Δ F)
    N_s(F) = (1 − h) E_Δ V_{s−1}(keeps^Δ (F + 1)) + h (1 − leaves) E_Δ V⁰_{s−1}(keeps^Δ (F + 1)),  h = σ(opt_out + F)

V⁰ is the value without any more nudges. A *price* η for every nudge, constant, replaces the second bracket's future:
nudge where max_a U_a − η > U_0. The shadow price is the η of the largest value. Contexts are a fixed sample, the gap
has 21 Gauss–Hermite nodes, F a grid, linear between its points. Novelty, drift, season and coupons stand still.

Shapes: m contexts, G points of the grid of F, 21 gaps. Money is in the app's currency.
"""

from typing import NamedTuple

import numpy as np

from bandit.arrays import Array
from simulations.population import Population
from simulations.scenario import Scenario
from simulations.visits import VisitSituation

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_GRID = 36


class LongRunValue(NamedTuple):
    """Expected net value of a new user's visits, in currency: with no nudge, with the myopic choice, with the best
    policy, and with the best constant price. `price` is the shadow price η; `by_price` are (η, value).
    """

    none: float  # never a nudge
    myopic: float
    best: float
    price: float
    priced: float  # at the shadow price
    by_price: tuple[tuple[float, float], ...]

    @property
    def share(self) -> float:
        """Share of the best policy's gain over no nudge that a constant price brings; 1 where there is no gain."""
        return (self.priced - self.none) / (self.best - self.none) if self.best > self.none else 1.0


class PlanningProblem(NamedTuple):
    """Input of the recursion. `grid` (G,) of F; `still` and `nudge` are U_0 and max U_a in currency, (m, G); `decays`
    keeps^Δ and their `weights`, (21,) at the nodes of the gap.
    """

    scenario: Scenario
    grid: Array
    still: Array
    nudge: Array
    decays: Array  # keeps^Δ at the nodes of the gap
    weights: Array

    def later(self, value: Array, fatigue: Array) -> Array:
        """E_Δ V(keeps^Δ F): expected value at the next visit, in the shape of `fatigue`; `value` (G,) is V on the
        grid.
        """
        at = np.interp(np.multiply.outer(self.decays, fatigue), self.grid, value)
        return np.asarray(np.tensordot(self.weights, at, axes=1))


def problem(scenario: Scenario, people: Population, contexts: int = 4000, seed: int = 0) -> PlanningProblem:
    """The planning problem of a population: `contexts` first visits drawn with `seed`, with the proofs that the app
    then has; a nudge whose claim cannot be proven may not be shown.
    """
    rng = np.random.default_rng(seed)
    persona = rng.choice(len(people.weights), size=contexts, p=people.weights)
    normal, uniform = rng.standard_normal((contexts, people.normals)), rng.random((contexts, people.uniforms))
    position = people.positions(persona, normal, uniform)
    may = np.ones((contexts, len(people.stage.arms)), dtype=bool)
    for a, nudge in enumerate(people.stage.nudges.values(), 1):
        if nudge.evidence:
            may[:, a] = rng.random(contexts) < people.proof(nudge.evidence.kind)
    gaps = np.maximum(scenario.visits.gap_days * np.exp(scenario.visits.gap_sd * _NODES), 1.0)
    top = 1.0 / (1.0 - scenario.fatigue.keeps) if scenario.fatigue.keeps < 1.0 else 60.0
    grid = top * np.linspace(0.0, 1.0, _GRID) ** 1.5
    still, nudge_ = [], []
    for f in grid:
        found = VisitSituation(0.0, np.full(contexts, f), np.zeros(contexts), np.zeros(contexts))
        worth = people.utility(people.rate(position, found))
        still.append(worth[:, 0])
        nudge_.append(np.where(may, worth, -np.inf)[:, 1:].max(axis=1))
    decays = scenario.fatigue.keeps**gaps
    return PlanningProblem(scenario, grid, np.array(still).T, np.array(nudge_).T, decays, _WEIGHTS / _WEIGHTS.sum())


def solve(given: PlanningProblem, visits: int = 10) -> LongRunValue:
    """Long-run values of no nudge, of the myopic choice, of the best policy and of the best constant price out of 61,
    for a user with so many visits.
    """
    top = float(np.ptp(given.nudge[np.isfinite(given.nudge)])) * 0.15 + 1e-6
    prices = [float(p) for p in np.linspace(0.0, top, 61)]
    values = [(price, value(given, visits, price)) for price in prices]
    price, priced = max(values, key=lambda pair: pair[1])
    return LongRunValue(
        none=value(given, visits, np.inf),
        myopic=values[0][1],
        best=value(given, visits, None),
        price=price,
        priced=priced,
        by_price=tuple(values),
    )


def value(given: PlanningProblem, visits: int, price: float | None) -> float:
    """V_visits(0), in currency, of the policy that nudges where max U_a − price > U_0. A price of None is the best
    policy, ∞ is no nudge, 0 the myopic choice.
    """
    tired, grid = given.scenario.fatigue, given.grid
    hazard = 1.0 / (1.0 + np.exp(-(tired.opt_out + grid)))
    now, never = np.zeros(len(grid)), np.zeros(len(grid))
    for _ in range(visits):
        stay = given.later(now, grid)
        kept = (1.0 - hazard) * given.later(now, grid + 1.0)
        nudged = kept + hazard * (1.0 - tired.leaves) * given.later(never, grid + 1.0)
        never = given.still.mean(axis=0) + given.later(never, grid)
        left, right = given.still + stay, given.nudge + nudged
        better = right > left if price is None else given.nudge - price > given.still
        now = np.where(better, right, left).mean(axis=0)
    return float(now[0])


def longrun(scenario: Scenario, people: Population, visits: int = 10) -> LongRunValue:
    """Long-run values of a scenario's rich stage: `solve` of its `problem`. Called by `journey-bandit simulate fatigue`
    on the shipped scenarios.
    """
    return solve(problem(scenario, people), visits)
