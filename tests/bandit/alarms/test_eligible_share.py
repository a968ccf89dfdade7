"""Eligible share: a fall is told when it is deep and beyond chance, and seldom where nothing changed."""

from math import comb

import numpy as np
import pytest
from scipy import stats

from bandit.alarms.eligible_share import CHANCE, EligibleShare, chance, fallen


def test_the_chance_is_that_of_fishers_exact_test() -> None:
    by_hand = sum(comb(7, x) * comb(13, 8 - x) for x in range(3)) / comb(20, 8)
    assert chance(EligibleShare(12, 5), EligibleShare(8, 2)) == pytest.approx(by_hand, rel=1e-12)
    for before, now in (
        ((500, 400), (500, 250)),
        ((10_000, 9_000), (10_000, 100)),
        ((100, 0), (100, 0)),
        ((5, 5), (5, 5)),
    ):
        theirs = stats.hypergeom.cdf(now[1], before[0] + now[0], before[1] + now[1], now[0])
        assert chance(EligibleShare(*before), EligibleShare(*now)) == pytest.approx(theirs, rel=1e-8, abs=1e-300)


@pytest.mark.parametrize(
    ("before", "now", "raised"),
    [
        ((500, 400), (500, 0), True),
        ((500, 400), (500, 190), True),
        ((500, 400), (500, 210), False),  # beyond chance, but not by half
        ((500, 10), (500, 2), False),  # by more than half, but not beyond chance
        ((500, 0), (500, 0), False),
        ((0, 0), (500, 0), False),
    ],
)
def test_a_fall_is_deep_and_beyond_chance(before: tuple[int, int], now: tuple[int, int], raised: bool) -> None:
    assert fallen(EligibleShare(*before), EligibleShare(*now), 0.5) is raised


def test_where_nothing_changed_the_chance_is_seldom_small() -> None:
    """20,000 pairs of groups with the same share. False alarm of this test ≤ 1e-6: of 20,000, 1 % or fewer have a
    chance of at most 1 %, so 270 or more come with 1e-6. Detects a test that is wrong by a factor of 2 with 1 − 1e-6.
    """
    rng, few = np.random.default_rng(61), 0
    pairs = rng.binomial(500, 0.3, (20_000, 2))
    seen = {}
    for before, now in pairs.tolist():
        if (before, now) not in seen:
            seen[before, now] = chance(EligibleShare(500, before), EligibleShare(500, now)) <= 0.01
        few += seen[before, now]
    assert few < 270
    assert CHANCE == 1e-6
