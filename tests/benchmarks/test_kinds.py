"""Intervals fit the kind of reward: neither too narrow nor too wide, against an oracle that knows the true spread.

300 logs of 1,000 rounds a cell. Coverage: a cell that covers 95 % falls below `LEAST` of 300 with chance < 1e-6; one
that covers 78 % passes with chance < 1e-4. Width over the oracle's: the ratio has a relative standard error of 4 %
(that of the oracle's standard deviation), so a cell whose true ratio is 1.05 exceeds 1.3 with chance < 1e-6, and one
that is 1.6 times as wide passes with chance < 1e-4. The grid: docs/inference.md.
"""

import numpy as np
import pytest
from scipy import stats

from benchmarks import kinds

REPS = 300
LEAST = int(stats.binom.ppf(1e-6, REPS, 0.95))
WIDEST = 1.3


@pytest.mark.parametrize(
    ("kind", "variant"),
    [("binary", "declared"), ("narrow", "declared"), ("narrow", "blank"), ("lognormal", "declared")],
)
def test_intervals_cover_and_are_no_wider_than_they_must_be(kind: str, variant: str) -> None:
    for policy, cell in kinds.cells(kind, variant, 1000, REPS).items():
        assert cell.answered == 1.0
        assert cell.coverage * REPS >= LEAST, (policy, cell.coverage)
        assert cell.width <= WIDEST, (policy, cell.width)
        assert cell.width >= 1.0 / WIDEST, (policy, cell.width)


def test_half_of_the_users_not_known_covers_as_well() -> None:
    """Rewards of yes or no, half of the rounds without a user."""
    for policy, cell in kinds.cells("binary", "blank", 1000, REPS).items():
        assert cell.coverage * REPS >= LEAST, (policy, cell.coverage)
        assert cell.width <= WIDEST, (policy, cell.width)


def test_the_worlds_are_what_they_say() -> None:
    """The means of two million draws against closed forms, where there are any."""
    rng = np.random.default_rng(3)
    for arm, rate in enumerate((0.1, 0.2, 0.3)):
        drawn = kinds.rewards("binary", np.full(200_000, arm), np.zeros(200_000), rng)
        assert drawn.mean() == pytest.approx(rate, abs=0.005)
    assert kinds.truth("narrow", "declared")["lift"] == pytest.approx(2.0, abs=0.01)
    assert kinds.truth("binary", "declared")["uniform"] == pytest.approx(0.2, abs=0.002)
