"""Unequal assignment is said long before it is refused; a sound one is noted as often as the level says."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.data.rounds import chunked, rounds_of
from experiments.inference.assignment import NOTED, Assignment
from experiments.inference.joint_moments import groups_of
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm


def counts(*each: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.repeat(np.arange(len(each)), each)


def shares(action: Any, declared: tuple[float, ...], *, wide: bool = True) -> Any:
    p = np.array(declared)
    return Assignment.of(action, p[action], np.tile(p, (len(action), 1)) if wide else None).shares()


@pytest.mark.parametrize("wide", [True, False])
def test_p_is_pearsons(wide: bool) -> None:
    found = shares(counts(300, 420), (0.5, 0.5), wide=wide)
    assert found.p == pytest.approx(stats.chisquare([300, 420]).pvalue)
    assert found.observed == pytest.approx((300 / 720, 420 / 720))
    assert found.declared == (0.5, 0.5)
    note = found.note(1440.0)
    assert "41.67, 58.33 %, declared are 50.00, 50.00 %" in note
    assert "p = 0.0000077, e-value 1,440" in note
    three = shares(counts(500, 320, 180), (0.5, 0.3, 0.2), wide=wide)
    assert three.p == pytest.approx(stats.chisquare([500, 320, 180], [500, 300, 200]).pvalue)


def test_a_sound_assignment_is_noted_as_often_as_the_level_says() -> None:
    """2,000 logs whose propensities change in each round: 50 notes or more, or none, have chance < 1e-6 at 1 %."""
    noted = 0
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        p = 0.7 * rng.dirichlet(np.ones(3), 300) + 0.1
        action = (p.cumsum(axis=1) < rng.random((300, 1))).sum(axis=1).clip(max=2)
        found = Assignment.of(action, p[np.arange(300), action], p).shares()
        noted += found is not None and found.note(1.0) is not None
    assert 1 <= noted < 50


def test_users_who_are_assigned_once_count_once() -> None:
    """1,000 logs of 300 users with ten rounds each, all of one arm. By rounds more than a tenth would be noted; of 1 %,
    45 or more have chance < 1e-6.
    """
    noted, naive = 0, 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        action, half = np.repeat(rng.integers(0, 2, 300), 10), np.full((3000, 2), 0.5)
        group = groups_of(np.repeat(rng.integers(0, 2**60, 300), 10))
        by_user = Assignment.of(action, half[:, 0], half, group).shares()
        by_round = Assignment.of(action, half[:, 0], half).shares()
        noted += by_user is not None and by_user.p < NOTED
        naive += by_round is not None and by_round.p < NOTED
    assert noted < 45
    assert naive > 100


@pytest.mark.parametrize("wide", [True, False])
def test_observed_shares_given_as_propensities_are_recognised(wide: bool) -> None:
    observed = (300 / 720, 420 / 720)
    for digits in (4, 6, 15):
        found = shares(counts(300, 420), tuple(round(share, digits) for share in observed), wide=wide)
        assert found.copied
        assert "are the shares that were observed" in found.note(1.0)
    planned = shares(counts(360, 360), (0.5, 0.5), wide=wide)
    assert not planned.copied, "an even split that came out even"
    assert planned.note(1.0) is None


@pytest.mark.parametrize("wide", [True, False])
def test_parts_add_up(wide: bool) -> None:
    rng = np.random.default_rng(4)
    p = np.array([0.5, 0.3, 0.2])
    action, group = rng.choice(3, 900, p=p), groups_of(rng.integers(0, 200, 900))
    rows = np.tile(p, (900, 1)) if wide else None
    whole = Assignment.of(action, p[action], rows, group).shares()
    parts = [
        Assignment.of(action[s], p[action[s]], None if rows is None else rows[s], group[s])
        for s in (slice(0, 100), slice(100, 900))
    ]
    merged = (parts[0] + parts[1] + Assignment()).shares()
    assert whole is not None
    assert merged is not None
    assert merged.p == pytest.approx(whole.p)
    assert merged.observed == whole.observed


def test_too_few_rounds_and_unknown_shares_say_nothing() -> None:
    assert shares(counts(3, 4), (0.5, 0.5)) is None
    assert Assignment().shares() is None
    changing = np.tile([0.4, 0.6], 50)
    assert Assignment.of(counts(50, 50), changing).shares() is None


def test_an_evaluation_says_it_and_a_refusal_too() -> None:
    def body(first: int, second: int) -> dict[str, Any]:
        action = np.random.default_rng(1).permutation(counts(first, second))
        half, reward = np.full(len(action), 0.5), np.arange(len(action)) % 5 == 0
        rounds = rounds_of({"action": action, "reward": reward * 1.0, "pscore": half, "p_0": half, "p_1": half})
        ask = EvaluationConfig((EvaluationPolicy("fixed:1", FixedArm(1)),), follow=False)
        return core.report(core.evaluate([chunked(rounds)], ask), ask)

    noted = body(300, 420)
    assert noted["assignment"]["noted"]
    assert noted["assignment"]["p"] == pytest.approx(7.74e-6, rel=0.01)
    assert noted["assignment"]["e_value"] > 100.0
    assert any("arms came in shares" in note for note in noted["notes"])
    assert not noted["refused"]
    refused = body(200, 600)
    assert [r["reason"] for r in refused["refused"]] == ["propensities"]
    assert "not those that were observed" in refused["refused"][0]["needed"]
    assert any("arms came in shares" in note for note in refused["notes"])
    sound = body(365, 355)
    assert not sound["assignment"]["noted"]
    assert not any("shares" in note for note in sound.get("notes", []))
