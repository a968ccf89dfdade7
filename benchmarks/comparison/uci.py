"""UCI data sets: two public tables as bandits, as in "Deep Bayesian Bandits Showdown" (Riquelme, Tucker & Snoek 2018).

mushroom: eat or not. A safe mushroom is worth 5, a poisonous one 5 or −35 with probability ½ each, not eating 0.
statlog: the seven classes of the shuttle data as arms, 1 for the right one.

The files come from the UCI archive (CC BY 4.0). They are looked for in $JOURNEY_BANDIT_DATA, else ../shared/data.
"""

import functools
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.policies.protocol import ArmEconomics
from benchmarks.comparison.environments import Stream
from simulations.datasets import classification
from simulations.datasets.classification import LabelledExamples

FILES = {"mushroom": ("mushroom/mushroom.data.gz", "1"), "statlog": ("statlog_shuttle/shuttle.trn.gz", "-1")}
_HERE = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """Folder in which the two files are looked for: $JOURNEY_BANDIT_DATA, else ../shared/data."""
    return Path(os.environ.get("JOURNEY_BANDIT_DATA", _HERE.parent / "shared" / "data"))


def available() -> bool:
    """Whether both files are there; without them the environments are left out."""
    return all((folder() / path).is_file() for path, _ in FILES.values())


@functools.cache
def table(name: str) -> LabelledExamples:
    """Labelled examples in the file of that name, read once for each process."""
    path, label = FILES[name]
    return classification.read(folder() / path, label, header=False)


def mushroom(seed: int, n: int = 2000) -> list[Stream]:
    """Environment mushroom: one stream of n decisions. Rewards −35 to 5 are scaled to [0, 1]; utilities are as
    published.
    """
    data, (order, luck) = table("mushroom"), _generators(seed)
    rows = order.permutation(len(data.label))[:n] if n <= len(data.label) else order.integers(0, len(data.label), n)
    poisonous = data.label[rows] == data.classes.index("p")
    sick = poisonous & (luck.random(n) < 0.5)
    money = np.stack([np.zeros(n), np.where(sick, -35.0, 5.0)], axis=1)
    value = np.stack([np.zeros(n), np.where(poisonous, -15.0, 5.0)], axis=1)
    arms = ArmEconomics(("pass", "eat"), ("none", "eat"), np.full(2, 40.0), np.full(2, 35.0))
    return [_stream("mushroom", arms, data.x[rows], np.ones((n, 2), dtype=bool), (money + 35.0) / 40.0, value, 0.875)]


def statlog(seed: int, n: int = 10_000) -> list[Stream]:
    """Environment statlog: one stream of n decisions, one arm for each class, after a first one that
    may not be chosen.
    """
    data, (order, _) = table("statlog"), _generators(seed)
    rows = order.permutation(len(data.label))[:n]
    arms = classification.arms(data.classes)
    right = np.arange(len(arms.names)) == data.label[rows, None] + 1
    may = np.broadcast_to(np.arange(len(arms.names)) > 0, right.shape)
    value = np.where(may, right, -np.inf)
    return [_stream("statlog", arms, data.x[rows], may, right.astype(float), value, 1.0 / len(data.classes))]


def _generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    first, second = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(first), np.random.default_rng(second)


def _stream(
    name: str, arms: ArmEconomics, x: Array, eligible: NDArray[np.bool_], reward: Array, value: Array, declared: float
) -> Stream:
    n = len(x)
    return Stream(
        name=name,
        arms=(arms,),
        dims=(x.shape[1],),
        stage=np.zeros(n, dtype=np.intp),
        x=x,
        eligible=eligible,
        reward=reward,
        value=value,
        hours=np.arange(n, dtype=np.float64),
        delay=np.zeros(reward.shape),
        declared=declared,
    )
