"""The audit by the holdout: its interval is Welch's for large groups, and it says nothing of nobody."""

import numpy as np
import pytest
from scipy import stats

from bandit.learning.holdout_audit import PersonTotals, audit


def test_it_is_the_difference_of_means_with_its_normal_interval() -> None:
    rng = np.random.default_rng(1)
    nudged, alone = rng.exponential(3.0, 900), rng.exponential(2.0, 100)
    found = audit(PersonTotals.of(nudged[:300]) + PersonTotals.of(nudged[300:]), PersonTotals.of(alone))
    assert found is not None
    assert found.difference == pytest.approx(nudged.mean() - alone.mean())
    error = np.hypot(stats.sem(nudged), stats.sem(alone))
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.95, found.difference, error))
    assert (found.people, found.holdout) == (900, 100)


def test_nobody_in_the_holdout_is_no_audit_and_one_person_has_no_interval() -> None:
    some = PersonTotals.of(np.array([1.0, 2.0]))
    assert audit(some, PersonTotals()) is None
    found = audit(some, PersonTotals.of(np.array([1.0])))
    assert found is not None
    assert found.low is found.high is None
    assert found.difference == pytest.approx(0.5)
