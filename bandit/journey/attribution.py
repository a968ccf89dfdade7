"""Attribution: which decision an event speaks about; the catalogue says which events are rewards, activations and
retractions.

A pure function of the user's decisions, of the events that report something, and of the credits in force. Times are µs.
Events that name the same key are one fact (an order that two pages report), which happened when the first of them did.
A reward belongs to the last decision that was made before it and whose window it falls into. It moves to another
decision when an earlier report, another id of the person or an activation arrives late, until its decision is settled:
so the credits in the end do not depend on the order in which things were heard of. Activations stay where they were
credited.
"""

import itertools
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from bandit.catalogue.journey_rules import Credit
from bandit.catalogue.model import NONE, Stage
from bandit.identifiers import identifier
from bandit.journey import folding
from bandit.journey.folding import JourneyFold
from bandit.records import Event, OutcomeKind

Reason = Literal[
    "no decision", "no open decision", "another nudge", "no value", "unreadable value", "currency", "same fact",
    "no key", "nothing to take back", "taken back already", "refused",
]  # fmt: skip
"""Why an event that reports something is credited to no decision of a stage."""


class CreditableDecision(NamedTuple):
    """Decision that events may speak about, as far as attribution needs it. Times in µs: made `at`, window open until
    `expires`, `activated` when it was shown, if that was reported. `deferred`: the decision says nothing before its
    activation.
    """

    id: uuid.UUID
    stage: str
    arm: str
    at: int
    expires: int
    activated: int | None = None
    deferred: bool = False


class CreditState(NamedTuple):
    """Credit of an event so far: the decision, and the id of the outcome in force ("" if it was voided).

    `fact`: what the outcome names. `changes`: how often the outcome was recorded or voided, so that ids stay unique.
    `final`: the decision is settled or its window is over; the credit stays.
    """

    decision: uuid.UUID
    outcome: str
    fact: str = ""
    changes: int = 0
    final: bool = False


class CreditedOutcome(NamedTuple):
    """Outcome to record about a decision, and the event it comes from. `value` in the reward's own units (amounts in
    the app's currency), `occurred` in µs. `voids`: the outcome it takes out of force.
    """

    event: str
    stage: str
    decision: uuid.UUID
    kind: OutcomeKind
    value: float | None
    occurred: int
    outcome: str
    fact: str = ""
    voids: str = ""
    changes: int = 0


class UncreditedReport(NamedTuple):
    """Event that reports something and is credited to no decision of a stage. `reason` is a code, `why` says it in
    words, with what helps.
    """

    event: str
    stage: str
    kind: OutcomeKind
    reason: Reason
    why: str


class Attribution(NamedTuple):
    """Result of attribution: outcomes to record, in order, and reports that cannot be credited as things stand."""

    credited: list[CreditedOutcome]
    uncredited: list[UncreditedReport]


_FITS = 3

Credits = Mapping[tuple[str, str], CreditState]
"""(event, stage) → what it was credited with before."""


def attribute(
    rules: JourneyFold, events: Sequence[Event], candidates: Sequence[CreditableDecision], credits_: Credits
) -> Attribution:
    """Attribution of a user's reports: what the events say that the ledger does not know yet.

    `events`: all of the person's that report something, in any order. `candidates`: the person's decisions. `credits_`:
    (event, stage) → credit so far. Called on each ingest; changes nothing, and with nothing new returns nothing to
    record.
    """
    found = Attribution([], [])
    ordered = sorted(events, key=folding.order)
    for name, stage in rules.catalogue.stages.items():
        reports = [EventMeaning(e, stage.outcomes[e.name]) for e in ordered if e.name in stage.outcomes]
        if reports:
            mine = sorted((c for c in candidates if c.stage == name), key=lambda c: (c.at, c.id))
            before = {event: state for (event, its), state in credits_.items() if its == name}
            _StageAttribution(rules, name, stage, mine, before, found).run(reports)
    return found


class EventMeaning(NamedTuple):
    """Event with its outcome rule: what the catalogue says that the event means at a stage."""

    event: Event
    credit: Credit


class _Placed(NamedTuple):
    """A reward with its decision. `key`: None where the event has none."""

    report: EventMeaning
    key: str | None
    fact: str  # as its outcome names it; "" for one recorded before facts were
    value: float
    decision: uuid.UUID


class _StageAttribution:
    """One stage. `candidates` in the order they were made."""

    def __init__(
        self,
        rules: JourneyFold,
        name: str,
        stage: Stage,
        candidates: list[CreditableDecision],
        before: Mapping[str, CreditState],
        found: Attribution,
    ):
        self._rules, self._name, self._stage = rules, name, stage
        self._candidates = candidates
        self._made = [one.at for one in candidates]
        self._open_until = list(itertools.accumulate((one.expires for one in candidates), max))  # those up to each
        self._before = before
        self._found = found

    def run(self, reports: Sequence[EventMeaning]) -> None:
        """Activations first: they say which decisions were shown. Retractions last: they need their rewards."""
        of = {kind: [r for r in reports if r.credit.kind == kind] for kind in get_args(OutcomeKind)}
        for report in of["activation"]:
            if not self._in_force(report.event.id):
                self._activate(report)
        self._opt_out(of["opt_out"])
        facts: dict[str, list[EventMeaning]] = {}
        for report in of["reward"]:
            facts.setdefault(self._fact(report), []).append(report)
        placed = [reward for fact, told in facts.items() if (reward := self._place(fact, told))]
        self._take_back(of["retraction"], sorted(placed, key=lambda reward: folding.order(reward.report.event)))

    # -- activations -------------------------------------------------------------------------------------------

    def _activate(self, report: EventMeaning) -> None:
        event = report.event
        choice = self._choose(report, event.at)
        if choice is None:
            return
        found = self._candidates[choice]
        self._candidates[choice] = found._replace(activated=min(found.activated or event.at, event.at))
        self._credit(report, found.id, None, "")

    def _opt_out(self, reports: Sequence[EventMeaning]) -> None:
        """Each fact once; like activations, they stay with the decision that they were credited to."""
        known = {self._fact(report) for report in reports if self._in_force(report.event.id)}
        for report in reports:
            fact = self._fact(report)
            if self._in_force(report.event.id):
                continue
            if fact in known:
                self._miss(report, "same fact", f"another event reported the same {report.event.name}")
                continue
            choice = self._choose(report, report.event.at)
            if choice is not None:
                known.add(fact)
                self._credit(report, self._candidates[choice].id, None, "")

    # -- rewards -----------------------------------------------------------------------------------------------

    def _fact(self, report: EventMeaning) -> str:
        """The identity of what the event is about: its key, or itself."""
        event, credit = report
        key = folding.key_of(self._rules, event)
        return f"{event.name}#{event.id}" if key is None or credit.repeatable else f"{event.name}:{key}"

    def _place(self, fact: str, told: Sequence[EventMeaning]) -> _Placed | None:
        """The reward of a fact, credited to its decision; other reports of the fact are credited to none."""
        settled = next((r for r in told if (state := self._in_force(r.event.id)) and self._final(state)), None)
        winner = settled or self._winner(told)
        if winner is None:
            return None
        state = self._in_force(winner.event.id)
        choice = self._choose(winner, told[0].event.at) if settled is None else None
        decision = state.decision if settled and state else None if choice is None else self._candidates[choice].id
        value = self._value(winner)
        if settled is None and decision:
            winner = next((r for r in told if self._stands(r, decision, value)), winner)
            state = self._in_force(winner.event.id)
        for report in told:
            if report is not winner:
                self._void(report.event)
                why = f"event {winner.event.id!r} reported the same {winner.event.name}"
                self._miss(report, "same fact", why)
        if decision is None:
            self._void(winner.event)
            return None
        if state is None or state.decision != decision:
            self._void(winner.event)
            self._credit(winner, decision, value, fact)
        kept = state.fact if state and state.decision == decision else fact
        return _Placed(winner, folding.key_of(self._rules, winner.event), kept, value, decision)

    def _stands(self, report: EventMeaning, decision: uuid.UUID, value: float) -> bool:
        """Whether a report is credited already as the fact is to be."""
        state = self._in_force(report.event.id)
        return state is not None and state.decision == decision and self._value(report) == value

    def _value(self, report: EventMeaning) -> float:
        """The amount of a report that can be used; 1 where the catalogue names none."""
        found = self._amount(report) if report.credit.value else 1.0
        return found if isinstance(found, float) else 0.0

    def _winner(self, told: Sequence[EventMeaning]) -> EventMeaning | None:
        """The first report of a fact whose amount can be used."""
        for report in told:
            found = self._amount(report) if report.credit.value else 1.0
            if isinstance(found, float):
                return report
            self._void(report.event)
            field = self._sent_as(report)
            if found is None:
                self._miss(report, "no value", f"{field} is missing: send the amount")
            else:
                self._miss(report, found[0], f"{field}: {found[1]}")
        return None

    # -- retractions -------------------------------------------------------------------------------------------

    def _take_back(self, told: Sequence[EventMeaning], placed: Sequence[_Placed]) -> None:
        """Each takes back a reward about the same key, or the last one where no key is declared; each whole reward
        once.
        """
        gone: set[str] = set()  # events whose reward was taken back whole
        for report in sorted(told, key=lambda r: self._in_force(r.event.id) is None):
            reason = self._take(report, placed, gone)
            if reason:
                self._void(report.event)
                self._miss(report, *reason)

    def _take(self, report: EventMeaning, placed: Sequence[_Placed], gone: set[str]) -> tuple[Reason, str] | None:
        """Credit one retraction; why it cannot be credited."""
        event, credit = report
        keyed = bool(self._rules.catalogue.journey.events[event.name].key)
        key = folding.key_of(self._rules, event)
        if keyed and key is None:
            return "no key", f"which {credit.of} it takes back is not said: send its id"
        amount = self._amount(report) if credit.value else None
        if isinstance(amount, tuple):
            return amount[0], f"{self._sent_as(report)}: {amount[1]}"
        if amount == 0.0:
            return "no value", f"{self._sent_as(report)} is 0: nothing is taken back"
        mine = [
            reward
            for reward in placed
            if reward.report.event.name == credit.of
            and (reward.key == key if keyed else reward.report.event.at <= event.at)
        ]
        rest = [reward for reward in mine if reward.report.event.id not in gone]
        if not rest:
            what = f"{credit.of} {key!r}" if keyed else f"a {credit.of} before it"
            if mine:
                return "taken back already", f"{what} was taken back before"
            return "nothing to take back", f"{what} is not credited to a decision; it counts when that is reported"
        target = rest[-1]
        whole = amount is None
        if whole:
            gone.add(target.report.event.id)
        value = abs(amount) if amount is not None else None if target.fact else target.value
        state = self._in_force(event.id)
        if state and (self._final(state) or (state.decision, state.fact) == (target.decision, target.fact)):
            return None
        self._void(event)
        self._credit(report, target.decision, value, target.fact)
        return None

    # -- shared ------------------------------------------------------------------------------------------------

    def _choose(self, report: EventMeaning, at: int) -> int | None:
        """The place of the last decision whose window was open; rewards and opt-outs pass over those that wait for
        their activation, if there is one that does not. Says why there is none.
        """
        credit = report.credit
        named = identifier(report.event.properties.get(credit.by)) if credit.by else None
        if not self._candidates:
            self._miss(report, "no decision", f"no decision of this user at stage {self._name} was open then or later")
            return None
        if next(self._open(at), None) is None:
            self._miss(report, "no open decision", "no decision was made before it with its window still open")
            return None
        best, choice = -1, None
        for i in self._open(at):
            if _means(self._candidates[i], named) and (fit := self._fit(credit.kind, self._candidates[i], at)) > best:
                best, choice = fit, i
            if best == _FITS:
                break
        if choice is None:
            self._miss(report, "another nudge", f"{credit.by} names {named!r}, and no open decision is that")
        return choice

    def _open(self, at: int) -> Iterator[int]:
        """Places of the decisions whose window was open at a time, the last first. Looks at no others but for those
        whose window is shorter than an earlier one's.
        """
        i = bisect_right(self._made, at)
        while i and self._open_until[i - 1] > at:
            i -= 1
            if self._candidates[i].expires > at:
                yield i

    def _fit(self, kind: OutcomeKind, candidate: CreditableDecision, at: int) -> int:
        """How well a decision fits a report, up to _FITS: an opt-out is of a nudge, where one was shown; what is not an
        activation passes over decisions that wait for theirs.
        """
        of_nudge = kind != "opt_out" or candidate.arm != NONE
        return 2 * of_nudge + (kind == "activation" or self._shown(candidate, at))

    def _shown(self, candidate: CreditableDecision, at: int) -> bool:
        """Whether the user had seen it by then, as far as is known."""
        if self._stage.activation == "assumed" and not candidate.deferred:
            return True
        return candidate.activated is not None and candidate.activated <= at

    def _amount(self, report: EventMeaning) -> float | tuple[Reason, str] | None:
        """The amount that an event carries, in the app's currency; None if it carries none, or why it is unusable."""
        event, credit = report
        sent = event.properties.get(credit.value)
        if sent is None or sent == "":
            return None
        value = folding.number(sent)
        if value is None:
            return "unreadable value", f"{sent!r} is not a number: send digits with a decimal point"
        currency = event.properties.get(folding.CURRENCY)
        if currency is None:
            return value
        rate = self._rules.catalogue.rates.get(str(currency))
        if rate is None:
            app = self._rules.catalogue.currency
            return "currency", f"{value:g} {currency} is not in {app}: declare rates.{currency}, or send {app}"
        return value * rate

    def _sent_as(self, report: EventMeaning) -> str:
        """The property that holds the amount, as the app calls it."""
        rule = self._rules.catalogue.journey.events[report.event.name]
        return f"properties.{rule.path(report.credit.value)}"

    def _in_force(self, event: str) -> CreditState | None:
        state = self._before.get(event)
        return state if state and state.outcome else None

    def _final(self, state: CreditState) -> bool:
        return state.final or self._stage.reward.settle == "reward"

    def _void(self, event: Event) -> None:
        """Take an earlier credit of the event out of force, unless it is final."""
        state = self._in_force(event.id)
        if state is None or self._final(state):
            return
        self._found.credited.append(
            CreditedOutcome(
                event=event.id,
                stage=self._name,
                decision=state.decision,
                kind="retraction",
                value=None,
                occurred=event.at,
                outcome=f"void:{state.outcome}",
                fact=state.fact,
                voids=state.outcome,
                changes=state.changes + 1,
            )
        )

    def _credit(self, report: EventMeaning, decision: uuid.UUID, value: float | None, fact: str) -> None:
        event, state = report.event, self._before.get(report.event.id)
        changes = 0 if state is None else state.changes + bool(state.outcome)
        again = f"~{changes}" if changes else ""
        self._found.credited.append(
            CreditedOutcome(
                event=event.id,
                stage=self._name,
                decision=decision,
                kind=report.credit.kind,
                value=value,
                occurred=event.at,
                outcome=f"event:{event.id}{again}",
                fact=fact,
                changes=changes,
            )
        )

    def _miss(self, report: EventMeaning, reason: Reason, why: str) -> None:
        state = self._in_force(report.event.id)
        if state and self._final(state):
            return  # credited for good, by what was known then
        self._found.uncredited.append(UncreditedReport(report.event.id, self._name, report.credit.kind, reason, why))


def _means(candidate: CreditableDecision, named: str | None) -> bool:
    """Whether a nudge or a decision that an event names is this one; an event that names none means any."""
    return named is None or named == candidate.arm or named.lower() == str(candidate.id)
