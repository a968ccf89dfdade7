"""Soak: steady load on a service that is killed about once a minute, and on one that is left alone.

    python -m tests.faults.soak [--minutes 20] [--users 300]

The first is killed with SIGKILL and started again all the while. At the end nothing that was acknowledged is lost,
nothing counts twice, and beliefs are those of the ledger, bit for bit. The second runs from the beginning to the end:
memory, write-ahead log, open files and threads do not grow, nor do the file per row and processor time per round. Exit
status 1 if any of it is not so. How long its decisions took is printed and has no bound: it depends on what else the
machine does. Linux only.
"""

import argparse
import math
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from api.server import free_port
from tests.faults.resources import BOUNDS, Growth, Meter, Sample, growing, growth
from tests.faults.service_process import ServiceProcess
from tests.faults.steady_load import CATALOGUE, USERS, WINDOW_SCALE, Acknowledged, SteadyClient, wrong_with
from tests.waiting import PATIENCE

CLIENTS = 2  # of each service
RATE = 6.0  # rounds of a client a second: about 16 requests a second to each service
LEAST = 0.1  # of the rounds that are due: less than a busy machine and a service that starts again leave
WARMING = 0.25  # of the time, in which what is kept in memory fills up


class LoadedService:
    """A service on a new ledger in a folder of its own, under steady load."""

    def __init__(self, folder: Path, seed: int, users: int = USERS):
        folder.mkdir(parents=True)
        (folder / "soak.toml").write_text(CATALOGUE, encoding="utf-8")
        options = ["--app", str(folder / "soak.toml"), "--window-scale", WINDOW_SCALE, "--salt", "soak"]
        self.ledger = folder / "ledger.db"
        self.service = ServiceProcess(folder, free_port("127.0.0.1"), options)
        self.acknowledged = Acknowledged(folder / "acknowledged.txt")
        self._done = threading.Event()
        self.clients = [
            SteadyClient(self.service.url, CLIENTS * seed + i, RATE, self.acknowledged, self._done, users)
            for i in range(CLIENTS)
        ]

    @property
    def rounds(self) -> int:
        """Rounds that its clients have finished."""
        return sum(one.rounds for one in self.clients)

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Context in which the service runs and is loaded; at its end the service stops as it is told to."""
        try:
            self.service.spawn()  # clients ask until it answers
            for client in self.clients:
                client.start()
            yield
            self._done.set()
            for client in self.clients:
                client.join(PATIENCE)
            assert self.service.stop() == 0, self.service.log.read_text()
        finally:
            self._done.set()
            self.service.end()
            self.acknowledged.close()

    def wrong(self, seconds: float) -> list[str]:
        """What is wrong after the end, a load of `seconds`: also too little of it to prove anything."""
        found = [said for one in self.clients for said in one.wrong]
        if self.rounds < LEAST * CLIENTS * RATE * seconds:
            found.append(f"only {self.rounds} rounds in {seconds:g} s")
        return found + wrong_with(self.ledger, self.acknowledged.path)


class SoakResult(NamedTuple):
    """Result of a soak: kills, what was acknowledged by both services, requests that were repeated, what is wrong; of
    the service that was left alone, growth, and how long its decisions took in each quarter of the time: (median, 99 %
    quantile) in ms.
    """

    kills: int
    acknowledged: int
    repeated: int
    wrong: list[str]
    growth: list[Growth]
    took: list[tuple[float, float]]


def soak(
    folder: Path,
    seconds: float,
    between: tuple[float, float],
    *,
    least: int = 0,
    every: float = 1.0,
    seed: int = 1,
    users: int = USERS,
) -> SoakResult:
    """Load both services for so long, and until there were the `least` kills. One is killed after pauses `between` two
    times, in s, once it has answered again; the other is measured `every` so many seconds. `users` is how many people
    each has.
    """
    killed, alone = LoadedService(folder / "killed", seed, users), LoadedService(folder / "alone", seed + 1, users)
    chance, kills, samples = random.Random(seed), 0, list[Sample]()
    with killed.loaded(), alone.loaded():
        begin = now = time.monotonic()
        due, answered, meter = begin + chance.uniform(*between), 0, Meter(alone.service.pid, alone.ledger)
        while now < begin + seconds or kills < least or killed.rounds < answered:
            assert now < begin + seconds + PATIENCE, "it does not answer any more"
            assert killed.service.pid
            if now >= due and killed.rounds >= answered:
                killed.service.kill()
                killed.service.spawn()
                kills += 1
                due, answered = time.monotonic() + chance.uniform(*between), killed.rounds + 10 * CLIENTS
            assert alone.service.pid
            if measured := meter.sample(time.monotonic() - begin, alone.rounds):
                samples.append(measured)
            time.sleep(max(0.0, now + every - time.monotonic()))
            now = time.monotonic()
    warm = [one for one in samples if one.at >= WARMING * samples[-1].at]
    return SoakResult(
        kills,
        killed.acknowledged.rows + alone.acknowledged.rows,
        sum(client.repeated for client in killed.clients),
        killed.wrong(seconds) + alone.wrong(seconds),
        growth(warm),
        _quarters(alone.clients),
    )


def _quarters(clients: Sequence[SteadyClient]) -> list[tuple[float, float]]:
    """Median and 99 % quantile of how long the clients' decisions took, in each quarter of them."""
    parts = zip(*(np.array_split(np.array(client.took), 4) for client in clients), strict=True)
    return [(float(np.quantile(all_, 0.5)), float(np.quantile(all_, 0.99))) for all_ in map(np.concatenate, parts)]


def main(arguments: Sequence[str] | None = None) -> int:
    """What the command does: its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--users", type=int, default=USERS, help="people; what is kept of fewer is full sooner")
    wanted = parser.parse_args(arguments)
    minutes = wanted.minutes
    if not 0 < minutes < math.inf or wanted.users < 1:
        parser.error("--minutes must be above 0, --users at least 1")
    with tempfile.TemporaryDirectory(prefix="journey-bandit-soak-") as folder:
        result = soak(Path(folder), 60 * minutes, (45.0, 75.0), users=wanted.users)
    grows = growing(result.growth, proof=True)
    print(f"{minutes:g} minutes, {result.kills} kills, {result.acknowledged:,} rows acknowledged, "
          f"{result.repeated:,} requests repeated")  # fmt: skip
    print(
        "acknowledged and lost 0, applied twice 0, beliefs equal bit for bit"
        if not result.wrong
        else "\n".join(result.wrong)
    )
    for one in result.growth:
        print(f"{one}; bound {BOUNDS[one.what]:,g}{', MORE' if str(one) in grows else ''}")
    quarters = "; ".join(f"{median:.1f}, {late:.1f}" for median, late in result.took)
    print(f"decisions took, median and 99 % quantile in ms, in each quarter of the time: {quarters}")
    return 1 if result.wrong or grows else 0


if __name__ == "__main__":
    sys.exit(main())
