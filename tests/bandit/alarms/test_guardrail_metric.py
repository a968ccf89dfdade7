"""Guardrail metrics: how often a nudge within its bound is accused, how soon one that is not, and exact evidence."""

import itertools
import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from bandit.alarms import guardrail_metric
from bandit.alarms.guardrail_metric import GuardrailBound, GuardrailEvidence, e_value_of, lower_bound, scan
from bandit.numerics.arithmetic import exp_of

BOUND = GuardrailBound(most=0.05)


def raised(bound: GuardrailBound, rows: NDArray[np.bool_]) -> int:
    """Number of the decision that raises the alarm, 0 if none does."""
    return scan(bound, GuardrailEvidence(), rows.tolist()).raised


@pytest.mark.parametrize("least", [1, 100])
def test_a_nudge_at_its_bound_is_accused_with_a_chance_of_five_percent_at_most(least: int) -> None:
    """2,000 nudges whose chance of a bad event is just `most`, looked at after each of 1,000 decisions. False alarm of
    this test ≤ 1e-6: of 2,000 that are accused with 5 % each, 150 or more are with 6e-7. Detects a chance of 10.5 %
    with probability 1 − 1e-5.
    """
    assert stats.binom.sf(149, 2000, 0.05) < 1e-6
    assert stats.binom.cdf(149, 2000, 0.105) < 1e-5
    rng, bound = np.random.default_rng(17), GuardrailBound(most=0.05, least=least)
    accused = sum(raised(bound, rng.random(1000) < 0.05) > 0 for _ in range(2000))
    assert 0 < accused < 150


def test_a_chance_that_moves_below_the_bound_is_accused_no_more_often() -> None:
    """2,000 nudges: people differ, and every other day half as many bad events come. Error as above."""
    rng, accused = np.random.default_rng(18), 0
    p = np.where(np.arange(600) // 50 % 2 == 0, 0.05, 0.025) * np.where(np.arange(600) % 3 == 0, 0.5, 1.0)
    for _ in range(2000):
        accused += raised(BOUND, rng.random(600) < p) > 0
    assert accused < 150


def needed(rng: np.random.Generator, bound: GuardrailBound, p: float, before: int = 0) -> list[int]:
    """Decisions until the alarm of 200 nudges, whose chance is `p` after so many decisions at half of the bound."""
    found = []
    for _ in range(200):
        rows = rng.random(before + 8000) < np.where(np.arange(before + 8000) < before, bound.most / 2.0, p)
        at = raised(bound, rows)
        assert at > before
        found.append(at - before)
    return found


def test_twice_the_bound_is_found_with_twice_the_least_possible_number_of_decisions() -> None:
    """The least possible mean number of any test with this level is log(1/α)/KL(2m ‖ m) (Wald 1945), for one that is
    told what to look for. Fixed seed; each of 200 nudges is accused: a chance of 7 % to miss would be seen with
    probability 1 − 1e-6.
    """
    m, p = BOUND.most, 2.0 * BOUND.most
    kl = p * math.log(p / m) + (1.0 - p) * math.log((1.0 - p) / (1.0 - m))
    least = math.log(1.0 / BOUND.alpha) / kl
    assert least == pytest.approx(145.0, abs=0.1)
    found = needed(np.random.default_rng(5), BOUND, p)
    assert np.mean(found) < 2.0 * least


def test_a_nudge_that_turns_bad_late_is_found_soon_after() -> None:
    """3,000 decisions at half of the bound, then four times the bound. Were all bets made at the first decision, they
    would be spent by then.
    """
    found = needed(np.random.default_rng(6), BOUND, 4.0 * BOUND.most, before=3000)
    assert np.median(found) < 150


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.booleans(), max_size=25), m=st.integers(1, 30))
def test_the_evidence_is_the_mean_over_tilts_and_beginnings_of_exact_likelihood_ratios(
    rows: list[bool], m: int
) -> None:
    """Against rational numbers: each product is the likelihood ratio of the chance q, with odds e^θ times those of m,
    to m.
    """
    bound = GuardrailBound(most=m / 32, least=1)
    p, total = Fraction(m, 32), Fraction(0)
    for tilt in guardrail_metric._TILTS:
        odds = Fraction(exp_of(tilt)) * p / (1 - p)
        q = odds / (1 + odds)
        ratios = [q / p if bad else (1 - q) / (1 - p) for bad in rows]
        for t in range(1, len(rows) + 1):
            total += Fraction(1, t * (t + 1)) * math.prod(ratios[t - 1 :], start=Fraction(1))
    exact = total / len(guardrail_metric._TILTS) + Fraction(1, len(rows) + 1)
    assert scan(bound, GuardrailEvidence(), rows).e_value == pytest.approx(float(exact), rel=1e-12)


def test_the_evidence_is_a_fair_bet_at_the_bound_and_a_losing_one_below_it() -> None:
    """The expected value after one more decision, by the closed form over both answers."""
    before = scan(BOUND, GuardrailEvidence(), [True, False, False, True, False])
    after = {bad: scan(BOUND, before, [bad]).e_value for bad in (True, False)}
    for p, change in ((0.05, 0.0), (0.01, -1.0)):
        mean = p * after[True] + (1.0 - p) * after[False] - before.e_value
        assert mean == pytest.approx(0.0, abs=1e-12) if change == 0.0 else mean < -0.01


@pytest.mark.parametrize(("n", "s"), [(400, 40), (4000, 280), (40_000, 2200)])
def test_the_evidence_is_no_less_than_that_of_a_mixture_of_all_chances_above_the_bound(n: int, s: int) -> None:
    """With a Jeffreys prior, whose logarithm has a closed form in scipy's betaln and betaincc: five tilts and all
    beginnings together lose nothing against it where the chance is 1.1 to 2 times the bound, nor tell much more.
    """
    rows = np.zeros(n, dtype=bool)
    rows[np.linspace(0, n - 1, s).astype(int)] = True
    found = math.log(scan(BOUND, GuardrailEvidence(), rows.tolist()).e_value)
    m, a = BOUND.most, 0.5
    above = math.log(special.betaincc(s + a, n - s + a, m)) - math.log(special.betaincc(a, a, m))
    ratio = special.betaln(s + a, n - s + a) - special.betaln(a, a) - s * math.log(m) - (n - s) * math.log1p(-m)
    assert 0.0 < found - (ratio + above) < math.log(20.0)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 600), max_size=6))
def test_batches_do_not_matter(cuts: list[int]) -> None:
    rows = (np.random.default_rng(9).random(600) < 0.15).tolist()
    whole, parts = scan(BOUND, GuardrailEvidence(), rows), GuardrailEvidence()
    for start, end in itertools.pairwise([0, *sorted(cuts), 600]):
        parts = scan(BOUND, parts, rows[start:end])
    assert parts == whole
    assert whole.raised


def test_no_alarm_is_raised_before_the_least_number_of_exposures_and_one_that_was_raised_stays() -> None:
    early = scan(BOUND, GuardrailEvidence(), [True] * 99)
    assert (early.raised, early.bad) == (0, 99)
    assert early.e_value > 1.0 / BOUND.alpha
    at = scan(BOUND, early, [True])
    assert at.raised == 100
    later = scan(BOUND, at, [False] * 5000)
    assert (later.raised, later.exposures) == (100, 5100)


@pytest.mark.parametrize("alpha", [0.3, 0.2, 0.1, 0.05, 0.02, 0.005, 0.001])
def test_an_alarm_is_raised_by_the_first_decision_that_takes_the_evidence_to_its_threshold(alpha: float) -> None:
    bound, found = GuardrailBound(most=0.05, alpha=alpha, least=1), [GuardrailEvidence()]
    for is_bad in (np.random.default_rng(2).random(400) < 0.2).tolist():
        found.append(scan(bound, found[-1], [is_bad]))
    first = next(n for n, one in enumerate(found) if one.e_value >= 1.0 / alpha)
    assert [one.raised for one in found] == [0] * first + [first] * (401 - first)


def test_evidence_without_end_can_be_written_down_and_read_again() -> None:
    found = scan(GuardrailBound(most=1e-6), GuardrailEvidence(), [True] * 3000)
    assert math.isfinite(found.e_value)
    assert msgspec.json.decode(msgspec.json.encode(found), type=GuardrailEvidence) == found
    assert GuardrailEvidence().e_value == 1.0


@pytest.mark.parametrize("field", ["most", "alpha"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_a_bound_that_is_no_chance_cannot_be_declared(field: str, value: float) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({"most": 0.1} | {field: value}, GuardrailBound)


def test_the_lower_bound_holds_after_every_decision_at_once() -> None:
    """1,000 nudges whose chance rises from 0.02 to 0.1: the bound is of the mean so far. It is above that mean after
    any of 1,000 decisions with a chance of 5 % at most. False alarm of this test ≤ 1e-6: 88 or more of 1,000; detects a
    chance of 13 % with probability 1 − 1e-5.
    """
    rng, missed, looks = np.random.default_rng(21), 0, (10, 20, 40, 80, 150, 250, 400, 600, 800, 1000)
    p = np.linspace(0.02, 0.1, 1000)
    mean = np.cumsum(p) / np.arange(1, 1001)
    for _ in range(1000):
        s = np.cumsum(rng.random(1000) < p)
        missed += any(lower_bound(GuardrailEvidence(n, int(s[n - 1])), 0.05) > mean[n - 1] for n in looks)
    assert missed < 88


def test_the_lower_bound_is_where_a_test_of_that_bound_would_just_reject() -> None:
    """By bets from the first decision on; it is below the share so far, and comes near it."""
    for n, s in ((50, 20), (1000, 100), (100_000, 10_000)):
        found = lower_bound(GuardrailEvidence(n, s), 0.05)
        tilts = np.array(guardrail_metric._TILTS)
        log_ratio = tilts * s - n * np.log1p(found * np.expm1(tilts))
        assert np.mean(np.exp(log_ratio)) == pytest.approx(20.0, rel=1e-6)
        assert found < s / n
    assert found > 0.09
    assert lower_bound(GuardrailEvidence(10_000, 0), 0.05) == 0.0
    assert lower_bound(GuardrailEvidence(50, 50), 0.05) < 1.0


def test_groups_of_one_decision_give_the_evidence_of_the_sequence() -> None:
    rng = np.random.default_rng(31)
    for p in (0.0, 0.05, 0.3):
        rows = (rng.random(400) < p).tolist()
        assert e_value_of(BOUND, [(1, int(bad)) for bad in rows]) == pytest.approx(
            scan(BOUND, GuardrailEvidence(), rows).e_value, rel=1e-9
        )
    assert e_value_of(BOUND, []) == 1.0


def test_the_order_within_a_group_does_not_count_and_no_exponent_is_too_large() -> None:
    assert e_value_of(BOUND, [(100, 7), (50, 2)]) != e_value_of(BOUND, [(50, 2), (100, 7)])
    assert math.isfinite(e_value_of(BOUND, [(10_000, 9_000)] * 40))
    assert e_value_of(BOUND, [(10**6, 0)] * 40) < 1.0


def accused_late(rng: np.random.Generator, nudges: int, p: float) -> int:
    """How many nudges are accused within 20 days of 50 decisions, where half of the bad events are reported one to six
    days late, and somebody looks each evening at the counts as they are by then.
    """
    found, days, each = 0, 20, 50
    for _ in range(nudges):
        bad = rng.random((days, each)) < p
        late = np.where(rng.random((days, each)) < 0.5, 0, rng.integers(1, 7, (days, each)))
        told = np.arange(days)[:, None] + late  # the day on which it is known
        for today in range(days):
            known = (bad[: today + 1] & (told[: today + 1] <= today)).sum(axis=1)
            if e_value_of(BOUND, [(each, int(n)) for n in known]) >= 1.0 / BOUND.alpha:
                found += 1
                break
    return found


def test_reports_that_come_late_accuse_a_nudge_at_its_bound_no_more_often() -> None:
    """Both errors as of the first test of this file. At three times the bound all of 50 are accused all the same: a
    chance of 25 % to miss would be seen with probability 1 − 6e-7.
    """
    assert accused_late(np.random.default_rng(19), 2000, BOUND.most) < 150
    assert accused_late(np.random.default_rng(20), 50, 3.0 * BOUND.most) == 50


def test_the_order_in_which_bad_events_become_known_accuses_nudges_within_their_bound() -> None:
    """Why decisions have to be taken in their own order: here bad ones are known at once and good ones when a window is
    over, in which 1,000 decisions are made. By order of decision few of 50 are accused: 13 or more with a chance of
    8e-7.
    """
    rng, early, own = np.random.default_rng(23), 0, 0
    for _ in range(50):
        bad = rng.random(1500) < BOUND.most
        known = np.argsort(np.arange(1500) + np.where(bad, 0, 1000), kind="stable")
        early += raised(BOUND, bad[known]) > 0
        own += raised(BOUND, bad) > 0
    assert early == 50
    assert own < 13
