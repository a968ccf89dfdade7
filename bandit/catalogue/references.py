"""Reference checks: names in a catalogue that must lead somewhere, from moments, facts, outcomes and limits to events,
stages, nudges.

`bandit.catalogue.checks` calls them once for a whole catalogue. They yield `Problem`s (path, problem, fix) and raise
nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bandit.catalogue import durations
from bandit.catalogue.decoding import closest
from bandit.catalogue.journey_rules import (
    STANDARD_EVENTS,
    Count,
    Credit,
    EventRule,
    Fact,
    JourneyRules,
    LastValue,
    Moment,
    Repeated,
    VisitCount,
    VisitLength,
)
from bandit.catalogue.limits import ExclusionRule
from bandit.errors import Problem


class Refers(NamedTuple):
    """Names that one stage declares, as far as other tables refer to them. `continuous`: its reward is a number, so
    that outcomes need a value.
    """

    nudges: Mapping[str, str]  # nudge → type
    features: Mapping[str, str]  # feature → type
    continuous: bool
    moments: Mapping[str, Moment]
    derived: Mapping[str, Fact]
    outcomes: Mapping[str, Credit]


def check(journey: JourneyRules, stages: Mapping[str, Refers]) -> Iterator[Problem]:
    """Problems of the journey and of all stages' moments, facts and outcomes: every name that leads nowhere, and
    durations that are none.
    """
    yield from durations.check("journey.visit", journey.visit)
    if journey.start and journey.start not in stages:
        yield Problem("journey.start", f"no stage {journey.start!r}", closest(journey.start, stages))
    yield from _events(journey, stages)
    for flag, kept in journey.consent.items():
        yield from _readable(f"journey.consent.{flag}", journey, kept.event, kept.property, "a consent")
    if journey.timezone:
        zone = journey.timezone
        yield from _readable("journey.timezone", journey, zone.event, zone.property, "a time zone")
    if journey.abandoned:
        for name in (journey.abandoned.event, *journey.abandoned.without):
            yield from _event("journey.abandoned", journey, name)
    for stage, refers in stages.items():
        for name, moment in refers.moments.items():
            yield from _moment(f"stages.{stage}.moments.{name}", journey, moment)
        for name, fact in refers.derived.items():
            yield from _fact(f"stages.{stage}.derived.{name}", journey, refers, name, fact)
        for name, credit in refers.outcomes.items():
            yield from _credit(f"stages.{stage}.outcomes.{name}", journey, refers, name, credit)


def exclusive(groups: Sequence[ExclusionRule], stages: Mapping[str, Refers]) -> Iterator[Problem]:
    """Problems of exclusion groups: members that are neither a type nor a nudge, and durations that are none."""
    known = {type_ for refers in stages.values() for type_ in refers.nudges.values()}
    known |= {f"{stage}.{nudge}" for stage, refers in stages.items() for nudge in refers.nudges}
    for i, group in enumerate(groups):
        yield from durations.check(f"exclusive[{i}].within", group.within)
        for member in group.among:
            if member not in known:
                yield Problem(f"exclusive[{i}].among", f"no type or nudge {member!r}", closest(member, known))


def _events(journey: JourneyRules, stages: Mapping[str, Refers]) -> Iterator[Problem]:
    taken = {name: event for event, rule in STANDARD_EVENTS.items() for name in rule.names}
    for event, rule in journey.events.items():
        path = f"journey.events.{event}"
        if event in STANDARD_EVENTS:
            yield Problem(path, "every app has this event", "remove it, or give yours another id")
        for name in rule.names:
            if taken.setdefault(name, event) != event:
                yield Problem(f"{path}.names", f"{name!r} is {taken[name]} already", "give each name to one event")
        if rule.key and rule.key not in rule.properties:
            fix = f"add it to properties; {closest(rule.key, rule.properties)}"
            yield Problem(f"{path}.key", f"no kept property {rule.key!r}", fix)
        if rule.stage and rule.stage not in stages:
            yield Problem(f"{path}.stage", f"no stage {rule.stage!r}", closest(rule.stage, stages))
        has_amount = any(credit.value for refers in stages.values() if (credit := refers.outcomes.get(event)))
        yield from _both_ways(path, rule, has_amount=has_amount)


def _both_ways(path: str, rule: EventRule, *, has_amount: bool) -> Iterator[Problem]:
    """Problems of values of one event that are kept as a hash by one declaration, and as they were sent by another. The
    currency is one of them where the event `has_amount`.
    """
    plain = {rule.path(name): f"properties.{name}" for name in rule.properties if not rule.is_personal(name)}
    if has_amount:
        plain.setdefault(rule.currency, "currency")
    for name in rule.properties:
        if rule.is_personal(name) and rule.path(name) in plain:
            other = plain[rule.path(name)]
            problem = f"{rule.path(name)!r} is personal, and {other} keeps its value as it was sent"
            fix = f"remove {path}.{other}, or declare it personal as well"
            if other == "currency":
                fix = f"remove {path}.properties.{name}, or name another path in {path}.currency"
            yield Problem(f"{path}.properties.{name}", problem, fix)


def _event(path: str, journey: JourneyRules, name: str) -> Iterator[Problem]:
    if name not in journey.events:
        yield Problem(path, f"no event {name!r} in journey.events", closest(name, journey.events))


def _property(path: str, journey: JourneyRules, event: str, name: str) -> Iterator[Problem]:
    yield from _event(path, journey, event)
    kept = journey.events[event].properties if event in journey.events else {name: ""}
    if name not in kept:
        yield Problem(path, f"{event} keeps no property {name!r}", closest(name, kept))


def _readable(path: str, journey: JourneyRules, event: str, name: str, what: str) -> Iterator[Problem]:
    """Problems of a property whose value is read: that is not kept, or kept as a hash."""
    yield from _property(path, journey, event, name)
    if _rule(journey, event).is_personal(name):
        problem = f"{event}.{name} is personal: only its hash is kept, and {what} cannot be read from it"
        yield Problem(path, problem, f"remove this, or `personal` from journey.events.{event}.properties.{name}")


def _moment(path: str, journey: JourneyRules, moment: Moment) -> Iterator[Problem]:
    for name in (moment.event, *moment.without):
        yield from _event(path, journey, name)
    if isinstance(moment, Repeated):
        spans = [("within", moment.within)] if moment.within else []
    else:
        spans = [("after", moment.after)] + [("until", moment.until)] * bool(moment.until)
    wrong = [problem for key, text in spans for problem in durations.check(f"{path}.{key}", text, zero=key == "after")]
    yield from wrong
    if isinstance(moment, Repeated):
        for name in moment.without:
            yield from _same_form(path, journey, moment.event, name)
    if not wrong and len(spans) == 2 and durations.seconds(spans[0][1]) >= durations.seconds(spans[1][1]):
        yield Problem(f"{path}.until", "ends before it begins", "longer than `after`")


def _fact(path: str, journey: JourneyRules, refers: Refers, name: str, fact: Fact) -> Iterator[Problem]:
    if name not in refers.features:
        yield Problem(path, "no such feature in this stage", closest(name, refers.features))
        return
    if isinstance(fact, LastValue):
        yield from _readable(path, journey, fact.event, fact.property, "a feature")
    elif not isinstance(fact, VisitLength | VisitCount):
        yield from _event(path, journey, fact.event)
    if isinstance(fact, Count) and fact.within:
        yield from durations.check(f"{path}.within", fact.within)
    if isinstance(fact, Count) and fact.same and not _rule(journey, fact.event).key:
        yield Problem(f"{path}.same", f"{fact.event} has no key", f"declare journey.events.{fact.event}.key")
    kind = fact.__struct_config__.tag
    fits = None if isinstance(fact, LastValue) else "boolean" if kind == "ever" else "number"
    if fits and refers.features[name] != fits:
        yield Problem(path, f"`{kind}` gives a {fits}, the feature is a {refers.features[name]}", f"a {fits} feature")


def _credit(path: str, journey: JourneyRules, refers: Refers, event: str, credit: Credit) -> Iterator[Problem]:
    yield from _event(path, journey, event)
    for key, name, what in (("value", credit.value, "an amount"), ("by", credit.by, "the name of a nudge")):
        if name:
            yield from _readable(f"{path}.{key}", journey, event, name, what)
    if credit.repeatable and (credit.kind != "reward" or not _rule(journey, event).key):
        problem = "only a reward whose event has a key can come again with it"
        yield Problem(f"{path}.repeatable", problem, "remove it")
    if credit.kind in ("activation", "opt_out") and credit.value:
        yield Problem(f"{path}.value", f"an {credit.kind.replace('_', '-')} has no value", "remove it")
    if credit.kind == "reward" and refers.continuous and not credit.value:
        yield Problem(f"{path}.value", "missing; this stage's reward is continuous", "the kept property that holds it")
    if credit.kind == "retraction" and not refers.continuous and credit.value:
        yield Problem(f"{path}.value", "a binary reward is taken back whole", "remove it")
    if credit.kind == "retraction":
        yield from _retraction(path, journey, refers, event, credit)
    elif credit.of:
        yield Problem(f"{path}.of", "only a retraction is of another event", "remove it")


def _retraction(path: str, journey: JourneyRules, refers: Refers, event: str, credit: Credit) -> Iterator[Problem]:
    rewards = {name for name, other in refers.outcomes.items() if other.kind == "reward"}
    if credit.of not in rewards:
        yield Problem(f"{path}.of", f"{credit.of!r} is no reward of this stage", closest(credit.of, rewards))
    elif bool(_rule(journey, event).key) != bool(_rule(journey, credit.of).key):
        yield Problem(f"{path}.of", "only one of the two events has a key", "declare both keys, such as the order")
    else:
        yield from _same_form(f"{path}.of", journey, event, credit.of)


def _same_form(path: str, journey: JourneyRules, event: str, other: str) -> Iterator[Problem]:
    """Problem of two events whose keys are compared, of which only one is kept as a hash."""
    one, two = _rule(journey, event), _rule(journey, other)
    if one.key and two.key and one.is_personal(one.key) != two.is_personal(two.key):
        plain = event if two.is_personal(two.key) else other
        key = _rule(journey, plain).key
        problem = f"the keys of {event} and {other} are compared, and only one of them is personal"
        yield Problem(path, problem, f"declare journey.events.{plain}.properties.{key} personal as well, or neither")


def _rule(journey: JourneyRules, event: str) -> EventRule:
    return journey.events.get(event, EventRule(names=["?"]))
