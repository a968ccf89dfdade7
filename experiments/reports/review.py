"""Review of one policy on the ledger of a live service: fifteen questions, answered in the order a reviewer asks.

Everything is computed before; here it is put together. A log that cannot answer says so in every answer that would need
it.
"""

import numpy as np

from bandit.arrays import Array
from experiments.inference.support import sentence
from experiments.inference.wording import against, capital, number
from experiments.ope.evaluate import Estimate
from experiments.promotion.lift_monitor import HOLDOUT
from experiments.reports import review_sections as parts
from experiments.reports.report import Report, ReportAnswer, ReportCurve, ReportSeries
from experiments.reports.review_sections import ReviewFindings, ReviewSubject

__all__ = ["ReviewFindings", "ReviewSubject", "build"]


def build(about: ReviewSubject, found: ReviewFindings) -> Report:
    """The report of a review. Metrics are those a reviewer sorts by, left out where the log cannot answer; lifts are in
    percentage points if rewards are yes or no, net values in the app's currency; series have at most 300 points.
    """
    regret, shares, least = (
        parts.regret(found),
        parts.mean_shares(about.arms, found.pi),
        parts.least_propensities(found),
    )
    lift = found.reward.contrasts.get("none")
    gain = parts.net_gain(about, found)
    champion = found.net.contrasts.get(about.champion)
    money = parts.first_sentence(about, gain, champion, found.net.n, found.monitored.silent)
    first = f"{about.algorithm} at {about.app}/{about.stage}, {about.kind}: {money}; gate: {found.verdict.decision}."
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
        "loss": f"{100.0 * about.loss.declared:g}%" if about.loss else "none",
    }
    return Report(
        title=f"{about.algorithm} at {about.app}/{about.stage}",
        verdict=first,
        policy=about.algorithm,
        experiment=f"{about.app}-{about.stage}",
        facts=facts,
        metrics=_metrics(about, found, lift, champion),
        tables=(),
        curves=(ReportCurve("Regret by its own model", f"{about.currency}, cumulative", regret, "regret"),),
        shares=shares,
        propensities=found.rounds.pscore,
        floor=about.floor,
        command=about.command,
        answers=_answers(about, found, regret, shares, least),
        extra=(("propensity/min", least),),
        conversions=parts.conversion_sentence(about, lift, gain, found.reward.n),
        loss=parts.loss_sentences(about),
        currency=about.currency,
    )


def _metrics(
    about: ReviewSubject, found: ReviewFindings, lift: Estimate | None, champion: Estimate | None
) -> dict[str, float]:
    scale, lifted, earned = (100.0, "lift_pp", "dr_pct") if about.binary else (1.0, "lift", "dr")
    d, first = found.reward.diagnostics, parts.default_estimate(found.reward)
    gain = parts.net_gain(about, found)
    metrics = {
        **(gain.metrics if gain else {}),
        **_estimate_metrics(
            None if about.champion == "none" else champion, 1.0, ("vs_champ", "champ_lcb", "champ_ucb")
        ),
        **_estimate_metrics(lift, scale, (lifted, "lift_lcb", "lift_ucb")),
        **_reward_metrics(about, found.rounds.reward),
        **_estimate_metrics(first, scale, (earned, "dr_lcb", "dr_ucb")),
        **parts.loss_metrics(about),
        "ess": d["ess"],
        "max_w": d["max_weight"],
        "min_prop": float(np.where(found.eligible, found.pi, np.inf).min(initial=np.inf)),
        "n": float(found.reward.n),
        "n_holdout": float(found.reward.holdout),
        "alarms": float(len(about.alarms)),
        "moved_pct": 100.0 * found.diff.moved if found.diff else np.nan,
    }
    return {k: float(f"{v:.4g}") for k, v in metrics.items() if np.isfinite(v)}


def _reward_metrics(about: ReviewSubject, reward: Array) -> dict[str, float]:
    """How many decisions had a reward, and the mean reward where it is not yes or no."""
    if not len(reward):
        return {}
    conversion = {"conv_pct": 100.0 * float((reward != 0.0).mean())}
    return conversion if about.binary else {**conversion, "mean_reward": float(reward.mean())}


def _unit_phrase(found: ReviewFindings) -> str:
    return f", in {found.reward.units:,} groups of users" if found.reward.by_user else ""


def _holdout_notes(found: ReviewFindings) -> list[str]:
    """A sentence about the assignment of users to the holdout, if its shares are not those declared; else nothing."""
    lift = found.monitored.lift
    note = lift.shares and lift.shares.note(lift.diagnostics["propensity_evidence"])
    return [f"holdout: {note}"] if note else []


def _estimate_metrics(e: Estimate | None, scale: float, names: tuple[str, str, str]) -> dict[str, float]:
    if e is None:
        return {}
    low, high = e.sequence or e.interval
    return dict(zip(names, (scale * e.value, scale * low, scale * high), strict=True))


def _answers(
    about: ReviewSubject,
    found: ReviewFindings,
    regret: tuple[ReportSeries, ...],
    shares: tuple[ReportSeries, ...],
    least: ReportSeries,
) -> tuple[ReportAnswer, ...]:
    """The fifteen answers, in the order of the questions."""
    silent = _silent(found)
    return (
        *_value_answers(about, found),
        *_estimate_answers(about, found, silent),
        *_behavior_answers(about, found, regret, shares, least),
        *_safety_answers(about, found),
        *_operation_answers(about),
    )


def _silent(found: ReviewFindings) -> str:
    """Sentence that the log cannot say, and why it was refused."""
    refused = parts.reasons(found.reward.refused)
    return f"The log cannot say: {refused}." if refused else "The log cannot say."


def _unknown(found: ReviewFindings, champion: str) -> str:
    """Sentence that there is no difference from `champion`, and why."""
    why = parts.reasons(found.monitored.silent)
    if champion != "none" or not why or found.reward.refused:
        return _silent(found)
    return f"The log cannot say what no nudge earns: {why}."


def _value_answers(about: ReviewSubject, found: ReviewFindings) -> tuple[ReportAnswer, ...]:
    """Questions 1 to 4: what the policy is, and whether it is better than no nudge and than what is served."""
    held = found.monitored.lift.contrasts.get(HOLDOUT)
    champion = found.net.contrasts.get(about.champion)
    lift, gain = found.reward.contrasts.get("none"), parts.net_gain(about, found)
    unknown = _unknown(found, "none")
    return (
        ReportAnswer(
            "What is this policy, and which stage?",
            f"{about.algorithm} ({about.settings}) for {about.app}/{about.stage}; arms {', '.join(about.arms)}; "
            f"floor {about.floor:g}; it has learned {about.version:,} settlements of the ledger.",
        ),
        ReportAnswer(
            "Is it better than no nudge, by how much, how sure?",
            (
                f"Net of costs: {gain.sentence}. "
                f"{parts.conversion_sentence(about, lift, gain, found.reward.n)}".rstrip()
                if gain
                else unknown
            ),
            (parts.holdout(about, held, found.control, found.exposed),),
        ),
        ReportAnswer(
            "Is it better than what is served today, or not distinguishable?",
            f"{capital(against(champion.over(found.net.n), about.champion, parts.per_decision(about)))}, net of costs."
            if champion
            else f"Compared with {about.champion}. {_unknown(found, about.champion)}",
            found.diff.tables(about.currency) if found.diff else (),
            note=found.diff.sentence(about.currency) if found.diff else "There is no earlier version to compare with.",
        ),
        ReportAnswer(
            "How many decisions, how many seeds?",
            f"{found.reward.n:,} decisions whose reward is known{_unit_phrase(found)}; "
            f"{found.reward.holdout:,} more in the holdout. Live traffic has one history, so there is one seed.",
        ),
    )


def _estimate_answers(about: ReviewSubject, found: ReviewFindings, silent: str) -> tuple[ReportAnswer, ...]:
    """Questions 5 and 6: what the off-policy estimates say, and whether they can be trusted."""
    estimates, d = parts.estimates(about, found), found.reward.diagnostics
    support, unsaid = parts.support(about, found.reward), sentence(found.reward.support, about.arms)
    return (
        ReportAnswer(
            "What do off-policy estimates say, do they agree?",
            parts.agreement(found.net, parts.per_decision(about)) if found.net.estimates else silent,
            (estimates,) if estimates.rows else (),
            forest=parts.forest(found.net),
            unit=f"net value, {parts.per_decision(about)}",
        ),
        ReportAnswer(
            "Can the estimates be trusted: sample size, weights, overlap?",
            f"The weights are worth {d['ess']:,.0f} of {found.reward.n:,} decisions; the largest is "
            f"{d['max_weight']:.1f}; {parts.never_drawn(found.reward)}"
            + (f". {silent}" if found.reward.refused else ".")
            + (f" {unsaid}." if unsaid else ""),
            (support,) if support.rows else (),
            histogram=("propensity of what was shown", found.rounds.pscore),
            note=capital("; ".join([*found.reward.notes, *_holdout_notes(found)])),
        ),
    )


def _behavior_answers(
    about: ReviewSubject,
    found: ReviewFindings,
    regret: tuple[ReportSeries, ...],
    shares: tuple[ReportSeries, ...],
    least: ReportSeries,
) -> tuple[ReportAnswer, ...]:
    """Questions 7 to 9: regret, arm shares and exploration along the log."""
    return (
        ReportAnswer(
            "Is regret flattening?",
            "The truth is not known on live traffic: this is what the policy's own model says was lost against its own "
            "best arm. A simulated run of the same app shows the true one.",
            lines=(f"{about.currency}, cumulative", regret),
        ),
        ReportAnswer(
            "What does it do over time?",
            parts.over_time(shares),
            (parts.arms(about, found),),
            stack=shares,
        ),
        ReportAnswer(
            "Does it still explore, is the floor kept?",
            f"The least probability of an eligible nudge is {number(float(least.value.min(initial=np.inf)), '.4f')}; "
            f"the floor is {about.floor:g}.",
            lines=("least probability", (least,)),
        ),
    )


def _safety_answers(about: ReviewSubject, found: ReviewFindings) -> tuple[ReportAnswer, ...]:
    """Questions 10 to 12: harm to segments, the data, and the gate."""
    worst = list(found.segments.items())
    return (
        ReportAnswer(
            "Is any segment harmed?",
            parts.harmed(worst, about.champion, parts.per_decision(about))
            if worst
            else _unknown(found, about.champion),
            tuple(parts.segment_table(name, s, about) for name, s in worst),
        ),
        ReportAnswer(
            "On which data, is it the right data?",
            f"{about.data}; {about.window}; sha256 {about.data_sha256[:16]}…; drift alarms: "
            f"{'; '.join(about.alarms) or 'none'}.",
        ),
        ReportAnswer(
            "Are guardrails and the gate passed?",
            f"Gate: {found.verdict.decision}. {capital('; '.join(found.verdict.reasons))}.",
            note=f"The rule: {about.rule}.",
        ),
    )


def _operation_answers(about: ReviewSubject) -> tuple[ReportAnswer, ...]:
    """Questions 13 to 15: how to reproduce the policy, what is live, and how to roll back."""
    return (
        ReportAnswer(
            "Is it reproducible: code, seed, environment?",
            f"{about.git}; belief {about.belief_sha256[:16]}…, policy.json {about.policy_sha256[:16]}…, salt id "
            f"{about.salt_id[:16]}…. The belief is an exact sum: `journey-bandit rebuild --verify` proves it.",
            code=about.command,
        ),
        ReportAnswer("What is live, since when, who approved it, why?", about.live),
        ReportAnswer("How do I roll back, and to what?", about.rollback),
    )
