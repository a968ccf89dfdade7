"""What a decision finds of its user's past: by hand, and as the simulator itself keeps it."""

import numpy as np

from simulations.offline.runner import EPOCH, CellRun, SimulationCell
from simulations.twin.app_log import DAY, AppLog, coupons, past
from tests.simulations.twin.twin_worlds import log_of, one_stage, stage_of


def small_log(user: list[int], day: list[float], arm: list[int], reward: list[float]) -> AppLog:
    n = len(user)
    return AppLog(
        user=np.array(user),
        at=EPOCH + (np.array(day) * DAY).astype(np.int64),
        arm=np.array(arm),
        reward=np.array(reward),
        delay=np.full(n, np.nan),
        x=np.ones((n, 1)),
        eligible=np.ones((n, 3), dtype=bool),
        holdout=np.zeros(n, dtype=bool),
        out=np.array([False] * (n - 1) + [True]),
    )


def test_past_by_hand() -> None:
    """One user on days 0, 2 and 3, another in between; arm 2 is a coupon."""
    log = small_log([7, 9, 7, 7], [0.2, 1.0, 2.5, 3.1], [2, 1, 1, 0], [1.0, 0.0, 0.0, float("nan")])
    found = past(log, np.array([False, False, True]), keeps=0.5, learns=0.4, forgets=0.1)
    np.testing.assert_allclose(found.fatigue, [0.0, 0.0, 0.25, 0.625])  # 1·½², then (¼ + 1)·½
    np.testing.assert_allclose(found.trained, [0.0, 0.0, 0.4, 0.36])
    assert found.pulled.tolist() == [False, False, True, False]
    assert found.order.tolist() == [0, 0, 1, 2]
    np.testing.assert_array_equal(found.gap, [2.0, np.nan, 1.0, np.nan])
    assert found.later_out.tolist() == [False, False, True, False]


def test_fatigue_is_that_of_the_simulator() -> None:
    """The state of the users after a run is what follows from their log."""
    cell = SimulationCell(scenario=one_stage("travel"), policy="uniform", users=300, days=14, seed=5, holdout=0.1)
    run = CellRun(cell)
    for day in range(14):
        run.step(day)
    log = log_of(one_stage("travel"), users=300)
    stage = stage_of("travel")
    found = past(log, coupons(stage), keeps=cell.scenario.fatigue.keeps, learns=0.5, forgets=0.1)
    last = {user: row for row, user in enumerate(log.user.tolist())}
    users, rows = np.array(list(last)), np.array(list(last.values()))
    after = found.fatigue[rows] + (log.arm[rows] > 0)
    idle = 14.0 - log.day[rows]
    np.testing.assert_allclose(
        run.crowd.situation(users, 14.0).fatigue, after * cell.scenario.fatigue.keeps**idle, atol=1e-12
    )


def test_days_are_counted_from_a_monday() -> None:
    log = small_log([1, 2], [2.0, 9.5], [0, 0], [0.0, 0.0])  # a run begins on a Monday
    assert log.day.tolist() == [2, 9]


def test_coupons_give_away_a_tenth_of_a_reward() -> None:
    named = {app: [a for a, c in zip(stage_of(app).arms, coupons(stage_of(app)), strict=True) if c]
             for app in ("travel", "fashion", "gaming")}  # fmt: skip
    assert named == {"travel": ["discount_5", "discount_10"], "fashion": [], "gaming": ["bonus_25", "bundle"]}


def test_an_empty_log_has_no_past() -> None:
    log = small_log([1], [0.0], [0], [0.0]).only(np.array([False]))
    found = past(log, np.array([False, False, True]), keeps=0.5, learns=0.4, forgets=0.1)
    assert [len(part) for part in found] == [0] * 6
