"""Plan of an A/B test: what was laid down before the data, checked against a table, and the outcome in money that it
adds.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, Problem
from experiments.ab_tests import sequential
from experiments.ab_tests.experiment_table import ExperimentTable, OutcomeColumn
from experiments.inference.intervals import LEVEL
from experiments.inference.wording import number

NET = "net"
"""Name of the outcome in money, where values or costs are given."""

_UNORDERED = 1e-6  # p of runs of arms that is refused
_CONTROLS = ("control", "none")


class ExperimentPlan(NamedTuple):
    """Plan of a test, as it was before the data: the `control` ("" for an arm called control or none), the declared
    `shares` {arm: share}, the `level` of intervals, `ranges` {outcome: (low, high)} of amounts, what one unit of an
    outcome is worth (`worth`, {outcome: money}) and what an arm costs a person (`cost`). `follow`: with sequences;
    `ordered`: the rows are in the order of their assignment; `force`: estimates all the same where they would be
    refused.
    """

    control: str = ""
    shares: Mapping[str, float] = {}
    level: float = LEVEL
    ranges: Mapping[str, tuple[float, float]] = {}
    worth: Mapping[str, float] = {}
    cost: Mapping[str, float] = {}
    follow: bool = True
    ordered: bool = False
    force: bool = False


def control_of(arms: tuple[str, ...], named: str) -> int:
    """Number of the control arm: the one `named`, or, for "", the only one called control or none. Raises
    InvalidRequest if there is none.
    """
    if named:
        if named not in arms:
            raise InvalidRequest(Problem("control", f"no arm is called {named!r}", closest(named, arms)))
        return arms.index(named)
    found = [a for a, arm in enumerate(arms) if arm.lower() in _CONTROLS]
    if len(found) != 1:
        fix = f"give --control with one of {', '.join(arms)}"
        raise InvalidRequest(Problem("control", "nothing says which arm is the control", fix))
    return found[0]


def check_plan(table: ExperimentTable, plan: ExperimentPlan) -> None:
    """Raise InvalidRequest for arms and outcomes that are not in the table, and for shares that are none. `table` has
    not got the outcome in money yet.
    """
    money = (NET,) if plan.worth or plan.cost else ()
    names, problems = tuple(outcome.name for outcome in table.outcomes), list[Problem]()
    for field, given, known in (
        ("shares", plan.shares, table.arms),
        ("cost", plan.cost, table.arms),
        ("value", plan.worth, names),
        ("range", plan.ranges, (*names, *money)),
    ):
        problems += [
            Problem(field, f"there is no {name!r}", closest(name, known)) for name in given if name not in known
        ]
    if plan.shares and not problems:
        lacking = [arm for arm in table.arms if arm not in plan.shares]
        if lacking:
            problems.append(Problem("shares", f"none is declared for {lacking[0]!r}", "declare one for each arm"))
        elif min(plan.shares.values()) <= 0.0 or abs(sum(plan.shares.values()) - 1.0) > 1e-3:
            total = sum(plan.shares.values())
            problems.append(Problem("shares", f"they sum to {total:g}", "shares above 0 that sum to 1"))
    if problems:
        raise InvalidRequest(*problems)


def check_order(table: ExperimentTable, plan: ExperimentPlan) -> None:
    """Raise InvalidRequest unless rows may be in the order in which chance assigned arms, in declared shares."""
    if table.summed:
        raise InvalidRequest(Problem("ordered", "sums of people have no order", "leave --ordered or --count out"))
    if not plan.shares:
        raise InvalidRequest(Problem("ordered", "no shares are declared", "give --shares too, or leave --ordered out"))
    p, arm, grouped = sequential.order_p(table.arm, len(table.arms))
    if p < _UNORDERED:
        how = "stand together" if grouped else "alternate"
        problem = f"rows of {table.arms[arm]} {how} more than chance assigns them (p = {number(p, '.2g')})"
        fix = "leave --ordered out, or give the rows in the order of their assignment, which chance made for each"
        raise InvalidRequest(Problem("ordered", problem, fix))


def with_net(table: ExperimentTable, plan: ExperimentPlan) -> ExperimentTable:
    """The table with an outcome in money, if values or costs are given: worth times outcomes, less the arm's cost."""
    if not plan.worth and not plan.cost:
        return table
    by_name = {outcome.name: outcome for outcome in table.outcomes}
    if NET in by_name:
        raise InvalidRequest(Problem(NET, "an outcome has this name already", "rename the column"))
    worth = plan.worth
    if not worth:
        first = table.outcomes[0].name
        fix = f"give --value OUTCOME=MONEY for each outcome that is worth something; --value {first}=1 if it is money"
        raise InvalidRequest(Problem("cost", "nothing says what the outcomes are worth", fix))
    if table.summed and len(worth) > 1:
        fix = "give --value for one outcome, or a table with one row a person"
        raise InvalidRequest(Problem("value", "sums do not say how several outcomes vary together", fix))
    cost = np.array([plan.cost.get(arm, 0.0) for arm in table.arms])[table.arm]
    gain = np.sum([value * by_name[name].total for name, value in worth.items()], axis=0)
    if table.summed:
        (name, value) = next(iter(worth.items()))
        square = value**2 * np.asarray(by_name[name].square) - 2.0 * cost * gain + cost**2 * table.people
    else:
        square = (gain - cost) ** 2
    missing = tuple(sorted({line for name in worth for line in by_name[name].missing}))
    net = OutcomeColumn(NET, gain - cost * table.people, square, False, missing)
    return table._replace(outcomes=(*table.outcomes, net))
