"""Command `journey-bandit export`: the decisions of a stage as a folder of Parquet files, for evaluation at scale and
for notebooks.
"""

import datetime as dt
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import msgspec
import numpy as np

from api.times import microseconds
from bandit.errors import InvalidRequest, Problem
from bandit.tables.decision_log import LogMetadata, LogReward
from experiments.data.part_files import PartManifest
from experiments.data.part_writer import PartWriter, unfinished
from journey_bandit.exports import export_columns, export_continued, export_tables
from journey_bandit.progress import Advance, progress
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.ledger_log import LedgerLog

_TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ"])


@click.command()
@click.argument("to", type=click.Path(path_type=Path))
@click.option(
    "--ledger",
    required=True,
    envvar="JOURNEY_BANDIT_LEDGER",
    help="A service's ledger: its file; the service may be running.  [or JOURNEY_BANDIT_LEDGER]",
)
@click.option("--stage", required=True)
@click.option("--since", type=_TIME, help="Only decisions made at this time (UTC) or later.")
@click.option("--until", type=_TIME, help="Only decisions made before this time (UTC).")
@click.option("--continue", "go_on", is_flag=True, help="Keep the parts of TO that still hold; write what is new.")
@click.option("--partition-rows", default=1_000_000, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--with",
    "more",
    default="",
    metavar="TABLES",
    help="With these tables beside the decisions, with commas between: outcomes, settlements, events.",
)
@click.option("--segment", default="", metavar="FEATURE", help="With a column of the values of this feature.")
def export(
    to: Path,
    ledger: str,
    stage: str,
    since: dt.datetime | None,
    until: dt.datetime | None,
    partition_rows: int,
    more: str,
    segment: str,
    *,
    go_on: bool,
) -> None:
    """Write the decisions of a stage that an evaluation counts to the folder TO, which is made: Parquet files of so
    many rows and a manifest, whose digest names them.

    `evaluate --rounds TO` reads it, also on other machines; columns have names for DuckDB, pandas and polars. It holds
    keyed hashes of users and contexts: whoever is erased from the ledger stays in it until it is deleted, or written
    again with `--continue`.
    """
    log = ledger_log.open_log(ledger, stage)._replace(segment=segment)
    log = log._replace(made_from=_time(since), made_before=_time(until))
    facts, asked = _facts(log), _tables(more)
    begun = partial(_begun, to, log, facts, go_on=go_on)
    with PartWriter(to, facts, partition_rows, begun, continued=go_on) as writer, _whole_tables(to, go_on=go_on):
        position = writer.told.position
        assert position is not None  # noqa: S101 - it was just read
        log = log._replace(until=position.decision, settled=position.settlement)
        rest = log._replace(after=writer.parts[-1].last if writer.parts else 0)
        with progress(f"{log.app}/{stage}: decisions written") as advance, _without_collector():
            _write(writer, rest, advance, split=go_on)
        if not writer.rows:
            raise InvalidRequest(Problem("stage", f"{stage!r} has no decisions that count", "wait for some"))
        writer.end_part()
        with _without_collector():
            beside = _write_tables(unfinished(to), asked, log, writer.told, partition_rows)
    new = f", {writer.written:,} of them written now" if go_on else ""
    click.echo(f"{to}: {writer.rows:,} decisions of {log.app}/{stage} in {len(writer.parts):,} parts{new}")
    for name, rows in beside.items():
        click.echo(f"{to / f'_{name}'}: {rows:,} {name}" if rows else f"{name}: there are none, so there is no folder")
    click.echo(f"manifest {writer.manifest.digest}")
    for note in ledger_log.of_those_who_stay(log):
        click.echo(f"note: {note}", err=True)


def _write(writer: PartWriter, log: LedgerLog, advance: Advance, *, split: bool) -> None:
    """Write the log's decisions. `split`: a part ends before the first whose reward is not known, so that what is
    before it stays when the export is continued.
    """
    worth = log.worth
    for records, rounds in ledger_log.batches(log):
        table, unknown = export_columns.table(log, worth, records, rounds), np.isnan(rounds.reward)
        if split and unknown.any():
            writer.write(table.slice(0, int(np.argmax(unknown))))
            writer.end_part()
            table, split = table.slice(int(np.argmax(unknown))), False
        writer.write(table)
        advance(len(rounds.reward))


def _tables(names: str) -> list[str]:
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in export_tables.TABLES]:
        known = ", ".join(export_tables.TABLES)
        raise InvalidRequest(Problem("with", f"there is no table {unknown[0]!r}", f"some of {known}"))
    return asked


def _write_tables(
    folder: Path, asked: Sequence[str], log: LedgerLog, told: PartManifest, partition_rows: int
) -> dict[str, int]:
    """Write these tables, and those that a continued export has already, into its folder; their rows by name."""
    names = [name for name in export_tables.TABLES if name in {*asked, *export_tables.there(folder)}]
    return {name: export_tables.write(folder, name, log, told, _facts(log), partition_rows) for name in names}


@contextmanager
def _whole_tables(to: Path, *, go_on: bool) -> Iterator[None]:
    """Without `--continue` an export that raises leaves no table, as it leaves no part: the writer removes the manifest
    next, and without one a later export would take what is left for somebody else's.
    """
    try:
        yield
    except BaseException:
        if not go_on:
            export_tables.remove(unfinished(to))
        raise


@contextmanager
def _without_collector() -> Iterator[None]:
    """Without Python's search for reference cycles: rows have none, and each search walks through all that are held.
    Without them it takes a sixth of an export's time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _begun(to: Path, log: LedgerLog, facts: LogMetadata, *, go_on: bool) -> PartManifest:
    """Manifest of the export with the parts that stay; without `--continue` none stay, nor tables of an export that was
    killed. No other process may write to the folder meanwhile.
    """
    if not go_on:
        export_tables.remove(unfinished(to))
    told = PartManifest(
        rows=0,
        parts=(),
        app=log.app,
        stage=log.stage,
        arms=log.arms,
        spec=log.spec.digest(),
        since=log.made_from,
        until=log.made_before,
        segment=log.segment,
        position=export_continued.position(log.store),
    )
    kept = export_continued.kept_parts(to, log, told, msgspec.json.encode(facts)) if go_on else []
    return msgspec.structs.replace(told, parts=tuple(kept))


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


def _time(when: dt.datetime | None) -> int:
    """µs since 1970 (UTC), 0 for no time."""
    return 0 if when is None else microseconds(when.replace(tzinfo=dt.UTC))
