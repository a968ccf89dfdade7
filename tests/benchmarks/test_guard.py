"""Guard of what a decision costs, against the last release."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from benchmarks import guard
from benchmarks.guard import RecordedRelease, StepCost, Workbench

LAST = RecordedRelease("1.0", guard.python(), {"decide": StepCost(100.0, 0.5), "settle": StepCost(200.0, 0.25)})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    made = Workbench(tmp_path)
    yield made
    made.close()


@pytest.mark.skipif(guard.released().python != guard.python(), reason="another Python counts calls otherwise")
def test_no_step_takes_a_tenth_more_calls_than_in_the_last_release(bench: Workbench) -> None:
    found = {name: StepCost(number, 0.0) for name, number in guard.calls(bench).items()}
    assert found.keys() == guard.released().steps.keys()
    assert guard.grown(found, guard.released()) == []


def test_calls_are_counted_and_not_timed(tmp_path: Path) -> None:
    found = list[dict[str, float]]()
    for name in ("first", "second", "third"):  # the first fills what is kept for a process
        (tmp_path / name).mkdir()
        bench = Workbench(tmp_path / name)
        found.append(guard.calls(bench))
        bench.close()
    assert found[1] == found[2]


def test_each_call_is_counted() -> None:
    def work() -> None:
        for _ in range(10):
            len("a")

    assert guard.counted(work) - guard.counted(lambda: None) == 20 / 2


def test_more_calls_fail_and_more_time_is_a_warning() -> None:
    found = {"decide": StepCost(111.0, 0.6), "settle": StepCost(219.0, 0.32), "new": StepCost(9.0, 9.0)}
    assert guard.grown(found, LAST) == ["decide: 111 calls, 100 in 1.0"]
    assert guard.slower(found, LAST) == ["settle: 1.28 times the processor time of 1.0"]
    assert guard.grown(found, msgspec.structs.replace(LAST, python="3.0")) == []


@pytest.mark.parametrize(("calls", "status"), [(105.0, 0), (120.0, 1)])
def test_the_command_fails_by_calls_and_never_by_the_clock(
    calls: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "measured", lambda rounds: {"decide": StepCost(calls, 50.0 * rounds)})
    monkeypatch.setattr(guard, "released", lambda: LAST)
    assert guard.main(["--rounds", "1"]) == status
    said = capsys.readouterr().out
    assert "decide: 100.00 times the processor time of 1.0" in said
    assert ("more work than in the last release" in said) == bool(status)


def test_what_is_recorded_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guard, "RELEASED", tmp_path / "released.json")
    monkeypatch.setattr(guard, "released", lambda read=guard.released: read(tmp_path / "released.json"))
    monkeypatch.setattr(guard, "measured", lambda _: LAST.steps)
    assert guard.main(["--record", "1.0"]) == 0
    assert guard.released() == LAST


def test_processor_time_is_that_of_the_reference_work(bench: Workbench) -> None:
    found = guard.cpu(bench, 1)
    assert found.keys() == guard.released().steps.keys()
    assert all(value > 0.0 for value in found.values())
