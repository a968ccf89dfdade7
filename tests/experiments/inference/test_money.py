"""Net gain: probability of losing, expected loss and value of a week, against draws of what they say."""

import numpy as np
import pytest
from scipy import integrate, stats

from experiments.inference.intervals import Interval
from experiments.inference.money import DecisionTimes, NetGain
from experiments.reports.report import plain_gain

DAY = 86_400_000_000
DRAWS = 4_000_000


@pytest.mark.parametrize(("mean", "error"), [(0.4, 0.3), (0.05, 0.3), (-0.2, 0.3), (0.8, 0.4)])
def test_risk_and_value_of_a_week_are_those_of_draws(mean: float, error: float) -> None:
    """The true gain is drawn from what is known, a week of data from it, and the better choice is taken: false alarm
    ≤ 1e-6 at five standard errors of the draws.
    """
    n, rate, rng = 9000, 600.0, np.random.default_rng(19)
    gain = NetGain(Interval(mean, mean - 2 * error, mean + 2 * error, n), error, rate, "EUR")
    truth = rng.normal(mean, error, DRAWS)
    lost = np.maximum(-truth, 0.0)
    assert gain.expected_loss is not None
    assert gain.p_loss == pytest.approx((truth < 0.0).mean(), abs=5 * 0.5 / DRAWS**0.5)
    assert gain.expected_loss == pytest.approx(lost.mean(), abs=5 * lost.std() / DRAWS**0.5)

    more = 7.0 * rate
    seen = rng.normal(truth, error * (n / more) ** 0.5)  # the mean of the week's decisions
    after = (n * mean + more * seen) / (n + more)
    worth = np.where(after > 0.0, truth, 0.0) - (truth if mean > 0.0 else 0.0)
    week = gain.week
    assert week is not None
    assert week.decisions == more
    assert week.value == pytest.approx(worth.mean(), abs=5 * worth.std() / DRAWS**0.5)
    assert week.changes == pytest.approx(((after > 0.0) != (mean > 0.0)).mean(), abs=5 * 0.5 / DRAWS**0.5)
    assert week.narrower == pytest.approx((n / (n + more)) ** 0.5)
    assert gain.metrics["week_value"] == pytest.approx(30.0 * rate * week.value)
    assert 0.0 < week.value < gain.expected_loss + max(-mean, 0.0) + 1e-12, "less than knowing the truth"


def test_what_is_sure_costs_nothing_to_know_and_what_is_not_known_is_left_out() -> None:
    tie = NetGain(Interval(0.0, 0.0, 0.0, 50), 0.0, 100.0, "EUR")
    assert (tie.p_loss, tie.expected_loss) == (0.0, 0.0)
    assert tie.week is not None
    assert (tie.week.value, tie.week.changes) == (0.0, 0.0)
    surely = NetGain(Interval(-2.0, -2.0, -2.0, 50), 0.0, None, "EUR")
    assert (surely.p_loss, surely.expected_loss, surely.week, surely.month) == (1.0, 2.0, None, None)
    nothing = NetGain(Interval(float("nan"), -np.inf, np.inf, 0), None, None, "EUR")
    assert nothing.metrics == {}
    far = NetGain(Interval(1.0, 0.9, 1.1, 10**6), 0.01, 10.0, "EUR")
    assert far.expected_loss == 0.0
    assert far.week is not None
    assert far.week.value == 0.0


def test_a_month_is_thirty_days_of_the_measured_rate() -> None:
    at = np.arange(0, 4 * DAY + 1, DAY // 100)
    times = DecisionTimes.of(at[300:]) + DecisionTimes() + DecisionTimes.of(at[:300])
    assert times.daily == pytest.approx(100.0)
    gain = NetGain(Interval(0.5, 0.4, 0.6, 401), 0.05, times.daily, "EUR")
    assert gain.month == pytest.approx((1500.0, 1200.0, 1800.0, 401))
    assert "or +1,500 EUR a month [+1,200, +1,800] at 100 decisions a day" in gain.sentence
    assert DecisionTimes.of(at[:50]).daily is None, "half a day says nothing of a month"
    assert DecisionTimes.of(at[:1]).daily is None
    assert DecisionTimes.of(at[:0]).daily is None


@pytest.mark.parametrize("n", [2, 3, 5, 40])
@pytest.mark.parametrize("mean", [-0.4, 0.05, 0.17, 2.0])
def test_few_seeds_are_as_unsure_of_the_sign_as_their_interval_is(n: int, mean: float) -> None:
    """Below 2.5 % just where the interval at 95 % is above 0; a normal law would say less than 0.1 % of two seeds whose
    interval holds 0.
    """
    half = 0.1 * float(stats.t.ppf(0.975, n - 1))
    gain = plain_gain(Interval(mean, mean - half, mean + half, n), "EUR")
    assert gain.p_loss is not None
    assert (gain.p_loss < 0.025) == (mean - half > 0.0)
    assert (gain.p_loss > 0.975) == (mean + half < 0.0)


@pytest.mark.parametrize(("n", "mean"), [(3, 0.1), (6, -0.2), (40, 0.05)])
def test_the_expected_loss_of_few_seeds_is_the_integral_of_students_law(n: int, mean: float) -> None:
    half = 0.1 * float(stats.t.ppf(0.975, n - 1))
    gain = plain_gain(Interval(mean, mean - half, mean + half, n), "EUR")
    law = stats.t(n - 1, loc=mean, scale=0.1)
    wanted, _ = integrate.quad(lambda x: -x * law.pdf(x), -np.inf, 0.0)
    assert gain.expected_loss == pytest.approx(wanted, rel=1e-6)


def test_two_seeds_have_no_expected_loss_and_say_none() -> None:
    gain = plain_gain(Interval(0.17, -0.11, 0.45, 2), "EUR")
    assert gain.expected_loss is None
    assert "exp_loss" not in gain.metrics
    assert gain.risk == "it loses money with probability 4.1 %"
