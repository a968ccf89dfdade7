"""What a running service takes, over time: memory, write-ahead log, open files, threads, bytes of its file per row, and
processor time per round of its clients; and whether it grows.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

BLOCKS = 20  # neighbouring samples resemble each other, so that their means are what a line is fitted to
CONFIDENCE = 0.99

BOUNDS: Mapping[str, float] = {
    "memory, kB": 20_000,
    "log, kB": 4_000,
    "files": 4,
    "threads": 3,
    "bytes per row": 40,
    "CPU, ms per round": 6,
}
"""Growth over a whole run, however long, that counts as none. That of processor time is as much again as a round takes:
other work on the same cores makes each instruction slower.
"""


class Sample(NamedTuple):
    """Measurement of one process at `at` (s); `values` has a number for each of BOUNDS."""

    at: float
    values: Mapping[str, float]


class Growth(NamedTuple):
    """Growth of one number from the first sample to the last: fitted, and its interval; beside the mean."""

    what: str
    mean: float
    low: float
    fitted: float
    high: float

    def __str__(self) -> str:
        return f"{self.what}: mean {self.mean:,.1f}, growth {self.fitted:+,.1f} ({self.low:+,.1f} to {self.high:+,.1f})"


class Meter:
    """Measurements of a running service on a ledger, from /proc. Linux only."""

    def __init__(self, pid: int, ledger: Path):
        self._process, self._ledger = Path(f"/proc/{pid}"), ledger
        self._spent, self._rounds = self._seconds(), 0

    def sample(self, at: float, rounds: int) -> Sample | None:
        """Measurement at `at` (s), when its clients have finished so many rounds; None if they finished none since the
        last one.
        """
        status = dict(line.split(":", 1) for line in (self._process / "status").read_text().splitlines())
        log, spent = self._ledger.with_name(self._ledger.name + "-wal"), self._seconds()
        if rounds == self._rounds:
            return None
        values = (
            float(status["VmRSS"].split()[0]),
            log.stat().st_size / 1000 if log.exists() else 0.0,
            float(len(os.listdir(self._process / "fd"))),
            float(status["Threads"]),
            _bytes_per_row(self._ledger),
            1000 * (spent - self._spent) / (rounds - self._rounds),
        )
        self._spent, self._rounds = spent, rounds
        return Sample(at, dict(zip(BOUNDS, values, strict=True)))

    def _seconds(self) -> float:
        """Processor time that it has taken, of its user and of the system."""
        fields = (self._process / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bytes_per_row(ledger: Path) -> float:
    """Size of the ledger, its write-ahead log included as it will be there, per decision, outcome and event."""
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=30)) as conn:
        pages, size = (conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        newest = (conn.execute(f"SELECT max(seq) FROM {t}").fetchone()[0] for t in ("decisions", "outcomes", "events"))  # noqa: S608
        return float(pages * size / max(1, sum(seq or 0 for seq in newest)))


def growth(samples: Sequence[Sample]) -> list[Growth]:
    """Growth of each number: a line by least squares through the means of BLOCKS blocks of samples, times the time from
    the first to the last. Intervals (99 %) are Student's, with the scatter of those means about the line.
    """
    blocks = [part for part in np.array_split(np.arange(len(samples)), BLOCKS) if len(part)]
    at = np.array([np.mean([samples[i].at for i in part]) for part in blocks])
    time = samples[-1].at - samples[0].at
    found = []
    for what in BOUNDS:
        y = np.array([np.mean([samples[i].values[what] for i in part]) for part in blocks])
        slope, error = 0.0, 0.0
        if np.ptp(y):
            line = stats.linregress(at, y)
            slope, error = line.slope, line.stderr * stats.t.ppf((1 + CONFIDENCE) / 2, len(at) - 2)
        found.append(Growth(what, float(y.mean()), *(float(time * (slope + k * error)) for k in (-1, 0, 1))))
    return found


def growing(found: Sequence[Growth], *, proof: bool) -> list[str]:
    """What grows by more than its bound, for certain; with `proof`, what is not certain not to."""
    return [str(one) for one in found if not (one.high if proof else one.low) <= BOUNDS[one.what]]
