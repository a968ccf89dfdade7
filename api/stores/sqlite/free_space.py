"""Free space of a SQLite file, overwritten with zeros while the file is in use.

`secure_delete` overwrites what is deleted where it lies. It does not overwrite what a page held before SQLite split it:
the rows that moved to another page stay between the first page's own, until new rows need the room. So some bytes of an
erased row may outlive it, and only VACUUM would take them out, which writes the whole file anew in one transaction.
Here that space is overwritten page by page: it belongs to nobody, so readers see the same rows before and after.
"""

import os
import sqlite3
import struct
from pathlib import Path

_FIRST = 2  # page 1 has the declarations of tables, and no row
_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}  # bytes of the header of a page, by the kind of its tree
_UNTOUCHED = 2**24  # pages: beyond, the first byte of a page with one long value could be taken for a kind


class FreeSpace:
    """Free space of one ledger's file, for the thread that owns its writing connection.

    The file is opened once and closed after all connections to it: closing it any earlier would take SQLite's locks
    away, which belong to the process.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None

    def overwrite(self, conn: sqlite3.Connection, first: int, most: int) -> int:
        """Move the write-ahead log into the file and empty it, then overwrite the free space of pages numbered from
        `first` on, at most so many. Returns the page to go on with: `first` if nothing was done, because a reader still
        needs the log, 0 after the last page.
        """
        first = max(first, _FIRST)
        conn.execute("PRAGMA busy_timeout = 0").fetchone()
        try:
            busy, *_ = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            conn.execute("PRAGMA busy_timeout = 2000").fetchone()
        if busy:
            return first
        conn.execute("PRAGMA shrink_memory").fetchall()  # a page that is kept in memory would come back as it was
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR)
        size, reserved, moves = _sizes(self._file)
        count = os.fstat(self._file).st_size // size
        end = min(first + most, count + 1)
        if (
            end > first
            and not moves
            and count < _UNTOUCHED
            and _overwritten(self._file, first, end, size, size - reserved)
        ):
            os.fsync(self._file)
        return end if end <= count else 0

    def close(self) -> None:
        """Close the file, after all connections to it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _sizes(file: int) -> tuple[int, int, bool]:
    """Bytes of a page, how many of them at its end are reserved, and whether the file has pages that say where others
    are (auto_vacuum): these begin with numbers that could be taken for a kind.
    """
    header = os.pread(file, 100, 0)
    (size,) = struct.unpack_from(">H", header, 16)
    return 65536 if size == 1 else size, header[20], any(header[52:56])


def _overwritten(file: int, first: int, end: int, size: int, usable: int) -> bool:
    """Whether anything was there to overwrite on the pages numbered `first` to before `end`."""
    start, found = (first - 1) * size, False
    data = os.pread(file, (end - first) * size, start)
    for place in range(0, len(data) - size + 1, size):
        begin, stop = _gap(data[place : place + size], usable)
        if any(data[place + begin : place + stop]):
            os.pwrite(file, bytes(stop - begin), start + place + begin)
            found = True
    return found


def _gap(page: bytes, usable: int) -> tuple[int, int]:
    """Where the free space between a page's list of cells and its cells begins and stops; nothing for a page that
    belongs to no tree.
    """
    header = _HEADERS.get(page[0])
    if header is None:
        return 0, 0
    cells, stop = struct.unpack_from(">HH", page, 3)
    begin, stop = header + 2 * cells, stop or 65536
    pointers = struct.unpack_from(f">{cells}H", page, header) if begin <= usable else ()
    sound = begin <= stop <= usable and all(stop <= pointer < usable for pointer in pointers)
    return (begin, stop) if sound else (0, 0)
