"""Speed of evaluation: how fast a log is evaluated, in how much memory, and against obp's estimators on the same rows.

    python -m benchmarks.evidence.evaluate [--rows 10_000_000] [--workers 2] [--backend dask] [--obp PYTHON] [--json]

`digests` says whether the workers gave what one process gave.

The log is invented: 6 arms, random propensities ≥ 0.01, evaluation policies and q̂, a third as many users as rows; a
Parquet file, read again for each figure. `--obp` names the interpreter of an environment with obp (see
`benchmarks/evidence/obp_times.py`); without one the comparison is left out, and the output says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from bandit.arrays import Array
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.ope import evaluate
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy

K, GROUP, SHARED = 6, 500_000, 1_000_000
COMMAND = [sys.executable, "-m", "journey_bandit", "evaluate", "--json"]


def write(path: Path, rows: int) -> None:
    """Write an invented log of so many rows to `path`, a Parquet file in row groups of GROUP rows."""
    rng, writer = np.random.default_rng(0), None
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        table = pa.table(_columns(rng, n, rows))
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def _columns(rng: np.random.Generator, n: int, rows: int) -> dict[str, Any]:
    p, pi = 0.94 * rng.dirichlet(np.ones(K), n) + 0.01, rng.dirichlet(np.ones(K), n)
    q = 0.2 * rng.random((n, K))
    action = (rng.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, K - 1)
    each = np.arange(n), action
    wide = {f"{name}_{a}": part[:, a] for name, part in (("p", p), ("pi_e", pi), ("q_hat", q)) for a in range(K)}
    reward = (rng.random(n) < q[each]).astype(float)
    return {
        "user": rng.integers(0, max(rows // 3, 1), n),
        "action": action,
        "reward": reward,
        "pscore": p[each],
        **wide,
    }


def timed(path: Path, *options: str) -> tuple[float, float, float, str]:
    """Time of the command from start to end: seconds, seconds of processor time, and peak memory in MB of the first
    process; and the digest of its result.
    """
    started = perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([*COMMAND, "--rounds", str(path), *options], stdout=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"evaluate ended with {child.returncode}")
        seconds = perf_counter() - started
        said.seek(0)
        digest = json.loads(said.read())["digest"]
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, digest


def compared(path: Path, python: str) -> dict[str, Any]:
    """Seconds for the values of obp's seven estimators, and for ours with their intervals, on the same arrays. `python`
    is obp's interpreter.
    """
    rounds = _whole(parquet.read_table(path))
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        pi, q_hat = _known(rounds.target), _known(rounds.q_hat)
        np.savez(arrays, reward=rounds.reward, action=rounds.action, pscore=rounds.pscore, pi=pi, q_hat=q_hat)
        script = Path(__file__).with_name("obp_times.py")
        command = [python, "-I", "-W", "ignore", str(script), str(arrays)]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    theirs = json.loads(said.stdout.splitlines()[-1])
    started = perf_counter()
    (ours,) = evaluate.evaluate(
        [chunked(rounds)], EvaluationConfig((EvaluationPolicy("log"),), rewards=RewardRange(0.0, 1.0), follow=False)
    )
    mine = perf_counter() - started
    apart = max(abs(ours.estimates[name].value - value) for name, (value, _) in theirs.items())
    seconds = sum(s for _, s in theirs.values())
    return {"rows": len(rounds.reward), "ours": mine, "obp": seconds, "ratio": seconds / mine, "largest_gap": apart}


def _whole(table: Any) -> LoggedRounds:
    short = {name: table[name].to_numpy() for name in ("action", "reward", "pscore")}
    wide = {"propensities": "p", "target": "pi_e", "q_hat": "q_hat"}
    found = {f: np.column_stack([table[f"{name}_{a}"].to_numpy() for a in range(K)]) for f, name in wide.items()}
    return LoggedRounds(**short, **found)


def _known(part: Array | None) -> Array:
    assert part is not None  # noqa: S101 - `_whole` read it
    return part


def main() -> None:
    """Parse the arguments, write the log, measure, and print the figures as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", default="processes", choices=("processes", "dask"))
    parser.add_argument("--obp", metavar="PYTHON")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large.parquet", Path(folder) / "small.parquet"
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # a child's peak begins at its parent's size
            other.submit(write, large, given.rows).result()
            other.submit(write, small, min(given.rows, SHARED)).result()
        found: dict[str, Any] = {"rows": given.rows, "workers": given.workers, "backend": given.backend}
        found["seconds"], *_, spread = timed(large, "--workers", str(given.workers), "--backend", given.backend)
        names, digests = ("seconds", "cpu", "peak_mb"), []
        for name, options in (("with sequences", ()), ("without", ("--no-sequence",))):
            *figures, digest = timed(large, *options)
            found[f"one worker, {name}"] = dict(zip(names, figures, strict=True))
            digests.append(digest)
        found["digests"] = "the same" if spread == digests[0] else "NOT THE SAME"
        found["peak_mb of 1e6 rows"] = timed(small)[2]
        found["load"] = os.getloadavg()[0]
        found["obp"] = compared(small, given.obp) if given.obp else "left out: no --obp PYTHON was given"
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
