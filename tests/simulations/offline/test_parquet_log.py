"""Logs in files: what comes back is what was written, however it was cut, and nothing half-written has the name."""

import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from bandit.errors import InvalidRequest
from bandit.tables.decision_log import LogMetadata, LogReward, column_names
from experiments.data import files
from simulations.offline.parquet_log import LogRows, LogWriter, digest, facts, read

FACTS = LogMetadata(
    app="travel",
    stage="cart",
    arms=("none", "discount", "hold"),
    policy="linear",
    scenario="travel",
    seed=7,
    currency="EUR",
    reward=LogReward(kind="binary", min=0.0, max=1.0, value=90.0),
    floor=0.01,
)


def made(n: int, seed: int = 0, d: int = 4, *, truth: bool = True) -> LogRows:
    """A log of n rows; some rewards are not known, one is −0."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), n)
    action = rng.integers(0, 3, n)
    reward = np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 2, n).astype(float))
    reward[:1] = -0.0
    return LogRows(
        user=rng.integers(0, 2**40, n),
        at=np.arange(n, dtype=np.int64) * 10**6,
        version=rng.integers(0, 99, n),
        action=action,
        reward=reward,
        pscore=p[np.arange(n), action],
        holdout=rng.random(n) < 0.1,
        x=rng.uniform(-1, 1, (n, d)),
        p=p,
        q_hat=rng.random((n, 3)),
        truth=rng.normal(size=(n, 3)) if truth else None,
        regret=rng.random(n) if truth else None,
    )


def cut(rows: LogRows, start: int, stop: int) -> LogRows:
    return LogRows._make(None if part is None else part[start:stop] for part in rows)


def written(path: Path, rows: LogRows, cuts: list[int], size: int = 50, said: LogMetadata = FACTS) -> str:
    with LogWriter(path, said, rows.x.shape[1], truth=rows.truth is not None, rows=size) as writer:
        for start, stop in zip([0, *cuts], [*cuts, len(rows.user)], strict=True):
            writer.write(cut(rows, start, stop))
    assert writer.rows == len(rows.user)
    return writer.digest


def same(left: LogRows, right: LogRows) -> None:
    for a, b in zip(left, right, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@given(seed=st.integers(0, 999), n=st.integers(0, 300), data=st.data())
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
def test_what_is_read_was_written_and_the_digest_is_of_the_content(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, data: st.DataObject
) -> None:
    path, rows = tmp_path_factory.mktemp("log") / "log.parquet", made(n, seed, truth=seed % 2 == 0)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    said = written(path, rows, cuts, data.draw(st.integers(1, 120)))
    assert said == written(path.with_name("other.parquet"), rows, [])
    assert said == digest(path)
    assert facts(path) == FACTS
    pieces = list(read(path, 37))
    assert all(len(piece.user) <= 37 for piece in pieces)
    whole = [None if a[0] is None else np.concatenate(a) for a in zip(*pieces, strict=True)] if pieces else []
    if pieces:
        same(LogRows._make(whole), rows)
    assert sum(len(piece.user) for piece in pieces) == n


def test_any_other_content_has_another_digest(tmp_path: Path) -> None:
    rows = made(40)
    seen = {written(tmp_path / "log", rows, [])}
    for name, part in rows._asdict().items():
        other = part.copy()
        flat = other.reshape(-1)
        flat[17] = not flat[17] if name == "holdout" else (flat[17] + 1) % 3 if name == "action" else 0.123
        seen.add(written(tmp_path / "log", rows._replace(**{name: other}), []))
    assert len(seen) == 1 + len(LogRows._fields)
    twisted = rows._replace(x=rows.x[:, ::-1])
    seen.add(written(tmp_path / "log", twisted, []))
    seen.add(written(tmp_path / "log", rows, [], said=msgspec.structs.replace(FACTS, seed=8)))
    assert len(seen) == 3 + len(LogRows._fields)


def test_nan_is_nan_and_zero_is_zero_whatever_their_bits(tmp_path: Path) -> None:
    rows = made(5)
    odd = np.array([0.0, -np.nan, 1.0, 0.0, 0.0])
    odd[4] = np.array([0x7FF8_0000_0000_0001], dtype=np.uint64).view(np.float64)[0]
    plain = np.array([-0.0, np.nan, 1.0, 0.0, np.nan])
    digests = {written(tmp_path / "log", rows._replace(reward=reward), []) for reward in (odd, plain)}
    assert len(digests) == 1


def test_a_whole_number_among_the_facts_is_the_same_fact(tmp_path: Path) -> None:
    whole = msgspec.structs.replace(FACTS, reward=LogReward(kind="binary", min=0, max=1, value=90))
    assert written(tmp_path / "log", made(5), [], said=whole) == digest(tmp_path / "log")
    assert digest(tmp_path / "log") == written(tmp_path / "other", made(5), [])


def test_the_evaluation_code_reads_it(tmp_path: Path) -> None:
    path, rows = tmp_path / "log.parquet", made(500)
    written(path, rows, [123], 100)
    log = files.open_log(path)
    assert log.meta is not None
    assert (log.meta.arms, log.meta.reward.value, log.meta.seed) == (FACTS.arms, 90.0, 7)
    chunks = list(log.source()())
    np.testing.assert_array_equal(np.concatenate([c.reward for c in chunks]), rows.reward)
    np.testing.assert_array_equal(np.concatenate([c.propensities for c in chunks]), rows.p)
    np.testing.assert_array_equal(np.concatenate([c.truth for c in chunks if c.truth is not None]), rows.truth)
    np.testing.assert_array_equal(np.concatenate([c.x for c in chunks if c.x is not None]), rows.x)
    np.testing.assert_array_equal(np.concatenate([c.q_hat for c in chunks if c.q_hat is not None]), rows.q_hat)


def test_a_log_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.parquet"
    written(path, made(10), [])
    with pytest.raises(LookupError), LogWriter(path, FACTS, 4, rows=5) as writer:  # noqa: PT012
        writer.write(made(20))
        assert (tmp_path / "deep" / "log.parquet.part").exists()
        raise LookupError("in the middle")
    assert [file.name for file in path.parent.iterdir()] == ["log.parquet"]
    assert sum(len(piece.user) for piece in read(path)) == 10  # the earlier log is still there
    path.with_name("log.parquet.part").write_bytes(b"left by a run that was killed")
    written(path, made(30), [])
    assert [file.name for file in path.parent.iterdir()] == ["log.parquet"]
    assert sum(len(piece.user) for piece in read(path)) == 30


def test_what_was_written_does_not_change_with_the_arrays_of_the_caller(tmp_path: Path) -> None:
    rows = made(10)
    kept = LogRows._make(None if part is None else part.copy() for part in rows)
    with LogWriter(tmp_path / "log", FACTS, 4) as writer:
        writer.write(rows)
        for part in rows:
            if part is not None:
                part[:] = 0
    (back,) = read(tmp_path / "log")
    same(back, kept)


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("x", np.zeros((10, 3)), "x: shape (10, 3) → the log was opened for (10, 4)"),
        ("q_hat", np.zeros((10, 4)), "q_hat: shape (10, 4) → the log was opened for (10, 3)"),
        ("pscore", np.zeros(9), "pscore: shape (9,) → the log was opened for (10,)"),
        ("action", np.full(10, 40_000), "action: not whole, or beyond int16 → whole numbers"),
        ("user", np.full(10, 0.5), "user: not whole, or beyond int64 → whole numbers"),
        ("at", np.full(10, np.nan), "at: not whole, or beyond int64 → whole numbers"),
        ("truth", None, "truth, regret: there in some rows and not in others → open the log as they are"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(tmp_path: Path, field: str, value: Any, found: str) -> None:
    with LogWriter(tmp_path / "log", FACTS, 4) as writer:
        with pytest.raises(InvalidRequest) as caught:
            writer.write(made(10)._replace(**{field: value}))
        writer.write(made(10))  # and the log is as if they had never come
    assert str(caught.value) == found
    assert writer.digest == written(tmp_path / "other", made(10), [])


def test_files_that_are_no_logs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"not Parquet")
    for use in (facts, digest, lambda path: list(read(path))):
        with pytest.raises(InvalidRequest, match=r"log: .*/log: .* → give a Parquet log that the simulator wrote"):
            use(path)
    with pytest.raises(InvalidRequest, match="missing"):
        facts(tmp_path / "missing")
    table = pa.table({name: np.zeros(3) for name in column_names(2, 3)[:-2]})
    for metadata, found in (
        (None, "no `journey_bandit`"),
        ({"journey_bandit": "{"}, "metadata `journey_bandit`"),
        ({"journey_bandit": '{"app": 3}'}, "metadata `journey_bandit`"),
    ):
        parquet.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(InvalidRequest, match=found):
            facts(path)


def test_memory_is_flat_in_the_number_of_rows(tmp_path: Path) -> None:
    """What numpy and Arrow hold at most: 8·10⁵ rows take 4 MB more than the first 2·10⁵; in memory they take 200 MB."""
    rows, pool = made(20_000, d=16), pa.default_memory_pool()
    tracemalloc.start()
    with LogWriter(tmp_path / "log", FACTS, 16, rows=10_000) as writer:
        for _ in range(10):
            writer.write(rows)
        before = tracemalloc.get_traced_memory()[1] + pool.bytes_allocated()
        for _ in range(40):
            writer.write(rows)
        after = tracemalloc.get_traced_memory()[1] + pool.bytes_allocated()
    tracemalloc.stop()
    assert after - before < 4e6
