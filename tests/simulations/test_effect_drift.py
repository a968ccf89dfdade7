"""Drift paths of effects: none without a nudge, no path depends on its length, and the stationary spread."""

import numpy as np

from simulations.effect_drift import drift_paths
from simulations.scenario import EffectDrift


def test_drift_of_no_nudge_is_none_and_a_longer_path_begins_like_a_shorter_one() -> None:
    for drift in (EffectDrift(kind="ou", sd=0.3), EffectDrift(kind="redraw", sd=0.3, day=5.0)):
        long, short = drift_paths(drift, 4, 40), drift_paths(drift, 4, 10)
        assert np.array_equal(long[:11], short)
        assert not long[:, 0].any()
        assert np.abs(long[10:, 1:]).min() > 0.0
    assert not drift_paths(EffectDrift(), 4, 40).any()


def test_an_ornstein_uhlenbeck_path_has_its_sd() -> None:
    """2,000 arms after ten half-lives: standard error of the sd 0.0048; within five, false alarm ≤ 6e-7."""
    last = drift_paths(EffectDrift(kind="ou", sd=0.3, half_life_days=3.0), 2001, 30)[30, 1:]
    assert abs(last.std() - 0.3) < 0.025
