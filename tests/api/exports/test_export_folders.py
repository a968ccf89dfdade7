"""Folders of exports: private, kept while their process lives, and removed by the next one otherwise."""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from api.exports import export_folders


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_is_private_and_goes_with_what_is_in_it() -> None:
    made = export_folders.new()
    (made.path / "cart").mkdir()
    (made.path / "cart" / "part").write_bytes(b"rows")
    assert [one.stat().st_mode & 0o777 for one in (made.path, made.path.parent)] == [0o700, 0o700]
    made.remove()
    assert not made.path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made.lock)


def test_what_a_killed_service_left_is_removed_and_what_another_one_uses_is_not() -> None:
    used, left = export_folders.new(), export_folders.new()
    os.close(left.lock)  # as the kernel does it when a process is killed
    other = left.path.parent / "port-1.lock"
    other.touch()
    export_folders.remove_left()
    assert (used.path.exists(), left.path.exists(), other.exists()) == (True, False, True)
    used.remove()


def test_another_process_that_lives_keeps_its_folder(tmp_path: Path) -> None:
    code = "from api.exports import export_folders; print(export_folders.new().path, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with child:
        assert child.stdout is not None
        path = Path(child.stdout.readline().strip())
        export_folders.remove_left()
        assert path.is_dir()
        child.kill()
    export_folders.remove_left()
    assert not path.exists()


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked", "while it is removed"])
def test_one_that_a_starting_service_removes_before_it_is_locked_is_made_again(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    times, held, files = [1], list[int](), set(os.listdir("/proc/self/fd"))
    make, lock_it = tempfile.mkdtemp, fcntl.flock

    def made(**given: Any) -> str:
        path: str = make(**given)
        if moment == "before it is opened" and times and times.pop():
            os.rmdir(path)
        return path

    def locked(lock: int, how: int) -> None:
        if times and times.pop():
            if moment == "before it is locked":
                os.rmdir(os.readlink(f"/proc/self/fd/{lock}"))
            else:
                held.append(os.open(os.readlink(f"/proc/self/fd/{lock}"), os.O_RDONLY))
                lock_it(held[0], how)
        lock_it(lock, how)

    monkeypatch.setattr(tempfile, "mkdtemp", made)
    monkeypatch.setattr(fcntl, "flock", locked)
    folder = export_folders.new()
    assert folder.path.is_dir()
    assert times == []
    folder.remove()
    for one in held:
        os.close(one)
    assert set(os.listdir("/proc/self/fd")) == files


def test_one_that_cannot_be_opened_keeps_no_other_from_being_removed(caplog: pytest.LogCaptureFixture) -> None:
    left = export_folders.new()
    os.close(left.lock)
    home = left.path.parent
    (home / "export-!").write_text("a file", encoding="utf-8")  # it comes first
    (home / "export-~").symlink_to(home)
    export_folders.remove_left()
    assert sorted(one.name for one in home.glob("export-*")) == ["export-!", "export-~"]
    assert caplog.text.count("was not removed") == 2


def test_what_cannot_be_removed_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(path: Path) -> None:
        raise PermissionError(13, "no", str(path))

    made = export_folders.new()
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(shutil, "rmtree", full)
        made.remove()
    assert "could not be removed" in caplog.text
    assert str(made.path) in caplog.text
    export_folders.remove_left()
    assert not made.path.exists()
