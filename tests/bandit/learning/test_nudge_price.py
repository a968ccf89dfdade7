"""The price of a nudge: exact in any order, right where the naive regression is not."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy import integrate, special, stats

from bandit.arrays import Array, Mask
from bandit.learning import nudge_price
from bandit.learning.nudge_price import (
    EarlierDecisions,
    NudgePrice,
    NudgeSums,
    RecentNudges,
    SettledNudges,
    learned,
    prices,
    recent,
)

DAY = 86_400_000_000
LOGS, ENOUGH = 200, 172
"""Of 200 intervals of 95 %, fewer than 172 hold the truth with probability 6e-8; of intervals that hold it three times
in four, 172 or more do with probability 5e-5.
"""


class TargetedLog(NamedTuple):
    """Decisions of people to whom nudges are aimed, with what they found of their persons' past."""

    settled: SettledNudges
    found: RecentNudges


def targeted(seed: int, tires: float, aims: float, people: int = 400, visits: int = 12) -> TargetedLog:
    """Log of people with habits u ~ N(0, 0.8²) of their own, who come every one to six days. The policy nudges with
    probability σ(aims·u), knows nothing of u in what it expects, and each recent nudge takes `tires` logits.
    """
    rng = np.random.default_rng(seed)
    u = rng.normal(0.0, 0.8, people)
    day = rng.integers(1, 7, (people, visits)).cumsum(axis=1)
    p = np.clip(special.expit(aims * u), 0.1, 0.9)[:, None] * np.ones((1, visits))
    nudge, fatigue = rng.random((people, visits)) < p, np.zeros((people, visits))
    for i in range(1, visits):
        kept = 0.85 ** (day[:, i] - day[:, i - 1])
        fatigue[:, i] = kept * (fatigue[:, i - 1] + nudge[:, i - 1])
    chance = special.expit(-1.0 + u[:, None] + 0.2 * nudge - tires * fatigue)
    reward = (rng.random((people, visits)) < chance).astype(np.float64)
    expected = np.where(nudge, 0.32, 0.29)  # wrong about most people
    parts = []
    for i in range(visits):
        none = np.zeros((people, i), dtype=bool)
        earlier = EarlierDecisions(day[:, :i] * DAY, nudge[:, :i], p[:, :i], none, ~none)
        no = np.zeros(people, dtype=bool)
        parts.append(recent(day[:, i] * DAY, earlier, no, no, np.full(people, float(DAY))))
    found = RecentNudges._make(map(np.concatenate, zip(*parts, strict=True)))
    return TargetedLog(SettledNudges(nudge.T.ravel(), reward.T.ravel(), expected.T.ravel()), found)


def estimate(log: TargetedLog, *, naive: bool = False) -> NudgePrice:
    found, weight = log.found, log.settled.expected * (1.0 - log.settled.expected)
    if naive:
        found = found._replace(centred=found.nudges - (weight * found.nudges).sum() / weight.sum())
    return learned(NudgeSums().plus(log.settled, found), 0.3)


def z_scores(tires: float, aims: float, *, naive: bool = False) -> Array:
    made = [estimate(targeted(seed, tires, aims), naive=naive) for seed in range(LOGS)]
    return np.array([((one.tired or 0.0) - tires) / (one.sd or np.inf) for one in made])


@pytest.mark.parametrize("aims", [-1.5, 0.0, 1.5])
@pytest.mark.parametrize("tires", [0.0, 0.1])
def test_its_interval_holds_the_truth_whoever_nudges_are_aimed_at(tires: float, aims: float) -> None:
    """200 logs of 4,800 decisions. False alarm ≤ 1e-7 (see ENOUGH); and the mean error is within 5 standard errors."""
    z = z_scores(tires, aims)
    assert (np.abs(z) <= stats.norm.ppf(0.975)).sum() >= ENOUGH
    assert abs(z.mean()) <= 5.0 / np.sqrt(LOGS)


@pytest.mark.parametrize("aims", [-1.5, 1.5])
def test_the_naive_regression_takes_targeting_for_fatigue(aims: float) -> None:
    """The same logs, recent nudges as they are: fewer than one interval in ten holds the truth, and the error has the
    sign of the aim.
    """
    z = z_scores(0.0, aims, naive=True)
    assert (np.abs(z) <= stats.norm.ppf(0.975)).mean() < 0.1
    assert np.sign(z.mean()) == -np.sign(aims)


def test_order_and_batches_change_no_bit() -> None:
    log, rng = targeted(1, 0.05, 1.0), np.random.default_rng(0)
    whole = NudgeSums().plus(log.settled, log.found)
    order = rng.permutation(len(log.settled.reward))
    parts = NudgeSums()
    for rows in np.array_split(order, 7):
        parts = parts.plus(SettledNudges._make(part[rows] for part in log.settled), log.found.only(rows))
    assert parts == whole
    assert learned(parts, 0.3) == learned(whole, 0.3)
    assert NudgeSums().plus(log.settled, log.found).decisions == len(order)


def test_the_order_of_earlier_decisions_changes_no_bit() -> None:
    rng = np.random.default_rng(2)
    at, p = rng.integers(0, 40 * DAY, (5, 30)), rng.random((5, 30))
    earlier = EarlierDecisions(at, rng.random((5, 30)) < p, p, rng.random((5, 30)) < 0.1, rng.random((5, 30)) < 0.9)
    other = rng.permutation(30)
    no, day = np.zeros(5, dtype=bool), np.full(5, float(DAY))
    now = np.full(5, 40 * DAY)
    one = recent(now, earlier, no, no, day)
    two = recent(now, EarlierDecisions._make(part[:, other] for part in earlier), no, no, day)
    for left, right in zip(one, two, strict=True):
        assert np.array_equal(left, right)
    by_hand = (0.85 ** ((40 * DAY - at) / DAY) * (earlier.nudge - p) * earlier.there).sum(axis=1)
    assert one.centred == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("prior_mean", [0.05, 0.1, 0.3, 0.5])
def test_without_data_it_is_about_the_default_price(prior_mean: float) -> None:
    found = learned(NudgeSums(), prior_mean)
    assert 0.035 <= found.price / (prior_mean * (1.0 - prior_mean)) <= 0.06
    assert found.low == 0.0
    assert found.tired is None
    assert found.evidence.startswith("0 settled decisions of 0 people do not tell yet")


@pytest.mark.parametrize("tires", [0.0, 0.3])
def test_it_rises_with_fatigue_and_its_interval_holds_it(tires: float) -> None:
    found = [estimate(targeted(seed, tires, 1.0, people=1500)) for seed in range(10)]
    assert all(one.low <= one.price <= one.high for one in found)
    middle = float(np.mean([one.price for one in found]))
    assert middle < 0.02 if tires == 0.0 else middle > 0.05


def test_its_evidence_names_decisions_people_and_opt_outs() -> None:
    said = estimate(targeted(3, 0.1, 1.0)).evidence
    assert "4,800 settled decisions of 400 people and 0 opt-outs" in said


def opting_out(leaves: float, hazard: float = 0.05, people: int = 3000, visits: int = 10) -> NudgePrice:
    """Price after people who opt out after a share of nudges, and of whom a share leaves: every two days for ever."""
    rng = np.random.default_rng(7)
    out, gone = np.zeros(people, dtype=bool), np.zeros(people, dtype=bool)
    sums, columns = NudgeSums(), list[tuple[Array, Mask, Array, Mask, Mask]]()
    for i in range(visits):
        here, p = ~gone, np.where(out, 0.0, 0.5)
        nudge = here & (rng.random(people) < p)
        opts = nudge & (rng.random(people) < hazard)
        at = np.full(people, 2 * i * DAY)
        earlier = EarlierDecisions.none(people)
        if columns:
            earlier = EarlierDecisions._make(np.stack([c[k] for c in columns], axis=1) for k in range(5))
        found = recent(at, earlier, opts, np.ones(people, dtype=bool), np.full(people, float(DAY))).only(here)
        reward = (rng.random(people) < 0.3).astype(np.float64)[here]
        sums = sums.plus(SettledNudges(nudge[here], reward, np.full(len(reward), 0.3)), found)
        columns.append((at, nudge, p, opts, here))
        out |= opts
        gone |= opts & (rng.random(people) < leaves)
    return learned(sums, 0.3)


def test_opt_outs_and_those_who_leave_are_priced() -> None:
    """3,000 people: the share of nudges that make people opt out within 0.01, of those who leave within 0.1."""
    none, some, many = (opting_out(leaves) for leaves in (0.0, 0.3, 0.6))
    for found, leaves in ((none, 0.0), (some, 0.3), (many, 0.6)):
        assert found.opt_out == pytest.approx(0.05, abs=0.01)
        assert found.leaves == pytest.approx(leaves, abs=0.1)
        gone = 0.05 * leaves * 0.3 * 15.0
        assert found.low <= gone <= found.high
    assert none.price < some.price < many.price


def test_prices_of_the_loss_account_follow_opt_outs() -> None:
    plain = prices(None, 0.2)
    assert plain.policy == pytest.approx(0.04 * 0.16)  # nothing is known: as if it were usual
    usual = learned(NudgeSums(decisions=9, nudges=10_000, opt_outs=100, usual=100.0), 0.2)
    often = learned(NudgeSums(decisions=9, nudges=10_000, opt_outs=400, usual=100.0), 0.2)
    assert prices(usual, 0.2).policy == pytest.approx(0.04 * 0.16, rel=0.01)
    assert prices(often, 0.2).policy / prices(usual, 0.2).policy == pytest.approx(4.0, rel=0.02)
    assert prices(often, 0.2).account / prices(usual, 0.2).account == pytest.approx(8.0, rel=0.03)


@pytest.mark.parametrize(("beta", "sd"), [(-0.1, 0.045), (0.2, 0.1), (-0.01, 0.005), (0.0, 3.0)])
def test_the_posterior_is_that_of_both_parts_of_the_prior(beta: float, sd: float) -> None:
    def density(b: float) -> float:
        prior = 0.9 * stats.norm.pdf(b, -0.01, 0.03) + 0.1 * stats.norm.pdf(b, -0.05, 0.1)
        return float(prior * stats.norm.pdf(beta, b, sd))

    whole = integrate.quad(density, -1.0, 1.0, points=[beta, 0.0], limit=200)[0]
    tiring = integrate.quad(lambda b: -b * density(b), -1.0, 0.0, points=[-0.01], limit=200)[0] / whole
    parts = nudge_price._after(nudge_price._USUALLY, beta, sd)
    assert nudge_price._tiring(parts) == pytest.approx(tiring, rel=1e-4, abs=1e-7)
    level = integrate.quad(density, -1.0, -nudge_price._quantile(parts, 0.3), points=[-0.01], limit=200)[0] / whole
    assert level == pytest.approx(0.7, abs=1e-4)


def test_the_normal_law_is_good_to_seven_digits() -> None:
    z = np.linspace(-9.0, 9.0, 1001)
    assert np.array([nudge_price._below(float(v)) for v in z]) == pytest.approx(stats.norm.cdf(z), abs=1e-7)
