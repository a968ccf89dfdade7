"""The spool of live runs: whole or not at all, bounded, and it outlives the process."""

from pathlib import Path

from bandit import features
from bandit.belief import empty
from bandit.catalogue.loading import parse, read_shipped
from bandit.snapshot import Snapshot
from journey_bandit.registry.run_queue import MOST, QueuedRun, RunQueue

STAGE = parse(read_shipped("travel")).stages["cart"]
D = len(features.schema(STAGE.features).columns)


def snapshot(version: int) -> Snapshot:
    return Snapshot("travel", "cart", STAGE, version, empty(len(STAGE.belief_rows(STAGE.arms)), D))


def put(spool: RunQueue, at: int) -> None:
    spool.put(QueuedRun(stage="cart", at=at, until=at, why="on schedule"), snapshot(at))


def test_runs_come_out_in_order_also_for_another_process(tmp_path: Path) -> None:
    for at in (30, 10, 20):
        put(RunQueue(tmp_path), at)
    seen = []
    spool = RunQueue(tmp_path)
    while found := spool.first():
        file, waiting, kept = found
        assert kept.version == waiting.at
        seen.append(waiting.at)
        spool.done(file, "cart", kept)
    assert seen == [10, 20, 30]
    previous = spool.previous("cart")
    assert previous is not None
    assert previous.version == 30


def test_it_is_bounded_keeps_the_oldest_and_the_newest_and_counts_what_it_gives_up(tmp_path: Path) -> None:
    spool = RunQueue(tmp_path)
    for at in range(1, 201):
        put(spool, at)
        assert len(spool) <= MOST
    assert spool.dropped == 200 - len(spool)
    first = spool.first()
    assert first is not None
    assert first[1].at == 1
    assert max(int(f.name.split("-")[0]) for f in tmp_path.glob("*.run")) == 200


def test_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    spool = RunQueue(tmp_path)
    put(spool, 2)
    (tmp_path / f"{1:020d}-cart.run").write_bytes(b"half a file")
    first = spool.first()
    assert first is not None
    assert first[1].at == 2
    assert spool.dropped == 1
