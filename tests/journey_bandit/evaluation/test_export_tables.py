"""Tables beside the decisions of an export: outcomes, settlements and events, and how they are continued."""

import datetime as dt
import hashlib
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from api.people import offline
from api.stores.protocol import Store
from bandit.journey import folding
from bandit.records import Event, Outcome
from experiments.data import part_files
from experiments.data.part_writer import PartWriter
from journey_bandit.exports import export_continued, export_tables
from journey_bandit.main import group
from journey_bandit.workflows import ledger_log
from tests.journey_bandit.evaluation.ledgers import TRAVEL
from tests.journey_bandit.evaluation.test_export_continued import Growing
from tests.waiting import PATIENCE

N = 400
ALL = ("--with", "outcomes, settlements,events")
NAMES = ("outcomes", "settlements", "events")
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "exports.md"
Export = Callable[..., Result]


@pytest.fixture
def ledger(tmp_path: Path) -> Growing:
    """400 settled decisions, an outcome for each fifth of them, and 250 events of whom they are about."""
    found = Growing(tmp_path / "l.db")
    found.grow(N)
    told(found, range(1, N + 1, 5))
    happened(found, range(250))
    return found


@pytest.fixture
def export(ledger: Growing) -> Export:
    def run(to: Path, *more: object) -> Result:
        words = ("export", "--ledger", ledger.file, "--stage", "cart", "--partition-rows", 40, *more, to)
        return CliRunner().invoke(group, [str(word) for word in words])

    return run


def outcome(seq: int, name: str = "order", **more: Any) -> Outcome:
    """Reward of 1 for decision number `seq`, reported three seconds after it happened, under another id than it."""
    at = 1_000_000 * seq
    values: dict[str, Any] = {"kind": "reward", "value": 1.0, "occurred": at, "received": at + 3_000_000, **more}
    return Outcome(decision=uuid.UUID(int=seq), id=f"{name} of secret@example.org", **values)


def told(ledger: Growing, seqs: Sequence[int], **more: Any) -> None:
    store = ledger.store()
    _, receipts = store.record([], [outcome(seq, **more) for seq in seqs], 1_000_000_000, store.specs())
    assert {one.status for one in receipts} == {"recorded"}
    store.close()


def happened(ledger: Growing, numbers: Sequence[int]) -> None:
    """Events of the users of the first decisions; every tenth is not declared."""
    store = ledger.store()
    events = [
        Event(
            id=f"secret-{n}",
            user=ledger.made[n].user,
            at=1_000_000 * n,
            received=1_000_000 * n + 5,
            name="" if n % 10 == 0 else "search",
            properties={"price": 3.5, "code": None} if n % 2 else {},
        )
        for n in numbers
    ]
    store.ingest(events, 2, store.specs(), folding.rules(TRAVEL))
    store.close()


def table(export: Path, name: str) -> Any:
    return parquet.read_table(sorted((export / f"_{name}").glob("part-*.parquet")))


def manifest(folder: Path) -> Any:
    return json.loads((folder / "_manifest.json").read_bytes())


def written(export: Path, name: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (export / f"_{name}").glob("*.parquet")}


def same_as_anew(folder: Path, export: Export, *more: object) -> bool:
    fresh = folder.with_name(f"fresh-{uuid.uuid4().hex}")
    assert export(fresh, *ALL, *more).exit_code == 0
    return all(
        table(folder, name).equals(table(fresh, name))
        and manifest(folder / f"_{name}")["position"] == manifest(fresh / f"_{name}")["position"]
        for name in NAMES
    )


def test_the_tables_have_what_the_ledger_has(ledger: Growing, export: Export, tmp_path: Path) -> None:
    told(ledger, [6], name="undo", voids="order of secret@example.org")
    done = export(tmp_path / "log", *ALL)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'log' / '_outcomes'}: 81 outcomes\n" in done.output
    assert f"{tmp_path / 'log' / '_settlements'}: 400 settlements\n" in done.output
    assert f"{tmp_path / 'log' / '_events'}: 225 events\n" in done.output

    second, last = table(tmp_path / "log", "outcomes").slice(1, 1), table(tmp_path / "log", "outcomes").slice(80)
    assert second.to_pylist() == [
        {
            "outcome": 2,
            "decision": 6,
            "decision_id": "00000000-0000-0000-0000-000000000006",
            "kind": "reward",
            "value": 1.0,
            "time": dt.datetime(1970, 1, 1, 0, 0, 6, tzinfo=dt.UTC),
            "received": dt.datetime(1970, 1, 1, 0, 0, 9, tzinfo=dt.UTC),
            "late": True,
            "voids": None,
        }
    ]
    assert [(row["outcome"], row["decision"], row["voids"]) for row in last.to_pylist()] == [(81, 6, 2)]
    store = ledger.store()
    settled = [found.settlement for found in store.decisions("cart")]
    store.close()
    for row, one in zip(table(tmp_path / "log", "settlements").to_pylist(), settled, strict=True):
        assert one is not None
        assert (row["settlement"], row["decision"], row["corrects"]) == (one.seq, one.decision_seq, None)
        assert (row["arm"], row["reward"], row["why"], row["learned"]) == (one.arm, one.reward, "reward", True)
        assert row["time"] == dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)
    row = table(tmp_path / "log", "events").slice(2, 1).to_pylist()[0]
    user = ledger.made[3].user
    assert (row["event"], row["user_hash"], row["name"]) == (4, user.hex(), "search")
    assert json.loads(row["properties"]) == {"price": 3.5, "code": None}
    decisions = parquet.read_table(sorted((tmp_path / "log").glob("part-*.parquet"))).to_pylist()
    assert row["user"] == next(one["user"] for one in decisions if one["user_hash"] == user.hex())


def test_ids_that_the_app_gave_are_in_no_table(ledger: Growing, export: Export, tmp_path: Path) -> None:
    export(tmp_path / "log", *ALL)
    text = repr([table(tmp_path / "log", name).to_pylist() for name in NAMES])
    assert "secret" not in text


def test_decisions_are_the_same_bytes_with_tables_beside_them(ledger: Growing, export: Export, tmp_path: Path) -> None:
    export(tmp_path / "log", *ALL)
    export(tmp_path / "alone")
    assert manifest(tmp_path / "log") == manifest(tmp_path / "alone")
    asked = ("--policy", "uniform", "--against", "none", "--force", "--json")
    shown = [
        CliRunner().invoke(group, ["evaluate", "--rounds", str(tmp_path / name), *asked]).stdout
        for name in ("log", "alone")
    ]
    assert shown[0] == shown[1]
    assert json.loads(shown[0])["n"] == N - 20, "without the control group"


@pytest.mark.parametrize("name", NAMES)
def test_each_table_has_a_manifest(ledger: Growing, export: Export, tmp_path: Path, name: str) -> None:
    export(tmp_path / "log", "--with", name)
    said = manifest(tmp_path / "log" / f"_{name}")
    ends = {"outcomes": {}, "settlements": {}, "events": {"event": 250}}[name]
    assert said["position"] == {"decision": N, "settlement": N, "outcome": 80, "erasure": 0, **ends}
    assert said["rows"] == {"outcomes": 80, "settlements": 400, "events": 225}[name]
    for part in said["parts"]:
        content = (tmp_path / "log" / f"_{name}" / part["file"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (part["sha256"], part["bytes"])
    assert part_files.named(tmp_path / "log" / f"_{name}") is not None
    assert [path.name for path in (tmp_path / "log").iterdir() if path.is_dir()] == [f"_{name}"]


def test_only_new_rows_are_written_also_without_asking_again(ledger: Growing, export: Export, tmp_path: Path) -> None:
    export(tmp_path / "log", "--continue", *ALL)
    before = {name: written(tmp_path / "log", name) for name in NAMES}
    ledger.grow(60)
    told(ledger, range(2, N, 5))
    happened(ledger, range(250, 300))
    done = export(tmp_path / "log", "--continue")
    assert "160 outcomes" in done.output
    for name in NAMES:
        assert written(tmp_path / "log", name).items() >= before[name].items()
        assert len(written(tmp_path / "log", name)) > len(before[name])
    assert same_as_anew(tmp_path / "log", export)


def test_whoever_was_erased_is_gone_from_continued_tables(ledger: Growing, export: Export, tmp_path: Path) -> None:
    export(tmp_path / "log", "--continue", *ALL)
    before = {name: written(tmp_path / "log", name) for name in NAMES}
    gone = ledger.made[5].user
    assert gone.hex() in table(tmp_path / "log", "events")["user_hash"].to_pylist()
    store = ledger.store()
    assert offline.erase(store, gone, 5, forget=True).found
    store.close()
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert gone.hex() not in table(tmp_path / "log", "events")["user_hash"].to_pylist()
    theirs = {seq for seq, one in enumerate(ledger.made, 1) if one.user == gone}
    for name in ("outcomes", "settlements"):
        assert not theirs & set(table(tmp_path / "log", name)["decision"].to_pylist())
    assert all(not written(tmp_path / "log", name).items() & before[name].items() for name in NAMES)
    assert same_as_anew(tmp_path / "log", export)


def test_people_who_are_joined_are_one_in_events_that_were_exported(
    ledger: Growing, export: Export, tmp_path: Path
) -> None:
    export(tmp_path / "log", "--continue", *ALL)
    one, two = ledger.made[121].user, ledger.made[123].user
    store = ledger.store()
    joined = Event(id="e", user=one, alias=two, at=1, received=1, name="")
    store.ingest([joined], 2, store.specs(), folding.rules(TRAVEL))
    store.close()
    before = written(tmp_path / "log", "events")
    export(tmp_path / "log", "--continue")
    assert 0 < len(written(tmp_path / "log", "events").items() & before.items()) < len(before)
    rows = table(tmp_path / "log", "events").to_pylist()
    people = {row["user_hash"]: row["user"] for row in rows}
    assert people[one.hex()] == people[two.hex()]
    assert same_as_anew(tmp_path / "log", export)


@pytest.mark.parametrize("names", [(), ("events",)])
def test_people_of_a_part_are_looked_up_in_batches(
    ledger: Growing, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """However many rows a part has, its hashes are never all in memory."""
    more = ("--partition-rows", 1000, "--continue", "--with", ",".join(names))
    export(tmp_path / "log", *more)
    keys, asked = ledger_log.keys_of, list[int]()

    def seen(store: Store, users: Sequence[bytes]) -> Any:
        asked.append(len(users))
        return keys(store, users)

    monkeypatch.setattr(export_continued, "_ROWS", 30)
    monkeypatch.setattr(ledger_log, "keys_of", seen)
    assert ", 0 of them written now" in export(tmp_path / "log", *more).output
    assert (sum(asked), max(asked)) == (N + 226 * len(names), 30), "the last event is read from the ledger"


def test_tables_are_of_the_time_that_the_export_is_of(ledger: Growing, export: Export, tmp_path: Path) -> None:
    """Decisions, and so their outcomes and settlements, by when they were made; events by when they happened."""
    bounds = ("--since", "1970-01-01T00:01:40", "--until", "1970-01-01T00:03:20")
    export(tmp_path / "log", *ALL, *bounds)
    assert table(tmp_path / "log", "outcomes")["decision"].to_pylist() == list(range(101, 200, 5))
    assert table(tmp_path / "log", "settlements")["decision"].to_pylist() == list(range(100, 200))
    happened_ = {row["time"].minute * 60 + row["time"].second for row in table(tmp_path / "log", "events").to_pylist()}
    assert happened_ == {n for n in range(100, 200) if n % 10}


def test_a_table_without_rows_has_no_folder(ledger: Growing, export: Export, tmp_path: Path) -> None:
    done = export(tmp_path / "log", "--with", "events", "--since", "1970-01-01T00:06:00")
    assert "events: there are none, so there is no folder\n" in done.output
    assert [path.name for path in (tmp_path / "log").iterdir() if path.is_dir()] == []


def test_a_table_that_is_not_there_is_named(ledger: Growing, export: Export, tmp_path: Path) -> None:
    done = export(tmp_path / "log", "--with", "outcomes,people")
    assert str(done.exception) == "with: there is no table 'people' → some of outcomes, settlements, events"
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("more", [(), ("--continue",)])
def test_tables_that_were_interrupted_are_whole_in_the_end(
    ledger: Growing, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    broken = export_tables.TABLES["events"]._replace(page=ended)
    monkeypatch.setitem(export_tables.TABLES, "events", broken)
    assert export(tmp_path / "log", *ALL, *more).exit_code == 1
    monkeypatch.undo()
    assert not (tmp_path / "log").exists()
    assert export(tmp_path / "log", *ALL, *more).exit_code == 0
    assert same_as_anew(tmp_path / "log", export)


KILLED = """
import os, sys
from journey_bandit.exports import export_tables
from journey_bandit.main import group

was = export_tables.TABLES["events"]

def killing(log, after, most):
    if after:
        os._exit(9)
    return was.page(log, after, 100)

export_tables.TABLES["events"] = was._replace(page=killing)
group(sys.argv[1:])
"""


def ended(*given: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["decisions", "manifest", "none counts"])
def test_an_export_begun_anew_removes_the_tables_of_one_that_was_killed(
    ledger: Growing, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Also if it does not come to its end: nothing about people stays, and nothing is in the way of the next one."""
    words = ("--ledger", ledger.file, "--stage", "cart", "--partition-rows", 40, "--with", "events", tmp_path / "log")
    program = [sys.executable, "-c", KILLED, "export", *(str(word) for word in words)]
    assert subprocess.run(program, check=False, timeout=PATIENCE).returncode == 9
    left = tmp_path / "log.part"
    assert (left / "_manifest.json").exists()
    assert list((left / "_events.part").glob("part-*.parquet"))
    more: tuple[str, ...] = ()
    if where == "none counts":
        more = ("--since", "2026-01-01")
    else:
        monkeypatch.setattr(PartWriter, {"decisions": "write", "manifest": "_end_part"}[where], ended)
    assert export(tmp_path / "log", *more).exit_code == 1
    monkeypatch.undo()
    assert not left.exists()
    done = export(tmp_path / "log")
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "log").iterdir() if path.is_dir()] == []


def test_a_damaged_part_is_written_again(ledger: Growing, export: Export, tmp_path: Path) -> None:
    export(tmp_path / "log", "--continue", *ALL)
    path = tmp_path / "log" / "_outcomes" / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-5] + b"12345")
    assert export(tmp_path / "log", "--continue").exit_code == 0
    assert same_as_anew(tmp_path / "log", export)


def test_what_others_put_into_the_folder_of_a_table_stays(ledger: Growing, export: Export, tmp_path: Path) -> None:
    """Also if all is written again, or a table has no rows any more; and a folder without a manifest is no table."""
    export(tmp_path / "log", "--continue", "--with", "outcomes,events")
    mine = [tmp_path / "log" / name / "mine.txt" for name in ("_outcomes", "_events", "_settlements")]
    mine[2].parent.mkdir()
    for path in mine:
        path.write_text("mine")
    store = ledger.store()
    for user in {one.user for one in ledger.made}:
        offline.erase(store, user, 5, forget=True)
    store.close()
    ledger.grow(20)
    done = export(tmp_path / "log", "--continue")
    assert "outcomes: there are none" in done.output
    assert "events: there are none" in done.output
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert {path.name for path in (tmp_path / "log").glob("_*/*")} == {"mine.txt"}


def documented(name: str) -> dict[str, str]:
    """Columns of a table and their types as the guide lists them."""
    section = GUIDE.read_text(encoding="utf-8").split(f"### `_{name}`\n")[1].split("\n#")[0]
    found = dict[str, str]()
    for names, kinds in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        columns, types = re.findall(r"`(.*?)`", names), kinds.split(", ")
        found |= dict(zip(columns, types * len(columns) if len(types) == 1 else types, strict=True))
    return found


TYPES = {"int64": "integer", "double": "number", "string": "text", "bool": "boolean"}


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_lists_each_column_and_its_type(ledger: Growing, export: Export, tmp_path: Path, name: str) -> None:
    export(tmp_path / "log", *ALL)
    schema = table(tmp_path / "log", name).schema
    assert documented(name) == {field.name: TYPES.get(str(field.type), "timestamp (UTC)") for field in schema}
    assert msgspec.json.decode(schema.metadata[b"journey_bandit"])["stage"] == "cart"
