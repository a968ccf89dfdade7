"""What a review is made of: the facts and findings it is given, and their words, tables and drawings. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from experiments.data.rounds import LoggedRounds
from experiments.inference.segments import SegmentSums
from experiments.ope.evaluate import Estimate, Evaluation
from experiments.promotion.lift_monitor import LiftReport
from experiments.promotion.verdict import PromotionVerdict
from experiments.reports.policy_diff import PolicyDiff
from experiments.reports.report import POINTS, ReportBar, ReportRow, ReportSeries, ReportTable

_WINDOWS = 40  # points of a series of shares


class ReviewSubject(NamedTuple):
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


class ReviewFindings(NamedTuple):
    """What was computed. `pi` (n, k): what the policy would do on the rounds; `value` (n, k): modelled net values."""

    rounds: LoggedRounds  # outside the holdout, rewards known
    eligible: NDArray[np.bool_]  # (n, k)
    pi: Array
    value: Array
    reward: Evaluation
    net: Evaluation
    monitored: LiftReport
    segments: Mapping[str, SegmentSums]
    verdict: PromotionVerdict
    diff: PolicyDiff | None
    control: int = 0  # decisions of the holdout
    exposed: int = 0  # those whose person had been shown nudges before


def first(about: ReviewSubject, lift: Estimate | None, champion: Estimate | None) -> str:
    """Against what it would replace, then against no nudge."""
    scale = 100.0 if about.binary else 1.0
    over_none = against(lift, "no nudge", unit(about), scale)
    if about.champion == "none":
        return over_none
    return f"{against(champion, about.champion, f' {about.currency} per decision', 1.0)}; {over_none}"


def default(evaluation: Evaluation) -> Estimate | None:
    """The estimate that counts: the first."""
    return next(iter(evaluation.estimates.values()), None)


def unit(about: ReviewSubject) -> str:
    """Of a lift in rewards."""
    return " points" if about.binary else ""


def against(e: Estimate | None, other: str, unit: str, scale: float) -> str:
    """Better, worse or not distinguishable, by how much, how sure."""
    if e is None:
        return f"not compared with {other}: the log cannot say"
    low, high = e.sequence or e.interval
    word = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    return f"{word} {other}, {scale * e.value:+.3g}{unit} [{scale * low:+.3g}, {scale * high:+.3g}]"


def number(value: float) -> str:
    """A probability, or that there is none."""
    return f"{value:.4f}" if np.isfinite(value) else "not known"


def agreement(evaluation: Evaluation, scale: float, unit: str) -> str:
    """Whether estimators agree."""
    first = default(evaluation)
    assert first is not None  # noqa: S101 - the caller looked
    values = [e.value for e in evaluation.estimates.values() if not e.biased]
    low, high = first.interval
    inside = sum(low <= v <= high for v in values)
    return (
        f"{len(values)} estimators without a bias by design lie between {scale * min(values):.3g} and "
        f"{scale * max(values):.3g}{unit and ' %'}; {inside} of them inside the interval of the first."
    )


def harmed(found: Sequence[tuple[str, SegmentSums]], champion: str) -> str:
    """Who is surely harmed, and the worst segment."""
    worst = min((s.worst for _, s in found), key=lambda w: w.shrunk.value)
    hurt = [h.name for _, s in found for h in s.hurt]
    surely = f"Surely harmed: {', '.join(hurt)}." if hurt else "None surely."
    said = f"{worst.shrunk.value:+.3g} against {champion} (shrunk), n {worst.joint.n:,}"
    return f"{surely} The worst is {worst.name}: {said}."


# -- tables and drawings -----------------------------------------------------------------------------------------


def holdout(about: ReviewSubject, held: Estimate | None, control: int = 0, exposed: int = 0) -> ReportTable:
    """What was served against the control group."""
    cells = (
        ("–", "–") if held is None else (f"{held.value:+.3f}", f"[{held.interval[0]:+.3f}, {held.interval[1]:+.3f}]")
    )
    row = ReportRow("what was served, less the holdout", cells)
    note = "Measured, whatever the policy: people of the holdout get no nudge."
    if exposed:
        note += (
            f" Of its {control:,} decisions, {exposed:,} ({exposed / control:.1%}) were of people who had been shown"
            " nudges before their ids were joined: the difference is understated by as much as those still work."
        )
    return ReportTable("Against the holdout", (f"{about.currency}/decision", "95 %"), (row,), note)


def estimates(evaluation: Evaluation, scale: float) -> ReportTable:
    """Every estimator."""
    rows = tuple(
        ReportRow(
            labelled(name, e), (f"{scale * e.value:.3f}", f"[{scale * e.interval[0]:.3f}, {scale * e.interval[1]:.3f}]")
        )
        for name, e in sorted(evaluation.estimates.items(), key=lambda pair: pair[1].biased)
    )
    note = "Biased by design: the interval includes the bias, by that of the first estimator."
    marked = any(e.biased for e in evaluation.estimates.values())
    return ReportTable("What it would have earned", ("reward", "95 %"), rows, note if marked else "")


def labelled(name: str, estimate: Estimate) -> str:
    """An estimator's name, marked where it is biased by design."""
    return f"{name}, biased" if estimate.biased else name


def forest(evaluation: Evaluation, scale: float) -> tuple[ReportBar, ...]:
    """The same as bars, with what the holdout really earned."""
    bars = [
        ReportBar(labelled(name, e), scale * e.value, scale * e.interval[0], scale * e.interval[1])
        for name, e in sorted(evaluation.estimates.items(), key=lambda pair: pair[1].biased)
    ]
    if evaluation.control:
        c = evaluation.control
        bars.append(ReportBar("holdout, measured", scale * c.value, scale * c.interval[0], scale * c.interval[1]))
    return tuple(bars)


def segment_table(name: str, found: SegmentSums, about: ReviewSubject) -> ReportTable:
    """Lifts by the values of one feature."""
    rows = tuple(
        ReportRow(
            s.name,
            (f"{s.joint.n:,}", f"{s.shrunk.value:+.3f}", f"[{s.shrunk.low:+.3f}, {s.shrunk.high:+.3f}]",
             f"[{s.joint.low:+.3f}, {s.joint.high:+.3f}]"),
        )
        for s in found.segments
    )  # fmt: skip
    head = ("n", f"over {about.champion}, {about.currency}", "95 %", "joint")
    return ReportTable(f"By {name}", head, rows)


def arms(about: ReviewSubject, found: ReviewFindings) -> ReportTable:
    """What was shown, what would be, what it earned."""
    r = found.rounds
    n = max(len(r.action), 1)
    rows = []
    for a, arm in enumerate(about.arms):
        mine = r.action == a
        earned = f"{r.reward[mine].mean():.4f}" if mine.any() else "–"
        would = f"{100 * found.pi[:, a].mean():.1f} %" if len(found.pi) else "–"
        rows.append(ReportRow(arm, (f"{100 * mine.sum() / n:.1f} %", would, earned)))
    return ReportTable("Nudges", ("was shown", "would show", "mean reward"), tuple(rows))


def regret(found: ReviewFindings) -> tuple[ReportSeries, ...]:
    """Cumulative regret by the policy's own model, of three ways to decide."""
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
    step = steps(n, POINTS)
    return tuple(ReportSeries(name, step, np.cumsum(v)[step.astype(int) - 1]) for name, v in lines.items())


def windows(arms: Sequence[str], pi: Array) -> tuple[ReportSeries, ...]:
    """Mean probability of each arm along the log."""
    step = steps(len(pi), _WINDOWS)
    parts = np.array([part.mean(axis=0) for part in np.split(pi, step[:-1].astype(int))]) if len(pi) else pi
    return tuple(ReportSeries(arm, step, parts[:, a]) for a, arm in enumerate(arms))


def least(found: ReviewFindings) -> ReportSeries:
    """Least probability of an eligible arm along the log."""
    each = np.where(found.eligible, found.pi, np.inf).min(axis=1, initial=np.inf)
    step = steps(len(each), _WINDOWS)
    parts = np.array([part.min() for part in np.split(each, step[:-1].astype(int))]) if len(each) else each
    return ReportSeries("this policy", step, parts)


def steps(n: int, points: int) -> Array:
    """Up to `points` steps, the last one n."""
    return np.unique(np.linspace(0, n, min(points, n) + 1)[1:].astype(int)).astype(float)
