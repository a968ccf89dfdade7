"""Intervals fit the kind of reward: neither too narrow nor too wide, against an oracle that knows the true spread.

2,000 logs of 1,000 rounds a cell, with fixed seeds. Coverage: a cell that covers 95 % falls below `LEAST` of 2,000
with chance < 1e-6, one that covers 94.3 % (less than the least of the grid, docs/explanation/inference.md) with
chance < 1e-3; one that covers 91 % passes with chance < 1e-2, 90 % with < 1e-4. Width over the oracle's: the ratio has
a relative standard error of 1.6 % where rewards are light-tailed (that of the oracle's standard deviation), of about
4 % for pareto, so a cell whose true ratio is 1.15 exceeds 1.3 with chance < 1e-3, and one that is 1.5 times as wide
passes with < 1e-3.
"""

import numpy as np
import pytest
from scipy import stats

from benchmarks.evidence import many_logs, reward_kinds
from experiments.inference.intervals import interval
from experiments.inference.joint_moments import groups_of

REPS = 2000
LEAST = int(stats.binom.ppf(1e-6, REPS, 0.95))
WIDEST = 1.3

CELLS = [
    ("binary", "blank"),
    ("rare", "declared"),
    ("narrow", "declared"),
    ("zero-inflated", "blank"),
    ("lognormal", "users"),
    ("pareto", "undeclared"),
]
"""Every kind, and of the variants of each the hardest."""


def test_the_error_rates_are_those_that_are_stated() -> None:
    for covers, falls in ((0.95, 1e-6), (0.943, 1e-3)):
        assert stats.binom.cdf(LEAST - 1, REPS, covers) < falls
    for covers, passes in ((0.91, 1e-2), (0.90, 1e-4)):
        assert stats.binom.sf(LEAST - 1, REPS, covers) < passes


@pytest.mark.parametrize(("kind", "variant"), CELLS)
def test_intervals_cover_and_are_no_wider_than_they_must_be(kind: str, variant: str) -> None:
    for policy, cell in reward_kinds.cells(kind, variant, 1000, REPS, asked=0).items():
        assert cell.coverage * REPS >= LEAST, (policy, cell.coverage)
        assert 1.0 / WIDEST <= cell.width <= WIDEST, (policy, cell.width)


@pytest.mark.parametrize(
    ("kind", "variant"),
    [
        (k, v)
        for k in reward_kinds.KINDS
        for v in reward_kinds.VARIANTS
        if v != "undeclared" or reward_kinds.RANGES[k] != (0.0, 1.0)
    ],
)
def test_many_logs_at_once_have_the_intervals_of_evaluate(kind: str, variant: str) -> None:
    some = reward_kinds.logs(kind, variant, 600, 2, np.random.default_rng(5))
    arm, uniform = reward_kinds.evaluated(some, 1)
    user = reward_kinds.rounds(some, 1).user
    one = some._replace(
        action=some.action[1:], reward=some.reward[1:], user=None if user is None else groups_of(user)[None]
    )
    found = many_logs.moments(one, reward_kinds.DRAWN)
    direct = {"arm": arm.estimates["dr"], "uniform": uniform.estimates["dr"], "lift": arm.contrasts["first"]}
    for policy, expected in direct.items():
        value, low, high, n = interval(found[policy][0], bounds=reward_kinds.bounds_of(some, policy))
        assert n == arm.units
        assert (value, low, high) == pytest.approx((expected.value, *expected.interval), rel=1e-8)


def test_the_worlds_are_what_they_say() -> None:
    """The means of two million draws against closed forms, where there are any."""
    rng = np.random.default_rng(3)
    for arm, rate in enumerate((0.1, 0.2, 0.3)):
        drawn = reward_kinds.rewards("binary", np.full(200_000, arm), np.zeros(200_000), rng)
        assert drawn.mean() == pytest.approx(rate, abs=0.005)
    assert reward_kinds.truth("narrow", "declared")["lift"] == pytest.approx(2.0, abs=0.01)
    assert reward_kinds.truth("binary", "declared")["uniform"] == pytest.approx(0.2, abs=0.002)
