"""Free space of a SQLite file, overwritten with zeros while the file is in use.

`secure_delete` overwrites what is deleted where it lies. It does not overwrite what a page held before SQLite split it:
the rows that moved to another page stay between the first page's own, until new rows need the room. So some bytes of an
erased row may outlive it, and only VACUUM would take them out, which writes the whole file anew in one transaction.
Here that space is overwritten page by page: it belongs to nobody, so readers see the same rows before and after.

The first pass of a process goes over all pages. From then on only those that changed are looked at again: every change
of a page goes through the write-ahead log, whose frames name their pages, and the log is read before SQLite begins it
anew.
"""

import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Mask

_FIRST = 2  # page 1 has the declarations of tables, and no row
_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}  # bytes of the header of a page, by the kind of its tree
_UNTOUCHED = 2**24  # pages: beyond, the first byte of a page with one long value could be taken for a kind
_LOG_HEADER, _FRAME_HEADER = 32, 24  # bytes, as SQLite's "WAL-mode File Format" says
_FRAMES, _MOVED = 16, 96  # places in the index beside the log: frames in the log, and those moved into the file
_AT_ONCE = 256  # frames of the log that are read at a time
_NONE: Mask = np.zeros(0, bool)


class FreeSpace:
    """Free space of one ledger's file, for the thread that owns its writing connection.

    Files are opened once and closed after all connections: closing one any earlier would take SQLite's locks away,
    which belong to the process. `_clean` says of each page, by its number, whether it is overwritten and has not
    changed since; pages beyond its end are not.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None
        self._index: int | None = None
        self._clean = _NONE

    def watch(self) -> None:
        """Note which pages the log has changed, if the next transaction may begin it anew: called before each, with no
        transaction open. Costs one read of 100 bytes, and nothing before the first page was overwritten.
        """
        if not len(self._clean) or self._index is None:
            return
        try:
            head = os.pread(self._index, 100, 0)
            (frames,), (moved,) = struct.unpack_from("=I", head, _FRAMES), struct.unpack_from("=I", head, _MOVED)
            if 0 < frames <= moved:
                self._note()
        except (OSError, struct.error):
            self._clean = _NONE  # not known: the next pass looks at all pages

    def overwrite(self, conn: sqlite3.Connection, first: int, most: int) -> int:
        """Move the write-ahead log into the file and empty it, then overwrite the free space of pages numbered from
        `first` on, at most so many, leaving out those that were and have not changed. Returns the page to go on with:
        `first` if nothing was done, because a reader still needs the log, 0 after the last page.
        """
        first = max(first, _FIRST)
        if len(self._clean):
            self._note()
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
            self._index = os.open(self._beside("-shm"), os.O_RDONLY)
        size, reserved, moves = _sizes(self._file)
        count = os.fstat(self._file).st_size // size
        if moves or count >= _UNTOUCHED:
            return 0
        if len(self._clean) <= count:
            self._clean = np.concatenate([self._clean, np.zeros(count + 1 - len(self._clean), bool)])
        left = first + np.flatnonzero(~self._clean[first : count + 1])
        pages = left[:most]
        found = [_overwritten(self._file, *run, size, size - reserved) for run in _runs(pages.tolist())]
        if any(found):
            os.fsync(self._file)
        self._clean[pages] = True
        return int(left[most]) if len(left) > most else 0

    def close(self) -> None:
        """Close the files, after all connections to them."""
        for file in (self._file, self._index):
            if file is not None:
                os.close(file)
        self._file = self._index = None

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    def _note(self) -> None:
        """Take down the pages of all frames in the log."""
        with self._beside("-wal").open("rb", buffering=0) as log:
            header = log.read(_LOG_HEADER)
            if len(header) == _LOG_HEADER:
                (size,) = struct.unpack_from(">I", header, 8)
                for pages in _logged(log.fileno(), _FRAME_HEADER + size):
                    self._clean[pages[pages < len(self._clean)]] = False


def _logged(log: int, size: int) -> Iterator[NDArray[np.uint32]]:
    """Pages that the frames of a log name; a frame has `size` bytes. Those that are left of an earlier log are too
    many, which does no harm.
    """
    place = _LOG_HEADER
    while frames := os.pread(log, _AT_ONCE * size, place):
        whole = len(frames) // size
        named = np.frombuffer(frames, np.uint8)[: whole * size].reshape(whole, size)[:, :4]
        yield np.ascontiguousarray(named).view(">u4").ravel()
        place += len(frames)


def _runs(pages: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First page, and the one after the last, of each run of pages without gaps."""
    for _, run in groupby(enumerate(pages), key=lambda one: one[1] - one[0]):
        numbers = [page for _, page in run]
        yield numbers[0], numbers[-1] + 1


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
