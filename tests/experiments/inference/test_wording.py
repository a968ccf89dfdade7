"""Words: every function that makes a sentence of numbers, against a table of cases, so that no page says "nan", "inf",
"-0", "+-" or an exponent.
"""

import math
import re
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue.promotion_rule import PromotionRule
from bandit.learning.loss_statement import LossStatement
from experiments.inference import wording
from experiments.inference.assignment import ShareTest
from experiments.inference.intervals import Interval
from experiments.inference.money import NetGain
from experiments.inference.segments import SegmentEffect, SegmentEffects
from experiments.mlflow import approvals
from experiments.mlflow.approvals import Approval
from experiments.ope.evaluate import Estimate, Evaluation
from experiments.promotion.judgement import Judgement
from experiments.promotion.verdict import PromotionEvidence, judge
from experiments.reports import review_sections as parts
from experiments.reports.policy_diff import PolicyDiff
from experiments.reports.report import plain_gain

NAN, INF = float("nan"), float("inf")
CASES = {  # name: (estimate with its bounds, standard error or None where the log gives none)
    "gain": (Interval(0.42, 0.31, 0.53, 9000), 0.056),
    "loss": (Interval(-0.62, -0.71, -0.53, 9000), 0.046),
    "unclear": (Interval(0.02, -0.1, 0.14, 900), 0.06),
    "refused": (Interval(NAN, -INF, INF, 900), None),
    "tiny": (Interval(1.3e-7, -2e-8, 2.8e-7, 9000), 7.5e-8),
    "vanishing": (Interval(-4e-15, -9e-15, 1e-15, 9000), 2.5e-15),
    "huge": (Interval(4.2e7, 3.1e7, 5.3e7, 9000), 5.6e6),
    "huge currency": (Interval(-1.25e15, -1.5e15, -1e15, 9000), 1.2e14),
    "tie": (Interval(0.0, 0.0, 0.0, 9000), 0.0),
    "one cluster": (Interval(0.3, -INF, INF, 1), None),
    "one bound": (Interval(0.3, -0.2, INF, 40), None),
    "all missing": (Interval(NAN, NAN, NAN, 0), None),
    "zero variance": (Interval(0.3, 0.3, 0.3, 40), 0.0),
    "negative zero": (Interval(-0.0, -0.0, 0.0, 40), 0.0),
    "rounds to nothing": (Interval(-1e-9, -0.3, 0.3, 40), 0.15),
    "bounds alone": (Interval(NAN, -0.4, -0.1, 400), None),
}
FORBIDDEN = (
    r"\bnan\b", r"\binf\b", r"\bNone\b", r"[+-]0(\.0*)?(?![\d.,])", r"\+-|-\+|--|\+\+", r"\de[+-]?\d", r"=(high|low)\b",
    r"  ", r"\[\s*[,\]]", r"\( *\)", r"(?<![\d.])\d{5}", r"below -0(?![\d.])", r" [.,;]", r"[;:,]\s*$",
)  # fmt: skip
RATES = (None, 0.4, 700.0, 3e7)


def estimate(over: Interval, error: float | None) -> Estimate:
    return Estimate(over.value, (over.low, over.high), error=error)


def evaluation(over: Interval, error: float | None) -> Evaluation:
    found = estimate(over, error)
    return Evaluation(
        policy="p", n=over.n, units=over.n, estimates={"dr": found, "dm": found._replace(biased=True)},
        contrasts={"none": found, "live": found}, chosen={}, segments=None, control=None, rows=over.n, holdout=0,
        diagnostics={}, refused=(), notes=(),
    )  # fmt: skip


def of_money(over: Interval, error: float | None) -> Iterator[str]:
    for rate in RATES:
        for currency in ("EUR", ""):
            gain = NetGain(over, error, rate, currency)
            yield from (gain.sentence, gain.risk, gain.more_data)
    yield plain_gain(over, "EUR").risk


def of_wording(over: Interval, error: float | None) -> Iterator[str]:
    for scale in (1.0, 100.0):
        yield wording.estimate(over, "EUR per decision", scale=scale)
        for digits in ("+.3f", ".4g", ".5g", "+.3g", ".0f"):
            yield wording.in_words(over, digits, scale=scale, unit="points")
            yield wording.bounds(over.low, over.high, digits, scale=scale)
            yield wording.number(over.value, digits)
    yield f"{wording.compared(over)} no nudge"
    yield wording.against(over, "no nudge", "EUR per decision")
    yield wording.money(over.value, "EUR", sign=True)
    yield wording.chance(None if math.isnan(over.value) else min(abs(over.value), 1.0))
    for other, _ in CASES.values():
        for binary in (True, False):
            yield wording.disagreement(over, other, "EUR", binary=binary)


def of_the_gate(over: Interval, error: float | None) -> Iterator[str]:
    rules = (
        PromotionRule(),
        PromotionRule(min_lift=0.1, max_regression=1e-9, guardrails={"cost": 0.0, "refunds": 0.2}),
    )
    for rule in rules:
        for live in ("no nudge", "champion v3"):
            for none, _ in CASES.values():
                evidence = PromotionEvidence(
                    over, none, guardrails={"cost": over, "refunds": over}, segments={"price > 73.6": over}, live=live,
                    currency="EUR", rewards=over,
                )  # fmt: skip
                yield from judge(evidence, rule).reasons
    yield from judge(PromotionEvidence(over, over, refused=("ess: 12 of 50",)), PromotionRule()).reasons


def of_a_judgement(over: Interval, error: float | None) -> Iterator[str]:
    found = evaluation(over, error)
    for early, final in ((None, None), (found, None), (None, found)):
        yield Judgement(800, 500, 400, early, final, 0.31).sentence("EUR per decision")


def of_a_review(over: Interval, error: float | None) -> Iterator[str]:
    from tests.experiments.reports.test_review_sections import ABOUT

    for champion in ("none", "champion v3"):
        about = ABOUT._replace(champion=champion)
        gain = NetGain(over, error, 700.0, "EUR")
        for one in (gain, None):
            yield parts.first_sentence(about, one, estimate(over, error), over.n)
            yield parts.conversion_sentence(about, estimate(over, error), one, over.n)
    yield parts.agreement(evaluation(over, error), "EUR per decision")
    effect = SegmentEffect("price > 73.6", over, over)
    effects = SegmentEffects(0.0, 0.0, (effect,))
    yield parts.harmed([("price", effects)], "champion v3", "EUR per decision")
    for table in (parts.segment_table("price", effects, ABOUT), parts.holdout(ABOUT, estimate(over, error), 10, 2)):
        yield table.note
        for row in table.rows:
            yield from row.cells


def of_a_diff(over: Interval, error: float | None) -> Iterator[str]:
    cost, share = over.value, np.array([0.25, 0.75])
    found = PolicyDiff("v1", 40, 0.0, 0.0, ("none", "hint"), share, share, cost, (("device=mobile", 40, 0.0, cost),))
    yield found.sentence("EUR")
    for table in found.tables("EUR"):
        for row in table.rows:
            yield from row.cells


def of_a_loss_account(over: Interval, error: float | None) -> Iterator[str]:
    if not all(map(math.isfinite, over)):
        return  # the account holds finite amounts: `LossAccount` refuses others
    said = LossStatement(
        share=1.0, traffic=0.5, declared=0.02, effective=0.01, budget=abs(over.high), reserve=abs(over.value),
        spent=over.value, spent_at_least=over.low, spent_at_most=over.high, left=over.low,
        daily=0.0, known=True, why="open: all",
    )  # fmt: skip
    for one in (said, msgspec.structs.replace(said, known=False)):
        yield from one.in_words("EUR")


def of_approvals(over: Interval, error: float | None) -> Iterator[str]:
    done: list[Approval] = []
    for kind, version, by in (("promote", "1", "ana"), ("rollback", "none", "key ops, for ben"), ("rollback", "", "")):
        new = Approval(
            number=0, kind=kind, version=version, replaces=done[-1].version if done else "", by=by,
            at="2026-01-01T00:00:00.123+02:00", why="w", gate="promote",
        )  # fmt: skip
        done.append(approvals.next_approval(done, new))
        yield approvals.live(done)
        yield approvals.why(done[-1])
        assert "2025-12-31T22:00:00Z" in approvals.live(done), "to the second, in UTC"
    yield ShareTest((0.6, 0.4), (0.5, 0.5), 0.0, copied=False).note(1e300) or ""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "sentences",
    [of_money, of_wording, of_the_gate, of_a_judgement, of_a_review, of_a_diff, of_a_loss_account, of_approvals],
)
def test_no_sentence_says_what_no_number_is(
    sentences: Callable[[Interval, float | None], Iterator[str]], case: str
) -> None:
    for said in sentences(*CASES[case]):
        for pattern in FORBIDDEN:
            assert not re.search(pattern, said), (pattern, said)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("gain", "better than no nudge, +0.42 EUR [+0.31, +0.53]"),
        ("loss", "worse than no nudge, -0.62 EUR [-0.71, -0.53]"),
        ("unclear", "not distinguishable from no nudge, +0.02 EUR [-0.10, +0.14]"),
        ("refused", "not compared with no nudge: the log cannot say"),
        ("tiny", "not distinguishable from no nudge, +0.00000013 EUR [-0.00000002, +0.00000028]"),
        ("huge", "better than no nudge, +42,000,000 EUR [+31,000,000, +53,000,000]"),
        ("tie", "not distinguishable from no nudge, 0.00 EUR [0.00, 0.00]"),
        ("one cluster", "not distinguishable from no nudge, +0.300 EUR, and how sure that is is not known"),
        ("one bound", "not distinguishable from no nudge, +0.30 EUR [-0.20, no upper bound]"),
        ("all missing", "not compared with no nudge: the log cannot say"),
        ("negative zero", "not distinguishable from no nudge, 0.00 EUR [0.00, 0.00]"),
        ("rounds to nothing", "not distinguishable from no nudge, 0.00 EUR [-0.30, +0.30]"),
        ("bounds alone", "worse than no nudge, within [-0.40, -0.10] EUR"),
    ],
)
def test_a_contrast_in_words(case: str, words: str) -> None:
    assert wording.against(CASES[case][0], "no nudge", "EUR") == words


def test_one_sentence_to_act_on() -> None:
    said = NetGain(*CASES["unclear"], 700.0, "EUR").sentence
    assert said == (
        "not distinguishable from no nudge, +0.02 EUR per decision net of costs [-0.10, +0.14], or +400 EUR a month "
        "[-2,100, +2,900] at 700 decisions a day; it loses money with probability 37 %, then 0.041 EUR per decision "
        "(expected loss 0.015 EUR); one more week of data (4,900 decisions) changes the choice with probability 36 %, "
        "worth 280 EUR a month"
    )


@pytest.mark.parametrize(
    ("net", "lift", "words"),
    [
        (
            "loss",
            0.05,
            "more people convert (+5.0 points [+4.0, +6.0]), and each decision loses 0.62 EUR net of costs [",
        ),
        (
            "gain",
            -0.05,
            "fewer people convert (-5.0 points [-6.0, -4.0]), and each decision earns 0.42 EUR more net of ",
        ),
        ("gain", 0.05, ""),
        ("loss", -0.05, ""),
        ("tie", 0.05, ""),
        ("refused", 0.05, ""),
    ],
)
def test_where_conversions_and_money_disagree_words_say_so(net: str, lift: float, words: str) -> None:
    said = wording.disagreement(CASES[net][0], Interval(lift, lift - 0.01, lift + 0.01, 9000), "EUR", binary=True)
    assert said.startswith(words)
    assert bool(said) is bool(words)


def test_who_and_when() -> None:
    assert wording.by("ana") == ", said to be by ana"
    assert wording.by("key ops, for ana") == " by key ops, for ana"
    assert wording.who("MLflow user ana") == "MLflow user ana"
    assert wording.who("ana") == "said to be ana"
    assert wording.when("2026-01-01T01:02:03.999+01:00") == "2026-01-01T00:02:03Z"
    assert wording.when("yesterday") == "yesterday"


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["+.3f", ".4g", "+.0f", ".5g", "+.3g"]))
def test_any_number_is_text_without_an_exponent_or_a_signed_zero(value: float, digits: str) -> None:
    said = wording.number(value, digits)
    assert re.fullmatch(r"not known|[+-]?\d{1,3}(,\d{3})*(\.\d+)?", said), said
    assert not re.fullmatch(r"[+-][0.,]+", said), said
