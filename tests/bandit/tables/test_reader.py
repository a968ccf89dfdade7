"""The reader of tables: a table written in any dialect is read back, and one bad cell or line is named exactly."""

import codecs
import csv
import gzip
import io
from collections.abc import Callable, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bandit.errors import InvalidRequest
from bandit.tables import cells, reader
from bandit.tables.reader import Table

Values = list[list[float | str | None]]  # rows; None is missing


class Dialect(NamedTuple):
    """How a program writes a table."""

    separator: str = ","
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str = ""
    quoting: Any = csv.QUOTE_MINIMAL
    end: str = "\n"
    na: str = ""
    packed: bool = False


def opened(data: bytes) -> Callable[[], IO[bytes]]:
    return lambda: io.BytesIO(data)


def spelled(value: float | str | None, how: Dialect) -> str:
    if value is None or isinstance(value, str):
        return how.na if value is None else value
    text = f"{value:,.2f}" if how.thousands else repr(value)
    return text.replace(",", "\0").replace(".", how.decimal).replace("\0", how.thousands)


def written(names: Sequence[str], rows: Values, how: Dialect) -> bytes:
    text = io.StringIO()
    lines = csv.writer(text, delimiter=how.separator, quoting=how.quoting, lineterminator=how.end)
    lines.writerow(names)
    lines.writerows([spelled(value, how) for value in row] for row in rows)
    data = text.getvalue().encode(how.encoding)
    return gzip.compress(data) if how.packed else data


def read(data: bytes) -> Table:
    return reader.read("t.csv", opened(data))


dialects = st.builds(
    Dialect,
    separator=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    decimal=st.sampled_from([".", ","]),
    thousands=st.sampled_from(["", "'", "\u00a0"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    na=st.sampled_from(["", "NA", "N/A", "nan", "NaN", "null", "None", "-"]),
    packed=st.booleans(),
)
amounts = st.integers(-99_999_999, 99_999_999).map(lambda n: n / 100)
words = st.text("aäéßz ñ\u20ac;,|\"'\t", min_size=1, max_size=8).map(lambda s: f"w{s.strip()}w")
tables_of_values = st.lists(
    st.tuples(st.none() | amounts, st.none() | amounts, words).map(list), min_size=1, max_size=30
)


@given(rows=tables_of_values, how=dialects)
def test_a_table_in_any_dialect_reads_back_to_the_same_values(rows: Values, how: Dialect) -> None:
    """Numbers with two decimals: with three, `1,234` alone could be either, and the file has to tell."""
    table = read(written(["a", "b", "name"], rows, how))
    assert table.names == ("a", "b", "name")
    found = [row.cells for row in table.rows()]
    assert [row[2] for row in found] == [row[2] for row in rows]
    for j in (0, 1):
        values, bad = cells.numbers([row[j] for row in found], table.marks[j])
        assert bad == []
        wanted = [np.nan if row[j] is None else row[j] for row in rows]
        assert np.array_equal(values, np.array(wanted, dtype=np.float64), equal_nan=True)


@given(rows=tables_of_values, how=dialects, place=st.integers(0, 29), column=st.integers(0, 1))
def test_one_bad_cell_is_named_by_its_row_and_column(rows: Values, how: Dialect, place: int, column: int) -> None:
    assume(place < len(rows))
    rows = [list(row) for row in rows]
    rows[place][column] = "twelve"
    table = read(written(["a", "b", "name"], rows, how))
    found = list(table.rows())
    for j in (0, 1):
        _, bad = cells.numbers([row.cells[j] for row in found], table.marks[j])
        assert bad == ([place] if j == column else [])
    assert table.at(found[place], table.names[column]) == f"t.csv:{place + 2}: {'ab'[column]}"


@given(rows=tables_of_values, how=dialects, place=st.integers(0, 29), more=st.booleans())
def test_a_line_of_another_width_is_named(rows: Values, how: Dialect, place: int, more: bool) -> None:
    assume(place < len(rows))
    rows = [list(row) for row in rows]
    rows[place] = [*rows[place], "more"] if more else rows[place][1:]
    with pytest.raises(
        InvalidRequest, match=rf"^t\.csv:{place + 2}: .*the line has {4 if more else 2} cells, the first"
    ):
        read(written(["a", "b", "name"], rows, how._replace(na="NA")))


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("sep=;\na;b\n1;2\n", ("a", "b"), ["1", "2"]),
        ("a, b , c\n1, 2 ,3\n", ("a", "b", "c"), ["1", "2", "3"]),
        ("a;b\n2,16;-3,29\n", ("a", "b"), ["2,16", "-3,29"]),
        ("\n\na,b\n\n1,2\n", ("a", "b"), ["1", "2"]),
        ("a,b\n1,2,,\n", ("a", "b"), ["1", "2"]),
        ("a b\n1 2\n", ("a", "b"), ["1", "2"]),
        ("a\n1\n", ("a",), ["1"]),
        ('a,b\n"x\ny",2\n', ("a", "b"), ["x\ny", "2"]),
    ],
)
def test_what_spreadsheets_write(text: str, names: tuple[str, ...], first: list[str]) -> None:
    table = read(text.encode())
    assert table.names == names
    assert next(table.rows()).cells == first


def test_lines_are_those_of_the_file_also_after_empty_lines_and_line_ends_in_quotes() -> None:
    table = read(b'a,b\n\n"x\ny",2\n3,4\n')
    assert [row.line for row in table.rows()] == [3, 5]


def test_another_encoding_is_said() -> None:
    table = read("name,b\nJosé,1\n".encode("cp1252"))
    assert next(table.rows()).cells[0] == "José"
    assert table.notes == ("t.csv is not UTF-8: it was read as Windows-1252",)
    assert read("name,b\nJosé,1\n".encode()).notes == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_encodings_of_unicode_are_told_apart_with_and_without_a_mark(encoding: str) -> None:
    mark = codecs.BOM_UTF32_BE if encoding == "utf-32-be" else b""  # Python writes none where the order is said
    table = read(mark + "name,b\nJosé,1\n東,2\n".encode(encoding))
    assert (table.names, table.notes) == (("name", "b"), ())
    assert [row.cells[0] for row in table.rows()] == ["José", "東"]


def test_line_ends_may_be_mixed() -> None:
    assert [row.cells for row in read(b"a,b\r1,2\r\n3,4\n5,6").rows()] == [["1", "2"], ["3", "4"], ["5", "6"]]


def test_a_guess_is_said() -> None:
    assert read(b"a;b\n1,234;x\n").notes == (
        "column a: the comma of numbers like 1,234 is read as a decimal mark, as in 1.234",
    )
    assert read(b'a,b\n"1,234",x\n').notes == (
        "column a: the comma of numbers like 1,234 is read as thousands, as in 1234",
    )
    assert read(b"a;b\n1,234;2,5\n").notes == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "t.csv: there are no lines in it"),
        (b"\n \n", "t.csv: there are no lines in it"),
        (b"a\0b,c\n", "t.csv: it is not text"),
        (b"PK\x03\x04rest", "t.csv: it is a workbook or an archive"),
        (b"a,b\n\x81\x8d,1\n", "t.csv: it is not text in UTF-8, UTF-16 or Windows-1252"),
        (b"\xff\xfea", "t.csv: it is not text in UTF-8, UTF-16"),
        (gzip.compress(b"a,b\n" * 999, mtime=0)[:-20], "t.csv: its gzip data are cut short"),
        (b"\x1f\x8bnot packed", "t.csv: its gzip data are cut short or damaged"),
        (b'a,b\n1,"x\n2,3\n', "t.csv:2: a quotation mark is not closed"),
        (b'a,b\n1,"x"y\n', "t.csv:2: a quotation mark is not closed, or there is text after"),
    ],
)
def test_what_is_no_table_is_refused_in_our_words(data: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        list(read(data).rows())
    assert str(raised.value).startswith(said)
    assert "→" in str(raised.value)


def test_columns_are_found_by_name_and_mapped() -> None:
    data = b"nudge,arm,x,x\n1,2,3,4\n"
    table = reader.read("t.csv", opened(data), {"arm": "nudge"})
    assert table.names == ("arm", "", "x", "x")
    assert table.place("arm") == 0
    with pytest.raises(InvalidRequest, match="2 columns are called 'x'"):
        table.place("x")
    with pytest.raises(InvalidRequest, match=r"there is no column 'amr' → did you mean `arm`\?.*--map amr=NAME"):
        table.place("amr")
    with pytest.raises(InvalidRequest, match=r"map arm=nudges: t\.csv has no column 'nudges'"):
        reader.read("t.csv", opened(data), {"arm": "nudges"})
