"""The guard fits the kind of reward: Bernoulli's for yes or no, the residual variance for others, and it merges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.inference.dispersion import Dispersion
from experiments.inference.intervals import Moments, interval, standard_error
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from experiments.promotion.lift_monitor import HOLDOUT, monitor

ARM, FIRST = EvaluationPolicy("fixed:1", FixedArm(1)), EvaluationPolicy("fixed:0", FixedArm(0))


def narrow(n: int = 1000) -> LoggedRounds:
    """Rewards of 50 or 51, ± 1, with a good q̂."""
    rng = np.random.default_rng(1)
    action, half = rng.integers(0, 2, n), np.full((n, 2), 0.5)
    reward = 50.0 + action + rng.normal(0.0, 1.0, n)
    return LoggedRounds(action, reward, half[:, 0], propensities=half, q_hat=np.tile([50.0, 51.0], (n, 1)))


def test_a_wide_range_does_not_widen_what_the_data_know() -> None:
    """The declared range changes an interval by less than 3 %; the true half-width is 1.96 √(2/1000) = 0.088."""
    rounds = narrow()._replace(segment=np.where(np.arange(1000) % 2 == 0, "a", "b"))
    spans = (RewardRange(0.0, 100.0), RewardRange(0.0, 1e6))
    found = [
        core.evaluate([chunked(rounds)], EvaluationConfig((ARM,), (FIRST,), rewards=r, follow=False))[0] for r in spans
    ]
    (without,) = core.evaluate(
        [chunked(rounds._replace(q_hat=rounds.q_hat))], EvaluationConfig((ARM,), (FIRST,), follow=False)
    )
    for one in found:
        for mine, other, half in (
            (one.estimates["dr"], without.estimates["dr"], 0.088),
            (one.contrasts["fixed:0"], without.contrasts["fixed:0"], 0.124),
        ):
            width = mine.interval[1] - mine.interval[0]
            assert width == pytest.approx(2 * half, rel=0.12)
            assert width == pytest.approx(other.interval[1] - other.interval[0], rel=0.03)
        assert one.segments is not None
        for segment in one.segments.segments:
            assert segment.joint.high - segment.joint.low < 0.6


def test_the_lift_over_the_holdout_is_as_narrow() -> None:
    """1,000 rewards of 50 ± 1, a fifth in the holdout: standard error 1/√160 about; Bernoulli's guard would say 3."""
    rounds, rng = narrow(), np.random.default_rng(2)
    held = rng.random(1000) < 0.2
    at = np.arange(1000)
    rounds = rounds._replace(holdout=held, holdout_share=np.full(1000, 0.2), at=at, user=at, version=np.ones_like(at))
    low, high = monitor(chunked(rounds), RewardRange(0.0, 100.0)).lift.contrasts[HOLDOUT].interval
    assert high - low < 0.5


def test_the_ratio_is_the_residual_variance_over_bernoullis() -> None:
    rounds = narrow()
    assert rounds.q_hat is not None
    q = rounds.q_hat[np.arange(1000), rounds.action]
    found = Dispersion.of(rounds.reward, q, RewardRange(0.0, 100.0))
    assert not found.binary
    assert found.ratio == pytest.approx(1.0 / (100.0**2 * 0.25), rel=0.15)
    yes = Dispersion.of(np.array([0.0, 1.0, 1.0]), np.full(3, 0.5), RewardRange(0.0, 1.0))
    assert (yes.binary, yes.ratio) == (True, 1.0)
    assert Dispersion.of(np.array([0.0, 3.0]), np.array([0.1, 0.1]), RewardRange(0.0, 3.0)).binary
    assert Dispersion.of(np.array([0.5]), None, RewardRange(0.0, 1.0)).ratio == 1.0


@given(st.integers(0, 1000))
def test_parts_add_up(cut: int) -> None:
    reward, q = narrow().reward, np.full(1000, 50.0)
    whole = Dispersion.of(reward, q, RewardRange(0.0, 100.0))
    parts = [Dispersion.of(reward[s], q[s], RewardRange(0.0, 100.0)) for s in (slice(0, cut), slice(cut, 1000))]
    merged = parts[0] + parts[1]
    assert merged.binary == whole.binary
    assert merged.ratio == pytest.approx(whole.ratio)
    assert merged.n == whole.n
    assert merged.square == pytest.approx(whole.square)


def test_the_guard_matters_for_few_rounds_and_heavy_tails_only() -> None:
    """A model variance four times the sample's: all of it at 10 rounds, a hundredth at 1,000, more under tails."""

    def widened(phi: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        n, square = len(phi), float(phi.var(ddof=1))
        zero = np.zeros(n)
        return standard_error(Moments.of(phi, zero, zero, zero).with_variance(n * 4.0 * square)) ** 2 * n / square

    even = np.tile([-1.0, 1.0], 500)
    assert widened(even[:10]) == pytest.approx(4.0)
    assert widened(even) == pytest.approx(1.0 + 3.0 * 10 / 1000)
    spiked = np.zeros(1000)
    spiked[:10] = 1.0  # κ₄ = 98.01, γ² = 97.01
    assert widened(spiked) == pytest.approx(1.0 + 3.0 * (10 + 4 * 97.01) / 1000, rel=0.01)
    spiked[10:20] = -1.0  # as in a difference: the tails' skewness cancels, and their kurtosis of 50 does not
    assert widened(spiked) == pytest.approx(1.0 + 3.0 * (10 + 4 * 49.0) / 1000, rel=0.01)


def test_rewards_without_a_declared_range_are_guarded_by_what_varies_around_the_model() -> None:
    """Amounts of which nearly all of an arm's variance has not come yet: four arms tell what the fifth does not."""
    rng = np.random.default_rng(4)
    action, fifth = rng.integers(0, 5, 60), np.full((60, 5), 0.2)
    reward = 100.0 + np.where(action == 1, 0.01, 10.0) * rng.normal(0.0, 1.0, 60)
    rounds = LoggedRounds(action, reward, fifth[:, 0], propensities=fifth, q_hat=np.full((60, 5), 100.0))
    (found,) = core.evaluate([chunked(rounds)], EvaluationConfig((ARM,), (FIRST,), follow=False, force=True))
    low, high = found.estimates["dr"].interval
    spread = float(np.sqrt(((reward - 100.0) ** 2).mean()))
    assert high - low > 0.3 * 2.0 * 1.96 * spread * np.sqrt(5.0 / 60)
    assert any("range of rewards was not declared" in note for note in found.notes)


def test_rewards_that_are_all_equal_say_nothing_unless_they_are_yes_or_no() -> None:
    phi, zero = np.full(50, 40.0), np.zeros(50)
    moments = Moments.of(phi, zero, zero, zero).with_variance(0.0)
    assert interval(moments, bounds=(0.0, 100.0))[1:3] == (0.0, 100.0)
