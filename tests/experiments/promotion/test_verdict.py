"""The rule: what is promoted, what is not, and who may veto."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.promotion_rule import PromotionRule
from bandit.errors import CatalogueError
from experiments.inference.intervals import Interval
from experiments.promotion.verdict import PromotionEvidence, judge

RULE = PromotionRule(min_lift=0.01, max_regression=0.02, min_n=1000, guardrails={"cost": 0.05})
FREE = Interval(0.0, -0.01, 0.02, 5000)


UNKNOWN = Interval(float("nan"), -float("inf"), float("inf"), 5000)


def lift(low: float, high: float, n: int = 5000) -> Interval:
    return Interval((low + high) / 2, low, high, n)


GOOD = PromotionEvidence(
    lift(0.02, 0.06), lift(0.03, 0.09), guardrails={"cost": FREE}, live="champion v3", currency="EUR"
)


@pytest.mark.parametrize(
    ("report", "decision", "reason"),
    [
        (GOOD, "promote", "net value over champion v3, +0.040 EUR per decision [+0.020, +0.060], is above 0.01"),
        (GOOD, "promote", "net value over no nudge, +0.060 EUR per decision [+0.030, +0.090], is above 0.01"),
        (GOOD._replace(lift=lift(0.005, 0.06)), "not distinguishable", "not surely above 0.01"),
        (GOOD._replace(over_none=lift(0.005, 0.06)), "not distinguishable", "over no nudge, +0.033 EUR per decision"),
        (GOOD._replace(over_none=lift(-0.09, -0.001)), "reject", "is below 0: showing nothing earns more"),
        (GOOD._replace(silent=("ess: 12",)), "hold", "the log cannot say what no nudge earns: ess: 12"),
        (GOOD._replace(over_none=UNKNOWN), "hold", "net value over no nudge is not known"),
        (GOOD._replace(lift=lift(-0.05, 0.06)), "not distinguishable", "not surely above 0.01"),
        (GOOD._replace(lift=lift(-0.09, -0.03)), "reject", "below -0.02"),
        (GOOD._replace(lift=lift(-0.09, -0.01)), "not distinguishable", "not surely above"),
        (GOOD._replace(lift=lift(0.02, 0.06, 999)), "hold", "999 rounds of 1,000"),
        (GOOD._replace(refused=("ess",)), "hold", "the log cannot answer: ess"),
        (GOOD._replace(guardrails={"cost": lift(0.01, 0.06)}), "hold", "more than 0.05 is not ruled out"),
        (
            GOOD._replace(guardrails={"cost": lift(0.06, 0.09)}),
            "reject",
            "cost rises by +0.075 EUR per decision [+0.060, +0.090]",
        ),
        (GOOD._replace(guardrails={}), "hold", "cost was not measured"),
        (GOOD._replace(segments={"new": lift(-0.2, -0.03)}), "hold", "in segment new it is -0.12 EUR per decision"),
        (GOOD._replace(segments={"new": lift(-0.2, 0.3)}), "promote", "is above 0.01"),
    ],
)
def test_the_rule_by_example(report: PromotionEvidence, decision: str, reason: str) -> None:
    verdict = judge(report, RULE)
    assert verdict.decision == decision
    assert any(reason in said for said in verdict.reasons), verdict.reasons


def test_every_broken_guardrail_is_a_reason() -> None:
    rule = PromotionRule(guardrails={"opt_outs": 0.0, "refunds": 0.01})
    verdict = judge(GOOD._replace(guardrails={"opt_outs": lift(0.01, 0.02), "refunds": lift(0.02, 0.03)}), rule)
    assert verdict.decision == "reject"
    assert [reason.split()[0] for reason in verdict.reasons] == ["opt_outs", "refunds"]


@pytest.mark.parametrize("live", ["no nudge", "champion v3"])
def test_conversions_that_win_and_money_that_loses_are_refused_in_words(live: str) -> None:
    """The candidate is better than the live version, which loses even more, and brings five points more conversions
    than no nudge; each decision loses 0.62 EUR.
    """
    over_none = Interval(-0.62, -0.71, -0.53, 9000)
    report = GOOD._replace(
        lift=over_none if live == "no nudge" else lift(0.2, 0.4),
        over_none=over_none, live=live, rewards=Interval(0.05, 0.04, 0.06, 9000),
    )  # fmt: skip
    verdict = judge(report, RULE)
    assert verdict.decision == "reject"
    assert verdict.reasons[0] == (
        "net value over no nudge, -0.62 EUR per decision [-0.71, -0.53], is below 0: showing nothing earns more"
    )
    said = "more people convert (+5.0 points [+4.0, +6.0]), and each decision loses 0.62 EUR net of costs"
    assert verdict.reasons[-1].startswith(said)


bounds = st.floats(-1, 1).flatmap(lambda low: st.floats(low, 1.5).map(lambda high: lift(low, high)))


@given(bounds, bounds, bounds, st.integers(0, 3000), st.booleans(), bounds)
def test_nothing_is_promoted_against_the_rule(
    effect: Interval, over_none: Interval, cost: Interval, n: int, refused: bool, new: Interval
) -> None:
    asked = ("support",) if refused else ()
    report = PromotionEvidence(
        effect._replace(n=n), over_none, asked, guardrails={"cost": cost}, segments={"new": new}, live="v1"
    )
    verdict = judge(report, RULE)
    assert verdict.reasons
    if verdict.decision == "promote":
        assert not refused
        assert n >= 1000
        assert effect.low > 0.01
        assert over_none.low > 0.01
        assert cost.high <= 0.05
        assert new.high >= -0.02


def test_an_app_declares_its_rule_in_the_catalogue() -> None:
    text = read_shipped("travel")
    assert parse(text).stages["cart"].promotion == PromotionRule()
    terms = "\n[stages.cart.promotion]\nmin_lift = 0.1\nmin_n = 5000\nguardrails = { opt_outs = 0.002 }\n"
    assert parse(text + terms).stages["cart"].promotion == PromotionRule(
        min_lift=0.1, min_n=5000, guardrails={"opt_outs": 0.002}
    )
    with pytest.raises(CatalogueError, match=r"stages\.cart\.promotion\.min_lift"):
        parse(text + "\n[stages.cart.promotion]\nmin_lift = -1\n")
