"""Exports by a child process: what it writes, what it says when it cannot, and that it ends with the service."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from api.exports.log_exports import TABLES, ExportOrder
from api.ledger import audit
from api.stores import open_store
from bandit.errors import RemoteError
from experiments.data import part_files
from journey_bandit import child_commands
from journey_bandit.child_commands import exporting
from journey_bandit.exports import export_tables
from tests.journey_bandit.evaluation.ledgers import TRAVEL, decided
from tests.waiting import PATIENCE, eventually

ORDER = ExportOrder("cart", None, None, ())


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """Twenty decisions, one a second from the first one of 1970 on."""
    url, rng = f"sqlite:///{tmp_path / 'l.db'}", np.random.default_rng(8)
    store = open_store(url)
    audit.claim(store, TRAVEL, "salt")
    store.record([decided(seq, rng) for seq in range(1, 21)], [], 0, store.specs())
    store.close()
    return url


def export(ledger: str, order: ExportOrder, folder: Path) -> None:
    exporter = exporting(ledger)
    assert exporter is not None

    async def written() -> None:
        await asyncio.wait_for(exporter(order, folder), PATIENCE)

    asyncio.run(written())


def test_the_child_writes_what_is_ordered(ledger: str, tmp_path: Path) -> None:
    export(ledger, ORDER._replace(since=5_000_000, until=9_000_001), tmp_path / "log")
    manifest = part_files.read_manifest(tmp_path / "log")
    assert manifest is not None
    assert (manifest.rows, manifest.since, manifest.until) == (5, 5_000_000, 9_000_001)


def test_the_tables_are_those_of_the_command() -> None:
    assert tuple(export_tables.TABLES) == TABLES


def test_no_child_can_read_what_is_in_memory() -> None:
    assert exporting("memory://") is None


def test_a_child_that_fails_says_why_in_a_line(ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match=r"^stage: the ledger has no stage 'none' → one of "):
        export(ledger, ORDER._replace(stage="none"), tmp_path / "log")
    hidden = tmp_path / "without" / "pyarrow.py"
    hidden.parent.mkdir()
    hidden.write_text("raise ModuleNotFoundError('no', name='pyarrow')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{hidden.parent}:{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(RemoteError, match=r"^export: pyarrow is not installed: pip install 'journey-bandit\[exp"):
        export(ledger, ORDER, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_a_password_is_neither_among_the_arguments_nor_in_the_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, show = (
        "postgresql://u:secret@127.0.0.1/none",
        "import os, sys; print(sys.argv, os.environ['{}'], file=sys.stderr)",
    )
    monkeypatch.setattr(child_commands, "_CHILD", f"{show.format(child_commands.LEDGER)}; sys.exit(1)")
    with pytest.raises(RemoteError) as found:
        export(url, ORDER, tmp_path / "log")
    said = str(found.value)
    assert said.count("postgresql://***@127.0.0.1/none") == 1
    assert "secret" not in said


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "error: old\nerror: postgresql://u:secret@db/x cannot be reached:\n  server\n  gave up → wait\n",
            "postgresql://***@db/x cannot be reached: server gave up → wait",
        ),
        ("Usage: export\n\nError: No such option: --a\nDid you mean --b?\n", "No such option: --a Did you mean --b?"),
        ("Traceback\nMemoryError\n", "MemoryError"),
        ("", "it ended with status 1"),
    ],
)
def test_the_whole_reason_of_a_child_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, reason: str
) -> None:
    monkeypatch.setattr(child_commands, "_CHILD", f"import sys; sys.stderr.write({said!r}); sys.exit(1)")
    with pytest.raises(RemoteError) as found:
        export("sqlite:///none.db", ORDER, tmp_path / "log")
    assert str(found.value) == reason


def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A child that waits where the command would begin; gives the number of its process once it runs, else 0."""
    begun = tmp_path / "begun"
    wait = f"open({str(begun)!r}, 'w').write(f'{{os.getpid()}} '); __import__('time').sleep(600)"
    code = child_commands._CHILD.replace("runpy.run_module('journey_bandit', run_name='__main__')", wait)
    assert wait in code
    monkeypatch.setattr(child_commands, "_CHILD", code)
    return lambda: int(text) if begun.exists() and (text := begun.read_text(encoding="utf-8")).endswith(" ") else 0


def ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_child_ends_with_who_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child, exporter = waiting(tmp_path, monkeypatch), exporting("sqlite:///none.db")
    assert exporter is not None

    async def run() -> int:
        task = asyncio.ensure_future(exporter(ORDER, tmp_path / "log"))
        while not (process := child()):
            await asyncio.sleep(0.01)
        assert os.getpriority(os.PRIO_PROCESS, process) == 19
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return process

    files = set(os.listdir("/proc/self/fd"))
    assert ended(asyncio.run(run()))
    assert set(os.listdir("/proc/self/fd")) == files


def test_the_child_ends_with_a_service_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = waiting(tmp_path, monkeypatch)
    code = (
        "import asyncio, pathlib; from journey_bandit import child_commands; from api.exports.log_exports import *\n"
        f"child_commands._CHILD = {child_commands._CHILD!r}\n"
        "order = ExportOrder('cart', None, None, ())\n"
        "asyncio.run(child_commands.exporting('sqlite:///none.db')(order, pathlib.Path('log')))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as service:
        process = eventually(child)
        assert process
        service.send_signal(signal.SIGKILL)
    assert eventually(lambda: ended(process))
