"""Peers for harm: other people's bandits in the simulator in place of the service's policy, with the same people, masks
and dynamics.

Vowpal Wabbit is wrapped as in `benchmarks.comparison.regret_peers`, at its defaults. It learns a decision when its
attribution window has closed, as there, because it cannot take a reward back: where windows are longer than the run it
learns nothing.
"""

import importlib.util
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.engine import PreparedPolicy
from bandit.policies.protocol import Scores
from benchmarks.comparison.harness import Agent
from benchmarks.comparison.regret_peers import VowpalWabbit
from simulations.offline import study
from simulations.offline.paired import BASELINE
from simulations.offline.runner import DAY, EPOCH, CellOutcome, CellRun, SimulationCell, StepDecisions

PEERS = {"vw:squarecb": ("vowpalwabbit", "--squarecb -l 0.5")}
"""Policy name → package and options."""


class PeerStage(NamedTuple):
    """What a peer is told of the one stage of a run, under the names of `environments.Stream`: economics of its arms,
    and how many columns x has.
    """

    arms: tuple[Any, ...]
    dims: tuple[int, ...]


class PeerRun(CellRun):
    """Run of a cell of one stage whose arms an agent of `benchmarks.comparison` chooses. The cell's `policy` is the
    agent's name; the service's own policy shows nothing here and learns for nobody.
    """

    def __init__(self, cell: SimulationCell, agent: Agent | None = None):
        super().__init__(msgspec.structs.replace(cell, policy=BASELINE))
        self._name, self._waiting = cell.policy, deque[StepDecisions]()
        (people,) = self.populations
        spec = people.stage
        stage = PeerStage((spec.arm_economics,), (people.x(np.zeros((1, len(spec.features)))).shape[1],))
        self.agent: Agent = agent or _vowpal(cell.policy, stage, cell.seed)

    def step(self, step: int) -> int:
        """Run one day: the agent learns the decisions whose windows have closed, in order, then decides for who
        comes.
        """
        spec = self.populations[0].stage.reward
        now = EPOCH + step * DAY
        while self._waiting and int(self._waiting[0].at[-1]) + round(spec.seconds * 1e6) <= now:
            made = self._waiting.popleft()
            reward = (np.clip(made.reward, spec.min, spec.max) - spec.min) / (spec.max - spec.min)
            self.agent.learn(0, made.x, made.arm, reward)
        return super().step(step)

    def done(self) -> CellOutcome:
        """The outcome of the steps so far, under the agent's name."""
        return msgspec.structs.replace(super().done(), label=self._name)

    def _scores(self, live: PreparedPolicy, x: Array, visit: Any) -> Scores:  # noqa: ARG002
        mask: NDArray[np.bool_] = visit.mask
        arm = self.agent.decide(0, x, mask) if len(x) else np.zeros(0, dtype=np.intp)
        nothing = np.zeros(mask.shape)
        return Scores(nothing, nothing, np.eye(mask.shape[1])[arm])

    def _record(self, made: StepDecisions, visit: Any, sd: Array, opted_out: Mask) -> None:
        super()._record(made, visit, sd, opted_out)
        if len(made.arm):
            self._waiting.append(made)


def play(cell: SimulationCell, folder: Path) -> CellOutcome:
    """Outcome of a peer's cell; kept in the folder as `study` keeps its own, and read from there when it is there."""
    if (kept := study.finished_outcome(cell, folder)) is not None:
        return kept
    run = PeerRun(cell)
    for step in range(cell.days):
        run.step(step)
    done = run.done()
    study.keep(cell, study.CellResult(done, {}), folder)
    return done


def missing() -> dict[str, str]:
    """Packages of peers that are not installed, by the peer's name."""
    return {name: package for name, (package, _) in PEERS.items() if importlib.util.find_spec(package) is None}


def _vowpal(name: str, stage: PeerStage, seed: int) -> VowpalWabbit:
    return VowpalWabbit(PEERS[name][1], stage, seed)  # type: ignore[arg-type]  # reads arms of a stream only
