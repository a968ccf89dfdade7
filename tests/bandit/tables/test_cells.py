"""One cell of a table: numbers in every spelling, words for missing, true and false, times."""

import math

import pytest

from bandit.tables import cells

NBSP, NARROW = "\u00a0", "\u202f"


@pytest.mark.parametrize(
    ("cell", "mark", "value"),
    [
        ("1.5", ".", 1.5),
        ("1,5", ".", 1.5),
        ("1.5", ",", 1.5),
        ("1,234", ".", 1234.0),
        ("1,234", ",", 1.234),
        ("1.234", ".", 1.234),
        ("1.234", ",", 1234.0),
        ("0,123", ".", 0.123),
        ("1.234,5", ".", 1234.5),
        ("1,234.5", ",", 1234.5),
        ("1,234,567", ",", 1234567.0),
        ("1.234.567", ".", 1234567.0),
        (f"1{NBSP}234,5", ".", 1234.5),
        (f"12{NARROW}345", ".", 12345.0),
        ("1'234.5", ".", 1234.5),
        ("1\u2009234,5", ".", 1234.5),
        ("1\u2007234", ".", 1234.0),
        ("-2e-3", ",", -0.002),
        ("\u22123,5", ".", -3.5),
        ("+7", ".", 7.0),
        ("inf", ".", math.inf),
    ],
)
def test_a_number_in_any_spelling(cell: str, mark: str, value: float) -> None:
    assert cells.number(cell, mark) == value


@pytest.mark.parametrize("cell", ["1_000", "1,23,456", "1.2.3", "12 34", "1e", "0x10", "5 %", "a", "", "١", "1,2345.6"])
def test_what_is_no_number(cell: str) -> None:
    assert cells.number(cell) is None
    assert cells.numbers(["1", cell])[1] == ([] if cells.missing(cell) else [1])


def test_missing_words_are_no_numbers_and_not_bad() -> None:
    words = ["", "NA", "N/A", "nan", "NULL", "None", "<NA>", "NaT", "-", "?"]
    values, bad = cells.numbers([*words, "3"])
    assert bad == []
    assert [math.isnan(v) for v in values] == [True] * len(words) + [False]


def test_none_in_lower_case_is_the_name_of_no_nudge() -> None:
    assert not cells.unnamed("none")
    assert cells.unnamed("None")
    assert cells.unnamed("NA")


def test_words_count_as_one_and_zero_only_where_they_may() -> None:
    values, bad = cells.numbers(["True", "no", "1", "0.5"], words=True)
    assert (values.tolist(), bad) == ([1.0, 0.0, 1.0, 0.5], [])
    assert cells.numbers(["True", "no", "1"])[1] == [0, 1]
    said = ("WAHR", "Falsch", "ja", "nein", "VRAI", "faux", "sí", "vero", "falso", "waar", "onwaar")
    assert [cells.boolean(word) for word in said] == [
        word in ("WAHR", "ja", "VRAI", "sí", "vero", "waar") for word in said
    ]
    assert [cells.boolean(word) for word in ("T", "f", "YES", "off", "1", "0", "maybe")] == [
        *(True, False, True, False, True, False, None),
    ]


@pytest.mark.parametrize(
    ("cell", "at"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01 00:00:00.25", 250_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T19:30-0430", 0),
        ("2026-05-01T12:00:00,123456Z", 1777636800123456),
        ("1970-13-01", None),
        ("1970-01-01T25:00", None),
        ("yesterday", None),
        ("12:00", None),
    ],
)
def test_times_are_iso_and_in_utc_without_a_zone(cell: str, at: int | None) -> None:
    assert cells.instant(cell) == at


def test_a_columns_mark_is_what_most_of_its_cells_tell_then_what_the_file_tells() -> None:
    german = [["1,5", "1.234", "1,250"], ["2,5", "2.000", "9,001"], ["3,25", "7.100", "1,000"]]
    assert cells.marks_of(german, 3, ";")[:2] == ((",", ",", ","), ())
    mixed = [["1.5", "1,5"], ["2.5", "1,25"], ["1,234", "1.234"]]
    assert cells.marks_of(mixed, 2, ";")[:2] == ((".", ","), ())
    alone = [["1,234"], ["5,678"]]
    assert cells.marks_of(alone, 1, ";")[:2] == ((",",), (0,))
    assert cells.marks_of(alone, 1, ",")[:2] == ((".",), (0,))


def test_numbers_that_are_taken_for_thousands_because_others_have_the_other_mark_are_named() -> None:
    """1.719 between 1,25 and 2,5 may be either; not where 1.234,5 shows that the column groups thousands."""
    german = [["1,25", "1.719"], ["1.719", "2,5"], ["2,5", "1.234,5"], ["1.801", "3,5"]]
    found = cells.marks_of(german, 2, ";")
    assert found.marks == (",", ",")
    assert found.grouped == (cells.GroupedNumbers(column=0, row=1, cells=2, mark=","),)
    assert cells.marks_of([["1.719"], ["2.5"]], 1, ",").grouped == ()
    assert cells.marks_of([["1.719", "1,5"]], 2, ";").grouped == (cells.GroupedNumbers(0, 0, 1, ","),)
