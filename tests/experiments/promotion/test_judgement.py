"""The verdict on a judged candidate: nothing before the declared number, one answer from then on, and it covers."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from bandit.arrays import Array
from bandit.catalogue.net_value import ArmWorth
from bandit.errors import InvalidRequest
from bandit.propensity.floor import apportioned_many
from bandit.propensity.mixture import half_and_half
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.ope.evaluation_policies import JudgedCandidate, JudgedLive
from experiments.promotion.judgement import LIVE, Judgement, judgement

K, DECLARED, RUNS = 4, 800, 400
RATES = np.array([0.10, 0.16, 0.06, 0.12])
WHOLE = RewardRange(0.0, 1.0)


def log(n: int, seed: int, lift: float | None = None) -> tuple[LoggedRounds, float]:
    """n decisions of a mixture, in contexts that change both policies, and the mean of the candidate's true lift. Rates
    are moved along δ/p so that it is `lift`, if one is given.
    """
    rng = np.random.default_rng(seed)
    may = np.ones((n, K), dtype=np.bool_)
    live, mine = (apportioned_many(rng.dirichlet(np.full(K, a), n), 0.01, may) for a in (1.0, 0.4))
    p = half_and_half(live, mine)
    rates = np.clip(RATES + rng.normal(0.0, 0.03, (n, 1)), 0.01, 0.5)
    delta = mine - live
    if lift is not None:
        tilt = delta / p
        rates = rates + tilt * ((lift - (delta * rates).sum(axis=1).mean()) / (delta * tilt).sum(axis=1).mean())
    action = (rng.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, K - 1)
    each = np.arange(n)
    reward = (rng.random(n) < rates[each, action]).astype(np.float64)
    q_hat = np.clip(rates + rng.normal(0.0, 0.04, (n, K)), 0.0, 1.0)
    found = LoggedRounds(
        action=action, reward=reward, pscore=p[each, action], propensities=p, q_hat=q_hat, candidate=mine
    )
    return found, float((delta * rates).sum(axis=1).mean())


def judged(rounds: LoggedRounds, declared: int, worth: ArmWorth | None = None) -> Judgement:
    return judgement(chunked(rounds, 300), declared, len(rounds.reward), WHOLE, worth)


def test_the_other_half_is_what_the_live_policy_would_have_drawn_from() -> None:
    rounds, _ = log(500, 1)
    live = JudgedLive()(rounds)
    assert rounds.propensities is not None
    np.testing.assert_allclose(0.5 * (live + JudgedCandidate()(rounds)), rounds.propensities, atol=2.0**-22)
    with pytest.raises(InvalidRequest, match="candidate"):
        JudgedLive()(rounds._replace(candidate=None))


def test_before_the_declared_number_there_is_no_interval_to_peek_at() -> None:
    """Too few decisions, and enough of which one has no reward yet: the sequence alone, and how far it is."""
    rounds, _ = log(DECLARED, 2)
    open_ = rounds._replace(reward=np.where(np.arange(DECLARED) == DECLARED - 40, np.nan, rounds.reward))
    for found, words in (
        (judged(rounds.only(slice(500)), DECLARED), "500 of 800 decisions: no verdict before that"),
        (judged(open_, DECLARED), "800 of 800 decisions, 40 of them without a final reward: no verdict before that"),
        (judged(rounds.only(slice(0)), DECLARED), "0 of 800 decisions: no verdict before that"),
    ):
        assert (found.verdict, found.saved) == (None, None)
        assert found.progress == words
        if found.sequence is not None:
            contrast = found.sequence.contrasts[LIVE]
            assert contrast.interval == (-np.inf, np.inf)
            assert np.isnan(contrast.value)
            assert contrast.sequence is not None
            assert found.sequence.estimates == {}


def test_at_the_declared_number_the_interval_is_that_of_the_terms_by_hand() -> None:
    """The lift is the mean of φ, net of costs, and the sequence is left out of the verdict."""
    rounds, _ = log(DECLARED, 3)
    worth = ArmWorth(np.full(K, 20.0), np.array([0.0, 0.5, 0.2, 0.1]))
    found = judged(rounds, DECLARED, worth=worth)
    assert found.verdict is not None
    assert rounds.propensities is not None
    assert rounds.candidate is not None
    assert rounds.q_hat is not None
    each, delta = np.arange(DECLARED), 2.0 * (rounds.candidate - rounds.propensities)
    q, r = worth.net(rounds.q_hat), worth.net(rounds.reward, rounds.action)
    weight = delta[each, rounds.action] / rounds.pscore
    assert abs(weight).max() <= 2.0 + 1e-6
    phi = (delta * q).sum(axis=1) + weight * (r - q[each, rounds.action])
    lift = found.verdict.contrasts[LIVE]
    assert lift.value == pytest.approx(phi.mean(), abs=1e-6)
    assert lift.sequence is None
    plain = weight * (r - r.mean())
    assert found.saved == pytest.approx(1.0 - phi.var() / plain.var(), abs=1e-4)
    assert "the verdict is final" in found.sentence("EUR per decision")


def ends(seed: int, lift: float | None) -> Array:
    """Interval at the declared number, and the truth."""
    rounds, truth = log(DECLARED, seed, lift)
    found = judged(rounds, DECLARED).verdict
    assert found is not None
    return np.array([*found.contrasts[LIVE].interval, truth])


@pytest.mark.parametrize("lift", [0.0, 0.03])
def test_the_interval_at_the_declared_number_covers(lift: float) -> None:
    """False alarm ≤ 1e-6: at a coverage of 0.95 fewer than `least` of 400 runs cover with less than that probability.
    Detects a coverage of 0.85 with probability ≥ 0.97, and the most that can be hidden the other way is shown too: an
    interval is found twice as wide as it need be, because it would then miss in at most 1 of 400 runs.
    """
    found = np.array([ends(seed, lift) for seed in range(RUNS)])
    low, high, truth = found.T
    covered = int(((low <= truth) & (truth <= high)).sum())
    least = int(stats.binom.ppf(1e-6, RUNS, 0.95))
    assert stats.binom.cdf(least - 1, RUNS, 0.95) <= 1e-6
    assert stats.binom.sf(least - 1, RUNS, 0.85) <= 0.03
    assert covered >= least
    assert covered < RUNS - 1
    np.testing.assert_allclose(truth, lift, atol=1e-9)


def test_a_verdict_needs_a_log_in_which_a_candidate_was_judged() -> None:
    rounds, _ = log(100, 5)
    with pytest.raises(InvalidRequest, match="judge = true"):
        judgement(partial(iter, [rounds._replace(candidate=None)]), 100, 100, WHOLE)
