"""Continued exports: which parts of an export the ledger still says, so that only what follows them is written.

A decision's row changes when its reward becomes known or is corrected, when its person is erased or joined with another
one, and when the stage is declared anew. A part in which nothing changed stays; from the first other one on, all is
written again.
"""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
from pyarrow import parquet

from api.stores import Store
from api.stores.decision_log import LAST
from bandit.tables.decision_log import KEY
from bandit.tables.reader import refused
from experiments.data import part_files
from experiments.data.part_files import LogPosition, PartEntry, PartManifest
from experiments.data.part_writer import unfinished
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.ledger_log import LedgerLog

_PAGE = 2_000  # settlements that are read at a time
_ROWS = 10_000  # of a part whose people are looked up at a time


def position(store: Store) -> LogPosition:
    """Position of the ledger now."""
    last, erased = store.last(), store.erasures()
    return LogPosition(
        decision=last.decision,
        settlement=last.settlement,
        outcome=last.outcome,
        erasure=erased[-1].seq if erased else 0,
    )


def kept_parts(to: Path, log: LedgerLog, told: PartManifest, facts: bytes) -> list[PartEntry]:
    """Leading parts of the export at `to`, or of one that was killed on the way there, that an export to the manifest
    `told` with the metadata `facts` would write again as they are; none where there is no export.

    Raises InvalidRequest for a folder that is not an export of this stage from that time on with that segment, or whose
    manifest cannot be read.
    """
    folder = to if to.exists() else unfinished(to)
    was = part_files.read_manifest(folder)
    if was is None:
        if to.exists():
            raise refused(f"{to}", "it is not an export: it has no manifest", "give a folder that `export` made")
        return []
    if (was.app, was.stage) != (told.app, told.stage) or was.position is None:
        problem = f"it is an export of {was.app}/{was.stage}, not of {told.app}/{told.stage}"
        raise refused(f"{folder}", problem, "give each stage a folder of its own")
    if (was.since, was.segment) != (told.since, told.segment):
        problem = "it was exported with another --since or --segment"
        raise refused(f"{folder}", problem, "give the same ones, or a folder of its own")
    if not _same_meaning(was, told):
        return []
    end = _first_changed(log, was, told)
    same = (part for part in was.parts if part.last < end)
    return list(takewhile(lambda part: _still(log, folder / part.file, part, facts), same))


def _same_meaning(was: PartManifest, told: PartManifest) -> bool:
    assert was.position is not None  # noqa: S101 - the caller looked
    assert told.position is not None  # noqa: S101
    return (was.position.erasure, was.arms, was.spec) == (told.position.erasure, told.arms, told.spec)


def _first_changed(log: LedgerLog, was: PartManifest, told: PartManifest) -> int:
    """Number of the first decision whose row may have changed; LAST if there is none. 0 if the export is of more than
    the ledger has.
    """
    assert was.position is not None  # noqa: S101 - the caller looked
    assert told.position is not None  # noqa: S101
    if was.position.decision > told.position.decision or was.position.settlement > told.position.settlement:
        return 0
    changed = min(_settled(log, was.position.settlement, told.position.settlement), default=LAST)
    if was.until != told.until:
        bound = min(time for time in (was.until, told.until) if time)
        after = next(log.store.decisions(log.stage, since=bound), None)
        changed = min(changed, after.seq if after else LAST)
    return changed


def _settled(log: LedgerLog, after: int, through: int) -> Iterator[int]:
    """Numbers of the stage's decisions that these settlements are about."""
    while page := log.store.stage_settlements_after(log.stage, after, _PAGE):
        done = [one.settlement for one in page]
        yield from (one.decision_seq for one in done if one.seq <= through)
        after = done[-1].seq
        if after >= through:
            return


def _still(log: LedgerLog, path: Path, part: PartEntry, facts: bytes) -> bool:
    """Whether a part has the bytes that its manifest names, is of this ledger, and its people are who they were."""
    if not path.is_file() or part_files.sha256_of(path) != part.sha256:
        return False
    with parquet.ParquetFile(path) as opened:
        if (opened.schema_arrow.metadata or {}).get(KEY) != facts:
            return False
        last = opened.read_row_group(opened.num_row_groups - 1, columns=["decision_id", "user_hash"])
        there = log.store.decisions_after(part.last - 1, 1)
        row = [{"decision_id": str(one.decision.id), "user_hash": one.decision.user.hex()} for one in there]
        return last.slice(last.num_rows - 1).to_pylist() == row and people_still(log, opened)


def people_still(log: LedgerLog, part: parquet.ParquetFile) -> bool:
    """Whether the hashes of users in a part lead to the persons that it names; a batch of rows is read at a time."""
    for batch in part.iter_batches(_ROWS, columns=["user_hash", "user"]):
        users, keys = batch.columns
        hashes = [bytes.fromhex(user) for user in users.to_pylist()]
        if not np.array_equal(ledger_log.keys_of(log.store, hashes), keys.to_numpy()):
            return False
    return True
