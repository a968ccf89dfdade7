"""Stage page: each nudge with what it did, what the live policy thinks of it, and why it was not shown."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from api.components import CatalogueParts
from api.console.charts import ChartDay, colours, shares
from api.console.ledger_counts import ACTION, ArmCounts, CountProgress, LedgerCounts
from api.console.lift_reports import StageLift
from api.console.overview import StageCard, stage_card
from api.messages.decisions import BudgetReply
from bandit import engine, features
from bandit.arrays import Array
from bandit.catalogue.model import Feature, Nudge, Stage
from bandit.engine import PreparedPolicy
from bandit.errors import InvalidRequest, NotFound, SnapshotError
from bandit.records import Release

SURE = 1.6448536269514722
"""Standard deviations on each side of a mean within which 90 % of a normal distribution lie."""

_VERSIONS = 4  # newest releases that the what-if compares

PREFIX = "f."
"""How names of features begin in the form of the what-if."""


class ArmOutlook(NamedTuple):
    """Outlook of an arm at one context: posterior mean of its reward with the ends of its 90 % interval, in the
    reward's own units, the probability that the policy's own sampling gives it (`best`), and the one with which it is
    drawn.
    """

    mean: float
    low: float
    high: float
    best: float
    propensity: float


class NudgeRow(NamedTuple):
    """Arm as the stage page shows it; `declared` None: no nudge, or one that is not declared any more. `paused`: what
    keeps it from being shown now, in a word or two; "" if nothing does. `share_of_eligible`: of the decisions that did
    not exclude it.
    """

    name: str
    colour: int
    declared: Nudge | None
    paused: str
    counts: ArmCounts
    share: float | None
    share_of_eligible: float | None
    outlook: ArmOutlook | None
    budget: BudgetReply | None


class ExclusionRow(NamedTuple):
    """How often an arm was excluded for a kind of reason, and of how many decisions that is which share."""

    arm: str
    kind: str
    times: int
    share: float


class WhatIf(NamedTuple):
    """Answer to a context that was typed: the outlook of each arm, notes of the encoder, or what is wrong with it.
    `versions`: probability of each arm by what was learned here so far and by the newest releases, each under its name.
    """

    outlooks: Mapping[str, ArmOutlook]
    versions: Mapping[str, Mapping[str, float]]
    notes: Sequence[str]
    problems: Sequence[str]


class StagePage(NamedTuple):
    """Stage page: its card, a row for each arm, exclusions, the chart of shares, the share of the traffic that its
    policy decides, the release that decides (None: what was learned so far), and the answer to a context that was typed
    (None: none was).
    """

    card: StageCard
    rows: list[NudgeRow]
    exclusions: list[ExclusionRow]
    days: list[ChartDay]
    traffic: float
    release: Release | None
    progress: CountProgress
    typed: Mapping[str, str]
    what_if: WhatIf | None


def stage_page(
    parts: CatalogueParts,
    counts: LedgerCounts,
    lift: StageLift | None,
    name: str,
    form: Mapping[str, str],
    now: int,
) -> StagePage:
    """Stage page of one service at `now` (µs); `form`: a context that was typed, by feature after PREFIX; `lift`: the
    stage's newest lift report. It counts what is new; any thread. Raises NotFound.
    """
    if name not in parts.catalogue.stages:
        raise NotFound("stage", f"no stage {name!r}", "choose one of the overview")
    spec = parts.worker.traffic.stage(name)
    progress = counts.catch_up()
    audits, _ = counts.audits()
    card = stage_card(name, spec, parts.service, counts.stage(name), audits.get(name), lift, now)
    live, paused = parts.worker.prepared[name], parts.worker.pauses.refused(name)
    typed = {key.removeprefix(PREFIX): text for key, text in form.items() if key.startswith(PREFIX) and text.strip()}
    return StagePage(
        card=card,
        rows=_rows(card, {} if spec.has_request_actions else _outlooks(live, _at_default(live), paused), paused),
        exclusions=_exclusions(card),
        days=shares(card.counts.days, _names(spec)),
        traffic=live.snapshot.stage_spec.traffic,
        release=parts.service.release(live.release) if live.release else None,
        progress=progress,
        typed=typed,
        what_if=what_if(live, versions(parts, name), typed, paused) if typed and not spec.has_request_actions else None,
    )


def versions(parts: CatalogueParts, stage: str) -> dict[str, PreparedPolicy]:
    """What might decide at a stage, by its name: what was learned here so far, and the newest releases in the ledger
    that fit the catalogue of today.
    """
    found, releases = {"learned so far": parts.worker.learning.prepared[stage]}, parts.worker.releases
    history = [kept for kept, _ in releases.history() if kept.stage == stage and kept.policy]
    newest = {f"{kept.model} {kept.version}": kept for kept in history}
    last = dict.fromkeys(f"{kept.model} {kept.version}" for kept in reversed(history))
    for name in list(last)[:_VERSIONS]:
        with contextlib.suppress(SnapshotError):  # the stage page says why what is released does not decide
            prepared = releases.prepare(newest[name])
            if prepared is not None:
                found[name] = prepared
    return found


def what_if(
    live: PreparedPolicy,
    others: Mapping[str, PreparedPolicy],
    typed: Mapping[str, str],
    paused: Collection[str] = (),
) -> WhatIf:
    """Answer to a context of texts, by feature, while operators have `paused` these nudges; `others`: what else might
    decide.
    """
    declared = live.snapshot.stage_spec.features
    context = {name: _value(declared.get(name), text.strip()) for name, text in typed.items()}
    try:
        x, notes = features.encode(live.schema, context)
    except InvalidRequest as error:
        return WhatIf({}, {}, (), [f"{one.field}: {one.problem}; {one.fix}" for one in error.problems])
    each = {name: _outlooks(other, features.encode(other.schema, context).x, paused) for name, other in others.items()}
    shares = {name: {arm: one.propensity for arm, one in outlooks.items()} for name, outlooks in each.items()}
    return WhatIf(_outlooks(live, x, paused), shares, notes, ())


def eligible(spec: Stage, paused: Collection[str] = ()) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Arms (k,) that may be drawn if nothing but the declaration, and operators who `paused` them, speak against it."""
    barred = {name for name, nudge in spec.nudges.items() if nudge.paused}.union(paused)
    return np.array([name not in barred for name in spec.arms])


def _at_default(live: PreparedPolicy) -> Array:
    return features.encode(live.schema, {}).x


def _outlooks(live: PreparedPolicy, x: Array, paused: Collection[str]) -> dict[str, ArmOutlook]:
    spec = live.snapshot.stage_spec
    may, span, least = eligible(spec, paused), spec.reward.max - spec.reward.min, spec.reward.min
    found, own = engine.choose(live, x, may), live.posterior.choose(x, may).propensity
    columns = (found.mean, found.sd, own, found.propensity)
    return {
        arm: ArmOutlook(
            least + span * mean, least + span * (mean - SURE * sd), least + span * (mean + SURE * sd), best, propensity
        )
        for arm, mean, sd, best, propensity in zip(spec.arms, *(part.tolist() for part in columns), strict=True)
    }


def _value(feature: Feature | None, text: str) -> object:
    if feature is not None and feature.type == "boolean":
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
    if feature is not None and feature.type == "number":
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _names(spec: Stage) -> tuple[str, ...]:
    return (ACTION,) if spec.has_request_actions else spec.arms


def _paused(nudge: Nudge | None, operators: bool) -> str:
    if operators:
        return "stopped"
    return "paused in the catalogue" if nudge is not None and nudge.paused else ""


def _rows(card: StageCard, outlooks: Mapping[str, ArmOutlook], paused: Collection[str]) -> list[NudgeRow]:
    names = [*_names(card.spec), *sorted(card.counts.arms.keys() - {*_names(card.spec)})]
    number, budgets = colours(names), {one.nudge: one for one in card.policy.budgets}
    total = card.whole.shown
    return [
        NudgeRow(
            name,
            number[name],
            card.spec.nudges.get(name),
            _paused(card.spec.nudges.get(name), name in paused),
            known := card.counts.arms.get(name, ArmCounts()),
            known.shown / total if total else None,
            known.shown / free if (free := total - known.excluded.total()) > 0 else None,
            outlooks.get(name),
            budgets.get(name),
        )
        for name in names
    ]


def _exclusions(card: StageCard) -> list[ExclusionRow]:
    total = card.whole.shown
    return [
        ExclusionRow(name, kind, times, times / total if total else 0.0)
        for name, arm in card.counts.arms.items()
        for kind, times in arm.excluded.most_common()
    ]
