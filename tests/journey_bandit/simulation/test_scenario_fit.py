"""`scenario fit`: a twin from a ledger that a service left behind, or from a Parquet log, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from litestar.testing import TestClient

from api.app import create_app
from api.settings import Settings
from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import InvalidRequest
from journey_bandit.main import group
from journey_bandit.workflows import app_logs
from simulations import scenario
from tests.simulations.twin.twin_worlds import stage_of

START, HOUR = 1_767_571_200_000_000, 3_600_000_000
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """run(*arguments): the command in this process; our own errors end up in `exception`."""
    return lambda *arguments: CliRunner().invoke(group, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 users of fintech in 20 hours, who come to onboarding, again a day later, and to the cart; a third finish an
    hour later.
    """
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    now = [START]
    settings = Settings(app="fintech", dev=True, store=f"sqlite:///{file}", salt="twin")
    with TestClient(create_app(settings, clock=lambda: now[0])) as client:
        for day, stage in enumerate(("onboarding", "onboarding", "cart")):
            for n in range(200):
                now[0] = START + day * 24 * HOUR + n * HOUR // 10
                _visit(client, now, stage, n)
        now[0] += 30 * 24 * HOUR
        client.get("/v1/policies", params={"wait": True})
    return file


def _visit(client: TestClient[Any], now: list[int], stage: str, n: int) -> None:
    known = {"steps_done": n % 5} if stage == "onboarding" else {"hours_idle": n % 20}
    request = {"stage": stage, "user_id": f"u{n}", "context": known}
    made = client.post("/v1/decisions", json=request).json()
    if n % 3 == 0:
        now[0] += HOUR
        client.post("/v1/outcomes", json={"decision_id": made["decision_id"], "kind": "reward"})
        now[0] -= HOUR


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    words = ("--app", "fintech", "--policy", "uniform", "--users", "300", "--days", "12", "--seeds", "1", "--log")
    done = CliRunner().invoke(group, ["simulate", *words, "--backend", "serial", "--out", str(folder), "--json"])
    assert done.exception is None, done.exception
    return Path(json.loads(done.stdout)["logs"]["uniform, seed 100, onboarding"])


def test_a_ledger_is_read_as_it_was_made(ledger: Path) -> None:
    found = app_logs.of_ledger(f"sqlite:///{ledger}", "onboarding", stage_of("fintech"))
    log = found.log
    assert (len(log.arm), len(set(log.user.tolist())), found.dropped) == (400, 200, 0)
    assert (np.diff(log.at) >= 0).all()
    assert log.reward.sum() == 2 * 67
    np.testing.assert_allclose(log.delay[log.reward > 0], 3600.0)
    assert np.isnan(log.delay[log.reward == 0]).all()
    assert 0 < log.holdout.sum() < 100
    assert not (log.arm[log.holdout] > 0).any()
    assert not log.out.any()
    assert log.eligible[:, 0].all()
    assert not log.eligible[log.holdout, 1:].any()


def test_a_twin_of_a_ledger_is_a_scenario_that_runs(run: Run, ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "twin.toml"
    told = ("--app", "fintech", "--store", f"sqlite:///{ledger}", "--out", out, "--draws", "8")
    done = run("scenario", "fit", *told, "--json")
    assert done.exception is None, done.exception
    body = json.loads(done.stdout)
    assert (body["stage"], body["decisions"], body["rewards"]) == ("onboarding", 400, 134)
    assert body["predictions"][0]["what"] == "net value a decision"
    assert run("scenario", "check", out, "--app", "fintech").exception is None
    played = ("--app", "fintech", "--scenario", out, "--users", "200", "--days", "5", "--seeds", "8", "--json")
    ranked = run("simulate", *played, "--policy", "oracle", "--policy", "uniform", "--out", tmp_path / "sim",
                 "--backend", "serial")  # fmt: skip
    assert ranked.exception is None, ranked.exception
    ranking = {one["policy"]: one for one in json.loads(ranked.stdout)["ranking"]}
    assert set(ranking) == {"oracle", "uniform", "fixed:none"}
    assert ranking["fixed:none"]["gain"] == 0.0
    assert ranking["oracle"]["best"] is None
    assert ranking["uniform"]["best"] + ranking["fixed:none"]["best"] == pytest.approx(1.0)
    assert ranking["oracle"]["gain"] >= max(0.0, ranking["uniform"]["gain"])
    cells = json.loads(ranked.stdout)["cells"]
    assert len({digest for name, digest in cells.items() if name.startswith("uniform")}) == 8


def test_what_was_fitted_is_said_for_a_person(run: Run, ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "twin.toml"
    done = run("scenario", "fit", "--app", "fintech", "--store", f"sqlite:///{ledger}", "--out", out, "--draws", "8")
    assert done.exception is None, done.exception
    assert "the last 80 decisions, predicted from 320" in " ".join(done.stdout.split())
    assert "inside their 90 % intervals" in " ".join(done.stdout.split())
    assert out.read_text().startswith("# Twin of fintech, stage onboarding: fitted by `journey-bandit scenario fit`")
    again = run("scenario", "fit", "--app", "fintech", "--store", f"sqlite:///{ledger}", "--out", out)
    assert "--force to replace it" in str(again.exception)


def test_a_parquet_log_gives_the_stage_and_no_times(run: Run, parquet: Path, tmp_path: Path) -> None:
    catalogue = parse(read_shipped("fintech"))
    found = app_logs.of_parquet(parquet, catalogue)
    assert found.stage == "onboarding"
    assert not found.log.times_known
    assert np.isnan(found.log.delay).all()
    out = tmp_path / "twin.toml"
    done = run("scenario", "fit", "--app", "fintech", "--log", parquet, "--out", out, "--draws", "8")
    assert done.exception is None, done.exception
    assert len(scenario.draws(scenario.read(out), out)) == 8


def test_a_journey_needs_every_stage(run: Run, ledger: Path, tmp_path: Path) -> None:
    told = ("--app", "fintech", "--store", f"sqlite:///{ledger}", "--out", tmp_path / "twin.toml", "--draws", "8")
    refused = str(run("scenario", "fit", *told, "--journey").exception)
    assert "journey.browsing: the ledger has no decision there → fit without --journey" in refused
    assert "journey.retention" in refused
    assert not (tmp_path / "twin.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--app", "fintech"), "give --store URL, or --log FILE"),
        (("--app", "fintech", "--store", "LEDGER", "--log", "LOG"), "give --store URL, or --log FILE"),
        (("--app", "fintech", "--log", "LOG", "--journey"), "--journey needs --store"),
        (("--app", "fintech", "--log", "LOG", "--out", "twin.json"), "does not end in .toml"),
        (("--app", "travel", "--log", "LOG"), "is of fintech, the catalogue of travel"),
        (("--app", "fintech", "--log", "LOG", "--stage", "cart"), "leave it out, or onboarding"),
        (("--app", "fintech", "--store", "LEDGER", "--stage", "kart"), "kart"),
        (("--app", "fintech", "--store", "LEDGER", "--stage", "browsing"), "browsing"),
        (("--app", "fintech", "--store", "LEDGER", "--stage", "cart"), "160 decisions with known rewards"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    run: Run, ledger: Path, parquet: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """The cart of this ledger has 200 decisions, of which the judged twin would see too few."""
    named = {"LEDGER": f"sqlite:///{ledger}", "LOG": str(parquet)}
    words = [named.get(word, word) for word in arguments]
    if "--out" not in words:
        words += ["--out", str(tmp_path / "twin.toml")]
    done = run("scenario", "fit", *words)
    assert done.exit_code != 0
    assert said in f"{done.output} {done.exception}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.slice(0, 0), "has no decision → fit to a log that has some"),
        (lambda table: _rewards(table, 3.0), "of onboarding, such as 3, are outside the declared range, 0 to 1"),
        (lambda table: _rewards(table, -1.0), "of onboarding, such as -1, are outside the declared range, 0 to 1"),
        (lambda table: table.slice(0, 10), "8 decisions with known rewards in its first four fifths"),
        (lambda table: table.slice(0, 10), "fit to 250 or more in all"),
        (lambda table: table.drop(["user"]), "has no user → a fit needs them"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(
    run: Run, parquet: Path, tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    changed = tmp_path / "log.parquet"
    pq.write_table(change(pq.read_table(parquet)), changed)
    done = run("scenario", "fit", "--app", "fintech", "--log", changed, "--out", tmp_path / "twin.toml")
    assert isinstance(done.exception, InvalidRequest), done.exception
    assert said in str(done.exception)


def _rewards(table: Any, value: float) -> Any:
    """The table with this reward in every row."""
    place = table.schema.get_field_index("reward")
    return table.set_column(place, "reward", pa.array([value] * table.num_rows))


def test_more_draws_than_the_twin_has_are_refused(run: Run, parquet: Path, tmp_path: Path) -> None:
    out = tmp_path / "twin.toml"
    run("scenario", "fit", "--app", "fintech", "--log", parquet, "--out", out, "--draws", "8")
    done = run("simulate", "--app", "fintech", "--scenario", out, "--seeds", "9", "--out", tmp_path)
    assert "the twin has 8 draws → --seeds 8 or fewer" in str(done.exception)
    logged = run("simulate", "--app", "fintech", "--scenario", out, "--mlflow", "http://127.0.0.1:9", "--out", tmp_path)
    assert "the runs of a twin are of different worlds" in str(logged.exception)
