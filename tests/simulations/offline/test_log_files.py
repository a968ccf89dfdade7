"""Logs of runs: what was decided, row for row; the same on disk wherever it ran; and read by the evaluation code."""

from pathlib import Path

import numpy as np
import pytest

from experiments.data.files import open_log
from simulations import scenario
from simulations.offline import parquet_log, study
from simulations.offline.log_files import StudyLogs, path
from simulations.offline.runner import CellRun, SimulationCell, StepDecisions


def cell(journey: bool = False) -> SimulationCell:
    return SimulationCell(
        scenario=scenario.load("travel"), policy="linear", users=400, days=10, seed=5, journey=journey, holdout=0.1
    )


class Both:
    """Logs, and the rows that went into them."""

    def __init__(self, logs: StudyLogs):
        self.logs, self.rows = logs, list[StepDecisions]()

    def write(self, rows: StepDecisions) -> None:
        self.rows.append(rows)
        self.logs.write(rows)


@pytest.mark.parametrize("journey", [False, True], ids=["one stage", "journey"])
def test_a_log_is_what_was_decided(journey: bool, tmp_path: Path) -> None:
    given = cell(journey)
    with StudyLogs(given, tmp_path) as logs:
        run = CellRun(given, sink := Both(logs))
        for step in range(given.days):
            run.step(step)
    for people in run.populations:
        mine = [rows for rows in sink.rows if rows.stage == people.name]
        file = path(given, people.name, tmp_path)
        found = list(parquet_log.read(file))
        assert bool(found) == bool(mine)
        if not found:
            continue
        (read,) = found
        assert parquet_log.facts(file).arms == people.stage.arms
        assert read.truth is not None
        for name, wanted in (
            ("action", "arm"),
            ("x", "x"),
            ("p", "propensities"),
            ("truth", "truth"),
            ("user", "user"),
        ):
            whole = np.concatenate([getattr(rows, wanted) for rows in mine])
            assert np.array_equal(getattr(read, name), whole), name
        assert np.array_equal(read.pscore, read.p[np.arange(len(read.p)), read.action])
        assert read.regret is not None
        assert read.regret.min() >= 0.0


def test_the_log_on_disk_has_one_digest_in_this_process_and_in_others(tmp_path: Path) -> None:
    todo = [cell(), cell(journey=True)]
    here, there = tmp_path / "here", tmp_path / "there"
    study.study(todo, here, logs=True)
    study.study(todo, there, logs=True, backend="processes", workers=2)
    files = sorted(file.name for file in (here / "logs").iterdir())
    assert len(files) == 6
    for name in files:
        assert parquet_log.digest(here / "logs" / name) == parquet_log.digest(there / "logs" / name)


def test_a_cell_without_its_log_is_run_again_when_logs_are_wanted(tmp_path: Path) -> None:
    study.study([cell()], tmp_path)
    assert not (tmp_path / "logs").exists()
    study.study([cell()], tmp_path, logs=True)
    assert path(cell(), "cart", tmp_path / "logs").exists()


def test_the_evaluation_reads_it_and_its_truth_is_the_mean_of_rewards(tmp_path: Path) -> None:
    """Σ (reward − truth of what was shown) over its standard deviation: |z| ≤ 5.1, false alarm 4e-7."""
    study.study([cell()], tmp_path, logs=True)
    log = open_log(path(cell(), "cart", tmp_path / "logs"))
    assert log.meta is not None
    assert (log.meta.app, log.meta.stage, log.meta.currency) == ("travel", "cart", "EUR")
    rows = sum(len(rounds.reward) for rounds in log.source()())
    (read,) = parquet_log.read(path(cell(), "cart", tmp_path / "logs"))
    assert rows == len(read.reward) > 500
    assert read.truth is not None
    kept = np.array([50.0, 50.0, 50.0, 30.0, 10.0])[read.action]
    shown = np.array([0.0, 0.3, 0.6, 0.0, 0.0])[read.action]
    expected = (read.truth[np.arange(rows), read.action] + shown) / kept
    z = (read.reward - expected).sum() / np.sqrt((expected * (1.0 - expected)).sum())
    assert abs(z) < 5.1
