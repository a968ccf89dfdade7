"""Effective number of arms: closed forms, eligibility, and when exploration counts as collapsed."""

import numpy as np
import pytest
from scipy import stats

from bandit.alarms.exploration import EffectiveArms, collapsed, effective_arms


def test_arms_drawn_evenly_count_whole_and_one_always_drawn_counts_as_one() -> None:
    everyone = np.ones((5, 4), dtype=bool)
    assert effective_arms(np.full((5, 4), 0.25), everyone) == pytest.approx((5, 4.0, 4.0))
    assert effective_arms(np.tile([0.0, 1.0, 0.0, 0.0], (5, 1)), everyone) == pytest.approx((5, 1.0, 4.0))


def test_it_is_the_exponential_of_the_entropy_of_the_mean() -> None:
    """Against scipy, to the last digits."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(6, 0.3), 200)
    found = effective_arms(p, p > 0.0)
    assert found.effective == pytest.approx(np.exp(stats.entropy(p.mean(axis=0))), rel=1e-12)
    assert found.available == pytest.approx(6.0)


def test_the_order_of_decisions_changes_nothing_but_the_last_digits() -> None:
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(5), 100)
    assert effective_arms(p[::-1], p[::-1] > 0.0) == pytest.approx(effective_arms(p, p > 0.0), rel=1e-13)


def test_what_guardrails_leave_is_no_collapse() -> None:
    """Half of the people may be shown nothing but no nudge, the others two arms, which are drawn evenly."""
    eligible = np.array([[True, False, False], [True, True, False]] * 50)
    p = eligible / eligible.sum(axis=1, keepdims=True)
    found = effective_arms(p, eligible)
    assert found.effective == pytest.approx(found.available)
    assert not collapsed(found, share=0.5, least=10)
    nothing = effective_arms(np.tile([1.0, 0.0], (50, 1)), np.tile([True, False], (50, 1)))
    assert nothing == (50, 1.0, 1.0)
    assert not collapsed(nothing, share=0.5, least=10)


def test_a_policy_at_its_floor_has_collapsed_and_one_that_chooses_by_context_has_not() -> None:
    everyone = np.ones((100, 4), dtype=bool)
    floor = np.tile([0.94, 0.02, 0.02, 0.02], (100, 1))
    found = effective_arms(floor, everyone)
    assert found.effective == pytest.approx(1.34, abs=0.01)
    assert collapsed(found, share=0.2, least=100)
    assert not collapsed(found, share=0.2, least=101)
    by_context = np.array([np.roll(floor[0], i % 4) for i in range(100)])
    assert not collapsed(effective_arms(by_context, everyone), share=0.2, least=100)


def test_without_decisions_nothing_is_said() -> None:
    found = effective_arms(np.empty((0, 3)), np.empty((0, 3), dtype=bool))
    assert found == EffectiveArms(0, 0.0, 0.0)
    assert not collapsed(found, share=0.5, least=1)
