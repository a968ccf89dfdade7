"""Numbers of the arithmetics that decisions were recorded in: what a receipt computes again, it computes as it was.

1: the bits of one machine's libraries. From SAME_BITS on, the bits of every number are the same on every processor.
Before OPEN_EVERYWHERE, open decisions taught nothing in stages that declare no `delay`. Before NEARLY_INDEPENDENT, all
correlated scores were integrated over points, and fewer of them, and open decisions were weighed all at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SAME_BITS = 2
OPEN_EVERYWHERE = 3
NEARLY_INDEPENDENT = 4
ARITHMETIC = NEARLY_INDEPENDENT
"""The present arithmetic, in which decisions are recorded."""

_number = ContextVar("arithmetic", default=ARITHMETIC)


@contextmanager
def recorded_in(number: int) -> Iterator[None]:
    """Within it, this thread computes as decisions were that are recorded in arithmetic `number`, to the same bits from
    SAME_BITS on.
    """
    token = _number.set(number)
    try:
        yield
    finally:
        _number.reset(token)


def number() -> int:
    """Number of the arithmetic that this thread computes in."""
    return _number.get()
