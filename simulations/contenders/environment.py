"""Environment of one's own: whoever comes, and what every arm would bring, in place of a scenario's people.

An environment is a function of (seed, day), so every policy meets the same people, who would do the same whatever is
shown: nothing carries over from day to day. Fatigue, coupon habits and journeys need a scenario.

    def classroom(seed, day):
        rng = np.random.default_rng([seed, day])
        lessons = rng.integers(0, 40, 50)
        chance = np.stack([0.05 + 0 * lessons, 0.05 + lessons / 400], axis=1)  # no nudge, tutor
        reward = (rng.random((50, 1)) < chance).astype(float)
        contexts = [{"lessons": int(n)} for n in lessons]
        return EnvironmentVisits(np.arange(50) + 50 * day, contexts, reward, expected=chance)

Shapes: n visits of a day, k arms, no nudge first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bandit.arrays import Array, Ints, Mask
from bandit.errors import InvalidRequest, Problem


class EnvironmentVisits(NamedTuple):
    """Visits of one day. `user` (n,): whole numbers from 0 that name people. `contexts`: n contexts as the app would
    send them. `reward` (n, k): what each arm would bring, in the reward's own units. `delay_hours` (n, k): when, at
    once if left out. `eligible` (n, k): which arms may be shown, besides what the catalogue allows; all if left out.
    `expected` (n, k): expected rewards, by which money and regret are exact; if left out, `reward` stands in.
    """

    user: Ints
    contexts: Sequence[Mapping[str, Any]]
    reward: Array
    delay_hours: Array | None = None
    eligible: Mask | None = None
    expected: Array | None = None


Environment = Callable[[int, int], EnvironmentVisits]
"""An environment: (seed of the run, day from 0) → the visits of that day. Equal arguments give equal visits."""


def checked(visits: EnvironmentVisits, k: int, field: str) -> EnvironmentVisits:
    """The visits of a day as arrays of the right types. Raises InvalidRequest with every part of another shape than n
    visits and k arms ask for, and for users or rewards that cannot be used.
    """
    n, problems = len(visits.contexts), list[Problem]()
    user = np.asarray(visits.user)
    if user.shape != (n,) or user.dtype.kind not in "iu" or (n and user.min() < 0):
        problems.append(Problem(f"{field}.user", f"not {n} whole numbers from 0", "one for each context"))
    elif len(np.unique(user)) < n:
        problems.append(Problem(f"{field}.user", "somebody comes twice on one day", "each person once a day"))
    wide = {"reward": visits.reward, "delay_hours": visits.delay_hours, "expected": visits.expected}
    made: dict[str, Array] = {}
    for name, values in wide.items():
        if values is not None:
            made[name] = np.asarray(values, dtype=np.float64)
            if made[name].shape != (n, k) or not np.isfinite(made[name]).all():
                problem = f"not {n} × {k} finite numbers but an array of shape {made[name].shape}"
                problems.append(Problem(f"{field}.{name}", problem, "a row for each context, a column for each arm"))
    may = np.ones((n, k), dtype=bool) if visits.eligible is None else np.asarray(visits.eligible, dtype=bool)
    if may.shape != (n, k) or not may[:, 0].all():
        problems.append(Problem(f"{field}.eligible", f"not {n} × {k}, or without no nudge", "arm 0 is always there"))
    if problems:
        raise InvalidRequest(*problems)
    return EnvironmentVisits(user.astype(np.int64), visits.contexts, **made, eligible=may)
