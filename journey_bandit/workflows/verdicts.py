"""Verdict on a policy evaluated on a ledger, by the rule that its stage declares under `promotion`.

The rule is asked in money net of costs, whatever unit the evaluation has: over no nudge and over the champion, by
confidence sequences where there are some: then it may be applied at any time. Guardrails that a ledger can measure:
`cost`, what nudges cost in currency; `refunds` and `opt_outs`, the share of decisions with a retraction or an opt-out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bandit.catalogue.limits import BadEvent
from bandit.catalogue.net_value import ArmWorth
from experiments.data.rounds import RewardRange, Source
from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import Interval, bonferroni_level
from experiments.inference.money import NetGain
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluate import Evaluation, PartRunner, run_serially
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from experiments.promotion.verdict import NO_NUDGE, PromotionEvidence, PromotionVerdict, judge
from journey_bandit.workflows.ledger_log import LedgerLog

NONE = "none"
_BAD: Mapping[str, BadEvent] = {"refunds": "retraction", "opt_outs": "opt_out"}


class PolicyVerdict(NamedTuple):
    """Verdict on the policy of this name by its stage's promotion rule, with the name of the champion that it was
    compared with.
    """

    policy: str
    champion: str
    verdict: PromotionVerdict


class NetGains(NamedTuple):
    """Net gains over no nudge of evaluated policies, in `currency`. `evaluations`: theirs in money, with the contrast
    to no nudge; `silent`: why the log cannot say what no nudge earns, () if it can.
    """

    currency: str
    evaluations: list[Evaluation]
    silent: tuple[Refusal, ...]

    @property
    def by_policy(self) -> dict[str, NetGain]:
        """{policy: its net gain}, without policies of which the log cannot say it."""
        if self.silent:
            return {}
        found = {e.policy: core.net_gain(e.contrasts.get(NONE), e.n, e.daily, self.currency) for e in self.evaluations}
        return {policy: gain for policy, gain in found.items() if gain is not None}


def judged(
    log: LedgerLog,
    ask: EvaluationConfig,
    found: list[Evaluation],
    level: float,
    source: Source | None = None,
    rewards: list[Evaluation] | None = None,
    money: NetGains | None = None,
) -> list[PolicyVerdict]:
    """Verdict on each policy that was evaluated, at this confidence `level` in (0, 1); in the order of `found`.

    `found`: evaluations of `ask`, in money or in rewards; those in money are used, what is missing is computed from
    `source`, the decisions that count (all of the log if it is not given). `rewards` and `money`: the same evaluations
    in rewards and in money, where they are known already; only words need rewards.
    """
    rule, source = log.spec.promotion, source or log.source()
    measured = {name: _increases(log, ask, name, level, source) for name in rule.guardrails}
    money, verdicts = money or net_gains([source], ask, found, log.worth, log.currency, level), list[PolicyVerdict]()
    pairs = zip(found, money.evaluations, rewards or _rewards(ask, level, source), strict=True)
    for evaluation, net, reward in pairs:
        over_none, lift = (_contrast(net, name) for name in (NONE, ask.champion))
        report = PromotionEvidence(
            lift=lift,
            over_none=over_none,
            refused=tuple(f"{refusal.reason}: {refusal.detail}" for refusal in evaluation.refused),
            silent=tuple(f"{refusal.reason}: {refusal.detail}" for refusal in money.silent),
            guardrails={name: by[evaluation.policy] for name, by in measured.items() if evaluation.policy in by},
            segments={s.name: s.joint for s in net.segments.segments} if net.segments else {},
            live=NO_NUDGE if ask.champion == NONE else ask.champion,
            currency=log.currency,
            rewards=_contrast(reward, NONE),
            binary=log.spec.reward.kind == "binary",
        )
        verdicts.append(PolicyVerdict(evaluation.policy, ask.champion, judge(report, rule)))
    return verdicts


def no_nudge() -> EvaluationPolicy:
    """Evaluation policy that shows nothing to anybody: what everything is compared with."""
    return EvaluationPolicy(NONE, FixedArm(0))


def with_no_nudge(ask: EvaluationConfig) -> EvaluationConfig:
    """The same question with no nudge among what each policy is contrasted with."""
    known = any(policy.name == NONE for policy in (*ask.against, *ask.baseline))
    return ask if known else ask._replace(baseline=(*ask.baseline, no_nudge()))


def net_gains(
    sources: Sequence[Source],
    ask: EvaluationConfig,
    found: list[Evaluation],
    worth: ArmWorth,
    currency: str,
    level: float,
    run: PartRunner = run_serially,
) -> NetGains:
    """Net gains of the policies of `ask` over no nudge, in `currency` at the prices of `worth`. `found`: evaluations of
    `ask`, used if they are in money and contrasted with no nudge; else these are computed from the `sources` by `run`.
    """
    if ask.worth is None or with_no_nudge(ask) is not ask:
        found = core.evaluate(sources, with_no_nudge(ask)._replace(worth=worth), level, run)
    return NetGains(currency, found, _silent_on_none(sources, ask, run))


def _rewards(ask: EvaluationConfig, level: float, source: Source) -> list[Evaluation]:
    return core.evaluate([source], with_no_nudge(ask)._replace(worth=None, follow=False, slope=False), level)


def _silent_on_none(sources: Sequence[Source], ask: EvaluationConfig, run: PartRunner) -> tuple[Refusal, ...]:
    """Why the log cannot say what no nudge earns; () if it can. Where it cannot, a net gain over no nudge would rest on
    predictions alone.
    """
    asked = ask._replace(targets=(no_nudge(),), against=(), baseline=(), follow=False, force=False, slope=False)
    return core.evaluate(sources, asked, run=run)[0].refused


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
    elif guardrail in _BAD:
        source = log._replace(bad=_BAD[guardrail]).source()
        asked = ask._replace(worth=None, rewards=RewardRange(0.0, 1.0))
    else:
        return {}
    found = core.evaluate([source], asked._replace(slope=False, force=True), shared)
    return {e.policy: e.contrasts[ask.champion].over(e.n) for e in found if ask.champion in e.contrasts}
