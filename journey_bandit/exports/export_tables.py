"""Export tables: what a ledger has of outcomes, settlements and events, as folders of Parquet files inside an export.

Each table lies in a folder of its own with a manifest of its own, as decisions do, and rests on the position in the
ledger that the manifest of the decisions names. The ledger appends to all three and changes nothing of them, but for
what an erasure overwrites; so a table is continued after its last row, and written anew after an erasure. The columns
are in the guide `exports`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from api.stores.decision_log import NumberedOutcome
from api.stores.learning_state import StageSettlement
from bandit.records import Event
from bandit.tables.decision_log import KEY, LogMetadata
from experiments.data import part_files, part_writer
from experiments.data.part_files import MANIFEST, PartEntry, PartManifest
from experiments.data.part_writer import PartWriter, unfinished
from journey_bandit.exports.export_continued import people_still
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.ledger_log import LedgerLog

_PAGE = 2_000
_TIME = pa.timestamp("us", tz="UTC")
Page = tuple[int, Any]
"""Number of the last row that was read of a table, and an Arrow table of those that belong to the export."""


class ExportTable(NamedTuple):
    """Table of an export: its rows after a number, at most so many read, None after the last; and the column with their
    numbers, which is the field of a position.
    """

    number: str
    page: Callable[[LedgerLog, int, int], Page | None]


def _outcomes(log: LedgerLog, after: int, most: int) -> Page | None:
    found = log.store.outcomes_after(log.stage, after, most)
    rows = [one for one in found if _within(log, one.decided)]
    return (found[-1].seq, _outcome_columns(rows)) if found else None


def _outcome_columns(rows: Sequence[NumberedOutcome]) -> Any:
    told = [one.outcome for one in rows]
    return pa.table(
        {
            "outcome": pa.array([one.seq for one in rows], pa.int64()),
            "decision": pa.array([one.decision_seq for one in rows], pa.int64()),
            "decision_id": pa.array([str(one.decision) for one in told], pa.string()),
            "kind": pa.array([one.kind for one in told], pa.string()),
            "value": pa.array([one.value for one in told], pa.float64()),
            "time": pa.array([one.occurred for one in told], _TIME),
            "received": pa.array([one.received for one in told], _TIME),
            "late": pa.array([one.late for one in told], pa.bool_()),
            "voids": pa.array([one.voids or None for one in rows], pa.int64()),
        }
    )


def _settlements(log: LedgerLog, after: int, most: int) -> Page | None:
    found = log.store.stage_settlements_after(log.stage, after, most)
    rows = [one for one in found if _within(log, one.decided)]
    return (found[-1].settlement.seq, _settlement_columns(rows)) if found else None


def _settlement_columns(rows: Sequence[StageSettlement]) -> Any:
    done = [one.settlement for one in rows]
    return pa.table(
        {
            "settlement": pa.array([one.seq for one in done], pa.int64()),
            "decision": pa.array([one.decision_seq for one in done], pa.int64()),
            "decision_id": pa.array([str(one.decision) for one in rows], pa.string()),
            "arm": pa.array([one.arm for one in done], pa.string()),
            "time": pa.array([one.at for one in done], _TIME),
            "reward": pa.array([one.reward for one in done], pa.float64()),
            "why": pa.array([one.why for one in done], pa.string()),
            "learned": pa.array([one.learned for one in done], pa.bool_()),
            "corrects": pa.array([one.corrects or None for one in done], pa.int64()),
        }
    )


def _events(log: LedgerLog, after: int, most: int) -> Page | None:
    found = log.store.events_after(after, most)
    rows = [(seq, event) for seq, event in found if event.name and _within(log, event.at)]
    return (found[-1][0], _event_columns(log, rows)) if found else None


def _event_columns(log: LedgerLog, rows: Sequence[tuple[int, Event]]) -> Any:
    events = [event for _, event in rows]
    return pa.table(
        {
            "event": pa.array([seq for seq, _ in rows], pa.int64()),
            "user_hash": pa.array([one.user.hex() for one in events], pa.string()),
            "user": ledger_log.keys_of(log.store, [one.user for one in events]),
            "name": pa.array([one.name for one in events], pa.string()),
            "time": pa.array([one.at for one in events], _TIME),
            "received": pa.array([one.received for one in events], _TIME),
            "properties": pa.array([msgspec.json.encode(one.properties).decode() for one in events], pa.string()),
        }
    )


TABLES = {
    "outcomes": ExportTable("outcome", _outcomes),
    "settlements": ExportTable("settlement", _settlements),
    "events": ExportTable("event", _events),
}
"""Tables by name. Each lies in the folder "_" + name of an export."""


def there(export: Path) -> list[str]:
    """Names of the tables that an export has, or one that was interrupted had."""
    return [
        name
        for name in TABLES
        if (_folder(export, name) / MANIFEST).exists() or unfinished(_folder(export, name)).exists()
    ]


def remove(export: Path, names: Collection[str] = tuple(TABLES)) -> None:
    """Remove these tables of an export, whole or not; what others put into their folders stays."""
    for name in names:
        part_writer.remove(_folder(export, name))


def write(export: Path, name: str, log: LedgerLog, told: PartManifest, facts: LogMetadata, rows: int) -> int:
    """Write a table of an export up to the position that `told` names, in parts of so many rows, after those that are
    there and stay; returns how many rows it has then. A table without rows has no folder.
    """
    table, folder = TABLES[name], _folder(export, name)
    assert told.position is not None  # noqa: S101 - it was just read
    if table.number == "event":  # events have no place in the position of decisions
        position = msgspec.structs.replace(told.position, event=log.store.last_event())
        told = msgspec.structs.replace(told, position=position)
    end: int = getattr(told.position, table.number)
    told = _begun(folder, table, log, told, msgspec.json.encode(facts))  # the export's own lock keeps others out
    pages = _rows(table, log, told.parts[-1].last if told.parts else 0, end)
    first = next(pages, None)
    if first is None and not told.parts:
        remove(export, [name])
        return 0
    with PartWriter(folder, facts, rows, lambda: told, continued=True, number=table.number) as writer:
        for page in chain([] if first is None else [first], pages):
            writer.write(page)
        return writer.rows


def _rows(table: ExportTable, log: LedgerLog, after: int, end: int) -> Iterator[Any]:
    """Arrow tables of the rows numbered above `after` and up to `end`; none is empty."""
    while after < end and (page := table.page(log, after, _PAGE)):
        after, found = page
        numbers = found[table.number].to_numpy()
        found = found.slice(0, int(np.searchsorted(numbers, end, side="right")))
        if found.num_rows:
            yield found


def _begun(folder: Path, table: ExportTable, log: LedgerLog, told: PartManifest, facts: bytes) -> PartManifest:
    """Manifest of the table with the leading parts that stay."""
    lies = folder if folder.exists() else unfinished(folder)
    was = part_files.read_manifest(lies) if lies.exists() else None
    if was is None or not _same_meaning(was, told):
        return msgspec.structs.replace(told, parts=())
    end: int = getattr(told.position, table.number)
    same = (part for part in was.parts if part.last <= end)
    kept = takewhile(lambda part: _still(lies / part.file, part, table, log, facts), same)
    return msgspec.structs.replace(told, parts=tuple(kept))


def _same_meaning(was: PartManifest, told: PartManifest) -> bool:
    """Whether rows that were written belong to an export of now: nobody was erased since, and it is about the same."""

    def meaning(one: PartManifest) -> tuple[object, ...]:
        return one.app, one.stage, one.since, one.until, one.position and one.position.erasure

    return meaning(was) == meaning(told)


def _still(path: Path, part: PartEntry, table: ExportTable, log: LedgerLog, facts: bytes) -> bool:
    """Whether a part has the bytes that its manifest names, its last row is the ledger's, and its people are who they
    were.
    """
    if not path.is_file() or part_files.sha256_of(path) != part.sha256:
        return False
    page = table.page(log, part.last - 1, 1)
    with parquet.ParquetFile(path) as opened:
        schema = opened.schema_arrow
        if (schema.metadata or {}).get(KEY) != facts or page is None:
            return False
        last = opened.read_row_group(opened.num_row_groups - 1)
        if not last.slice(last.num_rows - 1).replace_schema_metadata(None).equals(page[1]):
            return False
        return "user" not in schema.names or people_still(log, opened)


def _within(log: LedgerLog, at: int) -> bool:
    return log.made_from <= at and (not log.made_before or at < log.made_before)


def _folder(export: Path, name: str) -> Path:
    return export / f"_{name}"
