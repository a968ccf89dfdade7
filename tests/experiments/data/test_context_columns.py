"""Context under the file's own names: numbers, words, from text and Parquet alike; what cannot be used, by row."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from bandit.errors import InvalidRequest
from experiments.data import files
from experiments.data.column_types import ContextCells, context_columns
from experiments.data.rounds import LoggedRounds

HEAD = "action;reward;pscore;age;device;member"
ROWS = ("0;1;0,5;30,5;phone;ja", "1;0;0,5;41;web;nein", "1;1;0,5;22;;ja", "0;0;0,5;22;web;nein")


def written(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HEAD, *rows]), encoding="utf-8")
    return path


def chunk(path: Path, *context: str) -> tuple[files.LogFile, LoggedRounds]:
    log = files.open_log(path, None, context)
    (found,) = log.source()()
    return log, found


def test_numbers_and_words_are_context(tmp_path: Path) -> None:
    log, rounds = chunk(written(tmp_path / "t.csv", *ROWS), "age", "device", "member")
    assert rounds.x is not None
    assert rounds.x.tolist() == [[30.5, 1, 0, 1], [41.0, 0, 1, 0], [22.0, 0, 0, 1], [22.0, 0, 1, 0]]
    assert "context: x_0 age, x_1 device=phone, x_2 device=web, x_3 member" in log.notes


def test_parquet_has_the_same_context(tmp_path: Path) -> None:
    table = {"action": [0, 1, 1, 0], "reward": [1, 0, 1, 0], "pscore": [0.5] * 4, "age": [30.5, 41.0, 22.0, 22.0]}
    parquet.write_table(
        pa.table(table | {"device": ["phone", "web", None, "web"], "member": [True, False, True, False]}),
        tmp_path / "t.parquet",
        row_group_size=2,
    )
    _, rounds = chunk(tmp_path / "t.parquet", "age", "device", "member")
    _, text = chunk(written(tmp_path / "t.csv", *ROWS), "age", "device", "member")
    assert rounds.x is not None
    assert text.x is not None
    assert rounds.x.tolist() == text.x.tolist()


@pytest.mark.parametrize(
    ("rows", "context", "said"),
    [
        (ROWS, ("agee",), "context: 'agee' is not one column"),
        (ROWS, ("age", "age"), "context: 'age' is not one column"),
        (("0;1;0,5;30;a;ja", "1;0;0,5;;b;ja"), ("age",), "t.csv:3: age: there is no value"),
        (("0;1;0,5;30;a;ja", "1;0;0,5;31;b;ja", "1;0;0,5;old;b;ja"), ("age",), "t.csv:4: age: 'old' is not a number"),
        (("0;1;0,5;30;;ja", "1;0;0,5;3;NA;ja"), ("device",), "device: there is no value in the column"),
        ([f"0;1;0,5;3;w{i};ja" for i in range(51)], ("device",), "device: a context of 51 different words"),
    ],
)
def test_what_cannot_be_context_is_named(
    rows: tuple[str, ...], context: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as error:
        chunk(written(tmp_path / "t.csv", *rows), *context)
    assert said in str(error.value)


def test_cells_of_numbers_are_not_held() -> None:
    """However many different cells a column has, 51 numbers and 51 words tell what it is."""
    numbers, words = ContextCells(), ContextCells()
    numbers.add(f"{i}.5" for i in range(3000))
    words.add(f"w{i}" for i in range(3000))
    assert (len(numbers.numbers), len(numbers.words)) == (51, 0)
    assert (len(words.numbers), len(words.words)) == (0, 51)
    mixed = ContextCells()
    mixed.add([*map(str, range(3000)), *(f"w{i}" for i in range(40)), "", "NA"])
    (column,) = context_columns("t.csv", {"age": mixed})
    assert column.words == ()


def test_a_file_with_columns_x_has_its_context_already(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("action,reward,pscore,x_0,age\n0,1,.5,3,4\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="has a column x_0 already"):
        files.open_log(tmp_path / "t.csv", None, ("age",))
    (tmp_path / "t.vw").write_text("1:0:0.5 | age:3\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="its context is read as it is"):
        files.open_log(tmp_path / "t.vw", None, ("age",))
