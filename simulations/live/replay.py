"""Rejection replay over HTTP: real people of a randomised experiment pass through the running service.

The service decides for each person as if it were there. Where it agrees with what the person really received, the
person's real outcome is reported, and learned; the others are skipped: their e-mail was never sent, so their decision
is never activated and never learned. With uniform random logging the agreeing events are a sample of what the policy
would have met live (Li, Chu, Langford & Wang 2011).

The service must report back before the next batch is decided, so a replay gives the same numbers in every run.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import LoggedDecisions
from bandit.errors import RemoteError
from simulations.datasets import hillstrom
from simulations.live.client import ServiceClient, outcome_of
from simulations.live.visitors import decision_id

BATCH = 100


class ReplayResult(NamedTuple):
    """Result of a rejection replay. `log` holds every decision, its reward NaN where it did not agree; `sent` (an arm)
    and `visit` (0 or 1) are the experiment's.
    """

    log: LoggedDecisions
    agreed: NDArray[np.bool_]  # (n,)
    sent: NDArray[np.str_]  # (n,)
    visit: NDArray[np.float64]  # (n,)


def hillstrom_replay(
    client: ServiceClient, *, seed: int, limit: int | None, progress: Callable[[int], object]
) -> ReplayResult:
    """Replay all Hillstrom customers (or the first `limit`) in an order shuffled by `seed`. `progress` is called with
    the number of people of each batch.

    Raises RemoteError when the service cannot be reached, refuses, or serves another app.
    """
    app, declared = client.stage(hillstrom.STAGE)
    if app != hillstrom.APP:
        raise RemoteError(f"{client.url} serves {app!r}: start it with --app {hillstrom.APP}")
    arms = tuple(declared["nudges"])
    data = hillstrom.load()
    order = np.random.default_rng(seed).permutation(len(data.visit))[:limit]
    drawn: list[str] = []
    propensities: list[list[float]] = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        replies = client.decide(
            [
                {
                    "stage": hillstrom.STAGE,
                    "user_id": f"customer-{i}",
                    "decision_id": str(decision_id("hillstrom", seed, int(i))),
                    "context": data.contexts[i],
                }
                for i in rows
            ]
        )
        outcomes = []
        for i, reply in zip(rows, replies, strict=True):
            drawn.append(reply["nudge"]["id"])
            propensities.append([reply["propensities"].get(arm, 0.0) for arm in arms])
            if reply["nudge"]["id"] == data.sent[i]:
                outcomes.append(outcome_of(reply, "activation"))
                outcomes.append(outcome_of(reply, "reward", value=float(data.visit[i])))
        client.report(outcomes)
        client.policy(hillstrom.STAGE, wait=True)
        progress(len(rows))
    arm = np.array([arms.index(name) for name in drawn], dtype=np.intp)
    sent, visit = data.sent[order], data.visit[order]
    agreed = np.array(drawn) == sent
    reward = np.where(agreed, visit, np.nan)
    log = LoggedDecisions(arms, arm, np.array(propensities), reward, np.zeros(len(arm), dtype=np.bool_))
    return ReplayResult(log, agreed, sent, visit)
