"""Sections of a review: the facts and findings that a review is given, and the functions that turn them into words,
tables and drawings. Pure.

Shapes: n rounds outside the holdout whose rewards are known, k arms.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.learning.loss_statement import LossStatement
from experiments.data.rounds import LoggedRounds
from experiments.inference.segments import SegmentEffects
from experiments.inference.support import name_of
from experiments.inference.wording import bounds
from experiments.ope.evaluate import Estimate, Evaluation
from experiments.promotion.lift_monitor import LiftReport
from experiments.promotion.verdict import PromotionVerdict
from experiments.reports.policy_diff import PolicyDiff
from experiments.reports.report import POINTS, ReportBar, ReportRow, ReportSeries, ReportTable

_WINDOWS = 40  # points of a series of shares


class ReviewSubject(NamedTuple):
    """What is reviewed: facts in words, the same fields for every review. `currency` is a code such as EUR, `floor` a
    probability, digests are hexadecimal SHA-256.
    """

    app: str
    stage: str
    currency: str
    kind: str  # candidate or live
    algorithm: str  # tag of the policy
    settings: str  # hyperparameters in words
    arms: tuple[str, ...]  # k names
    floor: float
    version: int  # settlements learned
    belief_sha256: str
    policy_sha256: str
    salt_id: str  # hash of the service's salt
    champion: str  # what it is compared with
    rule: str  # the promotion rule in words
    data: str  # which decisions
    data_sha256: str
    window: str  # from … to
    alarms: tuple[str, ...]  # of drift
    live: str  # what is live, since when, who, why
    rollback: str  # how to roll back, and to what
    command: str  # makes the review again
    git: str  # commit of the code
    binary: bool  # rewards are yes or no: lifts in percentage points
    loss: LossStatement | None = None  # of what learns at the stage now; None: the stage bounds no loss
    unbounded: float | None = None  # of a policy that has no account of its own: the share of traffic it would decide


class ReviewFindings(NamedTuple):
    """What was computed for a review. `pi` (n, k): the probabilities of the policy on the rounds; `value` (n, k):
    modelled net values in currency.

    `reward`: the evaluation in units of rewards; `net`: the one in currency, net of costs; `monitored`: the live lift;
    `segments`: {feature: effects against the champion, in currency}; `diff`: against the version that is live, if there
    is one.
    """

    rounds: LoggedRounds  # outside the holdout, rewards known
    eligible: NDArray[np.bool_]  # (n, k)
    pi: Array
    value: Array
    reward: Evaluation
    net: Evaluation
    monitored: LiftReport
    segments: Mapping[str, SegmentEffects]
    verdict: PromotionVerdict  # of the promotion rule
    diff: PolicyDiff | None
    control: int = 0  # decisions of the holdout
    exposed: int = 0  # those whose person had been shown nudges before


def loss_sentences(about: ReviewSubject) -> tuple[str, ...]:
    """What learning may cost, what it has cost, and which traffic the policy decides and why, in the app's currency; ()
    where the stage bounds no loss.
    """
    own = (
        ()
        if about.unbounded is None
        else (
            "This snapshot carries no loss account of its own: once approved, it decides "
            f"{about.unbounded:.0%} of the traffic outside the holdout, whatever it costs, until it is rolled back.",
        )
    )
    if about.loss is None:
        return own
    may, has, decides = about.loss.in_words(about.currency)
    return may, has, f"What is learned live: {decides[0].lower()}{decides[1:]}" if own else decides, *own


def loss_metrics(about: ReviewSubject) -> dict[str, float]:
    """Figures of the loss account, in currency, the share in [0, 1]; none where there is none."""
    found = about.loss
    if found is None:
        return {}
    money = {"loss_budget": found.budget, "loss_spent": found.spent, "loss_left": found.left} if found.known else {}
    return {"loss_share": found.share, **money}


def support(about: ReviewSubject, found: Evaluation) -> ReportTable:
    """Table of what the log can say of each arm that the policy would choose; the note says what is missing."""
    asked = [arm for arm in found.support if arm.answer != "not asked"]
    rows = tuple(
        ReportRow(
            name_of(arm.arm, about.arms),
            (
                arm.answer,
                f"{arm.ess:,.0f}",
                "never" if np.isnan(arm.least) else f"{arm.least:.4f}",
                f"{100 * arm.share:.1f} %",
            ),
        )
        for arm in asked
    )
    note = "; ".join(f"{name_of(arm.arm, about.arms)}: {arm.why}" for arm in asked if arm.why)
    head = ("the log", "worth", "least p", "chosen")
    what = "Decisions of each nudge in the log, what they are worth, the least probability with which it could be shown"
    note = f"{what}, and how often the policy would. {note}".rstrip(" .") + "."
    return ReportTable("Support of each nudge", head, rows, note)


def first_sentence(about: ReviewSubject, net: Estimate | None, champion: Estimate | None) -> str:
    """The first sentence of a review, in currency per decision, net of costs: the policy against no nudge, then against
    what it would replace.
    """
    over_none = against(net, "no nudge", f" {about.currency} per decision net of costs", 1.0)
    if about.champion == "none":
        return over_none
    return f"{over_none}; {against(champion, about.champion, f' {about.currency} per decision', 1.0)}"


def conversion_sentence(about: ReviewSubject, lift: Estimate | None) -> str:
    """The small print below the first sentence: the difference in rewards to no nudge, costs left out; in points if
    rewards are yes or no; "" if the log cannot say. It has no verdict of its own: more rewards may cost more than they
    bring.
    """
    if lift is None:
        return ""
    scale, what = (100.0, "Conversions") if about.binary else (1.0, "Rewards")
    low, high = lift.sequence or lift.interval
    return (
        f"{what}, costs left out: {scale * lift.value:+.3g}{reward_unit(about)} "
        f"[{scale * low:+.3g}, {scale * high:+.3g}] against no nudge."
    )


def default_estimate(evaluation: Evaluation) -> Estimate | None:
    """The estimate that counts: the first of the evaluation; None if the log cannot answer."""
    return next(iter(evaluation.estimates.values()), None)


def reward_unit(about: ReviewSubject) -> str:
    """Unit of a lift in rewards: " points" if rewards are yes or no, else ""."""
    return " points" if about.binary else ""


def against(e: Estimate | None, other: str, unit: str, scale: float) -> str:
    """A contrast in words: better than, worse than or not distinguishable from `other`, with value and interval times
    `scale`, in `unit`. The confidence sequence is used where there is one.
    """
    if e is None:
        return f"not compared with {other}: the log cannot say"
    low, high = e.sequence or e.interval
    word = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    return f"{word} {other}, {scale * e.value:+.3g}{unit} [{scale * low:+.3g}, {scale * high:+.3g}]"


def number(value: float) -> str:
    """A probability with four digits, or "not known" if it is not finite."""
    return f"{value:.4f}" if np.isfinite(value) else "not known"


def agreement(evaluation: Evaluation, scale: float, unit: str) -> str:
    """A sentence on whether the unbiased estimators agree, values times `scale`. The evaluation has to have
    estimates.
    """
    first = default_estimate(evaluation)
    assert first is not None  # noqa: S101 - the caller looked
    values = [e.value for e in evaluation.estimates.values() if not e.biased]
    low, high = first.interval
    inside = sum(low <= v <= high for v in values)
    return (
        f"{len(values)} estimators without a bias by design lie between {scale * min(values):.3g} and "
        f"{scale * max(values):.3g}{unit and ' %'}; {inside} of them inside the interval of the first."
    )


def harmed(found: Sequence[tuple[str, SegmentEffects]], champion: str) -> str:
    """A sentence on who is surely harmed against `champion`, and on the worst segment. `found`: (feature, effects), one
    at least.
    """
    worst = min((s.worst for _, s in found), key=lambda w: w.shrunk.value)
    hurt = [h.name for _, s in found for h in s.hurt]
    surely = f"Surely harmed: {', '.join(hurt)}." if hurt else "None surely."
    said = f"{worst.shrunk.value:+.3g} against {champion} (shrunk), n {worst.joint.n:,}"
    return f"{surely} The worst is {worst.name}: {said}."


# -- tables and drawings -----------------------------------------------------------------------------------------


def holdout(about: ReviewSubject, held: Estimate | None, control: int = 0, exposed: int = 0) -> ReportTable:
    """Table of what was served against the control group, in currency per decision.

    `held`: the contrast with the holdout, None if the log cannot answer. `control`: decisions of the holdout;
    `exposed`: those of people who had been shown nudges before, which the note explains.
    """
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
    """Table of every estimator's value and interval, in rewards times `scale`, the unbiased ones first."""
    rows = tuple(
        ReportRow(
            estimator_label(name, e),
            (f"{scale * e.value:.3f}", f"[{scale * e.interval[0]:.3f}, {scale * e.interval[1]:.3f}]"),
        )
        for name, e in sorted(evaluation.estimates.items(), key=lambda pair: pair[1].biased)
    )
    note = "Biased by design: the interval includes the bias, by that of the first estimator."
    marked = any(e.biased for e in evaluation.estimates.values())
    return ReportTable("What it would have earned", ("reward", "95 %"), rows, note if marked else "")


def estimator_label(name: str, estimate: Estimate) -> str:
    """An estimator's name, marked where the estimator is biased by design."""
    return f"{name}, biased" if estimate.biased else name


def forest(evaluation: Evaluation, scale: float) -> tuple[ReportBar, ...]:
    """Bars of a forest plot: the same estimates as in the table, and what the holdout really earned, in rewards times
    `scale`.
    """
    bars = [
        ReportBar(estimator_label(name, e), scale * e.value, scale * e.interval[0], scale * e.interval[1])
        for name, e in sorted(evaluation.estimates.items(), key=lambda pair: pair[1].biased)
    ]
    if evaluation.control:
        c = evaluation.control
        bars.append(ReportBar("holdout, measured", scale * c.value, scale * c.interval[0], scale * c.interval[1]))
    return tuple(bars)


def segment_table(name: str, found: SegmentEffects, about: ReviewSubject) -> ReportTable:
    """Table of lifts over the champion by the values of one feature, in currency: shrunk, with 95 % and joint
    intervals.
    """
    rows = tuple(
        ReportRow(
            s.name,
            (f"{s.joint.n:,}", f"{s.shrunk.value:+.3f}", bounds(s.shrunk.low, s.shrunk.high),
             bounds(s.joint.low, s.joint.high)),
        )
        for s in found.segments
    )  # fmt: skip
    head = ("n", f"over {about.champion}, {about.currency}", "95 %", "joint")
    return ReportTable(f"By {name}", head, rows)


def arms(about: ReviewSubject, found: ReviewFindings) -> ReportTable:
    """Table of arms: share of decisions in which each was shown, share the policy would show, mean reward of those
    shown.
    """
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
    """Cumulative regret in currency by the policy's own model, of three ways to decide: what was shown, this policy, no
    nudge. Empty without rounds.
    """
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


def mean_shares(arms: Sequence[str], pi: Array) -> tuple[ReportSeries, ...]:
    """Mean probability of each arm along the log, in up to 40 windows: one series for each of the k arms; `pi` is (n,
    k).
    """
    step = steps(len(pi), _WINDOWS)
    parts = np.array([part.mean(axis=0) for part in np.split(pi, step[:-1].astype(int))]) if len(pi) else pi
    return tuple(ReportSeries(arm, step, parts[:, a]) for a, arm in enumerate(arms))


def least_propensities(found: ReviewFindings) -> ReportSeries:
    """Least probability of an eligible arm along the log, the minimum in each of up to 40 windows."""
    each = np.where(found.eligible, found.pi, np.inf).min(axis=1, initial=np.inf)
    step = steps(len(each), _WINDOWS)
    parts = np.array([part.min() for part in np.split(each, step[:-1].astype(int))]) if len(each) else each
    return ReportSeries("this policy", step, parts)


def steps(n: int, points: int) -> Array:
    """Up to `points` whole steps (p,) as floats, evenly spaced from above 0 to n; the last one is n. Empty if n is
    0.
    """
    return np.unique(np.linspace(0, n, min(points, n) + 1)[1:].astype(int)).astype(float)
