"""Column types of a log: which column means what, and how its cells of text become numbers.

Names of arms become the numbers 0 … k − 1, times become µs since 1970 (UTC), true and false become 1 and 0.
`experiments.data.files` calls `column_naming` once for a file and `typed_column` for each column of each chunk.

Shapes: n rows, k arms.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.errors import InvalidRequest
from bandit.tables import cells as values
from bandit.tables.reader import also, refused
from experiments.data.rounds import RowLabel

KNOWN = re.compile(
    r"action|reward|pscore|pi_e|q_hat_logged|q_hat_under_pi_e|position|user|at|version|holdout|segment"
    r"|(pi_e_|q_hat_|p_|eligible_|truth_|x_?)\d+"
)
TEXT = ("user", "segment")
_FAMILIES = ("pi_e_", "q_hat_", "p_", "eligible_", "truth_")  # a column for each arm
_WORDS = re.compile(r"reward|holdout|x_?\d+|eligible_\d+")  # may say true and false
_MOST_ARMS = 1000
_MOST_WORDS = 50  # of a context


class ColumnNaming(NamedTuple):
    """Which columns of a file are read, and what they are called here.

    `arms`: names of the arms, in the order of their numbers; empty where the file numbers its arms. `columns`: {column
    of the file: our column}, only those that are read.
    """

    arms: tuple[str, ...]
    columns: dict[str, str]


def column_naming(file: str, names: Sequence[str], drawn: Mapping[str, int]) -> ColumnNaming:
    """The column naming of a file with the header `names`. `drawn`: how often each cell of the column action occurs.

    Arms are named if most cells of action are no numbers: "none" is arm 0, the others follow in alphabetical order.
    Columns like p_NAME count arms too that were never drawn.

    Raises InvalidRequest if arms are named in the column action and numbered in others, if there are more than 1,000
    names, or if a family of columns (p_NAME …) lacks an arm.
    """
    known = {name: name for name in names if KNOWN.fullmatch(name)}
    said = {cell: count for cell, count in drawn.items() if not values.unnamed(cell)}
    if 2 * sum(count for cell, count in said.items() if values.numeric(cell)) >= sum(said.values()):
        return ColumnNaming((), known)
    numbered = [name for name in known if re.fullmatch(rf"({'|'.join(_FAMILIES)})\d+", name)]
    if numbered:
        fix = f"call the column {numbered[0].rstrip('0123456789')}NAME, one for each arm, or number the actions from 0"
        raise refused(f"{file}: {numbered[0]}", "arms are numbered here and named in the column action", fix)
    families = {prefix: _family(prefix, names, said) for prefix in _FAMILIES}
    arms = {*said, *(arm for found in families.values() for arm in found)}
    if len(arms) > _MOST_ARMS:
        raise refused(f"{file}: action", f"{len(arms):,} different names", "name or number the arms, from 0")
    order = tuple(sorted(arms, key=lambda arm: (arm != "none", arm)))
    for prefix, found in families.items():
        if found and len(found) < len(order):
            lacks = next(arm for arm in order if arm not in found)
            raise refused(file, f"there is no column {prefix}{lacks}", f"give each arm a column: {', '.join(order)}")
        known |= {f"{prefix}{arm}": f"{prefix}{order.index(arm)}" for arm in found}
    return ColumnNaming(order, known)


def _family(prefix: str, names: Sequence[str], said: Iterable[str]) -> list[str]:
    """Names of the arms that columns like p_NAME speak of; none unless one of these arms was drawn, because other
    columns may begin alike.
    """
    ends = [name.removeprefix(prefix) for name in names if name.startswith(prefix) and not KNOWN.fullmatch(name)]
    return ends if set(ends) & set(said) else []


def typed_column(
    name: str, cells: Sequence[str], mark: str, arms: Sequence[str], where: RowLabel
) -> NDArray[np.generic]:
    """One column of text as the array (n,) that it means: int64 for action (if arms are named) and at (µs), bool for
    holdout, text for user and segment, float64 for the rest, NaN where a cell is empty.

    `mark`: the decimal mark of the column; `arms`: names of the arms, if there are any; `where`: names a row, for
    messages. Raises InvalidRequest with the first cell that cannot be read as what the column means, the number of such
    cells and the next of their rows.
    """
    if name in TEXT:
        return np.array(["" if values.missing(cell) else cell for cell in cells], dtype=np.str_)
    if name == "action" and arms:
        index = {arm: a for a, arm in enumerate(arms)}
        return np.array(
            _all_read(name, cells, [index.get(cell) for cell in cells], "an arm's name", where), dtype=np.int64
        )
    if name == "at":
        wanted = "a time such as 2026-05-01T12:00:00Z, or whole µs"
        return np.array(_all_read(name, cells, [_time(cell) for cell in cells], wanted, where), dtype=np.int64)
    if name == "holdout":
        return np.array(
            _all_read(name, cells, [values.boolean(cell) for cell in cells], "true or false", where), np.bool_
        )
    numbers, bad = values.numbers(cells, mark, words=_WORDS.fullmatch(name) is not None)
    if bad:
        wanted = "a number, or true or false" if _WORDS.fullmatch(name) else "a number"
        raise _unreadable(name, cells, bad, wanted, where)
    return numbers


class ContextColumn(NamedTuple):
    """Column of a file that is context: the columns x_<first> … of a log. `words`: those that are 1 where they stand in
    the cell, one column each; () for numbers.
    """

    column: str
    first: int
    words: tuple[str, ...] = ()

    def arrays(self, cells: Sequence[str], mark: str, where: RowLabel) -> dict[str, NDArray[np.float64]]:
        """{our column: values (n,)} of its cells. Raises InvalidRequest, with the rows, for cells without a number."""
        if self.words:
            column = np.array(cells, dtype=np.str_)
            return {f"x_{self.first + j}": (column == word).astype(np.float64) for j, word in enumerate(self.words)}
        numbers, bad = values.numbers(cells, mark, words=True)
        bad = sorted({*bad, *np.flatnonzero(~np.isfinite(numbers)).tolist()})
        if bad:
            wanted = "a number, or true or false, in every row"
            raise _unreadable(self.column, cells, bad, wanted, where)
        return {f"x_{self.first}": numbers}


class ContextCells:
    """Different cells of a context column, as many as tell whether it is of numbers or of words: at most 51 of either,
    however many the file has. `add` may be called with cells that were there before.
    """

    def __init__(self) -> None:
        self.numbers = set[str]()
        self.words = set[str]()

    def add(self, cells: Iterable[str]) -> None:
        """Note more cells; missing ones do not count."""
        for cell in cells:
            if cell in self.numbers or cell in self.words or values.missing(cell):
                continue
            held = self.numbers if values.numeric(cell) or values.boolean(cell) is not None else self.words
            if len(held) <= _MOST_WORDS:
                held.add(cell)


def context_columns(file: str, found: Mapping[str, ContextCells]) -> tuple[ContextColumn, ...]:
    """The context columns of a file. A column is of numbers if most of its different cells are; else each of its words
    is a column, and a missing cell is none of them.

    Raises InvalidRequest for a column of more than 50 words, or without any value.
    """
    columns, first = list[ContextColumn](), 0
    for name, cells in found.items():
        said = sorted(cells.numbers | cells.words)
        if not said:
            raise refused(f"{file}: {name}", "there is no value in the column", "leave --context out for it")
        words = () if len(cells.numbers) >= len(cells.words) else tuple(said)
        if len(words) > _MOST_WORDS:
            fix = f"give a number, or at most {_MOST_WORDS} groups"
            raise refused(f"{file}: {name}", f"a context of {len(words):,} different words or more", fix)
        columns.append(ContextColumn(name, first, words))
        first += max(len(words), 1)
    return tuple(columns)


def _time(cell: str) -> int | None:
    whole = re.fullmatch(r"([+-]?\d{1,18})(\.0*)?", cell, re.ASCII)
    return int(whole[1]) if whole else values.instant(cell)


def _all_read(name: str, cells: Sequence[str], found: list[int | None], wanted: str, where: RowLabel) -> list[int]:
    """The values of `found`, if every cell was read; else InvalidRequest with the first cells that were not."""
    bad = [i for i, value in enumerate(found) if value is None]
    if bad:
        raise _unreadable(name, cells, bad, wanted, where)
    return [value for value in found if value is not None]


def _unreadable(name: str, cells: Sequence[str], bad: Sequence[int], wanted: str, where: RowLabel) -> InvalidRequest:
    """One error for all cells `bad` of a chunk that cannot be read, in the words of the first."""
    cell = cells[bad[0]]
    problem = f"{cell!r} is not {wanted}" if cell else "there is no value"
    return refused(f"{where(bad[0])}: {name}", f"{problem}{also([where(i) for i in bad[1:]])}", wanted)
