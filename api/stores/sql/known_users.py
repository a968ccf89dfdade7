"""Known users: a Bloom filter (Bloom 1970) over the user ids of a ledger, so that a stranger costs no query.

Most people who are asked about for the first time are new, and after every commit SQLite reads its pages again to say
so. The filter says it from memory: "not there" is certain, "may be there" is looked up.
"""

import struct
import threading
from collections.abc import Iterable

import numpy as np

from api.stores.sql.connection import SqlConnection

_BITS = 27  # of an index: 2²⁷ bits are 16 MB; with ten million users one stranger in 200 is looked up all the same
_MASK = 2**_BITS - 1
_SIZE = 16  # bytes of an id: a keyed hash, whose parts are as good as independent
_PAGE = 500  # ids read at a time, some 2 ms
_parts = struct.Struct("<4I").unpack

COLUMNS = (("decisions", "user"), ("journeys", "user"), ("owners", "alias"), ("owners", "owner"))
"""Where a user id can be known from: (table, column), each the first of an index."""


class KnownUsers:
    """Filter of the user ids that one ledger knows. The process that writes the ledger owns it.

    Life cycle: a new filter knows nothing and says "may be there" of everybody; each call of `read` takes in a page of
    the ledger, until all is there. Whoever writes an id adds it before it is committed, so that "not there" is never
    wrong. Threads: any; `read` belongs to whoever holds its connection.
    """

    def __init__(self) -> None:
        self._bits = bytearray(2 ** (_BITS - 3))
        self._changing = threading.Lock()
        self._place, self._after = 0, b""
        self.complete = False

    def add(self, users: Iterable[bytes]) -> None:
        """Add ids that are about to be written."""
        bits = self._bits
        places = [part & _MASK for user in users if len(user) == _SIZE for part in _parts(user)]
        with self._changing:
            for i in places:
                bits[i >> 3] |= 1 << (i & 7)

    def is_stranger(self, user: bytes) -> bool:
        """Whether it is certain that the ledger does not know an id. False for ids that are no keyed hashes, and until
        all of the ledger was read.
        """
        if not self.complete or len(user) != _SIZE:
            return False
        bits = self._bits
        for part in _parts(user):
            i = part & _MASK
            if not bits[i >> 3] >> (i & 7) & 1:
                return True
        return False

    def read(self, conn: SqlConnection) -> None:
        """Take in the next page of the ledger. Does nothing once it is complete."""
        if self.complete:
            return
        table, column = COLUMNS[self._place]
        later = f"SELECT min({column}) FROM {table} WHERE {column} >"  # noqa: S608 - passes over the rows of one user
        query = f"""WITH RECURSIVE page (id) AS (
                        {later} ? UNION ALL SELECT ({later} page.id) FROM page WHERE id IS NOT NULL LIMIT {_PAGE})
                    SELECT id FROM page WHERE id IS NOT NULL"""  # noqa: S608
        found = [user for (user,) in conn.execute(query, (self._after,))]
        if found:
            self._after = found[-1]
            self._add_page([user for user in found if len(user) == _SIZE])
        if len(found) < _PAGE:
            self._place, self._after = self._place + 1, b""
            self.complete = self._place == len(COLUMNS)

    def _add_page(self, users: list[bytes]) -> None:
        """`add` of many at once."""
        index = np.frombuffer(b"".join(users), dtype="<u4") & np.uint32(_MASK)
        bits = np.frombuffer(self._bits, dtype=np.uint8)
        with self._changing:
            np.bitwise_or.at(bits, index >> 3, np.left_shift(1, index & 7).astype(np.uint8))
