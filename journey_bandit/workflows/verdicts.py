"""Verdict on a policy evaluated on a ledger, by the rule that its stage declares under `promotion`.

The lift is that over the champion, in the unit of the evaluation, by its confidence sequence where there is one: then
the rule may be applied at any time. Guardrails that a ledger can measure: `cost`, what nudges cost in currency, and
`refunds`, the share of decisions with a retraction.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.rounds import RewardRange, Source
from experiments.inference.intervals import Interval, bonferroni_level
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluate import Estimate, Evaluation
from experiments.promotion.verdict import PromotionEvidence, PromotionVerdict, judge
from journey_bandit.workflows.ledger_log import LedgerLog


class PolicyVerdict(NamedTuple):
    """Verdict on the policy of this name by its stage's promotion rule, with the name of the champion that it was
    compared with.
    """

    policy: str
    champion: str
    verdict: PromotionVerdict


def judged(log: LedgerLog, ask: EvaluationConfig, found: list[Evaluation], level: float) -> list[PolicyVerdict]:
    """Verdict on each policy that was evaluated, at this confidence `level` in (0, 1); in the order of `found`."""
    rule = log.spec.promotion
    measured = {name: _increases(log, ask, name, level) for name in rule.guardrails}
    verdicts = []
    for evaluation in found:
        lift = evaluation.contrasts.get(ask.champion)
        report = PromotionEvidence(
            lift=_interval(lift, evaluation.n) if lift else Interval(float("nan"), -np.inf, np.inf, evaluation.n),
            refused=tuple(f"{refusal.reason}: {refusal.detail}" for refusal in evaluation.refused),
            guardrails={name: by[evaluation.policy] for name, by in measured.items() if evaluation.policy in by},
            segments={s.name: s.joint for s in evaluation.segments.segments} if evaluation.segments else {},
        )
        verdicts.append(PolicyVerdict(evaluation.policy, ask.champion, judge(report, rule)))
    return verdicts


def _increases(log: LedgerLog, ask: EvaluationConfig, guardrail: str, level: float) -> dict[str, Interval]:
    """By policy: how much more of it there is than under the champion. Empty if a ledger cannot measure it."""
    shared = bonferroni_level(level, len(log.spec.promotion.guardrails))
    source: Source
    if guardrail == "cost":
        source = log.source()
        asked = ask._replace(worth=log.worth.spending(log.spec.reward.value))
    elif guardrail == "refunds":
        source = log._replace(refunds=True).source()
        asked = ask._replace(worth=None, rewards=RewardRange(0.0, 1.0))
    else:
        return {}
    found = core.evaluate([source], asked._replace(slope=False, force=True), shared)
    return {e.policy: _interval(e.contrasts[ask.champion], e.n) for e in found if ask.champion in e.contrasts}


def _interval(estimate: Estimate, n: int) -> Interval:
    return Interval(estimate.value, *(estimate.sequence or estimate.interval), n)
