"""Part writer: a log as a folder of Parquet files with a manifest, which `experiments.data.part_files` reads.

A writer holds one row group, whatever the number of rows. The folder has another name until it is whole, and only its
user may look into it: a log is about people.
"""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from bandit.tables.decision_log import KEY, LogMetadata
from bandit.tables.reader import refused
from experiments.data.part_files import MANIFEST, MARK, NUMBER, PartEntry, PartManifest

GROUP = 100_000
"""Rows of a row group, at most: as many as a chunk of an evaluation has, so that none is decoded twice."""

Columns = dict[str, NDArray[Any]]


class PartWriter:
    """Writer of a folder of parts, each of `rows` rows and the last of what is left. In a `with` block the folder gets
    its name at the end, and is removed if the block raises; until then its name ends in `.part`.

    `facts` go into the metadata of each part. Raises InvalidRequest if there is something at `folder`. What an
    interrupted run left under the other name is replaced. `rows` as an attribute is how many were given to `write`, and
    `parts` what the manifest will say. For one thread.
    """

    def __init__(self, folder: Path, facts: LogMetadata, rows: int):
        if folder.exists():
            raise refused(f"{folder}", "there is something of this name", "give a name that is not taken")
        self.folder, self.rows, self.parts = folder, 0, list[PartEntry]()
        self._size, self._unfinished = rows, folder.with_name(folder.name + ".part")
        self._metadata = {KEY: msgspec.json.encode(facts), MARK: b"1"}
        self._held, self._waiting = list[Columns](), 0
        self._file: Any = None
        self._room = rows  # rows that the part that is being written still takes

    def __enter__(self) -> Self:
        if self._unfinished.exists():
            shutil.rmtree(self._unfinished)
        self._unfinished.mkdir(mode=0o700, parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        else:
            if self._file is not None:
                self._file.close()
            shutil.rmtree(self._unfinished)

    def write(self, columns: Columns) -> None:
        """Append rows: arrays (n,) by column, the same columns with the same types each time, among them `decision`,
        whose numbers rise. The arrays must not be changed afterwards.
        """
        self._held.append(columns)
        self._waiting += len(columns[NUMBER])
        self.rows += len(columns[NUMBER])
        while self._waiting >= (take := min(GROUP, self._room)):
            self._flush(take)

    def _flush(self, rows: int) -> None:
        """Write the first rows that wait, as one row group; end the part if it is full."""
        joined = {name: np.concatenate([part[name] for part in self._held]) for name in self._held[0]}
        table = pa.table({name: pa.array(values[:rows]) for name, values in joined.items()})
        if self._file is None:
            self._file = parquet.ParquetWriter(
                self._unfinished / self._name,
                table.schema.with_metadata(self._metadata),
                compression="zstd",
                compression_level=1,
                use_dictionary=False,
                write_statistics=[NUMBER],
                write_page_checksum=True,
            )
        self._file.write_table(table.replace_schema_metadata(self._metadata), row_group_size=rows)
        self._held = [{name: values[rows:].copy() for name, values in joined.items()}]
        self._waiting, self._room = self._waiting - rows, self._room - rows
        if not self._room:
            self._end_part()

    @property
    def _name(self) -> str:
        return f"part-{len(self.parts):05}.parquet"

    def _end_part(self) -> None:
        self._file.close()
        path = self._unfinished / self._name
        _force_to_disk(path)
        self.parts.append(PartEntry(path.name, self._size - self._room, path.stat().st_size))
        self._file, self._room = None, self._size

    def _finish(self) -> None:
        if self._waiting:
            self._flush(self._waiting)
        if self._file is not None:
            self._end_part()
        manifest = self._unfinished / MANIFEST
        manifest.write_bytes(msgspec.json.format(msgspec.json.encode(PartManifest(self.rows, tuple(self.parts)))))
        _force_to_disk(manifest)
        self._unfinished.rename(self.folder)


def _force_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
