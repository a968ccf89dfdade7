"""Times as clients send them ⇄ microseconds since 1970 (UTC), the unit of all times in the ledger. A time that cannot
be read is refused, never taken for now.
"""

import datetime as dt

from api.stores.admission import SKEW
from bandit.errors import InvalidRequest, Problem

FIRST = 946_684_800_000_000
"""2000-01-01. What lies before comes from a clock that was never set, or from an empty time."""

_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
_BEGIN, _END = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)


def microseconds(when: dt.datetime) -> int:
    """Microseconds since 1970 of a time with an offset. TypeError for a time without one."""
    return (when - _EPOCH) // dt.timedelta(microseconds=1)


def time_of(microseconds: int) -> dt.datetime:
    """Time in UTC, as replies show it, from microseconds since 1970; outside the years 1 to 9999 the nearest time that
    Python can write.
    """
    try:
        return _EPOCH + dt.timedelta(microseconds=microseconds)
    except OverflowError:
        return _BEGIN if microseconds < 0 else _END


def parsed(field: str, value: object, absent: str = "for now") -> int | None:
    """Microseconds since 1970 of an ISO 8601 text, for protocols whose bodies are not typed. None where there is no
    time (null, or an empty text); a time without an offset is UTC. Raises InvalidRequest, naming `field`, for anything
    else; `absent` is what leaving it out is good for.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            when = dt.datetime.fromisoformat(value)
            return microseconds(when if when.tzinfo else when.replace(tzinfo=dt.UTC))
        except ValueError:
            pass
    fix = f"send an ISO 8601 time such as 2026-01-31T18:00:00Z, or leave it out {absent}"
    raise InvalidRequest(Problem(field, "not a time that can be read", fix))


def happened(field: str, at: int | None, now: int) -> int:
    """Time at which something happened (µs since 1970): `at`, or `now` if it was not said. A client's clock that is
    ahead by up to five minutes says now. Raises InvalidRequest, naming `field`, for a later time, and for one before
    2000.
    """
    if at is None:
        return now
    if at > now + SKEW:
        raise InvalidRequest(Problem(field, "lies in the future", "send when it happened, in UTC"))
    if at < FIRST:
        fix = "send when it happened, or leave it out for now"
        raise InvalidRequest(Problem(field, "lies before the year 2000", fix))
    return min(at, now)
