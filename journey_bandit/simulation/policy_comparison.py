"""Comparison of policies on the same simulated people, stage by stage: what `journey-bandit simulate` shows, and what
notebooks hold.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bandit.learning.holdout_audit import HoldoutAudit
from journey_bandit.simulation import harm, price, simulation_plan
from journey_bandit.simulation.simulation_plan import SimulationPlan
from simulations.offline.paired import BASELINE
from simulations.offline.runner import CellOutcome

if TYPE_CHECKING:
    from experiments.reports.simulation_report import ComparisonSubject, PolicyResult
    from journey_bandit.simulation.loss_accounts import SimulatedLoss


class StageComparison(NamedTuple):
    """Comparison at one stage: what it is about, the result of each policy, no nudge (`baseline`) among them, the loss
    accounts of the policies that have one, and the learned prices of a nudge as plain values.
    """

    about: "ComparisonSubject"
    everyone: list["PolicyResult"]
    baseline: "PolicyResult"
    losses: Mapping[str, tuple["SimulatedLoss", ...]]
    prices: dict[str, Any]


class PolicyComparison(NamedTuple):
    """Comparison of a plan's policies: the outcome of each cell (policy, seed), stages by name in the order of the
    catalogue, and the audit of each policy by its holdout, where there was one.
    """

    plan: SimulationPlan
    done: list[CellOutcome]
    stages: dict[str, StageComparison]
    audits: dict[str, HoldoutAudit]


def compared(plan: SimulationPlan) -> PolicyComparison:
    """Comparison of the plan's policies; cells that are not finished in its folder run first, behind a progress bar.
    Raises InvalidRequest for a policy that cannot be run.
    """
    from journey_bandit.simulation import loss_accounts

    done, stages = simulation_plan.play(plan, plan.cells()), dict[str, StageComparison]()
    for stage in simulation_plan.stages(done):
        everyone = simulation_plan.played(plan, done, stage)
        stages[stage] = StageComparison(
            about=simulation_plan.about(plan, stage),
            everyone=everyone,
            baseline=next(one for one in everyone if one.policy == BASELINE),
            losses=loss_accounts.at(plan, done, stage),
            prices=price.as_json(done, stage),
        )
    return PolicyComparison(plan, done, stages, price.audits(done))


def comparison_json(made: PolicyComparison) -> dict[str, Any]:
    """The JSON object of a comparison, without names of files: headline metrics by stage and policy, loss accounts,
    learned prices and audits where there are some, and the digest of each cell.
    """
    from experiments.reports import simulation_report
    from journey_bandit.simulation import loss_accounts

    plan = made.plan
    found: dict[str, Any] = {"all_stages": harm.all_stages(made.done)} if plan.journey else {}
    found |= {"app": plan.scenario.app, "users": plan.users, "days": plan.days, "seeds": plan.seeds}
    found["stages"] = {
        stage: {policy.policy: simulation_report.metrics(policy, one.baseline) for policy in one.everyone}
        for stage, one in made.stages.items()
    }
    loss = {stage: loss_accounts.as_json(one.losses) for stage, one in made.stages.items() if one.losses}
    prices = {stage: one.prices for stage, one in made.stages.items() if one.prices}
    found |= {"loss": loss} if loss else {}
    found |= {"prices": prices} if prices else {}
    found |= {"holdout": msgspec.to_builtins(made.audits)} if made.audits else {}
    return found | {"cells": {f"{one.label}/{one.seed}": one.digest for one in made.done}}
