"""Guard of what a decision costs: each step of the service's work, compared with the last release.

    python -m benchmarks.guard                      compare this tree with the last release
    python -m benchmarks.guard --record VERSION     write what this tree costs as that release's, when it is released

Two figures for each step, for one decision (or outcome, event, settled row, publication):

    calls   calls of functions, counted and not timed: the same on every machine, for one version of Python. More than
            a tenth more than in the last release fails: exit status 1
    CPU     processor time in units of a fixed piece of work (small calls, JSON, hashes, SQLite, small arrays) that runs
            between the steps: medians over rounds. It travels better than a time, and not well enough to fail by:
            beyond 1.25 times the last release there is a warning

The steps are those of `benchmarks.load.http`, without HTTP: the travel app, its default policy in numpy alone, a ledger
in a temporary folder with synchronous=FULL, a driven clock. `benchmarks/released.json` is what the last release cost.
"""

import argparse
import gc
import hashlib
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from time import thread_time
from types import FrameType

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import msgspec
import numpy as np

from api import clocks
from api.components import SharedResources, build
from api.decisions.maker import PendingDecision
from api.messages.decisions import DecisionRequest
from api.metrics import Metrics
from api.settings import Settings
from api.stores import open_store
from api.stores.decision_log import RecordedDecision
from bandit.catalogue.loading import parse, read_shipped
from bandit.journey import folding
from bandit.records import Decision, Event, Outcome

RELEASED = Path(__file__).with_name("released.json")
STAGE, BATCH, ROWS = "cart", 16, 128  # rows of a commit, and of a round: as many settle in a step
_CONTEXT = {"price": 420, "days_to_departure": 12, "searches_24h": 4, "minutes_idle": 35}
_MORE_CALLS, _MORE_CPU = 1.1, 1.25
_SALT = "00" * 16


class StepCost(msgspec.Struct, frozen=True):
    """Cost of one step: calls of functions, and processor time in units of the reference work."""

    calls: float
    cpu: float


class RecordedRelease(msgspec.Struct, frozen=True):
    """Release as it was recorded: its version, the version of Python that ran it ("3.11"), and its costs by step."""

    version: str
    python: str
    steps: dict[str, StepCost]


Step = tuple[str, int, Callable[[], object]]
"""Step of a round: its name, for how many items it is, and what does it."""


class Workbench:
    """Service without HTTP and without threads, whose steps one thread does one after the other. The same rounds do the
    same in each process: ids, people, salt and times are given.
    """

    def __init__(self, folder: Path):
        settings = Settings(app="travel", store=f"sqlite:///{folder}/guard.db", dev=True, clock="driven", salt=_SALT)
        self.clock = clocks.DrivenClock()
        self.store = open_store(settings.store)
        self.catalogue = parse(read_shipped("travel"), "travel")
        parts = build(SharedResources(settings, self.store, self.clock, Metrics()), self.catalogue, {})
        self.service, self.learner = parts.service, parts.worker.learning
        self.rules = folding.rules(self.catalogue)
        self.decoder = msgspec.json.Decoder(DecisionRequest)
        self._round = 0

    def round(self) -> list[Step]:
        """Steps of the next round, in the order in which they are to be done."""
        self._round += 1
        self.clock.advance(60_000_000)
        return Round(self, self._round).steps()

    def close(self) -> None:
        """Close the ledger."""
        self.learner.close()
        self.store.close()


class Round:
    """Round of a workbench, with ids and people of its own."""

    def __init__(self, bench: Workbench, number: int):
        self._bench, self._number, self._now = bench, number, bench.clock()
        self._specs = bench.store.specs()
        self._pending, self._made = list[PendingDecision](), list[RecordedDecision]()
        self._bodies = [self._body(i) for i in range(ROWS)]

    def steps(self) -> list[Step]:
        """Steps in the order in which they are to be done."""
        return [
            ("decide", ROWS, self.decide),
            ("commit a decision", ROWS, self.commit),
            ("reply", ROWS, self.reply),
            ("commit an outcome", ROWS // 4, self.report),
            ("commit an event", ROWS, self.ingest),
            ("settle", ROWS, self.settle),
            ("publish", 1, self.publish),
        ]

    def decide(self) -> None:
        """Decode the requests, and make their decisions."""
        prepare, read = self._bench.service.maker.prepare, self._bench.decoder.decode
        self._pending = [prepare(read(raw), self._now) for raw in self._bodies]

    def commit(self) -> None:
        """Write the decisions, some in each transaction, and tell the learner."""
        for start in range(0, ROWS, BATCH):
            some = [one.decision for one in self._pending[start : start + BATCH]]
            kept, noted = self._bench.store.record(some, [], self._now, self._specs)
            self._bench.learner.observe(kept, noted)
            self._made += kept

    def reply(self) -> None:
        """Keep what was reserved, and encode the replies."""
        service = self._bench.service
        for pending, kept in zip(self._pending, self._made, strict=True):
            service.maker.commit(pending)
            msgspec.json.encode(service.reply(kept.decision, duplicate=kept.duplicate))

    def report(self) -> None:
        """Write a reward of every fourth decision, and tell the learner."""
        for start in range(0, ROWS // 4, BATCH):
            told = [self._outcome(one.decision) for one in self._pending[start : start + BATCH]]
            self._bench.learner.observe(*self._bench.store.record([], told, self._now, self._specs))

    def ingest(self) -> None:
        """Write events of people who have others, and move their journeys on."""
        for start in range(0, ROWS, BATCH):
            events = [self._event(i) for i in range(start, start + BATCH)]
            done = self._bench.store.ingest(events, self._now, self._specs, self._bench.rules)
            self._bench.service.maker.apply(done)

    def settle(self) -> None:
        """Settle the round's decisions in one step. Raises RuntimeError if it does not settle all of them."""
        window = self._bench.catalogue.stages[STAGE].reward.seconds
        if self._bench.learner.step(self._bench.clock.advance(round(window * 1e6) + 1), ROWS) != ROWS:
            raise RuntimeError("not all of the round's decisions settled: the figures compare nothing")

    def publish(self) -> None:
        """Compute the policies anew."""
        self._bench.learner.publish(self._bench.clock(), force=True)

    def _id(self, what: str, i: int) -> bytes:
        return hashlib.blake2b(f"{what} {self._number} {i}".encode(), digest_size=16).digest()

    def _body(self, i: int) -> bytes:
        one = uuid.UUID(bytes=self._id("decision", i), version=4)
        asked = {"stage": STAGE, "user_id": f"u{self._number}-{i}", "decision_id": str(one), "context": _CONTEXT}
        return msgspec.json.encode(asked)

    def _outcome(self, decision: Decision) -> Outcome:
        return Outcome(
            decision=decision.id, id="reward", kind="reward", value=1.0, occurred=self._now, received=self._now
        )

    def _event(self, i: int) -> Event:
        user = hashlib.blake2b(f"person {i}".encode(), digest_size=16).digest()
        one, route = self._id("event", i).hex(), f"r{i}"
        return Event(id=one, user=user, at=self._now, received=self._now, name="searched", properties={"route": route})


def reference() -> None:
    """Work of a fixed kind and amount, about a millisecond: what the service does much of, and nothing of ours."""
    table, total = dict[str, float](), 0.0
    for i in range(600):
        table[f"k{i % 50}"] = _added(total, float(i))
        total = table[f"k{i % 50}"]
    for _ in range(40):
        hashlib.blake2b(json.dumps(table).encode(), digest_size=16).digest()
    matrix, x = np.eye(16), np.ones(16)
    for _ in range(100):
        x = np.minimum(matrix @ x, 2.0)
    with sqlite3.connect(":memory:") as conn:
        conn.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
        conn.executemany("INSERT INTO t VALUES (?, ?)", ((i, b"x" * 100) for i in range(100)))
    conn.close()


def _added(one: float, other: float) -> float:
    return one + other


def counted(work: Callable[[], object]) -> int:
    """Calls of functions in this thread while `work` is done, those of C included. Nothing is collected meanwhile: who
    wants to be told of that would be counted too.
    """
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.disable()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def calls(bench: Workbench) -> dict[str, float]:
    """Calls of functions for one item of each step, in the third round: the first ones fill caches."""
    for _ in range(2):
        for _, _, work in bench.round():
            work()
    return {name: counted(work) / items for name, items, work in bench.round()}


def cpu(bench: Workbench, rounds: int) -> dict[str, float]:
    """Processor time for one item of each step, in units of the reference work: medians over rounds."""
    found, units = dict[str, list[float]](), list[float]()
    for _ in range(rounds):
        for name, items, work in bench.round():
            gc.collect()
            units.append(_seconds(reference))
            found.setdefault(name, []).append(_seconds(work) / items)
    unit = statistics.median(units)
    return {name: statistics.median(times) / unit for name, times in found.items()}


def _seconds(work: Callable[[], object]) -> float:
    start = thread_time()
    work()
    return thread_time() - start


def measured(rounds: int) -> dict[str, StepCost]:
    """Costs of all steps, in a ledger of its own in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(Path(folder))
        try:
            number = calls(bench)
            time = cpu(bench, rounds) if rounds else dict.fromkeys(number, 0.0)
        finally:
            bench.close()
    return {name: StepCost(number[name], time[name]) for name in number}


def released(file: Path = RELEASED) -> RecordedRelease:
    """The last release as it was recorded."""
    return msgspec.json.decode(file.read_bytes(), type=RecordedRelease)


def python() -> str:
    """Version of Python whose calls are counted alike."""
    return ".".join(platform.python_version_tuple()[:2])


def grown(found: dict[str, StepCost], last: RecordedRelease) -> list[str]:
    """Steps that take more than a tenth more calls than in the last release, in words. Nothing is said where another
    Python counted.
    """
    if last.python != python():
        return []
    return [
        f"{name}: {now.calls:.0f} calls, {last.steps[name].calls:.0f} in {last.version}"
        for name, now in found.items()
        if name in last.steps and now.calls > _MORE_CALLS * last.steps[name].calls
    ]


def slower(found: dict[str, StepCost], last: RecordedRelease) -> list[str]:
    """Steps that took more than a quarter more processor time than in the last release, in words."""
    return [
        f"{name}: {now.cpu / last.steps[name].cpu:.2f} times the processor time of {last.version}"
        for name, now in found.items()
        if name in last.steps and last.steps[name].cpu and now.cpu > _MORE_CPU * last.steps[name].cpu
    ]


def lines(found: dict[str, StepCost], last: RecordedRelease) -> list[str]:
    """Lines of the table."""
    head = f"{'':<20}{'calls':>9}{'× ' + last.version:>9}{'CPU':>9}{'× ' + last.version:>9}"
    if last.python != python():
        head += f"   (calls were counted by Python {last.python}, and these by {python()})"
    table = [head]
    for name, now in found.items():
        before = last.steps.get(name)
        calls_ratio = f"{now.calls / before.calls:.2f}" if before else "new"
        cpu_ratio = f"{now.cpu / before.cpu:.2f}" if before and before.cpu else "new"
        table.append(f"{name:<20}{now.calls:>9.0f}{calls_ratio:>9}{now.cpu:>9.3f}{cpu_ratio:>9}")
    return table


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, measure, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", metavar="VERSION", help="write what this tree costs as this release's")
    options = parser.parse_args(given)
    found = measured(options.rounds)
    if options.record:
        kept = RecordedRelease(options.record, python(), found)
        RELEASED.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    last = released()
    print("\n".join(lines(found, last)))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    warn = "::warning::" if os.environ.get("GITHUB_ACTIONS") else "warning: "
    for one in slower(found, last):
        print(f"{warn}{one} (no failure: a busy machine may say so)")
    more = grown(found, last)
    for one in more:
        print(f"more work than in the last release: {one}")
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
