"""Peers for regret: other people's bandits as contestants, at their defaults and over a small grid. A package that is
absent is skipped. MABWiser and Vowpal Wabbit are those of `simulations.contenders.peers`.

They learn utility = gain · reward − cost, in units of the reward range, and pick among the arms that may be shown.
Where a library cannot predict before its first fit, its first batch at a stage is uniform.
"""

import functools
import importlib.util
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from benchmarks.comparison.environments import Stream
from benchmarks.comparison.harness import Actions, Agent, Make
from simulations.contenders.peers import MABWiser, VowpalWabbit
from simulations.contenders.protocol import utility

PACKAGES = {"MABWiser": "mabwiser", "Vowpal Wabbit": "vowpalwabbit"}


class DrawnVowpalWabbit(VowpalWabbit):
    """Vowpal Wabbit with arms drawn from its probabilities here."""

    def __init__(self, options: str, stream: Stream, seed: int, *, pooled: bool = False):
        super().__init__(options, stream, seed, pooled=pooled)
        self.rng = np.random.default_rng([seed, 3])

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) drawn from the library's own probabilities: x (n, d), eligible (n, k)."""
        p = np.cumsum(super().decide(stage, x, eligible), axis=1)
        drawn = (self.rng.random(len(x))[:, None] * p[:, -1:] >= p).sum(axis=1)
        last = eligible.shape[1] - 1 - eligible[:, ::-1].argmax(axis=1)
        return np.asarray(np.minimum(drawn, last), dtype=np.intp)


class TextbookLinTS:
    """Contestant with textbook linear Thompson sampling (Agrawal & Goyal 2013), one model for each arm: θ_a ~ N(B⁻¹f,
    v²B⁻¹), B = λI + Σxxᵀ; draws independent.
    """

    def __init__(self, stream: Stream, seed: int, *, v: float = 1.0, ridge: float = 1.0):
        self.arms, self.v = stream.arms, v
        shapes = [(len(a.names), d) for a, d in zip(stream.arms, stream.dims, strict=True)]
        self.precision = [np.tile(np.eye(d) * ridge, (k, 1, 1)) for k, d in shapes]
        self.shift = [np.zeros(shape) for shape in shapes]
        self.rng = np.random.default_rng([seed, 4])

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) with the largest score under a draw of its own for each decision."""
        inverse = np.linalg.inv(self.precision[stage])
        mean = np.einsum("nd,kde,ke->nk", x, inverse, self.shift[stage], optimize=True)
        variance = np.einsum("nd,kde,ne->nk", x, inverse, x, optimize=True)
        score = mean + self.v * np.sqrt(np.maximum(variance, 0.0)) * self.rng.standard_normal(mean.shape)
        return np.asarray(np.where(eligible, score, -np.inf).argmax(axis=1), dtype=np.intp)

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn n rows by adding to the sums B and f of their arms."""
        worth = utility(self.arms[stage], arm, reward)
        np.add.at(self.precision[stage], arm, x[:, :, None] * x[:, None, :])
        np.add.at(self.shift[stage], arm, x * worth[:, None])


class DiagonalLogisticTS:
    """Contestant with diagonal logistic Thompson sampling (Chapelle & Li 2011, algorithm 3), one model for each arm:
    Laplace's approximation, diagonal, batch by batch.
    """

    def __init__(self, stream: Stream, seed: int, *, alpha: float = 1.0, ridge: float = 1.0):
        self.arms, self.alpha = stream.arms, alpha
        shapes = [(len(a.names), d) for a, d in zip(stream.arms, stream.dims, strict=True)]
        self.mean = [np.zeros(shape) for shape in shapes]
        self.q = [np.full(shape, ridge) for shape in shapes]
        self.rng = np.random.default_rng([seed, 5])

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) with the largest utility under a draw of its own for each decision."""
        sd = self.alpha * np.sqrt((x**2) @ (1.0 / self.q[stage]).T)
        z = x @ self.mean[stage].T + sd * self.rng.standard_normal(sd.shape)
        score = self.arms[stage].gain * special.expit(z) - self.arms[stage].cost
        return np.asarray(np.where(eligible, score, -np.inf).argmax(axis=1), dtype=np.intp)

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn a batch of n rows by Newton's steps to the new mode, then the diagonal of the curvature there."""
        for a in np.unique(arm).tolist():
            rows, start, q = x[arm == a], self.mean[stage][a], self.q[stage][a]
            w = start.copy()
            for _ in range(12):
                p = special.expit(rows @ w)
                gradient = q * (w - start) + rows.T @ (p - reward[arm == a])
                w = w - np.linalg.solve(np.diag(q) + (rows.T * (p * (1.0 - p))) @ rows, gradient)
            p = special.expit(rows @ w)
            self.mean[stage][a], self.q[stage][a] = w, q + (rows**2).T @ (p * (1.0 - p))


def _grid(make: Callable[..., Agent], name: str, **values: tuple[Any, ...]) -> dict[str, Make]:
    """One contestant for each combination, named by its settings."""
    made: dict[str, Make] = {}
    for combination in product(*values.values()):
        settings = dict(zip(values, combination, strict=True))
        label = ", ".join(f"{k} {v}" for k, v in settings.items())
        made[f"{name} ({label})"] = functools.partial(make, **settings)
    return made


def _mabwiser(policy: str) -> Callable[..., MABWiser]:
    return lambda stream, seed, **settings: MABWiser(policy, stream, seed, **settings)


def _vw(pooled: bool) -> Callable[..., VowpalWabbit]:
    def make(stream: Stream, seed: int, *, explore: str, lr: float) -> DrawnVowpalWabbit:
        return DrawnVowpalWabbit(f"{explore} -l {lr}", stream, seed, pooled=pooled)

    return make


DEFAULTS: dict[str, Make] = {
    **_grid(_mabwiser("LinTS"), "MABWiser LinTS", alpha=(1.0,)),
    **_grid(_mabwiser("LinUCB"), "MABWiser LinUCB", alpha=(1.0,)),
    **_grid(_mabwiser("LinGreedy"), "MABWiser LinGreedy", epsilon=(0.1,)),
    **_grid(_vw(False), "Vowpal Wabbit", explore=("--epsilon 0.05", "--squarecb", "--bag 5"), lr=(0.5,)),
    **_grid(TextbookLinTS, "textbook LinTS", v=(1.0,)),
    **_grid(DiagonalLogisticTS, "diagonal logistic TS", alpha=(1.0,)),
}
GRID: dict[str, Make] = {
    **_grid(_mabwiser("LinTS"), "MABWiser LinTS", alpha=(0.05, 0.1, 0.25, 0.5)),
    **_grid(_mabwiser("LinUCB"), "MABWiser LinUCB", alpha=(0.05, 0.1, 0.25, 0.5)),
    **_grid(_mabwiser("LinGreedy"), "MABWiser LinGreedy", epsilon=(0.02, 0.05)),
    **_grid(_vw(False), "Vowpal Wabbit", explore=("--epsilon 0.02", "--epsilon 0.1"), lr=(0.05, 0.5)),
    **_grid(
        _vw(False),
        "Vowpal Wabbit",
        explore=("--squarecb --gamma_scale 30", "--squarecb --gamma_scale 100"),
        lr=(0.5, 1.5),
    ),
    **_grid(_vw(False), "Vowpal Wabbit", explore=("--bag 5", "--bag 10 --greedify"), lr=(0.1,)),
    **_grid(TextbookLinTS, "textbook LinTS", v=(0.05, 0.1, 0.25, 0.5)),
    **_grid(DiagonalLogisticTS, "diagonal logistic TS", alpha=(0.25, 0.5)),
}
POOLED: dict[str, Make] = _grid(
    _vw(True),
    "Vowpal Wabbit, all stages",
    explore=("--squarecb", "--squarecb --gamma_scale 100", "--squarecb --gamma_scale 300", "--bag 5", "--epsilon 0.05"),
    lr=(0.5, 1.5),
)


def missing() -> dict[str, str]:
    """Packages that are not installed, by the prefix of their contestants' names."""
    return {name: package for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None}
