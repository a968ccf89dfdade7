"""Processor time of a running service by thread, and the time its disk takes to sync. Linux only: it reads /proc."""

import os
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

_TICK = 1e6 / os.sysconf("SC_CLK_TCK")  # µs


class ProcessorTime(NamedTuple):
    """Processor time of a process so far, in µs: of its event loop (the main thread), of its other Python threads (the
    writer of the ledger above all), and of the HTTP server's own threads.
    """

    loop: float
    writer: float
    server: float

    @property
    def total(self) -> float:
        """Sum of all threads, in µs."""
        return self.loop + self.writer + self.server

    def since(self, before: "ProcessorTime") -> "ProcessorTime":
        """Processor time spent since `before`."""
        return ProcessorTime(*(now - then for now, then in zip(self, before, strict=True)))


def spent(pid: int) -> ProcessorTime:
    """Processor time of a process so far. Threads of the HTTP server are those that are not named as Python's are."""
    loop = writer = server = 0.0
    own = Path(f"/proc/{pid}/comm").read_text().strip()
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        used = _TICK * (int(fields[11]) + int(fields[12]))
        if int(task.name) == pid:
            loop += used
        elif (task / "comm").read_text().strip() == own:
            writer += used
        else:
            server += used
    return ProcessorTime(loop, writer, server)


def megabytes(pid: int) -> tuple[float, float]:
    """Memory of a process in MB: its own that it holds now, and the most that it held, files mapped included."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(status.split(f"{name}:")[1].split()[0]) / 1024 for name in ("RssAnon", "VmHWM"))
    return now, most


def sync_milliseconds(folder: Path, times: int = 50) -> float:
    """Median time in ms of one fdatasync after a write of 4 KiB to a file in `folder`."""
    took = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            start = perf_counter()
            os.fdatasync(file.fileno())
            took.append(1000.0 * (perf_counter() - start))
    return float(np.median(took))
