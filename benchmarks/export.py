"""Export: seconds and memory that `journey-bandit export` takes on a large ledger, those of a continued one, and what
it costs the decisions of the service meanwhile.

    python -m benchmarks.export [--decisions 1000000] [--new 10000] [--rate 150] [--seconds 10] [--rounds 4]

Starts a service of the travel app on a SQLite ledger of so many settled decisions, as `benchmarks.console` makes it,
and exports the stage in a process of its own: whole, and again with `--continue` after so many new decisions. Printed
are seconds, seconds of a processor, the largest resident memory of that process, bytes on disk, and the time that
`evaluate` and, if it is installed, DuckDB's lift take on the export. The load of the machine at the start is printed.

Then decisions come to the service at a fixed rate, whether or not the last one is answered, in rounds of one run: in
each once alone, once beside an export of the whole stage, and once beside one under `nice -n 10`. Printed are the 50th
and 99th percentile of ms until a decision was answered, of all rounds, and the ratio to those alone. An export that has
not ended with its turn is stopped, and one that ends before is followed by another: on a small ledger part of what is
measured is the start of the command. The clients that ask share the processors too.
"""

import argparse
import importlib
import importlib.util
import itertools
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import console
from benchmarks.load.open_loop import offer

_GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "exports.md"
_STARTS = 3.0  # seconds that an export takes to begin reading
_LOOKS = 0.05  # seconds between looks whether it has ended
_YEAR = 365 * 86_400_000_000


class Run(NamedTuple):
    """What a command took: `seconds`, those of a processor, and the largest resident memory of its process in MB."""

    seconds: float
    processor: float
    megabytes: float


def measured(arguments: Sequence[str]) -> Run:
    """What a command of `journey-bandit` took in a process of its own. Raises CalledProcessError if it fails."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "journey_bandit", *arguments], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return Run(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


@contextmanager
def beside(command: Sequence[str], to: Path) -> Iterator[None]:
    """Exports run meanwhile, one after the other, each to a folder of its own whose name begins with that of `to`; the
    last is stopped. Raises CalledProcessError if one fails.
    """
    over = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(_one_after_another, command, to, over)
        try:
            yield
        finally:
            over.set()
        running.result()


def _one_after_another(command: Sequence[str], to: Path, over: threading.Event) -> None:
    for number in itertools.count():
        words = (*command, str(to.with_name(f"{to.name}-{number}")))
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                if over.wait(_LOOKS):
                    process.kill()
                    return
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words)


def answered(folder: Path, given: argparse.Namespace) -> dict[str, list[float]]:
    """Ms until decisions were answered, alone and beside exports, in turns."""
    took = dict[str, list[float]]()
    whole = (sys.executable, "-m", "journey_bandit", "export", "--ledger", str(folder / "ledger.db"), "--stage", "cart")
    with console.serving(folder, 1.0) as url:
        port = int(url.rsplit(":", 1)[1])
        for turn in range(given.rounds):
            for name, before in (("alone", None), ("export", ()), ("nice", ("nice", "-n", "10"))):
                with ExitStack() as turns:
                    if before is not None:
                        turns.enter_context(beside((*before, *whole), folder / f"{name}-{turn}"))
                        time.sleep(_STARTS)
                    load = offer(port, console.decide, rate=given.rate, seconds=given.seconds, connections=64)
                    took.setdefault(name, []).extend(load.latencies)
    return took


def add(ledger: Path, decisions: int) -> None:
    """Append so many settled decisions to the ledger, a year later."""
    with closing(sqlite3.connect(ledger)) as conn:
        last = conn.execute("SELECT max(seq) FROM settlements").fetchone()[0]
        console.copy_rows(conn, decisions, last, _YEAR)
        conn.commit()


def lift() -> str:
    """The guide's query of the lift, over the folder cart-log."""
    return str(re.findall(r"^```sql\n(.*?)^```", _GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0])


def main() -> None:
    """Run the benchmark of the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {given.decisions:,} decisions")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        console.fill(folder, given.decisions)
        to = folder / "log"
        export = ("export", "--ledger", str(folder / "ledger.db"), "--stage", "cart", str(to), "--continue")
        _say("whole", measured(export))
        print(f"{'':<12}{sum(path.stat().st_size for path in to.iterdir()) / 1e6:8.0f} MB on disk")
        add(folder / "ledger.db", given.new)
        _say(f"{given.new:,} new", measured(export))
        policies = ("--policy", "uniform", "--against", "none", "--force", "--json")
        _say("evaluate", measured(("evaluate", "--rounds", str(to), *policies)))
        if importlib.util.find_spec("duckdb"):
            duckdb = importlib.import_module("duckdb")  # a tool of notebooks, not a dependency
            start = time.perf_counter()
            duckdb.sql(lift().replace("cart-log", str(to))).fetchall()
            print(f"{'DuckDB':<12}{time.perf_counter() - start:8.2f} s")
        took = answered(folder, given)
    alone = np.percentile(took["alone"], [50, 99])
    for name, latencies in took.items():
        p50, p99 = np.percentile(latencies, [50, 99])
        print(f"{name:<12}p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  ratio {p50 / alone[0]:.2f} and {p99 / alone[1]:.2f}")


def _say(name: str, run: Run) -> None:
    print(f"{name:<12}{run.seconds:8.1f} s{run.processor:8.1f} s{run.megabytes:8.0f} MB")


if __name__ == "__main__":
    main()
