"""Scoring a table: the engine's own probabilities, and clear errors."""

from pathlib import Path

import numpy as np
import pytest

from bandit import engine, features
from bandit.catalogue.loading import parse, read_shipped
from bandit.engine import PreparedPolicy
from bandit.errors import InvalidRequest, SnapshotError
from bandit.snapshot import Snapshot, pack
from experiments.mlflow import scoring

STAGE = parse(read_shipped("travel")).stages["cart"]
SNAPSHOT = Snapshot.untrained(parse(read_shipped("travel")), "cart")


@pytest.fixture
def live(tmp_path: Path) -> PreparedPolicy:
    for name, data in pack(SNAPSHOT).items():
        (tmp_path / name).write_bytes(data)
    return scoring.load(tmp_path)


def test_missing_values_take_their_defaults_and_numbers_of_a_table_are_plain_ones(live: PreparedPolicy) -> None:
    x, _ = features.encode(live.schema, {"price": 420})
    p = engine.choose(live, x, np.ones(len(STAGE.arms), dtype=np.bool_)).propensity
    for row in ({"price": 420}, {"price": np.float64(420.0), "device": None, "returning": float("nan")}):
        (found,) = scoring.score(live, [row], {})
        assert [found[f"p_{arm}"] for arm in STAGE.arms] == p.tolist()


def test_the_arm_is_drawn_from_u_or_from_the_seed(live: PreparedPolicy) -> None:
    rows = [{"u": u} for u in (0.0, 0.999999)]
    assert [r["arm"] for r in scoring.score(live, rows, {})] == [STAGE.arms[0], STAGE.arms[-1]]
    many: list[dict[str, object]] = [{} for _ in range(500)]
    drawn = [r["arm"] for r in scoring.score(live, many, {"seed": 3})]
    assert drawn == [r["arm"] for r in scoring.score(live, many, {"seed": 3})]
    assert drawn != [r["arm"] for r in scoring.score(live, many, {"seed": 4})]
    assert len(set(drawn)) > 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prise": 4.0}, "unknown columns prise"),
        ({"excluded": "none,reminder,price_freeze,discount_5,discount_10"}, "every arm"),
        ({"excluded": "nobody"}, "an arm that is none"),
        ({"price": "dear"}, "price"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(live: PreparedPolicy, row: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        scoring.score(live, [row], {})


def test_a_changed_file_is_refused(tmp_path: Path, live: PreparedPolicy) -> None:
    file = tmp_path / "posterior.npz"
    data = file.read_bytes()
    file.write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])
    with pytest.raises(SnapshotError):
        scoring.load(tmp_path)
