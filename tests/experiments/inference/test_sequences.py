"""Confidence sequences: never left by the truth, tight enough, the same however the log is cut, valid under drift."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import special, stats

from bandit.arrays import Array
from bandit.errors import InvalidRequest
from experiments.inference.sequences import (
    WEIGHTS_ONLY,
    BettingCapital,
    Sequence,
    SequenceDraws,
    SequenceLevels,
    levels,
)

P = np.array([0.1, 0.02, 0.88])
ARM = np.array([0.0, 0.0, 1.0])
NONE = np.array([1.0, 0.0, 0.0])


def draw(seed: int, shape: tuple[int, ...], rates: Array, p: Array = P) -> SequenceDraws:
    """Logs of a fixed policy; rates (…, n, k) or (k,). q̂ is wrong: 0.1 for every arm."""
    rng = np.random.default_rng(seed)
    action = rng.choice(len(p), shape, p=p)
    chance = np.take_along_axis(np.broadcast_to(rates, (*shape, len(p))), action[..., None], -1)[..., 0]
    columns = np.broadcast_to(p, (*shape, len(p)))
    return SequenceDraws(action, (rng.random(shape) < chance).astype(float), columns, np.full(columns.shape, 0.1))


def policies(rounds: SequenceDraws, *pis: Array) -> list[Array]:
    return [np.broadcast_to(pi, rounds.propensity.shape) for pi in pis]


def lift() -> Sequence:
    return Sequence.of_lift(levels(50.0), levels(10.0))


def test_every_series_is_bounded_below_and_unbiased() -> None:
    """Exact expectation over arms and rewards, for a q̂ that is far off."""
    rates, p, q = np.array([0.3, 0.6, 0.1]), np.array([0.05, 0.9, 0.05]), np.array([0.9, 0.0, 1.0])
    pi, other = np.array([0.5, 0.1, 0.4]), np.array([0.0, 1.0, 0.0])
    outcomes = [(a, r, p[a] * (rates[a] if r else 1 - rates[a])) for a in range(3) for r in (0, 1)]
    actions, rewards, chance = (np.array(part) for part in zip(*outcomes, strict=True))
    rounds = SequenceDraws(actions, rewards.astype(float), np.tile(p, (6, 1)), np.tile(q, (6, 1)))
    start = Sequence.of_lift(
        SequenceLevels((0.0, 0.3, 2.0), (0.0, 1.0, 9.0)), SequenceLevels((0.1, 0.3, 2.0), (0.0, 0.5, 1.0))
    )
    lower, upper = start.series(rounds, *policies(rounds, pi, other))
    assert lower @ chance - 1.0 == pytest.approx([(pi - other) @ rates] * 3)
    assert 1.0 - upper @ chance == pytest.approx([(pi - other) @ rates] * 3)
    assert (lower.min(axis=1) >= -np.array([0.0, 0.8, 3.0])).all()
    assert (upper.min(axis=1) >= -np.array([0.1, 1.3, 11.0])).all()


@pytest.mark.parametrize("past", [0.5, 0.2])
def test_no_bet_is_expected_to_win_under_the_truth(past: float) -> None:
    """E[W(½)] after one more X ∈ {0, 1}, each ½: exactly as before where ŷ is ½ too, less where it is not."""
    bets = BettingCapital.none((0.5, 3.0), 1.0).fed(np.full((2, 9), past))
    before = float(np.exp(bets.log_wealth(0.5)))
    after = [float(np.exp(bets.fed(np.full((2, 1), x)).log_wealth(0.5))) for x in (0.0, 1.0)]
    if past == 0.5:
        assert np.mean(after) == pytest.approx(before, rel=1e-12)
    else:
        assert np.mean(after) < before * (1 - 1e-6)


@pytest.mark.parametrize("cuts", [(), (1,), (300, 4000), (8192, 9000)])
def test_chunks_in_order_are_the_whole(cuts: tuple[int, ...]) -> None:
    rounds = draw(1, (10_000,), np.array([0.03, 0.06, 0.05]))
    edges = [0, *cuts, 10_000]
    found = lift()
    for a, b in pairwise(edges):
        part = rounds.only(slice(a, b))
        found = found.fed(part, *policies(part, ARM, NONE))
    whole = lift().fed(rounds, *policies(rounds, ARM, NONE))
    assert found.interval() == pytest.approx(whole.interval(), abs=1e-9)


def test_parts_of_several_workers_merge_in_any_order() -> None:
    """Each part starts with a ŷ of its own: the sums differ a little from one pass, the width by less than 1 %."""
    rounds = draw(2, (20_000,), np.array([0.03, 0.06, 0.05]))
    cut = [rounds.only(slice(a, a + 4000)) for a in range(0, 20_000, 4000)]
    parts = [lift().fed(part, *policies(part, ARM, NONE)) for part in cut]
    forth, back = sum(parts[1:], parts[0]).interval(), sum(parts[-2::-1], parts[-1]).interval()
    assert forth == pytest.approx(back, abs=1e-12)
    once = lift().fed(rounds, *policies(rounds, ARM, NONE)).interval()
    assert forth.high - forth.low == pytest.approx(once.high - once.low, rel=0.01)


def test_the_path_ends_where_the_bets_do() -> None:
    rounds = draw(3, (500,), np.array([0.1, 0.2, 0.3]))
    x, _ = lift().series(rounds, *policies(rounds, ARM, NONE))
    half = lift().lower.fed(x[:, :200])
    steps = half.steps(x[:, 200:], np.array([1.1]))
    assert steps[-1] == pytest.approx(float(half.fed(x[:, 200:]).log_wealth(1.1)))
    assert steps[0] == pytest.approx(float(half.fed(x[:, 200:201]).log_wealth(1.1)))


def test_it_costs_less_than_two_percent_of_width_against_the_betting_product() -> None:
    """The same bets as Π(1 + λ (X − ν)), evaluated directly, which is valid for a constant mean only."""
    rounds = draw(4, (4000,), np.array([0.03, 0.06, 0.05]))
    start = Sequence.of_value(levels(50.0)).fed(rounds, *policies(rounds, np.array([0.2, 0.3, 0.5])))
    pair = start.series(rounds, *policies(rounds, np.array([0.2, 0.3, 0.5])))
    ends = []
    for bets, x in zip((start.lower, start.upper), pair, strict=True):
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            product = np.log1p(bets.rate[:, None, :] * (x[..., None] - middle)).sum(axis=1) + bets.log_prior
            low, high = (middle, high) if special.logsumexp(product) >= np.log(40) else (low, middle)
        ends.append(low)
    found = start.interval()
    assert 1.0 < (found.high - found.low) / (1.0 - ends[1] - ends[0]) < 1.02


def test_peeking_at_every_step_misses_the_truth_seldom() -> None:
    """1,000 logs × 500 rounds, a rate of 5 % behind weights up to 50. Ville: each side crosses with chance ≤ 2.5 %.

    False alarm: 60 or more crossings of a side have chance < 1e-6 at 2.5 %. Detects a crossing rate of 12 % with
    chance > 1 − 1e-6.
    """
    truth = 0.05
    start = Sequence.of_value(levels(50.0), (1000,))
    crossed = np.zeros((2, 1000), dtype=bool)
    for seed in range(5):
        rounds = draw(100 + seed, (1000, 100), np.full(3, truth))
        series = start.series(rounds, *policies(rounds, np.array([0.0, 1.0, 0.0])))
        for side, (bets, x, mean) in enumerate(
            zip((start.lower, start.upper), series, (truth, 1 - truth), strict=True)
        ):
            crossed[side] |= (bets.steps(x, np.array([[mean]])) >= np.log(40)).any(axis=1)
        start = Sequence(start.levels, *(b.fed(x) for b, x in zip((start.lower, start.upper), series, strict=True)))
    assert stats.binom.sf(59, 1000, 0.025) < 1e-6
    assert stats.binom.cdf(59, 1000, 0.12) < 1e-6
    assert crossed.sum(axis=1).max() < 60
    low, high = start.bounds()
    assert ((low > truth) | (high < truth)).sum() <= crossed.any(axis=0).sum()


def test_under_drift_the_running_mean_is_covered_at_every_step() -> None:
    """Effects turn round halfway; 500 logs × 500 rounds. False alarm < 1e-6 at 2.5 % a side (36 of 500)."""
    time = np.arange(500)
    moved = np.where(time < 250, 0.5, 0.05)[:, None] * np.array([0.2, 1.0, 1.0])
    mean = 1.0 + np.cumsum(moved @ (ARM - NONE)) / (time + 1)
    start = Sequence.of_lift(levels(50.0), levels(10.0), (500,))
    rounds = draw(5, (500, 500), moved)
    lower, upper = start.series(rounds, *policies(rounds, ARM, NONE))
    assert stats.binom.sf(35, 500, 0.025) < 1e-6
    for bets, x, means in ((start.lower, lower, mean), (start.upper, upper, 2.0 - mean)):
        parts = [slice(0, 150), slice(150, 500)]
        crossed = np.zeros(500, dtype=bool)
        for part in parts:
            crossed |= (bets.steps(x[..., part], means[None, part]) >= np.log(40)).any(axis=1)
            bets = bets.fed(x[..., part])  # noqa: PLW2901
        assert crossed.sum() < 36


def test_it_finds_a_lift_and_its_evidence_is_an_e_value() -> None:
    rounds = draw(6, (20_000,), np.array([0.05, 0.05, 0.12]), np.array([0.3, 0.1, 0.6]))
    found = lift().fed(rounds, *policies(rounds, ARM, NONE))
    assert found.interval().low > 0.0
    assert found.lower.log_wealth(found.offset) > np.log(40)
    assert found.lower.log_wealth(0.07 + found.offset) < np.log(40)


def test_a_log_of_weights_alone_has_a_sequence_too() -> None:
    """Propensity and π of the drawn arm only, as a log of one arm."""
    rounds = draw(7, (5000,), np.array([0.2, 0.3, 0.4]), np.array([0.3, 0.3, 0.4]))
    shown = np.take_along_axis(rounds.propensity, rounds.action[:, None], 1)
    pi = np.where(rounds.action == 2, 1.0, 0.0)[:, None]
    alone = SequenceDraws(np.zeros(5000, dtype=int), rounds.reward, shown, np.zeros((5000, 1)))
    found = Sequence.of_value(WEIGHTS_ONLY).fed(alone, pi).interval()
    assert found.low < 0.4 < found.high
    assert found.high - found.low < 0.3
    assert found.value == pytest.approx((pi / shown)[:, 0] @ rounds.reward / 5000)


def test_nothing_seen_is_nothing_known() -> None:
    assert Sequence.of_value(levels(10.0)).interval()[1:] == (0.0, 1.0, 0)
    assert lift().interval()[1:] == (-1.0, 1.0, 0)


def test_rewards_outside_the_range_are_refused_by_name() -> None:
    rounds = draw(8, (10,), np.array([0.2, 0.3, 0.4]))._replace(reward=np.full(10, 2.0))
    with pytest.raises(InvalidRequest, match="reward: rewards from 2 to 2"):
        lift().fed(rounds, *policies(rounds, ARM, NONE))


def test_parts_with_other_levels_do_not_merge() -> None:
    with pytest.raises(InvalidRequest, match="levels"):
        BettingCapital.none((1.0,), 1.0) + BettingCapital.none((2.0,), 1.0)
