"""Sections of a review: the facts and findings that a review is given, and the functions that turn them into words,
tables and drawings. Pure.

Shapes: n rounds outside the holdout whose rewards are known, k arms.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.catalogue.net_value import ArmWorth
from bandit.learning.loss_statement import LossStatement
from experiments.data.rounds import LoggedRounds
from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import Interval, mean
from experiments.inference.money import NetGain
from experiments.inference.segments import SegmentEffects
from experiments.inference.support import least_words, name_of
from experiments.inference.wording import against, bounds, capital, disagreement, estimate, in_words, number, places
from experiments.ope import evaluate
from experiments.ope.evaluate import Estimate, Evaluation
from experiments.promotion.lift_monitor import LiftReport
from experiments.promotion.verdict import PromotionVerdict
from experiments.reports.policy_diff import PolicyDiff
from experiments.reports.report import POINTS, ReportBar, ReportRow, ReportSeries, ReportTable

_WINDOWS = 40  # points of a series of shares
_STEADY = 5.0  # points by which a share may move and is still called steady


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
    as_of: str = ""  # when the page was written, ISO 8601: what changes later is stated as of then
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
    worth: ArmWorth | None = None  # of the arms; None: not given, no money by arm is shown
    daily: float | None = None  # decisions a day outside the holdout; None: the log is too short to tell


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
                least_words(arm),
                f"{100 * arm.share:.1f} %",
            ),
        )
        for arm in asked
    )
    note = "; ".join(f"{name_of(arm.arm, about.arms)}: {arm.why}" for arm in asked if arm.why)
    head = ("the log", "worth, decisions", "least probability", "chosen")
    what = "Decisions of each nudge in the log, what they are worth, the least probability with which it could be shown"
    note = f"{what}, and how often the policy would. {note}".rstrip(" .") + "."
    return ReportTable("Support of each nudge", head, rows, note)


def net_gain(about: ReviewSubject, found: ReviewFindings) -> NetGain | None:
    """Net gain of the policy over no nudge; None if the log cannot say, of this policy or of no nudge."""
    if found.monitored.silent:
        return None
    return evaluate.net_gain(found.net.contrasts.get("none"), found.net.n, found.daily, about.currency)


def first_sentence(
    about: ReviewSubject, gain: NetGain | None, champion: Estimate | None, n: int, silent: Sequence[Refusal] = ()
) -> str:
    """The first sentence of a review, in currency net of costs: the policy against no nudge, a decision and a month,
    with the risk and what more data would bring; then against what it would replace. `silent`: why the log cannot say
    what no nudge earns.
    """
    unit = per_decision(about)
    why = f", {reasons(silent)}" if silent else ""
    over_none = f"{against(None, 'no nudge', unit)}{why}" if gain is None else gain.sentence
    if about.champion == "none":
        return over_none
    return f"{over_none}; {against(champion and champion.over(n), about.champion, unit)}"


def reasons(refusals: Sequence[Refusal]) -> str:
    """Reasons of refusals, in words."""
    return "; ".join(f"{refusal.reason}: {refusal.detail}" for refusal in refusals)


def per_decision(about: ReviewSubject) -> str:
    """Unit of money in a review: currency per decision."""
    return f"{about.currency} per decision".strip()


def conversion_sentence(about: ReviewSubject, lift: Estimate | None, gain: NetGain | None = None, n: int = 0) -> str:
    """The small print below the first sentence: the difference in rewards to no nudge, costs left out; in points if
    rewards are yes or no; "" if the log cannot say. Where it disagrees with the money, it says so. It has no
    verdict of its own: more rewards may cost more than they bring.
    """
    if lift is None:
        return ""
    scale, what = (100.0, "Conversions") if about.binary else (1.0, "Rewards")
    over = lift.over(n)
    split = disagreement(gain.over if gain else None, over, about.currency, binary=about.binary)
    if split:
        return f"{capital(split)}, against no nudge."
    return f"{what}, costs left out: {estimate(over, reward_unit(about), scale=scale)} against no nudge."


def default_estimate(evaluation: Evaluation) -> Estimate | None:
    """The estimate that counts: the first of the evaluation; None if the log cannot answer."""
    return next(iter(evaluation.estimates.values()), None)


def reward_unit(about: ReviewSubject) -> str:
    """Unit of a lift in rewards: "points" if rewards are yes or no, else "units of reward"."""
    return "points" if about.binary else "units of reward"


def agreement(evaluation: Evaluation, unit: str) -> str:
    """A sentence on whether the unbiased estimators agree, in `unit`. The evaluation has to have estimates."""
    first = default_estimate(evaluation)
    assert first is not None  # noqa: S101 - the caller looked
    values = [e.value for e in evaluation.estimates.values() if not e.biased]
    low, high = first.interval
    inside = sum(low <= v <= high for v in values)
    digits = f".{places(max(abs(first.value - low), abs(high - first.value)))}f"
    return (
        f"{len(values)} estimators without a bias by design lie between {number(min(values), digits)} and "
        f"{number(max(values), digits)} {unit}, net of costs; {inside} of them inside the interval of the first."
    )


def never_drawn(found: Evaluation) -> str:
    """A clause on the share of a policy's choices that the log could never show: of rounds, or of whole arms."""
    absent = math.fsum(arm.share for arm in found.support if arm.answer != "not asked" and np.isnan(arm.least))
    share = max(float(found.diagnostics["unsupported"]), absent)
    if share == 0.0:
        return "each of its choices could be drawn"
    return f"{f'{100 * share:.2f}' if share >= 1e-4 else 'below 0.01'} % of its choices could never be drawn"


def over_time(shares: tuple[ReportSeries, ...]) -> str:
    """Sentences on what a policy shows, from the first tenth of the log to the last: the arm that it shows most, the
    one whose share moves most, and that is said to be steady where nothing moves by `_STEADY` points or more. `shares`:
    mean probability of each arm along the log.
    """
    if not shares or not len(shares[0].value):
        return "The log has no decision to say it of."
    tenth = max(len(shares[0].value) // 10, 1)
    ends = {one.name: (one.value[:tenth].mean(), one.value[-tenth:].mean()) for one in shares}
    most = max(ends, key=lambda name: ends[name][1])
    moves = max(ends, key=lambda name: abs(ends[name][1] - ends[name][0]))
    said = f"In the last tenth of the log it shows {_arm(most)} most, in {100 * ends[most][1]:.1f} % of decisions"
    by = 100.0 * (ends[moves][1] - ends[moves][0])
    if abs(by) < _STEADY:
        return f"{said}. It is steady: no share moves by {_STEADY:g} points from the first tenth to the last."
    first, last = (100.0 * share for share in ends[moves])
    which = "That share moves most" if moves == most else f"The share of {_arm(moves)} moves most"
    return f"{said}. {which}, from {first:.1f} % in the first tenth to {last:.1f} %."


def _arm(name: str) -> str:
    return "no nudge" if name == "none" else name


def harmed(found: Sequence[tuple[str, SegmentEffects]], champion: str, unit: str) -> str:
    """A sentence on who is surely harmed against `champion`, and on the worst segment, in `unit`. `found`: (feature,
    effects), one at least.
    """
    worst = min((s.worst for _, s in found), key=lambda w: w.shrunk.value)
    hurt = [h.name for _, s in found for h in s.hurt]
    surely = f"Surely harmed: {', '.join(hurt)}." if hurt else "Nobody is surely harmed."
    said = f"{estimate(worst.shrunk, unit)} against {champion} (shrunk), from {worst.joint.n:,} decisions"
    return f"{surely} The worst is {worst.name}: {said}."


# -- tables and drawings -----------------------------------------------------------------------------------------


def holdout(about: ReviewSubject, held: Estimate | None, control: int = 0, exposed: int = 0) -> ReportTable:
    """Table of what was served against the control group, in currency per decision.

    `held`: the contrast with the holdout, None if the log cannot answer. `control`: decisions of the holdout;
    `exposed`: those of people who had been shown nudges before, which the note explains.
    """
    cell = "–" if held is None else estimate(Interval(held.value, *held.interval, 0), "")
    row = ReportRow("what was served, less the holdout", (cell,))
    note = (
        f"Measured{about.as_of and f', as of {about.as_of}'}, whatever the policy: people of the holdout get no nudge."
    )
    if exposed:
        note += (
            f" Of its {control:,} decisions, {exposed:,} ({exposed / control:.1%}) were of people who had been shown"
            " nudges before they came into the holdout (it grew, or ids were joined): the difference is understated by"
            " as much as those still work."
        )
    return ReportTable("Against the holdout", (f"net value, {about.currency}/decision [95 %]",), (row,), note)


def estimates(about: ReviewSubject, found: ReviewFindings) -> ReportTable:
    """Table of every estimator's value with its interval, the unbiased ones first: money net of costs, then rewards."""
    scale, digits = (100.0, ".1f") if about.binary else (1.0, ".4g")
    net, reward = found.net.estimates, found.reward.estimates
    rows = tuple(
        ReportRow(
            estimator_label(name, e),
            (
                estimate(Interval(e.value, *e.interval, 0), ""),
                in_words(Interval(reward[name].value, *reward[name].interval, 0), digits, scale=scale)
                if name in reward
                else "–",
            ),
        )
        for name, e in sorted(net.items(), key=lambda pair: pair[1].biased)
    )
    note = "Biased by design: the interval includes the bias, by that of the first estimator."
    marked = any(e.biased for e in net.values())
    head = (f"net value, {about.currency}/decision [95 %]", f"reward{', %' if about.binary else ''} [95 %]")
    return ReportTable("What it would have earned", head, rows, note if marked else "")


def estimator_label(name: str, estimate: Estimate) -> str:
    """An estimator's name, marked where the estimator is biased by design."""
    return f"{name}, biased" if estimate.biased else name


def forest(evaluation: Evaluation) -> tuple[ReportBar, ...]:
    """Bars of a forest plot: the same estimates as in the table, and what the holdout really earned, in the unit of the
    evaluation.
    """
    bars = [
        ReportBar(estimator_label(name, e), e.value, *e.interval)
        for name, e in sorted(evaluation.estimates.items(), key=lambda pair: pair[1].biased)
    ]
    if evaluation.control:
        bars.append(ReportBar("holdout, measured", evaluation.control.value, *evaluation.control.interval))
    return tuple(bars)


def segment_table(name: str, found: SegmentEffects, about: ReviewSubject) -> ReportTable:
    """Table of lifts over the champion by the values of one feature, in currency: shrunk, with 95 % and joint
    intervals.
    """
    rows = tuple(
        ReportRow(
            s.name,
            (estimate(s.shrunk, ""), bounds(s.joint.low, s.joint.high, f"+.{digits}f"), f"{s.joint.n:,}"),
        )
        for s in found.segments
        for digits in [places(max(abs(s.joint.low - s.joint.value), abs(s.joint.high - s.joint.value)))]
    )
    head = (f"net over {about.champion}, {about.currency}/decision [95 %]", "all segments at once [95 %]", "decisions")
    return ReportTable(f"By {name}", head, rows)


def arms(about: ReviewSubject, found: ReviewFindings) -> ReportTable:
    """Table of arms: what decisions brought in which each was shown, in money net of costs; share of decisions in which
    each was shown, share the policy would show, mean reward.
    """
    r, worth = found.rounds, found.worth
    scale, digits, rewarded = (100.0, ".2f", "reward, %") if about.binary else (1.0, ".4g", "mean reward")
    n = max(len(r.action), 1)
    net = r.reward if worth is None else worth.net(r.reward, r.action)
    rows = []
    for a, arm in enumerate(about.arms):
        mine = r.action == a
        earned = estimate(mean(net[mine]), "") if mine.any() and worth is not None else "–"
        reward = number(scale * float(r.reward[mine].mean()), digits) if mine.any() else "–"
        would = f"{100 * found.pi[:, a].mean():.1f} %" if len(found.pi) else "–"
        rows.append(ReportRow(arm, (earned, f"{100 * mine.sum() / n:.1f} %", would, reward)))
    head = (f"net value, {about.currency}/decision [95 %]", "was shown", "would show", rewarded)
    note = "Net value and reward of the decisions that showed it, whoever they were: not what it would bring to others."
    return ReportTable("Nudges", head, tuple(rows), note)


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
