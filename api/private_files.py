"""Private files: what only the user of this process may read, from the moment that it is there. Ledgers, keys, secrets
and locks are opened here; nothing follows a symbolic link to somebody else's file where the folder is shared.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import IO

from bandit.errors import RemoteError

_OURS = 0o600


def opener(path: str, flags: int) -> int:
    """Opener for `open`: a file that it makes belongs to this user alone. One that is there keeps its mode."""
    return os.open(path, flags, _OURS)


def make(path: Path) -> None:
    """Make an empty file if there is none, for a library that would make one that others may read."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OURS))


def lock_file(path: Path) -> IO[str]:
    """File to lock, open and never emptied. Raises OSError, also if a symbolic link is there."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _OURS)
    return os.fdopen(handle, "r+", encoding="ascii")


def folder(path: Path) -> Path:
    """Folder that only this user may use, made if it is missing. Raises RemoteError if it is anything else: in a folder
    that all share, another user may have been first.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise RemoteError(f"{path} is not a folder that only this user may use: remove it, or set TMPDIR to another")
    return path


def of_this_user() -> Path:
    """Folder for what services of this user keep while they run, in the one for temporary files (TMPDIR). Raises as
    `folder` does.
    """
    return folder(Path(tempfile.gettempdir()) / f"journey-bandit-{os.geteuid()}")
