"""Sequences of A/B tests hold at all looks at once; those of totals do not ask for an order."""

from itertools import combinations

import numpy as np
import pytest
from scipy import special

from experiments.ab_tests import sequential
from experiments.ab_tests.score_intervals import ArmRate


def test_bounds_of_totals_are_where_the_product_of_both_martingales_reaches_its_limit() -> None:
    """By search over a grid of both rates, for a usual case and for arms where nobody or everybody converts."""
    grid = np.linspace(1e-6, 1.0 - 1e-6, 4001)
    for arm, control in (((30, 400), (18, 350)), ((0, 50), (4, 60)), ((40, 40), (3, 30))):
        found = sequential.beta_binomial(ArmRate(*arm), ArmRate(*control))
        logs = [
            special.betaln(0.5 + s, 0.5 + n - s)
            - special.betaln(0.5, 0.5)
            - s * np.log(grid)
            - (n - s) * np.log1p(-grid)
            for s, n in (arm, control)
        ]
        inside = logs[0][:, None] + logs[1][None, :] <= np.log(20.0)
        gaps = (grid[:, None] - grid[None, :])[inside]
        assert (found.low, found.high) == pytest.approx((gaps.min(), gaps.max()), abs=1e-3)


def test_totals_are_covered_at_every_look() -> None:
    """Two arms of 5 %, looked at after each 20 people up to 4,000: 400 tests. A true error of 5 % in all is below
    10.5 % with 1 − 1e-5; Wald's intervals with the same looks miss in about 30 %.
    """
    rng, missed, wald = np.random.default_rng(1), 0, 0
    for _ in range(400):
        arm, yes = rng.integers(0, 2, 4000), rng.random(4000) < 0.05
        counts = np.cumsum(np.eye(2)[arm], axis=0)[39::20]
        sums = np.cumsum(np.eye(2)[arm] * yes[:, None], axis=0)[39::20]
        out = naive = False
        for n, s in zip(counts.tolist(), sums.tolist(), strict=True):
            p = (s[0] + s[1]) / (n[0] + n[1])
            error = np.sqrt(p * (1 - p) * (1 / n[0] + 1 / n[1]))
            naive |= abs(s[1] / n[1] - s[0] / n[0]) > 1.96 * error
            # 0 is outside only if log E(p, p) is above log 20, at the likeliest p too
            out |= sequential.evidence(ArmRate(s[1], n[1]), ArmRate(s[0], n[0])) > np.log(20.0)
        missed, wald = missed + out, wald + naive
    assert missed / 400 < 0.105
    assert wald / 400 > 0.2


def test_rows_in_order_are_covered_at_every_look_also_of_a_third_arm() -> None:
    """Three arms in shares of .5, .3, .2, a lift of .1 over a rate that drifts, three looks at up to 1,000 people: 150
    tests. A true error of 5 % is below 15 % with 1 − 1e-6.
    """
    rng, shares, missed = np.random.default_rng(2), np.array([0.5, 0.3, 0.2]), 0
    for _ in range(150):
        arm = rng.choice(3, 1000, p=shares)
        rate = np.linspace(0.1, 0.4, 1000) + 0.1 * (arm == 2)
        yes = (rng.random(1000) < rate).astype(float)
        looks = [sequential.betting(arm[:n], yes[:n], shares, (2, 0)) for n in (100, 300, 1000)]
        missed += any(not look.low <= 0.1 <= look.high for look in looks)
    assert missed / 150 < 0.15


def test_p_of_an_order_is_that_of_all_orders() -> None:
    """By counting runs in all 56 orders of 3 rows among 8, two-sided, for two arms."""
    orders = [np.isin(np.arange(8), where).astype(int) for where in combinations(range(8), 3)]
    runs = {a: [len(list(filter(None, "".join(map(str, o)).split(str(1 - a))))) for o in orders] for a in (0, 1)}
    for i, order in enumerate(orders):
        tails = [min(np.mean(np.array(r) <= r[i]), np.mean(np.array(r) >= r[i])) for r in runs.values()]
        p, _, _ = sequential.order_p(order, 2)
        assert p == pytest.approx(min(4.0 * min(tails), 1.0))


def test_rows_by_arm_and_rows_in_turn_are_no_order_of_chance() -> None:
    """1,000 rows of three unequal arms, 300 times: no false alarm at 1e-3 in more than 6 (1 − 1e-6)."""
    rng = np.random.default_rng(4)
    arms = [rng.choice(3, 1000, p=[0.8, 0.15, 0.05]) for _ in range(300)]
    assert sum(sequential.order_p(arm, 3)[0] < 1e-3 for arm in arms) <= 6
    assert sequential.order_p(np.sort(arms[0]), 3)[0] < 1e-50
    p, _, grouped = sequential.order_p(np.arange(1000) % 3, 3)
    assert p < 1e-50
    assert not grouped
    assert sequential.order_p(np.zeros(9, dtype=np.int64), 1)[0] == 1.0


def test_rows_in_order_say_more_than_their_totals() -> None:
    """Known shares and an order are worth something: at 20,000 people, rates of 5 and 6 %."""
    rng = np.random.default_rng(3)
    arm = rng.integers(0, 2, 20_000)
    yes = (rng.random(20_000) < 0.05 + 0.01 * arm).astype(float)
    rates = [ArmRate(yes[arm == a].sum(), (arm == a).sum()) for a in range(2)]
    rows = sequential.betting(arm, yes, np.array([0.5, 0.5]), (1, 0))
    totals = sequential.beta_binomial(rates[1], rates[0])
    assert rows.high - rows.low < 0.8 * (totals.high - totals.low)
    assert rows.value == pytest.approx(totals.value, abs=0.002)
