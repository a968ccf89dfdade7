"""The benchmark of harm: its figures by hand, its intervals, and that an interrupted one goes on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.evidence import harm
from simulations.offline.paired import BASELINE, PairedRuns

ROOT = Path(__file__).parents[3]
PATIENCE = 120.0


def test_the_figures_of_a_row() -> None:
    """Four runs of 10 people: +2, −0.5, −1 and −3 % of 100; three lose no more than 2 %."""
    runs = PairedRuns("p", (0, 1, 2, 3), 10, np.array([102.0, 99.5, 99.0, 97.0]), np.full(4, 100.0))
    row = harm.row(runs)
    assert row["per_user"]["mean"] == pytest.approx(-0.0625)
    assert row["percent"]["mean"] == pytest.approx(-0.625)
    assert row["percent"]["se"] == pytest.approx(np.std([2.0, -0.5, -1.0, -3.0], ddof=1) / 2.0)
    assert row["percent"]["interval"][0] == pytest.approx(-0.625 - 3.182446 * row["percent"]["se"], rel=1e-6)
    assert row["kept"]["share"] == 0.75
    assert row["loss_p95"] == pytest.approx(np.quantile([-1.0, 0.25, 0.5, 1.5], 0.95))  # of the declared 2 %
    assert row["no_nudge_per_user"] == 10.0


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (3, 12), (11, 12), (12, 12)])
def test_clopper_pearson_leaves_a_fortieth_at_each_end(successes: int, n: int) -> None:
    low, high = harm.clopper_pearson(successes, n)
    assert (low == 0.0) if successes == 0 else stats.binom.sf(successes - 1, n, low) == pytest.approx(0.025)
    assert (high == 1.0) if successes == n else stats.binom.cdf(successes, n, high) == pytest.approx(0.025)


def test_no_nudge_is_always_run_with_the_same_seeds() -> None:
    (group,) = harm.groups(["travel"], ["x0"], [300], ["default"], [5, 6])
    assert [(cell.policy, cell.seed) for cell in group.cells] == [
        (BASELINE, 5), (BASELINE, 6), ("default", 5), ("default", 6),
    ]  # fmt: skip
    assert {cell.holdout for cell in group.cells} == {0.0}
    assert {cell.days for cell in group.cells} == {30}


def test_an_interrupted_benchmark_goes_on_and_its_table_says_what_json_says(tmp_path: Path) -> None:
    words = ["--apps", "travel", "--users", "60", "--worlds", "all-0.4", "--policies", "uniform", "--seeds", "2"]
    command = [sys.executable, "-m", "benchmarks.evidence.harm", *words, "--workers", "1", "--folder", str(tmp_path)]

    def ran(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    answer = json.loads(ran("--json"))
    (row,) = answer["rows"]
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    assert len(kept) == 4
    table = ran()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")} == kept
    assert row["percent"]["mean"] < 0.0
    assert row["seeds"] == [100, 101]
    for part in ("every effect −0.4 logit: 60 users", f"{row['percent']['mean']:+.1f} [", "kept", "load: "):
        assert part in table
