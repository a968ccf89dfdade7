"""Harm analysis: money over no nudge in other worlds, where nudges help less, do nothing or harm; for one policy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from journey_bandit.simulation import simulation_plan
from journey_bandit.simulation.simulation_plan import SimulationPlan
from simulations.offline.paired import BASELINE, PairedRuns, paired
from simulations.offline.runner import CellOutcome
from simulations.worlds import WORLDS

if TYPE_CHECKING:
    from experiments.reports.report import ReportTable

ASKED = ("x0", "all-0.1", "x0.5", "declared", "x2", "no-fatigue", "strong-fatigue")
"""The worlds of `simulate --what-if`, by name."""


class WorldResult(NamedTuple):
    """Result of one policy in one world, all stages together: its runs paired with no nudge, share of decisions with a
    nudge, share of users who opted out by the end.
    """

    world: str
    runs: PairedRuns
    nudged: float
    opted_out: float


def results(plan: SimulationPlan) -> list[WorldResult]:
    """Results of a plan's first policy in the worlds of `ASKED`; all runs in one study, finished ones are taken from
    its folder.
    """
    policy = plan.policies[0]
    asked = [msgspec.structs.replace(plan, scenario=WORLDS[name].change(plan.scenario)) for name in ASKED]
    cells = [msgspec.structs.replace(one, policies=(policy,)).cells() for one in asked]
    done = iter(simulation_plan.play(plan, [cell for group in cells for cell in group]))
    return [_result(name, [next(done) for _ in group]) for name, group in zip(ASKED, cells, strict=True)]


def _result(world: str, done: Sequence[CellOutcome]) -> WorldResult:
    runs = paired(done)[0]
    mine = [one for one in done if one.label == runs.policy]
    stages = [summary for one in mine for summary in one.stages.values()]
    decisions = max(sum(sum(summary.decisions) for summary in stages), 1)
    nudged = sum(sum(summary.nudged) for summary in stages) / decisions
    return WorldResult(world, runs, nudged, float(np.mean([one.opted_out[-1] for one in mine])))


def table(found: Sequence[WorldResult], app: str, currency: str, days: int) -> "ReportTable":
    """Table of the worlds, one a row, money in `currency` for `days` days."""
    from experiments.inference.intervals import mean
    from experiments.inference.wording import in_words
    from experiments.reports.report import ReportRow, ReportTable

    rows = [
        ReportRow(
            WORLDS[world].title,
            (
                in_words(mean(runs.per_user), "+.2f"),
                in_words(mean(runs.percent), "+.1f", unit="%"),
                f"{runs.none.mean() / runs.users:.2f}",
                f"{100.0 * nudged:.0f} %",
                f"{100.0 * opted_out:.1f} %",
            ),
        )
        for world, runs, nudged, opted_out in found
    ]
    first = found[0].runs
    head = (f"over no nudge, {currency}/user [95 %]", "in % [95 %]", "no nudge earns", "nudged", "opted out")
    note = (
        f"{first.users:,} users, {days} days, {len(first.seeds)} seed(s), each paired with no nudge. Coupon habit and "
        "demand pulled forward are as declared in every world."
    )
    return ReportTable(f"{app}: {first.policy} in other worlds", head, tuple(rows), note)


def all_stages(done: Sequence[CellOutcome]) -> dict[str, dict[str, list[float]]]:
    """Money over no nudge of each policy of a journey, all stages together, as a plain dictionary: [mean, low, high]
    in currency a user and in %.
    """
    return {
        one.policy: {"vs_none": _spread(one.per_user), "vs_none_pct": _spread(one.percent)}
        for one in paired(done)
        if one.policy != BASELINE
    }


def totals(done: Sequence[CellOutcome], app: str, currency: str) -> "ReportTable":
    """Table of money over no nudge of each policy of a journey, all stages together, most money first."""
    from experiments.inference.intervals import mean
    from experiments.inference.wording import in_words
    from experiments.reports.report import ReportRow, ReportTable

    runs = sorted((one for one in paired(done) if one.policy != BASELINE), key=lambda one: -one.money.mean())
    rows = [
        ReportRow(one.policy, (in_words(mean(one.per_user), "+.2f"), in_words(mean(one.percent), "+.1f", unit="%")))
        for one in runs
    ]
    head = (f"over no nudge, {currency}/user [95 %]", "in % [95 %]")
    return ReportTable(f"{app}: all stages", head, tuple(rows), "")


def as_json(found: Sequence[WorldResult]) -> dict[str, Any]:
    """Worlds as a plain dictionary that can be written as JSON, {world: figures}: mean over seeds, and the ends of the
    95 % interval where there are two seeds or more.
    """
    return {
        one.world: {
            "policy": one.runs.policy,
            "vs_none": _spread(one.runs.per_user),
            "vs_none_pct": _spread(one.runs.percent),
            "nudged_pct": 100.0 * one.nudged,
            "opted_out_pct": 100.0 * one.opted_out,
        }
        for one in found
    }


def _spread(values: Any) -> list[float]:
    """[mean, low, high], or [mean] where one seed gives no interval."""
    from experiments.inference.intervals import mean

    found = mean(values)
    return [float(v) for v in (found.value, found.low, found.high) if np.isfinite(v)]
