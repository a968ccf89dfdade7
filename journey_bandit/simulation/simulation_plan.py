"""Simulation plan, `journey-bandit simulate` without a service: policies on the same people, compared, drawn and
logged.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue
from bandit.snapshot import Snapshot, from_zip
from journey_bandit import console
from journey_bandit.progress import progress
from simulations.offline import runner, study
from simulations.offline.log_files import path
from simulations.offline.paired import BASELINE
from simulations.offline.parallel import Backend
from simulations.offline.run_summary import RunSummary
from simulations.offline.runner import CellOutcome, SimulationCell
from simulations.offline.segment_events import EventFile, SegmentFeed
from simulations.scenario import Scenario

if TYPE_CHECKING:
    from experiments.reports.simulation_report import ComparisonSubject, PolicyResult


class SimulationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Plan of an offline simulation, as the command line asked for it; a cell is one policy with one seed.

    `users` people over `days` days. `workers`: how many cells at a time, None for every core; `address`: of a Dask
    scheduler, None for one of our own. `out`: the folder in which finished cells are kept. `logs`: write each decision
    too. `holdout`: share of people who get no nudge. `catalogue`: TOML of the app's catalogue, "" for a shipped one.
    `environment`: Python that people come from in place of the scenario.
    `draws`: of a twin, the scenario of each seed; () where all seeds have the same one.
    """

    scenario: Scenario
    policies: tuple[str, ...]
    users: int
    days: int
    seeds: tuple[int, ...]
    journey: bool
    backend: Backend
    workers: int | None
    address: str | None
    out: Path
    logs: bool
    command: str
    holdout: float = 0.0
    catalogue: str = ""
    environment: str = ""
    draws: tuple[Scenario, ...] = ()

    @property
    def declared(self) -> Catalogue:
        """The app's catalogue."""
        return parse(self.catalogue or read_shipped(self.scenario.app), f"catalogue of {self.scenario.app}")

    @property
    def currency(self) -> str:
        """Currency of the app's catalogue, for labels of money."""
        return self.declared.currency

    @property
    def folder(self) -> Path:
        """Folder of the figures and pages of this plan in `out`: its name has a digest of everything that they depend
        on, so that another plan writes elsewhere.
        """
        runs = ",".join(cell.digest() for cell in self.cells())
        return self.out / self.scenario.app / hashlib.sha256(runs.encode()).hexdigest()[:8]

    def cells(self) -> list[SimulationCell]:
        """Cells of the plan, one for each policy and seed. The policy that never nudges is always among them, as the
        baseline; no policy is there twice.
        """
        wanted = dict.fromkeys((*self.policies, BASELINE))
        size: dict[str, Any] = {"users": self.users, "days": self.days, "journey": self.journey}
        told: dict[str, Any] = {"holdout": self.holdout, "catalogue": self.catalogue}
        told |= {"environment": self.environment}
        if not self.draws:
            return study.cells(self.scenario, wanted, self.seeds, **size, **told)
        made = [
            study.cells(drawn, wanted, (seed,), **size, **told)
            for drawn, seed in zip(self.draws, self.seeds, strict=True)
        ]
        return [cell for of_one_policy in zip(*made, strict=True) for cell in of_one_policy]


def play(plan: SimulationPlan, cells: Sequence[SimulationCell]) -> list[CellOutcome]:
    """Outcomes of the cells, in their order: run what is not finished yet, behind a progress bar; take the rest from
    `out`.
    """
    with progress(f"{plan.scenario.app}: cells", len(cells)) as advance:
        return study.study(
            cells,
            plan.out,
            backend=plan.backend,
            workers=plan.workers,
            address=plan.address,
            logs=plan.logs,
            progress=advance,
        )


def events(plan: SimulationPlan, file: Path) -> None:
    """Run the first policy with the first seed, behind a progress bar, and write to `file` what its people do, as
    events of the Segment e-commerce specification.
    """
    cell = plan.cells()[0]
    feed = SegmentFeed(plan.declared, plan.scenario, f"{plan.scenario.app}-{cell.seed}")
    sink = EventFile(feed, file)
    try:
        with progress(f"{plan.scenario.app}: days", plan.days) as advance:
            runner.run(cell, sink, lambda _: advance(1))
    finally:
        sink.close()


def stages(done: Sequence[CellOutcome]) -> tuple[str, ...]:
    """Names of the stages that were played, in the order of the catalogue, taken from the first of the outcomes: all
    cells of a plan play the same. `done` must not be empty.
    """
    return tuple(done[0].stages)


def played(plan: SimulationPlan, done: Sequence[CellOutcome], stage: str) -> list["PolicyResult"]:
    """Results of each policy at one stage, seeds together, in the order in which the outcomes name the policies."""
    from experiments.reports.simulation_report import PolicyResult

    declared = plan.declared.stage(stage)
    found = []
    for label in dict.fromkeys(d.label for d in done):
        mine = [d for d in done if d.label == label]
        tallies = [d.stages[stage] for d in mine]

        def of(name: str, tallies: list[RunSummary] = tallies) -> Array:
            return np.array([getattr(t, name) for t in tallies], dtype=np.float64)

        found.append(
            PolicyResult(
                policy=label,
                arms=tuple(tallies[0].arms),
                personas=tuple(tallies[0].personas),
                users=mine[0].users,
                decisions=of("decisions"),
                regret=of("regret"),
                value=of("value"),
                none=of("none"),
                conversions=of("conversions"),
                nudged=of("nudged"),
                fatigue=of("fatigue"),
                opted_out=np.array([d.opted_out for d in mine]),
                by_day=of("by_day").sum(axis=0),
                shown=of("shown").sum(axis=0),
                ages=of("ages").sum(axis=0),
                propensities=np.concatenate([t.propensities for t in tallies]),
                floor=0.0 if label.startswith(("fixed", "oracle")) else declared.common_floor,
            )
        )
    return found


def logs(plan: SimulationPlan, done: Sequence[CellOutcome]) -> dict[str, str]:
    """Log file of each cell and stage, by "POLICY, seed SEED, STAGE"; none where the plan writes no logs."""
    if not plan.logs:
        return {}
    folder = plan.out / "logs"
    places = [(cell, stage) for cell in plan.cells() for stage in stages(done)]
    return {f"{cell.policy}, seed {cell.seed}, {stage}": str(path(cell, stage, folder)) for cell, stage in places}


def about(plan: SimulationPlan, stage: str) -> "ComparisonSubject":
    """Subject of the comparison at this stage, for the head of its report: app, currency, seeds, users, days, the
    command that runs it again, and the policy that the catalogue declares.
    """
    from experiments.reports.simulation_report import ComparisonSubject

    app = plan.scenario.app
    declared = str(plan.declared.stage(stage).policy.__struct_config__.tag)
    return ComparisonSubject(app, stage, plan.currency, plan.seeds, plan.users, plan.days, plan.command, declared)


def log(uri: str, plan: SimulationPlan, stage: str, everyone: list["PolicyResult"]) -> list[str]:
    """Write one MLflow run for each policy to `uri`; links to them. Raises RemoteError if MLflow is missing or does not
    answer.
    """
    from experiments.reports import simulation_report

    baseline = next(p for p in everyone if p.policy == BASELINE)
    links = []
    for one in everyone:
        cell = next(c for c in plan.cells() if c.policy == one.policy and c.seed == plan.seeds[0])
        facts = {
            "scenario_sha256": cell.digest(),
            "algorithm": about(plan, stage).name(one.policy),
            "data": f"scenario {plan.scenario.app}",
        }
        report = simulation_report.report(about(plan, stage), one, everyone, baseline, facts)
        links.append(console.log(uri, report, snapshot(plan, cell, stage)))
        _log_seeds(uri, plan, report.experiment, one, baseline)
    return links


def _log_seeds(uri: str, plan: SimulationPlan, experiment: str, one: "PolicyResult", baseline: "PolicyResult") -> None:
    """Each seed as a run of <experiment>-seeds."""
    from experiments.mlflow import tracking
    from experiments.reports import simulation_report
    from experiments.reports.report import ReportSeries

    days = np.arange(1.0, one.regret.shape[1] + 1.0)
    for s, seed in enumerate(plan.seeds):
        mine, none = simulation_report.of_seed(one, s), simulation_report.of_seed(baseline, s)
        series = {
            f"value {plan.currency} per user/policy": simulation_report.over_no_nudge(mine, none),
            f"net {plan.currency} per user/policy": ReportSeries("net", days, np.cumsum(one.value[s]) / one.users),
            f"regret {plan.currency}/policy": ReportSeries("regret", days, np.cumsum(one.regret[s])),
        }
        params = {"policy": one.policy, "seed": str(seed), "users": str(one.users), "days": str(plan.days)}
        name = f"{one.policy} seed {seed}"
        metrics = simulation_report.metrics(mine, none)
        tracking.write_seed(uri, f"{experiment}-seeds", name, params, metrics, series, plan.currency)


def snapshot(plan: SimulationPlan, cell: SimulationCell, stage: str) -> Snapshot:
    """Snapshot of what a cell's policy had learned at a stage in the end, as it is logged beside its run."""
    return from_zip(study.snapshot(cell, stage, plan.out))
