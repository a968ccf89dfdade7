"""Validity of an A/B test: why its table cannot answer, what to look at twice, and whether arms were assigned as
planned.
"""

import numpy as np

from bandit.arrays import Array
from experiments.ab_tests import adjustment
from experiments.ab_tests.experiment_plan import NET, ExperimentPlan
from experiments.ab_tests.experiment_table import ExperimentTable, OutcomeColumn
from experiments.inference.assignment import Assignment, ShareTest
from experiments.inference.diagnostics import LIMITS, Refusal
from experiments.inference.sample_ratio import SampleRatio
from experiments.inference.wording import number

_FEWEST = 50  # people of an arm
_IMBALANCE = 0.001  # p of covariates that is noted
_DIGITS = 1e-9  # of sums of squares: how much of them must be more than the squares of the mean
_MOST_LINES = 10  # that are named


def shares_of(people: Array, arms: tuple[str, ...], plan: ExperimentPlan) -> tuple[ShareTest | None, float | None]:
    """Test of the `people` (k,) of the arms against the declared shares, with its e-value; None where none are
    declared.
    """
    if not plan.shares or any(arm not in plan.shares for arm in arms):
        return None, None
    declared = np.array([plan.shares[arm] for arm in arms])
    declared = declared / declared.sum()
    n = float(people.sum())
    variance = n * (np.diag(declared) - np.outer(declared, declared))
    sums = Assignment(int(n), people, n * declared, variance, None, declared, declared)
    return sums.shares(), SampleRatio.of_counts(people, declared).evidence


def refusals_of(table: ExperimentTable, people: Array, e_value: float | None) -> list[Refusal]:
    """Why the table cannot answer; an empty list if it can."""
    found = []
    if table.count_like is not None and table.count_like.certain:
        found.append(Refusal("sums", table.count_like.said, table.count_like.fix))
    if len(table.arms) < 2:
        detail = f"there is one arm only, {table.arms[0]}"
        return [Refusal("arms", detail, "the rows of all arms, the control among them")]
    few = [a for a in range(len(people)) if people[a] < _FEWEST]
    if few:
        said = ", ".join(f"{table.arms[a]} {people[a]:,.0f}" for a in few)
        found.append(
            Refusal("few", f"arms with fewer than {_FEWEST} people: {said}", f"{_FEWEST} in each, better more")
        )
    for outcome in table.outcomes:
        if outcome.missing and outcome.name != NET:
            lines = ", ".join(str(line) for line in outcome.missing[:_MOST_LINES])
            more = ", …" if len(outcome.missing) > _MOST_LINES else ""
            rows = f"{len(outcome.missing):,} row{'s' if len(outcome.missing) > 1 else ''}"
            detail = f"{outcome.name} has no value in {rows} of {table.name}: line {lines}{more}"
            needed = (
                "a value in every row, 0 where nothing happened. Who is left out because of what came of it makes arms "
                "unlike"
            )
            found.append(Refusal("missing", detail, needed))
        if table.summed and not outcome.binary and outcome.name != NET and (lost := _without_digits(table, outcome)):
            detail = f"{outcome.name}: the sums of squares have too few digits to say how much it varies in {lost}"
            needed = f"a table with one row a person, or sums of {outcome.name} less a constant near its mean"
            found.append(Refusal("digits", detail, needed))
    if e_value is not None and e_value >= LIMITS.routing:
        detail = f"arms were not assigned in the declared shares: e-value {number(min(e_value, 1e9), '.3g')}"
        needed = (
            "the shares that were planned. If these are, find out whether assignment, exposure or logging lost people"
        )
        found.append(Refusal("shares", detail, needed))
    return found


def _without_digits(table: ExperimentTable, outcome: OutcomeColumn) -> str:
    """Arms, in words, in which rounding of the sums may be all that Σy² is more than n ȳ²."""
    known = np.isfinite(outcome.total)
    n, total, square = (
        np.bincount(table.arm[known], part, len(table.arms))
        for part in (table.people[known], outcome.total[known], np.asarray(outcome.square)[known])
    )
    lost = (square > 0.0) & (square - total**2 / np.maximum(n, 1.0) <= _DIGITS * square)
    return ", ".join(name for name, one in zip(table.arms, lost, strict=True) if one)


def notes_of(
    table: ExperimentTable, plan: ExperimentPlan, shares: ShareTest | None, e_value: float | None, people: Array
) -> list[str]:
    """Reasons to look twice, in sentences."""
    found = []
    if table.count_like is not None and not table.count_like.certain:
        found.append(f"{table.count_like.said}: if so, {table.count_like.fix}")
    if shares is not None and e_value is not None:
        found += [note] if (note := shares.note(e_value)) else []
    elif not plan.shares and len(table.arms) > 1:
        found.append(
            "no shares are declared, so nothing says whether arms were assigned as planned: give --shares, such as "
            + ",".join(f"{arm}={1.0 / len(table.arms):.4g}" for arm in table.arms)
        )
    if table.summed and any(outcome.binary for outcome in table.outcomes):
        names = ", ".join(outcome.name for outcome in table.outcomes if outcome.binary)
        found.append(
            f"{names}: sums are read as people of whom each said yes or no, independently. Where the rows count "
            "impressions, those of one person are not: count people instead"
        )
    if table.x.shape[1] and len(table.arms) > 1 and people.min() > 1.0:
        found += _imbalance(table)
    return found


def _imbalance(table: ExperimentTable) -> list[str]:
    """A note on the covariates that differ between arms more than by chance, all together or one of them."""
    names = tuple(dict.fromkeys(table.covariates))
    columns = [[j for j, name in enumerate(table.covariates) if name == one] for one in names]
    each = [adjustment.balance_p(table.arm, table.x[:, one], len(table.arms)) for one in columns]
    uneven = [
        f"{name} (p = {number(p, '.2g')})" for name, p in zip(names, each, strict=True) if p < _IMBALANCE / len(names)
    ]
    p = adjustment.balance_p(table.arm, table.x, len(table.arms))
    if p >= _IMBALANCE and not uneven:
        return []
    which = f": {', '.join(uneven)}" if uneven else f" (p = {number(p, '.2g')})"
    return [
        f"covariates differ between arms more than by chance{which}. Were they measured before the assignment? What "
        "the arm may have changed is no covariate: adjusting by it takes away what the arm did. Leave it out"
    ]
