"""Driver of a live simulation: simulated people against a running service, over HTTP, on a driven or a compressed
clock.

Where the service was started with `serve --clock driven`, its time is driven from here: people arrive, convert and are
learned from in simulated time, so that the same seed gives the same numbers at any speed. Otherwise it must run with a
compressed attribution window (`serve --window-scale F`): then F also compresses the days in which people arrive and the
hours after which they convert, and the service learns when windows end, in real time.

Shapes: n decisions, k arms.
"""

import heapq
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from bandit.arrays import Array, LoggedDecisions
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import arm_worth
from bandit.errors import RemoteError
from simulations.live.client import ServiceClient, outcome_of
from simulations.live.visitors import FirstVisits, VisitorStream
from simulations.scenario import Scenario

Progress = Callable[[int], object]
BATCH = 20  # people who arrive together


class LiveRunResult(NamedTuple):
    """Result of a live simulation: the log of n decisions, beside the truth that only the simulator knows."""

    log: LoggedDecisions
    utility: Array  # (n, k) exact expected net value of each arm for each decision, in currency
    net: Array  # (n,) realised net value of what was shown
    duplicates: int  # decisions the service had answered before: not zero means that this seed ran already


def drive(
    client: ServiceClient, scenario: Scenario, stage: Stage, *, seed: int, users: int, progress: Progress
) -> LiveRunResult:
    """Let `users` people (rounded up to whole batches of 20) pass through the scenario's rich stage of the service, and
    report their rewards when they come due. Returns after the last attribution window has ended and was learned.

    `progress` is called with the number of people of each batch. Raises RemoteError when the service cannot be reached,
    refuses, or runs on a clock too slow to simulate on.
    """
    declared = client.stage(scenario.stage)[1]
    scale = declared["window_seconds"] / declared["declared_seconds"]
    world = VisitorStream(scenario, stage, seed)
    pause = BATCH * 86400.0 * scale / scenario.people_per_day
    clock: _RunClock = _WallClock() if client.now() is None else _DrivenClock(client, scenario.stage)
    if pause > 10.0 and isinstance(clock, _WallClock):
        fix = "start it with --clock driven, or with --window-scale 1e-5, so that a day takes about a second"
        raise RemoteError(f"the service's clock is too slow to simulate on ({pause:.0f} s a batch): {fix}")
    outbox = _OutcomeQueue(client, clock, scale)
    rows: list[tuple[FirstVisits, list[dict[str, Any]]]] = []
    start = clock.now()
    for batch in range(-(-users // BATCH)):
        outbox.send_until(start + batch * pause)
        clock.learned()
        people = world.people(batch, BATCH)
        replies = client.decide([_request(scenario.stage, people, i) for i in range(BATCH)])
        outbox.add(people, replies, stage)
        rows.append((people, replies))
        progress(BATCH)
    outbox.send_until(clock.now() + declared["window_seconds"] * 1.1 + 0.2)
    client.policy(scenario.stage, wait=True)
    return _run_result(stage, rows)


def _request(stage: str, people: FirstVisits, i: int) -> dict[str, Any]:
    return {
        "stage": stage,
        "user_id": people.ids[i],
        "decision_id": str(people.decision_ids[i]),
        "context": people.contexts[i],
        "evidence": people.proofs[i],
    }


class _RunClock(Protocol):
    """A clock of the service's time, in seconds from any origin."""

    def now(self) -> float: ...

    def reach(self, moment: float) -> None:
        """Return when it is `moment`."""

    def learned(self) -> None:
        """Return when what has matured is learned, as far as that is to be waited for."""


class _WallClock:
    """The wall's clock, which the service follows too; the service learns by itself."""

    def now(self) -> float:
        return time.monotonic()

    def reach(self, moment: float) -> None:
        time.sleep(max(0.0, moment - time.monotonic()))

    def learned(self) -> None:
        pass


class _DrivenClock:
    """A service's driven clock: time passes when this process says so, in whole µs."""

    def __init__(self, client: ServiceClient, stage: str):
        self._client, self._stage, self._passed = client, stage, 0

    def now(self) -> float:
        return self._passed / 1e6

    def reach(self, moment: float) -> None:
        by = max(0, math.ceil(moment * 1e6) - self._passed)
        self._client.advance(by)
        self._passed += by

    def learned(self) -> None:
        self._client.policy(self._stage, wait=True)


class _OutcomeQueue:
    """Rewards that wait for the time at which they come. The absence of a reward is never sent: the service matures
    it.
    """

    def __init__(self, client: ServiceClient, clock: _RunClock, scale: float):
        self._client, self._clock, self._scale = client, clock, scale
        self._waiting: list[tuple[float, str]] = []  # when, and of which decision
        self._rewards = dict[str, dict[str, Any]]()  # by decision

    def add(self, people: FirstVisits, replies: list[dict[str, Any]], stage: Stage) -> None:
        now = self._clock.now()
        for i, reply in enumerate(replies):
            a = stage.arms.index(reply["nudge"]["id"])
            if people.converts[i, a]:
                self._rewards[reply["decision_id"]] = outcome_of(reply, "reward", value=1)
                heapq.heappush(self._waiting, (now + people.delay[i, a] * self._scale, reply["decision_id"]))

    def send_until(self, deadline: float) -> None:
        """Send what falls due until `deadline` (seconds of the clock), then return; at once if it has passed."""
        while True:
            now = self._clock.now()
            due: list[dict[str, Any]] = []
            while self._waiting and self._waiting[0][0] <= now and len(due) < 1000:
                due.append(self._rewards.pop(heapq.heappop(self._waiting)[1]))
            self._client.report(due)
            if now >= deadline:
                return
            following = self._waiting[0][0] if self._waiting else deadline
            self._clock.reach(min(deadline, following))


def _run_result(stage: Stage, rows: list[tuple[FirstVisits, list[dict[str, Any]]]]) -> LiveRunResult:
    replies = [reply for _, answered in rows for reply in answered]
    index = {arm: a for a, arm in enumerate(stage.arms)}
    arm = np.array([index[reply["nudge"]["id"]] for reply in replies], dtype=np.intp)
    propensities = np.array([[reply["propensities"].get(a, 0.0) for a in stage.arms] for reply in replies])
    each = np.arange(len(arm))
    reward = np.concatenate([people.converts for people, _ in rows])[each, arm].astype(np.float64)
    holdout = np.array([reply["holdout"] for reply in replies])
    return LiveRunResult(
        LoggedDecisions(stage.arms, arm, propensities, reward, holdout),
        np.concatenate([people.utility for people, _ in rows]),
        arm_worth(stage.reward.value, stage.nudges.values()).net(reward, arm),
        sum(reply["duplicate"] for reply in replies),
    )
