"""Commands `journey-bandit evaluate table` and `events`: an A/B test from a plain table or from Segment's messages,
each arm less the control.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bandit.errors import InvalidRequest, Problem
from bandit.tables import cells
from experiments.ab_tests import analysis
from experiments.ab_tests.analysis import ExperimentResult
from experiments.ab_tests.experiment_plan import ExperimentPlan
from experiments.ab_tests.experiment_table import TableColumns, read_table
from experiments.ab_tests.segment_events import read_events
from journey_bandit.evaluation import experiment_tables, presentation
from journey_bandit.fractions import fraction

_PLAN = (
    click.option("--control", default="", metavar="ARM", help="[default: the arm called control or none]"),
    click.option("--shares", metavar="A=.5,B=.5", help="Planned shares of all arms, also 50% or 1/3: did they come?"),
    click.option("--range", "ranges", multiple=True, metavar="OUTCOME=LOW,HIGH", help="Of amounts: allows sequences."),
    click.option("--ordered", is_flag=True, help="Rows are in the order of their assignment: narrower sequences."),
    click.option("--value", "worth", multiple=True, metavar="OUTCOME=MONEY", help="Of one unit: adds the outcome net."),
    click.option("--cost", multiple=True, metavar="ARM=MONEY", help="Of a person in that arm, off net."),
    click.option("--level", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.999999)),
    click.option("--no-sequence", is_flag=True, help="Leave out confidence sequences."),
    click.option("--force", is_flag=True, help="Print estimates that would be refused, labelled."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
)


def _plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a test that do not depend on what kind of file it is read from."""
    for option in reversed(_PLAN):
        command = option(command)
    return command


@click.command("table")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--arm", required=True, metavar="COLUMN", help="Which arm was assigned.")
@click.option("--outcome", "outcomes", required=True, multiple=True, metavar="COLUMN", help="What came of it.")
@click.option("--count", default="", metavar="COLUMN", help="Rows stand for so many people; outcomes are sums.")
@click.option("--user", default="", metavar="COLUMN", help="Who a row is about, if people have several rows.")
@click.option("--squares", multiple=True, metavar="OUTCOME=COLUMN", help="Sums of squares, for sums of amounts.")
@click.option("--covariate", "covariates", multiple=True, metavar="COLUMN", help="Known before: adjust by it.")
@_plan_options
def table(file: Path, as_json: bool, **given: Any) -> None:
    """Compare the arms of an A/B test with its control: a row for each person, or for so many people (--count).

    Exit status 3: the table cannot answer; it says why, and what would be enough.
    """
    squares = dict(_pairs("squares", given["squares"]))
    columns = TableColumns(given["arm"], given["outcomes"], given["count"], given["covariates"], squares, given["user"])
    plan = _plan(given)
    _finish(str(file), analysis.analyse(read_table(file, columns, tuple(plan.shares)), plan), as_json=as_json)


@click.command("events")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--experiment", required=True, help="Its experiment_name or experiment_id.")
@click.option(
    "--outcome", "outcomes", required=True, multiple=True, metavar="EVENT", help="Or EVENT.PROPERTY: its sum."
)
@_plan_options
def events(file: Path, experiment: str, outcomes: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Compare the arms of an A/B test from Segment's messages, one a line: people by their first Experiment Viewed.

    Exit status 3: the events cannot answer; it says why, and what would be enough.
    """
    plan = _plan(given)
    _finish(str(file), analysis.analyse(read_events(file, experiment, outcomes), plan), as_json=as_json)


def _plan(given: Mapping[str, Any]) -> ExperimentPlan:
    return ExperimentPlan(
        control=given["control"],
        shares={arm: fraction("shares", text) for arm, text in _pairs("shares", (given["shares"] or "").split(","))},
        level=given["level"],
        ranges={name: _range(text) for name, text in _pairs("range", given["ranges"])},
        worth={name: _number("value", text) for name, text in _pairs("value", given["worth"])},
        cost={name: _number("cost", text) for name, text in _pairs("cost", given["cost"])},
        follow=not given["no_sequence"],
        ordered=given["ordered"],
        force=given["force"],
    )


def _finish(name: str, found: ExperimentResult, *, as_json: bool) -> None:
    if as_json:
        presentation.write({"file": name, **experiment_json(found)})
    else:
        experiment_tables.show(name, found)
    if found.refused and not found.forced:
        sys.exit(presentation.REFUSED)


def _pairs(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    """(name, text) of values NAME=TEXT, each name once; empty texts are left out."""
    found = list[tuple[str, str]]()
    for text in filter(None, map(str.strip, given)):
        name, equals, value = (part.strip() for part in text.rpartition("="))
        if not (name and equals and value):
            raise click.UsageError(f"--{option} {text!r}: say NAME=VALUE")
        if name in dict(found):
            raise click.UsageError(f"--{option} {text!r}: each name once")
        found.append((name, value))
    return found


def _number(option: str, text: str) -> float:
    value = cells.number(text)
    if value is None or abs(value) == float("inf"):
        raise InvalidRequest(Problem(option, f"{text!r} is not a number", "a number, such as 0.5"))
    return value


def _range(text: str) -> tuple[float, float]:
    low, comma, high = text.partition(",")
    if not comma or _number("range", low) >= _number("range", high):
        raise click.UsageError(f"--range {text!r}: say OUTCOME=LOW,HIGH, the least first")
    return _number("range", low), _number("range", high)


def experiment_json(found: ExperimentResult) -> dict[str, Any]:
    """The JSON object of a test, without the name of its file."""
    outcomes = [
        {
            **outcome._asdict(),
            "arms": [arm._asdict() for arm in outcome.arms],
            "comparisons": [one._asdict() for one in outcome.comparisons],
        }
        for outcome in found.outcomes
    ]
    return {
        **found._asdict(),
        "shares": found.shares._asdict() if found.shares else None,
        "outcomes": outcomes,
        "refused": [refusal._asdict() for refusal in found.refused],
    }
