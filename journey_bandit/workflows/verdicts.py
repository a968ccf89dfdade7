"""Verdict on a policy evaluated on a ledger, by the rule that its stage declares under `promotion`.

The rule is asked in money net of costs, whatever unit the evaluation has: over no nudge and over the champion, by
confidence sequences where there are some: then it may be applied at any time. Guardrails that a ledger can measure:
`cost`, what nudges cost in currency, and `refunds`, the share of decisions with a retraction.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.rounds import RewardRange, Source
from experiments.inference import money
from experiments.inference.intervals import Interval, bonferroni_level
from experiments.inference.money import NetGain
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluate import Evaluation
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from experiments.promotion.lift_monitor import times
from experiments.promotion.verdict import NO_NUDGE, PromotionEvidence, PromotionVerdict, judge
from journey_bandit.workflows.ledger_log import LedgerLog

NONE = "none"


class PolicyVerdict(NamedTuple):
    """Verdict on the policy of this name by its stage's promotion rule, with the name of the champion that it was
    compared with, and its net gain over no nudge (None if the log cannot say).
    """

    policy: str
    champion: str
    verdict: PromotionVerdict
    gain: NetGain | None = None


def judged(
    log: LedgerLog,
    ask: EvaluationConfig,
    found: list[Evaluation],
    level: float,
    source: Source | None = None,
    rewards: list[Evaluation] | None = None,
) -> list[PolicyVerdict]:
    """Verdict on each policy that was evaluated, at this confidence `level` in (0, 1); in the order of `found`.

    `found`: evaluations of `ask`, in money or in rewards; those in money are used, what is missing is computed from
    `source`, the decisions that count (all of the log if it is not given). `rewards`: the same evaluations in rewards,
    where they are known already; only words need them.
    """
    rule, source = log.spec.promotion, source or log.source()
    measured = {name: _increases(log, ask, name, level, source) for name in rule.guardrails}
    silent, daily, verdicts = _silent_on_none(log, ask, source), money.daily(times(source())), []
    pairs = zip(found, _money(log, ask, found, level, source), rewards or _rewards(ask, level, source), strict=True)
    for evaluation, net, reward in pairs:
        over_none, lift = (_contrast(net, name) for name in (NONE, ask.champion))
        report = PromotionEvidence(
            lift=lift,
            over_none=over_none,
            refused=tuple(f"{refusal.reason}: {refusal.detail}" for refusal in evaluation.refused),
            silent=silent,
            guardrails={name: by[evaluation.policy] for name, by in measured.items() if evaluation.policy in by},
            segments={s.name: s.joint for s in net.segments.segments} if net.segments else {},
            live=NO_NUDGE if ask.champion == NONE else ask.champion,
            currency=log.currency,
            rewards=_contrast(reward, NONE),
            binary=log.spec.reward.kind == "binary",
        )
        gain = core.net_gain(net.contrasts.get(NONE), net.n, daily, log.currency)
        verdicts.append(PolicyVerdict(evaluation.policy, ask.champion, judge(report, rule), gain))
    return verdicts


def no_nudge() -> EvaluationPolicy:
    """Evaluation policy that shows nothing to anybody: what everything is compared with."""
    return EvaluationPolicy(NONE, FixedArm(0))


def with_no_nudge(ask: EvaluationConfig) -> EvaluationConfig:
    """The same question with no nudge among what each policy is contrasted with."""
    known = any(policy.name == NONE for policy in (*ask.against, *ask.baseline))
    return ask if known else ask._replace(baseline=(*ask.baseline, no_nudge()))


def _money(
    log: LedgerLog, ask: EvaluationConfig, found: list[Evaluation], level: float, source: Source
) -> list[Evaluation]:
    """The same evaluations in currency, net of costs, with the contrast to no nudge."""
    if ask.worth is not None and with_no_nudge(ask) is ask:
        return found
    return core.evaluate([source], with_no_nudge(ask)._replace(worth=log.worth), level)


def _rewards(ask: EvaluationConfig, level: float, source: Source) -> list[Evaluation]:
    return core.evaluate([source], with_no_nudge(ask)._replace(worth=None, follow=False, slope=False), level)


def _silent_on_none(log: LedgerLog, ask: EvaluationConfig, source: Source) -> tuple[str, ...]:
    """Why the log cannot say what no nudge earns; () if it can."""
    asked = ask._replace(targets=(no_nudge(),), against=(), baseline=(), worth=log.worth, follow=False, force=False)
    (found,) = core.evaluate([source], asked._replace(slope=False))
    return tuple(f"{refusal.reason}: {refusal.detail}" for refusal in found.refused)


def _contrast(found: Evaluation, name: str) -> Interval:
    """Contrast with another policy as an interval; unbounded where the log cannot answer."""
    contrast = found.contrasts.get(name)
    return contrast.over(found.n) if contrast else Interval(float("nan"), -np.inf, np.inf, found.n)


def _increases(
    log: LedgerLog, ask: EvaluationConfig, guardrail: str, level: float, source: Source
) -> dict[str, Interval]:
    """By policy: how much more of it there is than under the champion. Empty if a ledger cannot measure it."""
    shared = bonferroni_level(level, len(log.spec.promotion.guardrails))
    if guardrail == "cost":
        asked = ask._replace(worth=log.worth.spending(log.spec.reward.value))
    elif guardrail == "refunds":
        source = log._replace(refunds=True).source()
        asked = ask._replace(worth=None, rewards=RewardRange(0.0, 1.0))
    else:
        return {}
    found = core.evaluate([source], asked._replace(slope=False, force=True), shared)
    return {e.policy: e.contrasts[ask.champion].over(e.n) for e in found if ask.champion in e.contrasts}
