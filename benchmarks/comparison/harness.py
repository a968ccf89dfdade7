"""Harness: one contestant on one stream; it decides a batch with a frozen state, then learns from it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from benchmarks.comparison.environments import WINDOW_HOURS, Stream

BATCH = 100
Actions = NDArray[np.intp]


class Agent(Protocol):
    """Contestant's interface, what the harness asks of it. Rewards are 0 or 1; gains and costs of arms are in the
    stream it was made for.
    """

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) for n people at one stage, chosen with the present state: x (n, d), eligible (n, k)."""
        ...

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn the final outcomes of n decisions at one stage: x (n, d), arm (n,), reward (n,)."""
        ...


class PendingOutcomes(NamedTuple):
    """Decisions whose window is open, m of them, in columns: x (m, d) padded as in the stream, the others (m,). Ages
    and delays are shares of the window; `delay` counts where `answered`.
    """

    stage: NDArray[np.intp]  # (m,)
    x: Array  # (m, d) padded as in the stream
    arm: Actions  # (m,)
    answered: NDArray[np.bool_]  # (m,)
    delay: Array  # (m,) where answered
    age: Array  # (m,)


@runtime_checkable
class Provisional(Protocol):
    """Interface of an agent that can also use what is not final yet, as the service does."""

    def overlay(self, pending: PendingOutcomes) -> None:
        """Take note of every decision whose window is open, before each batch; replaces what was noted before."""
        ...

    def late(self, stage: int, arm: Actions, delay: Array) -> None:
        """Take note of how late the answers of n decisions came whose windows closed: arm (n,), delay (n,) as shares of
        the window.
        """
        ...


Make = Callable[[Stream, int], Agent]


def run(agent: Agent, stream: Stream, batch: int | None = BATCH) -> Actions:
    """Arms (n,) that an agent chose on a stream. Rewards are known when the batch ends, or when their window does if
    they come late.

    batch None: a batch ends when the log has grown by 1 %.
    """
    n, late = len(stream.stage), bool(np.any(stream.delay))
    arm = np.zeros(n, dtype=np.intp)
    settled = start = 0
    while start < n:
        end = min(start + (batch or max(1, start // 100)), n)
        if late:
            now = stream.hours[start]
            ripe = int(np.searchsorted(stream.hours[:start], now - WINDOW_HOURS, side="right"))
            _learn(agent, stream, np.arange(settled, ripe), arm)
            _told(agent, stream, np.arange(settled, ripe), arm)
            settled = max(settled, ripe)
            if isinstance(agent, Provisional):
                agent.overlay(_pending(stream, np.arange(settled, start), arm, now))
        for s, rows in _by_stage(stream, np.arange(start, end)):
            x, may = stream.x[rows, : stream.dims[s]], stream.eligible[rows, : len(stream.arms[s].names)]
            arm[rows] = agent.decide(s, x, may)
        if not late:
            _learn(agent, stream, np.arange(start, end), arm)
        start = end
    return arm


def _by_stage(stream: Stream, rows: NDArray[np.intp]) -> list[tuple[int, NDArray[np.intp]]]:
    return [(int(s), rows[stream.stage[rows] == s]) for s in np.unique(stream.stage[rows])]


def _learn(agent: Agent, stream: Stream, rows: NDArray[np.intp], arm: Actions) -> None:
    for s, mine in _by_stage(stream, rows):
        agent.learn(s, stream.x[mine, : stream.dims[s]], arm[mine], stream.reward[mine, arm[mine]])


def _told(agent: Agent, stream: Stream, rows: NDArray[np.intp], arm: Actions) -> None:
    if isinstance(agent, Provisional):
        for s, mine in _by_stage(stream, rows):
            came = mine[stream.reward[mine, arm[mine]] > 0.0]
            agent.late(s, arm[came], stream.delay[came, arm[came]] / WINDOW_HOURS)


def _pending(stream: Stream, rows: NDArray[np.intp], arm: Actions, now: float) -> PendingOutcomes:
    age, delay = now - stream.hours[rows], stream.delay[rows, arm[rows]]
    came = (stream.reward[rows, arm[rows]] > 0.0) & (delay <= age)
    return PendingOutcomes(
        stream.stage[rows], stream.x[rows], arm[rows], came, delay / WINDOW_HOURS, age / WINDOW_HOURS
    )
