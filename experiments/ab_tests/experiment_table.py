"""Experiment tables: a row for each person, or for so many people with their sums, as spreadsheets and databases write
them (`bandit.tables.reader`): the arm, one or more outcomes, and covariates that were known before.

Outcomes are yes or no where every cell is 1 or 0 (TRUE, yes, …), or, in rows of sums, a whole number up to that of the
people; other outcomes are amounts. Where a row sums amounts, a column of their squares says how much they vary.

Shapes: n rows, d covariates.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Ints
from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest
from bandit.tables import cells as values
from bandit.tables import reader
from bandit.tables.reader import Table, also, refused

_MOST_ARMS = 50
_MOST_WORDS = 50  # of a covariate in words
_MOST_NAMED = 20  # columns that are named
_PEOPLE = ("n", "users", "visitors", "people", "persons", "customers", "participants", "subjects", "impressions")
_FEW_ROWS = 10  # an arm: tables with a row a person have more
_MANY_PEOPLE = 20.0  # of a row: parties and households are smaller
_SHOWN = ("views", "sessions", "exposures", "trials", "visits", "sent", "recipients")  # may be of one person, too


class TableColumns(NamedTuple):
    """Which columns of a file mean what: `arm`; `outcomes`; `people`, the number that a row stands for, "" for one;
    `covariates`; `squares`, {outcome: column of the sums of its squares}; and `user`, who a row is about, "" if nobody
    has several rows.
    """

    arm: str
    outcomes: tuple[str, ...]
    people: str = ""
    covariates: tuple[str, ...] = ()
    squares: Mapping[str, str] = {}
    user: str = ""


class OutcomeColumn(NamedTuple):
    """One outcome. `total` (n,): its sum over the people of a row, NaN where the cell is empty; `square` (n,): the sum
    of its squares, None where that is not known; `binary`: yes or no; `missing`: lines of the file without a value.
    """

    name: str
    total: Array
    square: Array | None
    binary: bool
    missing: tuple[int, ...]


class CountHint(NamedTuple):
    """Hint that rows are sums of people, though no column of counts was named: what was seen is `said`, with the `fix`;
    `certain` if the column's name leaves no doubt, and rows are few or people many.
    """

    said: str
    fix: str
    certain: bool


class ExperimentTable(NamedTuple):
    """A table of an experiment, in the order of the file.

    `arms`: names of the k arms, in alphabetical order; `arm` (n,): their numbers; `people` (n,): of a row; `x` (n,
    d): covariates, words as 0 and 1, `covariates` (d,) the names of their columns; `notes` on how the file was read;
    `count_like`: that rows look like sums of people, though they are read as one person each. Guaranteed by
    `read_table`: counts are whole and ≥ 0, covariates finite, outcomes finite or NaN.
    """

    name: str
    arms: tuple[str, ...]
    arm: Ints
    people: Array
    summed: bool
    outcomes: tuple[OutcomeColumn, ...]
    x: Array
    notes: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    count_like: CountHint | None = None


class _Cells(NamedTuple):
    """Cells of the columns that are read, with the lines that they are on."""

    table: Table
    lines: list[int]
    columns: dict[str, list[str]]

    def where(self, i: int, column: str) -> str:
        return f"{self.table.name}:{self.lines[i]}: {column}"

    def mark(self, column: str) -> str:
        return self.table.marks[self.table.place(column)]

    def refused(self, rows: Sequence[int], column: str, problem: str, fix: str) -> InvalidRequest:
        """One error for all `rows` that have it, in the words of the first: with their number and the next lines."""
        return refused(self.where(rows[0], column), f"{problem}{also([self.lines[i] for i in rows[1:]])}", fix)


def read_table(path: Path, wanted: TableColumns, arms: Sequence[str] = ()) -> ExperimentTable:
    """The experiment table of a text file. `arms`: names that have to be the arms, if they are known beforehand.

    Raises InvalidRequest, with file, line and column, for a column that is missing or named twice, a row without an arm
    or with another than `arms`, a cell that is no number, a count that is no whole number, a covariate without a value.
    """
    _check_distinct(wanted)
    found = _cells(reader.read(str(path), partial(_opened, path)), wanted)
    names, arm = _arms(found, wanted.arm, arms)
    count = _counts(found, wanted.people) if wanted.people else np.ones(len(arm))
    outcomes = tuple(_outcome(found, name, wanted, count) for name in wanted.outcomes)
    x = [(name, column) for name in wanted.covariates for column in _covariate(found, name)]
    wide = np.column_stack([column for _, column in x]) if x else np.zeros((len(arm), 0))
    of, hint = tuple(name for name, _ in x), _count_like(found, wanted, outcomes)
    notes = found.table.notes
    table = ExperimentTable(str(path), names, arm, count, bool(wanted.people), outcomes, wide, notes, of, hint)
    return _by_person(table, found, wanted) if wanted.user else table


def _count_like(found: _Cells, wanted: TableColumns, outcomes: Sequence[OutcomeColumn]) -> CountHint | None:
    """Hint that --count was forgotten: a column that is called like a number of people holds whole numbers, none below
    the outcome of its row and most of them above 1, and the outcome is a whole number that is above 1 too.
    """
    if wanted.people or wanted.user:
        return None
    given = {wanted.arm, *wanted.outcomes, *wanted.covariates}
    once = [name for name in found.table.names if found.table.names.count(name) == 1 and name not in given]
    names = [name for name in once if name.lower() in (*_PEOPLE, *_SHOWN)]
    sums = [one for one in outcomes if np.isfinite(one.total).all() and (one.total == np.floor(one.total)).all()]
    for name in names:
        places = found.table.place(name)
        count, bad = values.numbers([row.cells[places] for row in found.table.rows()], found.mark(name))
        if bad or not (count == np.floor(count)).all() or np.median(count) <= 1.0:
            continue
        for one in sums:
            if one.total.max() > 1.0 and (one.total >= 0.0).all() and (one.total <= count).all():
                said = f"rows look like sums of people: {name} goes to {count.max():,.0f} and {one.name} to "
                fix = f"say --count {name}, which makes {one.name} a rate; or --user if people have several rows"
                few = len(count) <= _FEW_ROWS * len(set(found.columns[wanted.arm]))
                certain = name.lower() in _PEOPLE and bool(few or np.median(count) >= _MANY_PEOPLE)
                return CountHint(f"{said}{one.total.max():,.0f}", fix, certain)
    return None


def _by_person(table: ExperimentTable, found: _Cells, wanted: TableColumns) -> ExperimentTable:
    """The table with one row a person, in the order of their first rows, whose covariates count: amounts are summed,
    yes is whether any row says so. A row whose person is not known is one of its own.
    """
    index, rows, person = dict[str, int](), list[int](), list[int]()
    for i, cell in enumerate(found.columns[wanted.user]):
        key = f"row {i}" if values.missing(cell) else f"user {cell}"
        if key not in index:
            index[key] = len(rows)
            rows.append(i)
        person.append(index[key])
    each, first = np.array(person), np.array(rows)
    moved = np.flatnonzero(table.arm != table.arm[first][each])
    if len(moved):
        fix = "write the arm that was assigned first in all rows of a person"
        first_moved = f"{found.columns[wanted.user][int(moved[0])]!r} was in another arm before"
        raise found.refused(moved.tolist(), wanted.arm, first_moved, fix)
    outcomes = []
    for one in table.outcomes:
        total = np.bincount(each, one.total, len(first)).astype(np.float64)
        total = np.minimum(total, 1.0) if one.binary else total
        outcomes.append(one._replace(total=total, square=total if one.binary else total * total))
    notes = (*table.notes, f"{len(each):,} rows of {len(first):,} people")
    people = np.ones(len(first))
    return table._replace(arm=table.arm[first], people=people, outcomes=tuple(outcomes), x=table.x[first], notes=notes)


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _check_distinct(wanted: TableColumns) -> None:
    if wanted.people and wanted.covariates:
        fix = "give one row a person, or leave --covariate out"
        raise refused("covariate", "rows of sums have no covariates of persons", fix)
    if wanted.people and wanted.user:
        raise refused("user", "rows of sums are not of one person", "leave --user or --count out")
    given = [wanted.arm, wanted.user, *wanted.outcomes, *wanted.covariates, *wanted.squares.values(), wanted.people]
    twice = [name for i, name in enumerate(given) if name and name in given[:i]]
    if twice:
        raise refused(twice[0], "the column is given twice", "name each column once")


def _cells(table: Table, wanted: TableColumns) -> _Cells:
    read = [wanted.arm, *wanted.outcomes, *wanted.covariates, *wanted.squares.values(), wanted.people, wanted.user]
    places = {name: _place(table, name) for name in read if name}
    lines, columns = list[int](), {name: list[str]() for name in places}
    for row in table.rows():
        lines.append(row.line)
        for name, j in places.items():
            columns[name].append(row.cells[j])
    if not lines:
        raise refused(table.name, "there are no rows below the names", "give a table with one row a person")
    return _Cells(table, lines, columns)


def _place(table: Table, name: str) -> int:
    if name not in table.names:
        shown = ", ".join(repr(given) for given in table.names[:_MOST_NAMED])
        raise refused(table.name, f"there is no column {name!r}", f"one of {shown}")
    return table.place(name)


def _arms(found: _Cells, column: str, declared: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    cells = found.columns[column]
    empty = [i for i, cell in enumerate(cells) if values.unnamed(cell)]
    if empty:
        raise found.refused(empty, column, "there is no arm", "write the arm that was assigned")
    seen = sorted(set(cells))
    if declared:
        strange = [i for i, cell in enumerate(cells) if cell not in declared]
        absent = [name for name in declared if name not in seen]
        if strange and absent:
            has = f"{found.where(strange[0], column)} has {cells[strange[0]]!r}"
            raise refused("shares", f"no row has the arm {absent[0]!r}, and {has}", closest(absent[0], seen))
        if strange:
            what = f"no share is declared for the arm {cells[strange[0]]!r}"
            raise found.refused(strange, column, what, f"declare --shares of all arms: {', '.join(seen)}")
        seen = sorted(declared)
    if len(seen) > _MOST_ARMS:
        fix = "name the column that says which arm was assigned"
        raise refused(f"{found.table.name}: {column}", f"{len(seen):,} different arms", fix)
    index = {name: a for a, name in enumerate(seen)}
    return tuple(seen), np.array([index[cell] for cell in cells], dtype=np.int64)


def _counts(found: _Cells, column: str) -> Array:
    counts = _numbers(found, column, words=False)
    wrong = ~((counts >= 0.0) & (counts == np.floor(counts)))  # NaN too
    if wrong.any():
        i = int(np.argmax(wrong))
        what = f"{found.columns[column][i]!r} is not a number of people"
        raise refused(found.where(i, column), what, "a whole number, 0 or more")
    return counts


def _outcome(found: _Cells, name: str, wanted: TableColumns, count: Array) -> OutcomeColumn:
    total = _numbers(found, name, words=not wanted.people)
    known = np.isfinite(total)
    missing = tuple(found.lines[i] for i in np.flatnonzero(~known))
    whole = (total[known] == np.floor(total[known])) & (total[known] >= 0.0) & (total[known] <= count[known])
    binary = bool(whole.all()) and name not in wanted.squares
    if name in wanted.squares:
        return OutcomeColumn(name, total, _squares(found, name, wanted.squares[name], total, count), False, missing)
    square = total if binary else None if wanted.people else total * total
    if square is None:
        i = int(np.flatnonzero(known)[np.argmin(whole)])
        what = f"{found.columns[name][i]} of {count[i]:,.0f} people is no count of yes or no, and sums do not say how "
        fix = f"give --squares {name}=COLUMN, the sums of squares, or a table with one row a person"
        raise refused(found.where(i, name), f"{what}much amounts vary", fix)
    return OutcomeColumn(name, total, square, binary, missing)


def _squares(found: _Cells, name: str, column: str, total: Array, count: Array) -> Array:
    square = _numbers(found, column, words=False)
    least = total * total / np.maximum(count, 1.0)
    wrong = np.isfinite(total) & ~(square >= least * (1.0 - 1e-9))
    if wrong.any():
        i = int(np.argmax(wrong))
        least_said = f"{count[i]:,.0f} people with a sum of {total[i]:g}"
        what = f"{found.columns[column][i]!r} is less than the squares of {least_said}"
        raise refused(found.where(i, column), what, f"the sum over people of the square of {name}")
    return square


def _numbers(found: _Cells, column: str, *, words: bool) -> Array:
    """Numbers of a column, NaN where a cell is empty. InvalidRequest with the cells that are none."""
    numbers, bad = values.numbers(found.columns[column], found.mark(column), words=words)
    bad = sorted({*bad, *np.flatnonzero(np.isinf(numbers)).tolist()})
    if bad:
        wanted = "a number, or true or false" if words else "a number"
        raise found.refused(bad, column, f"{found.columns[column][bad[0]]!r} is not {wanted}", wanted)
    return numbers


def _covariate(found: _Cells, name: str) -> list[NDArray[np.float64]]:
    """Columns of numbers of one covariate: itself, or 0 and 1 for each of its words but the first."""
    cells = found.columns[name]
    empty = [i for i, cell in enumerate(cells) if values.missing(cell)]
    if empty:
        more = f" (and {len(empty) - 1:,} more rows)" if len(empty) > 1 else ""
        fix = "write a value for everybody, such as the mean, or leave the covariate out"
        raise refused(found.where(empty[0], name), f"there is no value{more}", fix)
    numbers, bad = values.numbers(cells, found.mark(name), words=True)
    if len(bad) <= len(cells) // 2 and bad:
        raise refused(found.where(bad[0], name), f"{cells[bad[0]]!r} is not a number as most cells are", "a number")
    if not bad:
        if not np.isfinite(numbers).all():
            i = int(np.argmin(np.isfinite(numbers)))
            raise refused(found.where(i, name), f"{cells[i]!r} is not finite", "a number")
        return [numbers]
    known = sorted(set(cells))
    if len(known) > _MOST_WORDS:
        fix = "give a number, or fewer groups"
        raise refused(f"{found.table.name}: {name}", f"a covariate of {len(known):,} different words", fix)
    column = np.array(cells)
    return [(column == word).astype(np.float64) for word in known[1:]]
