"""Folders of exports that are made and sent: in the private folder of the service's user, each locked by its process
while it lives, and removed at the end. The kernel gives the lock back when a process is killed, so the next service
that starts knows what nobody needs any more.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from api import private_files

log = logging.getLogger("journey_bandit.exports")

_PREFIX = "export-"


class ExportFolder(NamedTuple):
    """Folder of one export, which only this user may read, and the descriptor that locks it."""

    path: Path
    lock: int

    def remove(self) -> None:
        """Remove the folder with all that is in it. What cannot be removed is logged."""
        try:
            shutil.rmtree(self.path)
        except OSError as error:
            log.error("an export could not be removed, and holds personal data: %s", error)
        finally:
            os.close(self.lock)


def new() -> ExportFolder:
    """Empty folder, locked. Raises OSError or RemoteError where there can be none."""
    for _ in range(2):  # a service that starts may remove one before it is locked
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=private_files.of_this_user()))
        lock = _locked(path)
        if lock is not None:
            return ExportFolder(path, lock)
    raise OSError("services that start removed it twice")


def remove_left() -> None:
    """Remove folders whose process is gone. Called when a service starts; others may be running. What cannot be removed
    is logged.
    """
    for path in sorted(private_files.of_this_user().glob(f"{_PREFIX}*")):
        try:
            lock = _locked(path)
        except OSError as error:
            log.warning("what looks like an export that a killed service left was not removed: %s", error)
            continue
        if lock is not None:
            log.warning("removed an export that a service left when it was killed")
            ExportFolder(path, lock).remove()


def _locked(path: Path) -> int | None:
    """Descriptor that locks a folder; None if another process has locked it, or has removed it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None
