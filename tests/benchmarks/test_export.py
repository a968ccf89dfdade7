"""Exports beside which the benchmark of exports asks for decisions."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.export import _one_after_another, beside
from tests.waiting import eventually

WRITES = "import pathlib, sys, time; pathlib.Path(sys.argv[2]).touch(); time.sleep(float(sys.argv[1]))"


def test_an_export_that_ends_before_its_turn_is_followed_by_another_and_the_last_is_stopped(tmp_path: Path) -> None:
    with beside((sys.executable, "-c", WRITES, "0"), tmp_path / "log"):
        assert eventually((tmp_path / "log-2").exists)
    with beside((sys.executable, "-c", WRITES, "3600"), tmp_path / "long"):
        assert eventually((tmp_path / "long-0").exists)
    assert not (tmp_path / "long-1").exists()


def test_an_export_that_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        _one_after_another((sys.executable, "-c", "import sys; sys.exit(3)"), tmp_path / "log", threading.Event())
