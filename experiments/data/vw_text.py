"""Vowpal Wabbit's text format for contextual bandits: `--cb` (an event a line, its label ACTION:COST:PROBABILITY) and
`--cb_adf` (an event a block of lines up to an empty one: perhaps `shared`, then a line for each action, the label on
that of the chosen one). The reward is minus the cost.

    1:-1:0.25 | age:0.4 device_phone              shared | age:0.4
    2:0:0.75 | age:0.9                            | action_a
                                                  0:-1:0.25 | action_b
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, takewhile

import numpy as np

from bandit.tables.reader import refused
from experiments.data.imported_events import LoggedEvent

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_LABEL = re.compile(rf"(\d+):({_NUMBER}):({_NUMBER})", re.ASCII)
_COSTS = re.compile(rf"\d+:{_NUMBER}(:{_NUMBER})?", re.ASCII)
_SPACE = re.compile(r"\S*(\s[^,;]*)?")  # what stands between two bars
_MOST_LINES = 1001  # of the first event that are looked at

Lines = Iterable[tuple[int, str]]


def recognised(lines: Iterable[str]) -> bool:
    """Whether a file with these lines may be of this format: its first line is of namespaces, behind `shared` or a
    label that has a cost. Where nothing stands before its first bar, as in a table whose first column has no name, a
    later line of the first event has to have such a label.
    """
    text = (line.strip() for line in lines)
    first = next(filter(None, text), "")
    if "|" not in first or (first[0] == first[-1] == "|" and len(first) > 1):
        return False
    if not all(_SPACE.fullmatch(space) for space in first.split("|")[1:]):
        return False
    words = _labels(first)
    if words:
        return words[0] == "shared" or _costs(first)
    return any(map(_costs, islice(takewhile(bool, text), _MOST_LINES)))


def _costs(line: str) -> bool:
    return "|" in line and any(_COSTS.fullmatch(word) for word in _labels(line))


def events(name: str, lines: Callable[[], Lines]) -> Iterator[LoggedEvent]:
    """Events of a file; `lines` gives its numbered lines, and is called twice. Raises InvalidRequest, with the line,
    for a label that is none, an event with no label or several, an action that the event does not have.
    """
    said = ((number, line.strip()) for number, line in lines())
    if any(line and (line.startswith("shared") or not _labels(line)) for _, line in said):
        yield from _blocks(name, ((number, line.strip()) for number, line in lines()))
        return
    for number, line in lines():
        if line.strip():
            yield _single(name, number, line.strip())


def _labels(line: str) -> list[str]:
    """Words before the first namespace."""
    return line.partition("|")[0].split()


def _label(name: str, number: int, word: str) -> tuple[int, float, float]:
    match = _LABEL.fullmatch(word)
    if match is None:
        fix = "ACTION:COST:PROBABILITY, the probability with which the action was drawn"
        raise refused(f"{name}:{number}: label", f"{word!r} is not a label of a contextual bandit", fix)
    return int(match[1]), float(match[2]), float(match[3])


def _single(name: str, number: int, line: str) -> LoggedEvent:
    words = [word for word in _labels(line) if word[0].isdigit()]
    labelled = [word for word in words if ":" in word]
    if len(labelled) != 1:
        fix = "one ACTION:COST:PROBABILITY; other actions by their number alone"
        raise refused(f"{name}:{number}: label", f"{len(labelled)} labels with a cost", fix)
    action, cost, probability = _label(name, number, labelled[0])
    listed = sorted({action, *(int(word) for word in words if word.isdigit())})
    if listed[0] < 1:
        raise refused(f"{name}:{number}: label", "an action 0", "number the actions from 1, as --cb does")
    context = _features(name, number, line)
    if len(listed) == 1:
        return LoggedEvent(number, action - 1, (), -cost, probability, context=context)
    only = tuple(a - 1 for a in listed)
    return LoggedEvent(number, only.index(action - 1), only, -cost, probability, context=context)


def _blocks(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[LoggedEvent]:
    block = list[tuple[int, str]]()
    for number, line in chain(lines, [(0, "")]):
        if line:
            block.append((number, line))
        elif block:
            yield _event(name, block)
            block = []


def _event(name: str, block: list[tuple[int, str]]) -> LoggedEvent:
    first, shared = block[0][0], block[0][1].startswith("shared")
    context = _features(name, *block[0]) if shared else {}
    actions = block[1:] if shared else block
    chosen = [(i, number, word) for i, (number, line) in enumerate(actions) for word in _labels(line) if ":" in word]
    if len(chosen) != 1:
        problem = f"{len(chosen)} of the {len(actions)} actions of this event have a label"
        raise refused(f"{name}:{first}: label", problem, "one 0:COST:PROBABILITY, on the line of the chosen action")
    place, number, word = chosen[0]
    _, cost, probability = _label(name, number, word)
    return LoggedEvent(number, place, tuple(range(len(actions))), -cost, probability, context=context)


def _features(name: str, number: int, line: str) -> dict[str, float]:
    """{namespace^feature: number} of a line; features without one are 1."""
    found = dict[str, float]()
    for part in line.split("|")[1:]:
        space, _, rest = part.partition(" ")
        space, _, scale = space.partition(":")
        for word in rest.split():
            feature, _, value = word.rpartition(":") if ":" in word else (word, "", "1")
            try:
                found[f"{space}^{feature}" if space else feature] = float(value) * float(scale or 1.0)
            except ValueError:
                raise refused(f"{name}:{number}: {feature}", f"{value!r} is not a number", "FEATURE:NUMBER") from None
    wrong = [feature for feature, value in found.items() if not np.isfinite(value)]
    if wrong:
        raise refused(f"{name}:{number}: {wrong[0]}", "not a finite number", "FEATURE:NUMBER")
    return found
