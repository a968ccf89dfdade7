"""Stage watch: follows the decisions and settlements of each stage that declares alarms, and says which alarms are
raised and what is to be done.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from api.messages.operations import StageAlarmReply
from api.operations.paused_nudges import PausedNudges
from api.stores.decision_log import DecisionFilter, DecisionRecord
from api.stores.protocol import Store
from bandit.alarms import eligible_share, exploration
from bandit.alarms.eligible_share import EligibleShare
from bandit.alarms.silence import OutcomeGaps, silence
from bandit.arrays import Array, Mask
from bandit.catalogue.limits import AlarmAction, CollapseAlarm, EligibleAlarm, SilenceAlarm
from bandit.catalogue.model import Catalogue, Stage
from bandit.guardrails import NO_CONSENT
from bandit.learning.rewards import in_force
from bandit.records import ALL_NUDGES, Decision, OperatorAction

WHO = "the stage's alarm"
"""Who an action is by that no person took."""

PAGE = 500
"""Decisions, and settlements, that one look takes in."""

MEMORY = 20_000
"""Newest decisions and settlements with which a service that starts begins."""

_FLOORS = 0.5
"""Share of what the policy decides from which the floors of a ramped decision hide what the policy would draw."""

_UNSHOWN = ("not activated", "holdout", "erased")
_ASKED = ("not in the request's include list", "in the request's exclude list")
_MISSING = ("no evidence", "not fresh", NO_CONSENT)  # how reasons begin of what did not arrive
_REFUTED = ("not true",)  # of what arrived, and says no


class StageDecider(NamedTuple):
    """What decides at a stage: the number of the release (0: what was learned here so far), the declaration under which
    it decides with its digest, when it began (µs), whether it can be rolled back (an approved version, not an earlier
    rollback), and whether it may show anything: an operator's "no nudge to anybody" may not, and raises no alarm.
    """

    release: int
    digest: str
    spec: Stage
    began: int
    revocable: bool
    shows: bool = True


class StageAlarm(NamedTuple):
    """Alarm of a stage: its name, whether it is raised, what was seen, in words, and what is to be done."""

    name: str
    raised: bool
    words: str
    then: AlarmAction


class StageRollback(NamedTuple):
    """Rollback that raised alarms ask for: of this release and of no other, with the reason."""

    stage: str
    release: int
    reason: str


class _Choices(NamedTuple):
    """Choices of what decides now, the newest last: propensities and which arms were eligible, (k,) each; and of each
    nudge for whom (keyed hash) it came to its evidence and consents, and whether they had arrived.
    """

    drawn: deque[tuple[Array, Mask]]
    arrived: dict[str, deque[tuple[bytes, bool]]]

    @classmethod
    def of(cls, stage: Stage) -> "_Choices":
        """Room for what the stage's alarms look at; a person counts once in a group, so for more than both have."""
        collapse, eligible = stage.alarms.collapse, stage.alarms.eligible
        room = 4 * eligible.after if eligible else 0
        drawn = deque[tuple[Array, Mask]](maxlen=collapse.after if collapse else 0)
        return cls(drawn, {name: deque(maxlen=room) for name in stage.nudges})


class _Outcomes:
    """Outcomes of one stage among its matured decisions, in the order in which their windows ended: gaps between them,
    and the decisions since the last one.
    """

    def __init__(self) -> None:
        self.waiting = list[tuple[int, int, int, bool]]()  # (end of the window, order, made at, whether answered)
        self.gaps, self.lasted, self.since = 0, 0, 0
        self._begun, self._epoch = False, 0

    def until(self, now: int, epoch: int) -> None:
        """Take in what has matured at `now`. With the first decision after `epoch` the silence begins anew, and the
        earlier gaps stay.
        """
        while self.waiting and self.waiting[0][0] <= now:
            _, _, made, answered = heapq.heappop(self.waiting)
            if made > epoch > self._epoch:
                self._epoch, self.since = epoch, 0
            self.since += 1
            if answered:
                if self._begun:
                    self.gaps, self.lasted = self.gaps + 1, self.lasted + self.since
                self._begun, self.since = True, 0

    def alarm(self, rule: SilenceAlarm, epoch: int) -> StageAlarm:
        """Alarm as it stands, about decisions after `epoch`."""
        since = self.since if self._epoch >= epoch else 0
        told = silence(OutcomeGaps(self.gaps, float(self.lasted)), float(since))
        words = (
            f"no outcome of the last {since:,} decisions that matured, where the earlier rate would have brought"
            f" {told.expected:.1f} (chance {told.probability:.2g})"
        )
        return StageAlarm("silence", told.probability <= rule.chance, words, rule.then)


class StageWatch:
    """Watch over the stages of one app that declare alarms. `decides(stage)`: what decides there now.

    Evidence begins anew when something else decides, and when the stage as a whole is paused or resumed: what is done
    at an alarm is done once. Of outcomes only the silence does; how often they came before is what it is compared with.
    State is kept in memory, as of the ledger's newest rows. Threads: one calls `look`; `alarms` is replaced by one
    assignment, and read by any.
    """

    def __init__(
        self, store: Store, catalogue: Catalogue, pauses: PausedNudges, decides: Callable[[str], StageDecider]
    ):
        self._store, self._pauses, self._decides = store, pauses, decides
        self._stages = {name: stage for name, stage in catalogue.stages.items() if stage.alarms}
        self._order, self._decision, self._settlement = 0, -1, -1
        self._deciders: dict[str, StageDecider] = {}
        self._since: dict[str, int] = {}
        self._outcomes = {name: _Outcomes() for name in self._stages}
        self._choices: dict[str, _Choices] = {}
        self.alarms: Mapping[str, tuple[StageAlarm, ...]] = {}

    def __bool__(self) -> bool:
        """Whether any stage declares alarms."""
        return bool(self._stages)

    def look(self, now: int) -> bool:
        """Take in the next page of decisions and of settlements as of `now` (µs since 1970); whether there is more."""
        for name, stage in self._stages.items():
            decider = self._decides(name)
            since = max(decider.began, self._pauses.changed(name))
            if (self._since.get(name), self._deciders.get(name)) != (since, decider):
                self._since[name], self._deciders[name] = since, decider
                self._choices[name] = _Choices.of(stage)
        more = self._follow_decisions() | self._follow_settlements()
        if not more:  # of a part of them nothing follows: they settled in another order than their windows ended
            for name, outcomes in self._outcomes.items():
                outcomes.until(now, self._since[name])
            self.alarms = {name: tuple(self._standing(name, stage)) for name, stage in self._stages.items()}
        return more

    def due(self, now: int) -> list[OperatorAction]:
        """Pauses at `now` (µs) that raised alarms ask for, and that are not in force."""
        found = self._raised("pause_stage")
        return [
            OperatorAction(at=now, who=WHO, stage=stage, nudge=ALL_NUDGES, verb="pause", reason=words)
            for stage, words in found.items()
            if not self._pauses.whole(stage)
        ]

    def rollbacks(self) -> list[StageRollback]:
        """Rollbacks that raised alarms ask for: of approved versions, never of what a rollback brought."""
        return [
            StageRollback(stage, self._deciders[stage].release, words)
            for stage, words in self._raised("roll_back").items()
            if self._deciders[stage].revocable and not self._pauses.whole(stage)
        ]

    def raised(self, stage: str) -> list[StageAlarm]:
        """Alarms of a stage that are raised."""
        return [one for one in self.alarms.get(stage, ()) if one.raised]

    def _raised(self, then: AlarmAction) -> dict[str, str]:
        each = ((stage, one) for stage in self.alarms for one in self.raised(stage) if one.then == then)
        return {stage: f"{one.name}: {one.words}" for stage, one in each}

    def _follow_decisions(self) -> bool:
        last = self._store.last().decision
        if self._decision < 0:
            self._decision = max(0, last - MEMORY)
        through = min(last, self._decision + PAGE)
        if through > self._decision:
            page = self._store.decisions_found(DecisionFilter(), self._decision, through + 1, PAGE)
            for record in reversed(page):
                self._take(record.decision)
            self._decision = through
        return through < last

    def _take(self, made: Decision) -> None:
        decider = self._deciders.get(made.stage)
        if decider is None or made.at <= self._since[made.stage]:
            return
        mine = (made.release, made.stage_digest) == (decider.release, decider.digest)
        if mine and not made.holdout and made.is_actionable and not made.is_remainder:
            choices = self._choices[made.stage]
            account = made.loss_account
            share = decider.spec.traffic * (account.share if account is not None else 1.0)
            could = np.array([arm not in made.excluded for arm in decider.spec.arms])
            floors = decider.spec.common_floor * int(np.count_nonzero(could))
            if not 0.0 < share < 1.0:
                choices.drawn.append((made.propensity, could))
            elif floors < _FLOORS * share:  # else floors say what is drawn, and nothing of the policy
                choices.drawn.append((exploration.unramped(made.propensity, share), could))
            if not any(reason in _ASKED for reason in made.excluded.values()):  # else the request chose among them
                for name, known in choices.arrived.items():
                    reason = made.excluded.get(name, "")
                    if not reason or reason.startswith((*_MISSING, *_REFUTED)):
                        known.append((made.user, not reason.startswith(_MISSING)))

    def _follow_settlements(self) -> bool:
        if self._settlement < 0:
            self._settlement = max(0, self._store.last().settlement - MEMORY)
        page = self._store.settlements_after(self._settlement, PAGE)
        for number, record in page:
            self._settlement = number
            self._settle(record.as_of(number))
        return len(page) == PAGE

    def _settle(self, record: DecisionRecord) -> None:
        made, done = record.decision, record.settlement
        if made.stage not in self._stages or done is None or done.corrects or done.why in _UNSHOWN:
            return
        answered = any(one.kind == "reward" for one in in_force(record.outcomes[: done.outcomes]))
        self._order += 1
        heapq.heappush(self._outcomes[made.stage].waiting, (made.expires, self._order, made.at, answered))

    def _standing(self, name: str, stage: Stage) -> Iterator[StageAlarm]:
        choices, alarms = self._choices[name], stage.alarms
        if not self._deciders[name].shows:
            return
        if alarms.collapse is not None:
            yield _collapsed(choices, alarms.collapse)
        if alarms.eligible is not None:
            yield _fallen(choices, alarms.eligible)
        if alarms.silence is not None:
            yield self._outcomes[name].alarm(alarms.silence, self._since[name])


def _collapsed(choices: _Choices, rule: CollapseAlarm) -> StageAlarm:
    """Alarm by the newest decisions."""
    rows, k = choices.drawn, len(choices.drawn[0][0]) if choices.drawn else 1
    p, could = (
        np.array([p for p, _ in rows]).reshape(-1, k),
        np.array([may for _, may in rows], np.bool_).reshape(-1, k),
    )
    found = exploration.effective_arms(p, could)
    words = (
        f"the last {found.decisions:,} decisions chose between {found.effective:.3g} arms in effect, where"
        f" {found.available:.3g} could be drawn"
    )
    raised = exploration.collapsed(found, share=rule.share, least=rule.after)
    return StageAlarm("collapse", raised, words, rule.then)


def _fallen(choices: _Choices, rule: EligibleAlarm) -> StageAlarm:
    """Alarm by the newest decisions that came to a nudge's evidence and consents, one of each person, and those before
    them, one of each; of the nudge for which they arrive least, as against before.
    """
    found = list[tuple[float, bool, str]]()
    for name, arrived in choices.arrived.items():
        newest = reversed(arrived)
        now, before = _one_each(newest, rule.after), _one_each(newest, rule.after)
        if before.decisions == rule.after and before.eligible:
            words = (
                f"evidence and consents of “{name}” arrived in {100 * now.share:.3g} % of the last {now.decisions:,}"
                f" decisions that came to them, in {100 * before.share:.3g} % of {before.decisions:,} before"
            )
            found.append((now.share / before.share, eligible_share.fallen(before, now, rule.fall), words))
    _, raised, words = min(found, key=lambda one: (not one[1], one[0]), default=(1.0, False, "too few to compare yet"))
    return StageAlarm("eligible", raised, words, rule.then)


def _one_each(rows: Iterator[tuple[bytes, bool]], most: int) -> EligibleShare:
    """Share among the next so many people, by the first row of each."""
    found = dict[bytes, bool]()
    for user, arrived in rows:
        found.setdefault(user, arrived)
        if len(found) == most:
            break
    return EligibleShare(len(found), sum(found.values()))


def stage_alarms_out(watch: StageWatch, stage: str) -> list[StageAlarmReply]:
    """Alarms that a stage declares, as they stand."""
    return [StageAlarmReply(one.name, one.raised, one.words, one.then) for one in watch.alarms.get(stage, ())]
