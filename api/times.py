"""Times as clients send them, in microseconds since 1970. A time that cannot be read is never taken for now."""

import datetime as dt

from api.stores.admission import SKEW
from bandit.errors import InvalidRequest, Problem

FIRST = 946_684_800_000_000
"""2000-01-01. What lies before comes from a clock that was never set, or from an empty time."""

_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
_BEGIN, _END = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)


def microseconds(when: dt.datetime) -> int:
    """Since 1970."""
    return (when - _EPOCH) // dt.timedelta(microseconds=1)


def time_of(microseconds: int) -> dt.datetime:
    """A time as people read it, from microseconds since 1970; outside the years 1 to 9999 the nearest one inside."""
    try:
        return _EPOCH + dt.timedelta(microseconds=microseconds)
    except OverflowError:
        return _BEGIN if microseconds < 0 else _END


def parsed(field: str, value: object) -> int | None:
    """Microseconds of an ISO 8601 text; None where there is none (null, or an empty text). A time without an offset is
    UTC. InvalidRequest for anything else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            when = dt.datetime.fromisoformat(value)
            return microseconds(when if when.tzinfo else when.replace(tzinfo=dt.UTC))
        except ValueError:
            pass
    fix = "send an ISO 8601 time such as 2026-01-31T18:00:00Z, or leave it out for now"
    raise InvalidRequest(Problem(field, "not a time that can be read", fix))


def happened(field: str, at: int | None, now: int) -> int:
    """When something happened: `at`, or now if it was not said. A clock that is ahead by up to five minutes says now.
    InvalidRequest for a time in the future, or before 2000.
    """
    if at is None:
        return now
    if at > now + SKEW:
        raise InvalidRequest(Problem(field, "lies in the future", "send when it happened, in UTC"))
    if at < FIRST:
        fix = "send when it happened, or leave it out for now"
        raise InvalidRequest(Problem(field, "lies before the year 2000", fix))
    return min(at, now)
