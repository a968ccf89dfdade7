"""Run queue: live runs that wait to be logged, a snapshot and where the ledger stood, one file each, so that a killed
process or a registry that is away for days loses none. Bounded: beyond that many, every other old one is given up, and
counted.
"""

import io
import zipfile
from pathlib import Path

import msgspec

from bandit.errors import SnapshotError
from bandit.snapshot import Snapshot, from_zip, to_zip

MOST = 48


class QueuedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Queued run: a live run that is due. `at`: when, µs. `until`: number of the ledger's last decision then.
    `release`: number of the release whose decisions count, 0: none's.
    """

    stage: str
    at: int
    until: int
    why: str
    release: int = 0


class RunQueue:
    """Queue of live runs as files of one folder, oldest first. One process writes it; every write is atomic, so that a
    crash leaves whole files.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def __len__(self) -> int:
        return len(self._files())

    def put(self, waiting: QueuedRun, snapshot: Snapshot) -> None:
        """Put one run with its snapshot in the queue, by its time, as a file that is there whole or not at all. Beyond
        48 runs, some old ones are given up and counted in `dropped`.
        """
        file = self._folder / f"{waiting.at:020d}-{waiting.stage}.run"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("waiting.json", msgspec.json.encode(waiting))
            archive.writestr("snapshot.zip", to_zip(snapshot))
        part = file.with_suffix(".part")
        part.write_bytes(buffer.getvalue())
        part.replace(file)
        files = self._files()
        if len(files) > MOST:
            given_up = files[1 : MOST // 2 : 2]
            for old in given_up:
                old.unlink()
            self._count(len(given_up))

    def first(self) -> tuple[Path, QueuedRun, Snapshot] | None:
        """Oldest run, its file and its snapshot; None if the queue is empty. A file that cannot be read is set aside,
        and the next is taken.
        """
        for file in self._files():
            try:
                with zipfile.ZipFile(file) as archive:
                    waiting = msgspec.json.decode(archive.read("waiting.json"), type=QueuedRun)
                    return file, waiting, from_zip(archive.read("snapshot.zip"))
            except (zipfile.BadZipFile, KeyError, msgspec.MsgspecError, SnapshotError):
                file.replace(file.with_suffix(".broken"))
                self._count(1)
        return None

    def done(self, file: Path, stage: str, snapshot: Snapshot) -> None:
        """Take a run out of the queue: it was logged, or never can be. Its snapshot becomes the stage's `previous`."""
        (self._folder / f"previous-{stage}").write_bytes(to_zip(snapshot))
        file.unlink(missing_ok=True)

    def previous(self, stage: str) -> Snapshot | None:
        """Snapshot of the run that was done before at this stage, for the diff; None if there is none
        that can be read.
        """
        file = self._folder / f"previous-{stage}"
        try:
            return from_zip(file.read_bytes()) if file.exists() else None
        except SnapshotError:
            return None

    @property
    def dropped(self) -> int:
        """Number of runs that were never logged, over the life of the folder: given up because the queue was full, or
        set aside because their file could not be read.
        """
        file = self._folder / "dropped"
        return int(file.read_text()) if file.exists() else 0

    def latest(self, stage: str, at: int | None = None) -> int:
        """Time (µs) at which the last run of a stage was due, 0 if none was; `at` sets it."""
        file = self._folder / f"latest-{stage}"
        if at is not None:
            file.write_text(str(at))
        return int(file.read_text()) if file.exists() else 0

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.run"))

    def _count(self, more: int) -> None:
        (self._folder / "dropped").write_text(str(self.dropped + more))
