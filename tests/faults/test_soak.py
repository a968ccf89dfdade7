"""The soak in short, and that its checks can fail."""

import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from api.stores import open_store
from tests.faults.resources import BOUNDS, Meter, Sample, growing, growth
from tests.faults.soak import soak
from tests.faults.steady_load import wrong_with

linux = pytest.mark.skipif(sys.platform != "linux", reason="what a process takes is read from /proc")


@linux
@pytest.mark.parametrize(
    ("seconds", "pauses"), [(12.0, (1.0, 3.0)), pytest.param(600.0, (45.0, 75.0), marks=pytest.mark.slow)]
)
def test_a_service_that_is_killed_again_and_again_loses_nothing_and_one_that_is_left_alone_does_not_grow(
    seconds: float, pauses: tuple[float, float], tmp_path: Path
) -> None:
    """In so short a time memory and log still fill up: there the bound is on what is certain."""
    result = soak(tmp_path, seconds, pauses, least=3, every=0.25 if seconds < 60 else 1.0)
    assert result.wrong == []
    assert result.kills >= 3
    assert result.repeated > 0, "no request was ever interrupted"
    grown = growing(result.growth, proof=seconds > 60)
    print(result.kills, "kills", result.acknowledged, "acknowledged", *result.growth, sep="\n")
    assert [one for one in grown if seconds > 60 or not one.startswith("log")] == []
    found = spoilt(tmp_path / "killed")
    for said in (
        "1 acknowledged decisions",
        "1 acknowledged outcomes",
        "1 acknowledged events",
        "in the belief",
        "cart:",
    ):
        assert said in found


def spoilt(folder: Path) -> str:
    """What is found after a row of each kind was removed or changed."""
    ledger = folder / "ledger.db"
    with closing(sqlite3.connect(ledger)) as conn, conn:
        conn.execute("DELETE FROM outcomes WHERE seq = 1")
        conn.execute("DELETE FROM events WHERE seq = 1")
        conn.execute("UPDATE decisions SET arm = iif(arm = 'help', 'none', 'help') WHERE seq = 1")
        conn.execute("UPDATE statistics SET count = count + 1 WHERE arm = 'none'")
    return "; ".join(wrong_with(ledger, folder / "acknowledged.txt"))


def series(per_hour: float, noise: float, seconds: float) -> list[Sample]:
    """Samples a second of numbers that grow so many of their bounds in an hour."""
    chance = np.random.default_rng(1)
    return [
        Sample(
            t, {name: 100 + bound * (per_hour * t / 3600 + noise * chance.normal()) for name, bound in BOUNDS.items()}
        )
        for t in np.arange(0.0, seconds)
    ]


@linux
def test_a_round_costs_the_processor_time_that_was_spent_since_the_last_one(tmp_path: Path) -> None:
    """At least what was spent for certain, at most all that this process took; both are told in ticks of 10 ms."""
    ledger = tmp_path / "ledger.db"
    with closing(open_store(f"sqlite:///{ledger}")):
        begin, meter = time.process_time(), Meter(os.getpid(), ledger)
        for rounds in (10, 20):
            until = time.process_time() + 0.2
            while time.process_time() < until:
                pass
            assert meter.sample(0.0, rounds - 10) is None, "no round was finished"
            before, found = time.process_time(), meter.sample(1.0, rounds)
            assert found is not None
            assert 18.0 <= found.values["CPU, ms per round"] <= 2.0 + 100.0 * (time.process_time() - begin)
            begin = before


def test_growth_is_found_and_noise_is_not_growth() -> None:
    """False alarm below 1e-6: the bound is ten standard errors away."""
    assert growing(growth(series(0.0, 0.1, 3600)), proof=True) == []
    assert growing(growth(series(0.5, 0.1, 3600)), proof=True) == []
    assert len(growing(growth(series(2.0, 0.1, 3600)), proof=False)) == len(BOUNDS)
    assert growing(growth(series(0.0, 20.0, 600)), proof=False) == []
    assert growing(growth(series(0.0, 20.0, 600)), proof=True), "what is not certain is no proof"
    steady = growth([Sample(float(t), dict.fromkeys(BOUNDS, 7.0)) for t in range(60)])
    assert growing(steady, proof=True) == []
    assert growing(growth([Sample(float(t), dict.fromkeys(BOUNDS, np.nan)) for t in range(60)]), proof=False)
