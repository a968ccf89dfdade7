"""Evaluation on workers: the digest of the plain loop, in any partitioning, also where a worker is killed."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from bandit.arrays import Array
from bandit.errors import InvalidRequest, RemoteError
from experiments.data import files
from experiments.data.rounds import PART, LoggedRounds
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, UniformChoice
from journey_bandit.evaluation import workers
from journey_bandit.main import group

BATCH, ROWS = 30, 700  # three parts, the last one shorter
ASK = EvaluationConfig(
    (EvaluationPolicy("uniform", UniformChoice()),), (EvaluationPolicy("none", FixedArm(0)),), force=True
)
Probabilities = Callable[[LoggedRounds], Array]


def table(*, users: bool, q_hat: bool, known: int = ROWS) -> Any:
    """A log of three arms, whose rewards are amounts in [0, 1], known for the first rows."""
    rng = np.random.default_rng(17)
    p, x = 0.7 * rng.dirichlet(np.ones(3), ROWS) + 0.1, rng.normal(size=(ROWS, 2))
    action = (rng.random((ROWS, 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, 2)
    reward = np.where(np.arange(ROWS) < known, rng.beta(1.0 + action, 3.0), np.nan)
    reward[known + 1 :] = 0.5  # later ones are known again
    columns = {"action": action, "reward": reward, "pscore": p[np.arange(ROWS), action]}
    columns |= {f"p_{a}": p[:, a] for a in range(3)} | {f"x_{i}": x[:, i] for i in range(2)}
    columns |= {f"q_hat_{a}": rng.random(ROWS) for a in range(3)} if q_hat else {}
    return pa.table(columns | ({"user": rng.integers(0, 900, ROWS)} if users else {}))


def folder(where: Path, rows: Any, partitions: int) -> Path:
    where.mkdir()
    edges = np.linspace(0, ROWS, partitions + 1).astype(int).tolist()
    for i, (start, end) in enumerate(pairwise(edges)):
        parquet.write_table(rows.slice(start, end - start), where / f"part-{i}.parquet", row_group_size=333)
    return where


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Two Dask workers, each a process, on this machine."""
    start: Any = distributed.LocalCluster
    with start(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH", BATCH)


def digest(path: Path, ask: EvaluationConfig = ASK, address: str | None = None) -> str:
    log = files.open_log(path)
    assert log.parts == -(-ROWS // (BATCH * PART)) >= 3
    found = core.evaluate(log.sources(), ask, run=workers.on("dask" if address else "serial", 1, address))
    report = core.report(found, ask)
    assert report["estimates"]
    return str(report["digest"])


@pytest.mark.parametrize(
    ("users", "q_hat", "known", "counts"),
    [(True, True, ROWS, (1, 3, 7)), (False, False, 470, (3,))],
    ids=["users", "rounds, fitted, with an end"],
)
def test_a_cluster_gives_the_digest_of_the_plain_loop_in_any_partitioning(
    scheduler: str, tmp_path: Path, users: bool, q_hat: bool, known: int, counts: tuple[int, ...]
) -> None:
    """Also of a log whose model of rewards is fitted, and which goes on after the first unknown reward: what comes
    later has no part in the model, whichever worker reads it.
    """
    rows = table(users=users, q_hat=q_hat, known=known)
    parquet.write_table(rows, tmp_path / "one.parquet")
    serial = digest(tmp_path / "one.parquet")
    log = files.open_log(tmp_path / "one.parquet")
    whole = core.report(core.evaluate([log.source()], ASK), ASK)
    assert whole["digest"] == serial, "parts are those of a log that is one source"
    assert whole["n"] == known
    for partitions in counts:
        parts = folder(tmp_path / f"{partitions}", rows, partitions)
        assert digest(parts, address=scheduler) == serial, partitions


def killing(mark: Path) -> Probabilities:
    """A policy under which the first worker that is in the middle of the second part is killed. Nested: pickled by
    value.
    """

    def uniform_once_killed(rounds: LoggedRounds) -> Array:
        import os
        import signal

        import numpy as np

        if rounds.at is not None and rounds.at[0] == 450 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        assert rounds.propensities is not None
        return np.full(rounds.propensities.shape, 1.0 / 3.0)

    return uniform_once_killed


def test_a_worker_that_is_killed_changes_no_bit(scheduler: str, tmp_path: Path) -> None:
    rows = table(users=True, q_hat=True).append_column("at", pa.array(np.arange(ROWS)))
    parts, mark, spared = folder(tmp_path / "log", rows, 3), tmp_path / "mark", tmp_path / "spared"
    spared.touch()
    killed = digest(parts, ASK._replace(targets=(EvaluationPolicy("u", killing(mark)),)), scheduler)
    assert mark.exists()
    assert killed == digest(parts, ASK._replace(targets=(EvaluationPolicy("u", killing(spared)),)))


def test_a_part_that_only_a_worker_finds_torn_is_named(scheduler: str, tmp_path: Path) -> None:
    parts = folder(tmp_path / "log", table(users=True, q_hat=True), 3)
    log = files.open_log(parts)
    (parts / "part-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidRequest, match=r"part-1.parquet: its Parquet data are cut short or damaged"):
        core.evaluate(log.sources(), ASK, run=workers.on("dask", 1, scheduler))


def test_a_worker_of_other_code_is_refused(scheduler: str, tmp_path: Path) -> None:
    """What it would compute is another number: its versions are named beside those here."""

    def pretend(version: str | None) -> None:
        from simulations.offline import parallel

        real = parallel.code.__wrapped__
        parallel.code.cache_clear()
        if version:
            parallel.importlib.metadata.version = lambda _: version  # type: ignore[attr-defined]
        else:
            import importlib

            importlib.reload(importlib.metadata)
        assert real()

    parts = folder(tmp_path / "log", table(users=True, q_hat=True), 1)
    with distributed.Client(scheduler) as client:  # type: ignore[no-untyped-call]
        client.run(pretend, "0.1")
        with pytest.raises(RemoteError, match=r"a Dask worker runs other code.*: numpy 0\.1, here .*, scipy"):
            digest(parts, address=scheduler)
        client.run(pretend, None)
    digest(parts, address=scheduler)


def test_a_scheduler_that_does_not_answer_or_has_no_workers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = folder(tmp_path / "log", table(users=True, q_hat=True), 1)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(RemoteError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"),
    ):
        digest(parts, address="tcp://127.0.0.1:9")
    monkeypatch.setattr("simulations.offline.parallel._ANSWER", 0.2)
    start: Any = distributed.LocalCluster
    with start(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with pytest.raises(RemoteError, match=f"the Dask scheduler at {address} has no workers"):
            digest(parts, address=address)


def test_the_command_prints_the_same_with_a_cluster(scheduler: str, tmp_path: Path) -> None:
    parts = folder(tmp_path / "log", table(users=True, q_hat=True), 7)
    asked = ["evaluate", "--rounds", str(parts), "--policy", "fixed:1", "--against", "none"]
    there = ["--backend", "dask", "--address", scheduler]
    for form in (["--json"], []):
        plain, spread = (CliRunner().invoke(group, [*asked, *form, *more]) for more in ([], there))
        assert (plain.exit_code, spread.exit_code) == (0, 0), plain.output + spread.output
        assert plain.output == spread.output
    assert f"digest {json.loads(CliRunner().invoke(group, [*asked, '--json']).stdout)['digest']}" in plain.output
