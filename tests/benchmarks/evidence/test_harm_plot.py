"""The plot of gains by month: its figures against those of whole runs, and the same file from the same figures."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence import harm_plot
from benchmarks.evidence.harm_plot import POLICY, MonthlyGain
from simulations import scenario
from simulations.offline import study
from simulations.offline.paired import BASELINE, paired


def test_months_add_up_to_the_run(tmp_path: Path) -> None:
    (found,) = harm_plot.gains(["travel"], [120], 2, [5, 6], tmp_path, workers=1)
    cells = study.cells(scenario.load("travel"), (BASELINE, POLICY), [5, 6], users=240, days=60)
    (whole,) = (runs for runs in paired(study.study(cells, tmp_path)) if runs.policy == POLICY)
    assert found.gain.shape == (2, 2)
    assert np.abs(found.gain).max() > 0.0
    np.testing.assert_allclose(found.gain.sum(axis=0) / 2, whole.per_user, atol=1e-12)


def test_the_spread_is_over_seeds() -> None:
    one = MonthlyGain("travel", 100, np.array([[1.0, 3.0], [2.5, 1.5]]), np.array([[9.0, 9.0], [40.0, 30.0]]))
    assert one.mean.tolist() == [2.0, 2.0]
    assert one.error == pytest.approx([1.0, 0.5])
    line = "travel           100 a month   +2.00 ± 1.00  +2.00 ± 0.50   no nudge 35.0, worst +1.50 (+5.0 %)"
    assert list(harm_plot.lines([one])) == [line]
    assert MonthlyGain("travel", 100, np.array([[1.0]]), np.ones((1, 1))).error.tolist() == [0.0]


def test_the_same_figures_give_the_same_file(tmp_path: Path) -> None:
    gains = [
        MonthlyGain("travel", 100, np.array([[1.0, 3.0], [2.0, 2.0]]), np.ones((2, 2))),
        MonthlyGain("gaming", 100, np.ones((2, 2)), np.ones((2, 2))),
    ]
    for name in ("a.svg", "b.svg"):
        harm_plot.draw(gains, tmp_path / name)
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert "<svg" in text
