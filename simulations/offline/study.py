"""Study: many runs, scenario × policy × seed as independent cells, each finished once and kept in a folder.

A cell's file is named by its digest, so a study that was interrupted goes on where it stopped, and a cell that two
studies share runs once. Workers return what they found, and the caller keeps it: they need no folder in common.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bandit.snapshot import to_zip
from simulations.contenders.playing import made_from
from simulations.offline import parallel
from simulations.offline.log_files import StudyLogs, path
from simulations.offline.parallel import Backend
from simulations.offline.runner import CellOutcome, CellRun, SimulationCell, check
from simulations.scenario import Scenario


class CellResult(NamedTuple):
    """Result of a cell as a worker returns it: the outcome, and the last snapshot of each stage as the bytes of an
    archive.
    """

    done: CellOutcome  # the outcome
    snapshots: dict[str, bytes]  # stage → bytes of an archive


def cells(
    scenario: Scenario,
    policies: Iterable[str],
    seeds: Iterable[int],
    *,
    users: int,
    days: int,
    journey: bool = False,
    holdout: float = 0.0,
    catalogue: str = "",
) -> list[SimulationCell]:
    """One cell for every policy with every seed; the seed fixes the people, so all policies meet the same. Arguments as
    in `SimulationCell`.

    Raises InvalidRequest for a policy that cannot be run, whichever of them it is: before any cell runs.
    """
    size: dict[str, Any] = {"users": users, "days": days, "journey": journey, "holdout": holdout}
    made = [
        SimulationCell(scenario=scenario, policy=policy, seed=seed, catalogue=catalogue, code=code, **size)
        for policy, code in {policy: made_from(policy) for policy in policies}.items()
        for seed in seeds
    ]
    for cell in {cell.policy: cell for cell in made}.values():
        check(cell)
    return made


def play(cell: SimulationCell, logs: Path | None = None) -> CellResult:
    """Run one cell; its decisions go to Parquet files in the folder `logs`, if one is given. Raises what `runner.run`
    raises.
    """
    with StudyLogs(cell, logs) if logs else nullcontext() as sink:
        made = CellRun(cell, sink)
        for step in range(cell.days):
            made.step(step)
    return CellResult(made.done(), {name: to_zip(live.snapshot) for name, live in made.brain.prepared.items()})


def finished_outcome(cell: SimulationCell, folder: Path) -> CellOutcome | None:
    """The outcome of a cell that was finished before, as the folder holds it; None if there is none."""
    file = folder / "cells" / f"{cell.digest()}.json"
    return msgspec.json.decode(file.read_bytes(), type=CellOutcome) if file.exists() else None


def snapshot(cell: SimulationCell, stage: str, folder: Path) -> bytes:
    """Bytes of the archive with a finished cell's last snapshot at a stage. Raises OSError if the cell was not finished
    in this folder.
    """
    return (folder / "cells" / f"{cell.digest()}.{stage}.zip").read_bytes()


def study(
    todo: Sequence[SimulationCell],
    folder: Path,
    *,
    backend: Backend = "serial",
    workers: int | None = None,
    address: str | None = None,
    logs: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> list[CellOutcome]:
    """Run every cell and return their outcomes, in order; those that were finished before are read from the folder.

    `progress` is called with how many more are done. `logs`: also write each cell's decisions to the folder's `logs`,
    which every worker must then share. What `parallel.run` raises is raised here (RemoteError for workers that died);
    what was finished until then is kept.
    """
    found = {cell.digest(): finished_outcome(cell, folder) for cell in todo}
    if logs:
        found = {c.digest(): found[c.digest()] if _logged(c, folder) else None for c in todo}
    missing = {cell.digest(): cell for cell in todo if found[cell.digest()] is None}
    progress(len(todo) - len(missing))
    names = list(missing)
    task = partial(play, logs=(folder / "logs").absolute() if logs else None)
    for i, result in parallel.run(task, list(missing.values()), backend=backend, workers=workers, address=address):
        keep(missing[names[i]], result, folder)
        found[names[i]] = result.done
        progress(1)
    return [done for cell in todo if (done := found[cell.digest()]) is not None]


def _logged(cell: SimulationCell, folder: Path) -> bool:
    done = finished_outcome(cell, folder)
    return done is not None and all(path(cell, stage, folder / "logs").exists() for stage in done.stages)


def keep(cell: SimulationCell, result: CellResult, folder: Path) -> None:
    """Write the result of a cell to the folder, where `finished_outcome` finds it; the summary last, so that where the
    summary is, everything is. Called by `study`, and by who runs a cell in another way.
    """
    digest = cell.digest()
    for stage, archive in result.snapshots.items():
        _write(folder / "cells" / f"{digest}.{stage}.zip", archive)
    _write(folder / "cells" / f"{digest}.json", msgspec.json.encode(result.done))


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all: under another name first, which is then replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(file)
