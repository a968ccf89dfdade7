"""Promotion verdict: may this policy replace that one? A pure function of what was measured and of the rule that the
app declared. Both comparisons are in money, net of costs, and from the same evidence:

    promote              net value over no nudge and over the live version are surely above min_lift; nothing vetoes
    reject               it surely loses against no nudge, or against the live version more than max_regression allows,
                         or a guardrail is surely broken
    hold                 the log cannot answer, or not yet: refused, too few rounds, a guardrail or segment in doubt
    not distinguishable  enough was seen, and an interval still holds both better and not better

"Surely" is by the intervals given: from a confidence sequence, the rule may be applied after every decision; from GHU,
once, at an n fixed beforehand. Both comparisons have to pass, so no level is shared between them (an intersection-union
test, Berger 1982). Guardrail and segment intervals should share the level (`intervals.bonferroni_level`).
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Literal, NamedTuple

from bandit.catalogue.promotion_rule import PromotionRule
from experiments.inference.intervals import Interval
from experiments.inference.wording import disagreement, estimate, number

Decision = Literal["promote", "reject", "hold", "not distinguishable"]

NO_NUDGE = "no nudge"
_NONE: Mapping[str, Interval] = {}


class PromotionEvidence(NamedTuple):
    """What was measured of a candidate: intervals of differences per decision, made by the caller from evaluations.

    `lift`: over the version that it would replace, named `live`; `over_none`: over no nudge, the same as `lift` where
    nothing is live. Both in `currency`, net of costs; their n counts rounds. `rewards`: over no nudge in rewards,
    conversions if `binary`; only for words.
    """

    lift: Interval
    over_none: Interval
    refused: tuple[str, ...] = ()  # reasons of `diagnostics.refusals`
    silent: tuple[str, ...] = ()  # the same of what no nudge earns: with any, `over_none` is not to be relied on
    guardrails: Mapping[str, Interval] = _NONE  # increase of each metric for a decision
    segments: Mapping[str, Interval] = _NONE  # lift in each
    live: str = NO_NUDGE
    currency: str = ""
    rewards: Interval | None = None
    binary: bool = True

    @property
    def unit(self) -> str:
        """Unit of both differences: currency per decision."""
        return f"{self.currency} per decision".strip()


class PromotionVerdict(NamedTuple):
    """The decision of a promotion rule, and every reason for it in a sentence, for the report and the audit trail."""

    decision: Decision
    reasons: tuple[str, ...]  # one at least


def judge(report: PromotionEvidence, rule: PromotionRule) -> PromotionVerdict:
    """The verdict of `rule` on the evidence. Pure: the same evidence and rule give the same verdict. The order of
    severity: refused, losses and broken guardrails, doubts, then the differences themselves.

        over = Interval(0.02, 0.01, 0.03, 5000)
        judge(PromotionEvidence(lift=over, over_none=over), PromotionRule()).decision
    """
    split = disagreement(report.over_none, report.rewards, report.currency, binary=report.binary)
    said = (split,) if split else ()
    if report.refused:
        return PromotionVerdict("hold", tuple(f"the log cannot answer: {reason}" for reason in report.refused))
    broken = tuple(_broken_rules(report, rule))
    if broken:
        return PromotionVerdict("reject", broken + said)
    doubts = tuple(_doubts(report, rule))
    if doubts:
        return PromotionVerdict("hold", doubts + said)
    least = number(rule.min_lift, "g")
    differences = dict(_differences(report))
    unsure = [name for name, over in differences.items() if not over.low > rule.min_lift]
    if unsure:
        reasons = tuple(f"{_over(name, differences[name], report)} is not surely above {least}" for name in unsure)
        return PromotionVerdict("not distinguishable", reasons + said)
    reasons = tuple(f"{_over(name, over, report)} is above {least}" for name, over in differences.items())
    return PromotionVerdict("promote", reasons + said)


def _differences(report: PromotionEvidence) -> Iterator[tuple[str, Interval]]:
    """What both comparisons found, no nudge first; one where nothing is live."""
    yield NO_NUDGE, report.over_none
    if report.live not in (NO_NUDGE, "none"):
        yield report.live, report.lift


def _over(name: str, over: Interval, report: PromotionEvidence) -> str:
    return f"net value over {name}, {estimate(over, report.unit)},"


def _broken_rules(report: PromotionEvidence, rule: PromotionRule) -> Iterator[str]:
    """Sentences on rules that are surely broken. Too few rounds do not excuse what is surely broken."""
    if report.over_none.high < 0.0 and not report.silent:
        yield f"{_over(NO_NUDGE, report.over_none, report)} is below 0: showing nothing earns more"
    if report.live not in (NO_NUDGE, "none") and report.lift.high < -rule.max_regression:
        yield f"{_over(report.live, report.lift, report)} is below {number(-rule.max_regression, 'g')}"
    for name, limit in rule.guardrails.items():
        found = report.guardrails.get(name)
        if found and found.low > limit:
            yield f"{_rise(name, found, report)}, more than {number(limit, 'g')}"


def _doubts(report: PromotionEvidence, rule: PromotionRule) -> Iterator[str]:
    if report.lift.n < rule.min_n:
        yield f"{report.lift.n:,} rounds of {rule.min_n:,} that the rule asks for"
    for reason in report.silent:
        yield f"the log cannot say what no nudge earns: {reason}"
    for name, over in _differences(report):
        if not isfinite(over.value):
            yield f"net value over {name} is not known"
    for name, limit in rule.guardrails.items():
        found = report.guardrails.get(name)
        if found is None:
            yield f"{name} was not measured"
        elif found.high > limit:
            yield f"{_rise(name, found, report)}: more than {number(limit, 'g')} is not ruled out"
    for name, found in report.segments.items():
        if found.high < -rule.max_regression:
            least = number(-rule.max_regression, "g")
            yield f"in segment {name} it is {estimate(found, report.unit)} against {report.live}, below {least}"


def _rise(name: str, found: Interval, report: PromotionEvidence) -> str:
    """How much more of a guardrail's metric there is: cost in currency, others as a share of decisions."""
    unit, scale = (report.unit, 1.0) if name == "cost" else ("points", 100.0)
    return f"{name} rises by {estimate(found, unit, scale=scale)}"
