"""Comparison of several policies on the same simulated people: a table and a report for each, from sums by day and
seed.

Intervals are Student's over seeds, paired with no nudge by seed. Values and regret are in the app's currency.

Shapes: S seeds, D days, k arms, Z personas, B age classes.
"""

from typing import NamedTuple

import numpy as np

from bandit.arrays import Array
from experiments.inference.intervals import Interval, mean
from experiments.inference.wording import capital, chance, compared, disagreement, estimate, in_words, money, number
from experiments.reports.report import Report, ReportCurve, ReportRow, ReportSeries, ReportTable, plain_gain


class PolicyResult(NamedTuple):
    """Result of one policy at one stage of a simulation, over S seeds and D days. Values and regret are in currency;
    each entry (S, D) is a sum over the decisions of a day unless said otherwise.
    """

    policy: str
    arms: tuple[str, ...]  # k names
    personas: tuple[str, ...]  # Z names
    users: int  # of each seed
    decisions: Array  # (S, D)
    regret: Array  # (S, D)
    value: Array  # (S, D) expected net value
    none: Array  # (S, D) … had no nudge been shown at these very visits
    conversions: Array  # (S, D) decisions with a reward
    nudged: Array  # (S, D)
    fatigue: Array  # (S, D) sums of F
    opted_out: Array  # (S, D) share of users
    by_day: Array  # (D, k) shown, all seeds
    shown: Array  # (Z, k) shown, all seeds
    ages: Array  # (B,) rewards by age, in equal parts of the window
    propensities: Array  # a sample
    floor: float  # least propensity of an eligible arm

    @property
    def value_per_user(self) -> Array:
        """(S,) expected net value of a user over the whole run, in currency: tired and lost people count."""
        return np.asarray(self.value.sum(axis=1) / self.users)


def of_seed(one: PolicyResult, s: int) -> PolicyResult:
    """The result of seed number `s` alone: arrays (S, D) become (1, D). Sums over all seeds (by_day, shown, ages) are
    kept as they are.
    """
    names = ("decisions", "regret", "value", "none", "conversions", "nudged", "fatigue", "opted_out")
    return one._replace(**{name: getattr(one, name)[s : s + 1] for name in names})


class ComparisonSubject(NamedTuple):
    """What a comparison is about: app, stage and currency, the seeds that were run, users and days of each, and the
    command that makes it again. `declared`: tag of the policy that the catalogue declares, which plays as `default`.
    """

    app: str
    stage: str
    currency: str
    seeds: tuple[int, ...]
    users: int
    days: int
    command: str
    declared: str = ""

    def name(self, policy: str) -> str:
        """Name of a policy for people: `default` with the policy that it is, as in "default (centred)"."""
        return f"{policy} ({self.declared})" if policy == "default" and self.declared else policy


def table(run: ComparisonSubject, played: list[PolicyResult], baseline: PolicyResult) -> ReportTable:
    """The comparison table, one row for each policy, best net value first. The first columns say what a policy earns
    over no nudge. `baseline`: the run of no nudge, paired by seed.
    """
    head = (
        f"over no nudge, {run.currency}/user [95 %]",
        "in % [95 %]",
        f"net value, {run.currency}/user",
        f"regret, {run.currency}/1,000 decisions",
        "conversion",
        "nudged",
        "opted out",
    )
    rows = [_row(run, one, baseline) for one in sorted(played, key=lambda p: -p.value_per_user.mean())]
    note = (
        f"{run.users:,} users, {run.days} days, {len(run.seeds)} seed(s). Net value and regret are exact expected "
        "values; net value counts what fatigue and opt-outs cost later, regret what each decision lost given its past."
    )
    return ReportTable(f"{run.app}/{run.stage}", head, tuple(rows), note)


def _row(run: ComparisonSubject, one: PolicyResult, baseline: PolicyResult) -> ReportRow:
    over = mean(one.value_per_user - baseline.value_per_user)
    total, percent = max(float(one.decisions.sum()), 1.0), _percent(one, baseline)
    return ReportRow(
        run.name(one.policy),
        (
            "–" if one is baseline else in_words(over, "+.2f"),
            in_words(percent, "+.1f") if one is not baseline and np.isfinite(percent.value) else "–",
            number(float(one.value_per_user.mean()), ".2f"),
            f"{1000.0 * one.regret.sum() / total:,.1f}",
            f"{100.0 * one.conversions.sum() / total:.2f} %",
            f"{100.0 * one.nudged.sum() / total:.0f} %",
            f"{100.0 * one.opted_out[:, -1].mean():.1f} %",
        ),
    )


def band(name: str, values: Array) -> ReportSeries:
    """Series by day of the mean over seeds of `values` (S, D), with Student's 95 % interval where there are two seeds
    or more.
    """
    parts = [mean(values[:, d]) for d in range(values.shape[1])]
    step = np.arange(1.0, values.shape[1] + 1.0)
    if len(values) < 2:
        return ReportSeries(name, step, values[0])
    low, high = np.array([p.low for p in parts]), np.array([p.high for p in parts])
    return ReportSeries(name, step, np.array([p.value for p in parts]), low, high)


def over_no_nudge(one: PolicyResult, baseline: PolicyResult) -> ReportSeries:
    """Series by day of the net value over no nudge of a user up to that day, in currency, paired by seed."""
    return band(one.policy, np.cumsum(one.value - baseline.value, axis=1) / one.users)


def metrics(one: PolicyResult, baseline: PolicyResult) -> dict[str, float]:
    """Headline metrics of a policy, money first, rounded to 5 significant digits; those that are not finite are left
    out. Values are in currency per user, `vs_none_pct` in % of no nudge's value; lifts over `baseline` (no nudge) in
    percentage points.
    """
    total, over = max(float(one.decisions.sum()), 1.0), mean(one.value_per_user - baseline.value_per_user)
    lift = mean(100.0 * (_rate(one) - _rate(baseline)))
    percent = _percent(one, baseline)
    found = {
        "vs_none": over.value,
        "vs_none_lcb": over.low,
        "vs_none_ucb": over.high,
        "p_loss": plain_gain(over, "").metrics.get("p_loss", np.nan),
        "vs_none_pct": percent.value,
        "vs_none_pct_lcb": percent.low,
        "vs_none_pct_ucb": percent.high,
        "value_per_user": float(one.value_per_user.mean()),
        "lift_pp": lift.value,
        "lift_lcb": lift.low,
        "lift_ucb": lift.high,
        "regret_per_1000": 1000.0 * float(one.regret.sum() / total),
        "conv_pct": 100.0 * float(one.conversions.sum() / total),
        "nudged_pct": 100.0 * float(one.nudged.sum() / total),
        "opted_out_pct": 100.0 * float(one.opted_out[:, -1].mean()),
        "n": float(one.decisions.sum()),
        "seeds": float(len(one.decisions)),
    }
    return {name: float(f"{value:.5g}") for name, value in found.items() if np.isfinite(value)}


def _percent(one: PolicyResult, baseline: PolicyResult) -> Interval:
    """Net value over no nudge in % of what no nudge earns with the same seed, over seeds; NaN where that is nothing."""
    without = baseline.value_per_user
    nothing = np.full(without.shape, np.nan)
    return mean(100.0 * np.divide(one.value_per_user - without, without, out=nothing, where=without > 0.0))


def _rate(one: PolicyResult) -> Array:
    """(S,) share of decisions with a reward."""
    return np.asarray(one.conversions.sum(axis=1) / np.maximum(one.decisions.sum(axis=1), 1.0))


def report(
    run: ComparisonSubject, one: PolicyResult, played: list[PolicyResult], baseline: PolicyResult, facts: dict[str, str]
) -> Report:
    """The report of one policy of the comparison. `played`: all policies, for tables and curves; `baseline`: no nudge;
    `facts`: more parameters, which take precedence.
    """
    over = mean(one.value_per_user - baseline.value_per_user)
    known = np.isfinite(over.low)
    unit = f"{run.currency} net of costs a user over {run.days} days"
    verdict = (
        f"{compared(over) if known else 'Against'} no nudge: {estimate(over, unit)}, {len(run.seeds)} seed(s)"
        f"{_risk(over, run.currency)}."
    )
    if one is baseline:
        verdict = f"This is no nudge itself, what the others are measured by: {_earns(one, run)}."
    days = np.arange(1.0, run.days + 1.0)
    share = one.by_day / np.maximum(one.by_day.sum(axis=1, keepdims=True), 1.0)
    regret = tuple(band(p.policy, np.cumsum(p.regret, axis=1)) for p in played)
    value = tuple(band(p.policy, np.cumsum(p.value, axis=1) / p.users) for p in played)
    return Report(
        title=f"{run.name(one.policy)} at {run.app}/{run.stage}",
        verdict=verdict,
        policy=one.policy,
        experiment=f"{run.app}-{run.stage}",
        facts={
            "kind": "offline simulation",
            "app": run.app,
            "stage": run.stage,
            "arms": ", ".join(one.arms),
            "floor": f"{one.floor:g}",
            "seeds": ", ".join(map(str, run.seeds)),
            "users": str(run.users),
            "days": str(run.days),
            **facts,
        },
        metrics=metrics(one, baseline),
        tables=(table(run, played, baseline), personas(one)),
        curves=(
            ReportCurve(
                "Net value over no nudge",
                f"{run.currency}/user, cumulative",
                _over(played, baseline),
                "value",
                "day",
            ),
            ReportCurve("Net value", f"{run.currency}/user, cumulative", value, "net", "day"),
            ReportCurve("Regret", f"{run.currency}, cumulative", regret, "regret", "day"),
        ),
        shares=tuple(ReportSeries(arm, days, share[:, a]) for a, arm in enumerate(one.arms)),
        propensities=one.propensities,
        floor=one.floor,
        command=run.command,
        conversions=_conversions(run, one, baseline, over),
        currency=run.currency,
        per="user",
        along="day",
    )


def _conversions(run: ComparisonSubject, one: PolicyResult, baseline: PolicyResult, over: Interval) -> str:
    """The small print of a report: what a policy does to conversions, and that money disagrees where it does; "" of no
    nudge itself. `over`: its money over no nudge.
    """
    if one is baseline:
        return ""
    lift = mean(_rate(one) - _rate(baseline))
    if split := disagreement(over, lift, run.currency, binary=True, each="each user"):
        return f"{capital(split)}, against no nudge."
    said = estimate(lift, "points", scale=100.0)
    return f"Conversions of a decision under {run.name(one.policy)}, costs left out: {said} against no nudge."


def _risk(over: Interval, currency: str) -> str:
    """Clause of a verdict: probability that a policy loses money against no nudge, and the expected loss of choosing
    it, a user; "" where one seed does not say.
    """
    gain = plain_gain(over, currency)
    if not gain.error:
        return ""
    loss = gain.expected_loss
    amount = "" if loss is None else money(loss, currency) if loss >= 0.01 else f"below 0.01 {currency}"
    said = f" (expected loss {amount} a user)" if amount else ""
    return f"; it loses money with probability {chance(gain.p_loss)}{said}"


def _earns(one: PolicyResult, run: ComparisonSubject) -> str:
    return f"{one.value_per_user.mean():.2f} {run.currency} a user over {run.days} days, {len(run.seeds)} seed(s)"


def _over(played: list[PolicyResult], baseline: PolicyResult) -> tuple[ReportSeries, ...]:
    return tuple(over_no_nudge(p, baseline) for p in played if p is not baseline)


def study(run: ComparisonSubject, played: list[PolicyResult], baseline: PolicyResult, facts: dict[str, str]) -> Report:
    """The report of a whole comparison: which policy earns most over no nudge, and how sure that is. Arguments as for
    `report`.
    """
    ranked = sorted(played, key=lambda p: (-p.value_per_user.mean(), p is not baseline))
    choices = [one for one in ranked if not one.policy.startswith("oracle")]
    first = choices[0]
    made = report(run, first, ranked, baseline, facts)
    return made._replace(
        title=f"{run.app}/{run.stage}: {len(choices)} policies on the same people",
        verdict=_choice(run, choices, baseline),
        policy="comparison",
        facts={key: value for key, value in made.facts.items() if key != "floor"},
        metrics={"n": float(sum(one.decisions.sum() for one in played))},
        tables=(table(run, played, baseline), _nudged(run, ranked)),
        shares=(),
        propensities=np.zeros(0),
        floor=0.0,
    )


def _nudged(run: ComparisonSubject, ranked: list[PolicyResult]) -> ReportTable:
    """Table of how often each policy nudges each persona, and with what most."""
    rows = []
    for one in ranked:
        total = np.maximum(one.shown.sum(axis=1), 1.0)
        nudges = one.shown[:, 1:] if one.shown.shape[1] > 1 else np.zeros((len(one.shown), 1))  # a stage without any
        share, most = 100.0 * nudges.sum(axis=1) / total, nudges.argmax(axis=1)
        cells = (
            f"{share[z]:.0f} %" + (f", most {one.arms[1 + most[z]]}" if share[z] >= 0.5 else "")
            for z in range(len(one.personas))
        )
        rows.append(ReportRow(run.name(one.policy), tuple(cells)))
    note = "Share of a persona's decisions with a nudge, and which came most. No policy sees personas."
    return ReportTable("Nudged, by persona", ranked[0].personas, tuple(rows), note)


def _choice(run: ComparisonSubject, choices: list[PolicyResult], baseline: PolicyResult) -> str:
    """What a comparison says of the policies that somebody could choose, best first, in a sentence or two."""
    first, *others = choices
    if first is baseline:
        lost = mean(others[0].value_per_user - baseline.value_per_user) if others else None
        said = "No nudge earns most of these policies."
        if lost is None:
            return said
        brings = f"{in_words(lost, '+.2f')} {run.currency} a user over no nudge"
        return f"{said} Next is {run.name(others[0].policy)}: {brings}."
    over = mean(first.value_per_user - baseline.value_per_user)
    said = (
        f"{run.name(first.policy)} earns most: {in_words(over, '+.2f')} {run.currency} net value a user over no nudge "
        f"in {run.days} days, {len(run.seeds)} seed(s){_risk(over, run.currency)}"
    )
    if others and others[0] is not baseline:
        ahead = mean(first.value_per_user - others[0].value_per_user)
        clear = "" if ahead.low > 0.0 else ", and the two are not distinguishable"
        return f"{said}; it is {in_words(ahead, '+.2f')} {run.currency} ahead of {run.name(others[0].policy)}{clear}."
    return f"{said}." if over.low > 0.0 else f"{said}; it is not distinguishable from no nudge."


def personas(one: PolicyResult) -> ReportTable:
    """Table of the share of decisions in which each persona was shown each arm."""
    share = one.shown / np.maximum(one.shown.sum(axis=1, keepdims=True), 1.0)
    rows = [ReportRow(name, tuple(f"{100 * v:.1f} %" for v in share[z])) for z, name in enumerate(one.personas)]
    return ReportTable(
        f"Shown by {one.policy}, % of a persona's decisions",
        one.arms,
        tuple(rows),
        "The policy never sees which persona somebody is.",
    )
