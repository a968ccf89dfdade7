"""Part writer: a log as a folder of Parquet files with a manifest, which `experiments.data.part_files` reads.

A writer holds one row group, whatever the number of rows. The folder has another name until it is whole, and only its
user may look into it: a log is about people. Under that name each part is whole or not there, and the manifest, which
is replaced with each of them, says which are: a writer that was killed can be continued. Files of other names are
somebody else's: they stay in the folder whatever happens.
"""

import fcntl
import os
import re
from collections.abc import Callable, Mapping, Set
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from bandit.tables.decision_log import KEY, LogMetadata
from bandit.tables.reader import refused
from experiments.data.part_files import MANIFEST, MARK, NUMBER, PartEntry, PartManifest, read_manifest, sha256_of

GROUP = 100_000
"""Rows of a row group, at most: as many as a chunk of an evaluation has, so that none is decoded twice."""

_WITH_STATISTICS = (NUMBER, "at", "time")
_EMPTY = PartManifest(rows=0, parts=())
_OURS = re.compile(rf"\.?(part-\d{{5,}}\.parquet|{re.escape(MANIFEST)})")  # with a dot while they are written


class PartWriter:
    """Writer of a folder of parts, each of `rows` rows and the last of what is left. In a `with` block the folder gets
    its name at the end, and what was written is removed if the block raises; until then its name ends in `.part`.

    `facts` go into the metadata of each part, and what `begun` returns of the log into the manifest: it is called once
    no other process can write there. On entering, InvalidRequest is raised if there is something at `folder`, if
    another process writes there, or if what lies under the other name is not of an interrupted run, which is replaced.

    If it is `continued`, the folder may be there, under one of the two names. The leading parts that `begun` returns
    stay, what is written follows, and other parts are removed once a new manifest does not name them. If the block
    raises, what a manifest names stays under the other name. Writing raises InvalidRequest if the parts that stay have
    other columns.

    `number` is the column whose numbers rise from row to row, and the field of the position that the last of them is.

    `written` is how many rows were given to `write`, `parts` what the manifest will say of them, and
    `told` what `begun` returned. For one thread.
    """

    def __init__(
        self,
        folder: Path,
        facts: LogMetadata,
        rows: int,
        begun: Callable[[], PartManifest] = lambda: _EMPTY,
        *,
        continued: bool = False,
        number: str = NUMBER,
    ):
        self.folder, self.written, self.parts = folder, 0, list[PartEntry]()
        self._size, self._unfinished = rows, unfinished(folder)
        self._begun, self.told, self._continued, self._number = begun, _EMPTY, continued, number
        self._metadata = {KEY: msgspec.json.encode(facts), MARK: b"1"}
        self._held, self._waiting, self._last = list[Any](), 0, 0
        self._file: Any = None
        self._lock: int | None = None
        self._room = rows  # rows that the part that is being written still takes

    @property
    def rows(self) -> int:
        """Rows of the folder so far: those of its parts, and those that wait to be written."""
        return sum(part.rows for part in self.parts) + self._waiting + self._size - self._room

    def __enter__(self) -> Self:
        self._check_name()
        lies = self.folder if self.folder.exists() else _made(self._unfinished)
        self._lock = _locked(lies)
        try:
            self._check_name()  # another process may have given the folder its name since
            if lies == self._unfinished:
                _check_left(lies)
            self.told = self._begun()
            self.parts = list(self.told.parts)
        except BaseException:
            if lies == self._unfinished:
                _remove_empty(lies)
            os.close(self._lock)
            raise
        if lies == self.folder:
            lies.rename(self._unfinished)
        if self.parts:
            self._put_manifest(self._so_far())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
                return
            if self._file is not None:
                self._file.close()
            if not (self._continued and (self._unfinished / MANIFEST).exists()):
                _remove_ours(self._unfinished, set())
                _remove_empty(self._unfinished)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def write(self, columns: Mapping[str, NDArray[Any]] | Any) -> None:
        """Append rows: arrays (n,) by column, or an Arrow table; the same columns with the same types each time, among
        them the one with numbers that rise. The arrays must not be changed afterwards.
        """
        table = pa.table(columns)
        self._held.append(table)
        self._waiting += table.num_rows
        self.written += table.num_rows
        while self._waiting >= (take := min(GROUP, self._room)):
            self._flush(take)

    def end_part(self) -> None:
        """End the part with the rows that were given so far; what is written next begins another one."""
        if self._waiting:
            self._flush(self._waiting)
        if self._file is not None:
            self._end_part()

    def _check_name(self) -> None:
        if self.folder.exists() and (not self._continued or self._unfinished.exists()):
            other = f", and {self._unfinished} too" if self._continued else ""
            fix = "give a name that is not taken"
            if not self._continued and (self.folder / MANIFEST).is_file():
                fix += "; or say --continue, which keeps the parts that hold and writes what is new"
            raise refused(f"{self.folder}", f"there is something of this name{other}", fix)

    def _flush(self, rows: int) -> None:
        """Write the first rows that wait, as one row group; end the part if it is full."""
        waiting = pa.concat_tables(self._held)
        table = waiting.slice(0, rows).replace_schema_metadata(self._metadata)
        if self._file is None:
            self._file = self._opened(table.schema)
        self._file.write_table(table, row_group_size=rows)
        self._last = table[self._number][-1].as_py()
        self._held = [waiting.slice(rows)]
        self._waiting, self._room = self._waiting - rows, self._room - rows
        if not self._room:
            self._end_part()

    def _opened(self, schema: Any) -> Any:
        if self.parts:
            first = self._unfinished / self.parts[0].file
            if not parquet.read_schema(first).equals(schema):
                raise refused(f"{self.folder}", "its parts have other columns", "export to a new folder")
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        return parquet.ParquetWriter(
            self._unfinished / f".{self._name}",
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=texts,
            write_statistics=[name for name in schema.names if name in (self._number, *_WITH_STATISTICS)],
            write_page_checksum=True,
        )

    @property
    def _name(self) -> str:
        return f"part-{len(self.parts):05}.parquet"

    def _end_part(self) -> None:
        self._file.close()
        path, hidden = self._unfinished / self._name, self._unfinished / f".{self._name}"
        _force_to_disk(hidden)
        size, digest = hidden.stat().st_size, sha256_of(hidden)
        hidden.rename(path)
        rows = self._size - self._room
        self.parts.append(PartEntry(file=path.name, rows=rows, bytes=size, sha256=digest, last=self._last))
        self._file, self._room = None, self._size
        self._put_manifest(self._so_far())

    def _finish(self) -> None:
        self.end_part()
        self._put_manifest(self._with_parts(self.told))
        self._unfinished.rename(self.folder)

    def _so_far(self) -> PartManifest:
        """Manifest of the parts that are there, which says that the log ends with the last of them."""
        where = self.told.position
        if where is None:
            return self._with_parts(self.told)
        ended = msgspec.structs.replace(where, **{self._number: self.parts[-1].last})
        return self._with_parts(msgspec.structs.replace(self.told, position=ended))

    def _with_parts(self, told: PartManifest) -> PartManifest:
        rows = sum(part.rows for part in self.parts)
        return msgspec.structs.replace(told, rows=rows, parts=tuple(self.parts)).signed()

    def _put_manifest(self, manifest: PartManifest) -> None:
        """Replace the manifest, in one step; then remove the parts that it does not name."""
        self.manifest, hidden = manifest, self._unfinished / f".{MANIFEST}"
        hidden.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        _force_to_disk(hidden)
        hidden.rename(self._unfinished / MANIFEST)
        _force_to_disk(self._unfinished)
        _remove_ours(self._unfinished, {MANIFEST, *(part.file for part in manifest.parts)})


def unfinished(folder: Path) -> Path:
    """The name of a folder of parts while it is being written."""
    return folder.with_name(folder.name + ".part")


def remove(folder: Path) -> None:
    """Remove the parts and the manifest of a folder, whole or not; and the folder, unless something else is in it."""
    for lies in (folder, unfinished(folder)):
        if lies.is_dir():
            _remove_ours(lies, set())
            _remove_empty(lies)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise refused(f"{folder}", "a file has the name of an export that is being written", "move it") from error
    return folder


def _locked(folder: Path) -> int:
    """Lock of a folder, held until it is closed. Raises InvalidRequest if another process has it, or had it until now
    and renamed or removed the folder.
    """
    with ExitStack() as undo:
        try:
            handle = os.open(folder, os.O_RDONLY)
            undo.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(handle), folder.stat()):
                raise FileNotFoundError(folder)
        except (BlockingIOError, FileNotFoundError) as error:
            raise refused(f"{folder}", "another process is writing there", "wait until it has ended") from error
        undo.pop_all()
    return handle


def _check_left(folder: Path) -> None:
    """Raise InvalidRequest if what lies under the name of an interrupted run is not of one."""
    others = sorted(path.name for path in folder.iterdir() if not _ours(path))
    if read_manifest(folder) is None and others:
        problem = f"no export wrote what is in it: {others[0]} ({len(others)} in all), and no {MANIFEST}"
        raise refused(f"{folder}", problem, "move what you need to another folder, and delete this one")


def _ours(path: Path) -> bool:
    return _OURS.fullmatch(path.name) is not None and not path.is_dir()


def _remove_ours(folder: Path, stay: Set[str]) -> None:
    for path in folder.iterdir():
        if _ours(path) and path.name not in stay:
            path.unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # somebody's files are in it
        folder.rmdir()


def _force_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
