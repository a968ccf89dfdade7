"""Experiment tables as spreadsheets and databases write them, and what cannot be read, by line and column."""

import codecs
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bandit.errors import InvalidRequest
from experiments.ab_tests.experiment_table import TableColumns, read_table

ROWS = [("a", "TRUE", 12.5, 3), ("b", "FALSE", 0.0, 5), ("a", "FALSE", 1234.25, 2), ("b", "TRUE", 7.75, 1)]
COLUMNS = TableColumns("Variante", ("gekauft", "Umsatz"), covariates=("Besuche",))
HEAD = ("Variante", "gekauft", "Umsatz", "Besuche")


def lines(
    separator: str = ",", end: str = "\n", number: Callable[[float], str] = str, yes: dict[str, str] | None = None
) -> str:
    words = yes or {"TRUE": "TRUE", "FALSE": "FALSE"}
    rows = [separator.join((arm, words[said], number(amount), str(visits))) for arm, said, amount, visits in ROWS]
    return end.join([separator.join(HEAD), *rows, ""])


def german(amount: float) -> str:
    return f"{amount:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".")


LAYOUTS: dict[str, bytes] = {
    "pandas": lines(yes={"TRUE": "True", "FALSE": "False"}).encode(),
    "excel, CSV UTF-8": codecs.BOM_UTF8 + lines(end="\r\n").encode(),
    "excel, Unicode text": codecs.BOM_UTF16_LE + lines("\t", "\r\n").encode("utf-16-le"),
    "excel in German": lines(";", "\r\n", german, {"TRUE": "WAHR", "FALSE": "FALSCH"}).encode("cp1252"),
    "excel with sep=": b"sep=;\r\n" + lines(";", "\r\n", german).encode(),
    "libreoffice, every cell quoted": lines('","').replace("\n", '"\n"').join(('"', "")).rstrip('"').encode(),
    "postgresql \\copy": lines(yes={"TRUE": "t", "FALSE": "f"}).encode(),
    "mysql --batch": lines("\t", yes={"TRUE": "1", "FALSE": "0"}).encode(),
    "bigquery, gzipped": gzip.compress(lines(yes={"TRUE": "true", "FALSE": "false"}).encode()),
    "utf-16 without a mark, big endian": lines(";", "\r\n").encode("utf-16-be"),
    "old mac": lines(end="\r").encode(),
    "survey, yes and no": lines(" | ", yes={"TRUE": "yes", "FALSE": "no"}).encode(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tools_layout_gives_the_same_table(layout: str, tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_bytes(LAYOUTS[layout])
    found = read_table(file, COLUMNS)
    assert found.arms == ("a", "b")
    assert found.arm.tolist() == [0, 1, 0, 1]
    bought, spent = found.outcomes
    assert (bought.binary, spent.binary) == (True, False)
    assert bought.total.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert spent.total.tolist() == [12.5, 0.0, 1234.25, 7.75]
    assert found.x[:, 0].tolist() == [3.0, 5.0, 2.0, 1.0]


def read(tmp_path: Path, text: str, columns: TableColumns, arms: tuple[str, ...] = ()) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf-8")
    read_table(file, columns, arms)


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("arm,y\na,1\n,0\n", TableColumns("arm", ("y",)), "t.csv:3: arm: there is no arm"),
        ("arm,y\na,1\nb,maybe\n", TableColumns("arm", ("y",)), "t.csv:3: y: 'maybe' is not a number, or true or false"),
        ("arm,y\na,1\n", TableColumns("variant", ("y",)), "there is no column 'variant' → one of 'arm', 'y'"),
        ("arm,y\na,1\n", TableColumns("arm", ("y",), covariates=("y",)), "y: the column is given twice"),
        ("arm,y,x\na,1,2\nb,0,\n", TableColumns("arm", ("y",), covariates=("x",)), "t.csv:3: x: there is no value"),
        ("arm,y,x\na,1,2\nb,0,3\na,1,?x\n", TableColumns("arm", ("y",), covariates=("x",)), "t.csv:4: x: '?x' is not"),
        ("arm,n,y\na,10,1\nb,9.5,1\n", TableColumns("arm", ("y",), "n"), "t.csv:3: n: '9.5' is not a number of people"),
        ("arm,n,y\na,10,1\nb,,1\n", TableColumns("arm", ("y",), "n"), "t.csv:3: n: '' is not a number of people"),
        ("arm,n,y\na,10,1\nb,10,11\n", TableColumns("arm", ("y",), "n"), "t.csv:3: y: 11 of 10 people is no count"),
        ("arm,n,y,s\na,9,1,1\nb,2,4,3\n", TableColumns("arm", ("y",), "n", squares={"y": "s"}), "t.csv:3: s: '3' is"),
        ("arm,n,y,x\na,9,1,1\n", TableColumns("arm", ("y",), "n", ("x",)), "rows of sums have no covariates"),
        ("arm,y\n", TableColumns("arm", ("y",)), "there are no rows below the names"),
        ("arm,y\na,inf\n", TableColumns("arm", ("y",)), "t.csv:2: y: 'inf' is not"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_by_line_and_column(
    text: str, columns: TableColumns, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as error:
        read(tmp_path, text, columns)
    assert said in str(error.value)


def test_rows_of_one_person_are_one_row(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = ["u1,a,1,5,2", "u2,b,0,7,3", "u1,a,1,2.5,9", "NA,b,0,1,4", "NA,b,1,1,4", "u2,b,0,,9"]
    file.write_text("\n".join(["who,arm,y,z,x", *rows]), encoding="utf-8")
    found = read_table(file, TableColumns("arm", ("y", "z"), covariates=("x",), user="who"))
    yes, amount = found.outcomes
    assert found.arm.tolist() == [0, 1, 1, 1]
    assert yes.total.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert amount.total.tolist() == pytest.approx([7.5, np.nan, 1.0, 1.0], nan_ok=True)
    assert amount.missing == (7,)
    assert amount.square is not None
    assert amount.square[0] == 7.5**2
    assert found.x[:, 0].tolist() == [2.0, 3.0, 4.0, 4.0]
    assert found.notes == ("6 rows of 4 people",)
    file.write_text("who,arm,y\nu1,a,1\nu1,b,1\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"t.csv:3: arm: 'u1' was in another arm before"):
        read_table(file, TableColumns("arm", ("y",), user="who"))
    with pytest.raises(InvalidRequest, match="rows of sums are not of one person"):
        read_table(file, TableColumns("arm", ("y",), "n", user="who"))


def test_an_arm_that_is_not_declared_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"shares: no row has the arm 'b', and .*t.csv:3: arm has 'B' → known: B"):
        read(tmp_path, "arm,y\na,1\nB,0\n", TableColumns("arm", ("y",)), ("a", "b"))


def test_empty_outcomes_are_kept_with_their_lines_and_words_are_covariates(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("arm,y,channel\na,1,web\nb,NA,phone\n\nnone,,web\n", encoding="utf-8")
    found = read_table(file, TableColumns("arm", ("y",), covariates=("channel",)))
    assert found.outcomes[0].missing == (3, 5)
    assert np.isnan(found.outcomes[0].total[1:]).all()
    assert found.arms == ("a", "b", "none")
    assert found.x[:, 0].tolist() == [1.0, 0.0, 1.0]  # web
