"""Search for persons at rest, of whom nothing came for a while: one implementation for every store, on the rows that a
store gives.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

ROWS = 200
"""Rows that one page looks at, at most."""


class RestCursor(NamedTuple):
    """Place of a walk over the ledger: numbers of the last decision and of the last event that were looked at."""

    decision: int = 0
    event: int = 0


class RestPage(NamedTuple):
    """Page of a walk. `people`: ids of each person at rest; `through`: where the walk goes on; `rows`: how many it
    looked at; `decided`, `received`: times of the last decision and of the last event among them (µs, 0 for none);
    `left`: whether the next page may find more.
    """

    people: list[frozenset[bytes]]
    through: RestCursor
    rows: int
    decided: int
    received: int
    left: bool


class RestRow(NamedTuple):
    """Number of a row, its user (empty if it was erased), and when it came (µs)."""

    seq: int
    user: bytes
    at: int


class RestRows(Protocol):
    """Rows that the search needs, of one state of the ledger."""

    def decided(self, after: int, most: int) -> Iterable[RestRow]:
        """Decisions numbered above `after`, in order."""
        ...

    def received(self, after: int, most: int) -> Iterable[RestRow]:
        """Events numbered above `after`, in order, with the time at which each was received."""
        ...

    def ids(self, user: bytes) -> frozenset[bytes]:
        """All ids that are known to be of the person with this one."""
        ...

    def came(self, ids: Collection[bytes], since: int) -> bool:
        """Whether a decision was made for one of these ids, or an event of theirs received, at `since` or later."""
        ...

    def waits(self, ids: Collection[bytes], stages: Collection[str]) -> bool:
        """Whether a decision for one of these ids, at one of the stages, is to be settled yet, or settled anew."""
        ...


def page(rows: RestRows, after: RestCursor, before: int, most: int, stages: Collection[str]) -> RestPage:
    """As `ErasureLog.at_rest`.

    Each row is looked at once, when it is older than `before`: whoever has a newer one is passed over, because that
    one comes by later. So the walk loses nobody, however times and numbers are ordered.
    """
    walk = _RestWalk(rows, before, most, stages)
    decision, decided = walk.over(rows.decided(after.decision, ROWS), after.decision)
    event, received = walk.over(rows.received(after.event, ROWS - walk.rows), after.event)
    left = walk.rows == ROWS or len(walk.people) == most
    return RestPage(walk.people, RestCursor(decision, event), walk.rows, decided, received, left)


class _RestWalk:
    """Walk over one page of rows, first decisions, then events."""

    def __init__(self, rows: RestRows, before: int, most: int, stages: Collection[str]):
        self.people = list[frozenset[bytes]]()
        self.rows = 0
        self._rows, self._before, self._most, self._stages = rows, before, most, stages
        self._known = {b""}  # of whom this page knows enough

    def over(self, found: Iterable[RestRow], seq: int) -> tuple[int, int]:
        """Number and time of the last row that was passed; `seq` and 0 if none was."""
        at = 0
        for row in found:
            if row.at >= self._before or not self._passes(row.user):
                break
            seq, at = row.seq, max(row.at, at)
            self.rows += 1
        return seq, at

    def _passes(self, user: bytes) -> bool:
        """Whether enough is known of a person for the walk to go on; who is at rest is noted."""
        if user in self._known:
            return True
        ids = self._rows.ids(user)
        if not self._rows.came(ids, self._before):
            if len(self.people) == self._most or self._rows.waits(ids, self._stages):
                return False
            self.people.append(ids)
        self._known |= ids
        return True
