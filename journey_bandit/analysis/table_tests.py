"""A/B tests from tables, as the command `evaluate table` analyses them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from bandit.errors import InvalidRequest, Problem
from experiments.ab_tests.analysis import ArmComparison, ExperimentResult, OutcomeResult, analyse
from experiments.ab_tests.experiment_plan import ExperimentPlan
from experiments.ab_tests.experiment_table import TableColumns, read_table
from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import LEVEL
from experiments.inference.wording import bounds, number
from journey_bandit.analysis import arguments, arrow_tables, result_html
from journey_bandit.analysis.arrow_tables import ArrowResult, ArrowStream
from journey_bandit.evaluation import experiment_tables
from journey_bandit.evaluation.experiment import experiment_json

_NUMBERS = (
    "difference", "low", "high", "together_low", "together_high", "sequence_low", "sequence_high", "p", "p_holm",
    "lift", "lift_low", "lift_high", "mean", "mean_low", "mean_high",
)  # fmt: skip
_ARMS = pa.schema(
    [
        ("outcome", pa.string()),
        ("arm", pa.string()),
        ("n", pa.int64()),
        *((name, pa.float64()) for name in _NUMBERS),
        ("adjusted", pa.bool_()),
        ("forced", pa.bool_()),
    ]
)


@dataclass(frozen=True, repr=False)
class ExperimentSummary(ArrowResult):
    """Summary of an A/B test: `result` is what the command prints, `title` the name of the table.

    As a table it has one row for each outcome and arm: `difference` from the control with its interval (`low`, `high`),
    the interval for all comparisons `together`, the `sequence`, which may be looked at always, `p` and `p_holm`, the
    relative `lift`, and the arm's `mean`, with `n` people. Cells of the control's differences are null. `adjusted`: by
    covariates, means and differences alike; figures that are `forced` must not be relied on.
    """

    title: str
    result: ExperimentResult

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """Reasons why the table cannot answer; () if it can."""
        return self.result.refused

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `journey-bandit evaluate table --json` prints, without the name of the file."""
        decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(experiment_json(self.result)))
        return decoded

    def to_arrow(self) -> Any:
        """The figures as a `pyarrow.Table`; numbers that are not known are null."""
        rows = [row | {"forced": self.result.forced} for one in self.result.outcomes for row in _rows(one)]
        return pa.Table.from_pylist(rows, schema=_ARMS)

    def plot(self, outcome: str = "") -> Any:
        """Figure of matplotlib for one outcome, by default the one in money or else the first: each arm less the
        control with the interval to quote (thick), which holds for all comparisons together where there are several,
        and its sequence (thin), and beside it the means. Raises InvalidRequest for an outcome that has no figures;
        ImportError, which names the extra, if matplotlib is not installed.
        """
        arrow_tables.need("matplotlib")
        from experiments.reports import figures
        from experiments.reports.figures import ForestBar, ForestPanel

        named = {one.name: one for one in experiment_tables.in_order(self.result)}
        name = outcome or next(iter(named), "")
        if name not in named:
            known = ", ".join(named) or "none: the table was refused"
            raise InvalidRequest(Problem("outcome", f"there are no figures of {name!r}", f"one of {known}"))
        one, level = named[name], f"{100 * self.result.level:g} % intervals"
        together = f"{level}, all together" if self.result.family > 1 else level
        over = [
            ForestBar(c.arm, c.difference, experiment_tables.quoted(c, self.result), c.sequence)
            for c in one.comparisons
        ]
        means, mark = [ForestBar(arm.arm, arm.mean, arm.interval) for arm in one.arms], self._mark
        mean, _ = experiment_tables.mean_heads(one)
        gaps = ForestPanel(f"{mark}{name}, less {self.result.control}", together, over, True)
        return figures.forest([gaps, ForestPanel(f"{mark}{name}, {mean}", level, means)])

    @property
    def _mark(self) -> str:
        return "FORCED: " if self.result.forced else ""

    def __repr__(self) -> str:
        found = self.result
        if not found.outcomes:
            said = [f"refused ({', '.join(refusal.reason for refusal in found.refused)})"]
        else:
            said = [
                f"{one.name}: {_said(c, found)}" for one in experiment_tables.in_order(found) for c in one.comparisons
            ]
        return f"ExperimentSummary({self.title}; control {found.control}; {self._mark}{'; '.join(said)})"

    def _repr_html_(self) -> str:
        found, people = self.result, zip(self.result.arms, self.result.people, strict=True)
        head = f"{self.title}: {', '.join(f'{arm} {n:,}' for arm, n in people)} people; control is {found.control}"
        parts = [result_html.heading(head)]
        for refusal in found.refused:
            text = f"{refusal.detail}. Needed: {refusal.needed}"
            parts.append(result_html.sentence(text, f"refused: {refusal.reason}:"))
        if found.forced:
            text = "the table cannot answer; the numbers below must not be relied on"
            parts.append(result_html.sentence(text, "FORCED:"))
        parts += [_outcome_html(one, found) for one in experiment_tables.in_order(found)]
        parts += [result_html.sentence(note, "note:") for note in found.notes]
        return result_html.page(parts)


def evaluate_table(
    table: str | Path | ArrowStream,
    *,
    arm: str,
    outcomes: Sequence[str],
    control: object = None,
    count: str = "",
    user: str = "",
    covariates: Sequence[str] = (),
    squares: Mapping[str, str] | None = None,
    shares: Mapping[Any, float] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    values: Mapping[str, float] | None = None,
    costs: Mapping[Any, float] | None = None,
    ordered: bool = False,
    sequence: bool = True,
    force: bool = False,
    level: float = LEVEL,
) -> ExperimentSummary:
    """Comparison of the arms of an A/B test with its control: `journey-bandit evaluate table`.

    `table`: a file of text, or a table of any library with the Arrow PyCapsule interface, with a row for each person,
    or for so many people (`count`). `arm`, `outcomes`, `count`, `user`, `covariates`: names of columns. `control`: an
    arm, None for the one called control or none. `shares`: {arm: planned share}; `ranges`: {outcome: (least, largest)};
    `values`: {outcome: money}; `costs`: {arm: money a person}. Arms of a table may be texts, numbers or booleans, as
    its column has them; arms of a file are texts, as its cells have them ("True", "1.0"). The other arguments are the
    options of the same names (guide `experiments`).

    Raises InvalidRequest for a column, row or arm that cannot be used; what the table cannot answer is in `refused`.
    """
    arguments.check_lists(outcomes=outcomes, covariates=covariates)
    arguments.check_level(level)
    for name, (low, high) in (ranges or {}).items():
        if not low < high:
            fix = f"the least first: {{{name!r}: ({high:g}, {low:g})}}" if high < low else "two different numbers"
            raise InvalidRequest(Problem("ranges", f"{name!r} goes from {low:g} to {high:g}", fix))
    columns = TableColumns(arm, tuple(outcomes), count, tuple(covariates), squares or {}, user)
    plan = ExperimentPlan(
        "" if control is None else _arm(control),
        {_arm(one): share for one, share in (shares or {}).items()},
        level,
        ranges or {},
        values or {},
        {_arm(one): cost for one, cost in (costs or {}).items()},
        sequence,
        ordered,
        force,
    )
    needed = [arm, *outcomes, count, *covariates, *(squares or {}).values(), user]
    with _opened(table, needed) as path:
        found = read_table(path, columns, tuple(plan.shares))
        title = arrow_tables.title_of(path, table)
        return ExperimentSummary(title, analyse(found._replace(name=title), plan))


@contextmanager
def _opened(table: str | Path | ArrowStream, needed: Sequence[str]) -> Iterator[Path]:
    if isinstance(table, ArrowStream):
        with arrow_tables.as_text(table, needed) as path:
            yield path
    else:
        yield arrow_tables.path_of(table, "table")


def _arm(given: object) -> str:
    """Name of an arm as a cell has it once the table was written as text."""
    if isinstance(given, bool | np.bool_):
        return str(given).lower()
    return f"{given:.0f}" if isinstance(given, float) and given.is_integer() else str(given)


def _rows(one: OutcomeResult) -> Iterator[dict[str, Any]]:
    compared = {c.arm: c for c in one.comparisons}
    for arm in one.arms:
        row: dict[str, Any] = {"mean": arm.mean, "mean_low": arm.interval[0], "mean_high": arm.interval[1]}
        c = compared.get(arm.arm)
        if c is not None:
            row |= {"difference": c.difference, "p": c.p, "p_holm": c.p_holm, "lift": c.lift}
            pairs = {"": c.interval, "together_": c.together, "sequence_": c.sequence, "lift_": c.lift_interval}
            for prefix, ends in pairs.items():
                row |= {f"{prefix}low": ends[0], f"{prefix}high": ends[1]} if ends else {}
        known = {name: value for name, value in row.items() if value is not None and np.isfinite(value)}
        yield {
            "outcome": one.name,
            "arm": arm.arm,
            "n": arm.n,
            **known,
            "adjusted": experiment_tables.adjusted(one),
        }


def _said(one: ArmComparison, found: ExperimentResult) -> str:
    ends = experiment_tables.quoted(one, found)
    return f"{one.arm} {number(one.difference, '+.4g')} {bounds(*ends, '+.4g')}"


def _outcome_html(one: OutcomeResult, found: ExperimentResult) -> str:
    level = f"{100 * found.level:g} %"
    rows = [
        (
            c.arm,
            number(c.difference, "+.4g"),
            bounds(*c.together, "+.4g"),
            bounds(*c.interval, "+.4g"),
            bounds(*c.sequence, "+.4g") if c.sequence else "–",
            number(c.p, ".2g"),
            number(c.p_holm, ".2g"),
        )
        for c in one.comparisons
    ]
    head = ("arm", "less control", f"{level}, all together", f"{level}, alone", "at any time", "p", "p, Holm")
    mean, title = experiment_tables.mean_heads(one)
    means = [(arm.arm, f"{arm.n:,}", number(arm.mean, ".5g"), bounds(*arm.interval, ".4g")) for arm in one.arms]
    return "".join(
        [
            result_html.heading(one.name),
            result_html.table(head, rows, f"Less {found.control}: {one.method}"),
            *(result_html.sentence(line) for line in experiment_tables.remarks(one, found)),
            result_html.table(("arm", "people", mean, level), means, title),
        ]
    )
