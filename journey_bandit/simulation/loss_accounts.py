"""Loss accounts of simulated policies at the end of their runs, beside what they truly cost, which only a simulation
knows.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bandit.learning.loss_statement import LossStatement, statement
from experiments.reports.report import ReportRow, ReportTable
from journey_bandit.simulation import simulation_plan
from simulations.offline.runner import CellOutcome


class SimulatedLoss(NamedTuple):
    """Loss account of one run at one stage: its seed, the account as it ended, and what the policy truly cost against
    no nudge in currency (below 0: earned), for the very people who came.
    """

    seed: int
    account: LossStatement
    truly_spent: float


def at(
    plan: simulation_plan.SimulationPlan, done: Sequence[CellOutcome], stage: str
) -> dict[str, tuple[SimulatedLoss, ...]]:
    """Accounts of the policies that have one at this stage, seed by seed, by policy."""
    found: dict[str, list[SimulatedLoss]] = {}
    for cell, outcome in zip(plan.cells(), done, strict=True):
        last, sums = simulation_plan.snapshot(plan, cell, stage), outcome.stages[stage]
        if last.loss_account is not None:
            truly = sum(sums.none) - sum(sums.value)
            one = SimulatedLoss(cell.seed, statement(last.stage_spec, last.loss_account), truly)
            found.setdefault(cell.policy, []).append(one)
    return {policy: tuple(accounts) for policy, accounts in found.items()}


def table(stage: str, found: Mapping[str, Sequence[SimulatedLoss]], currency: str) -> ReportTable:
    """Table of the accounts at one stage, a line for each run, amounts in currency."""
    rows = tuple(
        ReportRow(
            f"{policy}, seed {one.seed}",
            (
                f"{-one.truly_spent:+,.2f}",
                f"{-one.account.spent:+,.2f} [{-one.account.spent_at_most:+,.2f}, {-one.account.spent_at_least:+,.2f}]",
                f"{one.account.budget:,.2f}",
                f"{one.account.left:,.2f}",
                f"{100.0 * one.account.share:.3g} %",
            ),
        )
        for policy, accounts in found.items()
        for one in accounts
    )
    head = (
        f"truly over no nudge, {currency}",
        f"as the account sees it, {currency} [90 %]",
        "may lose a month",
        "left to lose",
        "decides",
    )
    note = f"Loss accounts at the end, in {currency} over all users. The account sees it as a sceptic."
    return ReportTable(f"{stage}: what learning cost", head, rows, note)


def as_json(found: Mapping[str, Sequence[SimulatedLoss]]) -> dict[str, list[dict[str, object]]]:
    """The same for programs: {policy: [{"seed": …, "share": …, …}]}."""
    fields = ("share", "declared", "budget", "spent", "spent_at_least", "spent_at_most", "left", "why")
    return {
        policy: [
            {"seed": one.seed, **{name: getattr(one.account, name) for name in fields}, "truly_spent": one.truly_spent}
            for one in accounts
        ]
        for policy, accounts in found.items()
    }
