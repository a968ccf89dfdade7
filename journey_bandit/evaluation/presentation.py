"""Presentation of evaluations, as a person or a program wants them, and the exit status of a refusal."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import LEVEL
from experiments.inference.money import NetGain
from experiments.inference.segments import SegmentEffects
from experiments.inference.support import ArmSupport, least_words, name_of, sentence
from experiments.inference.wording import bounds, number
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluate import Estimate, Evaluation, report
from journey_bandit import console
from journey_bandit.evaluation.policy_table import print_policies
from journey_bandit.workflows.verdicts import NONE, NetGains, PolicyVerdict

REFUSED = 3  # exit status
_MANY = 20  # arms of a table
_DIGITS = 16  # of a manifest's digest: enough to know it by


class DisplayOptions(NamedTuple):
    """Display options: title, `unit` of values, `level` of confidence in (0, 1), tables or JSON, the names of the
    arms where the log has them, `money`: net gains over no nudge where the log has prices, and `manifest`: the digest
    that names an export.
    """

    title: str
    unit: str = "reward"
    level: float = LEVEL
    as_json: bool = False
    arms: tuple[str, ...] = ()
    money: NetGains | None = None
    manifest: str = ""

    @property
    def silent(self) -> tuple[Refusal, ...]:
        """Why the log cannot say what no nudge earns though prices are known; () if it can, or nobody asked."""
        return self.money.silent if self.money else ()

    @property
    def gains(self) -> dict[str, NetGain]:
        """{policy: its net gain over no nudge}, of those of which the log can say it."""
        return self.money.by_policy if self.money else {}


def money_json(gain: NetGain | None) -> dict[str, Any] | None:
    """Net gain over no nudge for programs: its metrics, currency, decisions a day, and the sentence that people see.
    None if the log cannot say.
    """
    if gain is None:
        return None
    return {**gain.metrics, "currency": gain.currency, "decisions_a_day": gain.daily, "said": gain.sentence}


def finish(
    shown: DisplayOptions, found: list[Evaluation], ask: EvaluationConfig, verdicts: Sequence[PolicyVerdict] = ()
) -> None:
    """Print the evaluations of one log, as `display`; then leave with status 3 if it cannot answer about one of them,
    as `leave`.
    """
    display(shown, found, ask, verdicts)
    leave(found, ask)


def display(
    shown: DisplayOptions, found: list[Evaluation], ask: EvaluationConfig, verdicts: Sequence[PolicyVerdict] = ()
) -> None:
    """Print the evaluations of one log, and the verdicts if there are any: tables for a person, or one JSON object for
    a program.
    """
    if shown.as_json:
        write(evaluations_json(shown, found, ask, verdicts))
    else:
        console.out.print(shown.title, soft_wrap=True, markup=False)
        other = compared_with(found, ask)
        print_policies(found, other, shown.unit, shown.level, shown.gains, shown.silent)
        for policy, champion, verdict in verdicts:
            reasons = escape("; ".join(verdict.reasons))
            console.out.print(f"[bold]{escape(policy)} for {escape(champion)}: {verdict.decision}[/]: {reasons}")
        for evaluation in found:
            show(evaluation, shown.arms, shown.unit, silent=shown.silent)
        if shown.manifest:
            console.out.print(f"of the export whose manifest begins with {shown.manifest[:_DIGITS]}", soft_wrap=True)
        console.out.print(f"digest {report(found, ask, shown.level)['digest']}", soft_wrap=True)


def evaluations_json(
    shown: DisplayOptions, found: list[Evaluation], ask: EvaluationConfig, verdicts: Sequence[PolicyVerdict] = ()
) -> dict[str, Any]:
    """The JSON object of the evaluations of one log: money and verdicts where there are some, beside what
    `experiments.ope.evaluate.report` says.
    """
    judged = [{"policy": v.policy, "champion": v.champion, **v.verdict._asdict()} for v in verdicts]
    money = {policy: money_json(gain) for policy, gain in shown.gains.items()}
    more: dict[str, Any] = {"verdicts": judged} if judged else {}
    more |= {"money_refused": [refusal._asdict() for refusal in shown.silent]} if shown.silent else {}
    more |= {"manifest": shown.manifest} if shown.manifest else {}
    return {**({"money": money} if money else {}), **report(found, ask, shown.level), **more}


def leave(found: list[Evaluation], ask: EvaluationConfig) -> None:
    """Leave the process with exit status 3 if one of the evaluations was refused and `ask.force` does not overrule it;
    otherwise return. Nothing is printed: `display` has shown the reasons.
    """
    if any(evaluation.refused for evaluation in found) and not ask.force:
        sys.exit(REFUSED)


def write(body: dict[str, Any]) -> None:
    """Print one JSON object on one line of standard output, for programs. `body`: plain values, records and anything
    else that msgspec encodes.
    """
    click.echo(msgspec.json.encode(body).decode())


def compared_with(found: Sequence[Evaluation], ask: EvaluationConfig) -> str:
    """Name of the policy that lifts are over: no nudge where each evaluation with estimates is contrasted with it, else
    the champion.
    """
    estimated = [evaluation for evaluation in found if evaluation.estimates]
    return NONE if estimated and all(NONE in e.contrasts for e in estimated) else ask.champion


def differences(evaluation: Evaluation, silent: Sequence[Refusal] = ()) -> dict[str, Estimate]:
    """Contrasts of a policy, no nudge first; without it where the log is `silent` on what no nudge earns."""
    first = {name: one for name, one in evaluation.contrasts.items() if name == NONE}
    rest = {name: one for name, one in evaluation.contrasts.items() if name != NONE}
    return rest if silent else first | rest


def show(
    evaluation: Evaluation, arms: tuple[str, ...] = (), unit: str = "reward", *, silent: Sequence[Refusal] = ()
) -> None:
    """Print one policy's tables to standard output: estimates, intervals, diagnostics and the support of each arm; or
    the reasons why there are none. `arms`: their names, if the log has them; `silent`: why it cannot say what no nudge
    earns.
    """
    unit = f"{unit} per decision"
    console.out.rule(f"[bold]{evaluation.policy}")
    for refusal in evaluation.refused:
        console.out.print(f"[bold]refused[/]: {refusal.reason}: {refusal.detail}. Needed: {refusal.needed}")
    if evaluation.forced:
        console.out.print("[bold]FORCED[/]: the log cannot answer; the numbers below must not be relied on")
    if evaluation.estimates:
        units = f" in {evaluation.units:,} groups of users" if evaluation.by_user else ""
        sound = {name: e for name, e in evaluation.estimates.items() if not e.biased}
        print_table("Less another policy", "less", differences(evaluation, silent), unit)
        print_table(f"{evaluation.n:,} rounds{units}", "estimator", sound, unit)
        biased = {name: e for name, e in evaluation.estimates.items() if e.biased}
        if biased:
            print_table("Biased by design: the interval includes the bias", "estimator", biased, unit)
    if evaluation.segments:
        _print_segments(evaluation.segments, unit)
    if evaluation.control:
        console.out.print(f"holdout, {evaluation.holdout:,} rounds: {' '.join(cells(evaluation.control)[:2])}")
    shown = ("ess", "max_weight", "mean_weight", "conversions", "matured")
    console.out.print(", ".join(f"{name} {evaluation.diagnostics[name]:.4g}" for name in shown))
    _print_support(evaluation.support, arms)
    for note in evaluation.notes:
        console.out.print(f"note: {note}")


def print_table(title: str, head: str, estimates: dict[str, Estimate], unit: str = "value") -> None:
    """Print a table with a title, one line for each named estimate: value, in `unit`, confidence interval and
    confidence sequence.
    """
    table = Table(head, unit, "interval (one look)", "sequence (every look)", title=title, title_justify="left")
    for name, estimate in estimates.items():
        table.add_row(name, *cells(estimate))
    console.out.print(table)


def _print_support(support: Sequence[ArmSupport], arms: tuple[str, ...]) -> None:
    """The arms that the policy would choose; of many, those that the log can say little of."""
    asked = [arm for arm in support if arm.answer != "not asked"]
    if len(asked) > _MANY:
        asked = [arm for arm in asked if arm.answer != "answers"]
    if not asked:
        return
    table = Table("arm", "would show", "least p", "effective", "", title="Support of the log", title_justify="left")
    for arm in asked:
        answer = f"[bold]{arm.answer}[/]: {arm.why}" if arm.why else arm.answer
        table.add_row(escape(name_of(arm.arm, arms)), f"{arm.share:.1%}", least_words(arm), f"{arm.ess:,.0f}", answer)
    console.out.print(table)
    if silent := sentence(tuple(support), arms):
        console.out.print(f"{silent}.", markup=False)


def _print_segments(found: SegmentEffects, unit: str) -> None:
    table = Table(
        "segment", "rounds", "joint interval", "shrunk", "interval", title=f"Lift over the champion by segment, {unit}"
    )
    table.title_justify = "left"
    for name, joint, shrunk in found.segments:
        ends = bounds(joint.low, joint.high, ".5g"), number(shrunk.value, ".5g"), bounds(shrunk.low, shrunk.high, ".5g")
        table.add_row(name, f"{joint.n:,}", *ends)
    console.out.print(table)
    hurt = ", ".join(segment.name for segment in found.hurt) or "none surely"
    console.out.print(f"worst segment: {found.worst.name}; hurt: {hurt}")


def cells(estimate: Estimate) -> tuple[str, str, str]:
    """Cells of an estimate as text, in the unit of the evaluation: value, confidence interval, and confidence sequence
    where there is one.
    """
    sequence = bounds(*estimate.sequence, ".5g") if estimate.sequence else "–"
    return number(estimate.value, ".5g"), bounds(*estimate.interval, ".5g"), sequence
