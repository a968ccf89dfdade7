"""Events of other programs' decision logs, one by one, and the columns of a log that they become.

`vw_text` and `dsjson` read files into `LoggedEvent`s; `imported_logs` recognises the formats.
Actions that have names in every event are arms by name, whatever their order in the event; else they are numbered by
their place. Context becomes the columns x_0 … in the order of the names of its features, unless there are too many.

Shapes: n events, k arms.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Ints
from bandit.tables.reader import refused

_MOST_ARMS = 1000
_MOST_FEATURES = 100

LogColumns = dict[str, NDArray[np.generic]]


class LoggedEvent(NamedTuple):
    """One decision of a foreign log, on a `line` of its file.

    `action`: place of the chosen action among `actions`, which are the event's eligible ones by name or by number from
    0; () if all of the log's are eligible, and `action` is then its number. `propensities`: of all of `actions`, if
    they are logged; NaN as `reward` if that is not known; `at`: µs since 1970; `context`: {feature: number}.
    """

    line: int
    action: int
    actions: tuple[str, ...] | tuple[int, ...]
    reward: float
    pscore: float
    propensities: Sequence[float] | None = None
    at: int | None = None
    context: Mapping[str, float] = {}


class ImportedLog(NamedTuple):
    """A foreign log as columns (n,) of a log of ours; `lines` (n,): where each row stands in the file, or its number,
    from 1. `arms`: names of the arms, in the order of their numbers, where it names them.
    """

    name: str
    columns: LogColumns
    lines: Ints
    arms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def imported(name: str, events: Iterable[LoggedEvent], notes: Sequence[str] = ()) -> ImportedLog:
    """The log of these events. Raises InvalidRequest if there are none, or more than 1,000 arms."""
    held = list(events)
    if not held:
        raise refused(name, "there is no decision in it", "give a log with the action, its cost and its probability")
    arms, said = _arms(name, held)
    index = {arm: a for a, arm in enumerate(arms)}
    places = [[index[a] if isinstance(a, str) else a for a in event.actions] for event in held]
    action = [place[event.action] if place else event.action for event, place in zip(held, places, strict=True)]
    k = len(arms) or 1 + max([*action, *(a for place in places for a in place)])
    if k > _MOST_ARMS:
        raise refused(name, f"{k:,} different actions", f"a log of at most {_MOST_ARMS:,}")
    columns: LogColumns = {
        "action": np.array(action, dtype=np.int64),
        "reward": np.array([event.reward for event in held]),
        "pscore": np.array([event.pscore for event in held]),
    }
    eligible, p = np.zeros((len(held), k)), np.zeros((len(held), k))
    for i, (event, place) in enumerate(zip(held, places, strict=True)):
        eligible[i, place or slice(None)] = 1.0
        if event.propensities is not None:
            p[i, place] = event.propensities
    if all(event.propensities is not None for event in held):
        columns |= {f"p_{a}": p[:, a] for a in range(k)}
    columns |= {f"eligible_{a}": eligible[:, a] for a in range(k)}
    if all(event.at is not None for event in held):
        columns["at"] = np.array([event.at for event in held], dtype=np.int64)
    x, more = _context(held)
    columns |= {f"x_{j}": column for j, column in enumerate(x.T)}
    lines = np.array([event.line for event in held], dtype=np.int64)
    return ImportedLog(name, columns, lines, arms, (*notes, *said, *more))


def _arms(name: str, events: Sequence[LoggedEvent]) -> tuple[tuple[str, ...], list[str]]:
    """Names of the arms, empty where actions are numbered, and notes."""
    seen = {action for event in events for action in event.actions}
    named = sorted((action for action in seen if isinstance(action, str)), key=lambda arm: (arm != "none", arm))
    if named and len(named) < len(seen):
        fix = "name the actions of every event, or of none"
        raise refused(name, "some events name their actions and others do not", fix)
    if not named and len({event.actions for event in events}) > 1 and all(_counts_up(e.actions) for e in events):
        return (), [
            "actions have no names, and events have different numbers of them: they are numbered by their place, so "
            "the same place has to be the same action in all events"
        ]
    return tuple(named), [f"arms by name: {', '.join(f'{a} {arm}' for a, arm in enumerate(named))}"] if named else []


def _counts_up(actions: Sequence[object]) -> bool:
    return set(actions) == set(range(len(actions))) and len(actions) > 0


def _context(events: Sequence[LoggedEvent]) -> tuple[Array, list[str]]:
    """Columns (n, d) of the features that vary, by name, and notes."""
    names = sorted({name for event in events for name in event.context})
    if len(names) > _MOST_FEATURES:
        return np.zeros((len(events), 0)), [
            f"the context has {len(names):,} features, and more than {_MOST_FEATURES} are not read: the model of "
            "rewards has a mean for each arm alone"
        ]
    x = np.array([[event.context.get(name, 0.0) for name in names] for event in events]).reshape(len(events), -1)
    varying = [j for j in range(x.shape[1]) if np.ptp(x[:, j]) > 0.0]
    said = ", ".join(f"x_{place} {names[j]}" for place, j in enumerate(varying))
    return x[:, varying], [f"context: {said}"] if said else []
