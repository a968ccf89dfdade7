"""A/B tests from events as Segment keeps them: a file of JSON messages, one a line (its archives in S3 and its raw
exports), or batches of them. `Experiment Viewed` says which variation a person was shown, other `track` events what
came of it.

A person is a `userId`, or an `anonymousId` that no message joins to one. The first view decides the arm; later views of
another variation do not change it, because who sees two variations may have been brought to it by the first. Outcomes
count from the first view on: EVENT whether it happened, EVENT.PROPERTY the sum of a property. Held in memory are views
and the events of outcomes, with the properties that are read, and of all messages who is who and the messageId.
"""

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np

from bandit.errors import InvalidRequest, Problem
from bandit.tables import cells, reader
from bandit.tables.reader import refused
from experiments.ab_tests.experiment_table import ExperimentTable, OutcomeColumn

VIEWED = "Experiment Viewed"
_TIMES = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")
_NAMED = ("experiment_name", "experiment_id", "variation_name", "variation_id")
_MOST_NAMED = 20


class _Track(NamedTuple):
    line: int
    user: str
    anonymous: str
    at: int  # µs
    event: str
    properties: dict[str, Any]


def read_events(path: Path, experiment: str, outcomes: Sequence[str]) -> ExperimentTable:
    """The experiment table of the people who viewed `experiment` (its id or name), in the order of their first views.
    `outcomes`: EVENT, or EVENT.PROPERTY for the sum of a property.

    Raises InvalidRequest, with the line, for a message that is no JSON, or that matters and lacks its time or person;
    if nobody viewed the experiment; for an outcome whose event is not in the file, or whose property is no number.
    """
    seen, wanted = Counter[str](), _wanted(outcomes)
    tracks, users = _joined(_tracks(str(path), partial(_opened, path), seen, wanted), wanted)
    views = sorted((t for t in tracks if _viewed(t, experiment)), key=lambda t: (t.at, t.line))
    if not views:
        known = sorted({str(_experiment(t)) for t in tracks if t.event == VIEWED})[:_MOST_NAMED]
        fix = f"one of {', '.join(known)}" if known else f"give messages with {VIEWED}, experiment_name, variation_name"
        raise refused("experiment", f"nobody in {path} viewed {experiment!r}", fix)
    first = dict[str, _Track]()
    for view in views:
        first.setdefault(users(view), view)
    arms = tuple(sorted({_variation(str(path), view) for view in first.values()}))
    people, after = list(first), dict[str, list[_Track]]()
    for track in tracks:
        shown = first.get(users(track))
        if shown is not None and track.at >= shown.at and track.event != VIEWED:
            after.setdefault(users(track), []).append(track)
    columns = [_outcome(str(path), name, people, after, seen) for name in outcomes]
    arm = np.array([arms.index(_variation(str(path), first[person])) for person in people], dtype=np.int64)
    both = len({(users(view), _variation(str(path), view)) for view in views}) - len(people)
    notes = [f"{both:,} more variations were viewed later by people who count in their first"] if both else []
    twice = seen["twice"]
    notes += [f"left out: {twice:,} messages that are there twice, by their messageId"] if twice else []
    return ExperimentTable(
        str(path), arms, arm, np.ones(len(arm)), False, tuple(columns), np.zeros((len(arm), 0)), tuple(notes)
    )


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _wanted(outcomes: Sequence[str]) -> dict[str, frozenset[str]]:
    """{event: properties of it} that are held, of views and of what the outcomes may mean."""
    wanted = {VIEWED: set(_NAMED)}
    for outcome in outcomes:
        event, _, key = outcome.rpartition(".")
        wanted.setdefault(outcome, set())
        wanted.setdefault(event, set()).add(key)
    return {event: frozenset(keys) for event, keys in wanted.items()}


def _tracks(
    name: str, opened: reader.Opened, seen: Counter[str], wanted: Mapping[str, frozenset[str]]
) -> Iterator[_Track]:
    """Messages of the file, each messageId once, with the properties that are `wanted`; `seen` counts events by name,
    and repeated messages as "twice".
    """
    ids = set[str]()
    for line, text in reader.text_lines(name, opened):
        if not text.strip():
            continue
        for message in _messages(f"{name}:{line}", text):
            number = message.get("messageId")
            if isinstance(number, str) and number in ids:
                seen["twice"] += 1
                continue
            if isinstance(number, str):
                ids.add(number)
            event = message.get("event") if message.get("type") == "track" else None
            found = _track(f"{name}:{line}", line, message, str(event or ""), wanted)
            if found.event:
                seen[f"event {found.event}"] += 1
            yield found


def _messages(where: str, text: str) -> list[dict[str, Any]]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise refused(where, f"not JSON: {error}", "one message a line") from None
    messages = found["batch"] if isinstance(found, dict) and isinstance(found.get("batch"), list) else [found]
    if not all(isinstance(message, dict) for message in messages):
        raise refused(where, "not a message", "one JSON object a line")
    return list(messages)


def _track(where: str, line: int, message: dict[str, Any], event: str, wanted: Mapping[str, frozenset[str]]) -> _Track:
    user, anonymous = (str(message.get(key) or "") for key in ("userId", "anonymousId"))
    said = next((message[key] for key in _TIMES if message.get(key)), None)
    at = cells.instant(said) if isinstance(said, str) else None
    if event and at is None:
        problem = "there is no timestamp" if said is None else f"{said!r} is not a time"
        raise refused(f"{where}: timestamp", problem, "a time such as 2026-05-01T12:00:00Z")
    if event and not (user or anonymous):
        raise refused(f"{where}: userId", "neither userId nor anonymousId", "who did it")
    given = message.get("properties")
    properties = {key: given[key] for key in wanted.get(event, ()) if key in given} if isinstance(given, dict) else {}
    return _Track(line, user, anonymous, at or 0, event, properties)


class _Persons(NamedTuple):
    """{anonymousId: userId} of messages that have both; of several users, the first."""

    known: dict[str, str]

    def __call__(self, track: _Track) -> str:
        """Key of the person."""
        user = track.user or self.known.get(track.anonymous, "")
        return f"user {user}" if user else f"anonymous {track.anonymous}"


def _joined(tracks: Iterable[_Track], wanted: Container[str]) -> tuple[list[_Track], _Persons]:
    """The messages of events that are `wanted`, and who is who by all messages."""
    held, known = list[_Track](), dict[str, str]()
    for track in tracks:
        if track.user and track.anonymous:
            known.setdefault(track.anonymous, track.user)
        if track.event and track.event in wanted:
            held.append(track)
    return held, _Persons(known)


def _experiment(track: _Track) -> object:
    return track.properties.get("experiment_name") or track.properties.get("experiment_id")


def _viewed(track: _Track, experiment: str) -> bool:
    names = (track.properties.get("experiment_name"), track.properties.get("experiment_id"))
    return track.event == VIEWED and experiment in [str(name) for name in names if name is not None]


def _variation(name: str, view: _Track) -> str:
    found = view.properties.get("variation_name") or view.properties.get("variation_id")
    if not found:
        raise refused(f"{name}:{view.line}: variation_name", "there is no variation", "which variation was shown")
    return str(found)


def _outcome(
    name: str, outcome: str, people: Sequence[str], after: dict[str, list[_Track]], seen: Counter[str]
) -> OutcomeColumn:
    event, point, key = (outcome, "", "") if seen[f"event {outcome}"] else outcome.rpartition(".")
    if not seen[f"event {event}"]:
        known = sorted(e.removeprefix("event ") for e in seen if e.startswith("event "))
        fix = f"one of {', '.join(known[:_MOST_NAMED])}, or EVENT.PROPERTY"
        raise refused("outcome", f"{name} has no event {outcome!r}", fix)
    mine = [[track for track in after.get(person, ()) if track.event == event] for person in people]
    if not point:
        total = np.array([float(bool(tracks)) for tracks in mine])
        return OutcomeColumn(outcome, total, total, True, ())
    total = np.array([math.fsum(_amount(name, track, key) for track in tracks) for tracks in mine], dtype=np.float64)
    return OutcomeColumn(outcome, total, total * total, bool(np.isin(total, (0.0, 1.0)).all()), ())


def _amount(name: str, track: _Track, key: str) -> float:
    found = track.properties.get(key)
    value = float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
    value = cells.number(found) if isinstance(found, str) else value
    if value is None or not np.isfinite(value):
        problem = f"there is no {key}" if found is None else f"{found!r} is not a number"
        raise InvalidRequest(Problem(f"{name}:{track.line}: {track.event}.{key}", problem, "a number"))
    return value
