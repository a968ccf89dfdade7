"""Events of other programs' decision logs, one by one, and the columns of a log that they become.

`vw_text` and `dsjson` read files into `LoggedEvent`s; `imported_logs` recognises the formats.
Actions that have names in every event are arms by name, whatever their order in the event; else they are numbered by
their place. Context becomes the columns x_0 … in the order of the names of its features, unless there are too many.

Shapes: n events, k arms.
"""

from array import array
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


class _EventColumns:
    """Events as numbers, added one by one: an event itself is not held. `lists` numbers the different `actions` of
    events; propensities and features stand one after the other.
    """

    def __init__(self) -> None:
        self.lines, self.action, self.list, self.at = (array("q") for _ in range(4))
        self.reward, self.pscore, self.propensities, self.value = (array("d") for _ in range(4))
        self.row, self.feature = array("q"), array("q")  # of each value
        self.lists = dict[tuple[str, ...] | tuple[int, ...], int]()
        self.features = dict[str, int]()
        self.timed = self.spread = True  # all events have a time, and propensities

    def add(self, event: LoggedEvent) -> None:
        for feature, value in event.context.items():
            number = self.features.setdefault(feature, len(self.features))
            if number < _MOST_FEATURES:
                self.row.append(len(self.lines))
                self.feature.append(number)
                self.value.append(value)
        self.lines.append(event.line)
        self.action.append(event.action)
        self.list.append(self.lists.setdefault(event.actions, len(self.lists)))
        self.reward.append(event.reward)
        self.pscore.append(event.pscore)
        self.timed = self.timed and event.at is not None
        self.at.append(event.at or 0)
        self.spread = self.spread and event.propensities is not None
        self.propensities.extend(event.propensities or ())


def imported(name: str, events: Iterable[LoggedEvent], notes: Sequence[str] = ()) -> ImportedLog:
    """The log of these events, which are read once and not held. Raises InvalidRequest if there are none, or more than
    1,000 arms.
    """
    held = _EventColumns()
    for event in events:
        held.add(event)
    if not held.lines:
        raise refused(name, "there is no decision in it", "give a log with the action, its cost and its probability")
    arms, said = _arms(name, list(held.lists))
    index = {arm: a for a, arm in enumerate(arms)}
    places = [[index[a] if isinstance(a, str) else a for a in actions] for actions in held.lists]
    each = (places[number] for number in held.list)
    action = [place[a] if place else a for a, place in zip(held.action, each, strict=True)]
    k = len(arms) or 1 + max([*action, *(a for place in places for a in place)])
    if k > _MOST_ARMS:
        raise refused(name, f"{k:,} different actions", f"a log of at most {_MOST_ARMS:,}")
    columns: LogColumns = {
        "action": np.array(action, dtype=np.int64),
        "reward": np.array(held.reward),
        "pscore": np.array(held.pscore),
    }
    if held.spread:
        columns |= {f"p_{a}": column for a, column in enumerate(_propensities(held, places, k).T)}
    could, lists = np.zeros((len(places), k), dtype=np.bool_), np.array(held.list)
    for number, place in enumerate(places):
        could[number, place or slice(None)] = True
    columns |= {f"eligible_{a}": could[lists, a] for a in range(k)}
    if held.timed:
        columns["at"] = np.array(held.at, dtype=np.int64)
    x, more = _context(held)
    columns |= {f"x_{j}": column for j, column in enumerate(x.T)}
    return ImportedLog(name, columns, np.array(held.lines, dtype=np.int64), arms, (*notes, *said, *more))


def _propensities(held: _EventColumns, places: Sequence[Sequence[int]], k: int) -> Array:
    """Propensities of all arms, (n, k), 0 where an event does not have the arm."""
    p, given, first = np.zeros((len(held.lines), k)), np.array(held.propensities), 0
    for i, number in enumerate(held.list):
        place = places[number]
        p[i, place] = given[first : first + len(place)]
        first += len(place)
    return p


def _arms(name: str, lists: Sequence[tuple[str, ...] | tuple[int, ...]]) -> tuple[tuple[str, ...], list[str]]:
    """Names of the arms, empty where actions are numbered, and notes. `lists`: the different actions of events."""
    seen = {action for actions in lists for action in actions}
    named = sorted((action for action in seen if isinstance(action, str)), key=lambda arm: (arm != "none", arm))
    if named and len(named) < len(seen):
        fix = "name the actions of every event, or of none"
        raise refused(name, "some events name their actions and others do not", fix)
    if not named and len({len(actions) for actions in lists}) > 1 and all(map(_counts_up, lists)):
        return (), [
            "actions have no names, and events have different numbers of them: they are numbered by their place, so "
            "the same place has to be the same action in all events"
        ]
    return tuple(named), [f"arms by name: {', '.join(f'{a} {arm}' for a, arm in enumerate(named))}"] if named else []


def _counts_up(actions: Sequence[object]) -> bool:
    return set(actions) == set(range(len(actions))) and len(actions) > 0


def _context(held: _EventColumns) -> tuple[Array, list[str]]:
    """Columns (n, d) of the features that vary, by name, and notes."""
    n, names = len(held.lines), sorted(held.features)
    if len(names) > _MOST_FEATURES:
        return np.zeros((n, 0)), [
            f"the context has {len(names):,} features, and more than {_MOST_FEATURES} are not read: the model of "
            "rewards has a mean for each arm alone"
        ]
    place = np.argsort(np.array([held.features[name] for name in names], dtype=np.int64))  # of each number
    x = np.zeros((n, len(names)))
    x[held.row, place[held.feature]] = held.value
    varying = [j for j in range(len(names)) if np.ptp(x[:, j]) > 0.0]
    said = ", ".join(f"x_{place} {names[j]}" for place, j in enumerate(varying))
    return x[:, varying], [f"context: {said}"] if said else []
