"""Sensitivity analysis, what if an assumption is wrong: the choice of a policy at both ends of every knob, and over the
box of all.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array
from journey_bandit.simulation import simulation_plan
from journey_bandit.simulation.simulation_plan import SimulationPlan
from simulations.offline.paired import BASELINE
from simulations.offline.runner import CellOutcome, SimulationCell
from simulations.scenario import Scenario
from simulations.twin.ranking import PolicyRank
from simulations.validation import sensitivity

if TYPE_CHECKING:
    from experiments.reports.report import ReportTable


class SensitivityBar(NamedTuple):
    """Bar of the tornado, one knob: at each end the lead of the first policy over the best of the others (in the app's
    currency a user), and which policy leads; a ? where its lead over what leads as the scenario stands is within two
    standard errors over seeds.
    """

    name: str
    ends: str
    low: float
    high: float
    best: tuple[str, str]


class SensitivitySweep(NamedTuple):
    """Sweep over all knobs: `lead` and `best` where the scenario stands, and a bar for each knob; money is the app's
    currency a user.
    """

    policies: tuple[str, ...]
    lead: float
    best: str
    bars: tuple[SensitivityBar, ...]


def rivals(plan: SimulationPlan) -> tuple[str, ...]:
    """Policies that somebody could choose: the oracle is none. The first is the one that is asked about."""
    return tuple(p for p in dict.fromkeys((*plan.policies, BASELINE)) if not p.startswith("oracle"))


def sweep(plan: SimulationPlan) -> SensitivitySweep:
    """Sweep of a plan: run the scenario and every knob at both ends, all in one study; finished runs are taken from its
    folder.
    """
    policies = rivals(plan)
    swings = sensitivity.swings(plan.scenario)
    settings: list[tuple[Scenario, int]] = [(plan.scenario, plan.users)]
    for knob, low, high in swings:
        factors = (knob.low, knob.high) if knob.name == sensitivity.TRAFFIC else (1.0, 1.0)
        settings += [(s, max(200, round(f * plan.users))) for s, f in zip((low, high), factors, strict=True)]
    groups = [_cells(plan, scenario, policies, users) for scenario, users in settings]
    done = iter(simulation_plan.play(plan, [cell for group in groups for cell in group]))
    values = [_values(policies, [next(done) for _ in group]) for group in groups]
    lead, best = _lead(values[0])
    bars = []
    for i, (knob, _, _) in enumerate(swings):
        left, right = values[1 + 2 * i], values[2 + 2 * i]
        ends = f"{knob.low:g} … {knob.high:g} {knob.unit}".rstrip()
        sure = _sure(left, best), _sure(right, best)
        bars.append(SensitivityBar(knob.name, ends, _lead(left)[0], _lead(right)[0], sure))
    return SensitivitySweep(policies, lead, best, tuple(sorted(bars, key=lambda bar: -abs(bar.high - bar.low))))


def table(found: SensitivitySweep, currency: str) -> "ReportTable":
    """Tornado of a sweep as a table of a report: a line for each knob, the longest bar first, with the lead at both
    ends in `currency` a user and whether the choice changes.
    """
    from experiments.reports.report import ReportRow, ReportTable

    rows = [
        ReportRow(
            bar.name,
            (f"{bar.low:+.3f}", f"{bar.high:+.3f}", _change(found.best, bar), bar.ends),
        )
        for bar in found.bars
    ]
    note = f"As the scenario stands: {found.lead:+.3f}, and {found.best} leads. ?: within two standard errors."
    head = (f"lead at low, {currency}/user", f"at high, {currency}/user", "changes the choice?", "from … to")
    return ReportTable(f"Lead of {found.policies[0]} over the best other policy", head, tuple(rows), note)


class PolicyRanks(NamedTuple):
    """Ranks of policies over draws from the box: net value over no nudge in currency a user (mean, least, most), how
    often each policy is best, its mean rank, and Kendall's τ of each draw with the scenario.
    """

    policies: tuple[str, ...]
    over: tuple[tuple[float, float, float], ...]
    best: tuple[float, ...]
    rank: tuple[float, ...]
    tau: tuple[float, ...]


def ranks(plan: SimulationPlan, draws: int) -> PolicyRanks:
    """Ranks of the policies by net value a user, over `draws` scenarios drawn from the whole box of knobs; draw i is
    fixed by its number.
    """
    policies = rivals(plan)
    drawn = [plan.scenario, *(sensitivity.box(plan.scenario, i) for i in range(draws))]
    groups = [_cells(plan, scenario, policies, plan.users) for scenario in drawn]
    done = iter(simulation_plan.play(plan, [cell for group in groups for cell in group]))
    made = [_values(policies, [next(done) for _ in group]) for group in groups]
    values = np.array([[own.mean() for own in one.values()] for one in made])
    money = values[1:] - values[1:, policies.index(BASELINE), None]
    over = tuple((float(own.mean()), float(own.min()), float(own.max())) for own in money.T)
    order = (-values).argsort(axis=1).argsort(axis=1)[1:]
    tau = tuple(sensitivity.kendall(list(values[0]), list(row)) for row in values[1:])
    best = tuple(float(v) for v in (order == 0).mean(axis=0))
    return PolicyRanks(policies, over, best, tuple(float(v) for v in 1.0 + order.mean(axis=0)), tau)


def as_json(found: SensitivitySweep) -> dict[str, Any]:
    """Sweep as a plain dictionary that can be written as JSON, for programs: lead and best, and every bar."""
    bars = {b.name: {"ends": b.ends, "low": b.low, "high": b.high, "best": list(b.best)} for b in found.bars}
    return {"policies": list(found.policies), "lead": found.lead, "best": found.best, "knobs": bars}


def _cells(plan: SimulationPlan, scenario: Scenario, policies: Sequence[str], users: int) -> list[SimulationCell]:
    return msgspec.structs.replace(plan, scenario=scenario, policies=tuple(policies), users=users).cells()


def _values(policies: Sequence[str], done: Sequence[CellOutcome]) -> dict[str, Array]:
    """Expected net value a user by seed, (S,), all stages together."""
    found = {}
    for policy in policies:
        mine = [d for d in done if d.label == policy]
        found[policy] = np.array([sum(sum(t.value) for t in d.stages.values()) / d.users for d in mine])
    return found


def _lead(values: dict[str, Array]) -> tuple[float, str]:
    first, *others = (float(v.mean()) for v in values.values())
    return first - max(others), max(values, key=lambda p: float(values[p].mean()))


def _sure(values: dict[str, Array], base: str) -> str:
    """Which policy leads, with a ? unless it leads `base` by more than two standard errors of the paired difference."""
    _, best = _lead(values)
    gap = values[best] - values[base]
    n = len(gap)
    clear = best == base or (n > 1 and float(gap.mean()) > 2.0 * float(gap.std(ddof=1)) / np.sqrt(n))
    return best if clear else f"{best}?"


def _change(base: str, bar: SensitivityBar) -> str:
    ends = [f"{end}: {best}" for end, best in zip(("low", "high"), bar.best, strict=True) if best != base]
    return "; ".join(ends) or "no"


def rank_table(plan: SimulationPlan, ranked: Sequence[PolicyRank], done: Sequence[CellOutcome]) -> "ReportTable":
    """Table of policies over the draws of a twin: money over no nudge first, then how surely each is best."""
    from experiments.inference.intervals import Interval
    from experiments.inference.wording import in_words, number
    from experiments.reports.report import ReportRow, ReportTable

    rows = [
        ReportRow(
            one.policy,
            (
                "–" if one.policy == BASELINE else in_words(Interval(one.gain, one.low, one.high, len(done)), "+.2f"),
                "knows" if one.best is None else f"{100 * one.best:.0f} %",
                f"{100 * one.loses:.0f} %",
                number(one.regret, ".2f"),
                f"{100 * _nudged([d for d in done if d.label == one.policy]):.0f} %",
            ),
        )
        for one in ranked
    ]
    money, n = f"{plan.currency}/user", len(plan.draws)
    head = (f"over no nudge, {money} [90 %]", "P(best)", "P(loses)", f"expected loss, {money}", "nudged")
    note = (
        f"{_first(ranked, plan.currency)} {n} worlds that the log allows, {plan.users:,} users and {plan.days} days in "
        f"each{', all stages together' if plan.journey else ''}. P(best): nothing else "
        "earns more. P(loses): less than no nudge. Expected loss: against what is best in each world."
    )
    return ReportTable(f"{plan.scenario.app}: which policy is best for this app", head, tuple(rows), note)


def _first(ranked: Sequence[PolicyRank], currency: str) -> str:
    """What a ranking says, in a sentence: who is most probably best, how surely, and whether it may lose money."""
    from experiments.inference.wording import chance, number

    able = [one for one in ranked if one.best is not None]
    first = max(able, key=lambda one: (one.best or 0.0, one.gain))
    if first.policy == BASELINE:
        return (
            f"Showing nothing is most probably best: with probability {chance(first.best)}, no policy here earns more."
        )
    return (
        f"{first.policy} is most probably best ({chance(first.best)}): {number(first.gain, '+.2f')} {currency} a user "
        f"over no nudge, against which it loses money with probability {chance(first.loses)}."
    )


def _nudged(done: Sequence[CellOutcome]) -> float:
    """Share of decisions with a nudge, all stages and runs together."""
    stages = [summary for one in done for summary in one.stages.values()]
    return sum(sum(s.nudged) for s in stages) / max(sum(sum(s.decisions) for s in stages), 1)
