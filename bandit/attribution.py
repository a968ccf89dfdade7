"""Which decision an event speaks about: the catalogue says which events are rewards, activations and retractions.

A pure function of the user's decisions, of the events that report something, and of what was credited before. A credit
is given once and stays. Events count by the time they happened: for decisions made before, within their window.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bandit import journey
from bandit.catalogue import Stage
from bandit.journey import Rules
from bandit.moments import Credit
from bandit.records import Event, OutcomeKind, Value


class Candidate(NamedTuple):
    """A decision that events may speak about. `activated`: when it was shown, if that was reported. `deferred`: it says
    nothing before.
    """

    id: uuid.UUID
    stage: str
    arm: str
    at: int
    expires: int
    activated: int | None = None
    deferred: bool = False


class Credited(NamedTuple):
    """What an event says about one decision."""

    event: str
    stage: str
    decision: uuid.UUID
    kind: OutcomeKind
    value: float | None
    occurred: int


Done = Mapping[tuple[str, str], uuid.UUID]  # (event, stage) → the decision credited


def attribute(rules: Rules, events: Sequence[Event], candidates: Sequence[Candidate], done: Done) -> Iterator[Credited]:
    """What the events say that was not credited yet. `events`: all of the user's that report something."""
    ordered = sorted(events, key=journey.order)
    for name, stage in rules.catalogue.stages.items():
        mine = sorted((c for c in candidates if c.stage == name), key=lambda c: (c.at, c.id))
        reports = [(e, stage.outcomes[e.name]) for e in ordered if e.name in stage.outcomes]
        if reports and mine:
            yield from _Stage(rules, name, stage, mine, dict(done)).run(reports)


class _Stage(NamedTuple):
    """One stage. `candidates` in the order they were made; `done` grows."""

    rules: Rules
    name: str
    stage: Stage
    candidates: list[Candidate]
    done: dict[tuple[str, str], uuid.UUID]

    def run(self, reports: Sequence[tuple[Event, Credit]]) -> Iterator[Credited]:
        for kind in ("activation", "reward"):
            for event, credit in reports:
                if credit.kind == kind and (event.id, self.name) not in self.done:
                    yield from self.credited(event, credit)
        yield from self.retractions(reports)

    def credited(self, event: Event, credit: Credit) -> Iterator[Credited]:
        """The latest decision that was there when it happened; a reward passes over those that wait for their
        activation, if there is one that does not.
        """
        value = self.value(event, credit)
        named = event.properties.get(credit.by) if credit.by else None
        open_ = [(i, c) for i, c in enumerate(self.candidates) if c.at <= event.at < c.expires and _means(c, named)]
        shown = [(i, c) for i, c in open_ if self.shown(c, event.at)]
        choice = shown if shown and credit.kind == "reward" else open_
        if not choice or (credit.kind == "reward" and value is None):
            return
        i, found = choice[-1]
        if credit.kind == "activation":
            self.candidates[i] = found._replace(activated=min(found.activated or event.at, event.at))
        self.done[event.id, self.name] = found.id
        yield Credited(event.id, self.name, found.id, credit.kind, value, event.at)

    def shown(self, candidate: Candidate, at: int) -> bool:
        """Whether the user had seen it by then, as far as is known."""
        if self.stage.activation == "assumed" and not candidate.deferred:
            return True
        return candidate.activated is not None and candidate.activated <= at

    def value(self, event: Event, credit: Credit) -> float | None:
        if credit.kind == "activation":
            return None
        return journey.number(event.properties.get(credit.value)) if credit.value else 1.0

    def retractions(self, reports: Sequence[tuple[Event, Credit]]) -> Iterator[Credited]:
        """Each takes back a reward about the same key, or the last one where there is no key; each reward once."""
        spent: set[str] = set()
        taking = [(e, c) for e, c in reports if c.kind == "retraction"]
        for event, credit in sorted(taking, key=lambda ec: (ec[0].id, self.name) not in self.done):
            known = (event.id, self.name) in self.done
            reward = self.reward_of(event, credit, reports, spent)
            if reward is None:
                continue
            value = self.value(event, credit) if credit.value else self.value(*reward)
            if not credit.value:
                spent.add(reward[0].id)
            if not known and value is not None:
                decision = self.done[reward[0].id, self.name]
                self.done[event.id, self.name] = decision
                yield Credited(event.id, self.name, decision, "retraction", value, event.at)

    def reward_of(
        self, event: Event, credit: Credit, reports: Sequence[tuple[Event, Credit]], spent: set[str]
    ) -> tuple[Event, Credit] | None:
        """The credited reward that the event takes back."""
        key = self.key(event)
        for other, its in reversed(reports):
            if other.name != credit.of or (other.id, self.name) not in self.done or other.id in spent:
                continue
            if self.key(other) == key if key is not None else other.at <= event.at:
                return other, its
        return None

    def key(self, event: Event) -> Value | None:
        return event.properties.get(self.rules.catalogue.journey.events[event.name].key)


def _means(candidate: Candidate, named: Value | None) -> bool:
    """Whether a nudge or a decision that an event names is this one; an event that names none means any."""
    return named is None or named in (candidate.arm, str(candidate.id))
