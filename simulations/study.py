"""Many runs: scenario × policy × seed as independent cells, each finished once and kept in a folder.

A cell's file is named by its digest, so a run that was interrupted goes on where it stopped, and a cell that two
studies share runs once.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from bandit.snapshot import to_zip
from simulations.runner import Cell, Done, Run
from simulations.scenario import Scenario


def cells(
    scenario: Scenario,
    policies: Iterable[str],
    seeds: Iterable[int],
    *,
    users: int,
    days: int,
    journey: bool = False,
    holdout: float = 0.0,
) -> list[Cell]:
    """Every policy with every seed; the seed fixes the people, so all policies meet the same."""
    return [
        Cell(scenario=scenario, policy=policy, users=users, days=days, seed=seed, journey=journey, holdout=holdout)
        for policy in policies
        for seed in seeds
    ]


def finished(cell: Cell, folder: Path) -> Done | None:
    """What the folder holds of the cell, if it was finished."""
    file = folder / "cells" / f"{cell.digest()}.json"
    return msgspec.json.decode(file.read_bytes(), type=Done) if file.exists() else None


def play(cell: Cell, folder: Path) -> Done:
    """Run the cell and keep its summary and last snapshots: `cells/DIGEST.json`, `cells/DIGEST.STAGE.zip`. Files appear
    whole or not at all.
    """
    made = Run(cell)
    for step in range(cell.days):
        made.step(step)
    done = made.done()
    for name, live in made.brain.lives.items():
        _keep(folder / "cells" / f"{cell.digest()}.{name}.zip", to_zip(live.snapshot))
    _keep(folder / "cells" / f"{cell.digest()}.json", msgspec.json.encode(done))
    return done


def study(todo: Sequence[Cell], folder: Path, done: Callable[[int], object] = lambda _: None) -> list[Done]:
    """Every cell, in order, those that were finished before read from the folder."""
    results = []
    for cell in todo:
        results.append(finished(cell, folder) or play(cell, folder))
        done(1)
    return results


def _keep(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(file)
