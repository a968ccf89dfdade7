"""Law of the features given the persona: their draws from noise, and their likelihood.

    numbers | z      logit of the position in the declared range ~ N(μ_z, s²[(1 − r)I + r11'])
    booleans | z     Bernoulli;  categories | z  Categorical
    dwell | z        logit of the position ~ N(0.3 − 0.35 I_z, 0.6²);  back-tracks | z ~ Poisson(e^(0.4 − 0.45 I_z))

A scenario with contexts has the law of what was seen instead, whatever the persona: each row of them equally likely, or
as often as it was drawn with replacement (`Scenario.resample`).

Shapes: n people, Z personas, f declared features. Positions are those of `simulations.feature_values`.
"""

import math
from typing import Any

import numpy as np
from scipy import special

from bandit.arrays import Array
from bandit.catalogue.model import Feature, Stage
from simulations import feature_values
from simulations.scenario import FurtherStage, Scenario
from simulations.visits import Kinds

_DWELL_SD = 0.6


class FeatureLaw:
    """Law of the features of one stage given the persona, for a scenario; `leg`: the further stage, None for the rich
    one, which alone has signals of hesitation.
    """

    def __init__(self, scenario: Scenario, stage: Stage, leg: FurtherStage | None):
        self._seen = _seen(scenario, stage, leg)
        self._personas = len(scenario.personas)
        signals = scenario.hesitation if leg is None else {}
        kinds = {name: f.type for name, f in stage.features.items()}
        self._columns = list(kinds)
        special_ = set(signals.values())
        self._numbers = [j for j, n in enumerate(kinds) if kinds[n] == "number" and n not in special_]
        self._booleans = [j for j, n in enumerate(kinds) if kinds[n] == "boolean"]
        self._categories = [j for j, n in enumerate(kinds) if kinds[n] == "category"]
        self._dwell = self._columns.index(signals["dwell"]) if "dwell" in signals else None
        self._tracks = self._columns.index(signals["back_tracks"]) if "back_tracks" in signals else None
        given = [_declared_features(scenario, leg, z) for z in range(self._personas)]
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
        """Positions (n, f) of people of these personas (n,), from standard normal numbers (n, 2 + f) and uniform ones
        (n, f). Each feature has its own columns of the noise, so that stages can share one matrix of it.
        """
        if self._seen is not None:
            return self._seen[(uniform[:, 0] * len(self._seen)).astype(np.intp)]
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
        if self._seen is not None:
            return np.zeros((len(position), self._personas))
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


def _seen(scenario: Scenario, stage: Stage, leg: FurtherStage | None) -> Array | None:
    """Positions (rows, f) of the contexts that were seen, drawn again where the scenario says so; None without."""
    contexts = scenario.contexts if leg is None else leg.contexts
    if not contexts:
        return None
    rows = feature_values.positions(stage.features, contexts)
    if not scenario.resample:
        return rows
    return np.asarray(rows[np.random.default_rng([scenario.resample, 11]).integers(len(rows), size=len(rows))])


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
    rest = (1.0 - math.fsum(named.values())) / max(1, len(feature.values) - len(named))
    return [max(float(named.get(v, rest)), 1e-12) for v in feature.values]


def _count_law(mean: Array, feature: Feature) -> tuple[Array, Array]:
    """P(count | z) (Z, counts), what is beyond the declared range at its end; and the position of each count."""
    span = float(feature.max or 0.0) - float(feature.min or 0.0)
    count = np.arange(min(int(span), 40) + 1)
    rate = mean[:, None]
    p: Array = np.exp(special.xlogy(count, rate) - special.gammaln(count + 1) - rate)
    p[:, -1] += np.maximum(1.0 - p.sum(axis=1), 0.0)
    return p, np.log1p(count) / math.log1p(span) if feature.scale == "log" else count / span
