"""Text of answers: what others wrote stays one JSON string on one line, and tables are small."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from journey_bandit.assistants.answer_text import answer, by_holdout, money_first, quoted, table


@given(st.text(max_size=200))
def test_a_quoted_text_is_printable_json_of_one_cell_and_comes_back(text: str) -> None:
    said = quoted(text)
    assert said.isprintable()
    assert "|" not in said
    assert json.loads(said) == text


def test_what_cannot_be_seen_is_written_out() -> None:
    assert quoted("a\u202eb\u200bc|d\n\U000e0041é") == '"a\\u202eb\\u200bc\\u007cd\\n\\udb40\\udc41é"'


def test_a_long_text_is_cut_and_its_length_said() -> None:
    assert quoted("x" * 1_234) == f'"{"x" * 200}" (cut: 1,234 characters)'


def test_a_table_has_twelve_rows_at_most_and_says_how_many_are_left_out() -> None:
    lines = table(("a", "b"), [(str(n), "x") for n in range(15)]).splitlines()
    assert lines[:3] == ["| a | b |", "| --- | --- |", "| 0 | x |"]
    assert (len(lines), lines[-1]) == (15, "3 more are left out.")
    assert len(table(("a", "b"), [("1", "x")] * 12).splitlines()) == 14
    assert answer("one", table(("a",), []), "two") == "one\n\ntwo"


def stage(**audit: Any) -> dict[str, Any]:
    found = {"people": 9, "holdout": 1, "difference": 1.0, "low": None, "high": None}
    return {"stage": "cart", "holdout": {**found, **audit} if audit else None}


def test_money_has_its_interval_or_says_why_there_is_none() -> None:
    assert by_holdout(stage(), "EUR") == '"cart": not known, nobody is in a holdout'
    few = '"cart": not known, too few people (9 with nudges, 1 without)'
    assert by_holdout(stage(holdout=1), "EUR") == few
    known = stage(difference=-0.5, low=-0.9, high=-0.1)
    assert by_holdout(known, "EUR") == '"cart": -0.50 EUR per person [-0.90, -0.10]'
    first = money_first([known, stage()], "EUR")
    assert first.startswith(
        'Money against no nudge, by the holdout: "cart": -0.50 EUR per person [-0.90, -0.10]; "cart": not'
    )
    assert (
        "for one look, fixed beforehand: before anything is done, ask `monitor`, whose bounds hold at every look"
        in first
    )
