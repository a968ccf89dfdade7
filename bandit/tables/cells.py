"""Cells: what one cell of a table means: missing, a number, true or false, a time, or text.

A number may have a decimal comma and groups of thousands: `1.234,5`, `1,234.5`. Two forms can be read in two ways,
`1,234` and `1.234`: `mark` says which decimal mark the column has, `evidence` what a cell tells.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "nat", "null", "none", "-", "–", "?"})
"""Words for a value that is not there, in lower case."""

_TRUE = {"true", "yes", "t", "y", "on", "wahr", "ja", "vrai", "oui", "verdadero", "sí", "si", "vero", "sì", "waar"}
_FALSE = {"false", "no", "f", "n", "off", "falsch", "nein", "faux", "non", "falso", "onwaar", "nee"}
_GAPS = " \u00a0\u202f\u2009\u2007'’"  # between thousands
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?", re.ASCII)
_SPACED = re.compile(rf"[+-]?\d{{1,3}}([{_GAPS}]\d{{3}})+([.,]\d*)?", re.ASCII)
_BY_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", re.ASCII)
_BY_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?", re.ASCII)
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
_INFINITE = {"inf", "infinity", "+inf", "-inf", "+infinity", "-infinity"}
_CLOCK = r"(\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?)\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?"
_TIME = re.compile(rf"(\d{{4}}-\d\d-\d\d)(?:[T ]{_CLOCK})?", re.ASCII | re.IGNORECASE)
_MINUTE = 60_000_000  # µs


def missing(cell: str) -> bool:
    """Whether the cell says that there is no value: one of the words in MISSING, in any case."""
    return cell.lower() in MISSING


def unnamed(cell: str) -> bool:
    """Whether the cell names nothing: as `missing`, but for names of arms and classes, where `none` in lower case is
    the name of "no nudge".
    """
    return cell != "none" and missing(cell)


def ambiguous(cell: str) -> bool:
    """Whether the cell's one comma or point may be a decimal mark or part thousands: `1,234`."""
    return _EITHER.fullmatch(cell) is not None


def evidence(cell: str) -> str:
    """Decimal mark, "." or ",", that a number tells which can be read in one way only; "" for any other cell."""
    if ambiguous(cell):
        return ""
    for pattern, thousands, mark in ((_BY_COMMA, ",", "."), (_BY_POINT, ".", ",")):
        if pattern.fullmatch(cell):
            return mark if thousands in cell else ""
    if _SPACED.fullmatch(cell):
        return "," if "," in cell else "." if "." in cell else ""
    if _COMMA.fullmatch(cell):
        return ","
    return "." if "." in cell and _PLAIN.fullmatch(cell) else ""


def number(cell: str, mark: str = ".") -> float | None:
    """Number in a cell; None if the cell is none. `mark`: the decimal mark where the cell could mean either. May be
    infinite, never NaN.
    """
    text = cell.replace("\u2212", "-")
    if _EITHER.fullmatch(text):
        text = text.replace(mark, "#").replace(",", "").replace(".", "").replace("#", ".")
    elif _BY_COMMA.fullmatch(text):
        text = text.replace(",", "")
    elif _BY_POINT.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif _SPACED.fullmatch(text):
        text = re.sub(rf"[{_GAPS}]", "", text).replace(",", ".")
    elif _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    elif text.lower() in _INFINITE:
        return float(text)
    return float(text) if _PLAIN.fullmatch(text) else None


def numeric(cell: str) -> bool:
    """Whether the cell is a finite number, whatever its decimal mark."""
    value = number(cell)
    return value is not None and bool(np.isfinite(value))


def boolean(cell: str) -> bool | None:
    """Boolean in a cell: in words, as spreadsheets of some languages write them, or as 1 and 0; None if the cell is
    neither.
    """
    word = cell.lower()
    if word in _TRUE or word in ("1", "1.0"):
        return True
    return False if word in _FALSE or word in ("0", "0.0") else None


def instant(cell: str) -> int | None:
    """Time in a cell, in µs since 1970, of an ISO 8601 text, taken as UTC where it names no zone; None if the cell is
    none.
    """
    match = _TIME.fullmatch(cell)
    if match is None:
        return None
    day, clock, zone = match.groups()
    try:
        local = np.datetime64(f"{day}T{(clock or '00:00').replace(',', '.')}")
    except ValueError:  # a thirteenth month
        return None
    at = int(local.astype("datetime64[us]").astype(np.int64))
    digits = (zone or "").lstrip("+-").replace(":", "")
    if not digits.isdigit():
        return at
    minutes = 60 * int(digits[:2]) + int(digits[2:] or 0)
    return at + (minutes if zone.startswith("-") else -minutes) * _MINUTE


class GroupedNumbers(NamedTuple):
    """Cells of a `column` like `1.719` that are read as thousands because `mark` is the decimal mark of others, though
    none of the column shows beyond doubt that it groups thousands: the index of the first `row`, and how many `cells`.
    """

    column: int
    row: int
    cells: int
    mark: str


class DecimalMarks(NamedTuple):
    """Decimal mark of each column; in `guessed` the indices of columns with commas where nothing in the file tells it;
    in `grouped` the cells that are taken for thousands because others have the other mark.
    """

    marks: tuple[str, ...]
    guessed: tuple[int, ...] = ()
    grouped: tuple[GroupedNumbers, ...] = ()


def marks_of(rows: Iterable[Sequence[str]], width: int, separator: str) -> DecimalMarks:
    """Decimal marks of `width` columns: what most of a column's cells that can be read in one way only tell, else what
    those of all columns tell. Where nothing tells, a comma is decimal unless commas separate the cells.
    """
    told, unsure, first = ([{".": 0, ",": 0} for _ in range(width)] for _ in range(3))
    groups = [False] * width
    for i, cells in enumerate(rows):
        for j, cell in enumerate(cells):
            if said := evidence(cell):
                told[j][said] += 1
                groups[j] = groups[j] or _groups(cell)
            elif ambiguous(cell):
                sign = "," if "," in cell else "."
                first[j][sign] = first[j][sign] if unsure[j][sign] else i
                unsure[j][sign] += 1
    points, commas = (sum(found[mark] for found in told) for mark in ".,")
    whole = "," if commas > points else "." if points else ""
    marks = tuple(_mark(found, open_, whole, separator) for found, open_ in zip(told, unsure, strict=True))
    silent = [j for j in range(width) if unsure[j][","] and not whole and told[j]["."] == told[j][","]]
    other = [{",": ".", ".": ","}[mark] for mark in marks]
    grouped = [
        GroupedNumbers(j, first[j][other[j]], unsure[j][other[j]], marks[j])
        for j in range(width)
        if unsure[j][other[j]] and not groups[j] and (told[j][marks[j]] or whole == marks[j] == ",")
    ]
    return DecimalMarks(marks, tuple(silent), tuple(grouped))


def _groups(cell: str) -> bool:
    """Whether a number that tells its decimal mark has marks between thousands: 1.234,5."""
    return "." in cell and "," in cell


def _mark(found: dict[str, int], unsure: dict[str, int], whole: str, separator: str) -> str:
    if found["."] != found[","]:
        return max(".,", key=found.__getitem__)
    if whole:
        return whole
    return "," if unsure[","] and not unsure["."] and separator != "," else "."


def numbers(cells: Sequence[str], mark: str = ".", *, words: bool = False) -> tuple[NDArray[np.float64], list[int]]:
    """Numbers of a column: values (n,), NaN where there is none, and the indices of cells that are neither numbers nor
    missing.

    `words`: true and false, yes and no count as 1 and 0.
    """
    if mark == ".":
        try:
            values = np.array(list(map(float, cells)))
        except ValueError:
            pass
        else:
            if np.isfinite(values).all() and all(cell.isascii() and "_" not in cell for cell in set(cells)):
                return values, []
    values, bad, known = np.full(len(cells), np.nan), list[int](), dict[str, float | None]()
    for i, cell in enumerate(cells):
        if cell not in known:
            known[cell] = np.nan if missing(cell) else _value(cell, mark, words)
        value = known[cell]
        if value is None:
            bad.append(i)
        else:
            values[i] = value
    return values, bad


def _value(cell: str, mark: str, words: bool) -> float | None:
    value = number(cell, mark)
    if value is None and words:
        said = boolean(cell)
        return None if said is None else float(said)
    return value
