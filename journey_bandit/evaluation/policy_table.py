"""Policy table: the one table that an evaluation prints first, each policy with its value and its lift, and below it
each policy's net gain over no nudge in a sentence.
"""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import Interval
from experiments.inference.money import NetGain
from experiments.inference.wording import bounds, compared, estimate, number
from experiments.ope.evaluate import Estimate, Evaluation
from journey_bandit import console
from journey_bandit.workflows.verdicts import NONE


def print_policies(
    found: Sequence[Evaluation],
    other: str,
    unit: str,
    level: float,
    gains: Mapping[str, NetGain],
    silent: Sequence[Refusal] = (),
) -> None:
    """Print the policies of one log to standard output: value and lift over `other` in `unit` per decision, with their
    intervals at the `level`, then the sentence of each net gain. `silent`: why there are no gains over no nudge though
    prices are known; there is no lift over it then.
    """
    name = in_words(other)
    title = f"{unit} per decision; lift: less {name}; intervals at {100 * level:g} %"
    table = Table("policy", "value", "lift", "lift at every look", "", title=escape(title), title_justify="left")
    for evaluation in found:
        value = next(iter(evaluation.estimates.values()), None)
        lift = None if silent and other == NONE else evaluation.contrasts.get(other)
        over = "–" if lift is None else escape(estimate(Interval(lift.value, *lift.interval, evaluation.n), ""))
        table.add_row(escape(evaluation.policy), _with_bounds(value), over, *_says(evaluation, lift))
    console.out.print(table)
    forced = {evaluation.policy for evaluation in found if evaluation.forced}
    for policy, gain in gains.items():
        if gain.error != 0.0:  # else it is no nudge itself
            mark = "FORCED: " if policy in forced else ""
            console.out.print(f"{policy}: {mark}{gain.sentence}.", soft_wrap=True, markup=False)
    for refusal in silent:
        why = f"{refusal.reason}: {refusal.detail}. Needed: {refusal.needed}"
        console.out.print(f"the log cannot say what no nudge earns: {why}", soft_wrap=True, markup=False)


def in_words(other: str) -> str:
    """Name of a policy that others are compared with, as a person reads it."""
    return "no nudge" if other == NONE else "the logging policy" if other == "logged" else other


def _with_bounds(found: Estimate | None) -> str:
    return "–" if found is None else f"{number(found.value, '.4g')} {escape(bounds(*found.interval, '.4g'))}"


def _says(evaluation: Evaluation, lift: Estimate | None) -> tuple[str, str]:
    """Cells of the bounds that hold at every look, and of what the lift says: by them, or for one look without them."""
    refused = ", ".join(refusal.reason for refusal in evaluation.refused)
    if not evaluation.estimates:
        return "–", f"[bold]refused[/]: {refused}"
    sequence = escape(bounds(*lift.sequence, "+.3g")) if lift and lift.sequence else "–"
    said = "the log cannot say" if lift is None else _compared(lift, evaluation.n)
    return sequence, f"[bold]FORCED[/] ({refused}): {said}" if evaluation.forced else said


def _compared(lift: Estimate, n: int) -> str:
    if lift.value == 0.0 and lift.interval == (0.0, 0.0):
        return "does the same"
    words = {"Better than": "better", "Worse than": "worse", "Not distinguishable from": "not distinguishable"}
    return words.get(compared(lift.over(n)), "the log cannot say")
