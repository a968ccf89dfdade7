"""Overview page: the stages of the journey in order, each with its counts, its audit by the holdout and its alarms."""

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

from api.components import CatalogueParts
from api.console.ledger_counts import ArmCounts, CountProgress, LedgerCounts, StageCounts
from api.console.lift_reports import StageLift
from api.console.rendering import worth
from api.decisions.service import DecisionService
from api.messages.decisions import PolicyReply
from api.operations.guardrail_watch import followed_by
from bandit.catalogue.model import Stage
from bandit.guardrails import DAY
from bandit.learning.holdout_audit import HoldoutAudit


class StageCard(NamedTuple):
    """Stage as the overview shows it: counts of all arms together, decisions of this day (UTC), mean reward with its
    worth in the app's currency (None where a unit is worth one), and what somebody should look at (`alarms`) or know
    (`notes`). `lift`: the newest lift report, None before any.
    """

    name: str
    spec: Stage
    counts: StageCounts
    whole: ArmCounts
    today: int
    worth: float | None
    audit: HoldoutAudit | None
    lift: StageLift | None
    policy: PolicyReply
    alarms: list[str]
    notes: list[str]


class OverviewPage(NamedTuple):
    """Overview: a card for each stage, how far the ledger is counted, and the age of the oldest audit in seconds (None
    before any).
    """

    cards: list[StageCard]
    progress: CountProgress
    audited: float | None


def overview(parts: CatalogueParts, counts: LedgerCounts, lifts: Mapping[str, StageLift], now: int) -> OverviewPage:
    """Overview of one service at `now` (µs). It counts what is new, and reads no more of the ledger; any thread."""
    progress = counts.catch_up()
    audits, age = counts.audits()
    cards = [
        stage_card(name, spec, parts.service, counts.stage(name), audits.get(name), lifts.get(name), now)
        for name, spec in parts.catalogue.stages.items()
    ]
    ages = [age] if age is not None else [card.lift.age for card in cards if card.lift is not None]
    return OverviewPage(cards, progress, max(ages, default=None))


def stage_card(
    name: str,
    spec: Stage,
    service: DecisionService,
    counts: StageCounts,
    audit: HoldoutAudit | None,
    lift: StageLift | None,
    now: int,
) -> StageCard:
    """Card of one stage at `now` (µs). Without an `audit`, that of the lift report is shown."""
    policy, total = service.policy(name), counts.whole
    amount = None if spec.reward.value == 1.0 else worth(total.mean_reward, spec.reward)
    today = sum(counts.days.get(now // DAY, {}).values())
    alarms, notes = [*_alarms(policy), *_of_lift(lift)], _notes(spec, policy)
    told = lift.report.people if lift is not None and lift.report is not None else None
    return StageCard(name, spec, counts, total, today, amount, audit or told, lift, policy, alarms, notes)


def _of_lift(lift: StageLift | None) -> list[str]:
    if lift is None or lift.report is None:
        return []
    return [
        f"Version {version} does not show nudges as often as it drew them: something between this service and people"
        " changes what they see."
        for version in lift.report.routing.alarms
    ]


def _alarms(policy: PolicyReply) -> list[str]:
    found = [
        f"Key “{one.reporter}” reports more rewards for “{one.arm}” than were usual, since {_minute(one.raised_at)}."
        + (" What it reports is not learned meanwhile." if one.held else "")
        for one in policy.reward_alarms
        if one.acknowledged is None
    ]
    found += [
        f"Budget of “{one.nudge}” is used up until {_minute(one.period_ends_at)}."
        for one in policy.budgets
        if one.left <= 0.0
    ]
    found += [
        f"Guardrail: {one.bad} of {one.decisions} decisions with “{one.nudge}” were followed by {followed_by(one.of)};"
        f" at most {100 * one.at_most:.3g} % is declared."
        for one in policy.guardrails
        if one.raised
    ]
    found += [f"Alarm “{one.alarm}”: {one.seen}." for one in policy.alarms if one.raised]
    return found


def _notes(spec: Stage, policy: PolicyReply) -> list[str]:
    paused = [name for name, nudge in spec.nudges.items() if nudge.paused]
    found = [f"Paused in the catalogue: {', '.join(paused)}."] if paused else []
    found += [
        f"“{one.nudge}” is stopped: {one.who}: {one.reason}"
        if one.nudge
        else f"Everything is stopped: {one.who}: {one.reason}"
        for one in policy.paused
    ]
    if policy.drift:
        last = policy.drift[-1]
        way = "better" if last.direction == "up" else "worse"
        found.append(
            f"Drift: rewards of “{last.arm}” became {way} than expected, noticed {_minute(last.raised_at)};"
            " what was learned before weighs less since."
        )
    return found


def _minute(when: dt.datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
