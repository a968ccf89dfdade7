"""Log files of a run: its decisions on disk, one Parquet log for each stage, streamed as they are made."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from bandit.features import schema
from bandit.tables.decision_log import LogMetadata, LogReward
from simulations.offline.parquet_log import LogRows, LogWriter
from simulations.offline.runner import SimulationCell, StepDecisions, chosen


class StudyLogs:
    """A decision sink that writes Parquet logs, to be used in a `with` block: the files are whole when it ends, and not
    there if it raises.

    `truth` in a log is of the very person, `regret` given what can be seen: the mean of one is not the other's. Raises
    InvalidRequest if the cell's policy cannot be played.
    """

    def __init__(self, cell: SimulationCell, folder: Path):
        catalogue, who = cell.declared, chosen(cell)
        self._writers = {}
        for name in catalogue.stages if cell.journey else (cell.scenario.stage,):
            stage = who.stage(catalogue.stage(name), cell.holdout)
            reward = LogReward(stage.reward.kind, stage.reward.min, stage.reward.max, stage.reward.value)
            facts = LogMetadata(
                app=catalogue.app,
                stage=name,
                arms=stage.arms,
                policy=who.label,
                scenario=cell.digest(),
                seed=cell.seed,
                currency=catalogue.currency,
                reward=reward,
                floor=stage.common_floor,
            )
            d = len(schema(stage.features).columns)
            self._writers[name] = LogWriter(path(cell, name, folder), facts, d)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for writer in self._writers.values():
            self._stack.enter_context(writer)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def write(self, rows: StepDecisions) -> None:
        """Append one stage's decisions of one step to the stage's log."""
        each = np.arange(len(rows.arm))
        self._writers[rows.stage].write(
            LogRows(
                user=rows.user,
                at=rows.at,
                version=np.full(len(each), rows.version, dtype=np.int64),
                action=rows.arm,
                reward=rows.reward,
                pscore=rows.propensities[each, rows.arm],
                holdout=rows.holdout,
                x=rows.x,
                p=rows.propensities,
                q_hat=rows.mean,
                truth=rows.truth,
                regret=rows.regret,
            )
        )

    @property
    def digests(self) -> dict[str, str]:
        """{stage: digest} of the content of each stage's log so far; see `parquet_log.LogDigest`."""
        return {name: writer.digest for name, writer in self._writers.items()}


def path(cell: SimulationCell, stage: str, folder: Path) -> Path:
    """Path of the log of a cell's stage in `folder`: the digest of the cell, the stage, .parquet."""
    return folder / f"{cell.digest()}.{stage}.parquet"
