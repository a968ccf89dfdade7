"""From decisions to a notebook: what was served, exported, queried, evaluated and published is one set of figures."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from mlflow.tracking import MlflowClient
from pyarrow import parquet

from bandit import features
from bandit.catalogue.loading import parse, read_shipped
from experiments.data import part_files
from tests.registry.conftest import MODEL, STAGE, Shop, contexts

pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "exports.md"
POLICIES = ("--policy", "uniform", "--policy", "fixed:reminder", "--against", "none", "--force", "--json")


@pytest.fixture(scope="module")
def log(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of all that is settled, and of 40 decisions that are open."""
    for _ in range(40):
        shop.ask(price=100)
    folder = tmp_path_factory.mktemp("export") / "cart-log"
    shop.ok("export", "--ledger", shop.store, "--stage", STAGE, "--continue", str(folder))
    return folder


@pytest.fixture(scope="module")
def digest(log: Path) -> str:
    return str(json.loads((log / "_manifest.json").read_bytes())["digest"])


def queries() -> list[str]:
    """The guide's queries in order: the lift, and the lift of each week."""
    return re.findall(r"^```sql\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def answer(shop: Shop, *words: str) -> Any:
    done = shop.run(*words)
    assert done.exit_code in (0, 3), (done.output, done.exception)
    return json.loads(done.stdout)


def test_the_lift_of_the_guides_query_is_what_monitor_says(shop: Shop, log: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    query = queries()[0]
    (row,) = duckdb.sql(query.replace("cart-log", str(log))).fetchall()
    said = answer(shop, "monitor", "--ledger", shop.store, "--stage", STAGE, "--json")
    n, live, held, lift = row
    assert n == said["n"] >= 1200
    assert live == pytest.approx(said["live"]["value"], rel=1e-12, abs=1e-12)
    assert lift == pytest.approx(said["lift"]["value"], rel=1e-12, abs=1e-12)
    assert held == pytest.approx(live - lift, rel=1e-12, abs=1e-12)
    assert abs(lift) > 1e-6


def test_the_lift_of_each_week_adds_up_to_what_monitor_says(shop: Shop, log: Path, tmp_path: Path) -> None:
    """Also where the decisions are of three weeks; the standard error is that of people, in numpy."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    table = pa.concat_tables([parquet.read_table(path) for path in sorted(log.glob("part-*.parquet"))])
    weeks = np.arange(table.num_rows) // 500
    at = table["at"].to_numpy() + weeks * 7 * 86_400_000_000
    parquet.write_table(table.set_column(table.column_names.index("at"), "at", pa.array(at)), tmp_path / "p.parquet")
    said = answer(shop, "monitor", "--ledger", shop.store, "--stage", STAGE, "--json")
    for folder, several in ((log, False), (tmp_path, True)):
        rows = duckdb.sql(queries()[1].replace("cart-log", str(folder))).fetchall()
        assert (len(rows) > 2) == several
        assert sum(n for _, _, n, _, _ in rows) == said["n"]
        mean = sum(n * lift for _, _, n, lift, _ in rows) / said["n"]
        assert mean == pytest.approx(said["lift"]["value"], rel=1e-12, abs=1e-12)
    known = table.slice(0, said["n"])
    held, share = known["holdout"].to_numpy(zero_copy_only=False), known["holdout_share"].to_numpy()
    score = (known["net"].to_numpy() - known["expected_net_none"].to_numpy()) * np.where(
        held, -1 / share, 1 / (1 - share)
    )
    week = (at[: said["n"]] // 86_400_000_000 + 3) // 7  # days since 1970 begin with a Thursday
    for one, (monday, people, n, lift, error) in zip(np.unique(week), rows, strict=True):
        mine, user = score[week == one], known["user"].to_numpy()[week == one]
        sums = np.array([(mine[user == each] - mine.mean()).sum() for each in np.unique(user)])
        assert (monday.weekday(), people, n) == (0, len(sums), len(mine))
        assert lift == pytest.approx(mine.mean(), rel=1e-9, abs=1e-12)
        assert error == pytest.approx(np.sqrt(len(sums)) * sums.std(ddof=1) / len(mine), rel=1e-9)


def test_evaluating_the_export_is_evaluating_the_ledger(shop: Shop, log: Path, digest: str) -> None:
    """To 1e-12, every estimator of every policy; and the export is named."""
    mine = answer(shop, "evaluate", "--ledger", shop.store, "--stage", STAGE, *POLICIES)
    theirs = answer(shop, "evaluate", "--rounds", str(log), *POLICIES)
    assert theirs["manifest"] == digest
    assert "manifest" not in mine
    compared = 0
    for left, right in zip([mine, *mine["others"]], [theirs, *theirs["others"]], strict=True):
        assert left["estimates"].keys() == right["estimates"].keys()
        for name, estimate in left["estimates"].items():
            for what in ("value", "interval", "sequence"):
                other = right["estimates"][name]
                one, two = (np.array(e.get(what) or np.nan, dtype=float) for e in (estimate, other))
                np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12, err_msg=f"{name} {what}")
                compared += 1
    assert compared >= 3 * 2 * 6


def test_a_published_version_names_the_export_that_it_was_judged_by(shop: Shop, log: Path, digest: str) -> None:
    done = answer(shop, "publish", STAGE, "--store", shop.store, "--rounds", str(log), "--json")
    client = MlflowClient(shop.mlflow, shop.mlflow)
    version = client.get_model_version(MODEL, done["version"])
    assert version.tags["export_sha256"] == digest
    run = client.get_run(str(version.run_id))
    assert run.data.tags["export_sha256"] == digest
    assert digest in run.data.tags["mlflow.note.content"]


def test_an_export_of_other_rewards_is_not_named(shop: Shop, log: Path, tmp_path: Path) -> None:
    """As if somebody had exported a copy of the ledger with other rewards: its manifest is right, and not of these."""
    shutil.copytree(log, tmp_path / "log")
    said = part_files.read_manifest(tmp_path / "log")
    assert said is not None
    path = tmp_path / "log" / said.parts[0].file
    table = parquet.read_table(path)
    reward = table["reward"].to_numpy().copy()
    reward[-1] = 1.0 - reward[-1]
    changed = table.set_column(table.schema.get_field_index("reward"), "reward", [reward])
    parquet.write_table(changed, path, write_statistics=["decision"])
    sha256 = part_files.sha256_of(path)
    first = msgspec.structs.replace(said.parts[0], bytes=path.stat().st_size, sha256=sha256)
    forged = msgspec.structs.replace(said, parts=(first, *said.parts[1:])).signed()
    (tmp_path / "log" / "_manifest.json").write_bytes(msgspec.json.encode(forged))
    done = shop.run("publish", STAGE, "--store", shop.store, "--rounds", str(tmp_path / "log"), "--json")
    assert "its decisions, contexts or rewards are not those of the ledger" in str(done.exception)


def test_features_are_in_the_units_that_the_app_sent(log: Path) -> None:
    """Whole numbers, yes or no, and texts exactly; prices as a number that is encoded in the same way."""
    table = parquet.read_table(sorted(log.glob("*.parquet")))
    sent = contexts(np.random.default_rng(1), 1200)
    rows = table.slice(0, 1200).to_pylist()
    layout = features.schema(parse(read_shipped("travel")).stage(STAGE).features)
    for asked, row in zip(sent, rows, strict=True):
        assert (row["f_returning"], row["f_device"]) == (asked["returning"], asked["device"])
        assert row["f_searches_24h"] == min(asked["searches_24h"], layout.features["searches_24h"].max or 0)
        same = features.encode(layout, {**asked, "price": row["f_price"]})
        assert np.array_equal(same.x, features.encode(layout, asked).x)
        assert row["f_days_to_departure"] is None
    assert {row["f_price"] for row in table.slice(1200).to_pylist()} == {100.0}
