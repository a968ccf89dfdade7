"""Folders of part files: whatever the parts, one log; what is missing, torn, strange or twice there is named."""

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bandit.errors import InvalidRequest
from bandit.tables.decision_log import LogMetadata, LogReward
from experiments.data import files, part_files, part_writer
from experiments.data.part_files import PartManifest
from experiments.data.part_writer import PartWriter
from experiments.data.rounds import LoggedRounds

FACTS = LogMetadata(app="travel", stage="cart", arms=("none", "a"), reward=LogReward("binary", 0.0, 1.0))
Columns = dict[str, Any]


def log(n: int = 90, first: int = 1) -> Columns:
    rng = np.random.default_rng(first)
    columns: Columns = {
        "decision": np.arange(first, first + n),
        "user": rng.integers(0, 9, n),
        "action": rng.integers(0, 2, n),
    }
    columns |= {"reward": rng.random(n).round(), "pscore": np.full(n, 0.5)}
    wide = {f"p_{a}": np.full(n, 0.5) for a in (0, 1)} | {f"q_hat_{a}": rng.random(n) for a in (0, 1)}
    return columns | wide | {f"eligible_{a}": np.full(n, fill_value=True) for a in (0, 1)}


def exported(folder: Path, rows: int = 30, columns: Columns | None = None) -> Path:
    with PartWriter(folder, FACTS, rows) as writer:
        writer.write(columns or log())
    return folder


def whole(path: Path) -> LoggedRounds:
    chunks = [chunk for source in files.open_log(path).sources() for chunk in source()]
    return LoggedRounds._make(None if c[0] is None else np.concatenate(c) for c in zip(*chunks, strict=True))


def same(left: LoggedRounds, right: LoggedRounds) -> bool:
    return all(a is b or _equal(a, b) for a, b in zip(left, right, strict=True))


def _equal(left: Any, right: Any) -> bool:
    return np.array_equal(left, right)


def test_parts_are_full_named_in_order_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writer, "GROUP", 20)
    with PartWriter(tmp_path / "log", FACTS, 50) as writer:
        for first in range(1, 121, 8):
            writer.write(log(8, first))
        assert not (tmp_path / "log").exists(), "it has its name once it is whole"
    manifest = json.loads((tmp_path / "log" / "_manifest.json").read_bytes())
    assert (manifest["rows"], [part["rows"] for part in manifest["parts"]]) == (120, [50, 50, 20])
    names = [part["file"] for part in manifest["parts"]]
    assert names == sorted(path.name for path in (tmp_path / "log").glob("*.parquet"))
    opened = files.open_log(tmp_path / "log")
    assert [file.groups for file in opened.files] == [(20, 20, 10), (20, 20, 10), (20,)]
    assert parquet.read_table(tmp_path / "log")["decision"].to_pylist() == list(range(1, 121))
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0, "a log is about people"


def test_a_folder_is_read_as_one_file_is_whatever_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH", 4)
    parquet.write_table(pa.table(log()), tmp_path / "one.parquet")
    for rows in (1, 13, 30, 90, 1000):
        folder = exported(tmp_path / f"{rows}", rows)
        assert same(whole(folder), whole(tmp_path / "one.parquet")), rows
        sizes = [[len(chunk.reward) for chunk in source()] for source in files.open_log(folder).sources()]
        assert sizes == [[4] * 10, [4] * 10, [4, 4, 2]], "chunks and parts are of the log, not of its files"


def test_parts_that_others_wrote_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    table = pa.table(log())
    for i in range(12):
        parquet.write_table(table.slice(8 * i, 8), tmp_path / f"part.{i}.parquet")
    (tmp_path / "_SUCCESS").touch()
    parquet.write_table(table, tmp_path / "_all.parquet")
    parquet.write_table(table, tmp_path.with_suffix(".parquet"))
    assert same(whole(tmp_path), whole(tmp_path.with_suffix(".parquet")))


def test_a_writer_that_is_interrupted_leaves_nothing_and_none_is_overwritten(tmp_path: Path) -> None:
    def interrupted() -> None:
        with PartWriter(tmp_path / "log", FACTS, 10) as writer:
            writer.write(log())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "log.part").mkdir()  # of one that was killed
    exported(tmp_path / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    with pytest.raises(InvalidRequest, match="there is something of this name"):
        exported(tmp_path / "log")


def test_a_writer_that_is_interrupted_leaves_what_others_put_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with PartWriter(tmp_path / "log", FACTS, 10) as writer:
            writer.write(log())
            (tmp_path / "log.part" / "notes.md").write_text("mine")
            (tmp_path / "log.part" / "part-00099.parquet").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(path.name for path in (tmp_path / "log.part").iterdir()) == ["notes.md", "part-00099.parquet"]


def test_what_is_kept_is_asked_once_nobody_else_can_write(tmp_path: Path) -> None:
    asked = list[str]()

    def begun(name: str) -> PartManifest:
        asked.append(name)
        return PartManifest(rows=0, parts=())

    with PartWriter(tmp_path / "log", FACTS, 30, lambda: begun("first")) as first:
        first.write(log())
        for continued in (False, True):
            second = PartWriter(tmp_path / "log", FACTS, 30, lambda: begun("second"), continued=continued)
            with pytest.raises(InvalidRequest, match="another process is writing there"):
                second.__enter__()
    assert asked == ["first"]
    assert part_files.named(tmp_path / "log") == first.manifest


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("done", ["before it makes one", "before it opens it", "before it locks it"])
def test_a_folder_that_is_done_while_another_writer_begins_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: str, continued: bool
) -> None:
    """The other one has seen that the name is free, and finds the first one's folder gone, or makes one of its own."""
    first, made, lock = PartWriter(tmp_path / "log", FACTS, 30), part_writer._made, fcntl.flock
    first.__enter__()
    first.write(log())

    def makes(folder: Path) -> Path:
        if done == "before it makes one":
            first.__exit__(None, None, None)
        made(folder)
        if done == "before it opens it":
            first.__exit__(None, None, None)
        return folder

    def locks(handle: int, how: int) -> None:
        if done == "before it locks it":
            first.__exit__(None, None, None)
        lock(handle, how)

    monkeypatch.setattr(part_writer, "_made", makes)
    monkeypatch.setattr(fcntl, "flock", locks)
    one = done == "before it makes one"
    why = "there is something of this name" if one else "another process is writing there"
    with pytest.raises(InvalidRequest, match=why):
        PartWriter(tmp_path / "log", FACTS, 30, continued=continued).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert part_files.named(tmp_path / "log") == first.manifest


def lost(folder: Path) -> None:
    (folder / "part-00001.parquet").unlink()


def too_many(folder: Path) -> None:
    shutil.copy(folder / "part-00001.parquet", folder / "part-00003.parquet")


def without_manifest(folder: Path) -> None:
    (folder / "_manifest.json").unlink()


def torn(folder: Path) -> None:
    path = folder / "part-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def listed(folder: Path) -> None:
    """The manifest says what is there, as one that was written by hand would."""
    found = sorted(folder.glob("*.parquet"))
    parts = [{"file": p.name, "rows": parquet.read_metadata(p).num_rows, "bytes": p.stat().st_size} for p in found]
    text = json.dumps({"rows": sum(part["rows"] for part in parts), "parts": parts})
    (folder / "_manifest.json").write_text(text, encoding="utf-8")


def torn_and_listed(folder: Path) -> None:
    rows = {path: parquet.read_metadata(path).num_rows for path in folder.glob("*.parquet")}
    torn(folder)
    parts = [{"file": p.name, "rows": n, "bytes": p.stat().st_size} for p, n in sorted(rows.items())]
    (folder / "_manifest.json").write_text(json.dumps({"rows": sum(rows.values()), "parts": parts}))


def twice(folder: Path) -> None:
    too_many(folder)
    listed(folder)


def swapped(folder: Path) -> None:
    (folder / "part-00001.parquet").rename(folder / "part-00009.parquet")
    listed(folder)


def of_other_columns(folder: Path) -> None:
    table = parquet.read_table(folder / "part-00001.parquet")
    parquet.write_table(table.set_column(2, "action", table["action"].cast(pa.int32())), folder / "part-00001.parquet")
    listed(folder)


def of_another_stage(folder: Path) -> None:
    table = parquet.read_table(folder / "part-00001.parquet")
    said = table.schema.metadata[b"journey_bandit"].replace(b'"cart"', b'"look"')
    table = table.replace_schema_metadata({**table.schema.metadata, b"journey_bandit": said})
    parquet.write_table(table, folder / "part-00001.parquet")
    listed(folder)


def no_manifest_at_all(folder: Path) -> None:
    (folder / "_manifest.json").write_text('{"rows": 90}')


def does_not_add_up(folder: Path) -> None:
    manifest = (folder / "_manifest.json").read_text()
    (folder / "_manifest.json").write_text(manifest.replace('"rows": 90', '"rows": 91'))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lost, r"part-00001.parquet: this part of the log is missing \(1 in all\)"),
        (too_many, "part-00003.parquet: the _manifest.json does not name this part"),
        (without_manifest, "_manifest.json, which is missing"),
        (torn, r"part-00002.parquet: it has [\d,]+ bytes, and [\d,]+ were written"),
        (torn_and_listed, "part-00002.parquet: its Parquet data are cut short or damaged"),
        (twice, "part-00003.parquet: decisions 31 to 60 come after decision 90 of part-00002.parquet: twice there"),
        (swapped, "part-00009.parquet: decisions 31 to 60 come after decision 90 of part-00002.parquet"),
        (of_other_columns, "part-00001.parquet: another schema .* 'action' is int32, in part-00000.parquet int64"),
        (of_another_stage, "part-00001.parquet: its metadata 'journey_bandit' differ"),
        (no_manifest_at_all, "it is no manifest"),
        (does_not_add_up, "do not add up"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named_before_a_row_is_read(
    tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    harm(exported(tmp_path / "log"))
    with pytest.raises(InvalidRequest, match=said):
        files.open_log(tmp_path / "log")


def test_a_bit_that_was_flipped_in_a_part_is_found_when_it_is_read(tmp_path: Path) -> None:
    """Bytes all over a page of numbers, most of which mean another number that is as good: its checksum is compared."""
    path = exported(tmp_path / "log") / "part-00001.parquet"
    column = parquet.read_metadata(path).row_group(0).column(7)
    assert column.path_in_schema == "q_hat_0"
    whole_file = path.read_bytes()
    end = column.data_page_offset + column.total_compressed_size
    for place in range(end - 200, end, 20):
        path.write_bytes(whole_file[:place] + bytes([whole_file[place] ^ 4]) + whole_file[place + 1 :])
        with pytest.raises(InvalidRequest, match=r"part-00001.parquet: its Parquet data are cut short or damaged"):
            whole(tmp_path / "log")


def test_decisions_within_a_part_have_to_rise_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a chunk, and from chunk to chunk."""
    monkeypatch.setattr(files, "BATCH", 10)
    for row in (15, 20):
        columns = log()
        columns["decision"][row] = columns["decision"][row - 1]
        folder = exported(tmp_path / f"{row}", 90, columns)
        with pytest.raises(InvalidRequest, match=rf"part-00000.parquet row {row}: decision {row} is there twice"):
            whole(folder)


def test_a_part_that_is_gone_or_replaced_when_it_is_read_is_named(tmp_path: Path) -> None:
    opened = files.open_log(exported(tmp_path / "log"))
    parquet.write_table(pa.table(log(7)), tmp_path / "log" / "part-00001.parquet")
    with pytest.raises(InvalidRequest, match=r"part-00001.parquet: it is not the file that was opened"):
        list(opened.source()())
    (tmp_path / "log" / "part-00001.parquet").unlink()
    with pytest.raises(InvalidRequest, match=r"part-00001.parquet: it is not there for the process that is to read it"):
        list(opened.source()())


def test_rows_are_named_by_their_own_part(tmp_path: Path) -> None:
    columns = log()
    columns["pscore"][47] = 1.5
    with pytest.raises(InvalidRequest, match=r"pscore: not usable in 1 rows, first in .*part-00001.parquet row 17"):
        whole(exported(tmp_path / "log", 30, columns))


def test_a_folder_without_parts_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"holds no .parquet file"):
        files.open_log(tmp_path)


def test_names_are_sorted_by_the_numbers_in_them() -> None:
    names = ["part.10.parquet", "part.9.parquet", "part.parquet", "a2b10", "a2b9", "a10"]
    assert sorted(names, key=part_files.natural) == [
        "a2b9", "a2b10", "a10", "part.9.parquet", "part.10.parquet", "part.parquet"
    ]  # fmt: skip
