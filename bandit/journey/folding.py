"""Journey fold: a pure fold over a user's events into a state, and what the state says: stage, moment and why, recency,
counts.

Events are ordered by the time they happened, then by their id; the same events give the same JourneyState in whatever
order they came. `fold` takes events one after another, so a state is kept and moved on; an event that happened before
the last one needs a fold from scratch. `read` looks at a state from a moment in time. Times are microseconds since
1970.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple, assert_never

import msgspec

from bandit.catalogue import durations
from bandit.catalogue.journey_rules import (
    DECLINED,
    STANDARD_EVENTS,
    Age,
    Back,
    Count,
    Ever,
    Fact,
    Idle,
    LastValue,
    Moment,
    Repeated,
    Since,
    VisitLength,
)
from bandit.catalogue.model import Catalogue, Feature, Stage
from bandit.errors import InvalidRequest, Problem
from bandit.identifiers import identifier, is_placeholder
from bandit.identifiers import problem as identifier_problem
from bandit.records import Event, Value

CURRENCY = "$currency"
"""The kept property that holds the currency of an event's amounts, where it is not the app's."""

UNREADABLE = "(unreadable)"
"""What is kept of an amount that is neither a number nor a short text: it was sent, so it is not missing."""

_TEXT = 64  # characters of a kept text
_LARGEST = 1e15  # of a kept number
_FOLD = 3  # raised when the same events fold into another State
RECENT = 32
"""How many of the last events of one kind are remembered one by one; rules may ask for up to 30."""

_MOST_DECLINED = 200  # nudges of one user: more than an app has


class EventCounter(msgspec.Struct, frozen=True, kw_only=True):
    """Counter of one kind of event in a state.

    Fields: `count` of all; `last`, when the last one happened (µs), 0 if none; `earlier`, the last one before the visit
    of the last one (µs), None if there is none; `properties` kept of it; `recent`, (at, key) of the newest, oldest
    first.
    """

    count: int = 0
    last: int = 0
    earlier: int | None = None
    properties: dict[str, Value | None] = {}
    recent: tuple[tuple[int, Value | None], ...] = ()  # (at, key), oldest first


class JourneyState(msgspec.Struct, frozen=True, kw_only=True):
    """Journey state of one user: all that is remembered of the user's events, bounded, whatever their number.

    Guarantees: immutable; a function of the set of events and of the rules alone, not of the order in which they came;
    `rules` names the declarations it was folded with, so that a state of older ones is folded anew. The service keeps
    it in the user's session.

    Times in µs: `at` of the last event (and `id`, its id), `began` of this visit, `abandoned` ends of abandoned visits.
    `seen` counts by event name. `declined`: nudges that the user does not want to see again, as "stage.nudge".
    """

    rules: str  # digest of the declarations it was folded with
    stage: str
    at: int = 0  # the last event, and its id
    id: str = ""
    count: int = 0
    visits: int = 0
    began: int = 0  # this visit
    seen: dict[str, EventCounter] = {}
    abandoned: tuple[int, ...] = ()  # when visits that were abandoned ended, the last 32
    declined: tuple[str, ...] = ()


class JourneyFold(NamedTuple):
    """Journey rules made ready to fold with: the catalogue's declarations as look-up tables, made once by `rules` for
    each catalogue.

    Guarantees: immutable; `digest` changes with anything that a JourneyState depends on. Every function of this module
    and `bandit.journey.attribution` take it first.
    """

    catalogue: Catalogue
    digest: str
    start: str
    visit: int  # µs
    named: dict[str, str]  # the app's name → ours
    outcomes: frozenset[str]  # events that report something
    amounts: frozenset[tuple[str, str]]  # (event, kept property) that holds an amount
    identities: frozenset[tuple[str, str]]  # (event, kept property) that says what, or which decision, is meant
    placeholders: frozenset[str]  # declared ones, in lower case
    declares_events: bool  # beside those that every app has


class Journey(NamedTuple):
    """Journey of a user at one instant: the `stage`, the `moment` (None when none holds), and `why`: which rule holds,
    or that none does.
    """

    stage: str
    moment: str | None
    why: str


def rules(catalogue: Catalogue) -> JourneyFold:
    """Journey rules of an app, made ready to fold with. Called once for each catalogue; its digest changes with
    anything that a JourneyState depends on.
    """
    declared = msgspec.structs.replace(catalogue.journey, events={**STANDARD_EVENTS, **catalogue.journey.events})
    own, catalogue = bool(catalogue.journey.events), msgspec.structs.replace(catalogue, journey=declared)
    start = declared.start or next(iter(catalogue.stages))
    outcomes = frozenset(event for stage in catalogue.stages.values() for event in stage.outcomes)
    named = {name: event for event, rule in declared.events.items() for name in rule.names}
    shape = {name: (rule.key, rule.stage) for name, rule in declared.events.items()}
    placeholders = frozenset(text.casefold() for text in declared.placeholders)
    shaped = (_FOLD, start, declared.visit, shape, declared.abandoned, sorted(placeholders))
    digest = hashlib.sha256(msgspec.json.encode(shaped, order="deterministic")).hexdigest()[:16]
    credits_ = [(event, c) for stage in catalogue.stages.values() for event, c in stage.outcomes.items()]
    return JourneyFold(
        catalogue,
        digest,
        start,
        durations.micro(declared.visit),
        named,
        outcomes,
        amounts=frozenset((event, c.value) for event, c in credits_ if c.value),
        identities=frozenset(
            [(event, c.by) for event, c in credits_ if c.by]
            + [(event, rule.key) for event, rule in declared.events.items() if rule.key]
        ),
        placeholders=placeholders,
        declares_events=own,
    )


class Properties(NamedTuple):
    """Kept properties of one event, and notes in words on what could not be kept."""

    values: dict[str, Value | None]
    notes: tuple[str, ...]


def properties(
    rules: JourneyFold, event: str, sent: Mapping[str, object], pseudonym: Callable[[str], str]
) -> Properties:
    """Declared properties of an event as it was sent; an event that is not declared keeps none. Called at ingest,
    before the ledger. `pseudonym`: keyed hash of a text, as text; it stands in for the values of personal properties.

    Identities become texts. Null is kept: it takes an earlier value away. Other values are numbers up to 1e15, booleans
    and texts of up to 64 characters; one that is none of these is left out, with a note, or kept as unreadable if it is
    an amount. A currency is kept where it is not the app's. Raises InvalidRequest for an identity or a currency that
    cannot be one: without it, the event would be about something else.
    """
    values, notes, problems = dict[str, Value | None](), list[str](), list[Problem]()
    if not event:
        return Properties(values, ())
    rule = rules.catalogue.journey.events[event]
    for ours in rule.properties:
        theirs = rule.path(ours)
        there, value = _at_path(sent, theirs)
        if not there:
            continue
        identity = (event, ours) in rules.identities
        if identity:
            wrong = identifier_problem(f"properties.{theirs}", value)
            problems += [wrong] if wrong else []
            value = identifier(value)
        if identity or _storable(value):
            value = value if isinstance(value, bool | str) or value is None else float(value)
            hides = rule.is_personal(ours) and not (identity and _stands_for_none(rules, value))
            values[ours] = pseudonym(_text_of(value)) if hides and value is not None else value
        elif (event, ours) in rules.amounts:
            values[ours] = UNREADABLE
        else:
            notes.append(f"properties.{theirs} left out: send a number up to 1e15, a boolean or {_TEXT} characters")
    if any(name == event for name, _ in rules.amounts):
        values |= _currency(rules, rule.currency, sent, problems)
    if problems:
        raise InvalidRequest(*problems)
    return Properties(values, tuple(notes))


def _at_path(sent: Mapping[str, object], path: str) -> tuple[bool, Any]:
    """Whether a dotted path leads to a value, and the value."""
    *folders, name = path.split(".")
    table: object = sent
    for folder in folders:
        table = table.get(folder) if isinstance(table, Mapping) else None
    return (True, table[name]) if isinstance(table, Mapping) and name in table else (False, None)


def _stands_for_none(rules: JourneyFold, value: Any) -> bool:
    """Whether an identity is missing, or is what programs write for a missing one: that stays what it is."""
    return value is None or is_placeholder(value, rules.placeholders)


def _text_of(value: bool | str | float) -> str:
    """A value as text: a number as the identifier that it would be."""
    return identifier(value) or str(value)


def _storable(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _TEXT
    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) <= _LARGEST
    return isinstance(value, bool) or value is None


def _currency(
    rules: JourneyFold, path: str, sent: Mapping[str, object], problems: list[Problem]
) -> dict[str, Value | None]:
    _, value = _at_path(sent, path)
    if value is None or value == "":
        return {}
    if not isinstance(value, str) or len(value.strip()) > 8:
        problems.append(Problem(f"properties.{path}", "not the code of a currency", "send its code, such as EUR"))
        return {}
    code = value.strip().upper()
    return {} if code == rules.catalogue.currency.upper() else {CURRENCY: code}


def key_of(rules: JourneyFold, event: Event) -> str | None:
    """Key of an event, what it is about, as text; None where the event does not say, or says it with a placeholder."""
    key = identifier(event.properties.get(rules.catalogue.journey.events[event.name].key))
    return None if key is None or is_placeholder(key, rules.placeholders) else key


def order(event: Event) -> tuple[int, str]:
    """Sort key of events, (µs, id): the order in which they are folded and attributed."""
    return event.at, event.id


def fold(rules: JourneyFold, events: Iterable[Event], start: JourneyState | None = None) -> JourneyState:
    """State after these events, in any order; with `start`, all of them must come after those it holds (see `follows`).
    The session calls it on ingest, and on a miss with all of the user's events.
    """
    begin = start or JourneyState(rules=rules.digest, stage=rules.start)
    return reduce(lambda state, event: _next(rules, state, event), sorted(events, key=order), begin)


def follows(rules: JourneyFold, state: JourneyState | None, events: Sequence[Event]) -> bool:
    """Whether the events can be folded into the state as it stands: all are later than its last one, and its rules are
    these.
    """
    return state is not None and state.rules == rules.digest and (state.at, state.id) < min(map(order, events))


def _next(rules: JourneyFold, state: JourneyState, event: Event) -> JourneyState:
    fresh = state.count == 0 or event.at - state.at > rules.visit
    began = event.at if fresh else state.began
    gone = state.abandoned
    if fresh and state.count and _left(rules, state):
        gone = (*gone, state.at)[-RECENT:]
    stage, seen, declined = state.stage, state.seen, state.declined
    if event.name in rules.catalogue.journey.events:
        rule, key = rules.catalogue.journey.events[event.name], key_of(rules, event)
        stage = rule.stage or stage
        seen = {**seen, event.name: _noted(seen.get(event.name, EventCounter()), event, key, began)}
        if event.name == DECLINED and key and key not in declined:
            declined = (*declined, key)[-_MOST_DECLINED:]
    return JourneyState(
        rules=state.rules,
        stage=stage,
        at=event.at,
        id=event.id,
        count=state.count + 1,
        visits=state.visits + fresh,
        began=began,
        seen=seen,
        abandoned=gone,
        declined=declined,
    )


def _noted(before: EventCounter, event: Event, key: str | None, began: int) -> EventCounter:
    return EventCounter(
        count=before.count + 1,
        last=event.at,
        earlier=before.last if before.count and before.last < began else before.earlier,
        properties={**before.properties, **event.properties},
        recent=(*before.recent, (event.at, key))[-RECENT:],
    )


def _left(rules: JourneyFold, state: JourneyState) -> bool:
    """Whether the visit that is over was abandoned."""
    rule = rules.catalogue.journey.abandoned
    last = state.seen.get(rule.event) if rule else None
    if rule is None or last is None or last.last < state.began:
        return False
    return not _came(state, rule.without, last.last)


def _came(state: JourneyState, names: Sequence[str], since: int) -> bool:
    """Whether one of these events came at `since` or later."""
    return any(name in state.seen and state.seen[name].last >= since for name in names)


# -- reading -----------------------------------------------------------------------------------------------------


def read(rules: JourneyFold, state: JourneyState | None, now: int) -> Journey:
    """Journey at `now` (µs): the user's stage, and the first declared moment of that stage that holds. Asked for every
    decision that names no stage.
    """
    if state is None:
        return Journey(rules.start, None, "no event of this user is known")
    for name, moment in rules.catalogue.stages[state.stage].moments.items():
        why = _holds(rules, state, moment, now)
        if why:
            return Journey(state.stage, name, why)
    return Journey(state.stage, None, f"no moment of {state.stage} holds")


def here(rules: JourneyFold, state: JourneyState, now: int) -> bool:
    """Whether the user is in a visit at `now` (µs): the last event is no longer ago than a pause inside a visit."""
    return now - state.at <= rules.visit


def _holds(rules: JourneyFold, state: JourneyState, moment: Moment, now: int) -> str:
    """Why the moment holds, or an empty text."""
    seen = state.seen.get(moment.event)
    if seen is None:
        return ""
    if isinstance(moment, Repeated):
        return _repeated(rules, state, seen, moment, now)
    if not isinstance(moment, Since | Idle | Back):  # a kind that is new must say when it holds
        assert_never(moment)
    last = seen.last
    if isinstance(moment, Back):
        last = seen.last if seen.last < state.began else seen.earlier or 0
        if not last or not here(rules, state, now):
            return ""
    end = state.began if isinstance(moment, Back) else now
    begin = state.at if isinstance(moment, Idle) else last
    if end - begin < durations.micro(moment.after) or _came(state, moment.without, last):
        return ""
    if moment.until and end - last > durations.micro(moment.until):
        return ""
    what = {Back: "came back after leaving at", Idle: "nothing happened since"}.get(type(moment), "time passed since")
    return f"{what} {moment.event} ({moment.after} or longer){_without(moment.without)}"


def _repeated(rules: JourneyFold, state: JourneyState, seen: EventCounter, moment: Repeated, now: int) -> str:
    key = seen.recent[-1][1]
    keyed = bool(rules.catalogue.journey.events[moment.event].key)
    if keyed and key is None:
        return ""
    since = now - durations.micro(moment.within) if moment.within else 0
    for name in moment.without:
        other = state.seen.get(name, EventCounter())
        about = bool(keyed and rules.catalogue.journey.events[name].key)
        since = max([since] + [at + 1 for at, its in other.recent if not about or its == key])
    count = sum(at >= since and (not keyed or its == key) for at, its in seen.recent)
    if count < moment.times:
        return ""
    same = " about the same" if keyed else ""
    return f"{moment.event} came {count} times{same}{_without(moment.without)}"


def _without(names: Sequence[str]) -> str:
    return f", without {' or '.join(names)}" if names else ""


def features(rules: JourneyFold, stage: Stage, state: JourneyState | None, now: int) -> dict[str, Value]:
    """Features of the stage that the journey gives at `now` (µs), by name. One that it cannot give, or that would not
    fit its declaration, is left out.
    """
    found: dict[str, Value] = {}
    if state is None:
        return found
    for name, fact in stage.derived.items():
        value = _fact(rules, state, fact, now)
        fitting = _fit(stage.features[name], value)
        if fitting is not None:
            found[name] = fitting
    return found


def flags(rules: JourneyFold, state: JourneyState | None) -> frozenset[str]:
    """Consents that the user's events carry, by flag; none for a user without a state."""
    seen = state.seen if state else {}
    return frozenset(
        flag
        for flag, source in rules.catalogue.journey.consent.items()
        if seen.get(source.event, EventCounter()).properties.get(source.property) is True
    )


def _fact(rules: JourneyFold, state: JourneyState, fact: Fact, now: int) -> Value | None:
    if isinstance(fact, VisitLength):
        return max(now - state.began, 0) / (1e6 * durations.UNITS[fact.unit]) if here(rules, state, now) else 0.0
    if not isinstance(fact, Count | Age | LastValue | Ever):
        return float(state.visits)
    seen = state.seen.get(fact.event)
    if isinstance(fact, Ever):
        return seen is not None
    if isinstance(fact, Count):
        return _count(seen, fact, now)
    if seen is None:
        return None
    if isinstance(fact, Age):
        return max(now - seen.last, 0) / (1e6 * durations.UNITS[fact.unit])
    return seen.properties.get(fact.property)


def _count(seen: EventCounter | None, fact: Count, now: int) -> float:
    if seen is None or not (fact.same or fact.within):
        return float(seen.count) if seen else 0.0
    since = now - durations.micro(fact.within) if fact.within else 0
    key = seen.recent[-1][1]
    return float(sum(at >= since and (not fact.same or its == key) for at, its in seen.recent))


def _fit(feature: Feature, value: Value | None) -> Value | None:
    """The value as the feature takes it. Shops send prices as texts."""
    if feature.type == "boolean":
        return value if isinstance(value, bool) else None
    if feature.type == "category":
        known = isinstance(value, str) and (value in feature.values or "other" in feature.values)
        return value if known else None
    return number(value)


def number(value: Value | None) -> float | None:
    """Finite number in a kept value, or in a text that is one; None otherwise."""
    if value is None or isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) and abs(found) <= 1e15 else None
