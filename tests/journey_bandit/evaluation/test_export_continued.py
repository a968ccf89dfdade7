"""Continued exports: what an export of the whole ledger would give, and no more written than has to be."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from api.ledger import audit
from api.people import offline
from api.stores import open_store
from api.stores.protocol import Store
from bandit.journey import folding
from bandit.records import Decision, Event, Settlement
from bandit.tables.decision_log import LogMetadata, LogReward
from experiments.data import part_files
from experiments.data.part_files import LogPosition
from experiments.data.part_writer import PartWriter
from journey_bandit.exports import export_continued
from journey_bandit.main import group
from tests.journey_bandit.evaluation.ledgers import TRAVEL, decided
from tests.waiting import PATIENCE

N = 400
FACTS = LogMetadata(app="travel", stage="cart", arms=("none", "a"), reward=LogReward("binary", 0.0, 1.0))


class Growing:
    """A ledger that grows: decisions of `by`, of which all settle but the newest `open_`."""

    def __init__(self, file: Path):
        self.file, self.rng, self.made = file, np.random.default_rng(8), list[Decision]()
        store = self.store()
        audit.claim(store, TRAVEL, "salt")
        store.close()

    def store(self) -> Store:
        return open_store(f"sqlite:///{self.file}")

    def grow(self, by: int, open_: int = 0) -> None:
        new = [decided(seq, self.rng) for seq in range(len(self.made) + 1, len(self.made) + by + 1)]
        self.made += new
        store = self.store()
        store.record(new, [], 0, store.specs())
        store.close()
        self.settle(len(self.made) - open_)

    def settle(self, through: int) -> None:
        """Settle what is open, up to this decision."""
        store = self.store()
        told: dict[str, Any] = {"stage": "cart", "at": 1, "why": "reward", "learned": True, "tau": 1.0, "nu": 0.0}
        waiting = [found.seq for found in store.open_decisions("cart") if found.seq <= through]
        reward = {seq: float(self.rng.random() < 0.3) for seq in waiting}
        store.settle([Settlement(decision_seq=s, arm=self.made[s - 1].arm, reward=reward[s], **told) for s in waiting])
        store.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Growing:
    return Growing(tmp_path / "l.db")


Export = Callable[..., Result]


@pytest.fixture
def export(ledger: Growing) -> Export:
    def run(to: Path, *more: object) -> Result:
        words = ("export", "--ledger", ledger.file, "--stage", "cart", "--partition-rows", 100, *more, to)
        return CliRunner().invoke(group, [str(word) for word in words])

    return run


def manifest(folder: Path) -> Any:
    return json.loads((folder / "_manifest.json").read_bytes())


def parts(folder: Path) -> dict[str, int]:
    """When each part was written (ns)."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def same_as_anew(folder: Path, export: Export, *more: object) -> bool:
    """Whether the folder has the rows and the position of an export of now."""
    fresh = folder.with_name(f"fresh-{uuid.uuid4().hex}")
    assert export(fresh, *more).exit_code == 0
    left, right = manifest(folder), manifest(fresh)
    here = parquet.read_table(sorted(folder.glob("part-*.parquet")))
    there = parquet.read_table(sorted(fresh.glob("part-*")))
    return bool(here.equals(there) and left["position"] == right["position"])


def test_only_what_is_new_is_written(ledger: Growing, export: Export, tmp_path: Path) -> None:
    ledger.grow(N)
    done = export(tmp_path / "log", "--continue")
    assert f"{N:,} decisions of travel/cart in 4 parts, {N:,} of them written now" in done.output
    before = parts(tmp_path / "log")
    ledger.grow(150)
    done = export(tmp_path / "log", "--continue")
    assert "550 decisions of travel/cart in 6 parts, 150 of them written now" in done.output
    assert parts(tmp_path / "log").items() >= before.items()
    assert same_as_anew(tmp_path / "log", export)
    said = manifest(tmp_path / "log")
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert manifest(tmp_path / "log") == said, "nothing is new: the same log has the same name"


def test_rows_whose_reward_became_known_are_written_again_and_those_before_stay(
    ledger: Growing, export: Export, tmp_path: Path
) -> None:
    """The 60 that are open have a part of their own."""
    ledger.grow(N, open_=60)
    assert "in 5 parts" in export(tmp_path / "log", "--continue").output
    rows = [part["rows"] for part in manifest(tmp_path / "log")["parts"]]
    assert rows == [100, 100, 100, 40, 60]
    before = parts(tmp_path / "log")
    ledger.grow(30, open_=30)
    done = export(tmp_path / "log", "--continue")
    assert "430 decisions of travel/cart in 6 parts, 90 of them written now" in done.output
    kept = parts(tmp_path / "log").items() & before.items()
    assert sorted(name for name, _ in kept) == [f"part-{i:05}.parquet" for i in range(4)]
    assert same_as_anew(tmp_path / "log", export)


def test_settlements_after_the_position_are_not_in_the_export(
    ledger: Growing, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger goes on while it is read: what settles meanwhile belongs to the next export."""
    ledger.grow(N, open_=60)
    position = export_continued.position

    def overtaken(store: Store) -> LogPosition:
        found = position(store)
        ledger.settle(N)
        return found

    monkeypatch.setattr(export_continued, "position", overtaken)
    assert export(tmp_path / "log").exit_code == 0
    monkeypatch.undo()
    assert parquet.read_table(sorted((tmp_path / "log").glob("*.parquet")))["reward"].null_count == 60
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert parquet.read_table(sorted((tmp_path / "log").glob("*.parquet")))["reward"].null_count == 0


def test_people_who_are_joined_are_one_in_rows_that_were_exported(
    ledger: Growing, export: Export, tmp_path: Path
) -> None:
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    before = parts(tmp_path / "log")
    one, two = ledger.made[220].user, ledger.made[310].user
    store = ledger.store()
    joined = Event(id="e", user=one, alias=two, at=1, received=1, name="")
    store.ingest([joined], 2, store.specs(), folding.rules(TRAVEL))
    store.close()
    assert export(tmp_path / "log", "--continue").exit_code == 0
    stayed = parts(tmp_path / "log").items() & before.items()
    assert 0 < len(stayed) < 4
    assert {name for name, _ in stayed} <= {f"part-{i:05}.parquet" for i in range(3)}
    assert same_as_anew(tmp_path / "log", export)
    table = parquet.read_table(sorted((tmp_path / "log").glob("*.parquet")))
    people = {hash_.as_py(): key.as_py() for hash_, key in zip(table["user_hash"], table["user"], strict=True)}
    assert people[one.hex()] == people[two.hex()]


def test_whoever_was_erased_is_gone_from_a_continued_export(ledger: Growing, export: Export, tmp_path: Path) -> None:
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    before, gone = parts(tmp_path / "log"), ledger.made[100].user
    store = ledger.store()
    assert offline.erase(store, gone, 5, forget=False).found
    store.close()
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert not parts(tmp_path / "log").items() & before.items()
    table = parquet.read_table(sorted((tmp_path / "log").glob("*.parquet")))
    assert gone.hex() not in table["user_hash"].to_pylist()
    assert same_as_anew(tmp_path / "log", export)


@pytest.mark.parametrize("ends", [("00:04:10", "00:05:50"), ("00:05:50", "00:04:10")])
def test_the_end_may_move(ledger: Growing, export: Export, tmp_path: Path, ends: tuple[str, str]) -> None:
    """Decision n was made n seconds after the epoch: up to 249 of them, and up to 349."""
    ledger.grow(N)
    for end in ends:
        assert export(tmp_path / "log", "--continue", "--until", f"1970-01-01T{end}").exit_code == 0
    assert manifest(tmp_path / "log")["rows"] == {"00:04:10": 249, "00:05:50": 349}[ends[1]]
    assert same_as_anew(tmp_path / "log", export, "--until", f"1970-01-01T{ends[1]}")
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert same_as_anew(tmp_path / "log", export)


def test_another_beginning_another_stage_and_what_is_no_export_are_refused(
    ledger: Growing, export: Export, tmp_path: Path
) -> None:
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    said = manifest(tmp_path / "log")
    for more, why in (
        (("--since", "1970-01-01T00:00:00"), None),
        (("--since", "2026-01-01"), "another --since or --segment"),
        (("--segment", "device"), "another --since or --segment"),
    ):
        done = export(tmp_path / "log", "--continue", *more)
        assert (done.exit_code == 0) == (why is None)
        assert why is None or why in str(done.exception)
        assert manifest(tmp_path / "log") == said, "what was there is there"
    (tmp_path / "other").mkdir()
    assert "it is not an export" in str(export(tmp_path / "other", "--continue").exception)
    assert "there is something of this name" in str(export(tmp_path / "log").exception)


def test_an_export_of_another_ledger_is_written_anew(ledger: Growing, export: Export, tmp_path: Path) -> None:
    """A ledger that was restored from a copy, or begun again, has the same numbers for other decisions."""
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    before = parts(tmp_path / "log")
    ledger.file.unlink()
    again = Growing(ledger.file)
    again.rng = np.random.default_rng(9)
    again.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert not parts(tmp_path / "log").items() & before.items()
    assert same_as_anew(tmp_path / "log", export)


KILLED = """
import os, sys
from journey_bandit.main import group
from experiments.data import part_writer
from experiments.data import part_files
from experiments.data.part_files import LogPosition
from experiments.data.part_writer import PartWriter
from journey_bandit.exports import export_continued

calls, (name, most) = [0], ({name!r}, {most})
was = getattr(PartWriter, name)

def killing(self, *given):
    calls[0] += 1
    if calls[0] == most:
        os._exit(9)
    return was(self, *given)

setattr(PartWriter, name, killing)
group(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("name", "most", "whole"),
    [("_put_manifest", 2, 1), ("_put_manifest", 5, 4), ("_end_part", 3, 2), ("_end_part", 1, 0)],
)
def test_an_export_that_was_killed_goes_on_after_the_last_whole_part(
    ledger: Growing, export: Export, tmp_path: Path, name: str, most: int, whole: int
) -> None:
    """Killed between a part and its manifest, and while a part is written; nobody reads what is not whole."""
    ledger.grow(N)
    words = [
        "export",
        "--ledger",
        str(ledger.file),
        "--stage",
        "cart",
        "--partition-rows",
        "100",
        str(tmp_path / "log"),
    ]
    program = KILLED.format(name=name, most=most)
    done = subprocess.run([sys.executable, "-c", program, *words], check=False, timeout=PATIENCE)
    assert done.returncode == 9
    assert not (tmp_path / "log").exists()
    before = parts(tmp_path / "log.part")
    (tmp_path / "log.part" / "part-00099.parquet").touch()  # of nobody's manifest
    ledger.grow(20)
    done_ = export(tmp_path / "log", "--continue")
    assert f"{N + 20} decisions of travel/cart in 5 parts, {N + 20 - 100 * whole} of them written now" in done_.output
    stayed = parts(tmp_path / "log").items() & before.items()
    assert len(stayed) == whole
    assert same_as_anew(tmp_path / "log", export)
    assert [path.name for path in (tmp_path / "log").iterdir() if path.name.startswith(".")] == []


def test_a_part_that_was_damaged_is_written_again(ledger: Growing, export: Export, tmp_path: Path) -> None:
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    path = tmp_path / "log" / "part-00002.parquet"
    path.write_bytes(path.read_bytes()[:-5] + b"12345")
    assert "200 of them written now" in export(tmp_path / "log", "--continue").output
    assert same_as_anew(tmp_path / "log", export)


def test_two_do_not_write_to_one_folder(ledger: Growing, export: Export, tmp_path: Path) -> None:
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    with PartWriter(tmp_path / "log", FACTS, 100, continued=True):
        done = export(tmp_path / "log", "--continue")
        assert "another process is writing there" in str(done.exception)


@pytest.mark.parametrize("when", ["position", "kept_parts"])
def test_a_second_export_does_not_come_between_what_is_kept_and_what_is_written(
    ledger: Growing, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The second one would write all parts again: somebody was erased since the first one looked at them."""
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    ledger.grow(50)
    found, second = getattr(export_continued, when), list[Result]()

    def overtaken(*given: Any) -> Any:
        answer = found(*given)
        monkeypatch.undo()
        store = ledger.store()
        assert offline.erase(store, ledger.made[100].user, 5, forget=False).found
        store.close()
        second.append(export(tmp_path / "log", "--continue"))
        return answer

    monkeypatch.setattr(export_continued, when, overtaken)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert "another process is writing there" in str(second[0].exception)
    assert part_files.named(tmp_path / "log") is not None, "each part has the bytes that the manifest names"
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert same_as_anew(tmp_path / "log", export)


def test_what_others_put_into_the_folder_stays(ledger: Growing, export: Export, tmp_path: Path) -> None:
    """Also if all parts are written again; parts that no manifest names are removed."""
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    saved = {"lift.ipynb": "{}", "part-of-the-lift.csv": "1", ".part-of-it": "2", ".ipynb_checkpoints/lift": "3"}
    (tmp_path / "log" / ".ipynb_checkpoints").mkdir()
    for name, text in saved.items():
        (tmp_path / "log" / name).write_text(text)
    (tmp_path / "log" / ".part-00007.parquet").touch()  # of one that was killed
    (tmp_path / "log" / "part-00099.parquet").touch()  # of nobody's manifest

    def whole() -> bool:
        return {name: (tmp_path / "log" / name).read_text() for name in saved} == saved

    ledger.grow(50)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert whole()
    assert len(list((tmp_path / "log").glob("*part-*.parquet"))) == len(manifest(tmp_path / "log")["parts"]) == 5
    store = ledger.store()
    assert offline.erase(store, ledger.made[3].user, 5, forget=False).found
    store.close()
    before = parts(tmp_path / "log")
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert not parts(tmp_path / "log").items() & before.items()
    assert whole()
    assert same_as_anew(tmp_path / "log", export)


def test_an_interrupted_export_leaves_what_it_had_and_what_others_put_there(
    ledger: Growing, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts have to be written again, and no new one is whole when it ends."""
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    (tmp_path / "log" / "lift.ipynb").write_text("{}")
    before, said = parts(tmp_path / "log"), manifest(tmp_path / "log")
    store = ledger.store()
    assert offline.erase(store, ledger.made[3].user, 5, forget=False).found
    store.close()

    def ended(writer: PartWriter) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PartWriter, "_end_part", ended)
    assert export(tmp_path / "log", "--continue").exit_code == 1
    monkeypatch.undo()
    assert parts(tmp_path / "log.part").items() >= before.items()
    assert manifest(tmp_path / "log.part") == said
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert (tmp_path / "log" / "lift.ipynb").read_text() == "{}"
    assert same_as_anew(tmp_path / "log", export)


@pytest.mark.parametrize("more", [(), ("--continue",)])
def test_a_folder_of_somebody_else_is_not_taken_for_an_interrupted_export(
    ledger: Growing, export: Export, tmp_path: Path, more: tuple[str, ...]
) -> None:
    ledger.grow(N)
    left = tmp_path / "log.part"
    left.mkdir()
    for name in ("notes.md", ".part-00000.parquet"):
        (left / name).write_text("mine")
    done = export(tmp_path / "log", *more)
    assert str(done.exception) == (
        f"{left}: no export wrote what is in it: notes.md (1 in all), and no _manifest.json "
        "→ move what you need to another folder, and delete this one"
    )
    assert sorted(path.name for path in left.iterdir()) == [".part-00000.parquet", "notes.md"]
    (left / "notes.md").unlink()
    assert export(tmp_path / "log", *more).exit_code == 0, "what is left is of an export that was killed"
    (tmp_path / "other.part").write_text("mine")
    assert "a file has the name of an export" in str(export(tmp_path / "other", *more).exception)
    assert (tmp_path / "other.part").read_text() == "mine"


def test_an_export_begun_anew_keeps_what_others_put_beside_its_parts(
    ledger: Growing, export: Export, tmp_path: Path
) -> None:
    ledger.grow(N)
    assert export(tmp_path / "log", "--continue").exit_code == 0
    (tmp_path / "log" / "lift.ipynb").write_text("{}")
    (tmp_path / "log").rename(tmp_path / "log.part")  # as a command that was killed leaves it
    assert export(tmp_path / "log", "--partition-rows", 300).exit_code == 0
    names = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert names == ["_manifest.json", "lift.ipynb", "part-00000.parquet", "part-00001.parquet"]


@pytest.mark.parametrize("more", [(), ("--continue",)])
def test_a_manifest_of_something_else_is_no_interrupted_export(
    ledger: Growing, export: Export, tmp_path: Path, more: tuple[str, ...]
) -> None:
    ledger.grow(N)
    theirs = tmp_path / "log.part" / "_manifest.json"
    theirs.parent.mkdir()
    theirs.write_text('{"name": "a page"}', encoding="utf-8")
    assert export(tmp_path / "log", *more).exit_code == 1
    assert theirs.read_text(encoding="utf-8") == '{"name": "a page"}'
    assert not (tmp_path / "log").exists()
