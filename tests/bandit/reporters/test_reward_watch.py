"""The reward watch: how often it accuses an honest key, how soon a forger, and that batches do not matter."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.reporters import reward_watch
from bandit.reporters.reward_watch import BASELINE, LEVEL, ArmBaseline, KeyEvidence, RewardWatch, WatchedReward, scan

RATES = {"none": 0.10, "tip": 0.14, "call": 0.05}


def honest(rng: np.random.Generator, n: int, shares: dict[str, float], rise: float = 1.0) -> list[WatchedReward]:
    """Decisions of three arms at their rates, rewards reported by the keys in their shares. `rise`: factor of the odds
    once every arm has its baseline.
    """
    arms, names = list(RATES), list(shares)
    drawn, who, chance = (rng.integers(len(arms), size=n), rng.choice(names, n, p=list(shares.values())), rng.random(n))
    rows = []
    for i in range(n):
        odds = RATES[arms[drawn[i]]] / (1.0 - RATES[arms[drawn[i]]]) * (rise if i >= 6 * BASELINE else 1.0)
        reward = float(chance[i] < odds / (1.0 + odds))
        rows.append(WatchedReward(i + 1, i, arms[drawn[i]], reward, frozenset([str(who[i])] if reward else [])))
    return rows


@pytest.mark.parametrize("rise", [1.0, 1.5])
def test_an_honest_key_is_accused_with_a_chance_of_one_percent_at_most(rise: float) -> None:
    """500 stages of 1,500 decisions with two keys, 1,000 keys. False alarm of this test ≤ 1e-6: of 1,000 keys that are
    accused with 1 % each, 29 or more are with 4e-7. Detects a chance of 6 % with probability 1 − 1e-6. The odds of all
    arms may rise by a half, which the watch allows.
    """
    rng, accused = np.random.default_rng(11), 0
    for _ in range(500):
        found = scan(RewardWatch(), honest(rng, 1500, {"web": 0.7, "till": 0.3}, rise))
        accused += len({alarm.reporter for alarm in found.alarms})
    assert accused < 29


def test_the_evidence_crosses_its_threshold_with_the_chance_that_it_says() -> None:
    """1,000 keys whose mean reward is just what is allowed, looked at after each of 300 decisions: the e-process
    exceeds 20 with a chance of 5 % at most. False alarm of this test ≤ 1e-6: 88 or more of 1,000; detects a chance of
    13 % with probability 1 − 1e-5.
    """
    rng, allowed, crossed = np.random.default_rng(8), 0.3, 0
    for z in (rng.random((1000, 300)) < allowed).astype(float).tolist():
        found = reward_watch.KeyEvidence()
        for reward in z:
            found = reward_watch._weighed(found, allowed, reward)
            if found.e_value >= 20.0:
                crossed += 1
                break
    assert crossed < 88


@pytest.mark.parametrize("allowed", [0.1, 0.3])
def test_an_alarm_is_raised_at_the_threshold_of_its_level_and_not_before(allowed: float) -> None:
    """1,000 keys that bring just what is allowed, the worst that an honest key may, for the first arm that has a
    baseline: each is accused within 100 decisions with a chance of half that arm's share of the level, 0.125 %, at
    most. False alarm of this test ≤ 1e-6: 10 or more of 1,000 are with 8e-7. Detects a chance of 3.5 % with probability
    1 − 1e-6; at a threshold a hundred times lower it is 7 % or more.
    """
    chance = LEVEL / 2.0 * reward_watch._share(1) / 2.0
    assert chance == pytest.approx(0.00125)
    rng, accused = np.random.default_rng(8), 0
    begun = RewardWatch({"call": ArmBaseline(BASELINE, 0.0, 1, allowed)}, {"call": {"web": KeyEvidence()}})
    for rewards in (rng.random((1000, 100)) < allowed).astype(float).tolist():
        rows = [WatchedReward(i, i, "call", r, frozenset(["web"] if r else [])) for i, r in enumerate(rewards, 1)]
        accused += bool(scan(begun, rows).alarms)
    assert accused < 10


def forged(rng: np.random.Generator, share: float) -> tuple[list[WatchedReward], int]:
    """An honest stage, into which a forger comes after 1,200 decisions: each decision is, with probability `share`, the
    forger's, for `call`, and rewarded. Returns the rows and the number of the first forged one.
    """
    rows, out = honest(rng, 2400, {"web": 1.0}), list[WatchedReward]()
    for row in rows:
        out.append(row._replace(seq=len(out) + 1))
        if row.seq > 1200 and rng.random() < share / (1.0 - share):
            out.append(WatchedReward(len(out) + 1, row.at, "call", 1.0, frozenset(["forger"])))
    return out, 1200


def test_a_forger_is_accused_within_so_many_forged_rewards() -> None:
    """A third of the decisions are forged rewards for an arm that is shown in as many others. In each of 200 stages the
    forger is accused before anybody else: a chance of 7 % to miss would be seen with probability 1 − 1e-6. Fixed seed,
    so the numbers are the same on any machine.
    """
    rng, needed = np.random.default_rng(3), []
    for _ in range(200):
        rows, first = forged(rng, 1 / 3)
        found = scan(RewardWatch(), rows)
        alarm = found.alarms[0]
        assert (alarm.reporter, alarm.arm) == ("forger", "call")
        mine = [row for row in rows if first < row.seq <= alarm.through and "forger" in row.reporters]
        needed.append(len(mine))
    assert np.median(needed) <= 25
    assert np.quantile(needed, 0.9) <= 45
    assert max(needed) <= 80


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 2500), max_size=6))
def test_batches_do_not_matter(cuts: list[int]) -> None:
    rows, _ = forged(np.random.default_rng(5), 1 / 3)
    whole, parts = scan(RewardWatch(), rows), RewardWatch()
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, end in itertools.pairwise(edges):
        parts = scan(parts, rows[start:end])
    assert parts == whole
    assert whole.alarms


def test_the_evidence_is_a_fair_bet_where_the_mean_is_just_allowed() -> None:
    """The expected value after one more decision is the value before, by the closed form over Z ∈ {0, 1}; any Z in
    between of the same mean gives less.
    """
    allowed = 0.3
    found = reward_watch.KeyEvidence(4, 2.0, (0.5, 1.5, 7.0))
    one, zero = (reward_watch._weighed(found, allowed, z).e_value for z in (1.0, 0.0))
    assert allowed * one + (1.0 - allowed) * zero == pytest.approx(found.e_value, rel=1e-12)
    assert reward_watch._weighed(found, allowed, allowed).e_value < found.e_value


@pytest.mark.parametrize(("mean", "n", "delta"), [(0.05, 50, 1e-3), (0.0, 50, 1e-3), (0.9, 20, 0.05), (0.98, 50, 0.01)])
def test_what_is_usual_has_the_confidence_that_it_says(mean: float, n: int, delta: float) -> None:
    """Of a true mean at the bound, so few rewards come with probability δ at most (the exact binomial)."""
    bound = reward_watch._upper(mean, n, delta)
    assert mean <= bound < 1.0
    few = math.fsum(math.comb(n, i) * bound**i * (1.0 - bound) ** (n - i) for i in range(round(mean * n) + 1))
    assert few <= delta + 1e-9


def test_levels_of_all_arms_and_alarms_add_up_to_the_whole() -> None:
    arms = math.fsum(reward_watch._share(place) for place in range(1, 10_000))
    epochs = math.fsum(2.0 ** -(number + 1) for number in range(60))
    assert arms <= 1.0 + 1e-12
    assert epochs <= 1.0 + 1e-12


def test_after_an_alarm_what_is_usual_is_seen_anew() -> None:
    rows, _ = forged(np.random.default_rng(5), 1 / 3)
    found = scan(RewardWatch(), rows)
    last = found.alarms[-1].through
    after = [row for row in rows if row.seq > last]
    assert sum(base.decisions for base in found.arms.values()) <= len(after)
    assert len(found.alarms) == len({alarm.through for alarm in found.alarms})
