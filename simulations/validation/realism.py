"""Realism: are simulated sessions like real ones? A classifier two-sample test (Lopez-Paz & Oquab 2017) on shop
sessions.

The real ones: UCI online shoppers purchasing intention (Sakar et al. 2019), 12,330 sessions: product pages, seconds on
them, returning or not, bought or not. Sessions without any time on a product are left out: the simulator begins at a
visit. Its law of a visit, with two personas, is fitted to half of them by the method of moments; a classifier that sees
squares and products is trained to tell the other half from simulated sessions. Its area under the ROC curve on sessions
that it has not seen says how well it can: 0.5 is not at all.

Shapes: n sessions; a session is (log pages, log seconds, returning, bought), logs of 1 + the number.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from bandit.arrays import Array
from bandit.catalogue.model import Feature, Reward, Stage
from bandit.policies import Uniform
from bandit.tables import cells, reader
from bandit.tables.reader import Table
from simulations.population import Population
from simulations.scenario import Persona, Scenario
from simulations.visits import VisitSituation

_COLUMNS = ("ProductRelated", "ProductRelated_Duration", "VisitorType", "Revenue")
_EAGER, _BUYS = 0.25, 0.5  # share of the persona that buys, and how often it does: assumed
_FOLDS = 5
_LEAST = 0.02  # positions are kept this far from the ends of their range
_REACH = np.array([1.3, 1.0])  # log range of pages and seconds over the largest seen: makes their spreads alike


class TwoSampleTest(NamedTuple):
    """Result of the two-sample test on `real` sessions. `auc`: of telling them from simulated ones; `shuffled`: from
    real ones whose columns were permuted, which shows what the test would detect. Both in [0, 1], 0.5 is chance.
    """

    real: int
    auc: float
    shuffled: float


def read(file: Path) -> Array:
    """Sessions (n, 4) of the UCI table, see `bandit.tables.reader`. Raises InvalidRequest if it is another table or has
    a bad cell.
    """
    table = reader.read(str(file), lambda: file.open("rb"))
    missing = [c for c in _COLUMNS if c not in table.names]
    if missing:
        raise reader.refused(table.name, f"it has no column {missing[0]}", "the UCI online shoppers table")
    pages, seconds, kind, bought = (_column(table, name) for name in _COLUMNS)
    sessions = np.column_stack([np.log1p(pages), np.log1p(np.maximum(seconds, 0.0)), kind, bought])
    return np.asarray(sessions[sessions[:, 1] > 0.0], dtype=np.float64)


def _column(table: Table, name: str) -> Array:
    """One column of the table as numbers (n,): returning visitors and true are 1. Raises InvalidRequest for a bad
    cell.
    """
    rows, j = list(table.rows()), table.place(name)
    found = [row.cells[j] for row in rows]
    if name == "VisitorType":
        return np.array([float(cell.startswith("Returning")) for cell in found])
    numbers, bad = cells.numbers(found, table.marks[j], words=name == "Revenue")
    wrong = sorted({*bad, *np.flatnonzero(~np.isfinite(numbers)).tolist()})
    if wrong:
        raise reader.refused(table.at(rows[wrong[0]], name), f"{found[wrong[0]]!r} is not a number", "a number")
    return numbers


def two_sample(real: Array, seed: int = 0) -> TwoSampleTest:
    """The two-sample test: fit the simulator to a random half of `real` (n, 4), then tell the other half from as many
    simulated sessions. `seed` decides the halves, the sessions and the folds.
    """
    order = np.random.default_rng(seed).permutation(len(real))
    half = len(real) // 2
    seen, kept = real[order[:half]], real[order[half:]]
    made = fit_shop(seen)
    fresh = simulated_sessions(made, len(kept), seed)
    alone = kept[np.random.default_rng([seed, 2]).integers(0, len(kept), len(kept))]
    shuffled = np.column_stack([np.random.default_rng([seed, j]).permutation(alone[:, j]) for j in range(4)])
    return TwoSampleTest(len(kept), auc(kept, fresh, seed), auc(kept, shuffled, seed))


def fit_shop(sessions: Array) -> Population:
    """Population of a shop with two personas, fitted to sessions (n, 4) by the method of moments: medians from the
    means of buyers and of others, spread and correlation from the rest.
    """
    bought = sessions[:, 3].mean()
    others = (bought - _EAGER * _BUYS) / (1.0 - _EAGER)
    among = np.array([[_EAGER * _BUYS, (1 - _EAGER) * others], [_EAGER * (1 - _BUYS), (1 - _EAGER) * (1 - others)]])
    among /= among.sum(axis=1, keepdims=True)  # P(persona | bought or not)
    reach = _REACH * sessions[:, :2].max(axis=0)
    position = special.logit(np.clip(sessions[:, :2] / reach, _LEAST, 1.0 - _LEAST))
    seen = np.column_stack([position, sessions[:, 2]])
    means = np.array([seen[sessions[:, 3] == y].mean(axis=0) for y in (1.0, 0.0)])
    kinds = np.linalg.solve(among, means)  # (persona, feature)
    weights = np.array([_EAGER, 1.0 - _EAGER])
    between = np.einsum("z,zi,zj->ij", weights, kinds[:, :2], kinds[:, :2])
    between -= np.outer(weights @ kinds[:, :2], weights @ kinds[:, :2])
    within = np.cov(position.T) - between
    spread = float(np.sqrt(np.diag(within).mean()))
    correlation = float(np.clip(within[0, 1] / spread**2, 0.0, 0.99))
    rates = special.logit([_BUYS, max(others, 1e-3)])
    shop = Scenario(
        app="shop",
        stage="browsing",
        base=float(bought),
        spread=spread,
        correlation=correlation,
        personas={n: _persona(weights[z], rates[z], kinds[z]) for z, n in enumerate(("eager", "others"))},
        delay_hours={"none": 0.01},
    )
    return Population(shop, _stage(np.expm1(reach)))


def _persona(weight: float, intent: float, kind: Array) -> Persona:
    """A persona of the fitted shop. `kind` (3,): mean logits of pages and seconds, and the share who return."""
    pages, seconds = (float(v) for v in special.expit(kind[:2]))
    features = {"pages": pages, "seconds": seconds, "returning": float(np.clip(kind[2], 0.01, 0.99))}
    return Persona(weight=float(weight), intent=float(intent), effects={}, features={**features})


def simulated_sessions(made: Population, n: int, seed: int) -> Array:
    """n simulated sessions of a fitted shop, (n, 4), without a nudge; numbers of pages are whole."""
    rng = np.random.default_rng([seed, 1])
    persona = rng.choice(2, size=n, p=made.weights)
    position = made.positions(persona, rng.standard_normal((n, made.normals)), rng.random((n, made.uniforms)))
    own = made.chance(persona, np.zeros(n), position, VisitSituation.first(n))[:, 0]
    logs = position[:, :2] * [math.log1p(float(made.stage.features[name].max or 0)) for name in ("pages", "seconds")]
    pages = np.log1p(np.rint(np.expm1(logs[:, 0])))
    return np.column_stack([pages, logs[:, 1], position[:, 2], rng.random(n) < own])


def auc(left: Array, right: Array, seed: int = 0) -> float:
    """Area under the ROC curve, in [0, 1], of telling sessions `left` from `right` (n, 4 each) by a logistic regression
    with squares and products, over five folds that it has not seen.
    """
    x, y = _terms(np.concatenate([left, right])), np.repeat([1.0, 0.0], [len(left), len(right)])
    fold = np.random.default_rng([seed, 3]).integers(0, _FOLDS, len(y))
    score = np.zeros(len(y))
    for f in range(_FOLDS):
        score[fold == f] = x[fold == f] @ _logistic(x[fold != f], y[fold != f])
    ranks = stats.rankdata(score)
    positive = float(y.sum())
    return float((ranks[y == 1.0].sum() - positive * (positive + 1.0) / 2.0) / (positive * (len(y) - positive)))


def _terms(sessions: Array) -> Array:
    """Standardised columns, their squares and products, and 1."""
    z = (sessions - sessions.mean(axis=0)) / sessions.std(axis=0)
    i, j = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, i] * z[:, j]], axis=1)


def _logistic(x: Array, y: Array) -> Array:
    def loss(beta: Array) -> tuple[float, Array]:
        z = x @ beta
        value = np.logaddexp(0.0, z).sum() - y @ z + 0.5 * beta @ beta
        return float(value), np.asarray(x.T @ (special.expit(z) - y) + beta)

    found = optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64)


def _stage(top: Array) -> Stage:
    """Stage of the fitted shop, with features up to `top` (2,): pages and seconds."""
    pages, seconds = (
        Feature(type="number", min=0.0, max=float(value), default=0.0, scale="log") for value in np.asarray(top)
    )
    known = {"pages": pages, "seconds": seconds, "returning": Feature(type="boolean", default=False)}
    return Stage(features=known, nudges={}, reward=Reward(kind="binary", window="24h"), policy=Uniform())
