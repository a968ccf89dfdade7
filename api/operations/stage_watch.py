"""Stage watch: looks at the newest decisions and settlements of each stage that declares alarms, and says which alarms
are raised and what is to be done.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from api.messages.operations import StageAlarmReply
from api.operations.paused_nudges import PausedNudges
from api.stores.decision_log import DecisionRecord
from api.stores.protocol import Store
from bandit.alarms import eligible_share, exploration
from bandit.alarms.eligible_share import EligibleShare
from bandit.alarms.exploration import EffectiveArms
from bandit.alarms.silence import OutcomeGaps, Silence, silence
from bandit.arrays import Mask
from bandit.catalogue.limits import AlarmAction, CollapseAlarm, EligibleAlarm, SilenceAlarm, StageAlarms
from bandit.catalogue.model import Catalogue, Stage
from bandit.learning.rewards import in_force
from bandit.records import ALL_NUDGES, Decision, OperatorAction

WHO = "the stage's alarm"
"""Who an action is by that no person took."""

PAGE = 500
"""Settlements that one look takes in."""

MEMORY = 20_000
"""Newest settlements from which a service that starts learns how often outcomes come."""

_EVERY = 60_000_000  # µs between two looks at the newest decisions
_UNSHOWN = ("not activated", "holdout", "erased")


class StageAlarm(NamedTuple):
    """Alarm of a stage: its name, whether it is raised, what was seen, in words, and what is to be done."""

    name: str
    raised: bool
    words: str
    then: AlarmAction


class _Outcomes:
    """Matured decisions of one stage in the order in which their windows ended, as far as it is known: how many there
    are, and which of them had an outcome first and last.
    """

    def __init__(self) -> None:
        self.waiting = list[tuple[int, int, bool]]()  # (end of the window, order, whether it had an outcome)
        self.matured = self.answered = self.first = self.last = 0

    def until(self, now: int) -> None:
        while self.waiting and self.waiting[0][0] <= now:
            _, _, answered = heapq.heappop(self.waiting)
            self.matured += 1
            if answered:
                self.answered, self.last = self.answered + 1, self.matured
                self.first = self.first or self.matured

    @property
    def silence(self) -> Silence:
        gaps = OutcomeGaps(max(0, self.answered - 1), float(self.last - self.first))
        return silence(gaps, float(self.matured - self.last))


class StageWatch:
    """Watch over the stages of one app that declare alarms. `live(stage)`: number of the release that decides there, 0
    for none.

    Evidence begins anew when another release decides, and when the stage as a whole is paused or resumed: what is done
    at an alarm is done once. State is kept in memory, as of the ledger's newest rows. Threads: one calls `look`;
    `alarms` is replaced by one assignment, and read by any.
    """

    def __init__(
        self, store: Store, catalogue: Catalogue, pauses: PausedNudges, live: Callable[[str], int], scale: float = 1.0
    ):
        self._store, self._pauses, self._live = store, pauses, live
        self._stages = {name: stage for name, stage in catalogue.stages.items() if stage.alarms}
        self._digests = {name: stage.digest() for name, stage in self._stages.items()}
        self._every = max(1, round(_EVERY * scale))
        self._through, self._order, self._looked_at = -1, 0, -1
        self._epochs: dict[str, tuple[int, int]] = {}
        self._outcomes = {name: _Outcomes() for name in self._stages}
        self._recent: dict[str, tuple[StageAlarm, ...]] = {}
        self.alarms: Mapping[str, tuple[StageAlarm, ...]] = {}

    def __bool__(self) -> bool:
        """Whether any stage declares alarms."""
        return bool(self._stages)

    def look(self, now: int) -> bool:
        """Take in the next page of settlements, and from time to time the newest decisions, as of `now` (µs since
        1970); whether there are more settlements.
        """
        for name in self._stages:
            epoch = self._live(name), self._pauses.changed(name)
            if self._epochs.setdefault(name, epoch) != epoch:
                self._epochs[name], self._outcomes[name], self._looked_at = epoch, _Outcomes(), -1
        if self._through < 0:
            self._through = max(0, self._store.last().settlement - MEMORY)
        page = self._store.settlements_after(self._through, PAGE)
        for number, record in page:
            self._through = number
            self._take(record)
        if self._looked_at < 0 or now >= self._looked_at + self._every:
            self._recent = {name: tuple(self._of_decisions(name, stage)) for name, stage in self._stages.items()}
            self._looked_at = now
        for outcomes in self._outcomes.values():
            outcomes.until(now)
        found = {
            name: (*self._recent[name], *self._of_outcomes(name, one.alarms)) for name, one in self._stages.items()
        }
        self.alarms = found
        return len(page) == PAGE

    def due(self, now: int) -> list[OperatorAction]:
        """Pauses at `now` (µs) that raised alarms ask for, and that are not in force."""
        found = self._raised("pause_stage")
        return [
            OperatorAction(at=now, who=WHO, stage=stage, nudge=ALL_NUDGES, verb="pause", reason=words)
            for stage, words in found.items()
            if not self._pauses.whole(stage)
        ]

    def rollbacks(self) -> dict[str, str]:
        """Stages whose release raised alarms ask to roll back, with the reason."""
        return {stage: words for stage, words in self._raised("roll_back").items() if self._live(stage)}

    def raised(self, stage: str) -> list[StageAlarm]:
        """Alarms of a stage that are raised."""
        return [one for one in self.alarms.get(stage, ()) if one.raised]

    def _raised(self, then: AlarmAction) -> dict[str, str]:
        each = ((stage, one) for stage in self.alarms for one in self.raised(stage) if one.then == then)
        return {stage: f"{one.name}: {one.words}" for stage, one in each}

    def _counts(self, made: Decision) -> bool:
        """Whether a decision is evidence about what decides at its stage now."""
        release, since = self._epochs[made.stage]
        return made.at > since and made.release == release and not made.holdout and made.is_actionable

    def _take(self, record: DecisionRecord) -> None:
        made, done = record.decision, record.settlement
        alarms = self._stages[made.stage].alarms if made.stage in self._stages else None
        if alarms is None or alarms.silence is None or done is None or done.corrects or done.why in _UNSHOWN:
            return
        if self._counts(made):
            answered = any(one.kind == "reward" for one in in_force(record.outcomes[: done.outcomes]))
            self._order += 1
            heapq.heappush(self._outcomes[made.stage].waiting, (made.expires, self._order, answered))

    def _of_outcomes(self, name: str, alarms: StageAlarms) -> Iterator[StageAlarm]:
        if alarms.silence is not None:
            yield _silent(self._outcomes[name], alarms.silence)

    def _of_decisions(self, name: str, stage: Stage) -> Iterator[StageAlarm]:
        collapse, eligible = stage.alarms.collapse, stage.alarms.eligible
        most = max(collapse.after if collapse else 0, 2 * eligible.after if eligible else 0)
        if not most:
            return
        newest = self._store.decisions_before(name, self._store.last().decision + 1, 2 * most)
        digest = self._digests[name]
        made = [one.decision for one in newest if self._counts(one.decision) and not one.decision.is_remainder]
        found, k = [one for one in made if one.stage_digest == digest], len(stage.arms)
        could = np.array([[arm not in one.excluded for arm in stage.arms] for one in found], np.bool_).reshape(-1, k)
        if collapse is not None:
            p = np.array([one.propensity for one in found[: collapse.after]]).reshape(-1, k)
            yield _collapsed(exploration.effective_arms(p, could[: collapse.after]), collapse)
        if eligible is not None:
            yield _fallen(could, eligible)


def _silent(found: _Outcomes, rule: SilenceAlarm) -> StageAlarm:
    told, since = found.silence, found.matured - found.last
    words = (
        f"no outcome of the last {since:,} decisions that matured, where the earlier rate would have brought"
        f" {told.expected:.1f} (chance {told.probability:.2g})"
    )
    return StageAlarm("silence", told.probability <= rule.chance, words, rule.then)


def _collapsed(found: EffectiveArms, rule: CollapseAlarm) -> StageAlarm:
    words = (
        f"the last {found.decisions:,} decisions chose between {found.effective:.3g} arms in effect, where"
        f" {found.available:.3g} could be drawn"
    )
    raised = exploration.collapsed(found, share=rule.share, least=rule.after)
    return StageAlarm("collapse", raised, words, rule.then)


def _fallen(could: Mask, rule: EligibleAlarm) -> StageAlarm:
    """Alarm by which arms were eligible in each decision, (n, k), the newest first."""
    any_nudge = np.any(could[:, 1:], axis=1)
    groups = any_nudge[: rule.after], any_nudge[rule.after : 2 * rule.after]
    now, before = (EligibleShare(len(some), int(some.sum())) for some in groups)
    words = (
        f"any nudge was eligible in {100 * now.share:.3g} % of the last {now.decisions:,} decisions,"
        f" {100 * before.share:.3g} % of those before"
    )
    whole = before.decisions == rule.after
    return StageAlarm("eligible", whole and eligible_share.fallen(before, now, rule.fall), words, rule.then)


def stage_alarms_out(watch: StageWatch, stage: str) -> list[StageAlarmReply]:
    """Alarms that a stage declares, as they stand."""
    return [StageAlarmReply(one.name, one.raised, one.words, one.then) for one in watch.alarms.get(stage, ())]
