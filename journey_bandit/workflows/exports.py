"""Exports of a ledger that evidence is compared with: opening one, and the ledger as it stood when it was made."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bandit.tables.reader import refused
from experiments.data import files, part_files
from experiments.data.part_files import MANIFEST, NUMBER, LogPosition, PartFile, PartManifest
from experiments.data.rounds import LoggedRounds
from journey_bandit.workflows.ledger_log import LedgerLog

_ROWS = 100_000  # that are read at a time


class ExportedLog(NamedTuple):
    """Exported log of a stage: its folder, manifest, position in the ledger, and files. Every byte was compared with
    the manifest.
    """

    folder: Path
    manifest: PartManifest
    position: LogPosition
    files: tuple[PartFile, ...]

    def rounds(self, after: int) -> Iterator[LoggedRounds]:
        """Rounds of the decisions numbered above `after`, in order, in chunks."""
        rows, left = range(self.manifest.rows), 0
        for _, _, batch in part_files.batches(self.files, [NUMBER], rows, _ROWS):
            left += int((batch.column(0).to_numpy() <= after).sum())
        for source in files.open_log(self.folder).sources():
            for chunk in source():
                skipped = min(left, len(chunk.reward))
                left -= skipped
                yield chunk.only(slice(skipped, None))


def opened(folder: Path, log: LedgerLog) -> ExportedLog:
    """Exported log in a folder. Raises InvalidRequest if it is not as it was written, or not of this stage."""
    table, manifest = part_files.part_table(folder), part_files.named(folder) if folder.is_dir() else None
    if manifest is None or manifest.position is None:
        raise refused(f"{folder}", f"it is not an export: no {MANIFEST} names it", "give a folder that `export` made")
    if (manifest.app, manifest.stage) != (log.app, log.stage):
        problem = f"it is an export of {manifest.app}/{manifest.stage}, not of {log.app}/{log.stage}"
        raise refused(f"{folder}", problem, "give an export of this stage")
    return ExportedLog(folder, manifest, manifest.position, table.files)


def as_exported(log: LedgerLog, folder: Path | None) -> tuple[LedgerLog, ExportedLog | None]:
    """The ledger's log as it stood when the export in a folder was made, between the same times, and the export; the
    log as it is where none is given. Raises InvalidRequest as `opened` does.
    """
    if folder is None:
        return log, None
    export = opened(folder, log)
    said, where = export.manifest, export.position
    log = log._replace(until=where.decision, settled=where.settlement)
    return log._replace(made_from=said.since, made_before=said.until), export
