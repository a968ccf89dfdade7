"""Settling: processor time of the learner's step for each row that it settles, by what it is spent on, and of one
publication.

    python -m benchmarks.settling [--sizes 16 64 128 256] [--rounds 15] [--store memory: | sqlite | postgresql://…]
    python -m benchmarks.settling --json FILE           also write the figures, to compare another tree with
    python -m benchmarks.settling --against FILE        print the ratio to the figures of that file as well
    python -m benchmarks.settling --quick               some seconds: does it run?

A service without HTTP and without threads: the travel app with one nudge more (six arms, 16 columns), its default
policy and loss account, SQLite with synchronous=FULL in a temporary folder, a driven clock. In each round the engine
makes decisions for people most of whom were here before, every fourth is rewarded, and one step settles all of them;
then the policies are published. Before anything is measured so many rows have settled that sites are matched at once.
Sizes take turns within a round. Figures are medians over rounds of processor time of the one thread that works.

    look        taking decisions and rewards, once they are committed, into the tables of open decisions and exposures
    due         finding what is due (`Store.matured`)
    sites       final rewards and sites of the rows (`settle`)
    watch       the watch over those who report rewards
    columns     rows as columns, without what their persons did before
    past        what their persons did before
    fold        sums, drift, delays
    update      what the ledger has to replace, exposures included
    write       `Store.settle`: rows, statistics, the commit
    snapshots   snapshots of what has settled
    drop        forgetting open decisions
    rest        everything else
"""

import argparse
import contextlib
import gc
import json
import os
import statistics
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from time import thread_time
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import numpy as np

from api import clocks
from api.components import SharedResources, build
from api.learning import learner
from api.learning.learner import Learner
from api.ledger import nudges
from api.messages.decisions import DecisionRequest
from api.metrics import Metrics
from api.settings import Settings
from api.stores import open_store
from api.stores.protocol import Store
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue
from bandit.learning.pending import OpenDecisionTable
from bandit.learning.statistics import StageStatistics
from bandit.records import Decision, Outcome

STAGE = "cart"
_ANOTHER = """
[stages.cart.nudges.seat]
type = "reminder"
format = "push"
cost = 0.2
payload = { title = "Seats" }
"""
_PEOPLE, _COMMIT = 2000, 16  # people, and rows of a commit
_KNOWN = 2560  # rows that have settled before anything is measured
_PARTS = (
    ("due", "_store", "matured"),
    ("write", "_store", "settle"),
    ("snapshots", Learner, "_pooled"),
    ("update", Learner, "_with_exposures"),
    ("update", learner, "update_of"),
    ("sites", learner, "settle"),
    ("watch", learner, "watched"),
    ("columns", learner, "settled_rows"),
    ("past", nudges, "_past"),
    ("fold", StageStatistics, "fold"),
    ("drop", OpenDecisionTable, "drop"),
)
PARTS = ("look", *dict.fromkeys(name for name, _, _ in _PARTS))


class PartTimes:
    """Processor time of parts of the work, each without the parts within it. `spent`: seconds by part."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(PARTS, 0.0)
        self._within = [0.0]  # seconds of parts that ended, by depth

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, whose time is counted."""

        def counted(*args: Any, **named: Any) -> Any:
            self._within.append(0.0)
            start = thread_time()
            try:
                return work(*args, **named)
            finally:
                took = thread_time() - start
                self.spent[part] += took - self._within.pop()
                self._within[-1] += took

        return counted

    @contextlib.contextmanager
    def counting(self, store: Store) -> Iterator[None]:
        """Context in which the parts of a step on this store are counted."""
        with contextlib.ExitStack() as back:
            for part, where, name in _PARTS:
                owner: Any = store if where == "_store" else where
                mine = name in vars(owner)
                before = getattr(owner, name)
                setattr(owner, name, self.timed(part, before))
                back.callback(setattr, owner, name, before) if mine else back.callback(delattr, owner, name)
            yield


class SettlingService:
    """Service without HTTP and without threads, which makes rounds of decisions and settles them."""

    def __init__(self, where: str):
        settings = Settings(app="travel", store=where, dev=True, clock="driven", salt="00" * 16)
        self.clock, self.store, catalogue = clocks.DrivenClock(), open_store(settings.store), app()
        self._half = round(catalogue.stages[STAGE].reward.seconds * 1e6) // 2 + 1  # µs of a window
        parts = build(SharedResources(settings, self.store, self.clock, Metrics()), catalogue, {})
        self._maker, self.learner = parts.service.maker, parts.worker.learning
        self._rng = np.random.default_rng(1)

    def close(self) -> None:
        """Close the ledger."""
        self.learner.close()
        self.store.close()

    def decide(self, rows: int) -> None:
        """Make so many decisions with what was published last, report a reward of every fourth, and let half of their
        windows pass.
        """
        self.clock.advance(60_000_000)
        specs, now = self.store.specs(), self.clock()
        for start in range(0, rows, _COMMIT):
            made = [self._decision(now) for _ in range(min(_COMMIT, rows - start))]
            self.learner.observe(*self.store.record(made, [], now, specs))
            told = [_rewarded(one, now + 1000) for one in made[::4]]
            self.learner.observe(*self.store.record([], told, now + 1000, specs))
        self.clock.advance(self._half)

    def step(self, rows: int) -> float:
        """Let the windows end, and settle the round's decisions in one step: seconds of processor. RuntimeError if not
        all of them settle.
        """
        self.clock.advance(self._half)
        gc.collect()
        now, start = self.clock(), thread_time()
        found = self.learner.step(now, rows)
        took = thread_time() - start
        if found != rows:
            raise RuntimeError(f"{found} of {rows} decisions settled: the figures compare nothing")
        return took

    def look(self) -> float:
        """Take in what was committed: seconds of processor."""
        gc.collect()
        start = thread_time()
        self.learner._look()
        return thread_time() - start

    def publish(self) -> float:
        """Publish what is known: seconds of processor."""
        gc.collect()
        start = thread_time()
        self.learner.publish(self.clock(), force=True)
        return thread_time() - start

    def _decision(self, now: int) -> Decision:
        rng = self._rng
        context: dict[str, Any] = {
            "price": int(rng.integers(40, 2500)),
            "days_to_departure": int(rng.integers(0, 200)),
            "searches_24h": int(rng.integers(0, 20)),
            "minutes_idle": int(rng.integers(10, 4000)),
            "returning": bool(rng.integers(2)),
            "device": ("mobile", "desktop", "tablet", "other")[int(rng.integers(4))],
        }
        one = uuid.UUID(bytes=rng.bytes(16), version=4)
        asked = DecisionRequest(stage=STAGE, user_id=f"u{rng.integers(_PEOPLE)}", decision_id=one, context=context)
        pending = self._maker.prepare(asked, now)
        self._maker.commit(pending)
        return pending.decision


def app() -> Catalogue:
    """Catalogue of the travel app with a sixth arm at its stage."""
    return parse(read_shipped("travel").replace("\n[stages.checkout]\n", _ANOTHER + "\n[stages.checkout]\n"), "travel")


def _rewarded(decision: Decision, at: int) -> Outcome:
    return Outcome(decision=decision.id, id="reward", kind="reward", value=1.0, occurred=at, received=at)


def measured(service: SettlingService, sizes: list[int], rounds: int, known: int) -> dict[str, Any]:
    """Figures: "rows", by size, µs of a row whole and by part; "publish", ms of one publication; "known", rows that
    had settled before.
    """
    for _ in range(known // 256):
        service.decide(256)
        service.publish()
        service.step(256)
    whole: dict[int, list[float]] = {size: [] for size in sizes}
    parts: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    published = list[float]()
    for _ in range(rounds):
        for size in sizes:
            looked, times = list[float](), PartTimes()
            for counting in (contextlib.nullcontext(), times.counting(service.store)):
                service.decide(size)
                looked.append(service.look())
                published.append(service.publish())
                with counting:
                    took = service.step(size)
                whole[size].append(took + looked[-1])
            times.spent["look"] = looked[-1]
            parts[size].append({**times.spent, "rest": looked[-1] + took - sum(times.spent.values())})
    rows = {
        str(size): {
            "whole": 1e6 * statistics.median(whole[size]) / size,
            **{name: 1e6 * statistics.median(one[name] for one in parts[size]) / size for name in (*PARTS, "rest")},
        }
        for size in sizes
    }
    return {"rows": rows, "publish": 1e3 * statistics.median(published), "known": known}


def lines(found: dict[str, Any], before: dict[str, Any] | None = None) -> Iterator[str]:
    """Lines of the table: µs of a row, and in brackets how many times those `before`."""
    sizes = list(found["rows"])
    yield f"{'µs a row, in steps of':<22}" + "".join(f"{size:>16}" for size in sizes)
    for name in ("whole", *PARTS, "rest"):
        line = f"{name:<22}"
        for size in sizes:
            now, then = found["rows"][size][name], (before or {"rows": {}})["rows"].get(size, {}).get(name)
            line += f"{f'{now:.1f} (× {now / then:.2f})' if then else f'{now:.1f}':>16}"
        yield line
    ratio = f" (× {found['publish'] / before['publish']:.2f})" if before else ""
    yield f"one publication: {found['publish']:.2f} ms{ratio}"


def main() -> None:
    """Parse the arguments, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--store", default="sqlite", help="sqlite: a file in a temporary folder")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--against", type=Path, help="figures of another tree, as --json wrote them")
    parser.add_argument("--quick", action="store_true", help="three rounds, and fewer rows before: does it run?")
    options = parser.parse_args()
    rounds, known = (3, 256) if options.quick else (options.rounds, _KNOWN)
    with tempfile.TemporaryDirectory() as folder:
        service = SettlingService(f"sqlite:///{folder}/settling.db" if options.store == "sqlite" else options.store)
        try:
            found = measured(service, options.sizes, rounds, known)
        finally:
            service.close()
    before = json.loads(options.against.read_text()) if options.against else None
    print("\n".join(lines(found, before)))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
