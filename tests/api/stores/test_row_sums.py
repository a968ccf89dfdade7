"""Tables that change have sums of their rows: a bit flipped anywhere in the file is found, or changes nothing."""

import gzip
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from api.ledger import audit
from api.stores.sqlite import row_sums
from api.stores.sqlite.store import SqliteStore
from bandit.errors import LedgerError

FULL = Path(__file__).parents[2] / "data" / "ledgers" / "full-5a32ef2.db.gz"
PAGE = 4096
FLIPS = 100


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a bit of everything, as this version keeps it, without a log beside it."""
    path = tmp_path_factory.mktemp("full") / "ledger.db"
    with gzip.open(FULL) as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    with closing(SqliteStore(path)) as store:
        assert list(store.damages()) == []
    return path


def found(path: Path) -> list[str]:
    """What a check of the whole ledger says, as `rebuild --verify` makes it."""
    try:
        with closing(SqliteStore(path, read_only=True)) as store:
            wrong = list(store.damages())
            if not wrong:
                wrong = [one.stage for one in audit.rebuild(store, audit.stages(store)) if not one.equal]
            return wrong
    except LedgerError as error:
        return [str(error)]


def contents(path: Path) -> Any:
    """All rows of all tables."""
    with closing(sqlite3.connect(path)) as conn:
        names = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: conn.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608


def test_each_changing_table_is_checked(full: Path, tmp_path: Path) -> None:
    rows = contents(full)
    tables = [name for name in rows if rows[name] and name not in row_sums.COMPUTED]
    with closing(sqlite3.connect(full)) as conn:
        summed = [name for name in tables if name in row_sums.tables(conn)]
    assert {"webhook_deliveries", "webhook_cursors", "journeys", "credits", "specs", "meta", "warm_sums"} <= set(summed)
    for name in summed:
        path = tmp_path / f"{name}.db"
        shutil.copyfile(full, path)
        with closing(sqlite3.connect(path)) as conn, conn:
            assert conn.execute(f"DELETE FROM {name}").rowcount > 0  # noqa: S608
        assert f"{name}: a row is not what was written" in found(path), name


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM pending WHERE rowid = (SELECT min(rowid) FROM pending)", "1 open decisions are missing"),
        ("UPDATE pending SET due = due + 1", "are due at another time than the end of their window"),
        ("INSERT INTO pending SELECT decision_seq, 5 FROM settlements LIMIT 1", "1 rows are of no open decision"),
    ],
)  # fmt: skip
def test_what_waits_is_compared_with_the_decisions(statement: str, said: str, full: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    shutil.copyfile(full, path)
    with closing(sqlite3.connect(path)) as conn, conn:
        assert conn.execute(statement).rowcount > 0
    assert any(said in one for one in found(path)), found(path)


def test_a_bit_flipped_anywhere_is_found_or_changes_nothing(full: Path, tmp_path: Path) -> None:
    """In bytes that no row uses a flip changes nothing that anybody reads."""
    data, before, path = full.read_bytes(), contents(full), tmp_path / "ledger.db"
    chance, told = random.Random(1), 0
    for n in range(FLIPS):
        changed = bytearray(data)
        at = chance.randrange(len(data) // PAGE) * PAGE + chance.randrange(PAGE)
        changed[at] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        said = found(path)
        told += bool(said)
        if not said:
            assert contents(path) == before, f"flip {n} at byte {at:,} changed a row, and nothing was said"
    assert told > FLIPS / 2


def undone(store: SqliteStore, values: dict[str, str]) -> None:
    """Write in a transaction that fails."""

    def fail() -> None:
        with store.atomic():
            store.set_meta(values)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_what_is_rolled_back_inside_a_transaction_is_not_counted(
    working: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store:
        store.set_meta({"kept": "1"})
        with store.atomic():
            store.set_meta({"kept": "2"})
            undone(store, {"kept": "3", "gone": "1"})
        undone(store, {"kept": "4"})
        assert list(store.damages()) == []
        store.set_meta({"kept": "5"})
        assert list(store.damages()) == []
        with working(store) as desk:
            desk.ask(1)
            desk.report(1)
    assert found(path) == []
