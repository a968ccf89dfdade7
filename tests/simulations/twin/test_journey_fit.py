"""How people move between stages, by hand, and a twin of a whole journey that runs."""

import numpy as np
import pytest

from simulations.offline.runner import EPOCH
from simulations.twin.app_log import DAY
from simulations.twin.journey_fit import StageVisits, moves, visits

NAMES = ("a", "b", "c")


def seen(rows: list[tuple[int, float, int, bool]]) -> StageVisits:
    user, day, stage, rewarded = zip(*rows, strict=True)
    at = EPOCH + (np.array(day) * DAY).astype(np.int64)
    return StageVisits(np.array(user), at, np.array(stage), np.array(rewarded))


def test_moves_by_hand() -> None:
    """At a: two silent users come again to a, one to b, one never; who was rewarded goes to c on the next day."""
    rows = [(1, 0.0, 0, False), (1, 2.0, 0, True), (1, 3.0, 2, False), (2, 0.0, 0, False), (2, 2.0, 0, True)]
    rows += [(2, 3.0, 2, False), (3, 0.0, 0, False), (3, 2.0, 1, False), (4, 0.0, 0, False), (9, 30.0, 1, False)]
    found = moves(NAMES, seen(sorted(rows, key=lambda row: row[1])))
    assert found["a"] == ("c", False, 1.0, {"a": 0.5, "b": 0.25})
    assert found["c"].otherwise == {}  # both are silent for longer than people are between visits
    assert found["c"].then == "c"


def test_who_may_still_come_is_not_gone() -> None:
    """The log ends a day after the last visit: that silence says nothing."""
    rows = [(1, 0.0, 0, False), (1, 3.0, 0, False), (2, 3.5, 0, False), (3, 4.0, 1, False)]
    assert moves(NAMES, seen(rows))["a"].otherwise == {"a": 1.0}


def test_a_stage_that_nobody_left_keeps_its_people() -> None:
    found = moves(NAMES, seen([(1, 0.0, 0, False)]))
    assert found["b"] == ("b", True, 1.0, {"b": 1.0})


@pytest.mark.parametrize("rewarded", [True, False])
def test_a_reward_after_a_long_rest_rests(rewarded: bool) -> None:
    found = moves(NAMES, seen([(1, 0.0, 0, rewarded), (1, 9.0, 1, False)]))
    assert (found["a"].then, found["a"].rests) == (("b", True) if rewarded else ("a", True))


def test_who_never_comes_again_after_a_reward_does_not_stay() -> None:
    """Three are rewarded at a: one comes again, one is silent for weeks, and of one the log is too young to tell."""
    rows = [(1, 0.0, 0, True), (2, 0.0, 0, True), (1, 1.0, 1, False), (3, 28.0, 1, False), (3, 30.0, 0, True)]
    assert moves(NAMES, seen(rows))["a"].stays == 0.5


def test_gaps_of_a_journey_are_of_those_who_come_again() -> None:
    """A hundred come again after four days, at whatever stage; a hundred are gone, and do not make gaps longer."""
    coming = [(n, day, stage, False) for n in range(100) for day, stage in ((0.0, 0), (4.0, n % 3))]
    rows = sorted([*coming, *((100 + n, 0.0, 0, False) for n in range(100)), (999, 60.0, 0, False)], key=lambda r: r[1])
    found = moves(NAMES, seen(rows))
    assert found["a"].otherwise["a"] == pytest.approx(34 / 234, abs=1e-4)
    law = visits(NAMES, seen(rows), found)
    assert 4.0 <= law.gap_days < 5.0
    assert law.people == 201
