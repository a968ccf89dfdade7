"""Report of one run of a policy, as a frozen value. `experiments.mlflow.tracking` writes it and `html_report` draws it;
neither computes. Every number in it comes from the arrays handed in.

Shapes: n decisions, k arms.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array, LoggedDecisions
from experiments.inference.intervals import LEVEL, Interval, difference, mean, rate
from experiments.inference.money import NetGain
from experiments.inference.wording import against, capital, compared, disagreement, estimate, in_words, number

POINTS = 300  # of a series: the browser shows no more


class ReportRow(NamedTuple):
    """One row of a table: a name and its cells, numbers already formatted as text."""

    name: str
    cells: tuple[str, ...]


class ReportTable(NamedTuple):
    """A table: `head` has one entry for each cell of a row (the column of names has none), `note` says what the numbers
    are.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    note: str = ""


class ReportSeries(NamedTuple):
    """A series of p ≤ 300 points along decisions or days: `step` (p,), `value` (p,), and optional bounds `low` and
    `high` (p,).
    """

    name: str
    step: Array
    value: Array
    low: Array | None = None
    high: Array | None = None


class ReportBar(NamedTuple):
    """One bar of a forest plot: a value with its interval, in the unit of the answer it stands in."""

    name: str
    value: float
    low: float
    high: float


class ReportAnswer(NamedTuple):
    """One question of a reviewer with its answer in a sentence, then the tables and drawings that show it. `code` is a
    command to copy; `unit` is that of the forest plot.
    """

    question: str
    answer: str
    tables: tuple[ReportTable, ...] = ()
    note: str = ""  # small print below the answer
    code: str = ""
    lines: tuple[str, tuple[ReportSeries, ...]] | None = None  # (unit, series)
    stack: tuple[ReportSeries, ...] = ()  # arm shares over time, they sum to 1
    forest: tuple[ReportBar, ...] = ()
    histogram: tuple[str, Array] | None = None  # (what, values in [0, 1])
    unit: str = ""


class ReportCurve(NamedTuple):
    """One drawing of lines along the run: its title, the `unit` of its values, the lines, and the prefix `key` of their
    names in MLflow, which says what they are: regret, net (money), value (money over no nudge) or rate. `along`: what
    the steps count.
    """

    title: str
    unit: str
    lines: tuple[ReportSeries, ...]
    key: str
    along: str = "decisions"


class Report(NamedTuple):
    """Everything a reviewer sees of one run of a policy. A frozen value with all numbers computed: who writes or draws
    it only formats.

    Guaranteed: `metrics` are rounded to 4 or 5 significant digits, headline first; `facts` have the same keys for all
    runs of a kind; series have at most `POINTS` points (those of a simulation one a day); `command` makes the run
    again. Made by `simulated` and `replayed` here, by `simulation_report.report` and by `review.build`; drawn by
    `html_report.render`, written by `experiments.mlflow.tracking`.
    """

    title: str
    verdict: str  # one sentence, money first: net of costs against no nudge, by how much, how sure
    policy: str
    experiment: str  # <app>-<stage>
    facts: dict[str, str]  # parameters, the same keys everywhere
    metrics: dict[str, float]  # headline first
    tables: tuple[ReportTable, ...]
    curves: tuple[ReportCurve, ...]
    shares: tuple[ReportSeries, ...]  # arm shares over time, they sum to 1
    propensities: Array  # (n,) of the drawn arms
    floor: float  # least propensity of an eligible arm
    command: str  # makes the run again
    answers: tuple[ReportAnswer, ...] = ()  # the fifteen of a review
    extra: tuple[tuple[str, ReportSeries], ...] = ()  # more series to log: (key, series)
    conversions: str = ""  # small print below the verdict: the lift in points or rewards, "" where there is none
    loss: tuple[str, ...] = ()  # what learning may cost, what it has cost, which traffic it decides; () without account
    currency: str = ""  # code of the unit of net values, such as EUR
    per: str = "decision"  # what net values are of: a decision, or a user of a simulation
    along: str = "decisions"  # what the steps of `shares` are: decisions, or days of a simulation, "day"


class ReportSubject(NamedTuple):
    """What was run: names for people (app, stage, data), and what makes the run repeatable (policy with its
    hyperparameters, floor, version, seed, command, SHA-256 of the belief).
    """

    app: str
    stage: str
    policy: dict[str, Any]
    floor: float
    version: int
    seed: int
    command: str
    belief_sha256: str  # hexadecimal
    kind: str  # "simulation" or "replay"
    data: str
    alarms: tuple[str, ...] = ()  # of drift: arm, direction, when


def simulated(subject: ReportSubject, log: LoggedDecisions, utility: Array, net: Array, currency: str) -> Report:
    """Report of a run on simulated people, where the truth is known: `utility` (n, k) is the exact expected net value
    of each arm, `net` (n,) the realised net value of each decision, both in `currency`.

    Holdout decisions are left out of everything but the comparison with the holdout.
    """
    mine = ~log.holdout
    shown = log.only(mine)
    values = _true_values(shown, utility[mine])
    over_none, over_uniform = mean(values.got - values.none), mean(values.got - values.uniform)
    lift, unit = _percent(over_none, float(values.none.mean())), f"{currency} per decision"
    gain = plain_gain(over_none, currency)
    verdict = (
        f"{compared(over_none)} no nudge: {estimate(over_none, f'{unit} net of costs')}{lift}; {gain.risk}; "
        f"{against(over_uniform, 'uniform', unit)}."
    )
    metrics = {
        **gain.metrics,
        "vs_uniform": over_uniform.value,
        "net_value": float(values.got.mean()),
        "regret_end": float((values.best - values.got).sum()),
        "regret_unif": float((values.best - values.uniform).sum()),
        "conv_pct": 100 * float((shown.reward[~np.isnan(shown.reward)] != 0.0).mean()),
        **_common(shown),
        "n_holdout": float(log.holdout.sum()),
    }
    seen = _holdout_table(net[mine], net[log.holdout], currency)
    tables = (_value_table(values, currency), _arm_table(shown), seen)
    made = _report(subject, verdict, metrics, tables, _value_curves(values, currency), shown)
    return made._replace(currency=currency)


class _TrueValues(NamedTuple):
    """Exact expected net value (n,) of each decision: of the arm that was drawn, of a uniform draw among the eligible
    arms, of no nudge, and of the best eligible arm.
    """

    got: Array
    uniform: Array
    none: Array
    best: Array


def _true_values(shown: LoggedDecisions, truth: Array) -> _TrueValues:
    """Values of n decisions, from the exact expected net value (n, k) of each arm; no nudge is arm 0."""
    got = truth[np.arange(len(shown.arm)), shown.arm]
    best = np.where(shown.eligible, truth, -np.inf).max(axis=1)
    uniform = np.where(shown.eligible, truth, 0.0).sum(axis=1) / shown.eligible.sum(axis=1)
    return _TrueValues(got, uniform, truth[:, 0], best)


def _value_table(values: _TrueValues, currency: str) -> ReportTable:
    """Net value of the policy beside uniform draws, no nudge and the best arm."""
    got, uniform, none, best = values
    rows = (
        _value_row("this policy", mean(got), mean(got - none), (best - got).sum()),
        _value_row("uniform", mean(uniform), mean(uniform - none), (best - uniform).sum()),
        _value_row("no nudge", mean(none), None, (best - none).sum()),
        _value_row("best possible", mean(best), mean(best - none), 0.0),
    )
    head = (
        f"over no nudge, {currency}/decision [95 %]", f"net value, {currency}/decision", f"regret, {currency} in all",
    )  # fmt: skip
    return ReportTable("Value: the truth of the simulator", head, rows, "Expected values, paired by person.")


def _value_curves(values: _TrueValues, currency: str) -> tuple[ReportCurve, ...]:
    """Cumulative regret along the run, and the net value over no nudge in windows of it."""
    got, uniform, none, best = values
    cumulative = (
        _cumulative("this policy", best - got),
        _cumulative("uniform", best - uniform),
        _cumulative("no nudge", best - none),
    )
    gap = _windowed_mean("this policy", got - none)
    return (
        ReportCurve("Net value over no nudge", f"{currency}/decision", (gap,), "value"),
        ReportCurve("Regret", f"{currency}, cumulative", cumulative, "regret"),
    )


def _holdout_table(policy: Array, holdout: Array, currency: str) -> ReportTable:
    """Realised net values of the policy's decisions and of the control group's."""
    ours, theirs = mean(policy), mean(holdout)
    rows = (
        ReportRow("this policy", (in_words(ours),)),
        ReportRow("holdout (no nudge)", (in_words(theirs),)),
        ReportRow("difference", (in_words(difference(ours, theirs)),)),
    )
    note = "Realised, noisy; a wide interval here is honest."
    return ReportTable(
        "Against the holdout: what an app could measure", (f"net value, {currency}/decision",), rows, note
    )


def plain_gain(over: Interval, currency: str) -> NetGain:
    """Net gain with a Student's interval at 95 %, whose half width is the standard error times its quantile; the
    probability that it loses money is Student's too, so that it is below 2.5 % just where the interval is above 0.
    """
    half = 0.5 * (over.high - over.low)
    error = half / float(special.stdtrit(over.n - 1, 0.5 + LEVEL / 2)) if over.n > 1 and np.isfinite(half) else None
    return NetGain(over, error, None, currency, freedom=over.n - 1.0)


class ReplayPrices(NamedTuple):
    """Prices of a replay, in the app's currency. `gain` (k,): what a unit of reward is worth under each arm; `cost`
    (k,): what showing each costs; `words`: a sentence that says so.
    """

    currency: str
    gain: Array  # (k,)
    cost: Array  # (k,)
    words: str


def replayed(
    subject: ReportSubject,
    log: LoggedDecisions,
    agreed: NDArray[np.bool_],
    sent: NDArray[np.str_],
    reward: Array,
    what: str,
    prices: ReplayPrices,
) -> Report:
    """Report of a rejection replay (Li, Chu, Langford & Wang 2011) on real people. `agreed` (n,): decisions that met
    what was really `sent` (n,), an arm's name; `reward` (n,) is 0 or 1. `what` names the reward in words, `prices` turn
    rewards into money.
    """
    learned = rate(reward[agreed].sum(), int(agreed.sum()))
    arms = [rate(reward[sent == arm].sum(), int((sent == arm).sum())) for arm in log.arms]
    half = log.only(agreed)
    half = half.only(np.arange(len(half.arm)) >= len(half.arm) // 2)
    late = rate(half.reward.sum(), len(half.reward))
    best = max(range(len(arms)), key=lambda a: arms[a].value)
    over_none, over_best = difference(learned, arms[0]), difference(late, arms[best])
    at = {arm: a for a, arm in enumerate(log.arms)}
    earned = reward * prices.gain[[at[arm] for arm in sent]] - prices.cost[[at[arm] for arm in sent]]  # (n,) net
    fixed = [mean(earned[sent == arm]) for arm in log.arms]
    dearest = max(range(len(fixed)), key=lambda a: fixed[a].value)
    second = agreed & (np.cumsum(agreed) > agreed.sum() // 2)
    net_none = difference(mean(earned[agreed]), fixed[0])
    net_best = difference(mean(earned[second]), fixed[dearest])
    gain, unit = plain_gain(net_none, prices.currency), f"{prices.currency} per decision"
    verdict = (
        f"{compared(net_none)} no nudge: {estimate(net_none, f'{unit} net of costs')}; {gain.risk}; its second half is "
        f"{against(net_best, f'the best fixed arm ({log.arms[dearest]})', unit)}. {prices.words}"
    )
    split = disagreement(net_none, over_none, prices.currency, binary=True)
    conversions = (
        f"{capital(split)}{'. ' if split else ''}{what}: {_points(over_none)} against no nudge; its "
        f"second half {_points(over_best)} against always {log.arms[best]}."
    )
    mine = [("this policy, learning included", mean(earned[agreed]), learned)]
    mine.append(("this policy, second half", mean(earned[second]), late))
    always = [(f"always {arm}", net, i) for arm, net, i in zip(log.arms, fixed, arms, strict=True)]
    values = _replay_table(what, prices.currency, mine + always)
    metrics = {
        **gain.metrics,
        "lift_pp": 100 * over_none.value,
        "lift_lcb": 100 * over_none.low,
        "lift_ucb": 100 * over_none.high,
        "conv_pct": 100 * learned.value,
        "conv_lcb": 100 * learned.low,
        "conv_ucb": 100 * learned.high,
        "best_fixed": 100 * arms[best].value,
        "agreed": float(learned.n),
        **_common(log),
    }
    met = log.only(agreed)
    running = _running_rate("this policy", met.reward)
    lines = tuple(_flat(f"always {arm}", i, running.step) for arm, i in zip(log.arms, arms, strict=True))
    curves = (ReportCurve(f"{what}, so far", "% of people", (running, *lines), "rate"),)
    made = _report(subject, verdict, metrics, (values, _arm_table(log)), curves, log)
    return made._replace(conversions=conversions, currency=prices.currency)


def _replay_table(what: str, currency: str, rows: Sequence[tuple[str, Interval, Interval]]) -> ReportTable:
    """Net values and rates of a replay; `rows`: (name, net value a decision, rate)."""
    head = (f"net value, {currency}/decision [95 %]", "rate [95 %]", "people")
    made = tuple(ReportRow(name, (estimate(net, ""), _share(i), f"{i.n:,}")) for name, net, i in rows)
    return ReportTable(f"{what}: real people", head, made, "Rates: Wilson intervals.")


def _report(
    subject: ReportSubject,
    verdict: str,
    metrics: dict[str, float],
    tables: tuple[ReportTable, ...],
    curves: tuple[ReportCurve, ...],
    log: LoggedDecisions,
) -> Report:
    name = str(subject.policy["name"])
    facts = {
        "kind": subject.kind,
        "app": subject.app,
        "stage": subject.stage,
        "algorithm": name,
        "arms": ", ".join(log.arms),
        "floor": f"{subject.floor:g}",
        "hyperparameters": ", ".join(f"{k} {v}" for k, v in subject.policy.items() if k != "name") or "none",
        "seed": str(subject.seed),
        "data": subject.data,
        "policy_version": str(subject.version),
        "belief_sha256": subject.belief_sha256,
        "drift_alarms": "; ".join(subject.alarms) or "none",
    }
    metrics = {**metrics, "alarms": float(len(subject.alarms))}
    return Report(
        title=f"{name} at {subject.app}/{subject.stage}",
        verdict=verdict,
        policy=name,
        experiment=f"{subject.app}-{subject.stage}",
        facts=facts,
        metrics={name: float(f"{value:.5g}") for name, value in metrics.items()},
        tables=tables,
        curves=curves,
        shares=_shares(log),
        propensities=log.propensity,
        floor=subject.floor,
        command=subject.command,
    )


def _common(log: LoggedDecisions) -> dict[str, float]:
    eligible = np.where(log.eligible, log.propensities, np.inf)
    return {"min_prop": float(eligible.min()), "n": float(len(log.arm))}


def _arm_table(log: LoggedDecisions) -> ReportTable:
    recent = log.only(np.arange(len(log.arm)) >= 0.9 * len(log.arm))
    rows = []
    for a, arm in enumerate(log.arms):
        known = (log.arm == a) & ~np.isnan(log.reward)
        observed = _earned(log.reward[known])
        now = recent.propensities[recent.eligible[:, a], a]
        rows.append(
            ReportRow(arm, (str(int((log.arm == a).sum())), observed, f"{now.mean():.3f}" if len(now) else "–"))
        )
    head = ("shown", "reward [95 %]", "propensity now")
    return ReportTable(
        "Nudges", head, tuple(rows), "Propensity now: mean over the last tenth of decisions where eligible."
    )


def _earned(reward: Array) -> str:
    """The reward in words: the rate with its interval if rewards are yes or no, else the mean with its interval."""
    return _share(rate(reward.sum(), len(reward))) if np.isin(reward, (0.0, 1.0)).all() else in_words(mean(reward))


def _shares(log: LoggedDecisions) -> tuple[ReportSeries, ...]:
    step = _steps(len(log.arm), 100)
    table = np.array([np.bincount(part, minlength=len(log.arms)) for part in np.split(log.arm, step[:-1].astype(int))])
    share = table / table.sum(axis=1, keepdims=True)
    return tuple(ReportSeries(arm, step, share[:, a]) for a, arm in enumerate(log.arms))


def _steps(n: int, points: int = POINTS) -> Array:
    """Up to `points` steps, the last one n."""
    return np.unique(np.linspace(0, n, min(points, n) + 1)[1:].astype(int)).astype(float)


def _cumulative(name: str, values: Array) -> ReportSeries:
    step = _steps(len(values))
    return ReportSeries(name, step, np.cumsum(values)[step.astype(int) - 1])


def _windowed_mean(name: str, values: Array) -> ReportSeries:
    step = _steps(len(values), 40)
    parts = [mean(part) for part in np.split(values, step[:-1].astype(int))]
    low, high = np.array([p.low for p in parts]), np.array([p.high for p in parts])
    return ReportSeries(name, step, np.array([p.value for p in parts]), low, high)


def _running_rate(name: str, reward: Array) -> ReportSeries:
    step = _steps(len(reward))
    done = [rate(total, int(n)) for total, n in zip(np.cumsum(reward)[step.astype(int) - 1], step, strict=True)]
    value, low, high = (100 * np.array([getattr(d, part) for d in done]) for part in ("value", "low", "high"))
    return ReportSeries(name, step, value, low, high)


def _flat(name: str, interval: Interval, step: Array) -> ReportSeries:
    return ReportSeries(name, step, np.full(len(step), 100 * interval.value))


def _value_row(name: str, value: Interval, over: Interval | None, regret: float) -> ReportRow:
    gained = estimate(over, "") if over else "–"
    return ReportRow(name, (gained, number(value.value, ".3f"), number(regret, ".0f")))


def _percent(over: Interval, base: float) -> str:
    """The difference in % of what no nudge earns, after a comma; "" where that is nothing."""
    return f", {number(100.0 * over.value / abs(base), '+.1f')} %" if base else ""


def _points(i: Interval) -> str:
    return in_words(i, "+.2f", scale=100.0, unit="points")


def _share(i: Interval) -> str:
    return in_words(i, ".2f", scale=100.0, unit="%") if i.n else "–"
