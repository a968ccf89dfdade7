"""Log files, read as a stream: tables of text (see `bandit.tables.reader`) and Parquet. Only columns that
`column_types.column_naming` knows are read.

A Parquet file of ours says in its metadata what it is (see `bandit.tables.decision_log`); its q̂ are on [0, 1] and
become units of the reward here. Parquet may lie in a folder of files (`part_files`). Its parts, each of `rounds.PART`
chunks whatever the files and row groups are, can be read by several workers; a text file is one part. A log gives the
same rounds, chunk by chunk, from any format, and from any number of files.

    log = open_log(Path("log.parquet"))
    evaluations = evaluate(log.sources(), EvaluationConfig(targets))
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bandit.catalogue.decoding import closest
from bandit.catalogue.net_value import ArmWorth
from bandit.errors import InvalidRequest, Problem
from bandit.tables import reader
from bandit.tables.decision_log import KEY, LogMetadata
from bandit.tables.reader import Table, refused
from experiments.data import imported_logs, part_files
from experiments.data.column_types import (
    KNOWN,
    TEXT,
    ColumnNaming,
    ContextCells,
    ContextColumn,
    column_naming,
    context_columns,
    typed_column,
)
from experiments.data.imported_events import ImportedLog
from experiments.data.part_files import NUMBER, PartFile, part_table
from experiments.data.rounds import PART, LoggedRounds, RewardRange, RowLabel, Source, rounds_of

BATCH = 100_000  # rows of a chunk, at most
_NEEDED = ("action", "reward", "pscore")
_SHOWN = 20  # names of columns in an error
_MAPPED = (
    "action, reward, pscore, pi_e, pi_e_0 …, p_0 …, q_hat_0 …, eligible_0 …, x_0 …, position, user, at, version, "
    "holdout, segment"
)


class LogFile(NamedTuple):
    """A log that can be read: the path of its file or folder, and the naming of its columns.

    Made by `open_log`, which has checked that the log has the columns that every log needs. The object is immutable and
    holds no open file, so it can be sent to worker processes. `meta` is there for Parquet files of ours, `files` for
    Parquet, `table` for text files, `foreign` for logs of other programs, `context` for columns named as context.
    `numbered`: Parquet rows have the numbers of their decisions, which have to rise.
    """

    path: Path
    naming: ColumnNaming
    names: tuple[str, ...]  # of all columns of the file
    batch: int  # rows of a chunk
    meta: LogMetadata | None = None
    table: Table | None = None
    files: tuple[PartFile, ...] = ()
    numbered: bool = False
    foreign: ImportedLog | None = None
    context: tuple[ContextColumn, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read, as `rounds_of` calls them."""
        return tuple(self.naming.columns.values())

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the k arms in the order of their numbers, from the column action or from the metadata; empty if the
        log only numbers its arms.
        """
        return self.naming.arms or (self.meta.arms if self.meta else ())

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the reader of a report: how the text was decoded, and which number each named arm was given."""
        if self.foreign is not None:
            return self.foreign.notes
        named = ", ".join(f"{a} {arm}" for a, arm in enumerate(self.naming.arms))
        said = [f"x_{c.first + j} {c.column}{f'={w}' if w else ''}" for c in self.context for j, w in _words(c)]
        return (
            *(self.table.notes if self.table else ()),
            *([f"arms by name: {named}"] if named else []),
            *([f"context: {', '.join(said)}"] if said else []),
        )

    def source(self, part: int | None = None) -> Source:
        """The source of one part, numbered from 0 in the order of the log; by default that of the whole log.

        Calling the source opens the file and gives `LoggedRounds` of at most 100,000 rounds each. Reading raises
        InvalidRequest at the first row that cannot be used, or if Parquet data are damaged. The parts cover every round
        once.
        """
        return partial(_chunks, self, part)

    def sources(self) -> list[Source]:
        """The sources of all parts, in the order of the log: one for a text file."""
        return [self.source(part) for part in range(self.parts)]

    @property
    def parts(self) -> int:
        """The number of parts, each of which may be read by another worker; 1 for a text file and for no rows."""
        rows = sum(file.rows for file in self.files)
        return max(-(-rows // (PART * self.batch)), 1)

    @property
    def rewards(self) -> RewardRange | None:
        """The declared range of rewards, in the reward's own units; None for files without metadata of ours."""
        return None if self.meta is None else RewardRange(self.meta.reward.min, self.meta.reward.max)

    @property
    def worth(self) -> ArmWorth | None:
        """What rewards are worth by arm, net of costs; None where the file does not say."""
        if self.meta is None or not self.meta.gain:
            return None
        return ArmWorth(np.array(self.meta.gain), np.array(self.meta.cost))


def _words(column: ContextColumn) -> list[tuple[int, str]]:
    return list(enumerate(column.words)) or [(0, "")]


def open_log(path: Path, renamed: Mapping[str, str] | None = None, context: Sequence[str] = ()) -> LogFile:
    """Open a log, a file or a folder of Parquet files: recognise its format, read its header and count its arms. Rows
    are read later, by `LogFile.source`.

    `renamed`: {our column: the file's column}, from `--map`; `context`: columns of the file that become x_0 …, numbers
    or words. Raises InvalidRequest if the path is neither, a column in `renamed` or `context` does not exist, Parquet
    data are damaged, parts do not fit each other (`part_files.part_table`), or a column is missing that every log has
    (action, reward, pscore).
    """
    if not (path.is_file() or path.is_dir()):
        fix = "give a table as text, gzipped or not, a .parquet file, or a folder of them"
        raise refused("rounds", f"{path} is not a file", fix)
    for name in renamed or {}:
        if not KNOWN.fullmatch(name):
            raise refused(f"map {name}", "there is no such column of a log", f"one of {_MAPPED}")
    packed = path.is_dir()
    if not packed:
        with path.open("rb") as file:
            packed = file.read(4) == b"PAR1"
    foreign = None if packed else imported_logs.open_imported(path)
    if foreign is not None:
        log = _foreign_log(path, foreign, renamed or {}, context)
    else:
        log = _parquet_log(path, renamed or {}) if packed else _text_log(path, renamed or {})
    _check_columns(log)
    log = _with_context(log, context) if context else log
    rounds_of({name: np.zeros(0) for name in log.columns})  # complains of others that are missing
    return log


def _check_columns(log: LogFile) -> None:
    """Raise InvalidRequest if a column is missing that every log has; the fix names the file's own column that is
    spelled alike.
    """
    problems = []
    for name in _NEEDED:
        if name not in log.columns:
            near = [has for has in log.names if has.lower() == name]
            fix = f"say --map {name}={near[0] if near else 'NAME'}; the file has {_some(log.names)}"
            problems.append(Problem(name, f"there is no such column in {log.path}", fix))
    if problems:
        raise InvalidRequest(*problems)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _text_log(path: Path, renamed: Mapping[str, str]) -> LogFile:
    table = reader.read(str(path), partial(_open_bytes, path), renamed)
    drawn = Counter[str]()
    if "action" in table.names:
        j = table.place("action")
        drawn.update(row.cells[j] for row in table.rows())
    found = column_naming(str(path), table.names, drawn)
    for name in found.columns:
        table.place(name)  # complains of one that is there twice
    return LogFile(path, found, table.names, BATCH, table=table)


def _with_context(log: LogFile, context: Sequence[str]) -> LogFile:
    """The log with these columns of its file as context, once their cells were looked through."""
    own = [name for name in log.columns if re.fullmatch(r"x_?\d+", name)]
    if own:
        raise refused(
            "context", f"{log.path} has a column {own[0]} already", "leave --context out, or the columns x_0 …"
        )
    for name in context:
        if log.names.count(name) != 1 or context.count(name) != 1:
            raise refused(
                "context", f"{name!r} is not one column of {log.path}", f"one of {_some(log.names)}, once each"
            )
    cells = {name: ContextCells() for name in context}
    if log.table is not None:
        places = {name: log.table.place(name) for name in context}
        for row in log.table.rows():
            for name, j in places.items():
                cells[name].add((row.cells[j],))
    else:
        rows = range(sum(file.rows for file in log.files))
        for _, _, batch in part_files.batches(log.files, list(context), rows, BATCH):
            for name in context:
                cells[name].add(set(_cells(batch.column(name))))
    return log._replace(context=context_columns(str(log.path), cells))


def _foreign_log(path: Path, foreign: ImportedLog, renamed: Mapping[str, str], context: Sequence[str]) -> LogFile:
    if context:
        raise refused("context", f"{path} is no table, and its context is read as it is", "leave --context out")
    if renamed:
        raise refused("map", f"{path} is no table, and has no columns with other names", "leave --map out")
    names = tuple(foreign.columns)
    return LogFile(path, ColumnNaming(foreign.arms, {name: name for name in names}), names, BATCH, foreign=foreign)


def _foreign_pieces(foreign: ImportedLog, batch: int) -> Iterator["Piece"]:
    for first in range(0, len(foreign.lines), batch):
        rows = slice(first, first + batch)
        columns = {name: column[rows] for name, column in foreign.columns.items()}
        yield columns, _line_labels(foreign.name, foreign.lines[rows].tolist()), first


def _open_bytes(path: Path) -> IO[bytes]:
    return path.open("rb")


def _parquet_log(path: Path, renamed: Mapping[str, str]) -> LogFile:
    schema, parts, numbered = part_table(path)
    ours = _our_names(path, schema.names, renamed)
    action = next((column for column, name in ours.items() if name == "action"), None)
    drawn = Counter[str]()
    if action is not None and _is_text(schema.field(action).type):
        rows = range(sum(file.rows for file in parts))
        for _, _, batch in part_files.batches(parts, [action], rows, BATCH):
            drawn.update(_cells(batch.column(0)))
    found = column_naming(str(path), list(ours.values()), drawn)
    columns = {column: found.columns[name] for column, name in ours.items() if name in found.columns}
    meta = _meta((schema.metadata or {}).get(KEY))
    named = ColumnNaming(found.arms, columns)
    return LogFile(path, named, tuple(schema.names), BATCH, meta, files=parts, numbered=numbered)


def _our_names(path: Path, names: list[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """{column of the file: our name}, without columns whose name `renamed` gives to another one. Raises InvalidRequest
    for columns that the file does not have.
    """
    for our, their in renamed.items():
        if their not in names:
            raise refused(f"map {our}={their}", f"{path} has no column {their!r}", closest(their, names))
    back = {their: our for our, their in renamed.items()}
    return {name: back.get(name, name) for name in names if name in back or name not in renamed}


def _meta(text: bytes | None) -> LogMetadata | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=LogMetadata)
    except msgspec.DecodeError as error:
        raise InvalidRequest(Problem("journey_bandit", f"metadata: {error}", "write the log again")) from error


def _chunks(log: LogFile, part: int | None) -> Iterator[LoggedRounds]:
    if log.foreign is not None:
        pieces = _foreign_pieces(log.foreign, log.batch)
    else:
        pieces = _parquet_pieces(log, part) if log.table is None else _text_pieces(log, log.table)
    for columns, where, first in pieces:
        rounds = rounds_of(columns, where, first)
        if log.meta is not None and rounds.q_hat is not None:
            low, span = log.meta.reward.min, log.meta.reward.max - log.meta.reward.min
            rounds = rounds._replace(q_hat=low + span * rounds.q_hat)
        yield rounds


Piece = tuple[dict[str, NDArray[np.generic]], RowLabel, int]
"""Columns, how their rows are named, and the number of the first row in its file."""


def _text_pieces(log: LogFile, table: Table) -> Iterator[Piece]:
    places = {name: table.place(column) for column, name in log.naming.columns.items()}
    rows, first = table.rows(), 0
    while piece := list(islice(rows, log.batch)):
        where = _line_labels(table.name, [row.line for row in piece])
        cells = {name: [row.cells[j] for row in piece] for name, j in places.items()}
        columns = {n: typed_column(n, c, table.marks[places[n]], log.naming.arms, where) for n, c in cells.items()}
        for one in log.context:
            j = table.place(one.column)
            columns |= one.arrays([row.cells[j] for row in piece], table.marks[j], where)
        yield columns, where, first
        first += len(piece)


def _line_labels(name: str, lines: list[int]) -> RowLabel:
    return lambda i: f"{name}:{lines[i]}"


def _row_labels(places: list[tuple[Path, int, int]]) -> RowLabel:
    """Labels of the rows of a chunk, from its pieces: file, number of the first row in it, rows."""

    def label(i: int) -> str:
        for path, first, rows in places:
            if i < rows:
                return f"{path} row {first + i}"
            i -= rows
        return f"row {i} after the last"

    return label


def _parquet_pieces(log: LogFile, part: int | None) -> Iterator[Piece]:
    whole, size = sum(file.rows for file in log.files), PART * log.batch
    rows = range(whole) if part is None else range(part * size, min((part + 1) * size, whole))
    columns, first, last = list(log.naming.columns), rows.start, -1
    read = [*columns, *([NUMBER] if log.numbered and NUMBER not in columns else [])]
    read += [one.column for one in log.context if one.column not in read]
    for piece, where in _equal_pieces(log, read, rows):
        named = {log.naming.columns[name]: piece.column(name) for name in columns}
        if log.numbered:
            last = _check_rising(np.asarray(piece.column(NUMBER).to_numpy()), last, where)
        try:
            found = {name: _column(name, column, log.naming.arms, where) for name, column in named.items()}
        except pa.ArrowException as error:
            raise part_files.unreadable(log.path) from error
        for one in log.context:
            found |= one.arrays(_cells(piece.column(one.column)), ".", where)
        yield found, where, first
        first += piece.num_rows


def _equal_pieces(log: LogFile, columns: list[str], rows: range) -> Iterator[tuple[Any, RowLabel]]:
    """Tables of the rows of one chunk each, whatever the files and row groups, so that sums are those of the same log
    as text; and how their rows are named.
    """
    held, places, size = list[Any](), list[tuple[Path, int, int]](), 0
    for path, first, batch in part_files.batches(log.files, columns, rows, log.batch):
        at = 0
        while at < batch.num_rows:
            taken = min(batch.num_rows - at, log.batch - size)
            held.append(batch.slice(at, taken))
            places.append((path, first + at, taken))
            at, size = at + taken, size + taken
            if size == log.batch:
                yield pa.Table.from_batches(held), _row_labels(places)
                held, places, size = [], [], 0
    if size:
        yield pa.Table.from_batches(held), _row_labels(places)


def _check_rising(numbers: NDArray[Any], last: int, where: RowLabel) -> int:
    """The last of these numbers of decisions. Raises InvalidRequest unless they rise from row to row, `last` before."""
    wrong = np.diff(numbers, prepend=last) <= 0
    if wrong.any():
        row = int(np.argmax(wrong))
        raise refused(where(row), f"decision {numbers[row]:,} is there twice, or out of order", "export the log again")
    return int(numbers[-1])


_TEXTS = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_dictionary, pa.types.is_null),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
)


def _is_text(kind: Any) -> bool:
    """Whether cells of this Arrow type are read as a text file's would be: also bytes, which some programs write texts
    as, and columns of nulls.
    """
    return any(holds(kind) for holds in _TEXTS)


def _cells(column: Any) -> list[str]:
    return ["" if cell is None else _cell(cell) for cell in column.to_pylist()]


def _cell(cell: object) -> str:
    if not isinstance(cell, bytes):
        return str(cell).strip()
    try:
        return cell.decode().strip()
    except UnicodeDecodeError:  # e.g. the 16 bytes of a UUID
        return cell.hex()


def _column(name: str, column: Any, arms: tuple[str, ...], where: RowLabel) -> NDArray[np.generic]:
    """One Parquet column as a numpy array (n,); a missing value is NaN, or "" in text. Raises InvalidRequest for types
    that are neither numbers nor text.
    """
    kind = column.type
    if pa.types.is_nested(kind):
        raise refused(f"{where(0)}: {name}", f"cells of the type {kind} hold several values", "one value in a cell")
    if _is_text(kind) or (name in TEXT and not pa.types.is_integer(kind)) or (name in TEXT and column.null_count):
        return typed_column(name, _cells(column), ".", arms, where)
    if pa.types.is_temporal(kind):
        column = column.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None)).cast(pa.int64())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise refused(f"{where(0)}: {name}", f"cells of the type {kind} are not numbers", "numbers or text")
    found = np.asarray(column.to_numpy())
    if name == "holdout" and not np.isin(found, (0, 1)).all():
        place = int(np.argmin(np.isin(found, (0, 1))))
        raise refused(f"{where(place)}: holdout", "neither true nor false", "true or false")
    return found
