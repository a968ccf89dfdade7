"""The demo a newcomer runs, on fewer people: a real service, a real MLflow, simulated and real people, over HTTP."""

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from bandit.snapshot import unpack
from journey_bandit import processes
from tests.waiting import COMMAND_PATIENCE, PATIENCE

DEMO = [sys.executable, "-m", "journey_bandit", "demo", "--users", "6000", "--customers", "9000"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, what it printed)"""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*DEMO, "--folder", str(folder)], capture_output=True, text=True, timeout=COMMAND_PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return folder, done.stdout


def metrics(folder: Path, experiment: str) -> dict[str, float]:
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'mlflow' / 'mlflow.db'}?mode=ro", uri=True)) as conn:
        rows = conn.execute(
            "SELECT m.key, m.value FROM latest_metrics m JOIN runs r USING (run_uuid) "
            "JOIN experiments e USING (experiment_id) WHERE e.name = ?",
            (experiment,),
        )
        return dict(rows.fetchall())


def test_the_simulated_policy_beats_no_nudge_and_uniform_by_more_than_its_interval(demo: tuple[Path, str]) -> None:
    found = metrics(demo[0], "travel-cart")
    assert found["net_low"] > 0
    assert found["regret_end"] < 0.7 * found["regret_unif"]
    assert found["min_prop"] >= 1e-4  # the least that cost-aware floors leave an arm


def test_the_replayed_policy_beats_no_email(demo: tuple[Path, str]) -> None:
    found = metrics(demo[0], "hillstrom-retention")
    assert found["lift_lcb"] > 0
    assert found["conv_pct"] <= found["conv_ucb"] <= 25  # nobody gains more than the best arm can


def test_it_prints_what_a_person_needs(demo: tuple[Path, str]) -> None:
    text = demo[1]
    for words in ("propensity now", "no nudge", "uniform", "regret", "always mens", "equal, bit for bit", "make ui"):
        assert words in text


def test_the_run_holds_the_report_and_the_policy_as_data(demo: tuple[Path, str]) -> None:
    artifacts = demo[0] / "mlflow" / "artifacts"
    reports = list(artifacts.rglob("review/report.html"))
    assert len(reports) == 2
    for policy in artifacts.rglob("policy/policy.json"):
        snapshot = unpack(
            {"policy.json": policy.read_bytes(), "posterior.npz": (policy.parent / "posterior.npz").read_bytes()}
        )
        assert snapshot.belief.n.sum() > 1000
        assert json.loads(policy.read_text())["version"] == snapshot.version


def test_ui_links_to_the_runs(demo: tuple[Path, str], free_port: int) -> None:
    command = [
        sys.executable,
        "-m",
        "journey_bandit",
        "ui",
        "--folder",
        str(demo[0] / "mlflow"),
        "--port",
        str(free_port),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as shown, processes.stopping(shown):
        assert shown.stdout is not None
        lines = [shown.stdout.readline().decode() for _ in range(2)]
        links = dict(re.findall(r"^(\S+) +(http\S+)$", "".join(lines), re.MULTILINE))
        assert set(links) == {"travel-cart", "hillstrom-retention"}
        assert all("workflowType=machine_learning" in link for link in links.values())
        page = httpx.get(links["travel-cart"].split("#")[0], timeout=PATIENCE)
        assert page.status_code == 200
        assert "MLflow" in page.text
    with pytest.raises(httpx.ConnectError):  # what the command started ended with it
        httpx.get(links["travel-cart"].split("#")[0], timeout=2)


def test_a_replay_gives_the_same_numbers_again(tmp_path: Path, free_port: int) -> None:
    said = []
    for run in ("first", "second"):
        log = tmp_path / f"{run}.log"
        where = ("--app", "hillstrom", "--store", "memory://", "--port", str(free_port), "--dev", "--salt", "demo")
        with processes.stopping(server := processes.serve(*where, log=log)):
            url = f"http://127.0.0.1:{free_port}"
            processes.wait(server, f"{url}/health/ready", log)
            command = [
                sys.executable,
                "-m",
                "journey_bandit",
                "replay",
                "hillstrom",
                "--url",
                url,
                "--limit",
                "2000",
                "--json",
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_PATIENCE, check=False)
            assert done.returncode == 0, done.stderr
            belief = httpx.get(f"{url}/v1/policies", timeout=PATIENCE).json()["policies"][0]["belief_sha256"]
            said.append((json.loads(done.stdout), belief))
    assert said[0] == said[1]
