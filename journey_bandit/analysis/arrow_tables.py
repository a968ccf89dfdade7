"""Arrow tables in and out: whatever has the Arrow PyCapsule interface as a file that the commands read, and results as
tables and data frames.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
from pyarrow import csv, parquet

from bandit.errors import InvalidRequest, Problem

_NAME = "the table"  # what errors and titles call a table that is no file


@runtime_checkable
class ArrowStream(Protocol):
    """Table of any library that has the Arrow PyCapsule interface: pyarrow, pandas, polars, DuckDB, and our results."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Capsule of an Arrow C stream; who takes it reads the table once."""
        ...


class ArrowResult:
    """Mixin of a result that is a table: `to_arrow` gives it, and all other forms are made from that."""

    def to_arrow(self) -> Any:
        """The result as a `pyarrow.Table`; numbers that are not known are null."""
        raise NotImplementedError

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Arrow PyCapsule interface: `polars.DataFrame(result)`, `pyarrow.table(result)`."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_frame(self) -> Any:
        """The result as a `pandas.DataFrame`. ImportError, which names the extra, if pandas is not installed."""
        need("pandas")
        return self.to_arrow().to_pandas()


def need(package: str) -> None:
    """Check that a package of the extra `notebook` is there. Raises ImportError, which names the extra, if not."""
    try:
        __import__(package)
    except ImportError as error:
        message = f"{package} is not installed: pip install 'journey-bandit[notebook]'"
        raise ImportError(message, name=package) from error


@contextmanager
def as_parquet(table: ArrowStream) -> Iterator[Path]:
    """Parquet file of a table, there until the context ends. The table is streamed: no more than a batch of it is held.
    Columns of lists and structures are left out: no log has such. Raises InvalidRequest for a table that is not
    readable, and calls the file "the table" in errors of ours.
    """
    with _temporary("rounds.parquet") as path:
        _write(table, path, parquet.ParquetWriter)
        yield path


@contextmanager
def as_text(table: ArrowStream, columns: Sequence[str] = ()) -> Iterator[Path]:
    """Comma-separated file of a table, there until the context ends; null is an empty cell, the first row is
    line 2. Columns of lists and structures are left out. Raises InvalidRequest as `as_parquet`, and for one of the
    `columns` that are needed if its cells are such.
    """
    with _temporary("table.csv") as path:
        _write(table, path, csv.CSVWriter, columns)
        yield path


def path_of(given: object, field: str) -> Path:
    """Path that was given in place of a table. Raises InvalidRequest, which names the argument `field`, for what is
    neither.
    """
    if isinstance(given, str | Path):
        return Path(given)
    fix = "give a path, or a table with the Arrow interface: of pyarrow, pandas from 2.2 on, polars or DuckDB"
    raise InvalidRequest(Problem(field, f"a {type(given).__name__} is no table", fix))


def title_of(path: Path, given: object) -> str:
    """Name of a log or table in titles: its path, or "the table" for one that is no file."""
    return _NAME if isinstance(given, ArrowStream) else str(path)


def _write(table: ArrowStream, path: Path, writer: Callable[[Path, Any], Any], needed: Sequence[str] = ()) -> None:
    reader = _reader(table)
    for name in needed:
        if name in reader.schema.names and pa.types.is_nested(reader.schema.field(name).type):
            kind = reader.schema.field(name).type
            fix = "give a column with one number, text or boolean in each row"
            raise InvalidRequest(Problem(name, f"its cells are of the type {kind}", fix))
    flat = [field for field in reader.schema if not pa.types.is_nested(field.type)]
    schema = pa.schema([pa.field(f.name, _plain_type(f.type)) for f in flat], reader.schema.metadata)
    with writer(path, schema) as opened:
        for batch in _batches(reader):
            opened.write_table(pa.table([_plain(batch.column(f.name), f) for f in schema], schema))


def _reader(table: ArrowStream) -> Any:
    try:
        reader = pa.RecordBatchReader.from_stream(table)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _unreadable(error) from error
    names = list(reader.schema.names)
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InvalidRequest(Problem(double[0], "two columns of the table have this name", "give each its own"))
    return reader


def _batches(reader: Any) -> Iterator[Any]:
    try:
        yield from reader
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> InvalidRequest:
    """What a library says of a table that it cannot hand over: with the column, where it names one."""
    said = ": ".join(map(str, error.args)).rstrip(".")
    named = re.search(r"for column (.+?) with type", said)
    fix = "give each column one name of its own, and cells of one type"
    return InvalidRequest(Problem(named[1] if named else _NAME, f"the table cannot be read: {said}", fix))


def _plain(column: Any, field: Any) -> Any:
    """The column (n,) of one batch in the type of the field."""
    try:
        while isinstance(column, pa.DictionaryArray | pa.ExtensionArray):
            if isinstance(column, pa.ExtensionArray):
                column = column.storage
            else:
                column = _plain(column.dictionary, field).take(column.indices)
        return column.cast(field.type)
    except (pa.ArrowException, ValueError, TypeError) as error:
        problem = f"cells of the type {column.type} cannot be read: {error}"
        raise InvalidRequest(Problem(field.name, problem, "make it numbers, texts or booleans")) from error


def _plain_type(kind: Any) -> Any:
    """The type as every writer of files knows it: of categories, the type of their values; of a library's own type, the
    one that it is stored as.
    """
    while pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    return pa.large_string() if pa.types.is_string_view(kind) else kind


@contextmanager
def _temporary(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="journey-bandit-") as folder:
        path = Path(folder) / name
        try:
            yield path
        except InvalidRequest as error:
            raise InvalidRequest(*(_renamed(problem, str(path)) for problem in error.problems)) from None


def _renamed(problem: Problem, path: str) -> Problem:
    field, said, fix = (text.replace(path, _NAME) for text in (problem.field, problem.problem, problem.fix))
    return Problem(field, said, fix)
