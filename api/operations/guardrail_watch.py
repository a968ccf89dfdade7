"""Guardrail watch: counts, of each nudge of a stage that declares a guardrail, the decisions that have matured and
those that bad events followed (retractions, opt-outs), and says which nudges are to be stopped.
"""

import heapq
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from api.messages.operations import GuardrailReply
from api.operations.paused_nudges import PausedNudges
from api.stores.decision_log import DecisionRecord
from api.stores.protocol import Store
from bandit.alarms import guardrail_metric
from bandit.alarms.guardrail_metric import GuardrailBound
from bandit.catalogue.limits import BadEvent, GuardrailRule
from bandit.catalogue.model import Catalogue
from bandit.guardrails import DAY
from bandit.learning.rewards import in_force
from bandit.operations.pauses import Place
from bandit.records import ALL_NUDGES, OperatorAction

log = logging.getLogger("journey_bandit.guardrails")

WHO = "the stage's guardrail"
"""Who an action is by that no person took."""

PAGE = 500
"""Settlements that one look takes in."""

_UNSHOWN = (
    "not activated",
    "holdout",
    "erased",
)  # settlements of decisions that nobody saw, or of which nothing is left


_NAMES: Mapping[BadEvent, str] = {"retraction": "a retraction", "opt_out": "an opt-out"}


class NudgeEvidence(NamedTuple):
    """Evidence about one nudge: decisions that have matured (`exposures`), those that a bad event followed (`bad`),
    the e-value against its bound, and whether that is above 1/α after the declared number of decisions.
    """

    nudge: str
    exposures: int
    bad: int
    e_value: float
    raised: bool


class GuardrailWatch:
    """Watch over the nudges of one app. It reads settlements in their order, a page at each `look`, and counts each
    decision by the day on which its window ended, from that time on: not before, even where its reward came early,
    because which decisions are counted must not depend on what followed them. A bad event that comes later, within the
    stage's grace, is counted where its decision is. Decisions from before the newest resumption of a nudge do not
    count: each begins a new test.

    State is a function of the ledger and of the time, and kept in memory: a service that starts reads all settlements
    again. Threads: one calls `look`; `evidence` is replaced by one assignment, and read by any.
    """

    def __init__(self, store: Store, catalogue: Catalogue, pauses: PausedNudges, scale: float = 1.0):
        self._store = store
        self._pauses = pauses
        self._rules: Mapping[str, GuardrailRule] = {
            name: stage.guardrail for name, stage in catalogue.stages.items() if stage.guardrail is not None
        }
        self._nudges = {name: tuple(catalogue.stages[name].nudges) for name in self._rules}
        self._day = max(1, round(DAY * scale))
        self._resumed: Mapping[Place, int] = {}
        self._through = self._order = 0
        self._days: dict[Place, dict[int, list[int]]] = {}
        self._waiting = list[tuple[int, int, Place, int, int]]()  # (end of its window, order, place, changes of counts)
        self.evidence: Mapping[str, tuple[NudgeEvidence, ...]] = {}
        self._begin({})

    def __bool__(self) -> bool:
        """Whether any stage declares a guardrail."""
        return bool(self._rules)

    def look(self, now: int) -> bool:
        """Count the next page of settlements as of `now` (µs since 1970); whether there is more."""
        resumed = self._pauses.resumed()
        if resumed != self._resumed:
            self._begin(resumed)
        page = self._store.settlements_after(self._through, PAGE)
        for number, record in page:
            self._take(record, number)
            self._through = number
        while self._waiting and self._waiting[0][0] <= now:
            expires, _, place, exposures, bad = heapq.heappop(self._waiting)
            counts = self._days[place].setdefault(expires // self._day, [0, 0])
            counts[0] += exposures
            counts[1] += bad
        self.evidence = {name: tuple(self._evidence(name)) for name in self._rules}
        return len(page) == PAGE

    def due(self, now: int) -> list[OperatorAction]:
        """Actions at `now` (µs) that the evidence asks for, and that are not in force."""
        found = list[OperatorAction]()
        for stage, evidence in self.evidence.items():
            rule = self._rules[stage]
            for one in evidence:
                place = ALL_NUDGES if rule.then == "pause_stage" else one.nudge
                stopped = self._pauses.refused(stage)
                if one.raised and rule.then != "tell" and one.nudge not in stopped:
                    why = _words(one, rule)
                    action = OperatorAction(at=now, who=WHO, stage=stage, nudge=place, verb="pause", reason=why)
                    found.append(action)
        return found

    def rule(self, stage: str) -> GuardrailRule | None:
        """Guardrail that a stage declares."""
        return self._rules.get(stage)

    def raised(self, stage: str) -> dict[str, str]:
        """Nudges of a stage that are above their bound, with what was seen, in words."""
        rule = self._rules.get(stage)
        return {one.nudge: _words(one, rule) for one in self.evidence.get(stage, ()) if rule and one.raised}

    def _begin(self, resumed: Mapping[Place, int]) -> None:
        self._resumed, self._through, self._order, self._waiting = resumed, 0, 0, []
        places = [(stage, nudge) for stage, nudges in self._nudges.items() for nudge in nudges]
        self._days = {place: {} for place in places}

    def _take(self, record: DecisionRecord, number: int) -> None:
        made, place = record.decision, (record.decision.stage, record.decision.arm)
        since = max(self._resumed.get(place, 0), self._resumed.get((made.stage, ALL_NUDGES), 0))
        if place not in self._days or made.at <= since:
            return
        kinds = self._rules[made.stage].kinds
        before, after = _counted(record, number - 1, kinds), _counted(record, number, kinds)
        self._order += 1
        change = after[0] - before[0], after[1] - before[1]
        heapq.heappush(self._waiting, (made.expires, self._order, place, *change))

    def _evidence(self, stage: str) -> Iterator[NudgeEvidence]:
        rule = self._rules[stage]
        bound = GuardrailBound(most=rule.most, alpha=rule.alpha, least=rule.after)
        for nudge in self._nudges[stage]:
            days = self._days[stage, nudge]
            groups = [(days[day][0], days[day][1]) for day in sorted(days)]
            exposures, bad = sum(n for n, _ in groups), sum(n for _, n in groups)
            e_value = guardrail_metric.e_value_of(bound, groups)
            raised = exposures >= rule.after and e_value >= 1.0 / rule.alpha
            yield NudgeEvidence(nudge, exposures, bad, e_value, raised)


def _counted(record: DecisionRecord, number: int, kinds: Collection[BadEvent]) -> tuple[int, int]:
    """Whether a decision counts, and as a bad one, as its settlements up to this number have it."""
    done = record.as_of(number).settlement
    if done is None or done.why in _UNSHOWN:
        return 0, 0
    known = in_force(record.outcomes[: done.outcomes])
    return 1, int(any(one.kind in kinds for one in known))


def followed_by(kinds: Iterable[BadEvent]) -> str:
    """Bad events in words: "a retraction or an opt-out"."""
    return " or ".join(_NAMES[kind] for kind in kinds)


def _words(one: NudgeEvidence, rule: GuardrailRule) -> str:
    share = f"{one.bad} of {one.exposures} decisions were followed by {followed_by(rule.kinds)}"
    return f"{share}; at most {100 * rule.most:.3g} % is declared (e-value {one.e_value:.3g})"


def guardrails_out(watch: GuardrailWatch, stage: str) -> list[GuardrailReply]:
    """Guardrail of each nudge of a stage, none where it declares none."""
    rule = watch.rule(stage)
    if rule is None:
        return []
    return [
        GuardrailReply(
            nudge=one.nudge,
            decisions=one.exposures,
            bad=one.bad,
            of=list(rule.kinds),
            at_most=rule.most,
            alpha=rule.alpha,
            e_value=one.e_value,
            raised_from=1.0 / rule.alpha,
            raised=one.raised,
        )
        for one in watch.evidence.get(stage, ())
    ]
