"""Simulations of policies on the same people, as the command `simulate` runs them."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from bandit.errors import InvalidRequest, Problem
from bandit.policies import registry
from experiments.reports import simulation_report
from experiments.reports.report import ReportTable
from journey_bandit.analysis import arguments, arrow_tables, result_html
from journey_bandit.analysis.arrow_tables import ArrowResult
from journey_bandit.simulation import harm
from journey_bandit.simulation.policy_comparison import PolicyComparison, StageComparison, compared, comparison_json
from journey_bandit.simulation.scenario_checks import DAYS
from journey_bandit.simulation.simulate import planned
from simulations.offline.parallel import Backend

_MOST_DAYS, _MOST_HELD = 3_650, 0.9  # as the command


@dataclass(frozen=True, repr=False)
class SimulationResult(ArrowResult):
    """Result of a simulation: each policy and no nudge on the same people, stage by stage.

    As a table it has one row for each stage and policy, with the headline metrics of the command in columns: `vs_none`
    is the net value over no nudge of a user, in the app's currency, `vs_none_lcb` and `vs_none_ucb` its 95 % interval
    over seeds.
    """

    comparison: PolicyComparison

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `journey-bandit simulate --json` prints, without names of files."""
        decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(comparison_json(self.comparison)))
        return decoded

    def to_arrow(self) -> Any:
        """The metrics as a `pyarrow.Table`; those that are not known are null."""
        rows = [
            {"stage": stage, "policy": policy, **metrics}
            for stage, policies in self.as_dict()["stages"].items()
            for policy, metrics in policies.items()
        ]
        names = dict.fromkeys(name for row in rows for name in row)
        kinds = [(name, pa.string() if name in ("stage", "policy") else pa.float64()) for name in names]
        return pa.Table.from_pylist(rows, schema=pa.schema(kinds))

    def plot(self, stage: str = "") -> Any:
        """Figure of matplotlib for one stage, by default the first: net value over no nudge of a user, day by day, with
        its 95 % band over seeds, and beside it the net value itself. Raises InvalidRequest for a stage that was not
        played; ImportError, which names the extra, if matplotlib is not installed.
        """
        arrow_tables.need("matplotlib")
        from experiments.reports import figures

        one = self._stage(stage)
        return figures.over_and_absolute(one.about, one.everyone, one.baseline)

    def sentence(self, stage: str = "") -> str:
        """What the comparison says of a stage, by default the first, in a sentence: which policy earns most over no
        nudge, and how sure that is. Raises InvalidRequest for a stage that was not played.
        """
        one = self._stage(stage)
        return simulation_report.study(one.about, one.everyone, one.baseline, {}).verdict

    def _stage(self, name: str) -> StageComparison:
        stages = self.comparison.stages
        if name and name not in stages:
            raise InvalidRequest(Problem("stage", f"{name!r} was not played", f"one of {', '.join(stages)}"))
        return stages[name or next(iter(stages))]

    def __repr__(self) -> str:
        app, stages = self.comparison.plan.scenario.app, self.comparison.stages
        return f"SimulationResult({' '.join(f'{app}/{stage}: {self.sentence(stage)}' for stage in stages)})"

    def _repr_html_(self) -> str:
        plan, parts = self.comparison.plan, list[str]()
        if plan.journey:
            parts.append(_table_html(harm.totals(self.comparison.done, plan.scenario.app, plan.currency)))
        for stage, one in self.comparison.stages.items():
            parts.append(_table_html(simulation_report.table(one.about, one.everyone, one.baseline)))
            parts.append(result_html.sentence(self.sentence(stage)))
        return result_html.page(parts)


def simulate(
    app: str | None = None,
    policies: Sequence[str] = (),
    *,
    scenario: str | Path | None = None,
    users: int = 12_000,
    seed: int = 100,
    seeds: int = 3,
    days: int = DAYS,
    journey: bool = False,
    holdout: float = 0.0,
    out: str | Path | None = None,
    logs: bool = False,
    backend: Backend = "processes",
    workers: int | None = None,
    address: str | None = None,
) -> SimulationResult:
    """Comparison of policies on simulated people whose true behaviour is known: `journey-bandit simulate`.

    `app`: a shipped app, or the TOML file of a catalogue, with `scenario`, a TOML file. `policies`: specifications as
    on the command line; none: default, uniform and oracle. No nudge is always among them, as `fixed:none`. `users`:
    people of each of the `seeds`, counted from `seed`. `out`: the folder in which finished runs and `logs` are kept;
    None keeps nothing. The other arguments are the options of the same names. For policies that are Python objects see
    `journey_bandit.comparison`.

    Raises InvalidRequest for arguments that do not go together and for a policy that cannot be run, NotFound for an app
    that is not shipped, CatalogueError for a catalogue with mistakes.
    """
    registry.search(entry_points)
    if app is None and scenario is None:
        raise InvalidRequest(Problem("app", "nothing says who comes", "give app, or scenario"))
    if logs and out is None:
        raise InvalidRequest(Problem("out", "logs need a folder that stays", "give out, or leave logs out"))
    arguments.check_lists(policies=policies)
    if users < 200 or seeds < 1 or days < 1:
        raise InvalidRequest(Problem("users", "too few", "users of 200 or more, seeds and days of 1 or more"))
    arguments.check_within("days", days, 1, _MOST_DAYS)
    arguments.check_within("seed", seed, 0)
    arguments.check_within("holdout", holdout, 0.0, _MOST_HELD)
    if workers is not None:
        arguments.check_within("workers", workers, 1)
    told: dict[str, Any] = {"users": users, "seed": seed, "seeds": seeds, "days": days, "journey": journey}
    told |= {"backend": backend, "workers": workers, "address": address, "logs": logs, "holdout": holdout}
    file = None if scenario is None else Path(scenario)
    with _folder(out) as folder:
        plan = planned(app, policies=tuple(policies), out=folder, file=file, command="simulate", **told)
        if plan.draws:
            problem, fix = "a twin has many worlds", "rank policies over them with `journey-bandit simulate --scenario`"
            raise InvalidRequest(Problem("scenario", problem, fix))
        return SimulationResult(compared(plan))


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
    else:
        with tempfile.TemporaryDirectory(prefix="journey-bandit-") as folder:
            yield Path(folder)


def _table_html(table: ReportTable) -> str:
    rows = [(row.name, *row.cells) for row in table.rows]
    return result_html.table(("", *table.head), rows, table.title) + result_html.sentence(table.note)
