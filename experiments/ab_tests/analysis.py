"""Analysis of an A/B test: each arm less the control, outcome by outcome, with the reasons why the table cannot answer.

Differences come first: a lift in per cent says nothing where the control is near 0, and is then left out. All
comparisons of all outcomes are one family: p-values are corrected by Holm's method, the intervals "all together" and
the sequences by Bonferroni's, because Holm's has no intervals of its own.

    found = analyse(read_table(path, columns), ExperimentPlan(control="a"))
"""

from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Ints
from bandit.errors import InvalidRequest, Problem
from experiments.ab_tests import adjustment, mean_contrasts, score_intervals, sequential
from experiments.ab_tests.adjustment import AdjustedMeans
from experiments.ab_tests.experiment_plan import ExperimentPlan, check_order, check_plan, control_of, with_net
from experiments.ab_tests.experiment_table import ExperimentTable, OutcomeColumn
from experiments.ab_tests.mean_contrasts import PairedEstimates, welch
from experiments.ab_tests.score_intervals import ArmRate
from experiments.ab_tests.validity import notes_of, refusals_of, shares_of
from experiments.inference import intervals
from experiments.inference.assignment import ShareTest
from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import Interval
from experiments.inference.wording import number

_SKEW = 355.0  # people of an arm for each unit of skewness²: Kohavi et al. 2014, "Seven rules of thumb", rule 7


class ArmSummary(NamedTuple):
    """One arm and one outcome: `n` people with a known outcome, their mean, and its interval at the level."""

    arm: str
    n: int
    mean: float
    interval: tuple[float, float]


class ArmComparison(NamedTuple):
    """An arm less the control in one outcome, in its unit.

    `interval` holds for this comparison alone at one look, `together` for all of the family at one look, `sequence` for
    all of the family at any time (None where it is not known). `lift` is relative, of the control's mean, with its own
    interval; None, with the reason in `no_lift`. `plain`: the difference without the covariates, where there are some.
    """

    arm: str
    difference: float
    interval: tuple[float, float]
    together: tuple[float, float]
    sequence: tuple[float, float] | None
    p: float
    p_holm: float
    lift: float | None
    lift_interval: tuple[float, float] | None
    no_lift: str
    plain: tuple[float, float, float] | None  # value, low, high


class OutcomeResult(NamedTuple):
    """All arms and comparisons of one outcome. `kind`: "yes or no" or "amount"; `method` of differences, `sequence` of
    sequences, in words.
    """

    name: str
    kind: str
    method: str
    sequence: str
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[ArmComparison, ...]


class ExperimentResult(NamedTuple):
    """Result of a test. `people` (k,) of the `arms`; `shares` against the declared ones, with their e-value; `family`:
    number of comparisons that are corrected together; `refused`: why there are no outcomes, or, if `forced`, why they
    must not be relied on.
    """

    arms: tuple[str, ...]
    people: tuple[int, ...]
    control: str
    level: float
    family: int
    shares: ShareTest | None
    e_value: float | None
    outcomes: tuple[OutcomeResult, ...]
    refused: tuple[Refusal, ...]
    forced: bool
    notes: tuple[str, ...]


def analyse(table: ExperimentTable, plan: ExperimentPlan) -> ExperimentResult:
    """The result of a test. Raises InvalidRequest where the plan names an arm or outcome that the table does not have,
    or declares shares that are none, or says that rows are in order where their arms deny it; refusals are part of the
    result.
    """
    people = np.bincount(table.arm, table.people, len(table.arms)).astype(np.float64)
    control = control_of(table.arms, plan.control) if len(table.arms) > 1 else 0
    check_plan(table, plan)
    table = with_net(table, plan)
    if plan.ordered:
        check_order(table, plan)
    shares, e_value = shares_of(people, table.arms, plan)
    refused = refusals_of(table, people, e_value)
    family = len(table.outcomes) * max(len(table.arms) - 1, 1)
    outcomes: list[OutcomeResult] = []
    notes = [*table.notes, *notes_of(table, plan, shares, e_value, people)]
    if not refused or (plan.force and len(table.arms) > 1 and people.min() > table.x.shape[1] + 2.0):
        least = table.x.shape[1] + 3
        known = [outcome for outcome in table.outcomes if _fewest_known(table, outcome) >= least]
        notes += [
            f"{outcome.name}: fewer than {least} people of an arm have a value, so it is left out"
            for outcome in table.outcomes
            if all(outcome is not one for one in known)
        ]
        found = [_outcome(table, outcome, plan, control, family) for outcome in known]
        corrected = mean_contrasts.holm([c.p for result, _ in found for c in result.comparisons])
        for result, said in found:
            own = [corrected.pop(0) for _ in result.comparisons]
            compared = [c._replace(p_holm=p) for c, p in zip(result.comparisons, own, strict=True)]
            outcomes.append(result._replace(comparisons=tuple(compared)))
            notes += said
    return ExperimentResult(
        arms=table.arms,
        people=tuple(int(n) for n in people),
        control=table.arms[control],
        level=plan.level,
        family=family,
        shares=shares,
        e_value=e_value,
        outcomes=tuple(outcomes),
        refused=tuple(refused),
        forced=bool(refused and outcomes),
        notes=tuple(notes),
    )


def _fewest_known(table: ExperimentTable, outcome: OutcomeColumn) -> float:
    """People with a known outcome in the arm that has fewest."""
    known = np.isfinite(outcome.total)
    return float(np.bincount(table.arm[known], table.people[known], len(table.arms)).min())


def _outcome(
    table: ExperimentTable, outcome: OutcomeColumn, plan: ExperimentPlan, control: int, family: int
) -> tuple[OutcomeResult, list[str]]:
    """Result of one outcome, with notes. Rows without a value do not count."""
    known = np.isfinite(outcome.total)
    arm, total, count = table.arm[known], outcome.total[known], table.people[known]
    k = len(table.arms)
    n, sums, squares = (
        np.bincount(arm, part, k).astype(np.float64) for part in (count, total, np.asarray(outcome.square)[known])
    )
    means = sums / n
    spread = squares - n * means**2 if table.summed else np.bincount(arm, (total - means[arm]) ** 2, k)
    variances = np.maximum(spread, 0.0) / np.maximum(n - 1.0, 1.0)
    fit = adjustment.adjusted(arm, total, table.x[known], k) if table.x.shape[1] else None
    shared = intervals.bonferroni_level(plan.level, family)
    sequences, followed = _sequences(table, outcome, plan, control, shared)
    compared, rates = list[ArmComparison](), [ArmRate(float(s), float(m)) for s, m in zip(sums, n, strict=True)]
    for a in (a for a in range(k) if a != control):
        of_both = [(float(part[a]), float(part[control])) for part in (means, variances, n)]
        pair = welch(of_both[0], of_both[1], of_both[2])
        own = (rates[a], rates[control]) if outcome.binary else None
        compared.append(
            _comparison(table.arms[a], pair, own, fit.pair(a, control) if fit else None, plan.level, shared)
        )
        compared[-1] = compared[-1]._replace(sequence=sequences.get(a))
    summaries = [
        _summary(table.arms[a], a, rates[a], float(variances[a]), outcome.binary, fit, plan.level) for a in range(k)
    ]
    kind = "yes or no" if outcome.binary else "amount"
    method = "adjusted by covariates (Lin, HC2)" if fit else "score" if outcome.binary else "Welch"
    result = OutcomeResult(outcome.name, kind, method, followed, tuple(summaries), tuple(compared))
    return result, [] if outcome.binary else _skew_notes(table, outcome, arm, total, n)


def _comparison(
    name: str,
    pair: PairedEstimates,
    rates: tuple[ArmRate, ArmRate] | None,
    adjusted: PairedEstimates | None,
    level: float,
    shared: float,
) -> ArmComparison:
    """Comparison by covariates if there are some, else of rates, else of means; without its sequence and Holm's p."""
    plain = None
    if adjusted is None and rates is not None:
        one, all_, p = (
            score_intervals.difference(*rates, level),
            score_intervals.difference(*rates, shared),
            score_intervals.p_value(*rates),
        )
        ratio = score_intervals.ratio(*rates, level) if mean_contrasts.ratio(pair, level) else None
    else:
        used = adjusted or pair
        one, all_, p = (
            mean_contrasts.difference(used, level),
            mean_contrasts.difference(used, shared),
            mean_contrasts.p_value(used),
        )
        ratio = mean_contrasts.ratio(used, level)
        if adjusted is not None:
            without = score_intervals.difference(*rates, level) if rates else mean_contrasts.difference(pair, level)
            plain = (without.value, without.low, without.high)
    lift, of_lift, why = _lift(ratio, (adjusted or pair).control)
    return ArmComparison(name, one.value, _ends(one), _ends(all_), None, p, p, lift, of_lift, why, plain)


def _lift(ratio: Interval | None, control: float) -> tuple[float | None, tuple[float, float] | None, str]:
    if ratio is None:
        why = "is below 0" if control < 0.0 else "is not distinguishable from 0, or nothing varies"
        return None, None, f"no lift in per cent: the control's mean, {number(control, '.3g')}, {why}"
    return ratio.value - 1.0, (ratio.low - 1.0, ratio.high - 1.0), ""


def _ends(found: Interval) -> tuple[float, float]:
    return found.low, found.high


def _summary(
    name: str, a: int, rate: ArmRate, variance: float, binary: bool, fit: AdjustedMeans | None, level: float
) -> ArmSummary:
    """Mean of one arm: adjusted, if there are covariates; else Wilson's interval of a rate, Student's of a mean."""
    if fit is not None:
        own = PairedEstimates(float(fit.mean[a]), 0.0, float(fit.covariance[a, a]), 0.0, 0.0, float(fit.freedom[a]), 0)
    else:
        own = PairedEstimates(rate.value, 0.0, variance / rate.n, 0.0, 0.0, max(rate.n - 1.0, 1.0), 0)
    found = mean_contrasts.difference(own, level)
    if fit is None and binary:
        found = intervals.rate(rate.yes, int(rate.n), level)
    return ArmSummary(name, int(rate.n), found.value, _ends(found))


def _sequences(
    table: ExperimentTable, outcome: OutcomeColumn, plan: ExperimentPlan, control: int, level: float
) -> tuple[dict[int, tuple[float, float]], str]:
    """{arm: sequence} and how they were made, or why there are none."""
    others = [a for a in range(len(table.arms)) if a != control]
    if not plan.follow:
        return {}, "not asked for"
    known = np.isfinite(outcome.total)
    low, high = plan.ranges.get(outcome.name, (0.0, 1.0) if outcome.binary else (0.0, 0.0))
    total = outcome.total[known]
    if not table.summed and high > low and not ((total >= low) & (total <= high)).all():
        problem = f"{outcome.name} goes from {total.min():g} to {total.max():g}"
        fix = "give the range that was known beforehand; it has to hold all values"
        if (low, high) == (0.0, 1.0) and (total == np.floor(total)).all():
            fix = f"say --count COLUMN if rows are sums of people, whose rates lie from 0 to 1; or {fix}"
        raise InvalidRequest(Problem("range", problem, fix))
    if plan.ordered and high > low:
        shares = np.array([plan.shares[arm] for arm in table.arms])
        scaled, rows = (total - low) / (high - low), table.arm[known]
        found = {a: sequential.betting(rows, scaled, shares / shares.sum(), (a, control), level) for a in others}
        ends = {a: ((high - low) * one.low, (high - low) * one.high) for a, one in found.items() if one.low < one.high}
        empty = ", ".join(table.arms[a] for a in others if a not in ends)
        why = f"; none of {empty}: no difference fits rows that chance assigned in these shares and this order"
        return ends, f"betting, rows in the order of their assignment{why if empty else ''}"
    if outcome.binary:
        sums = np.bincount(table.arm[known], total, len(table.arms))
        n = np.bincount(table.arm[known], table.people[known], len(table.arms))
        rates = [ArmRate(float(s), float(m)) for s, m in zip(sums, n, strict=True)]
        ends = {a: _ends(sequential.beta_binomial(rates[a], rates[control], level)) for a in others}
        return ends, "beta-binomial, of totals; assumes rates that do not change"
    if table.summed:
        return {}, "none: sums of amounts have no order"
    wanted = "" if plan.ordered else "--shares, --ordered if the rows are in the order of their assignment, and "
    return {}, f"none: give {wanted}--range {outcome.name}=LOW,HIGH as it was known beforehand"


def _skew_notes(table: ExperimentTable, outcome: OutcomeColumn, arm: Ints, total: Array, n: Array) -> list[str]:
    """Note on amounts so skewed that Student's interval is not to be relied on with so few people."""
    if table.summed:
        return []
    worst, where = 0.0, ""
    for a, name in enumerate(table.arms):
        mine = total[arm == a]
        spread = float(mine.std())
        skew = float(((mine - mine.mean()) ** 3).mean()) / spread**3 if spread > 0.0 else 0.0
        if n[a] < _SKEW * skew * skew and abs(skew) > abs(worst):
            worst, where = skew, name
    if not where:
        return []
    return [
        f"{outcome.name} is skewed ({worst:.1f} in {where}): by the rule of thumb, {_SKEW:.0f} × skewness², intervals "
        f"of a mean need {_SKEW * worst * worst:,.0f} people an arm to hold as they promise"
    ]
