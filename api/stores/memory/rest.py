"""Rows of the memory store in which persons at rest are looked for."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from api.stores.decision_log import DecisionRecord
from api.stores.ingest import family, root_of
from api.stores.memory.events import MemoryEventRows
from api.stores.rest import RestRow


class MemoryRestRows:
    """`RestRows` in dicts and lists, as `MemoryStore` has them: records by id, ids by number, numbers of decisions that
    are to be settled, and events. It looks through all rows, which is enough for tests and trials.
    """

    def __init__(
        self,
        found: Mapping[uuid.UUID, DecisionRecord],
        by_seq: Sequence[uuid.UUID],
        unsettled: Collection[int],
        rows: MemoryEventRows,
    ):
        self._found, self._by_seq, self._unsettled, self._rows = found, by_seq, unsettled, rows

    def decided(self, after: int, most: int) -> Iterable[RestRow]:
        """As `RestRows.decided`."""
        for found in (self._found[i] for i in self._by_seq[after : after + most]):
            made = found.decision
            yield RestRow(found.seq, b"" if made.is_remainder else made.user, made.at)

    def received(self, after: int, most: int) -> Iterable[RestRow]:
        """As `RestRows.received`."""
        numbered = ((seq, event) for seq, event in self._rows.numbered() if seq > after)
        return [RestRow(seq, event.user, event.received) for seq, event in islice(numbered, most)]

    def ids(self, user: bytes) -> frozenset[bytes]:
        """As `RestRows.ids`."""
        return family(self._rows, root_of(self._rows, user)) | {user}

    def came(self, ids: Collection[bytes], since: int) -> bool:
        """As `RestRows.came`."""
        made = (found.decision for found in self._found.values())
        return any(d.user in ids and d.at >= since for d in made) or any(
            event.received >= since for event in self._rows.events(ids)
        )

    def waits(self, ids: Collection[bytes], stages: Collection[str]) -> bool:
        """As `RestRows.waits`."""
        waiting = (self._found[self._by_seq[seq - 1]].decision for seq in self._unsettled)
        return any(d.user in ids and d.stage in stages for d in waiting)
