"""Parquet log of a simulation, streamed: one row for each decision, in order, in row groups.

The only file of simulations that knows pyarrow. Columns and metadata are those of `bandit.tables.decision_log`, which
`experiments` reads too.

A writer holds one row group, whatever the number of rows. The file has another name until it is whole. The digest is of
the content: it does not depend on how the rows were cut, on compression, or on who wrote the file.

Shapes: n rows, d features, k arms.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from bandit.arrays import Array
from bandit.errors import InvalidRequest, Problem
from bandit.tables.decision_log import FLOAT, KEY, PLAIN, WHOLE, LogMetadata, column_names

ROWS = 2**16
"""Of a row group: 30 MB while it is collected, with 6 arms and 20 features and the truth."""

_TYPES = {"<i8": pa.int64(), "<i2": pa.int16(), "|b1": pa.bool_(), "<f8": pa.float64()}


class LogRows(NamedTuple):
    """n decisions in the order in which they were made. `truth` and `regret` are there both or neither."""

    user: NDArray[np.int64]  # (n,)
    at: NDArray[np.int64]  # (n,) µs
    version: NDArray[np.int64]  # (n,) of the policy
    action: NDArray[np.intp]  # (n,)
    reward: Array  # (n,)
    pscore: Array  # (n,) propensity of the action
    holdout: NDArray[np.bool_]  # (n,)
    x: Array  # (n, d)
    p: Array  # (n, k)
    q_hat: Array  # (n, k)
    truth: Array | None = None  # (n, k)
    regret: Array | None = None  # (n,)


class LogDigest:
    """Content digest of a log: SHA-256 of facts, names and columns, each column as one little-endian stream; equal
    however rows are cut into pieces.
    """

    def __init__(self, facts: LogMetadata, names: list[str]):
        said = msgspec.json.decode(msgspec.json.encode(facts), type=LogMetadata)  # as it is read: 0 becomes 0.0
        self._facts = msgspec.json.encode(said, order="sorted")
        self._streams = {name: hashlib.sha256() for name in names}

    def add(self, columns: dict[str, NDArray[np.generic]]) -> None:
        """Add more rows of every column, in their canonical types, each (n,)."""
        for name, values in columns.items():
            self._streams[name].update(np.ascontiguousarray(values).data)

    def hex(self) -> str:
        """The digest of the rows added so far, hexadecimal. More rows may be added afterwards."""
        whole = hashlib.sha256(self._facts)
        for name, stream in sorted(self._streams.items()):
            whole.update(name.encode() + b"\0" + stream.digest())
        return whole.hexdigest()


class LogWriter:
    """Writer of a log that grows by `write`; in a `with` block the file is finished at its end, and removed if that
    raises.

    Until then its name ends in `.part`. What an earlier run left under either name is replaced. `d`: columns of x;
    `truth`: whether rows have truth and regret; `rows` as an argument is the size of row groups, as an attribute how
    many rows were written. `digest` is that of the finished log. For one thread.
    """

    def __init__(self, path: Path, facts: LogMetadata, d: int, *, truth: bool = True, rows: int = ROWS):
        self.path, self.rows = path, 0
        self._part = path.with_name(path.name + ".part")
        self._names = column_names(d, len(facts.arms), truth=truth)
        self._shapes = (d, len(facts.arms), truth)
        self._size, self._held, self._waiting = rows, 0, list[dict[str, NDArray[np.generic]]]()
        self._digest = LogDigest(facts, self._names)
        fields = [pa.field(name, _TYPES[WHOLE.get(name, FLOAT)], nullable=False) for name in self._names]
        self._schema = pa.schema(fields, metadata={KEY: msgspec.json.encode(facts)})
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = parquet.ParquetWriter(
            self._part,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self._file.close()
            self._part.unlink()

    @property
    def digest(self) -> str:
        """Content digest, hexadecimal, of the rows written so far."""
        return self._digest.hex()

    def write(self, rows: LogRows) -> None:
        """Append n decisions. Raises InvalidRequest with every column whose shape does not fit the log, or the column
        whose values are not whole numbers where they have to be. The arrays may be changed afterwards: they are copied.
        """
        columns = _columns(rows, *self._shapes)
        self._digest.add(columns)
        self._waiting.append(columns)
        self._held += len(rows.user)
        self.rows += len(rows.user)
        if self._held >= self._size:
            self._flush(self._held - self._held % self._size)

    def finish(self) -> None:
        """Write the rows that wait, force them to disk, and give the file its name: from then on it is whole, and never
        before.
        """
        self._flush(self._held)
        self._file.close()
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self.path)

    def _flush(self, rows: int) -> None:
        """Write the first rows that wait, in groups of one size."""
        if not rows:
            return
        joined = {name: np.concatenate([part[name] for part in self._waiting]) for name in self._names}
        table = pa.table([pa.array(joined[name][:rows]) for name in self._names], schema=self._schema)
        self._file.write_table(table, row_group_size=self._size)
        self._waiting = [{name: values[rows:].copy() for name, values in joined.items()}]
        self._held -= rows


def facts(path: Path) -> LogMetadata:
    """The metadata of a log. Raises InvalidRequest if the file is no log of ours."""
    with _opened(path) as file:
        return _shape(path, file)[0]


def read(path: Path, rows: int = ROWS) -> Iterator[LogRows]:
    """The rows of a log in pieces of at most `rows` rows, in order. Raises InvalidRequest, when the first piece is
    asked for, if the file is no log of ours.
    """
    with _opened(path) as file:
        said, d, _ = _shape(path, file)
        known = file.schema_arrow.names
        for batch in file.iter_batches(rows):
            columns = [batch.column(i).to_numpy(zero_copy_only=False) for i in range(len(known))]
            yield _rows(dict(zip(known, columns, strict=True)), d, len(said.arms))


def digest(path: Path) -> str:
    """Content digest, hexadecimal, of a log file: what its writer's `digest` was. Raises InvalidRequest if it is no log
    of ours.
    """
    with _opened(path) as file:
        said, d, truth = _shape(path, file)
    found = LogDigest(said, column_names(d, len(said.arms), truth=truth))
    for rows in read(path):
        found.add(_columns(rows, d, len(said.arms), truth))
    return found.hex()


def _columns(rows: LogRows, d: int, k: int, truth: bool) -> dict[str, NDArray[np.generic]]:
    """Each column in its canonical type, and a copy: one NaN, no −0, nothing that the caller may change later."""
    n, wide = len(rows.user), {"x": d, "p": k, "q_hat": k, "truth": k}
    parts = {name: values for name, values in rows._asdict().items() if values is not None}
    problems = [
        Problem(name, f"shape {values.shape}", f"the log was opened for {expected}")
        for name, values in parts.items()
        if values.shape != (expected := (n, wide[name]) if name in wide else (n,))
    ]
    if {"truth", "regret"} & parts.keys() != ({"truth", "regret"} if truth else set()):
        problems.append(Problem("truth, regret", "there in some rows and not in others", "open the log as they are"))
    if problems:
        raise InvalidRequest(*problems)
    columns: dict[str, NDArray[np.generic]] = {}
    for name, values in parts.items():
        each = {f"{name}_{i}": values[:, i] for i in range(wide[name])} if name in wide else {name: values}
        columns |= {column: _canonical(column, numbers) for column, numbers in each.items()}
    return columns


def _canonical(name: str, values: NDArray[Any]) -> NDArray[np.generic]:
    with np.errstate(invalid="ignore"):  # NaN as a whole number is refused below
        made = values.astype(WHOLE.get(name, FLOAT), order="C", casting="unsafe", copy=True)
    if made.dtype.kind != "f":
        if made.dtype.kind == "i" and not np.array_equal(made, values):
            raise InvalidRequest(Problem(name, f"not whole, or beyond {made.dtype.name}", "whole numbers"))
        return made
    made += 0.0
    made[np.isnan(made)] = np.nan
    return made


def _rows(columns: dict[str, NDArray[Any]], d: int, k: int) -> LogRows:
    def wide(name: str, width: int) -> Array:
        parts = [columns[f"{name}_{i}"] for i in range(width)]
        return np.column_stack(parts) if parts else np.zeros((len(columns["user"]), 0))

    plain = {name: columns[name] for name in PLAIN if name != "action"}
    made = LogRows(
        **plain, action=columns["action"].astype(np.intp), x=wide("x", d), p=wide("p", k), q_hat=wide("q_hat", k)
    )
    return made._replace(truth=wide("truth", k), regret=columns["regret"]) if "regret" in columns else made


def _opened(path: Path) -> Any:
    try:
        return parquet.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise _unusable(path, str(error)) from error


def _shape(path: Path, file: Any) -> tuple[LogMetadata, int, bool]:
    """Metadata of an open log, the number d of its features, and whether the truth is there. Raises InvalidRequest if
    its columns are not those of a log.
    """
    known = file.schema_arrow.names
    text = (file.schema_arrow.metadata or {}).get(KEY)
    if text is None:
        raise _unusable(path, "its metadata has no `journey_bandit`")
    try:
        said = msgspec.json.decode(text, type=LogMetadata)
    except msgspec.DecodeError as error:
        raise _unusable(path, f"metadata `journey_bandit`: {error}") from error
    d, truth = sum(name.startswith("x_") for name in known), "regret" in known
    if known != column_names(d, len(said.arms), truth=truth):
        raise _unusable(path, f"columns {known} are not those of a log of {len(said.arms)} arms")
    return said, d, truth


def _unusable(path: Path, problem: str) -> InvalidRequest:
    return InvalidRequest(Problem("log", f"{path}: {problem}", "give a Parquet log that the simulator wrote"))
