"""Logs of known worlds, for tests of twins."""

import functools

import msgspec
import numpy as np

from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Stage
from simulations import scenario
from simulations.offline.runner import SimulationCell, StepDecisions, run
from simulations.scenario import Scenario
from simulations.twin.app_log import AppLog


class Kept:
    """Sink that keeps every decision."""

    def __init__(self) -> None:
        self.parts: list[StepDecisions] = []

    def write(self, rows: StepDecisions) -> None:
        self.parts.append(rows)


@functools.cache
def stage_of(app: str) -> Stage:
    return parse(read_shipped(app)).stage(scenario.load(app).stage)


def one_stage(app: str) -> Scenario:
    return msgspec.structs.replace(scenario.load(app), journey={})


def log_of(world: Scenario, *, users: int, days: int = 14, seed: int = 5, holdout: float = 0.1) -> AppLog:
    """What a service logs of this world where nudges are drawn uniformly."""
    kept, stage = Kept(), stage_of(world.app)
    run(SimulationCell(scenario=world, policy="uniform", users=users, days=days, seed=seed, holdout=holdout), kept)
    parts = kept.parts
    p, held = np.concatenate([s.propensities for s in parts]), np.concatenate([s.holdout for s in parts])
    delay = np.concatenate([s.delay for s in parts])
    return AppLog(
        user=np.concatenate([s.user for s in parts]),
        at=np.concatenate([s.at for s in parts]),
        arm=np.concatenate([s.arm for s in parts]),
        reward=np.concatenate([s.reward for s in parts]),
        delay=np.where(delay <= stage.reward.seconds, delay, np.nan),
        x=np.concatenate([s.x for s in parts]),
        eligible=p > 0.0,
        holdout=held,
        out=~held & ((p > 0.0).sum(axis=1) == 1),
    )
