"""The review of one policy on the ledger of a live service: fifteen questions, answered in the order a reviewer asks.

Everything is computed before; here it is put into words, tables and drawings. A log that cannot answer says so in every
answer that would need it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.diff import Diff
from experiments.evaluate import Estimate, Evaluation
from experiments.monitor import HOLDOUT, Monitored
from experiments.promotion import Verdict
from experiments.report import POINTS, Answer, Bar, Report, Row, Series, Table
from experiments.rounds import Array, Rounds
from experiments.segments import Segments

_WINDOWS = 40  # points of a series of shares


class About(NamedTuple):
    """What is reviewed, in words, the same facts for every run."""

    app: str
    stage: str
    currency: str
    kind: str  # candidate or live
    algorithm: str
    settings: str
    arms: tuple[str, ...]
    floor: float
    version: int  # settlements learned
    belief_sha256: str
    policy_sha256: str
    salt_id: str
    champion: str  # what it is compared with
    rule: str  # the promotion rule in words
    data: str  # which decisions
    data_sha256: str
    window: str  # from … to
    alarms: tuple[str, ...]
    live: str  # what is live, since when, who, why
    rollback: str
    command: str
    git: str
    binary: bool  # rewards are yes or no: lifts in percentage points


class Found(NamedTuple):
    """What was computed. `pi` (n, k): what the policy would do on the rounds; `value` (n, k): modelled net values."""

    rounds: Rounds  # outside the holdout, rewards known
    eligible: NDArray[np.bool_]  # (n, k)
    pi: Array
    value: Array
    reward: Evaluation
    net: Evaluation
    monitored: Monitored
    segments: Mapping[str, Segments]
    verdict: Verdict
    diff: Diff | None


def build(about: About, found: Found) -> Report:
    """The report. Metrics are those a reviewer sorts by; series have at most 300 points."""
    regret, shares, least = _regret(found), _windows(about.arms, found.pi), _least(found)
    lift = found.reward.contrasts.get("none")
    champion = found.net.contrasts.get(about.champion)
    first = (
        f"{about.algorithm} at {about.app}/{about.stage}, {about.kind}, version {about.version}: "
        f"{_against(lift, 'no nudge', _unit(about), 100.0 if about.binary else 1.0)}; "
        f"{found.verdict.decision}."
    )
    facts = {
        "kind": about.kind,
        "app": about.app,
        "stage": about.stage,
        "algorithm": about.algorithm,
        "hyperparameters": about.settings,
        "arms": ", ".join(about.arms),
        "floor": f"{about.floor:g}",
        "seed": "live traffic",
        "data": about.data,
        "data_window": about.window,
        "policy_version": str(about.version),
        "belief_sha256": about.belief_sha256,
        "drift_alarms": "; ".join(about.alarms) or "none",
    }
    return Report(
        title=f"{about.algorithm} v{about.version} at {about.app}/{about.stage}",
        verdict=first,
        policy=about.algorithm,
        experiment=f"{about.app}-{about.stage}",
        facts=facts,
        metrics=_metrics(about, found, lift, champion),
        tables=(),
        curves=(("Regret by its own model", f"{about.currency}, cumulative", regret),),
        shares=shares,
        propensities=found.rounds.pscore,
        floor=about.floor,
        command=about.command,
        answers=_answers(about, found, regret, shares, least),
        extra=(("propensity/min", least),),
    )


def _metrics(about: About, found: Found, lift: Estimate | None, champion: Estimate | None) -> dict[str, float]:
    scale = 100.0 if about.binary else 1.0
    d, first = found.reward.diagnostics, _default(found.reward)
    metrics = {
        **_three("lift", lift, scale, ("lift_pp", "lift_lcb", "lift_ucb")),
        **_three("champ", champion, 1.0, ("vs_champ", "champ_lcb", "champ_ucb")),
        "conv_pct": scale * float(found.rounds.reward.mean()) if len(found.rounds.reward) else np.nan,
        **_three("dr", first, scale, ("dr_pct", "dr_lcb", "dr_ucb")),
        "ess": d["ess"],
        "max_w": d["max_weight"],
        "min_prop": float(np.where(found.eligible, found.pi, np.inf).min(initial=np.inf)),
        "n": float(found.reward.n),
        "n_holdout": float(found.monitored.lift.rows - found.reward.rows + found.reward.holdout),
        "alarms": float(len(about.alarms)),
        "moved_pct": 100.0 * found.diff.moved if found.diff else np.nan,
    }
    return {k: float(f"{v:.4g}") for k, v in metrics.items() if np.isfinite(v)}


def _three(_: str, e: Estimate | None, scale: float, names: tuple[str, str, str]) -> dict[str, float]:
    if e is None:
        return {}
    low, high = e.sequence or e.interval
    return dict(zip(names, (scale * e.value, scale * low, scale * high), strict=True))


def _answers(
    about: About, found: Found, regret: tuple[Series, ...], shares: tuple[Series, ...], least: Series
) -> tuple[Answer, ...]:
    scale, unit = (100.0, " points") if about.binary else (1.0, "")
    refused = "; ".join(f"{r.reason}: {r.detail}" for r in found.reward.refused)
    silent = f"The log cannot say: {refused}." if refused else "The log cannot say."
    d = found.reward.diagnostics
    estimates = _estimates(found.reward, scale)
    held = found.monitored.lift.contrasts.get(HOLDOUT)
    champion = found.net.contrasts.get(about.champion)
    lift = found.reward.contrasts.get("none")
    net = found.net.contrasts.get("none")
    worst = [(name, s) for name, s in found.segments.items()]
    return (
        Answer(
            "What is this policy, and which stage?",
            f"{about.algorithm} ({about.settings}) for {about.app}/{about.stage}; arms {', '.join(about.arms)}; "
            f"floor {about.floor:g}; it has learned {about.version:,} settlements of the ledger.",
        ),
        Answer(
            "Is it better than no nudge, by how much, how sure?",
            (
                f"Reward: {_against(lift, 'no nudge', unit, scale)}. "
                f"Net of costs: {_against(net, 'no nudge', f' {about.currency} per decision', 1.0)}."
                if lift
                else silent
            ),
            (_holdout(about, held),),
        ),
        Answer(
            "Is it better than what is served today, or not distinguishable?",
            f"{_against(champion, about.champion, f' {about.currency} per decision', 1.0)}."
            if champion
            else f"Compared with {about.champion}. {silent}",
            found.diff.tables(about.currency) if found.diff else (),
            note=found.diff.sentence(about.currency) if found.diff else "There is no earlier version to compare with.",
        ),
        Answer(
            "How many decisions, how many seeds?",
            f"{found.reward.n:,} decisions whose reward is known, in {found.reward.units:,} groups of users; "
            f"{found.reward.holdout:,} more in the holdout. Live traffic has one history, so there is one seed.",
        ),
        Answer(
            "What do off-policy estimates say, do they agree?",
            _agreement(found.reward, scale, unit) if found.reward.estimates else silent,
            (estimates,) if estimates.rows else (),
            forest=_forest(found.reward, scale),
            unit="reward, %" if about.binary else "reward",
        ),
        Answer(
            "Can the estimates be trusted: sample size, weights, overlap?",
            f"The weights are worth {d['ess']:,.0f} of {found.reward.n:,} decisions; the largest is "
            f"{d['max_weight']:.1f}; {100 * d['unsupported']:.2f} % of its choices could never be drawn"
            + (f". {silent}" if refused else "."),
            histogram=("propensity of what was shown", found.rounds.pscore),
            note="; ".join(found.reward.notes),
        ),
        Answer(
            "Is regret flattening?",
            "The truth is not known on live traffic: this is what the policy's own model says was lost against its own "
            "best arm. A simulated run of the same app shows the true one.",
            lines=(f"{about.currency}, cumulative", regret),
        ),
        Answer(
            "What does it do over time?",
            "The mean probability of each nudge along the log.",
            (_arms(about, found),),
            stack=shares,
        ),
        Answer(
            "Does it still explore, is the floor kept?",
            f"The least probability of an eligible nudge is {_number(least.value.min(initial=np.inf))}; "
            f"the floor is {about.floor:g}.",
            lines=("least probability", (least,)),
        ),
        Answer(
            "Is any segment harmed?",
            _harmed(worst, about.champion) if worst else silent,
            tuple(_segment_table(name, s, about) for name, s in worst),
        ),
        Answer(
            "On which data, is it the right data?",
            f"{about.data}; {about.window}; sha256 {about.data_sha256[:16]}…; drift alarms: "
            f"{'; '.join(about.alarms) or 'none'}.",
        ),
        Answer(
            "Are guardrails and the gate passed?",
            f"Gate: {found.verdict.decision}. {'; '.join(found.verdict.reasons)}.",
            note=f"The rule: {about.rule}",
        ),
        Answer(
            "Is it reproducible: code, seed, environment?",
            f"{about.git}; belief {about.belief_sha256[:16]}…, policy.json {about.policy_sha256[:16]}…, salt id "
            f"{about.salt_id[:16]}…. The belief is an exact sum: `journey-bandit rebuild --verify` proves it.",
            code=about.command,
        ),
        Answer("What is live, since when, who approved it, why?", about.live),
        Answer("How do I roll back, and to what?", about.rollback),
    )


# -- words -------------------------------------------------------------------------------------------------------


def _default(evaluation: Evaluation) -> Estimate | None:
    return next(iter(evaluation.estimates.values()), None)


def _unit(about: About) -> str:
    return " points" if about.binary else ""


def _against(e: Estimate | None, other: str, unit: str, scale: float) -> str:
    if e is None:
        return f"not compared with {other}: the log cannot say"
    low, high = e.sequence or e.interval
    word = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    return f"{word} {other}, {scale * e.value:+.3g}{unit} [{scale * low:+.3g}, {scale * high:+.3g}]"


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "not known"


def _agreement(evaluation: Evaluation, scale: float, unit: str) -> str:
    first = _default(evaluation)
    assert first is not None  # noqa: S101 - the caller looked
    values = [e.value for e in evaluation.estimates.values()]
    low, high = first.interval
    inside = sum(low <= v <= high for v in values)
    return (
        f"{len(values)} estimators lie between {scale * min(values):.3g} and {scale * max(values):.3g}{unit and ' %'}; "
        f"{inside} of them inside the interval of the first."
    )


def _harmed(found: Sequence[tuple[str, Segments]], champion: str) -> str:
    worst = min((s.worst for _, s in found), key=lambda w: w.shrunk.value)
    hurt = [h.name for _, s in found for h in s.hurt]
    surely = f"Surely harmed: {', '.join(hurt)}." if hurt else "None surely."
    said = f"{worst.shrunk.value:+.3g} against {champion} (shrunk), n {worst.joint.n:,}"
    return f"{surely} The worst is {worst.name}: {said}."


# -- tables and drawings -----------------------------------------------------------------------------------------


def _holdout(about: About, held: Estimate | None) -> Table:
    cells = (
        ("–", "–") if held is None else (f"{held.value:+.3f}", f"[{held.interval[0]:+.3f}, {held.interval[1]:+.3f}]")
    )
    row = Row("what was served, less the holdout", cells)
    note = "Measured, whatever the policy: people of the holdout get no nudge."
    return Table("Against the holdout", (f"{about.currency}/decision", "95 %"), (row,), note)


def _estimates(evaluation: Evaluation, scale: float) -> Table:
    rows = tuple(
        Row(name, (f"{scale * e.value:.3f}", f"[{scale * e.interval[0]:.3f}, {scale * e.interval[1]:.3f}]"))
        for name, e in evaluation.estimates.items()
    )
    return Table("What it would have earned", ("reward", "95 %"), rows)


def _forest(evaluation: Evaluation, scale: float) -> tuple[Bar, ...]:
    bars = [
        Bar(name, scale * e.value, scale * e.interval[0], scale * e.interval[1])
        for name, e in evaluation.estimates.items()
    ]
    if evaluation.control:
        c = evaluation.control
        bars.append(Bar("holdout, measured", scale * c.value, scale * c.interval[0], scale * c.interval[1]))
    return tuple(bars)


def _segment_table(name: str, found: Segments, about: About) -> Table:
    rows = tuple(
        Row(
            s.name,
            (f"{s.joint.n:,}", f"{s.shrunk.value:+.3f}", f"[{s.shrunk.low:+.3f}, {s.shrunk.high:+.3f}]",
             f"[{s.joint.low:+.3f}, {s.joint.high:+.3f}]"),
        )
        for s in found.segments
    )  # fmt: skip
    head = ("n", f"over {about.champion}, {about.currency}", "95 %", "joint")
    return Table(f"By {name}", head, rows)


def _arms(about: About, found: Found) -> Table:
    r = found.rounds
    n = max(len(r.action), 1)
    rows = []
    for a, arm in enumerate(about.arms):
        mine = r.action == a
        earned = f"{r.reward[mine].mean():.4f}" if mine.any() else "–"
        rows.append(Row(arm, (f"{100 * mine.sum() / n:.1f} %", f"{100 * found.pi[:, a].mean():.1f} %", earned)))
    return Table("Nudges", ("was shown", "would show", "mean reward"), tuple(rows))


def _regret(found: Found) -> tuple[Series, ...]:
    value = np.where(found.eligible, found.value, -np.inf)
    n = len(value)
    if n == 0:
        return ()
    best, each = value.max(axis=1), np.arange(n)
    lines = {
        "what was shown": best - found.value[each, found.rounds.action],
        "this policy": best - (found.pi * np.where(found.eligible, found.value, 0.0)).sum(axis=1),
        "no nudge": best - found.value[:, 0],
    }
    step = _steps(n, POINTS)
    return tuple(Series(name, step, np.cumsum(v)[step.astype(int) - 1]) for name, v in lines.items())


def _windows(arms: Sequence[str], pi: Array) -> tuple[Series, ...]:
    step = _steps(len(pi), _WINDOWS)
    parts = np.array([part.mean(axis=0) for part in np.split(pi, step[:-1].astype(int))]) if len(pi) else pi
    return tuple(Series(arm, step, parts[:, a]) for a, arm in enumerate(arms))


def _least(found: Found) -> Series:
    each = np.where(found.eligible, found.pi, np.inf).min(axis=1, initial=np.inf)
    step = _steps(len(each), _WINDOWS)
    parts = np.array([part.min() for part in np.split(each, step[:-1].astype(int))]) if len(each) else each
    return Series("this policy", step, parts)


def _steps(n: int, points: int) -> Array:
    return np.unique(np.linspace(0, n, min(points, n) + 1)[1:].astype(int)).astype(float)
