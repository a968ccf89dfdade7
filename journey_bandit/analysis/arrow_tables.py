"""Arrow tables in and out: whatever has the Arrow PyCapsule interface as a file that the commands read, and results as
tables and data frames.
"""

import tempfile
from collections.abc import Iterator
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
    Raises InvalidRequest for a table that is not readable, and calls the file "the table" in errors of ours.
    """
    with _temporary("rounds.parquet") as path:
        reader = _reader(table)
        schema = _plain(reader.schema)
        with parquet.ParquetWriter(path, schema) as writer:
            for batch in reader:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
        yield path


@contextmanager
def as_text(table: ArrowStream) -> Iterator[Path]:
    """Comma-separated file of a table, there until the context ends; null is an empty cell, the first row is
    line 2. Raises InvalidRequest as `as_parquet`.
    """
    with _temporary("table.csv") as path:
        reader = _reader(table)
        schema = _plain(reader.schema)
        with csv.CSVWriter(path, schema) as writer:
            for batch in reader:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
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


def _reader(table: ArrowStream) -> Any:
    reader = pa.RecordBatchReader.from_stream(table)
    names = list(reader.schema.names)
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InvalidRequest(Problem(double[0], "two columns of the table have this name", "give each its own"))
    return reader


def _plain(schema: Any) -> Any:
    """The schema with texts as every writer of files knows them."""
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema], schema.metadata)


def _plain_type(kind: Any) -> Any:
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
