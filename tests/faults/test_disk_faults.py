"""A power cut at any write, and errors of any call: what was acknowledged is there, and nothing is damaged."""

import random
import shutil
from pathlib import Path

import pytest

from tests.faults.ledger_script import NAME, lost
from tests.faults.recorded_io import DiskState, calls, library, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("library"))


def cut_at(log: Path, folder: Path, cuts: int, seed: int) -> list[list[str]]:
    """What is wrong after each of so many cuts, at calls that chance has chosen."""
    recorded, chance, found, state = list(calls(log)), random.Random(seed), list[list[str]](), DiskState()
    begin = next(i for i, call in enumerate(recorded) if call.file.endswith("-acknowledged"))
    chosen = set(chance.sample(range(begin, len(recorded)), cuts))
    for i, call in enumerate(recorded):
        state.follow(call)
        if i in chosen:
            here = folder / f"cut-{i}"
            here.mkdir()
            state.cut(here, chance)
            found.append(lost(here / NAME, state.acknowledged))
            shutil.rmtree(here)
    return found


@pytest.mark.parametrize(
    ("cuts", "seed"), [(100, 1), *(pytest.param(500, s, marks=pytest.mark.slow) for s in range(4))]
)
def test_a_power_cut_loses_nothing_that_was_acknowledged(cuts: int, seed: int, made: Path, tmp_path: Path) -> None:
    run(made, tmp_path / "run", "cut", "60")
    found = cut_at(tmp_path / "run" / "io.log", tmp_path, cuts, seed)
    assert [one for one in found if one] == []
    print(f"{len(found)} power cuts: 0 lost, 0 damaged")


def test_the_same_cuts_lose_rows_where_commits_are_not_synced(made: Path, tmp_path: Path) -> None:
    """The check can fail: with synchronous = NORMAL, acknowledged rows are lost, and none is damaged."""
    run(made, tmp_path / "run", "cut", "60", "NORMAL")
    found = [one for one in cut_at(tmp_path / "run" / "io.log", tmp_path, 40, 1) if one]
    assert len(found) >= 5
    assert all("is lost" in said for one in found for said in one), found


@pytest.mark.parametrize(("trials", "seed"), [(4, 1), *(pytest.param(50, s, marks=pytest.mark.slow) for s in (2, 3))])
def test_errors_of_the_disk_lose_nothing_that_was_acknowledged(
    trials: int, seed: int, made: Path, tmp_path: Path
) -> None:
    """EIO or ENOSPC from any call on, reads too: in commits, in learning and while the log is emptied."""
    failed = int(run(made, tmp_path / "run", "errors", str(trials), str(seed)))
    assert failed >= 5 * trials
    print(f"{trials} trials, {failed} failed transactions: 0 lost, 0 damaged")
