"""Promotion verdict: may this policy replace that one? A pure function of what was measured and of the rule that the
app declared.

    promote              the lift is surely above min_lift, and nothing vetoes
    reject               surely worse than max_regression allows, or a guardrail is surely broken
    hold                 the log cannot answer, or not yet: refused, too few rounds, a guardrail or segment in doubt
    not distinguishable  enough was seen, and the interval still holds both better and not better

"Surely" is by the intervals given: from a confidence sequence, the rule may be applied after every decision; from GHU,
once, at an n fixed beforehand. Guardrail and segment intervals should share the level (`intervals.bonferroni_level`).
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from bandit.catalogue.promotion_rule import PromotionRule
from experiments.inference.intervals import Interval
from experiments.inference.wording import in_words

Decision = Literal["promote", "reject", "hold", "not distinguishable"]

_NONE: Mapping[str, Interval] = {}


class PromotionEvidence(NamedTuple):
    """What was measured of a candidate against the policy that it would replace: intervals in the units of the
    promotion rule, made by the caller from evaluations.
    """

    lift: Interval  # over the policy it would replace; n counts rounds
    refused: tuple[str, ...] = ()  # reasons of `diagnostics.refusals`
    guardrails: Mapping[str, Interval] = _NONE  # increase of each metric for a decision
    segments: Mapping[str, Interval] = _NONE  # lift in each


class PromotionVerdict(NamedTuple):
    """The decision of a promotion rule, and every reason for it in a sentence, for the report and the audit trail."""

    decision: Decision
    reasons: tuple[str, ...]  # one at least


def judge(report: PromotionEvidence, rule: PromotionRule) -> PromotionVerdict:
    """The verdict of `rule` on the evidence. Pure: the same evidence and rule give the same verdict. The order of
    severity: refused, broken guardrails and regressions, doubts, then the lift itself.

        judge(PromotionEvidence(lift=Interval(0.02, 0.01, 0.03, 5000)), PromotionRule()).decision
    """
    if report.refused:
        return PromotionVerdict("hold", tuple(f"the log cannot answer: {reason}" for reason in report.refused))
    broken = tuple(_broken_rules(report, rule))
    if broken:
        return PromotionVerdict("reject", broken)
    doubts = tuple(_doubts(report, rule))
    if doubts:
        return PromotionVerdict("hold", doubts)
    lift = f"lift {in_words(report.lift, '+.4g')}"
    if report.lift.low > rule.min_lift:
        return PromotionVerdict("promote", (f"{lift} is above {rule.min_lift:g}",))
    return PromotionVerdict("not distinguishable", (f"{lift} is not surely above {rule.min_lift:g}",))


def _broken_rules(report: PromotionEvidence, rule: PromotionRule) -> Iterator[str]:
    """Sentences on rules that are surely broken. Too few rounds do not excuse a guardrail that is surely broken."""
    for name, limit in rule.guardrails.items():
        found = report.guardrails.get(name)
        if found and found.low > limit:
            yield f"{name} rises by {in_words(found, '+.4g')}, more than {limit:g}"
    if report.lift.high < -rule.max_regression:
        yield f"lift {in_words(report.lift, '+.4g')} is below {-rule.max_regression:g}"


def _doubts(report: PromotionEvidence, rule: PromotionRule) -> Iterator[str]:
    if report.lift.n < rule.min_n:
        yield f"{report.lift.n:,} rounds of {rule.min_n:,} that the rule asks for"
    for name, limit in rule.guardrails.items():
        found = report.guardrails.get(name)
        if found is None:
            yield f"{name} was not measured"
        elif found.high > limit:
            yield f"{name} rises by {in_words(found, '+.4g')}: more than {limit:g} is not ruled out"
    for name, found in report.segments.items():
        if found.high < -rule.max_regression:
            yield f"in segment {name} lift is {in_words(found, '+.4g')}, below {-rule.max_regression:g}"
