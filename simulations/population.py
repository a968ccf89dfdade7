"""Population at one stage: people's latent kinds, what the app sees of them, and what they would do under every nudge.

Generative model (z persona, u user effect, y features, a arm, t days, F fatigue, T how far a harvester is trained):

    numbers | z      logit of the position in the declared range ~ N(μ_z, s²[(1 − r)I + r11'])
    booleans | z     Bernoulli;  categories | z  Categorical
    dwell | z        logit of the position ~ N(0.3 − 0.35 I_z, 0.6²);  back-tracks | z ~ Poisson(e^(0.4 − 0.45 I_z))
    u                N(0, 1), for life
    logit P(reward | z, u, y, a) = α + I_z + s_u u + ρ sin(2πt/7) − tires·F − pulled
                                   + 1{a ≠ none}·nov(t)·e^(−dulls·F)·(e_{z,a} + b_a·y + drift_a(t))
                                   − 1{a is no coupon}·depth·T
    delay | a        Weibull of a stated mean; a reward counts if it comes within the attribution window

α makes the mean over z and u equal to the base rate at t = F = T = 0. Given what can be seen, the value of an arm is
exact: P(z | y) by Bayes over the densities above, E_u by 21-point Gauss–Hermite quadrature, P(delay ≤ window) in closed
form. The truth of a person is a fixed function of (person, situation, y, arm); batch-mates do not matter.

Shapes: n people, Z personas, k arms, f declared features, d columns of x. Money is in the app's currency.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from bandit import features
from bandit.arrays import Array
from bandit.belief import X_GRID
from bandit.catalogue.model import Feature, Stage
from bandit.catalogue.net_value import arm_worth
from simulations.scenario import EffectDrift, FurtherStage, Scenario, check

Kinds = NDArray[np.intp]  # (n,) persona of each person

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_EDGE, _CELLS = 24.0, 1 << 17  # of the table of E_u σ: linear between points is within 2e-9 of the quadrature
_DWELL_SD = 0.6
_DAY = 86400.0


class VisitSituation(NamedTuple):
    """The situation that n visits find. `day`: days since launch; the rest (n,): `fatigue` F, `trained` T of harvesters
    in [0, 1], `pulled` logits that were brought forward.
    """

    day: float
    fatigue: Array
    trained: Array
    pulled: Array

    @staticmethod
    def first(n: int) -> "VisitSituation":
        """The situation of n people who were never here, on the first day: everything is 0."""
        return VisitSituation(0.0, np.zeros(n), np.zeros(n), np.zeros(n))

    def at(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "VisitSituation":
        """The situation of some of the people, by numbers, a mask (n,) or a slice."""
        return VisitSituation(self.day, self.fatigue[rows], self.trained[rows], self.pulled[rows])


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
        self.amount = leg.amount if leg else 1.0
        self._law = _FeatureLaw(scenario, stage, leg if not rich else None)
        self.average = _averaging(scenario.user_sd)
        base = scenario.base if rich or leg is None or leg.base is None else leg.base
        self.level = self._level(base)
        effects = [p.effects for p in personas] if rich else _by_persona(leg, len(personas))
        self.effects = np.array([[0.0, *(e[n] for n in stage.nudges)] for e in effects])  # (Z, k)
        slopes = scenario.slopes if rich else {}
        rows = [[0.0] * len(stage.features)]
        rows += [[slopes.get(n, {}).get(f, 0.0) for f in stage.features] for n in stage.nudges]
        self._slopes = np.array(rows)  # (k, f)
        self._shift, self._slope = _encoding(stage.features)
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
        columns = [np.ones((len(position), 1))]
        for j, feature in enumerate(self.stage.features.values()):
            at = position[:, j : j + 1]
            if feature.type == "category":
                columns.append((at == np.arange(len(feature.values))).astype(np.float64))
            else:
                columns.append(2.0 * at - 1.0 if feature.type == "number" else at)
        columns.append(np.zeros((len(position), len(self.stage.features))))
        return np.asarray(np.rint(np.concatenate(columns, axis=1) * X_GRID) / X_GRID)

    def contexts(self, position: Array) -> list[dict[str, Any]]:
        """The n contexts that the app would send for positions (n, f): {feature: value}, in the feature's own units."""
        columns = [_feature_values(f, position[:, j]) for j, f in enumerate(self.stage.features.values())]
        names = tuple(self.stage.features)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def score(self, z: int | Kinds, position: Array, situation: VisitSituation) -> Array:
        """The logits of a reward (n, k), without the user effect, for n people of persona `z` (a number for all or
        (n,)) with features `position` (n, f).
        """
        s = self.scenario
        tired = situation.fatigue[:, None]
        own = self.effects[z] + self._slope_effects(position) + self.moved(situation.day)
        own[:, 0] = 0.0
        base = self.level[z] + s.season * math.sin(2.0 * math.pi * situation.day / 7.0)
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

    def _slope_effects(self, position: Array) -> Array:
        return np.asarray((position * self._slope - self._shift) @ self._slopes.T)

    def _level(self, base: float) -> Array:
        def excess(a: float) -> float:
            return float(self.weights @ self.average(a + self.intents)) - base

        return np.asarray(optimize.brentq(excess, -20.0, 20.0) + self.intents)


class _FeatureLaw:
    """Law of the features given the persona: draws them from noise, and computes their likelihood."""

    def __init__(self, scenario: Scenario, stage: Stage, leg: FurtherStage | None):
        signals = scenario.hesitation if leg is None else {}
        kinds = {name: f.type for name, f in stage.features.items()}
        self._columns = list(kinds)
        special_ = set(signals.values())
        self._numbers = [j for j, n in enumerate(kinds) if kinds[n] == "number" and n not in special_]
        self._booleans = [j for j, n in enumerate(kinds) if kinds[n] == "boolean"]
        self._categories = [j for j, n in enumerate(kinds) if kinds[n] == "category"]
        self._dwell = self._columns.index(signals["dwell"]) if "dwell" in signals else None
        self._tracks = self._columns.index(signals["back_tracks"]) if "back_tracks" in signals else None
        given = [_declared_features(scenario, leg, z) for z in range(len(scenario.personas))]
        self._median = special.logit(_table(given, self._columns, self._numbers))  # (Z, numbers)
        self._true = _table(given, self._columns, self._booleans)  # (Z, booleans)
        values = list(stage.features.values())
        self._share = {j: np.array([_category_shares(g.get(self._columns[j], {}), values[j]) for g in given])
                       for j in self._categories}  # fmt: skip
        intents = np.array([p.intent for p in scenario.personas.values()])
        self._dwells = 0.3 - 0.35 * intents
        self._spread, self._shared = scenario.spread, scenario.correlation
        if self._tracks is not None:
            self._count, self._count_at = _count_law(np.exp(0.4 - 0.45 * intents), values[self._tracks])
        m = len(self._numbers)
        covariance = self._spread**2 * ((1.0 - self._shared) * np.eye(m) + self._shared)
        self._precision = np.linalg.inv(covariance) if m else np.zeros((0, 0))

    def draw(self, persona: Kinds, normal: Array, uniform: Array) -> Array:
        """Each feature has its own columns of the noise, so that stages can share one matrix of it."""
        position = np.empty((len(persona), len(self._columns)))
        own, common = math.sqrt(1.0 - self._shared), math.sqrt(self._shared)
        noise = own * normal[:, [2 + j for j in self._numbers]] + common * normal[:, :1]
        position[:, self._numbers] = special.expit(self._median[persona] + self._spread * noise)
        position[:, self._booleans] = uniform[:, self._booleans] < self._true[persona]
        for j in self._categories:
            edges = np.cumsum(self._share[j], axis=1)[persona, :-1]
            position[:, j] = (uniform[:, j : j + 1] > edges).sum(axis=1)
        if self._dwell is not None:
            position[:, self._dwell] = special.expit(self._dwells[persona] + _DWELL_SD * normal[:, 1])
        if self._tracks is not None:
            below = np.cumsum(self._count, axis=1)[persona, :-1]
            position[:, self._tracks] = self._count_at[(uniform[:, self._tracks, None] > below).sum(axis=1)]
        return position

    def loglik(self, position: Array) -> Array:
        """log density of y given each persona, (n, Z), up to what all personas share."""
        y = special.logit(position[:, self._numbers])
        pull = self._median @ self._precision
        logs = y @ pull.T - 0.5 * np.einsum("zm,zm->z", pull, self._median)
        odds, never = special.logit(self._true), np.log1p(-self._true).sum(axis=1)
        logs = logs + position[:, self._booleans] @ odds.T + never
        for j in self._categories:
            logs += np.log(self._share[j])[:, position[:, j].astype(np.intp)].T
        if self._dwell is not None:
            seen = special.logit(position[:, self._dwell])[:, None]
            logs += (seen * self._dwells - 0.5 * self._dwells**2) / _DWELL_SD**2
        if self._tracks is not None:
            count = np.searchsorted(self._count_at, position[:, self._tracks] - 1e-9)
            logs += np.log(self._count)[:, count].T
        return np.asarray(logs)


def drift_paths(drift: EffectDrift, k: int, days: int) -> Array:
    """Drift paths: where each arm's effect is on days 0 … `days`, (days + 1, k) logits; no nudge stays at 0. A function
    of the drift's own `number`, so that it is the same world for every seed of a run.
    """
    noise = np.random.default_rng([drift.number, 7]).normal(0.0, drift.sd, (days + 1, k))
    path = np.zeros((days + 1, k))
    if drift.kind == "redraw":
        path[int(drift.day) :] = noise[0]
    elif drift.kind == "ou":
        keep = 0.5 ** (1.0 / drift.half_life_days)
        for day in range(days + 1):
            path[day] = keep * path[day - 1] + math.sqrt(1.0 - keep**2) * noise[day] if day else 0.0
    path[:, 0] = 0.0
    return path


def quadrature(s: Array, sd: float) -> Array:
    """E σ(s + sd·u), u ~ N(0, 1), by 21-point Gauss–Hermite; the shape of `s`, which are logits."""
    weights = _WEIGHTS / _WEIGHTS.sum()
    return np.asarray(sum(w * special.expit(s + sd * node) for w, node in zip(weights, _NODES, strict=True)))


def _averaging(sd: float) -> Callable[[Array], Array]:
    """The quadrature as a function: σ itself where sd is 0, else a table, linear between its points."""
    if sd == 0.0:
        return lambda s: np.asarray(special.expit(s))
    step, (table, rise) = 2.0 * _EDGE / _CELLS, _quadrature_table(sd)

    def average(s: Array) -> Array:
        place = np.clip((s + _EDGE) / step, 0.0, _CELLS - 1e-6)
        cell = place.astype(np.intp)
        return np.asarray(table[cell] + (place - cell) * rise[cell])

    return average


@lru_cache(maxsize=64)
def _quadrature_table(sd: float) -> tuple[Array, Array]:
    """The quadrature at every point of the table, and the rise from each point to the next."""
    table = quadrature(np.linspace(-_EDGE, _EDGE, _CELLS + 1), sd)
    return table, np.diff(table)


def _by_persona(leg: FurtherStage | None, personas: int) -> list[dict[str, float]]:
    return [{name: values[z] for name, values in leg.effects.items()} if leg else {} for z in range(personas)]


def _declared_features(scenario: Scenario, leg: FurtherStage | None, z: int) -> dict[str, Any]:
    """What persona number z declares of each feature of the stage, {feature: parameter}."""
    if leg is None:
        return dict(list(scenario.personas.values())[z].features)
    return {name: values[z] for name, values in leg.features.items()}


def _table(given: list[dict[str, Any]], columns: list[str], at: list[int]) -> Array:
    values = [[float(g.get(columns[j], 0.5)) for j in at] for g in given]
    return np.clip(np.array(values, dtype=np.float64).reshape(len(given), len(at)), 1e-6, 1.0 - 1e-6)


def _category_shares(share: Any, feature: Feature) -> list[float]:
    """P(value) in declared order; what a persona leaves out is shared equally among the values it does not name."""
    named = dict(share)
    rest = (1.0 - sum(named.values())) / max(1, len(feature.values) - len(named))
    return [max(float(named.get(v, rest)), 1e-12) for v in feature.values]


def _count_law(mean: Array, feature: Feature) -> tuple[Array, Array]:
    """P(count | z) (Z, counts), what is beyond the declared range at its end; and the position of each count."""
    span = float(feature.max or 0.0) - float(feature.min or 0.0)
    count = np.arange(min(int(span), 40) + 1)
    p: Array = np.asarray(stats.poisson.pmf(count, mean[:, None]), dtype=np.float64)
    p[:, -1] += np.maximum(1.0 - p.sum(axis=1), 0.0)
    return p, np.log1p(count) / math.log1p(span) if feature.scale == "log" else count / span


def _encoding(declared: dict[str, Feature]) -> tuple[Array, Array]:
    """(shift, slope) that make an encoded number of a position: 2p − 1, a boolean as it is, a category nothing."""
    number = np.array([f.type == "number" for f in declared.values()])
    numeric = np.array([f.type != "category" for f in declared.values()])
    return number.astype(np.float64), np.where(number, 2.0, 1.0) * numeric


def _feature_values(feature: Feature, position: Array) -> list[Any]:
    """What the app would send for these positions."""
    if feature.type == "category":
        return [feature.values[int(v)] for v in position]
    if feature.type == "boolean":
        return [bool(v) for v in position]
    low, high = float(feature.min or 0.0), float(feature.max or 0.0)
    if feature.scale == "log":
        return list(low + np.expm1(position * math.log1p(high - low)))
    return list(low + position * (high - low))


def columns(stage: Stage) -> int:
    """d, the number of columns of x at a stage, the constant included."""
    return len(features.schema(stage.features).columns)
