"""Backups are whole while somebody writes, and a restore puts back exactly what was backed up."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from litestar.testing import TestClient

from api import ledger
from api.app import create_app
from api.settings import Settings
from api.stores import backup as backups
from api.stores.sqlite import SqliteStore
from bandit.catalogue import read_shipped
from bandit.errors import LedgerError
from cli.main import group

START = 1_760_000_000_000_000


def run(*words: object) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


def url(file: Path) -> str:
    return f"sqlite:///{file}"


def use(file: Path, first: int, count: int) -> list[str]:
    """A service on the file decides for so many people, who are learned; the decisions' ids."""
    now = [START + first * 10**9]
    app = create_app(Settings(app="fintech", dev=True, store=url(file), salt="s"), clock=lambda: now[0])
    with TestClient(app) as client:
        made = [client.post("/v1/decisions", json={"stage": "cart", "user_id": f"u{first + n}"}) for n in range(count)]
        ids = [str(reply.raise_for_status().json()["decision_id"]) for reply in made]
        client.post("/v1/outcomes", json={"decision_id": ids[0], "kind": "reward"}).raise_for_status()
        now[0] += 40 * 86_400_000_000
        client.get("/v1/policies", params={"wait": True}).raise_for_status()
    return ids


def decisions(file: Path) -> list[str]:
    with closing(SqliteStore(file, read_only=True)) as store:
        assert all(one.equal for one in ledger.rebuild(store, ledger.stages(store)))
        return [str(found.decision.id) for found in store.decisions()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "here" / "ledger.db"
    made.parent.mkdir()
    use(made, 0, 5)
    return made


def test_a_backup_of_a_ledger_in_use_holds_what_was_committed_in_one_file(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "there" / "backup.db"
    with closing(SqliteStore(file)) as running:
        running.set_meta({"note": "only the log has it"})
        assert file.with_name("ledger.db-wal").stat().st_size > 0
        done = run("backup", "--store", url(file), target)
        assert done.exit_code == 0, done.output
        assert "app fintech, 5 decisions, 1 outcomes, 5 settled; checked" in done.output
    assert [name.name for name in target.parent.iterdir()] == ["backup.db"]
    assert decisions(target) == decisions(file)
    with closing(SqliteStore(target, read_only=True)) as store:
        assert store.meta()["note"] == "only the log has it"


def test_a_backup_replaces_nothing_unless_it_is_told_to(file: Path, tmp_path: Path) -> None:
    (target := tmp_path / "backup.db").write_text("precious")
    refused = run("backup", "--store", url(file), target)
    assert "exists" in str(refused.exception)
    assert target.read_text() == "precious"
    assert run("backup", "--store", url(file), target, "--force").exit_code == 0
    assert decisions(target) == decisions(file)
    itself = run("backup", "--store", url(file), file, "--force")
    assert "is the ledger itself" in str(itself.exception)
    assert "is no file" in str(run("backup", "--store", "memory://", target).exception)
    assert "does not exist" in str(run("backup", "--store", url(tmp_path / "none.db"), tmp_path / "b.db").exception)
    assert not (tmp_path / "b.db").exists()


def test_a_restore_puts_back_what_was_backed_up_and_keeps_what_was_there(file: Path, tmp_path: Path) -> None:
    before = decisions(file)
    run("backup", "--store", url(file), tmp_path / "backup.db")
    use(file, 5, 3)
    done = run("restore", "--store", url(file), tmp_path / "backup.db")
    assert done.exit_code == 0, done.output
    assert decisions(file) == before
    (kept,) = file.parent.glob("ledger.db.replaced-*")
    assert str(kept) in done.output
    assert len(decisions(kept)) == 8
    assert use(file, 5, 2)  # and it goes on from there
    assert len(decisions(file)) == 7


@pytest.mark.parametrize("removed", [False, True])
def test_a_log_that_was_left_behind_does_not_spoil_a_restored_ledger(file: Path, tmp_path: Path, removed: bool) -> None:
    """The service died, so that its log is beside the file; a backup copied over the file by hand is malformed."""
    run("backup", "--store", url(file), tmp_path / "backup.db")
    dies = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from api.stores.sqlite import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1]))\n"
        "for n in range(3000): store.set_meta({f'key {n}': 'x' * 500})\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", dies, str(file)], check=False).returncode == 9
    assert file.with_name("ledger.db-wal").stat().st_size > 10**6
    by_hand = tmp_path / "by hand" / "ledger.db"
    shutil.copytree(file.parent, by_hand.parent)
    shutil.copy(tmp_path / "backup.db", by_hand)
    with closing(sqlite3.connect(by_hand)) as conn:
        try:
            spoiled = conn.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
            spoiled = spoiled or bool(conn.execute("SELECT count(*) FROM meta WHERE key LIKE 'key %'").fetchone()[0])
        except sqlite3.DatabaseError:
            spoiled = True
    assert spoiled, "the fault that this test is about does not occur any more"
    if removed:
        file.unlink()
    assert run("restore", "--store", url(file), tmp_path / "backup.db").exit_code == 0
    assert decisions(file) == decisions(tmp_path / "backup.db")
    assert not file.with_name("ledger.db-wal").exists()
    with closing(SqliteStore(file, read_only=True)) as store:
        assert not [key for key in store.meta() if key.startswith("key ")]


def test_a_restore_changes_nothing_while_a_service_has_the_ledger(file: Path, tmp_path: Path) -> None:
    run("backup", "--store", url(file), tmp_path / "backup.db")
    with closing(SqliteStore(file)):
        assert "in use" in str(run("restore", "--store", url(file), tmp_path / "backup.db").exception)
    assert not list(file.parent.glob("*.replaced-*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no ledger", "empty", "later", "dangling"])
def test_a_backup_that_is_not_sound_is_refused_and_the_ledger_stays(file: Path, tmp_path: Path, damage: str) -> None:
    before, backup = file.read_bytes(), tmp_path / "backup.db"
    run("backup", "--store", url(file), backup)
    data = bytearray(backup.read_bytes())
    if damage == "cut":
        backup.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        for at in range(4096 + 8, len(data), 4096):  # the header of every page but the first
            data[at] ^= 0xFF
        backup.write_bytes(data)
    elif damage == "empty":
        backup.write_bytes(b"")
    else:
        with closing(sqlite3.connect(backup)) as conn:
            if damage == "later":
                conn.execute("PRAGMA user_version = 999")
            elif damage == "dangling":
                conn.execute("DELETE FROM decisions WHERE seq = 1")
            else:
                conn.execute("DROP TABLE _sqlite_migrations")
            conn.commit()
    done = run("restore", "--store", url(file), backup)
    assert isinstance(done.exception, LedgerError), done.output
    assert file.read_bytes() == before
    assert not [name for name in file.parent.iterdir() if "part" in name.name or "replaced" in name.name]


def test_what_stops_half_way_leaves_nothing_that_looks_like_a_backup(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise SystemExit(143)  # what SIGTERM becomes

    monkeypatch.setattr(backups, "_checked", stopped)
    assert run("backup", "--store", url(file), tmp_path / "backup.db").exit_code == 143
    assert not list(tmp_path.glob("backup.db*"))
    assert run("restore", "--store", url(file), file).exit_code == 1
    shutil.copy(file, tmp_path / "copy.db")
    assert run("restore", "--store", url(file), tmp_path / "copy.db").exit_code == 143
    assert len(decisions(file)) == 5


# -- before a restart ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (("", ""), 0, "can be served"),
        (('app = "fintech"', 'app = "other"'), 1, "refused: the ledger holds app 'fintech', not 'other'"),
        (("[stages.cart.features]", "[stages.cart.features]\nzip = {}".format('{ type = "boolean", default = false }')),
         1, "refused: stage 'cart': its features or its reward changed"),
        (("[stages.cart]", "[stages.cart]\nschema = 2"), 0, "stage 'cart': schema 2 begins anew"),
        (("[stages.cart.nudges.", "[stages.cart.nudges.new_"), 0, "is retired: what it taught of its type is kept"),
    ],
)  # fmt: skip
def test_what_the_ledger_will_refuse_is_said_before_the_restart(
    file: Path, tmp_path: Path, change: tuple[str, str], status: int, said: str
) -> None:
    """And the restart does just that."""
    text = read_shipped("fintech")
    assert change[0] in text
    (own := tmp_path / "own.toml").write_text(text.replace(*change, 1) if change[0] else text, encoding="utf-8")
    done = run("catalogue", "check", own, "--store", url(file), "--salt", "s")
    assert done.exit_code == status, (done.output, done.exception)
    assert said in done.output
    settings: dict[str, Any] = {"app": str(own), "dev": True, "store": url(file), "salt": "s"}
    if status:
        with pytest.raises(LedgerError) as refused:
            create_app(Settings(**settings))
        assert [f"refused: {line}" for line in str(refused.value).splitlines()] == [
            line for line in done.output.splitlines() if line.startswith("refused: ")
        ]
    else:
        with TestClient(create_app(Settings(**settings))) as client:
            assert client.get("/health/ready").status_code == 200
