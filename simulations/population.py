"""Population at one stage: people's latent kinds, what the app sees of them, and what they would do under every nudge.

Generative model (z persona, u user effect, y features, a arm, t days, F fatigue, T how far a harvester is trained):

    numbers | z      logit of the position in the declared range ~ N(μ_z, s²[(1 − r)I + r11'])
    booleans | z     Bernoulli;  categories | z  Categorical
    dwell | z        logit of the position ~ N(0.3 − 0.35 I_z, 0.6²);  back-tracks | z ~ Poisson(e^(0.4 − 0.45 I_z))
    u                N(0, 1), for life
    logit P(reward | z, u, y, a) = α + I_z + s_u u + b_0·y + ρ sin(2πt/7) − tires·F − pulled
                                   + 1{a ≠ none}·nov(t)·e^(−dulls·F)·(e_{z,a} + b_a·y + drift_a(t))
                                   − 1{a is no coupon}·depth·T
    delay | a        Weibull of a stated mean; a reward counts if it comes within the attribution window

α makes the mean over z and u equal to the base rate at t = F = T = 0 and b_0·y = 0. Given what can be seen, the value
of an arm is exact: P(z | y) by Bayes over the densities above, E_u by 21-point Gauss–Hermite quadrature, P(delay ≤
window) in closed form. The truth of a person is a fixed function of (person, situation, y, arm); batch-mates do not
matter.

Shapes: n people, Z personas, k arms, f declared features, d columns of x. Money is in the app's currency.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

from bandit.arrays import Array
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import arm_worth
from simulations import feature_values
from simulations.effect_drift import drift_paths
from simulations.feature_law import FeatureLaw
from simulations.quadrature import averaging
from simulations.scenario import FurtherStage, Scenario, Slopes, check
from simulations.visits import Kinds, VisitSituation


class Population:
    """The people at one stage of a scenario: the generative model of the module, its samples and its exact truth.

    `name`: the stage, by default the scenario's rich one. Public arrays: `weights` (Z,) and `intents` (Z,) of personas,
    `level` (Z,) logits of the reward without a nudge, `effects` (Z, k) in logits, `coupon` (k,) a mask, `within` (k,)
    P(delay ≤ window). `worth`: the net worth of a reward by arm, in currency.

    Guarantees: all methods are functions of their arguments, draw nothing themselves and leave arguments untouched, so
    all policies face the same people. Raises CatalogueError if the scenario does not fit the stage (see
    `scenario.check`).

        people = Population(load("fashion"), catalogue.stage("browsing"))
        people.utility(people.rate(position, VisitSituation.first(len(position))))  # (n, k)
    """

    def __init__(self, scenario: Scenario, stage: Stage, name: str | None = None):
        self.scenario, self.stage, self.name = scenario, stage, name or scenario.stage
        leg = scenario.journey.get(self.name)
        rich = self.name == scenario.stage
        if rich:
            check(scenario, stage)
        personas = list(scenario.personas.values())
        self.personas = tuple(scenario.personas)
        self.weights = np.array([p.weight for p in personas])  # (Z,)
        self.intents = np.array([p.intent for p in personas])  # (Z,)
        self.coupon = np.array([a in scenario.coupons.arms if rich else False for a in stage.arms])  # (k,)
        self.amount = leg.amount if leg else scenario.amount
        self._law = FeatureLaw(scenario, stage, leg if not rich else None)
        self.average = averaging(scenario.user_sd)
        base = scenario.base if rich or leg is None or leg.base is None else leg.base
        self.level = self._level(base)
        effects = [p.effects for p in personas] if rich else _by_persona(leg, len(personas))
        self.effects = np.array([[0.0, *(e[n] for n in stage.nudges)] for e in effects])  # (Z, k)
        base_slopes, slopes = (
            (scenario.base_slopes, scenario.slopes) if rich or leg is None else (leg.base_slopes, leg.slopes)
        )
        self._sloped = _Slopes(stage, [base_slopes, *(slopes.get(n, {}) for n in stage.nudges)])
        shape = {a: scenario.delay_shape.get(a, 1.0) if rich else 1.0 for a in stage.arms}
        self._shape = np.array([shape[a] for a in stage.arms])
        mean = [scenario.delay_hours[a] if rich or leg is None else leg.delay_hours for a in stage.arms]
        self._scale = 3600.0 * np.array(mean) / special.gamma(1.0 + 1.0 / self._shape)
        self.within = self.delayed(stage.reward.seconds)  # (k,) P(the delay is within the window)
        self.worth = arm_worth(stage.reward.value, stage.nudges.values())
        self._proof = scenario.proof if rich or leg is None else leg.proof
        self._moved = drift_paths(scenario.drift, len(stage.arms), 0)

    @property
    def normals(self) -> int:
        """How many standard normal numbers the features of one visit are made of."""
        return 2 + len(self.stage.features)

    @property
    def uniforms(self) -> int:
        """How many uniform numbers in [0, 1) the features of one visit are made of."""
        return len(self.stage.features)

    def positions(self, persona: Kinds, normal: Array, uniform: Array) -> Array:
        """Features of n visits as positions, (n, f): of a number its position in the declared range, 0 to 1; of a
        boolean 0 or 1; of a category its index.

        `persona` (n,), `normal` (n, `normals`), `uniform` (n, `uniforms`). Equal noise gives equal features.
        """
        return self._law.draw(persona, normal, uniform)

    def posterior(self, position: Array) -> Array:
        """P(z | y), (n, Z), by Bayes over the generating densities, for people who come the first time. `position`: (n,
        f).
        """
        return np.asarray(special.softmax(self._law.loglik(position) + np.log(self.weights), axis=1))

    def x(self, position: Array) -> Array:
        """The encoded context x (n, d) of positions (n, f): bit for bit what `features.encode` makes of the same
        features, in one step.
        """
        return feature_values.encoded(self.stage.features, position)

    def contexts(self, position: Array) -> list[dict[str, Any]]:
        """The n contexts that the app would send for positions (n, f): {feature: value}, in the feature's own units."""
        return feature_values.contexts(self.stage.features, position)

    def score(self, z: int | Kinds, position: Array, situation: VisitSituation) -> Array:
        """The logits of a reward (n, k), without the user effect, for n people of persona `z` (a number for all or
        (n,)) with features `position` (n, f).
        """
        s = self.scenario
        tired = situation.fatigue[:, None]
        sloped = self._sloped.logits(position)
        own = self.effects[z] + sloped + self.moved(situation.day)
        own[:, 0] = 0.0
        base = self.level[z] + sloped[:, 0] + s.season * math.sin(2.0 * math.pi * situation.day / 7.0)
        common = base - s.fatigue.tires * situation.fatigue - situation.pulled
        waits = s.coupons.depth * situation.trained[:, None] * ~self.coupon
        fresh = self.novelty(situation.day) * np.exp(-s.fatigue.dulls * tired)
        return np.asarray(common[:, None] + fresh * own - waits)

    def chance(self, z: Kinds, u: Array, position: Array, situation: VisitSituation) -> Array:
        """P(reward | z, u, y, a), (n, k), the delay left out: the truth of these very people. `z` and `u`: (n,),
        `position`: (n, f).
        """
        return np.asarray(special.expit(self.score(z, position, situation) + self.scenario.user_sd * u[:, None]))

    def rate(self, position: Array, situation: VisitSituation) -> Array:
        """Expected reward within the window given features (n, f) and the situation, (n, k), in the reward's units:
        what an ideal learner could know. Personas by Bayes, user effects by quadrature.
        """
        posterior, total = self.posterior(position), np.zeros((len(position), len(self.stage.arms)))
        for z in range(len(self.weights)):
            total += posterior[:, z : z + 1] * self.average(self.score(z, position, situation))
        return np.asarray(total * self.within * self.amount)

    def utility(self, rate: Array) -> Array:
        """Expected net value (n, k), in currency, of expected rewards `rate` (n, k): rewards times what is kept of
        them, less the cost of showing.
        """
        return self.worth.net(rate)

    def proof(self, kind: str) -> float:
        """P(the app can prove a claim of this kind, e.g. "stock"), in [0, 1]; 0 for kinds that the scenario does not
        name.
        """
        return self._proof.get(kind, 0.0)

    def delayed(self, seconds: float) -> Array:
        """P(delay ≤ `seconds` | a), (k,), by the Weibull law of each arm."""
        return np.asarray(-np.expm1(-((seconds / self._scale) ** self._shape)))

    def delay(self, uniform: Array) -> Array:
        """Seconds from decision to reward under every arm, (n, k), from one uniform number `uniform` (n,) for each
        person.
        """
        return np.asarray(self._scale * (-np.log1p(-uniform[:, None])) ** (1.0 / self._shape))

    def novelty(self, day: float) -> float:
        """Factor in [0, 1] that is left of effects `day` days after launch."""
        new = self.scenario.novelty
        return new.rest + (1.0 - new.rest) * math.exp(-day / new.days)

    def moved(self, day: float) -> Array:
        """Drift of each arm's effect on a day, (k,) logits; 0 for no nudge."""
        if int(day) >= len(self._moved):
            self._moved = drift_paths(self.scenario.drift, len(self.stage.arms), 2 * int(day) + 16)
        return np.asarray(self._moved[int(day)])

    def _level(self, base: float) -> Array:
        def excess(a: float) -> float:
            return float(self.weights @ self.average(a + self.intents)) - base

        return np.asarray(optimize.brentq(excess, -20.0, 20.0) + self.intents)


class _Slopes:
    """What features add: to the base, and to the effect of each nudge."""

    def __init__(self, stage: Stage, rows: Sequence[Slopes]):
        features = list(stage.features.items())
        numeric = [[0.0 if f.type == "category" else row.get(name, 0.0) for name, f in features] for row in rows]
        self._numeric = np.array(numeric, dtype=np.float64)  # (k, f)
        self._shift, self._slope = feature_values.shift_and_slope(stage.features)
        tables = {
            j: np.array([[_of_value(row.get(name), value) for row in rows] for value in f.values])
            for j, (name, f) in enumerate(features)
            if f.type == "category"
        }
        self._tables = {j: table for j, table in tables.items() if table.any()}  # (values, k) each

    def logits(self, position: Array) -> Array:
        """(n, k), that of the base in the place of no nudge."""
        added = (position * self._slope - self._shift) @ self._numeric.T
        for j, table in self._tables.items():
            added += table[position[:, j].astype(np.intp)]
        return np.asarray(added)


def _of_value(slope: float | dict[str, float] | None, value: str) -> float:
    return slope.get(value, 0.0) if isinstance(slope, dict) else 0.0


def _by_persona(leg: FurtherStage | None, personas: int) -> list[dict[str, float]]:
    return [{name: values[z] for name, values in leg.effects.items()} if leg else {} for z in range(personas)]
