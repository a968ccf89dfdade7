"""Showing evaluations, as a person or a program wants them, and the exit status of a refusal."""

from typing import Any, NamedTuple

import click
import msgspec
from rich.table import Table

from cli import runs
from experiments.evaluate import Estimate, Evaluation, report
from experiments.inference import LEVEL
from experiments.parts import Ask

REFUSED = 3  # exit status


class Shown(NamedTuple):
    """How to show it. `force`: print, and label, what would be refused."""

    title: str
    unit: str = "reward"
    level: float = LEVEL
    force: bool = False
    as_json: bool = False


def finish(shown: Shown, found: list[Evaluation], ask: Ask) -> None:
    """Print the evaluations of one log; leave with status 3 if the log cannot answer and that was not overruled."""
    if shown.as_json:
        write(report(found, ask, shown.level))
        return
    runs.console.print(f"{shown.title}: {shown.unit} per decision, {100 * shown.level:g} % intervals")
    for evaluation in found:
        show(evaluation)


def write(body: dict[str, Any]) -> None:
    """One JSON object."""
    click.echo(msgspec.json.encode(body).decode())


def show(evaluation: Evaluation) -> None:
    """One policy's tables."""
    runs.console.rule(f"[bold]{evaluation.policy}")
    table = Table("estimator", "value", "interval", "sequence", title=f"{evaluation.n:,} rounds", title_justify="left")
    for name, estimate in evaluation.estimates.items():
        table.add_row(name, *cells(estimate))
    runs.console.print(table)
    less = Table("less", "difference", "interval", "sequence", title="Against other policies", title_justify="left")
    for name, estimate in evaluation.contrasts.items():
        less.add_row(name, *cells(estimate))
    runs.console.print(less)
    for note in evaluation.notes:
        runs.console.print(f"note: {note}")


def cells(estimate: Estimate) -> tuple[str, str, str]:
    """Value, interval, sequence."""
    sequence = _span(estimate.sequence) if estimate.sequence else "–"
    return f"{estimate.value:.5g}", _span(estimate.interval), sequence


def _span(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.5g}, {ends[1]:.5g}]"
