"""Drift of effects: how the effect of each arm moves from day to day, the same for every seed of a run."""

import math

import numpy as np

from bandit.arrays import Array
from simulations.scenario import EffectDrift


def drift_paths(drift: EffectDrift, k: int, days: int) -> Array:
    """Drift paths: where each arm's effect is on days 0 … `days`, (days + 1, k) logits; no nudge stays at 0. A function
    of the drift's own `number`, so that it is the same world for every seed of a run.
    """
    noise = np.random.default_rng([drift.number, 7]).normal(0.0, drift.sd, (days + 1, k))
    path = np.zeros((days + 1, k))
    if drift.kind == "redraw":
        path[int(drift.day) :] = noise[0]
    elif drift.kind == "ou":
        keep = 0.5 ** (1.0 / drift.half_life_days)
        for day in range(days + 1):
            path[day] = keep * path[day - 1] + math.sqrt(1.0 - keep**2) * noise[day] if day else 0.0
    path[:, 0] = 0.0
    return path
