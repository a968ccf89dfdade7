"""Private files: nobody else reads them, and no link of somebody else's is followed."""

import os
import stat
from pathlib import Path

import pytest

from api import private_files
from bandit.errors import RemoteError


def test_a_file_is_private_from_its_first_moment_and_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open(tmp_path / "new", "a", encoding="ascii", opener=private_files.opener) as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        private_files.make(tmp_path / "made")
        (tmp_path / "old").write_text("kept", encoding="ascii")
        private_files.make(tmp_path / "old")
        private_files.lock_file(tmp_path / "old").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600
    assert (stat.S_IMODE((tmp_path / "old").stat().st_mode), (tmp_path / "old").read_text("ascii")) == (0o666, "kept")


def test_a_folder_that_others_may_use_or_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    ours = private_files.folder(tmp_path / "ours")
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert private_files.folder(ours) == ours
    (tmp_path / "link").symlink_to(ours)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    for name in ("link", "open"):
        with pytest.raises(RemoteError, match="only this user may use"):
            private_files.folder(tmp_path / name)
