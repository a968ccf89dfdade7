"""Logs from files: every format, the same rounds; what is wrong is named with its column and row."""

import csv
import datetime
import gzip
import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bandit.errors import InvalidRequest
from experiments.data import files
from experiments.data.rounds import LoggedRounds, rounds_of, user_keys
from experiments.ope import evaluate
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy

Columns = dict[str, Any]
META = {
    "app": "travel",
    "stage": "cart",
    "arms": ["none", "a", "b"],
    "reward": {"kind": "continuous", "min": -2, "max": 8},
}


def log(n: int = 7, seed: int = 1) -> Columns:
    rng = np.random.default_rng(seed)
    p, pi = rng.dirichlet(np.ones(3), n), rng.dirichlet(np.ones(3), n)
    action = rng.integers(0, 3, n)
    wide = {f"p_{a}": p[:, a] for a in range(3)} | {f"pi_e_{a}": pi[:, a] for a in range(3)}
    wide |= {f"q_hat_{a}": rng.random(n) for a in range(3)} | {f"x_{i}": rng.random(n) for i in range(2)}
    return {"user": rng.integers(0, 5, n), "at": np.arange(n), "version": np.arange(n), "action": action} | {
        "reward": rng.random(n),
        "pscore": p[np.arange(n), action],
        "holdout": rng.random(n) < 0.3,
        **wide,
    }


def write_csv(path: Path, columns: Columns) -> Path:
    opened = gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8")  # noqa: SIM115
    with opened as text:
        rows = csv.writer(text)
        rows.writerow(columns)
        rows.writerows(zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True))
    return path


def write_parquet(path: Path, columns: Columns, meta: dict[str, Any] | None = None, rows: int = 3) -> Path:
    table = pa.table(columns)
    if meta is not None:
        table = table.replace_schema_metadata({"journey_bandit": json.dumps(meta)})
    parquet.write_table(table, path, row_group_size=rows)
    return path


def whole(path: Path, *, in_parts: bool = False) -> LoggedRounds:
    file = files.open_log(path)
    chunks = [chunk for source in (file.sources() if in_parts else [file.source()]) for chunk in source()]
    return LoggedRounds._make(None if c[0] is None else np.concatenate(c) for c in zip(*chunks, strict=True))


def same(left: LoggedRounds, right: LoggedRounds) -> bool:
    pairs = zip(left._replace(user=None), right._replace(user=None), strict=True)
    return all(a is b if a is None or b is None else _equal(a, b) for a, b in pairs)


def _equal(left: Any, right: Any) -> bool:
    return np.array_equal(left, right, equal_nan=np.asarray(left).dtype.kind == "f")


def test_csv_gz_and_parquet_give_the_same_rounds(tmp_path: Path) -> None:
    columns = log()
    wanted = rounds_of(columns)
    for path in (
        write_csv(tmp_path / "log.csv", columns),
        write_csv(tmp_path / "log.csv.gz", columns),
        write_parquet(tmp_path / "log.parquet", columns),
    ):
        found = whole(path)
        assert same(found, wanted), path
        assert wanted.user is not None
        assert found.user is not None
        assert np.array_equal(found.user[:, None] == found.user, wanted.user[:, None] == wanted.user)


def test_parts_of_a_parquet_file_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its row groups are: parts are of so many chunks."""
    for batch, parts in ((1, 7), (2, 4), (3, 3), (7, 1)):
        monkeypatch.setattr(files, "BATCH", batch)
        for rows in (3, 10, 100):
            path = write_parquet(tmp_path / "log.parquet", log(65), rows=rows)
            assert files.open_log(path).parts == parts
            assert same(whole(path, in_parts=True), rounds_of(log(65))), (batch, rows)


def test_q_hat_of_a_log_of_ours_becomes_units_of_the_reward(tmp_path: Path) -> None:
    columns = log()
    found = whole(write_parquet(tmp_path / "log.parquet", columns, META))
    wanted = -2.0 + 10.0 * np.column_stack([columns[f"q_hat_{a}"] for a in range(3)])
    assert found.q_hat is not None
    assert found.q_hat == pytest.approx(wanted)
    file = files.open_log(tmp_path / "log.parquet")
    assert file.meta is not None
    assert file.meta.arms == ("none", "a", "b")
    assert file.rewards == (-2.0, 8.0)


def test_a_log_longer_than_a_chunk_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH", 4)
    path = write_csv(tmp_path / "log.csv", log(11))
    sizes = [len(chunk.reward) for chunk in files.open_log(path).source()()]
    assert sizes == [4, 4, 3]
    assert same(whole(path), rounds_of(log(11)))


def test_both_spellings_of_the_foreign_formats(shared: Callable[[str], Path]) -> None:
    short = whole(shared("open_bandit_men/per_round_bts_to_random.csv.gz"))
    assert [name for name, part in short._asdict().items() if part is not None] == [
        *("action", "reward", "pscore", "pi", "q", "model", "position"),
    ]
    wide = whole(shared("synthetic_ope/synthetic_dev.csv.gz"))
    assert wide.x is not None
    assert wide.x.shape == (3000, 5)
    assert wide.arms == 6


def test_an_empty_reward_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("action,reward,pscore,pi_e\n0,1,0.5,0.5\n1,,0.5,0.5\n", encoding="utf-8")
    assert np.isnan(whole(path).reward).tolist() == [False, True]


def test_the_same_user_has_the_same_key_in_every_chunk() -> None:
    first, second = user_keys(np.array(["ann", "bob", "ann"])), user_keys(np.array(["bob", "ann"]))
    assert first[0] == first[2] == second[1] != first[1] == second[0]
    assert user_keys(np.array([7, -7])).tolist() == [7, -7]


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("action,reward\n0,1\n", "pscore", "there is no such column"),
        ("action,reward,pscore,pi_e_0,pi_e_2\n0,1,0.5,0.5,0.5\n", "pi_e_1", "missing between 2 columns"),
        ("action,reward,pscore\n0,1,0.5\n0,1,0\n", "pscore", "log.csv:3"),
        ("action,reward,pscore\n0,1,1.5\n", "pscore", "a probability, above 0"),
        ("action,reward,pscore\n0,1,\n", "pscore", "log.csv:2"),
        ("action,reward,pscore\n0.5,1,1\n", "action", "a whole number"),
        ("action,reward,pscore\n-1,1,1\n", "action", "log.csv:2"),
        ("action,reward,pscore\n0,inf,1\n", "reward", "a finite number"),
        ("action,reward,pscore,pi_e\n0,1,1,-0.5\n", "pi_e", "a probability"),
        ("action,reward,pscore,pi_e_0,pi_e_1\n1,1,1,0.6,0.6\n", "pi_e_0", "sum to 1"),
        ("action,reward,pscore,pi_e_0,pi_e_1\n2,1,1,0.6,0.4\n", "action", "from 0 to 1"),
        ("action,reward,pscore,q_hat_0\n0,1,1,nan\n", "q_hat_0", "finite numbers"),
        ("action,reward,pscore,pi_e_0,q_hat_0,q_hat_1\n0,1,1,1,0,0\n", "p, pi_e, q_hat", "[1, 2] arms"),
        ("action,reward,pscore\n0,red,1\n", "log.csv:2: reward", "'red' is not a number"),
        ("action,reward,pscore\n0,1\n", "log.csv:2", "no value in column 3"),
    ],
)
def test_what_is_wrong_with_a_log_is_named(tmp_path: Path, text: str, field: str, said: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest) as raised:
        whole(path)
    (problem, *_) = raised.value.problems
    assert problem.field.removeprefix(f"{tmp_path}/").startswith(field)
    assert said in str(problem)


def test_files_that_are_no_logs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"action,reward,pscore\n" + b"0,1,1\n" * 9999)[:-40])
    (tmp_path / "cut.parquet").write_bytes(write_parquet(tmp_path / "log.parquet", log()).read_bytes()[:-40])
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04" + bytes(40))
    write_parquet(tmp_path / "meta.parquet", log(), {"app": 3})
    for name in ("cut.csv.gz", "cut.parquet", "book.xlsx", "meta.parquet", "missing.csv", "."):
        with pytest.raises(InvalidRequest) as raised:
            whole(tmp_path / name)
        assert not re.search("Arrow|magic|thrift|Couldn't|Compressed", str(raised.value)), name


def spreadsheet(path: Path, columns: Columns) -> Path:
    """The same log as a German spreadsheet writes it: semicolons, decimal commas, UTF-16, yes and no."""
    rows = zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True)
    words = {True: "yes", False: "no"}
    lines = [";".join(columns)]
    lines += [";".join(words[v] if isinstance(v, bool) else str(v).replace(".", ",") for v in row) for row in rows]
    path.write_bytes("\r\n".join(lines).encode("utf-16"))
    return path


def test_one_log_gives_one_result_bit_for_bit_from_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over chunks that are not the row groups, users that are numbers, and rewards that are not known."""
    monkeypatch.setattr(files, "BATCH", 128)
    columns = log(500, 3)
    columns["reward"] = np.where(np.arange(500) < 480, columns["reward"], np.nan)
    paths = [
        write_csv(tmp_path / "log.csv", columns),
        write_csv(tmp_path / "log.csv.gz", columns),
        write_parquet(tmp_path / "log.parquet", columns, rows=77),
        spreadsheet(tmp_path / "log.txt", columns),
    ]
    texts = [
        json.dumps(evaluate.report(evaluate.evaluate([files.open_log(path).source()], ASK), ASK)) for path in paths
    ]
    assert len(json.loads(texts[0])["estimates"]) > 3
    assert texts[1:] == texts[:1] * 3


ASK = EvaluationConfig((EvaluationPolicy("log", None),), force=True)
NAMED = "action,reward,pscore,pi_e_discount,pi_e_none,pi_e_rare\nnone,True,0.5,0.5,0.25,0.25\ndiscount,no,0.5,1,0,0\n"


def test_arms_by_name_are_numbered_and_said_with_columns_for_each(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(NAMED, encoding="utf-8")
    file, rounds = files.open_log(path), whole(path)
    assert file.arms == ("none", "discount", "rare")
    assert file.notes == ("arms by name: 0 none, 1 discount, 2 rare",)
    assert rounds.action.tolist() == [0, 1]
    assert rounds.reward.tolist() == [1.0, 0.0]
    assert rounds.target is not None
    assert rounds.target.tolist() == [[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]]
    table = {"action": ["none", "discount"], "reward": [True, False], "pscore": [0.5, 0.5]}
    table |= {"pi_e_discount": [0.5, 1.0], "pi_e_none": [0.25, 0.0], "pi_e_rare": [0.25, 0.0]}
    assert same(whole(write_parquet(tmp_path / "log.parquet", table)), rounds)


def test_times_truth_and_missing_users_are_read_from_text_and_parquet_alike(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = ["1970-01-01T00:00:01Z,t,7", "1970-01-01 01:00:02+01:00,f,", "3000000,1,ann", "4000000,0,NA"]
    path.write_text(
        "at,holdout,user,action,reward,pscore\n" + "".join(f"{r},0,1,0.5\n" for r in rows), encoding="utf-8"
    )
    found = whole(path)
    assert found.at is not None
    assert found.at.tolist() == [1_000_000, 2_000_000, 3_000_000, 4_000_000]
    assert found.holdout is not None
    assert found.holdout.tolist() == [True, False, True, False]
    assert found.user is not None
    assert found.user[0] == 7
    assert (
        found.user[1::2].tolist() == user_keys(np.array([""] * 4))[1::2].tolist()
    )  # not known: each a unit of its own
    assert len(set(found.user.tolist())) == 4
    at = pa.array([1_000_000, 2_000_000, 3_000_000, 4_000_000], pa.timestamp("us", "UTC"))
    users = pa.array(["7", None, "ann", "NA"])
    table = {"at": at, "holdout": pa.array([True, False, True, False]), "user": users, "action": pa.array([0] * 4)}
    again = whole(
        write_parquet(tmp_path / "l.parquet", table | {"reward": pa.array([1.0] * 4), "pscore": pa.array([0.5] * 4)})
    )
    assert same(again, found)
    assert again.user is not None
    assert again.user.tolist() == found.user.tolist()


def test_columns_with_other_names_are_mapped(tmp_path: Path) -> None:
    columns = {"arm": [0, 1], "ok": [1.0, 0.0], "p": [0.5, 0.5], "reward": [9.0, 9.0]}
    renamed = {"action": "arm", "reward": "ok", "pscore": "p"}
    for path in (write_csv(tmp_path / "l.csv", columns), write_parquet(tmp_path / "l.parquet", columns)):
        (rounds,) = files.open_log(path, renamed).source()()
        assert (rounds.action.tolist(), rounds.reward.tolist()) == ([0, 1], [1.0, 0.0])
        with pytest.raises(InvalidRequest, match=r"map reward=okay: .* has no column 'okay' → did you mean `ok`"):
            files.open_log(path, renamed | {"reward": "okay"})
        with pytest.raises(InvalidRequest, match="map rewrad: there is no such column"):
            files.open_log(path, {"rewrad": "ok"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("action,reward,pscore\nred,1,1\n,1,1\nblue,1,1\n", "log.csv:3: action: there is no value"),
        ("action,reward,pscore\n0,1,1\n1,1,1\nred,1,1\n", "log.csv:4: action: 'red' is not a number"),
        ("action,reward,pscore,p_0,p_1\nred,1,1,1,0\n", "log.csv: p_0: arms are numbered here and named"),
        ("action,reward,pscore,p_red,pi_e_red,pi_e_blue\nred,1,1,1,1,0\n", "there is no column p_blue"),
        ("action,reward,pscore,at\n0,1,1,soon\n", "log.csv:2: at: 'soon' is not a time"),
        ("action,reward,pscore,holdout\n0,1,1,perhaps\n", "log.csv:2: holdout: 'perhaps' is not true or false"),
        ("action,reward,pscore,holdout\n0,1,1,\n", "log.csv:2: holdout: there is no value"),
        ("action,reward,pscore,reward\n0,1,1,1\n", "2 columns are called 'reward'"),
    ],
)
def test_a_cell_that_means_nothing_is_named_by_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest) as raised:
        whole(path)
    assert said in str(raised.value)


@pytest.mark.parametrize("p", ["1e-200", "5e-324", "1e-90"])
@pytest.mark.parametrize("head", ["action,reward,pscore,pi_e", "action,reward,pscore,pi_e_0,pi_e_1,p_0,p_1"])
@pytest.mark.parametrize("force", [False, True])
def test_an_extreme_weight_is_refused_and_no_overflow(tmp_path: Path, p: str, head: str, force: bool) -> None:
    wide = head.endswith("p_1")
    path = tmp_path / "log.csv"
    rows = [f"0,1,{p},0.5" + f",0.5,{p},1" * wide] + [
        f"{i % 2},{i % 3 % 2},0.5,0.5" + ",0.5,0.5,0.5" * wide for i in range(99)
    ]
    path.write_text("\n".join([head, *rows]), encoding="utf-8")
    ask = ASK._replace(force=force, slope=True)
    (found,) = evaluate.evaluate([files.open_log(path).source()], ask)
    assert "ess" in [refusal.reason for refusal in found.refused]
    assert bool(found.estimates) == force
    json.dumps(evaluate.report([found], ask), allow_nan=False)


def parquet_of(path: Path, **columns: object) -> Path:
    """Two rounds, with these columns in place of plain ones."""
    plain: dict[str, object] = {
        "action": pa.array([0, 1]),
        "reward": pa.array([1.0, 0.0]),
        "pscore": pa.array([0.5, 0.5]),
    }
    parquet.write_table(pa.table({**plain, **columns}), path)
    return path


def test_types_of_other_programs_hold_the_same_log(tmp_path: Path) -> None:
    """Categories, decimals, whole numbers with gaps, views, bytes that are texts: as the same cells in a text file."""
    half, names, users = [Decimal("0.50")] * 2, ["none", "Rabatt"], ["ann", "bob"]
    path = tmp_path / "log.csv"
    path.write_text("action,reward,pscore,user,at\nnone,1,0.5,ann,1777593600000000\nRabatt,,0.5,bob,1777593600000000\n")
    expected = whole(path)
    day = [datetime.date(2026, 5, 1)] * 2
    for i, (action, reward, pscore, user, at) in enumerate(
        [
            (pa.array(names).dictionary_encode(), pa.array([1, None], pa.int8()), pa.array(half), pa.array(users), day),
            (
                pa.array(names, pa.large_string()),
                pa.array([True, None]),
                pa.array([0.5, 0.5], pa.float32()),
                users,
                day,
            ),
            (pa.array(names).cast(pa.string_view()), pa.array([1.0, None]), pa.array(["0,5", "0.5"]), users, day),
            (pa.array([b"none", b"Rabatt"]), pa.array([1.0, float("nan")]), half, pa.array([b"ann", b"bob"]), day),
            (names, pa.array(["yes", "NA"]), half, pa.array(users).dictionary_encode(), [1777593600000000.0] * 2),
        ]
    ):
        found = parquet_of(
            tmp_path / f"{i}.parquet", action=action, reward=reward, pscore=pscore, user=user, at=pa.array(at)
        )
        again = whole(found)
        assert same(again, expected), i
        assert np.array_equal(again.user, expected.user), i  # type: ignore[arg-type]
        assert files.open_log(found).arms == ("none", "Rabatt"), i


def test_a_column_without_any_value_is_one_of_unknown_rewards_or_users(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("action,reward,pscore,user\n0,,0.5,\n1,NA,0.5,\n", encoding="utf-8")
    nothing = pa.array([None, None], pa.null())
    found = whole(parquet_of(tmp_path / "log.parquet", reward=nothing, user=nothing))
    assert same(found, whole(path))
    assert np.isnan(found.reward).all()
    assert found.user is not None
    assert found.user[0] != found.user[1]


def test_cells_of_several_values_are_refused(tmp_path: Path) -> None:
    for name in ("reward", "user"):
        with pytest.raises(InvalidRequest, match=rf"row 0: {name}: cells of the type list.* hold several values"):
            whole(parquet_of(tmp_path / "log.parquet", **{name: pa.array([[1], [2]])}))


def test_a_time_is_whole_also_as_a_float(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("at,action,reward,pscore\n1777593600000000.0,0,1,0.5\n", encoding="utf-8")
    found = whole(path).at
    assert found is not None
    assert found.tolist() == [1777593600000000]


def test_columns_that_are_missing_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("Action,gain,pscore\n0,1,0.5\n", encoding="utf-8")
    parquet.write_table(pa.table({"Action": [0], "gain": [1], "pscore": [0.5]}), tmp_path / "log.parquet")
    for name in ("log.csv", "log.parquet"):
        with pytest.raises(InvalidRequest) as raised:
            files.open_log(tmp_path / name)
        first, second = map(str, raised.value.problems)
        assert f"there is no such column in {tmp_path / name} → say --map action=Action" in first
        assert "the file has 'Action', 'gain', 'pscore'" in first
        assert "say --map reward=NAME" in second
