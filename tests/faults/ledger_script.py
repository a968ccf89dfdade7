"""Program whose writes are recorded: it works on a ledger and notes in a second file what was acknowledged.

    LD_PRELOAD=… python -m tests.faults.ledger_script FOLDER cut COMMITS [SYNCHRONOUS]
    LD_PRELOAD=… python -m tests.faults.ledger_script FOLDER errors TRIALS SEED

`cut`: decisions and outcomes in commits of different sizes; what matures is learned; the log is emptied in between. An
acknowledgement is written to a file whose writes are recorded in the same order. `errors`: in each trial the calls to
the disk fail from one of them on; then they work again, and the same ids are sent until all are acknowledged.
"""

import ctypes
import errno
import random
import sqlite3
import sys
import uuid
from contextlib import closing
from pathlib import Path

from api.learning.learner import Learner
from api.ledger import audit
from api.metrics import Metrics
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.errors import LedgerError
from journey_bandit.testing.store_builders import CATALOGUE, START, decisions_of, reported

NAME, ACKNOWLEDGED = "ledger.db", "ledger.db-acknowledged"
ERRORS = (errno.EIO, errno.ENOSPC)
MINUTE = 60_000_000


class RecordedLedger:
    """Ledger with its learner, in one thread, on a clock that goes on by a minute with each commit."""

    def __init__(self, folder: Path):
        self.store, self.catalogue = SqliteStore(folder / NAME), parse(CATALOGUE)
        audit.claim(self.store, self.catalogue, "salt")
        self.specs, self.now, self.decide = self.store.specs(), START, decisions_of(self.catalogue)
        self.acknowledged = (folder / ACKNOWLEDGED).open("wb", buffering=0)
        self.load()

    def load(self) -> None:
        """Begin to learn from what is there."""
        self.learner = Learner(self.store, self.catalogue, Metrics(), lambda _: None, now=self.now)
        self.behind = False

    def commit(self, numbers: range) -> None:
        """Record decisions, and outcomes of every other, in one transaction; then acknowledge them."""
        self.now += MINUTE
        made = [self.decide(n, "signup", at=self.now, user=f"u{n}") for n in numbers]
        said = [reported(n, at=self.now) for n in numbers if n % 2]
        kept, noted = self.store.record(made, said, self.now, self.specs)
        self.learner.observe(kept, noted)
        self.acknowledged.write(b"".join(n.to_bytes(8, "big") for n in numbers))

    def learn(self) -> None:
        """Settle some of what has matured, in one transaction."""
        self.learner.step(self.now, 40)


def cut(folder: Path, commits: int, synchronous: str) -> None:
    """Work that may be cut off at any write."""
    ledger, chance, number = RecordedLedger(folder), random.Random(1), 1
    ledger.store._ledger.writer().execute(f"PRAGMA synchronous = {synchronous}").fetchall()
    ledger.store._ledger.writer().execute("PRAGMA wal_autocheckpoint = 60").fetchall()
    for _ in range(commits):
        size = chance.choice((1, 1, 1, 3, 20))
        ledger.commit(range(number, number + size))
        number += size
        ledger.learn()
    ledger.store.close()


def errors(folder: Path, trials: int, seed: int) -> None:
    """Work during which calls fail. Ends with the count of failed transactions, and raises if something is lost."""
    chance, failed = random.Random(seed), 0
    for trial in range(trials):
        here = folder / f"trial-{trial}"
        here.mkdir()
        failed += _trial(RecordedLedger(here), chance)
        known = {int.from_bytes(part, "big") for part in _eights((here / ACKNOWLEDGED).read_bytes())}
        if wrong := lost(here / NAME, known):
            raise SystemExit(f"trial {trial}: {wrong}")
    print(failed)


def _trial(ledger: RecordedLedger, chance: random.Random) -> int:
    """Ten commits on a sound disk, then calls fail, then they work again. Returns how many transactions failed."""
    faults, waiting, failed = ctypes.CDLL(None), list[range](), 0
    for part in range(30):
        if part == 10:
            faults.faults_set(ctypes.c_long(chance.randrange(1, 30)), chance.choice(ERRORS))
        if part == 20:
            faults.faults_set(ctypes.c_long(0), 0)
        waiting.append(range(100 * part, 100 * part + chance.choice((1, 3, 10))))
        failed += _commit_all(ledger, waiting)
    ledger.store.close()
    if waiting:
        raise SystemExit(f"{len(waiting)} transactions still fail after the disk works again")
    return failed


def _commit_all(ledger: RecordedLedger, waiting: list[range]) -> int:
    """Commit what waits, in order, until one fails: then the learner begins anew from what is there before the next, as
    a worker's does. Returns how many failed.
    """
    try:
        if ledger.behind:
            ledger.load()
        while waiting:
            ledger.commit(waiting[0])
            del waiting[0]
            ledger.learn()
    except (LedgerError, OSError):
        ledger.behind = True
        return 1
    return 0


def lost(path: Path, acknowledged: set[int]) -> list[str]:
    """What is wrong with a ledger that must hold these decisions and their outcomes; nothing if it is whole."""
    try:
        with closing(SqliteStore(path)) as store:
            wrong = list(store.damages())
            found = store.decisions_by_id([uuid.UUID(int=n) for n in acknowledged])
            wrong += [f"decision {n} is lost" for n in acknowledged if uuid.UUID(int=n) not in found]
            wrong += [f"outcome of {n} is lost" for n in acknowledged if n % 2 and not _answered(found, n)]
            wrong += [f"{one.stage}: not what the ledger says" for one in _rebuilt(store) if not one.equal]
            return wrong
    except (LedgerError, sqlite3.Error) as error:
        return [f"it cannot be opened: {error}"]


def _answered(found: dict, n: int) -> bool:  # type: ignore[type-arg]
    record = found.get(uuid.UUID(int=n))
    return record is not None and len(record.outcomes) == 1


def _rebuilt(store: SqliteStore) -> list[audit.RebuildResult]:
    return list(audit.rebuild(store, audit.stages(store)))


def _eights(data: bytes) -> list[bytes]:
    return [data[at : at + 8] for at in range(0, len(data), 8)]


if __name__ == "__main__":
    place, kind, *more = sys.argv[1:]
    if kind == "cut":
        cut(Path(place), int(more[0]), more[1] if len(more) > 1 else "FULL")
    else:
        errors(Path(place), int(more[0]), int(more[1]))
