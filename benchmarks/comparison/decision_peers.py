"""Peers for decision time: other people's libraries behind the two calls that benchmarks/comparison/decide.py times,
each used as its own manual says.

A peer learns the same log first. Its decision starts from the context as an array (d,) and ends with an arm or with the
library's probabilities: whatever it takes to hand the context over (for Vowpal Wabbit a line of text, written and
parsed) is part of it. Its update learns a batch of settled rows: (n, d), (n,), (n,).
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array

Indices = NDArray[np.intp]

SEED = 7


class TrainingRows(NamedTuple):
    """Settled rows of a log: contexts x (n, d), arms (n,) chosen uniformly among k, rewards (n,) 0 or 1."""

    k: int
    x: Array
    arm: Indices
    reward: Array

    def batch(self, n: int) -> "TrainingRows":
        """First n rows of the log, as views; what one update learns."""
        return TrainingRows(self.k, self.x[:n], self.arm[:n], self.reward[:n])


class Contestant(NamedTuple):
    """Contestant of the timing: `decide` takes a context (d,) and ends with an arm; `update` learns a few settled rows
    more.
    """

    decide: Callable[[Array], object]
    update: Callable[[TrainingRows], object]


def peers(log: TrainingRows) -> Iterator[tuple[str, Contestant | None]]:
    """Peers by name, each taught the log when it is asked for; None in place of one whose package is not installed."""
    for name, package, build in PEERS:
        try:
            module = import_module(package)
        except ImportError:
            yield name, None
        else:
            yield name, build(module, log)


def line(x: Array) -> str:
    """Line of Vowpal Wabbit's text format for one context x (d,), without label."""
    return "| " + " ".join([f"f{i}:{v}" for i, v in enumerate(x.tolist())])


def _vowpal(arguments: str) -> Callable[[Any, TrainingRows], Contestant]:
    """One linear model for each action, one pass; learns row by row, its only way."""

    def build(module: Any, log: TrainingRows) -> Contestant:
        workspace = module.Workspace(f"--cb_explore {log.k} {arguments} --quiet")

        def update(rows: TrainingRows) -> None:
            for x, arm, reward in zip(rows.x, rows.arm.tolist(), rows.reward.tolist(), strict=True):
                workspace.learn(f"{arm + 1}:{-reward}:{1 / rows.k:.6f} {line(x)}")

        update(log)
        return Contestant(lambda x: workspace.predict(line(x)), update)

    return build


def _vowpal_next(module: Any, log: TrainingRows) -> Contestant:
    workspace = module.Workspace(["--cb_explore", str(log.k), "--epsilon", "0.05", "--quiet"])
    parser = module.TextFormatParser(workspace)

    def update(rows: TrainingRows) -> None:
        for x, arm, reward in zip(rows.x, rows.arm.tolist(), rows.reward.tolist(), strict=True):
            workspace.learn_one(parser.parse_line(f"{arm + 1}:{-reward}:{1 / rows.k:.6f} {line(x)}"))

    update(log)
    return Contestant(lambda x: workspace.predict_one(parser.parse_line(line(x))), update)


def _river(module: Any, log: TrainingRows) -> Contestant:
    policy = module.LinUCBDisjoint(alpha=1.0, seed=SEED)
    arms = list(range(log.k))

    def named(x: Array) -> dict[str, float]:
        return {f"f{i}": v for i, v in enumerate(x.tolist())}

    def update(rows: TrainingRows) -> None:
        for x, arm, reward in zip(rows.x, rows.arm.tolist(), rows.reward.tolist(), strict=True):
            policy.update(arm, named(x), reward)

    update(log)
    return Contestant(lambda x: policy.pull(arms, named(x)), update)


def _mabwiser(module: Any, log: TrainingRows) -> Contestant:
    policy = module.MAB(list(range(log.k)), module.LearningPolicy.LinTS(alpha=1.0), seed=SEED)
    policy.fit(log.arm, log.reward, log.x)
    return Contestant(lambda x: policy.predict(x[None]), lambda rows: policy.partial_fit(rows.arm, rows.reward, rows.x))


def _contextualbandits(module: Any, log: TrainingRows) -> Contestant:
    policy = module.LinTS(log.k, random_state=SEED)
    policy.fit(log.x, log.arm, log.reward)
    return Contestant(lambda x: policy.predict(x[None]), lambda rows: policy.partial_fit(rows.x, rows.arm, rows.reward))


def _bayesianbandits(module: Any, log: TrainingRows) -> Contestant:
    arms = [module.Arm(a, learner=module.NormalRegressor(alpha=1.0, beta=1.0)) for a in range(log.k)]
    agent = module.ContextualAgent(arms, module.ThompsonSampling(), random_seed=SEED)

    def update(rows: TrainingRows) -> None:
        for a in np.unique(rows.arm).tolist():
            agent.select_for_update(a).update(rows.x[rows.arm == a], rows.reward[rows.arm == a])

    update(log)
    return Contestant(lambda x: agent.pull(x[None]), update)


VOWPAL = "Vowpal Wabbit, ε-greedy"
PEERS: tuple[tuple[str, str, Callable[[Any, TrainingRows], Contestant]], ...] = (
    (VOWPAL, "vowpalwabbit", _vowpal("--epsilon 0.05")),
    ("Vowpal Wabbit, squarecb", "vowpalwabbit", _vowpal("--squarecb")),
    ("vowpal-wabbit-next, ε-greedy", "vowpal_wabbit_next", _vowpal_next),
    ("river LinUCB", "river.bandit", _river),
    ("MABWiser LinTS", "mabwiser.mab", _mabwiser),
    ("contextualbandits LinTS", "contextualbandits.online", _contextualbandits),
    ("bayesianbandits normal", "bayesianbandits", _bayesianbandits),
)
