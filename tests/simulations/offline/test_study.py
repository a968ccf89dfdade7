"""Studies: one digest wherever cells run, also where a worker is killed; what is finished is not run again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bandit.errors import InvalidRequest, RemoteError
from bandit.snapshot import from_zip
from simulations import scenario
from simulations.offline import study
from simulations.offline.runner import CellOutcome, SimulationCell


def cells(seeds: int = 2, **changes: Any) -> list[SimulationCell]:
    given = {"users": 300, "days": 8, **changes}
    policies = ("hierarchical", "linear", "uniform", "oracle")
    return study.cells(scenario.load("travel"), policies, range(seeds), **given)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> list[CellOutcome]:
    return study.study(cells(), tmp_path_factory.mktemp("serial"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two Dask workers, each a process."""
    distributed = pytest.importorskip("distributed", reason="the cluster extra is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as made:
        yield made


def test_processes_give_the_digests_of_a_serial_run(serial: list[CellOutcome], tmp_path: Path) -> None:
    assert study.study(cells(), tmp_path, backend="processes", workers=2) == serial


def test_a_dask_cluster_gives_them_too(serial: list[CellOutcome], cluster: Any, tmp_path: Path) -> None:
    assert study.study(cells(), tmp_path, backend="dask", address=cluster.scheduler_address) == serial


def test_and_so_does_one_whose_worker_is_killed_in_the_middle(
    serial: list[CellOutcome], cluster: Any, tmp_path: Path
) -> None:
    """As soon as two cells are finished, one of the two workers is killed; cells it held run again on the other."""
    killed = list[int]()
    finished = 0

    def kill(step: int) -> None:
        nonlocal finished
        finished += step
        if finished >= 2 and not killed:
            victim = next(iter(cluster.workers.values())).process.process.pid
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    found = study.study(cells(), tmp_path, backend="dask", address=cluster.scheduler_address, progress=kill)
    assert killed
    assert found == serial


def test_finished_cells_are_not_run_again(
    serial: list[CellOutcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half, then all: only the second half is run, and a third time nothing is."""
    todo, ran = cells(), list[str]()

    def play(cell: SimulationCell, logs: Path | None) -> study.CellResult:
        ran.append(cell.digest())
        return real(cell, logs)

    real = study.play
    monkeypatch.setattr(study, "play", play)
    study.study(todo[:4], tmp_path)
    assert study.study(todo, tmp_path) == serial
    assert study.study(todo, tmp_path) == serial
    assert sorted(ran) == sorted(cell.digest() for cell in todo)


def test_what_was_finished_before_a_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo, real = cells(), study.play

    def play(cell: SimulationCell, logs: Path | None) -> study.CellResult:
        if cell == todo[3]:
            raise RemoteError("the machine went away")
        return real(cell, logs)

    monkeypatch.setattr(study, "play", play)
    with pytest.raises(RemoteError, match="went away"):
        study.study(todo, tmp_path)
    assert [study.finished_outcome(cell, tmp_path) is not None for cell in todo] == [True] * 3 + [False] * 5


def test_the_last_snapshot_is_kept_and_equal_cells_run_once(tmp_path: Path) -> None:
    (cell, *_) = cells()
    first, second = study.study([cell, cell], tmp_path)
    assert first == second
    snapshot = from_zip(study.snapshot(cell, "cart", tmp_path))
    assert snapshot.version > 0
    assert not list((tmp_path / "cells").glob("*.part"))


@pytest.mark.parametrize(
    "wrong", ["no_such_policy", "fixed:no_such_arm", "linear:alhpa=0.3", "linear:alpha=-1", "linear:price=-1"]
)
def test_a_wrong_policy_is_refused_before_any_cell_runs_wherever_it_stands(wrong: str) -> None:
    with pytest.raises(InvalidRequest):
        study.cells(scenario.load("travel"), ("uniform", wrong), (1, 2), users=200, days=3)
