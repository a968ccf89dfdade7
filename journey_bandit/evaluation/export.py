"""Command `journey-bandit export`: the decisions of a stage as a folder of Parquet files, for evaluation at scale."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Ints
from bandit.errors import InvalidRequest, Problem
from bandit.tables.decision_log import LogMetadata, LogReward
from experiments.data.part_files import NUMBER
from experiments.data.part_writer import PartWriter
from experiments.data.rounds import LoggedRounds
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.ledger_log import LedgerLog

_SAFE = 5  # bits of a user's key that are dropped, so that it stays a number wherever it is read


@click.command()
@click.argument("to", type=click.Path(path_type=Path))
@click.option("--ledger", required=True, help="A service's ledger: its file; the service may be running.")
@click.option("--stage", required=True)
@click.option("--partition-rows", default=1_000_000, show_default=True, type=click.IntRange(min=1))
@click.option("--segment", default="", metavar="FEATURE", help="With a column of the values of this feature.")
def export(to: Path, ledger: str, stage: str, partition_rows: int, segment: str) -> None:
    """Write the decisions of a stage that an evaluation counts to the folder TO, which is made: Parquet files of so
    many rows and a manifest.

    `evaluate --rounds TO` reads it, also on other machines. It holds keys of users and contexts: whoever is erased from
    the ledger stays in it until it is deleted.
    """
    log = ledger_log.open_log(ledger, stage)._replace(segment=segment)
    with PartWriter(to, _facts(log), partition_rows) as writer:
        for numbers, rounds in ledger_log.numbered(log):
            writer.write(_columns(log, numbers, rounds))
        if not writer.rows:
            raise InvalidRequest(Problem("stage", f"{stage!r} has no decisions that count", "wait for some"))
    click.echo(f"{to}: {writer.rows:,} decisions of {log.app}/{stage} in {len(writer.parts):,} parts")
    for note in ledger_log.of_those_who_stay(log):
        click.echo(f"note: {note}", err=True)


def _facts(log: LedgerLog) -> LogMetadata:
    reward, worth = log.spec.reward, log.worth
    return LogMetadata(
        app=log.app,
        stage=log.stage,
        arms=log.arms,
        currency=log.currency,
        reward=LogReward(reward.kind, reward.min, reward.max, reward.value),
        floor=log.spec.common_floor,
        gain=tuple(worth.gain.tolist()),
        cost=tuple(worth.cost.tolist()),
    )


def _columns(log: LedgerLog, numbers: Ints, rounds: LoggedRounds) -> dict[str, NDArray[Any]]:
    """Columns of these rounds as `experiments.data.files` reads them; q̂ on [0, 1], as logs of ours have it."""
    low, high = log.rewards
    plain = {
        NUMBER: numbers,
        "user": None if rounds.user is None else rounds.user >> _SAFE,
        "at": rounds.at,
        "version": rounds.version,
        "action": rounds.action.astype(np.int16),
        "reward": rounds.reward,
        "pscore": rounds.pscore,
        "holdout": rounds.holdout,
        "segment": rounds.segment,
    }
    wide = {
        "x": rounds.x,
        "p": rounds.propensities,
        "q_hat": None if rounds.q_hat is None else (rounds.q_hat - low) / (high - low),
        "eligible": rounds.eligible,
    }
    each = {f"{name}_{i}": part[:, i] for name, part in wide.items() if part is not None for i in range(part.shape[1])}
    return {**{name: part for name, part in plain.items() if part is not None}, **each}
