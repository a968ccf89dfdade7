"""Pauses of nudges: which actions of operators are in force, and what they say of a decision."""

from collections.abc import Iterable, Mapping

from bandit.records import ALL_NUDGES, OperatorAction

Place = tuple[str, str]
"""A stage and one of its nudges, or ALL_NUDGES."""

_DONE = {"pause": "paused", "retire": "retired"}
_VERBS = ("pause", "resume", "retire")


def newest(actions: Iterable[OperatorAction]) -> dict[Place, OperatorAction]:
    """Newest pause, resumption or retirement of each place, of actions in the order of the ledger."""
    return {(one.stage, one.nudge): one for one in actions if one.verb in _VERBS}


def in_force(actions: Iterable[OperatorAction]) -> dict[Place, OperatorAction]:
    """Pauses and retirements that count now, by place, of actions in the order of the ledger."""
    return {place: one for place, one in newest(actions).items() if one.verb in _DONE}


def resumed(actions: Iterable[OperatorAction]) -> dict[Place, int]:
    """When (µs) each place was resumed last, of actions in the order of the ledger."""
    return {(one.stage, one.nudge): one.at for one in actions if one.verb == "resume"}


def reason(action: OperatorAction) -> str:
    """Reason for which a nudge is excluded while a pause or a retirement is in force, as decisions record it."""
    return f"{_DONE[action.verb]} by {action.who}: {action.reason}"


def refused(force: Mapping[Place, OperatorAction], stage: str, nudges: Iterable[str]) -> dict[str, str]:
    """Nudges of a stage that may not be shown while these actions are in force, each with its reason. A nudge's own
    action counts before one about all of the stage's.
    """
    every = force.get((stage, ALL_NUDGES))
    found = ((name, force.get((stage, name), every)) for name in nudges)
    return {name: reason(action) for name, action in found if action is not None}
