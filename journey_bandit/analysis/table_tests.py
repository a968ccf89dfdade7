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
from journey_bandit.analysis import arrow_tables, result_html
from journey_bandit.analysis.arrow_tables import ArrowResult, ArrowStream
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
    ]
)


@dataclass(frozen=True, repr=False)
class ExperimentSummary(ArrowResult):
    """Summary of an A/B test: `result` is what the command prints, `title` the name of the table.

    As a table it has one row for each outcome and arm: `difference` from the control with its interval (`low`, `high`),
    the interval for all comparisons `together`, the `sequence`, which may be looked at always, `p` and `p_holm`, the
    relative `lift`, and the arm's own `mean`, with `n` people. Cells of the control's differences are null.
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
        return pa.Table.from_pylist([row for one in self.result.outcomes for row in _rows(one)], schema=_ARMS)

    def plot(self, outcome: str = "") -> Any:
        """Figure of matplotlib for one outcome, by default the first: each arm less the control with its interval
        (thick) and its sequence (thin), and beside it the means. Raises InvalidRequest for an outcome that has no
        figures; ImportError, which names the extra, if matplotlib is not installed.
        """
        arrow_tables.need("matplotlib")
        from experiments.reports import figures
        from experiments.reports.figures import ForestBar, ForestPanel

        named = {one.name: one for one in self.result.outcomes}
        name = outcome or next(iter(named), "")
        if name not in named:
            known = ", ".join(named) or "none: the table was refused"
            raise InvalidRequest(Problem("outcome", f"there are no figures of {name!r}", f"one of {known}"))
        one, level = named[name], f"{100 * self.result.level:g} % intervals"
        over = [ForestBar(c.arm, c.difference, c.interval, c.sequence) for c in one.comparisons]
        means = [ForestBar(arm.arm, arm.mean, arm.interval) for arm in one.arms]
        title = f"{name}, less {self.result.control}"
        return figures.forest([ForestPanel(title, level, over, True), ForestPanel(f"{name}, mean", level, means)])

    def __repr__(self) -> str:
        if not self.result.outcomes:
            said = [f"refused ({', '.join(refusal.reason for refusal in self.result.refused)})"]
        else:
            said = [f"{one.name}: {_said(c)}" for one in self.result.outcomes for c in one.comparisons]
        return f"ExperimentSummary({self.title}; control {self.result.control}; {'; '.join(said)})"

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
        parts += [_outcome_html(one, found) for one in found.outcomes]
        parts += [result_html.sentence(note, "note:") for note in found.notes]
        return result_html.page(parts)


def evaluate_table(
    table: str | Path | ArrowStream,
    *,
    arm: str,
    outcomes: Sequence[str],
    control: str = "",
    count: str = "",
    user: str = "",
    covariates: Sequence[str] = (),
    squares: Mapping[str, str] | None = None,
    shares: Mapping[str, float] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    values: Mapping[str, float] | None = None,
    costs: Mapping[str, float] | None = None,
    ordered: bool = False,
    sequence: bool = True,
    force: bool = False,
    level: float = LEVEL,
) -> ExperimentSummary:
    """Comparison of the arms of an A/B test with its control: `journey-bandit evaluate table`.

    `table`: a file of text, or a table of any library with the Arrow PyCapsule interface, with a row for each person,
    or for so many people (`count`). `arm`, `outcomes`, `count`, `user`, `covariates`: names of columns. `shares`: {arm:
    planned share}; `ranges`: {outcome: (least, largest)}; `values`: {outcome: money}; `costs`: {arm: money a person}.
    The other arguments are the options of the same names (guide `experiments`).

    Raises InvalidRequest for a column, row or arm that cannot be used; what the table cannot answer is in `refused`.
    """
    if isinstance(outcomes, str):
        raise InvalidRequest(Problem("outcomes", "one text is no list of columns", f"outcomes=[{outcomes!r}]"))
    columns = TableColumns(arm, tuple(outcomes), count, tuple(covariates), squares or {}, user)
    plan = ExperimentPlan(
        control, shares or {}, level, ranges or {}, values or {}, costs or {}, sequence, ordered, force
    )
    with _opened(table) as path:
        found = read_table(path, columns, tuple(plan.shares))
        title = arrow_tables.title_of(path, table)
        return ExperimentSummary(title, analyse(found._replace(name=title), plan))


@contextmanager
def _opened(table: str | Path | ArrowStream) -> Iterator[Path]:
    if isinstance(table, ArrowStream):
        with arrow_tables.as_text(table) as path:
            yield path
    else:
        yield arrow_tables.path_of(table, "table")


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
        yield {"outcome": one.name, "arm": arm.arm, "n": arm.n, **known}


def _said(one: ArmComparison) -> str:
    return f"{one.arm} {number(one.difference, '+.4g')} {bounds(*one.interval, '+.4g')}"


def _outcome_html(one: OutcomeResult, found: ExperimentResult) -> str:
    level = f"{100 * found.level:g} %"
    rows = [
        (
            c.arm,
            number(c.difference, "+.4g"),
            bounds(*c.interval, "+.4g"),
            bounds(*c.together, "+.4g"),
            bounds(*c.sequence, "+.4g") if c.sequence else "–",
            number(c.p, ".2g"),
            number(c.p_holm, ".2g"),
        )
        for c in one.comparisons
    ]
    head = ("arm", "less control", level, "all together", "at any time", "p", "p, Holm")
    means = [(arm.arm, f"{arm.n:,}", number(arm.mean, ".5g"), bounds(*arm.interval, ".4g")) for arm in one.arms]
    return (
        result_html.heading(one.name)
        + result_html.table(head, rows, f"Less {found.control}: {one.method}")
        + result_html.table(("arm", "people", "mean", level), means, one.kind)
    )
