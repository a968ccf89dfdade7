"""Table reader: tables in text files, as spreadsheets and databases write them; one reader for every command.

Found out from the file: its encoding (UTF-8 or UTF-16 with or without a byte order mark, else Windows-1252, which is
said), gzip or not, the separator (comma, semicolon, tab, pipe, or blanks), and the decimal mark of every column. What
cannot be used is refused by `FILE:LINE`. The file is streamed: nothing here holds more than a row.

The reader opens nothing: whoever calls it hands it a function that does.

    table = read("log.csv", lambda: path.open("rb"))
    at = table.place("reward")
    rewards = [row.cells[at] for row in table.rows()]
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import IO, NamedTuple, cast

from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, Problem
from bandit.tables.cells import DecimalMarks, GroupedNumbers, marks_of, number

Opened = Callable[[], IO[bytes]]

_SEPARATORS = ("\t", ";", "|", ",")
_BLANKS = " "
_MOST_PLACES = 5  # that are named after the first
_SAMPLE = 50  # rows that tell the separator
_BLOCK = 1 << 20  # bytes
_COMMAS = re.compile(r"\d,\d|(^|\s|\x1f)[+-]?,\d")  # a row whose numbers may have another decimal mark
_POINTS = re.compile(r"\.\d+\.")  # or points between thousands
_BYTE_ORDER = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the next one
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF32_BE, "utf-32"),
)
_NO_MARK = ((re.compile(rb"(?:[^\0]\0){2}"), "utf-16-le"), (re.compile(rb"(?:\0[^\0]){2}"), "utf-16-be"))
_BROKEN = (gzip.BadGzipFile, EOFError, zlib.error, UnicodeError)


class TableRow(NamedTuple):
    """Row of a table: its cells without surrounding blanks, and the line of the file, from 1, on which they begin."""

    line: int
    cells: list[str]


class TextLayout(NamedTuple):
    """Layout of a text file of rows: its encoding and separator, notes on how it was read, and `opened`, the function
    that opens it.
    """

    name: str
    opened: Opened
    encoding: str
    separator: str
    notes: tuple[str, ...] = ()

    def rows(self) -> Iterator[TableRow]:
        """Rows of cells from the first, all of one width; the file is opened anew on each call. Raises InvalidRequest,
        which names the line that has another width.
        """
        width = 0
        for row in _split(self):
            width = width or len(row.cells)
            cells = row.cells
            if len(cells) == width:
                yield row
            elif len(cells) > width and not any(cells[width:]):
                yield TableRow(row.line, cells[:width])
            else:
                short = f"no value in column {len(cells) + 1}: " if len(cells) < width else ""
                what = f"{short}the line has {len(cells)} cells, the first has {width}"
                fix = f"give it {width}, and quote cells that hold the separator"
                raise refused(f"{self.name}:{row.line}", what, fix)


class Table(NamedTuple):
    """Table: the rows of a file under the names of their columns, and the decimal mark of each column.

    Guarantees: immutable; rows are streamed, and the file has been passed over once, so that a line of another width
    was found before anything is used.
    """

    text: TextLayout
    names: tuple[str, ...]
    marks: tuple[str, ...]  # decimal mark of each column
    header: bool

    @property
    def name(self) -> str:
        """Name of the file, as it was given; messages begin with it."""
        return self.text.name

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for a reader on how the file was read: a guessed encoding, a guessed decimal mark."""
        return self.text.notes

    def rows(self) -> Iterator[TableRow]:
        """Rows of the table without the line of names; the file is opened anew on each call. Raises InvalidRequest as
        `TextLayout.rows`.
        """
        return islice(self.text.rows(), int(self.header), None)

    def place(self, column: str) -> int:
        """Index of the column, from 0. Raises InvalidRequest if it is not there, or twice."""
        found = [j for j, name in enumerate(self.names) if name == column]
        if len(found) == 1:
            return found[0]
        if found:
            raise refused(self.name, f"{len(found)} columns are called {column!r}", "give each its own name")
        fix = f"{closest(column, [name for name in self.names if name])}; or say --map {column}=NAME"
        raise refused(self.name, f"there is no column {column!r}", fix)

    def at(self, row: TableRow, column: str) -> str:
        """Place of a cell for messages, `FILE:LINE: COLUMN`."""
        return f"{self.name}:{row.line}: {column}"


def refused(field: str, problem: str, fix: str) -> InvalidRequest:
    """InvalidRequest for one problem; callers raise it."""
    return InvalidRequest(Problem(field, problem, fix))


def also(places: Sequence[object]) -> str:
    """Where the same is wrong too, to be put after a problem: ", and in 17 more rows: 6, 7, 9, …"; "" for no places."""
    if not places:
        return ""
    shown = ", ".join(map(str, places[:_MOST_PLACES]))
    rows = f"{len(places):,} more row{'' if len(places) == 1 else 's'}"
    return f", and in {rows}: {shown}{', …' if len(places) > _MOST_PLACES else ''}"


def text_of(name: str, opened: Opened) -> TextLayout:
    """Layout of the file of that name, found out from its first rows. Raises InvalidRequest if it is empty, an archive,
    damaged, or not text.
    """
    encoding, notes = _encoding(name, opened)
    text = TextLayout(name, opened, encoding, ",", notes)
    with _lines(text) as lines, _explained(name):
        sample = [line for line in islice(lines, 2 * _SAMPLE) if line.strip()][:_SAMPLE]
    if not sample:
        raise refused(name, "there are no lines in it", "give a file with a line of names and one line a row")
    if any("\0" in line for line in sample):
        raise refused(name, "it is not text", "give a table as text: CSV in UTF-8, gzipped or not")
    said = re.fullmatch(r'"?sep=(.)"?', sample[0].strip("\r\n"))
    return text._replace(separator=said[1] if said else _separator(sample))


def text_lines(name: str, opened: Opened) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines of a file that is no table, decoded as a table's are, without line ends.
    Raises InvalidRequest if it is damaged or not text.
    """
    encoding, _ = _encoding(name, opened)
    with _lines(TextLayout(name, opened, encoding, ",")) as lines, _explained(name):
        for number, line in enumerate(lines, 1):
            yield number, line.rstrip("\r\n")


def table_of(text: TextLayout, *, header: bool = True, renamed: Mapping[str, str] | None = None) -> Table:
    """Table in a text, by the names in its first line, or 1, 2, … without one.

    `renamed`: {our name: the file's}. Raises InvalidRequest if a line has another number of cells than the first, or
    the file has none of the names.
    """
    first = next(text.rows())
    names = tuple(first.cells) if header else tuple(str(j + 1) for j in range(len(first.cells)))
    ours = {}
    for our, their in (renamed or {}).items():
        if names.count(their) != 1:
            fix = closest(their, filter(None, names))
            raise refused(f"map {our}={their}", f"{text.name} has no column {their!r}", fix)
        ours[their] = our
    names = tuple(ours.get(name, "" if name in (renamed or {}) else name) for name in names)
    marks, guessed, grouped = _marks(text, len(names), header)
    read_as = {".": "thousands, as in 1234", ",": "a decimal mark, as in 1.234"}
    notes = [
        f"column {names[j] or j + 1}: the comma of numbers like 1,234 is read as {read_as[marks[j]]}" for j in guessed
    ]
    notes += [_grouped(text, names, one, header) for one in grouped]
    return Table(text._replace(notes=(*text.notes, *notes)), names, marks, header)


def read(name: str, opened: Opened, renamed: Mapping[str, str] | None = None) -> Table:
    """Table in a file whose first line names its columns: `text_of`, then `table_of`. Raises
    InvalidRequest as they do.
    """
    return table_of(text_of(name, opened), renamed=renamed)


def _marks(text: TextLayout, width: int, header: bool) -> DecimalMarks:
    """Also passes over the whole file once, so that a line of another width is found before anything is used."""
    marked = False
    for row in islice(text.rows(), int(header), None):
        marked = marked or _marked("\x1f".join(row.cells))
    if not marked:
        return DecimalMarks((".",) * width)
    return marks_of((row.cells for row in islice(text.rows(), int(header), None)), width, text.separator)


def _grouped(text: TextLayout, names: Sequence[str], found: GroupedNumbers, header: bool) -> str:
    """Note on numbers such as 1.719 where decimal marks are commas: they may be one or the other."""
    row = next(islice(text.rows(), int(header) + found.row, None))
    cell, mark = row.cells[found.column], "a comma" if found.mark == "," else "a point"
    value = f"{number(cell, found.mark):.0f}"
    more = f", as are {found.cells - 1:,} more cells" if found.cells > 1 else ""
    return (
        f"column {names[found.column] or found.column + 1}: {cell} in line {row.line} is read as {value}, because "
        f"{mark} is the decimal mark of other numbers{more}. Write {value} if that is right"
    )


def _marked(cells: str) -> bool:
    return ("," in cells and _COMMAS.search(cells) is not None) or _POINTS.search(cells) is not None


def _encoding(name: str, opened: Opened) -> tuple[str, tuple[str, ...]]:
    with _bytes(opened) as data, _explained(name):
        start = data.read(4)
        if start.startswith(b"PK\x03\x04"):
            raise refused(name, "it is a workbook or an archive, not text", "save the sheet as CSV in UTF-8")
        for mark, encoding in _BYTE_ORDER:
            if start.startswith(mark):
                return encoding, ()
        for begins, encoding in _NO_MARK:  # two letters of ASCII: names of columns
            if begins.fullmatch(start):
                return encoding, ()
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(start)
            for block in iter(partial(data.read, _BLOCK), b""):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252", (f"{name} is not UTF-8: it was read as Windows-1252",)
    return "utf-8", ()


@contextmanager
def _bytes(opened: Opened) -> Iterator[IO[bytes]]:
    with opened() as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw


@contextmanager
def _lines(text: TextLayout) -> Iterator[Iterator[str]]:
    with _bytes(text.opened) as data:
        yield io.TextIOWrapper(data, encoding=text.encoding, newline="")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Errors of what unpacks and decodes, in our words."""
    try:
        yield
    except UnicodeError:
        fix = "save it as UTF-8"
        raise refused(name, "it is not text in UTF-8, UTF-16 or Windows-1252", fix) from None
    except _BROKEN:
        raise refused(name, "its gzip data are cut short or damaged", "copy or export it again") from None


def _split(text: TextLayout) -> Iterator[TableRow]:
    """Rows of cells; empty lines, and Excel's line `sep=;`, are left out."""
    with _lines(text) as lines, _explained(text.name):
        if text.separator == _BLANKS:
            yield from (TableRow(i, line.split()) for i, line in enumerate(lines, 1) if line.strip())
            return
        parsed = csv.reader(lines, delimiter=text.separator, skipinitialspace=True, strict=True)
        line = 1
        try:
            for row in parsed:
                cells = list(map(str.strip, row))
                if any(cells) and not (line == 1 and _excels(cells)):
                    yield TableRow(line, cells)
                line = parsed.line_num + 1
        except csv.Error:
            problem = "a quotation mark is not closed, or there is text after a closing one"
            raise refused(f"{text.name}:{line}", problem, 'write "" for one inside quotes') from None


def _excels(cells: Sequence[str]) -> bool:
    """Whether the first line is Excel's `sep=;`."""
    return len(cells) <= 2 and "".join(cells).lower().startswith("sep=")


def _separator(sample: Sequence[str]) -> str:
    """The one that gives every row as many cells as the first; else that of most rows; blanks if there is no other."""
    shares = {}
    for mark in _SEPARATORS:
        widths = [len(cells) for cells in csv.reader(sample, delimiter=mark, skipinitialspace=True) if cells]
        if widths and widths[0] > 1:
            shares[mark] = widths.count(widths[0]) / len(widths)
    if shares:
        return max(shares, key=shares.__getitem__)
    widths = [len(line.split()) for line in sample]
    return _BLANKS if min(widths) > 1 and len(set(widths)) == 1 else ","
