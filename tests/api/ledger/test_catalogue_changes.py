"""What becomes of a ledger under another catalogue: said before a restart, and what the restart then does."""

import gzip
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from api.ledger import catalogue_changes, statistics_store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError, LedgerMismatch
from journey_bandit.main import group

Working = Callable[..., AbstractContextManager[Any]]

LEDGERS = Path(__file__).parents[2] / "data" / "ledgers"
SAME = ("floor = 0.02", "floor = 0.02")
RANGE = ("min = 0, max = 100, default = 30", "min = 10, max = 100, default = 30")
SIGNUP = 'policy = { name = "linear", prior_mean = 0.2 }'


@pytest.fixture
def path(working: Working, later: Callable[[float], int], tmp_path: Path) -> Path:
    """A ledger in which signup has learned six decisions, basket four; two of signup are open."""
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        for n in range(1, 7):
            desk.ask(n, "signup", user=f"u{n}")
            desk.report(n)
        for n in (7, 8, 9, 10):
            desk.ask(n, "shown", user=f"u{n}")
            desk.report(n, "activation", None)
        later(3600)
        desk.learn()
        desk.ask(11)
        desk.ask(12, user="other")
    return path


def found(path: Path, catalogue: Catalogue, salt: str | None = "salt") -> dict[str, catalogue_changes.StageFate]:
    with closing(SqliteStore(path, read_only=True)) as store:
        return {fate.stage: fate for fate in catalogue_changes.fates(store, catalogue, salt)}


def started(path: Path, catalogue: Catalogue, working: Working, salt: str | None = "salt") -> dict[str, int]:
    """Learned decisions of each stage once a service has started with the catalogue."""
    with closing(SqliteStore(path)) as store, working(store, catalogue, salt=salt):
        learned = statistics_store.load(store, catalogue.stages)
        return {name: round(sum(float(epoch.n.sum()) for epoch in one.epochs)) for name, one in learned.items()}


def check(path: Path, catalogue: Path, *more: str) -> Result:
    command = ["catalogue", "check", "--store", f"sqlite:///{path}", "--salt", "salt", str(catalogue), *more]
    return CliRunner().invoke(group, command)


CASES: dict[str, tuple[list[tuple[str, str]], dict[str, str], int]] = {
    "nothing": ([], {"signup": "kept", "basket": "kept", "instant": "kept", "shown": "kept"}, 0),
    "another policy": ([(SIGNUP, 'policy = { name = "uniform" }')], {"signup": "kept"}, 0),
    "a narrower range": ([RANGE], {"signup": "refused", "basket": "kept"}, 1),
    "another kind of reward": ([("max = 50.0, default = 5.0", "max = 60.0, default = 5.0")], {"shown": "refused"}, 1),
    "a new schema": ([RANGE, ("floor = 0.02", "floor = 0.02\nschema = 2")], {"signup": "anew", "shown": "kept"}, 3),
    "a renamed stage": ([("stages.shown", "stages.seen")], {"shown": "removed", "seen": "new"}, 3),
    "another app": ([('app = "shop"', 'app = "bank"')], {"": "refused", "signup": "kept"}, 1),
    "a nudge less": ([("stages.signup.nudges.tip", "stages.signup.nudges.hint")], {"signup": "kept"}, 0),
}


@pytest.mark.parametrize(("edits", "expected", "status"), CASES.values(), ids=CASES.keys())
def test_what_is_said_before_a_restart_is_what_the_restart_does(
    path: Path,
    catalogue_text: str,
    working: Working,
    tmp_path: Path,
    edits: list[tuple[str, str]],
    expected: dict[str, str],
    status: int,
) -> None:
    text = catalogue_text
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "changed.toml"
    file.write_text(text, encoding="utf-8")
    catalogue, before = parse(text), path.read_bytes()
    fates, done = found(path, catalogue), check(path, file)
    assert {name: fates[name].what for name in expected} == expected
    assert done.exit_code == status, done.output
    assert path.read_bytes() == before
    for fate in fates.values():
        assert f"{fate.what:<8}  " in done.stdout
        assert fate.why in done.stdout
    if status == 1:
        with pytest.raises(LedgerMismatch) as refused:
            started(path, catalogue, working)
        assert str(refused.value).splitlines() == [fate.why for fate in fates.values() if fate.what == "refused"]
        return
    for name, learned in started(path, catalogue, working).items():
        said = f"{learned:,} learned decision(s)" if fates[name].what == "kept" else ""
        assert fates[name].why.startswith(said)
        assert fates[name].what == "kept" or learned == 0


def test_the_sentences_count_what_is_learned_open_and_retired(path: Path, catalogue_text: str) -> None:
    anew = parse(catalogue_text.replace("floor = 0.02", "floor = 0.02\nschema = 2"))
    assert found(path, anew)["signup"].why == (
        "schema 2 after 1: 6 learned decision(s) stay in the ledger, unused; 2 open decision(s) will settle, "
        "and teach nothing"
    )
    less = parse(catalogue_text.replace("stages.signup.nudges.tip", "stages.signup.nudges.hint"))
    assert found(path, less)["signup"].why == (
        "6 learned decision(s); new: hint; retired, what they taught is kept: tip"
    )
    gone = parse(catalogue_text.replace("stages.signup", "stages.enter"))
    assert "6 learned and 2 open decision(s) wait in the ledger" in found(path, gone)["signup"].why


def test_the_salt_is_part_of_it(path: Path, catalogue: Catalogue, working: Working) -> None:
    fate = found(path, catalogue, "pepper")[""]
    assert fate.what == "refused"
    with pytest.raises(LedgerMismatch, match="the salt is not the one"):
        started(path, catalogue, working, "pepper")


def test_a_running_ledger_is_looked_at_and_one_of_an_earlier_version_too(
    path: Path, catalogue_file: Path, tmp_path: Path
) -> None:
    with closing(SqliteStore(path)):
        assert check(path, catalogue_file).exit_code == 0
    old = tmp_path / "old.db"
    old.write_bytes(gzip.decompress((LEDGERS / "1-ledger.db.gz").read_bytes()))
    before = old.read_bytes()
    done = check(old, LEDGERS / "shop.toml", "--salt", "pepper")
    assert done.exit_code == 0, done.output
    assert "kept" in done.stdout
    assert old.read_bytes() == before
    assert isinstance(check(tmp_path / "typo.db", catalogue_file).exception, LedgerError)
