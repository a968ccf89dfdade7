"""Logs of other programs, recognised by their first bytes: Vowpal Wabbit's text (`vw_text`), DSJSON of Vowpal Wabbit
and Azure Personalizer (`dsjson`), bandit feedback of the Open Bandit Pipeline (`obp_feedback`).
`experiments.data.files` asks here before it takes a file for a table. They are read into memory, as columns of a log of
ours.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bandit.tables import reader
from bandit.tables.reader import refused
from experiments.data import dsjson, obp_feedback, vw_text
from experiments.data.imported_events import ImportedLog, imported

_COST = "the reward is minus the cost: give --range LOW HIGH, such as --range -1 0 for costs from 0 to 1"


def open_imported(path: Path) -> ImportedLog | None:
    """The log, if the file is one of another program; None for tables. Raises InvalidRequest, with line or array, for
    what cannot be used, and for pickles.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        obp_feedback.refuse_pickle(str(path))
    if start == b"PK\x03\x04":
        return obp_feedback.from_npz(path) if _is_npz(path) else None
    name = str(path)

    def opened() -> IO[bytes]:
        return path.open("rb")

    def lines() -> Iterator[tuple[int, str]]:
        return reader.text_lines(name, opened)

    first = next((line for _, line in lines() if line.strip()), "")
    if first.lstrip().startswith("{"):
        return _json(path, first)
    if not vw_text.recognised(line for _, line in lines()):
        return None
    found = imported(name, vw_text.events(name, lines))
    return found._replace(notes=(*found.notes, _COST))


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _json(path: Path, first: str) -> ImportedLog:
    def opened() -> IO[bytes]:
        return path.open("rb")

    lines = reader.text_lines(str(path), opened)
    if dsjson.recognised(first):
        left_out = dict[str, int]()
        found = imported(str(path), dsjson.events(str(path), lines, left_out))
        more = [f"left out: {count:,} {reason}" for reason, count in left_out.items()]
        return found._replace(notes=(*found.notes, _COST, *more))
    whole = obp_feedback.json_object("\n".join(line for _, line in lines).encode())
    if whole is not None:
        return obp_feedback.from_json(path, whole)
    fix = "give DSJSON, one event a line, or bandit feedback with action, reward and pscore; or write it as a table"
    raise refused(str(path), "it is JSON, but no decision log that is known", fix)
