"""Part writer: a log as a folder of Parquet files with a manifest, which `experiments.data.part_files` reads.

A writer holds one row group, whatever the number of rows. The folder has another name until it is whole, and only its
user may look into it: a log is about people. Under that name each part is whole or not there, and the manifest, which
is replaced with each of them, says which are: a writer that was killed can be continued.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from bandit.tables.decision_log import KEY, LogMetadata
from bandit.tables.reader import refused
from experiments.data.part_files import MANIFEST, MARK, NUMBER, PartEntry, PartManifest, sha256_of

GROUP = 100_000
"""Rows of a row group, at most: as many as a chunk of an evaluation has, so that none is decoded twice."""

_WITH_STATISTICS = (NUMBER, "at", "time")
_EMPTY = PartManifest(rows=0, parts=())


class PartWriter:
    """Writer of a folder of parts, each of `rows` rows and the last of what is left. In a `with` block the folder gets
    its name at the end, and is removed if the block raises; until then its name ends in `.part`.

    `facts` go into the metadata of each part, and what `told` says of the log into the manifest. Raises InvalidRequest
    if there is something at `folder`. What an interrupted run left under the other name is replaced.

    With `kept` the folder is continued, under whichever of the two names it lies: these leading parts stay, others are
    removed, and what is written follows. If the block raises, the folder stays under the other name. Raises
    InvalidRequest if both names are taken, another process writes there, or the parts have other columns.

    `written` is how many rows were given to `write`, and `parts` what the manifest will say. For one thread.
    """

    def __init__(
        self,
        folder: Path,
        facts: LogMetadata,
        rows: int,
        told: PartManifest = _EMPTY,
        kept: Sequence[PartEntry] | None = None,
    ):
        self.folder, self.written, self.parts = folder, 0, list(kept or ())
        self._size, self._unfinished = rows, unfinished(folder)
        if folder.exists() and (kept is None or self._unfinished.exists()):
            other = "" if kept is None else f", and {self._unfinished} too"
            raise refused(f"{folder}", f"there is something of this name{other}", "give a name that is not taken")
        self._told, self._continued = told, kept is not None
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
        if self._continued and self.folder.exists():
            self.folder.rename(self._unfinished)
        self._unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(self._unfinished)
        if self.parts:
            self._put_manifest(self._so_far())
        stay = {MANIFEST, *(part.file for part in self.parts)} if self.parts else set[str]()
        for path in self._unfinished.iterdir():
            if path.name not in stay:
                _remove(path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
            elif self._file is not None:
                self._file.close()
            if kind is not None and not (self._continued and self.parts):
                shutil.rmtree(self._unfinished)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def write(self, columns: Mapping[str, NDArray[Any]] | Any) -> None:
        """Append rows: arrays (n,) by column, or an Arrow table; the same columns with the same types each time, among
        them `decision`, whose numbers rise. The arrays must not be changed afterwards.
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

    def _flush(self, rows: int) -> None:
        """Write the first rows that wait, as one row group; end the part if it is full."""
        waiting = pa.concat_tables(self._held)
        table = waiting.slice(0, rows).replace_schema_metadata(self._metadata)
        if self._file is None:
            self._file = self._opened(table.schema)
        self._file.write_table(table, row_group_size=rows)
        self._last = table[NUMBER][-1].as_py()
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
            write_statistics=[name for name in _WITH_STATISTICS if name in schema.names],
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
        self._put_manifest(self._with_parts(self._told))
        self._unfinished.rename(self.folder)

    def _so_far(self) -> PartManifest:
        """Manifest of the parts that are there, which says that the log ends with the last of them."""
        where = self._told.position
        if where is None:
            return self._with_parts(self._told)
        ended = msgspec.structs.replace(where, decision=self.parts[-1].last)
        return self._with_parts(msgspec.structs.replace(self._told, position=ended))

    def _with_parts(self, told: PartManifest) -> PartManifest:
        rows = sum(part.rows for part in self.parts)
        return msgspec.structs.replace(told, rows=rows, parts=tuple(self.parts)).signed()

    def _put_manifest(self, manifest: PartManifest) -> None:
        """Replace the manifest, in one step."""
        self.manifest, hidden = manifest, self._unfinished / f".{MANIFEST}"
        hidden.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        _force_to_disk(hidden)
        hidden.rename(self._unfinished / MANIFEST)
        _force_to_disk(self._unfinished)


def unfinished(folder: Path) -> Path:
    """The name of a folder of parts while it is being written."""
    return folder.with_name(folder.name + ".part")


def _locked(folder: Path) -> int:
    """Lock of a folder, held until it is closed. Raises InvalidRequest if another process has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise refused(f"{folder}", "another process is writing there", "wait until it has ended") from error
    return handle


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _force_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
