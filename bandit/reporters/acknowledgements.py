"""Acknowledgements of alarms: which keys' rewards are held at a stage, and which alarms wait for an operator.

A stage that pauses learns nothing from what an accused key reports. Whether a settlement is held follows from rows
alone: from the alarms that settlements before it raised, and from the acknowledgements that count for its number.
"""

from collections.abc import Iterable, Sequence

from bandit.records import AlarmAcknowledgement
from bandit.reporters.reward_watch import RewardAlarm


def held(alarms: Iterable[RewardAlarm], acknowledged: Sequence[AlarmAcknowledgement], number: int) -> frozenset[str]:
    """Keys whose rewards settlement number `number` holds, of the alarms and the acknowledgements of its stage, which
    come in their order: those accused by an earlier settlement, unless the newest acknowledgement says that the key is
    honest, and it has not been accused again since.
    """
    newest = {one.reporter: one for one in acknowledged if one.through < number}
    return frozenset(
        alarm.reporter
        for alarm in alarms
        if alarm.through < number and not _found_honest(alarm, newest.get(alarm.reporter))
    )


def unacknowledged(
    alarms: Iterable[RewardAlarm], acknowledged: Sequence[AlarmAcknowledgement]
) -> tuple[RewardAlarm, ...]:
    """Alarms of a stage that no acknowledgement is about yet."""
    return tuple(alarm for alarm in alarms if about(alarm, acknowledged) is None)


def about(alarm: RewardAlarm, acknowledged: Sequence[AlarmAcknowledgement]) -> AlarmAcknowledgement | None:
    """The newest acknowledgement, of those of the alarm's stage in their order, that is about an alarm; None if none
    is.
    """
    covering = (one for one in reversed(acknowledged) if one.reporter == alarm.reporter)
    return next((one for one in covering if alarm.through <= one.through), None)


def _found_honest(alarm: RewardAlarm, newest: AlarmAcknowledgement | None) -> bool:
    return newest is not None and newest.verdict == "honest" and alarm.through <= newest.through
