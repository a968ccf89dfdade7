"""Part files: the Parquet files that a log lies in, one file or a folder of them, read as one table.

The parts of a folder follow each other in the order of their names, numbers in them as numbers: part.2 before part.10.
Names that begin with "_" or "." are no parts. `experiments.data.part_writer` writes folders with a manifest, which says
how many rows and bytes each part has; where there is one, a part that is missing, cut short or too many is found before
anything is read. A folder that somebody else wrote needs none, and then nothing can say what is missing.

What is read of a part is checked again by whoever reads it, which may be another process on another machine.

A manifest has a digest of its own, which names the log: `named` compares every byte with it.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from pyarrow import parquet

from bandit.errors import InvalidRequest, Problem
from bandit.tables.reader import refused

MANIFEST = "_manifest.json"
NUMBER = "decision"
"""Column of our own logs: the decision's number in the ledger, rising from row to row."""
MARK = b"journey_bandit_parts"
"""In the metadata of a part: its folder is not whole without a manifest."""
UNREADABLE = (pa.ArrowException, OSError)


class PartEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Entry of a manifest: name of the part's file in its folder, its rows, its size in bytes, the SHA-256 of these in
    hexadecimal, and the number of its last row: of its decision, outcome, settlement or event. Manifests of others may
    leave out the last two.
    """

    file: str
    rows: int
    bytes: int
    sha256: str = ""
    last: int = 0


class LogPosition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Position of a log in the ledger that it was read from: the numbers of the last decision, settlement, outcome and
    entry of the log of erasures that it rests on; of the last event, in a table of events alone.
    """

    decision: int
    settlement: int
    outcome: int
    erasure: int
    event: int = 0


class PartManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Manifest of a folder of parts: how many rows there are in all, and each part in the order of the log.

    Logs of a ledger also say: `app`, `stage` and `arms` in the order of their numbers; `spec`, the digest of the
    stage's declaration; `since` and `until` (µs, 0: no bound), between which the decisions were made; `segment`, the
    feature of that column; the `position` in the ledger. `digest` names the log: the SHA-256 of all the rest as JSON
    with sorted keys and no spaces, "" in manifests that others wrote.
    """

    rows: int
    parts: tuple[PartEntry, ...]
    app: str = ""
    stage: str = ""
    arms: tuple[str, ...] = ()
    spec: str = ""
    since: int = 0
    until: int = 0
    segment: str = ""
    position: LogPosition | None = None
    digest: str = ""

    def signed(self) -> "PartManifest":
        """The same manifest with its digest."""
        said = msgspec.to_builtins(self)
        del said["digest"]
        return msgspec.structs.replace(
            self, digest=hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()
        )


class PartFile(NamedTuple):
    """Part file as its footer describes it: its path, and the rows of each of its row groups."""

    path: Path
    groups: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of the part."""
        return sum(self.groups)


class PartTable(NamedTuple):
    """Part files that were found to be one table: their Arrow schema, which all of them have, and the files in the
    order of the log. `numbered`: its rows have the numbers of decisions.
    """

    schema: Any
    files: tuple[PartFile, ...]
    numbered: bool


def part_table(path: Path) -> PartTable:
    """The table in a Parquet file, or in the Parquet files of a folder. Footers are read, and no rows.

    Raises InvalidRequest for a folder without parts; a part that is missing or not in the manifest, cut short, damaged,
    or of other columns or metadata than the first one; and for numbers of decisions that do not rise from part to part,
    because two parts hold the same ones or their names do not say their order.
    """
    paths, said = _parts_of(path) if path.is_dir() else ([path], {})
    footers = [_footer(one, said.get(one.name)) for one in paths]
    schema = footers[0].schema.to_arrow_schema()
    for one, footer in zip(paths, footers, strict=True):
        _check_same(paths[0], schema, one, footer.schema.to_arrow_schema())
    ours = MARK in (schema.metadata or {})
    if ours and not said:
        raise refused(f"{path}", f"it was exported with a {MANIFEST}, which is missing", "give the folder as it was")
    numbered = ours and NUMBER in schema.names
    if numbered:
        _check_numbers(paths, footers, schema.names.index(NUMBER))
    files = [PartFile(one, _groups(footer)) for one, footer in zip(paths, footers, strict=True)]
    return PartTable(schema, tuple(files), numbered)


def read_manifest(folder: Path) -> PartManifest | None:
    """Manifest of a folder; None where there is none. Raises InvalidRequest for one that cannot be read, does not add
    up, or has another digest than it should.
    """
    path = folder / MANIFEST
    return _manifest(path) if path.is_file() else None


def named(folder: Path) -> PartManifest | None:
    """Manifest that names what lies in a folder, after every byte of its parts was compared with it; None where no
    digest names it. Raises InvalidRequest for a manifest or a part that is not as it was written.
    """
    manifest = read_manifest(folder)
    if manifest is None or not manifest.digest:
        return None
    for part in manifest.parts:
        if not (folder / part.file).is_file() or sha256_of(folder / part.file) != part.sha256:
            raise refused(f"{folder / part.file}", f"it is not the file that the {MANIFEST} names", "export it again")
    return manifest


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def batches(files: Sequence[PartFile], columns: list[str], rows: range, size: int) -> Iterator[tuple[Path, int, Any]]:
    """The rows `rows` of the table in these files: (file, number of the first row in it, record batch of at most `size`
    rows), in order. At most one row group is in memory at a time.

    Raises InvalidRequest if a file is not there, is damaged, or is not the one that was opened.
    """
    at = 0
    for file in files:
        if at < rows.stop and at + file.rows > rows.start:
            inside = range(max(rows.start - at, 0), min(rows.stop - at, file.rows))
            yield from ((file.path, first, batch) for first, batch in _of_file(file, columns, inside, size))
        at += file.rows


def _of_file(file: PartFile, columns: list[str], rows: range, size: int) -> Iterator[tuple[int, Any]]:
    try:
        with parquet.ParquetFile(file.path, page_checksum_verification=True) as opened:
            if _groups(opened.metadata) != file.groups:
                raise refused(f"{file.path}", "it is not the file that was opened: its rows are others", "run again")
            start = 0
            for group, length in enumerate(file.groups):
                if start < rows.stop and start + length > rows.start:
                    yield from _of_group(opened, group, columns, (start, rows, size))
                start += length
    except FileNotFoundError as error:
        fix = "workers on other machines need it under the same path"
        raise refused(f"{file.path}", "it is not there for the process that is to read it", fix) from error
    except UNREADABLE as error:
        raise unreadable(file.path) from error


def _of_group(opened: Any, group: int, columns: list[str], where: tuple[int, range, int]) -> Iterator[tuple[int, Any]]:
    at, rows, size = where
    for batch in opened.iter_batches(size, row_groups=[group], columns=columns):
        first, end = max(rows.start, at), min(rows.stop, at + batch.num_rows)
        if first < end:
            yield first, batch.slice(first - at, end - first)
        at += batch.num_rows
        if at >= rows.stop:
            return


def unreadable(path: Path) -> InvalidRequest:
    """The error for Parquet data that cannot be decoded."""
    return InvalidRequest(Problem("rounds", f"{path}: its Parquet data are cut short or damaged", "write it again"))


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """The key that names of parts are sorted by: digits count as the number that they say."""
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name) if piece)


def _parts_of(folder: Path) -> tuple[list[Path], dict[str, PartEntry]]:
    found = {path.name: path for path in folder.iterdir() if path.suffix == ".parquet" and path.name[0] not in "_."}
    if not (folder / MANIFEST).is_file():
        if not found:
            raise refused("rounds", f"the folder {folder} holds no .parquet file", "give a folder of part files")
        return sorted(found.values(), key=lambda path: natural(path.name)), {}
    manifest = _manifest(folder / MANIFEST)
    said = {entry.file: entry for entry in manifest.parts}
    if lost := [name for name in said if name not in found]:
        raise refused(f"{folder / lost[0]}", f"this part of the log is missing ({len(lost)} in all)", "export it again")
    if more := sorted(found.keys() - said.keys()):
        raise refused(f"{folder / more[0]}", f"the {MANIFEST} does not name this part", "take it out of the folder")
    return [found[entry.file] for entry in manifest.parts], said


def _manifest(path: Path) -> PartManifest:
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=PartManifest)
    except msgspec.DecodeError as error:
        raise refused(f"{path}", f"it is no manifest: {error}", "export the log again") from error
    names = {entry.file for entry in manifest.parts}
    if not names or len(names) < len(manifest.parts) or sum(e.rows for e in manifest.parts) != manifest.rows:
        raise refused(f"{path}", "its parts are none, are twice there, or do not add up", "export the log again")
    if manifest.digest and manifest.signed().digest != manifest.digest:
        raise refused(f"{path}", "its digest is not that of what it says: it was changed", "export the log again")
    return manifest


def _footer(path: Path, said: PartEntry | None) -> Any:
    if said is not None and (size := path.stat().st_size) != said.bytes:
        problem = f"it has {size:,} bytes, and {said.bytes:,} were written"
        raise refused(f"{path}", problem, "copy it again, or export the log again")
    try:
        footer = parquet.read_metadata(path)
    except UNREADABLE as error:
        raise unreadable(path) from error
    if said is not None and footer.num_rows != said.rows:
        raise refused(f"{path}", f"it has {footer.num_rows:,} rows, and {said.rows:,} were written", "export it again")
    return footer


def _check_same(first: Path, schema: Any, path: Path, other: Any) -> None:
    """Raise InvalidRequest, naming a column, if a part has not the columns and the metadata of ours of the first."""
    if not schema.equals(other):
        theirs, mine = ({f.name: str(f.type) for f in each} for each in (other, schema))
        apart = next((name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)), "the order")
        problem = f"{apart!r} is {theirs.get(apart, 'not there')}, in {first.name} {mine.get(apart, 'not there')}"
        raise refused(f"{path}", f"another schema than the first part: {problem}", "parts have the same columns")
    own, said = _own_metadata(schema), _own_metadata(other)
    if own != said:
        problem = f"its metadata {next(k for k in {**own, **said} if own.get(k) != said.get(k))!r} differ"
        raise refused(f"{path}", f"{problem} from those of {first.name}", "parts of one log say the same of it")


def _own_metadata(schema: Any) -> dict[str, bytes]:
    return {key.decode(): text for key, text in (schema.metadata or {}).items() if key.startswith(b"journey_bandit")}


def _check_numbers(paths: list[Path], footers: list[Any], column: int) -> None:
    last, before = -1, paths[0]
    for path, footer in zip(paths, footers, strict=True):
        for group in range(footer.num_row_groups):
            found = footer.row_group(group).column(column).statistics
            if found is None or not found.has_min_max:
                raise refused(f"{path}", f"its column {NUMBER!r} has no statistics", "export the log again")
            if found.min <= last:
                problem = f"decisions {found.min:,} to {found.max:,} come after decision {last:,} of {before.name}"
                raise refused(f"{path}", f"{problem}: twice there, or out of order", "each decision once, in order")
            last, before = found.max, path


def _groups(footer: Any) -> tuple[int, ...]:
    return tuple(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
