"""Decision logs in DSJSON, one event a line, as Vowpal Wabbit's reinforcement-learning client and Azure Personalizer
write them. The reward is minus `_label_cost`; `a` are the actions, numbered from 1, in the order of the ranking, `p`
their probabilities in the same order, `_label_Action` the chosen one, `_label_probability` the probability it was drawn
with.

Actions are named by `_tag`, or by the `id` that Personalizer puts beside their features, if all have one. Context is
what `c` says of the event: numbers as they are, words and flags as features that are 1 where they are there. Features
of actions are not read. Left out, and counted in a note: outcomes without an event, and events that were deferred and
never activated.

A log that was thinned says in `pdrop` with which probability an event was dropped. Where that is the same in all
events, all weigh alike; where it differs, events would weigh 1 / (1 − pdrop), and the log is refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from bandit.tables.cells import instant
from bandit.tables.reader import refused
from experiments.data.imported_events import LoggedEvent

_CLOSE = 1e-6  # relative: probabilities are written in 32 bits
_DEEP = 4  # levels of context


def recognised(line: str) -> bool:
    """Whether the first line of a file may be of this format: one JSON object with names of an event or outcome."""
    try:
        found = msgspec.json.decode(line.strip())
    except msgspec.DecodeError:
        return False
    return isinstance(found, dict) and bool({"_label_cost", "EventId", "_outcomes", "_label_probability"} & set(found))


def events(name: str, lines: Iterable[tuple[int, str]], left_out: dict[str, int]) -> Iterator[LoggedEvent]:
    """Events of a file, from its numbered lines; `left_out` counts, by reason, the lines that are none. Raises
    InvalidRequest, with line and field, for what cannot be used.
    """
    dropped: float | None = None  # the pdrop of all events
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            found = msgspec.json.decode(line.strip())
        except msgspec.DecodeError as error:
            raise refused(where, f"not JSON: {error}", "one whole event a line") from None
        if not isinstance(found, dict):
            raise refused(where, "not an event", "one JSON object a line")
        reason = _no_event(where, found)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            dropped = _thinned_alike(where, found, dropped)
            yield _event(where, number, found)


def _thinned_alike(where: str, found: Mapping[str, Any], before: float | None) -> float:
    """The event's pdrop, 0 if it has none. Raises InvalidRequest unless it is that of the events `before`."""
    value = 0.0 if found.get("pdrop") is None else _number(where, found, "pdrop", at_most=1.0)
    if not 0.0 <= value < 1.0:
        raise refused(
            f"{where}: pdrop", f"{value:g} is no probability to drop an event that is there", "from 0 to below 1"
        )
    if before is not None and value != before:
        problem = f"{value:g}, and {before:g} before: events of a log that was thinned unevenly do not weigh alike"
        fix = "give the log as it was before it was thinned, or thin all events alike"
        raise refused(f"{where}: pdrop", problem, fix)
    return value


def _no_event(where: str, found: Mapping[str, Any]) -> str:
    """Why the line is no decision; "" if it is one. InvalidRequest for events with several slots."""
    context = found.get("c")
    if "_outcomes" in found or (isinstance(context, dict) and "_slots" in context):
        fix = "evaluate each slot by itself: one event a line, with its own action, cost and probability"
        raise refused(where, "an event with several slots (CCB or slates)", fix)
    if "_label_cost" not in found and "_label_probability" not in found:
        return "lines that are outcomes without an event"
    if found.get("DeferredAction") is True and not any(
        isinstance(one, dict) and one.get("ActionTaken") is True for one in found.get("o") or ()
    ):
        return "deferred events that were never activated"
    return ""


def _event(where: str, number: int, found: Mapping[str, Any]) -> LoggedEvent:
    actions = found.get("a")
    if not isinstance(actions, list) or sorted(map(str, actions)) != sorted(str(i + 1) for i in range(len(actions))):
        raise refused(f"{where}: a", "not the numbers of the actions", "all numbers from 1 to k, in any order")
    chosen = found.get("_label_Action", actions[0] if actions else None)
    if chosen not in actions:
        raise refused(f"{where}: _label_Action", f"{chosen!r} is not in a", "the number of the chosen action, from 1")
    cost = _number(where, found, "_label_cost", at_most=np.inf)
    pscore = _number(where, found, "_label_probability", at_most=1.0 + _CLOSE)
    if pscore <= 0.0:
        fix = "the probability with which the action was drawn, above 0"
        raise refused(f"{where}: _label_probability", f"{pscore:g} cannot have been drawn", fix)
    p = found.get("p")
    if p is not None:
        if not isinstance(p, list) or len(p) != len(actions) or not all(_is_probability(one) for one in p):
            raise refused(f"{where}: p", f"not {len(actions)} probabilities", "one for each action, in the order of a")
        drawn = float(p[actions.index(chosen)])
        pscore = drawn if abs(drawn - pscore) <= _CLOSE * drawn else pscore
    context = found.get("c")
    names = _names(context, len(actions))
    return LoggedEvent(
        line=number,
        action=actions.index(chosen),
        actions=tuple(names[a - 1] for a in actions) if names else tuple(a - 1 for a in actions),
        reward=-cost + 0.0,
        pscore=min(pscore, 1.0),
        propensities=None if p is None else [float(one) for one in p],
        at=instant(str(found.get("Timestamp", ""))),
        context=dict(_features(context, "", _DEEP)) if isinstance(context, dict) else {},
    )


def _number(where: str, found: Mapping[str, Any], field: str, *, at_most: float) -> float:
    value = found.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -np.inf < value <= at_most:
        problem = "there is no value" if value is None else f"{value!r} is not a number in its range"
        raise refused(f"{where}: {field}", problem, "a number" if at_most > 2.0 else "a probability")
    return float(value)


def _is_probability(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0.0 <= value <= 1.0 + _CLOSE


def _names(context: Any, actions: int) -> tuple[str, ...]:
    """Names of the actions, all different; () where one has none."""
    multi = context.get("_multi") if isinstance(context, dict) else None
    if not isinstance(multi, list) or len(multi) != actions:
        return ()
    names = tuple(_name(action) for action in multi)
    return names if all(names) and len(set(names)) == actions else ()


def _name(action: Any) -> str:
    if not isinstance(action, dict):
        return ""
    inner = action.get("i")
    name = action.get("_tag") or (inner.get("id") if isinstance(inner, dict) else None)
    return name if isinstance(name, str) else ""


def _features(value: Any, path: str, levels: int) -> Iterator[tuple[str, float]]:
    """(name, number) of the features of a context, without those of actions and those that begin with _."""
    if isinstance(value, dict) and levels:
        for key, inner in value.items():
            if not str(key).startswith("_"):
                yield from _features(inner, f"{path}.{key}" if path else str(key), levels - 1)
    elif isinstance(value, list) and levels:
        for place, inner in enumerate(value):
            yield from _features(inner, path if isinstance(inner, dict) else f"{path}[{place}]", levels - 1)
    elif isinstance(value, bool) or (isinstance(value, int | float) and np.isfinite(value)):
        yield path, float(value)
    elif isinstance(value, str):
        yield f"{path}={value}", 1.0
