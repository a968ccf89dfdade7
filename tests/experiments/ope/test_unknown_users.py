"""A user who is not known is a unit of its own, whatever the file calls it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bandit.tables.cells import MISSING
from experiments.data import files
from experiments.data.rounds import LoggedRounds, chunked, rounds_of, user_keys
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from experiments.ope.reward_model import FOLDS, GramSums

ASK = EvaluationConfig((EvaluationPolicy("fixed:1", FixedArm(1)),), follow=False)


def users(values: object, dtype: object = np.str_) -> list[int]:
    return user_keys(np.array(values, dtype=dtype)).tolist()  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("word", [*sorted(MISSING), "NA", " NULL ", "None"])
def test_no_two_unknown_users_are_one(word: str) -> None:
    found = users([word, "u1", word, "u1", word])
    assert len({found[0], found[2], found[4]}) == 3
    assert found[1] == found[3]
    assert found[1] not in (found[0], found[2], found[4])


def test_gaps_in_numbers_are_unknown_and_the_numbers_stay() -> None:
    gap = float("nan")
    for found in (users([7.0, gap, 7.0, gap], np.float64), users([7, None, 7, None], object)):
        assert found[0] == found[2] == 7
        assert found[1] != found[3]
    big = 10**17 + 1
    assert users([big, None], object)[0] == big
    assert users(["a", None, gap], object)[0] == users(["a"])[0]


@pytest.mark.parametrize("number", [7, -7, 10**18 - 1, 10**18, 2**62, -(2**63), 2**63 + 5])
def test_a_number_is_the_same_user_whatever_type_holds_it(number: int) -> None:
    """As text, as whole numbers of 64 bits with a sign or without, among gaps."""
    kinds: list[object] = [np.int64] if abs(number) < 2**63 or number == -(2**63) else []
    kinds += [np.uint64] if number >= 0 else []
    found = [users([str(number), "u"])[0], users([number, None], object)[0], users([number], object)[0]]
    found += [users([number, 1], kind)[0] for kind in kinds]
    assert len(set(found)) == 1
    assert users([float("inf")], np.float64) != users([7.0], np.float64)


def test_rows_of_later_chunks_are_others() -> None:
    blank = np.array([""] * 3)
    assert not set(user_keys(blank, 0).tolist()) & set(user_keys(blank, 3).tolist())


def write(path: Path, user: list[object]) -> Path:
    """A log of two arms in two row groups."""
    n = len(user)
    rng = np.random.default_rng(1)
    action = rng.integers(0, 2, n)
    columns = {"action": action, "reward": (rng.random(n) < 0.3) * 1.0, "pscore": np.full(n, 0.5)}
    columns |= {"p_0": np.full(n, 0.5), "p_1": np.full(n, 0.5)}
    table = pa.table({**columns, "user": user})
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=n // 2)
    else:
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in table.to_pylist()]
        path.write_text("\n".join([",".join(table.column_names), *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_parquet_in_parts_and_csv_count_the_same_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Half of 2,000 rounds have no user: about 2,000 units, whichever file, in however many parts."""
    named: list[object] = [f"u{i}" if kind == "text" else i for i in range(2000)]
    user = [name if i % 2 else None for i, name in enumerate(named)]
    monkeypatch.setattr(files, "BATCH", 100)
    file = files.open_log(write(tmp_path / "log.parquet", user))
    assert file.parts == 2
    sources = {
        "whole": [file.source()],
        "parts": file.sources(),
        "csv": [files.open_log(write(tmp_path / "log.csv", user)).source()],
        "named": [files.open_log(write(tmp_path / "all.csv", named)).source()],
    }
    found = {name: core.evaluate(source, ASK)[0] for name, source in sources.items()}
    assert found["whole"].units == found["parts"].units
    named_low, named_high = found["named"].estimates["dr"].interval
    for one in found.values():
        assert 1940 < one.units <= 2000, "groups of users: a few share one"
        assert one.by_user
        assert one.estimates["snips"].value == pytest.approx(found["named"].estimates["snips"].value)
        low, high = one.estimates["dr"].interval
        assert high - low == pytest.approx(named_high - named_low, rel=0.05)


def test_folds_of_the_fitted_model_spread_them_too() -> None:
    n = 1000
    half = np.full(n, 0.5)
    arms = {"action": np.arange(n) % 2, "pscore": half, "p_0": half, "p_1": half}
    rounds: LoggedRounds = rounds_of({**arms, "reward": half, "user": np.array([""] * n)})
    each = GramSums.of(rounds, 2).gram[:, :, 0, 0].sum(axis=1)
    assert len(each) == FOLDS
    assert each.min() > n / FOLDS / 2


def test_units_are_rounds_where_nobody_is_named() -> None:
    n = 1000
    half, action = np.full(n, 0.5), np.arange(n) % 2
    reward = (np.arange(n) % 3 == 0) * 1.0
    rounds = rounds_of({"action": action, "reward": reward, "pscore": half, "p_0": half, "p_1": half})
    (found,) = core.evaluate([chunked(rounds)], ASK)
    assert (found.units, found.by_user) == (n, False)
    assert core.evaluation_json(found)["unit"] == "rounds"
