"""Logs in files, streamed: CSV (also .gz) and Parquet. Only the columns that `rounds` knows are read.

A Parquet file of ours says in its metadata, under `journey_bandit`, what it is; its q̂ are on [0, 1] and become units of
the reward here. Parts of a Parquet file, by row group, can be read by several workers; a CSV file is one part.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as pa_csv
from pyarrow import parquet

from bandit.errors import InvalidRequest, Problem
from experiments.rounds import Rewards, Rounds, Source, rounds_of

BATCH = 100_000  # rows of a chunk, at most
_BLOCK = 16 << 20  # bytes of CSV read at once
_KNOWN = re.compile(
    r"action|reward|pscore|pi_e|q_hat_logged|q_hat_under_pi_e|position|user|at|version|holdout|segment"
    r"|(pi_e_|q_hat_|p_|truth_|x_?)\d+"
)
_TYPES = {"at": pa.int64(), "user": pa.string(), "segment": pa.string(), "holdout": pa.bool_()}
_UNREADABLE = (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError)


class Reward(msgspec.Struct, frozen=True):
    """The reward of a stage, as it was declared."""

    kind: str
    min: float
    max: float
    value: float = 1.0


class Meta(msgspec.Struct, frozen=True):
    """What a Parquet log of ours says of itself."""

    app: str
    stage: str
    arms: tuple[str, ...]
    reward: Reward
    currency: str = ""
    scenario: str = ""
    seed: int = 0
    floor: float = 0.0


class LogFile(NamedTuple):
    """A log that can be read: which columns it has that we know, and in how many parts it comes."""

    path: Path
    columns: tuple[str, ...]
    parts: int
    meta: Meta | None = None

    def source(self, part: int = 0, of: int = 1) -> Source:
        """The chunks of one of `of` parts, in order. Reading raises InvalidRequest at the first unusable row."""
        return partial(_chunks, self, part, of)

    @property
    def rewards(self) -> Rewards | None:
        """The declared range of rewards."""
        return None if self.meta is None else Rewards(self.meta.reward.min, self.meta.reward.max)


def open_log(path: Path) -> LogFile:
    """Look at a file. InvalidRequest if it is no log."""
    if not path.is_file():
        raise InvalidRequest(Problem("rounds", f"{path} is not a file", "give a .csv, .csv.gz or .parquet file"))
    try:
        if path.suffix == ".parquet":
            with parquet.ParquetFile(path) as file:
                names, meta = file.schema_arrow.names, file.schema_arrow.metadata or {}
                parts = max(file.metadata.num_row_groups, 1)
        else:
            names, meta, parts = _header(path), {}, 1
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    known = tuple(name for name in names if _KNOWN.fullmatch(name))
    rounds_of({name: np.zeros(0) for name in known})  # complains of columns that are missing
    return LogFile(path, known, parts, _meta(meta.get(b"journey_bandit")))


def _header(path: Path) -> list[str]:
    """The first line's names."""
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else nullcontext(raw) as data:
        first = data.readline().decode("utf-8-sig")
    return [name.strip().strip('"') for name in first.split(",")]


def _meta(text: bytes | None) -> Meta | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=Meta)
    except msgspec.DecodeError as error:
        raise InvalidRequest(Problem("journey_bandit", f"metadata: {error}", "write the log again")) from error


def _chunks(log: LogFile, part: int, of: int) -> Iterator[Rounds]:
    first = _skipped(log, part, of)
    try:
        for batch in _parquet(log, part, of) if log.path.suffix == ".parquet" else _csv(log):
            for start in range(0, batch.num_rows, BATCH):
                piece = batch.slice(start, BATCH)
                yield _rounds(log, piece, first)
                first += piece.num_rows
    except _UNREADABLE as error:
        raise _unreadable(log.path, error) from error


def _skipped(log: LogFile, part: int, of: int) -> int:
    """Rows before a part."""
    if log.path.suffix != ".parquet":
        return 0
    with parquet.ParquetFile(log.path) as file:
        return sum(file.metadata.row_group(g).num_rows for g in range(log.parts * part // of))


def _parquet(log: LogFile, part: int, of: int) -> Iterator[Any]:
    edges = [log.parts * p // of for p in (part, part + 1)]
    with parquet.ParquetFile(log.path) as file:
        for group in range(edges[0], min(edges[1], file.metadata.num_row_groups)):  # asked for all, it may hold all
            yield from file.iter_batches(BATCH, row_groups=[group], columns=list(log.columns))


def _csv(log: LogFile) -> Iterator[Any]:
    types = {name: _TYPES.get(name, pa.float64()) for name in log.columns}
    options = pa_csv.ConvertOptions(include_columns=list(log.columns), column_types=types, strings_can_be_null=False)
    with pa_csv.open_csv(log.path, pa_csv.ReadOptions(block_size=_BLOCK), convert_options=options) as reader:
        yield from reader


def _rounds(log: LogFile, batch: Any, first: int) -> Rounds:
    columns = {name: _column(batch.column(i)) for i, name in enumerate(batch.schema.names)}
    if "user" in columns and (known := batch.column(batch.schema.names.index("user"))).null_count:
        columns["user"] = np.array(known.to_pylist(), dtype=object)  # whole numbers stay whole beside a gap
    rounds = rounds_of(columns, first)
    if log.meta is None or rounds.q_hat is None:
        return rounds
    low, span = log.meta.reward.min, log.meta.reward.max - log.meta.reward.min
    return rounds._replace(q_hat=low + span * rounds.q_hat)


def _column(column: Any) -> NDArray[np.generic]:
    """As numpy; text that recurs is keyed once for each word."""
    if not pa.types.is_string(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    coded = column.fill_null("").dictionary_encode()
    words = np.array(coded.dictionary.to_pylist(), dtype=np.str_)
    return words[coded.indices.to_numpy(zero_copy_only=False)] if len(words) else words


def _unreadable(path: Path, error: BaseException) -> InvalidRequest:
    return InvalidRequest(Problem("rounds", f"{path} cannot be read: {error}", "is it whole, and what its name says?"))
