"""Tasks give the same results wherever they run, also where a worker is killed under them."""

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from numpy.typing import NDArray

from bandit.errors import InvalidRequest, RemoteError
from simulations.offline.parallel import Backend, collect, run, stream

CELLS = range(12)
Task = Callable[[int], Any]

needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="the extra `cluster`")
everywhere = pytest.mark.parametrize("backend", ["serial", "processes", pytest.param("dask", marks=needs_dask)])


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Two Dask workers, each a process, on this machine."""
    from distributed import LocalCluster

    start: Any = LocalCluster
    with start(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def go(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """`run` with two workers, those of the cluster for Dask; the results in order."""

    def collected(task: Task, backend: Backend, **more: Any) -> list[Any]:
        place = {"address": request.getfixturevalue("scheduler")} if backend == "dask" else {"workers": 2}
        return collect(run(task, CELLS, backend=backend, **place, **more))

    return collected


def solve() -> Task:
    """Seeded by its argument, with a solver whose sums depend on the number of threads. Nested: pickled by value."""

    def task(cell: int) -> float:
        import numpy as np

        a = np.random.default_rng([11, cell]).normal(size=(300, 300))
        return float(np.linalg.inv(a).sum())

    return task


def solve_once_killed(mark: Path) -> Task:
    """As `solve`, and the first worker that gets cell 5 is killed by it, mid-run."""
    solved = solve()

    def task(cell: int) -> float:
        import os
        import signal

        if cell == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(solved(cell))

    return task


def only_of(task: Task) -> Callable[[NDArray[np.float64]], Any]:
    """For an argument of 800 kB, whose first number is the cell."""
    return lambda argument: task(int(argument[0]))


@everywhere
def test_every_backend_gives_what_the_plain_loop_gives(go: Callable[..., list[Any]], backend: Backend) -> None:
    """Equal to the bit."""
    assert go(solve(), backend) == go(solve(), "serial")


@needs_dask
def test_a_killed_dask_worker_changes_nothing(go: Callable[..., list[Any]], scheduler: str, tmp_path: Path) -> None:
    killed = go(solve_once_killed(tmp_path / "small"), "dask")
    assert (tmp_path / "small").exists()
    assert killed == go(solve(), "serial")
    large = [np.full(100_000, float(cell)) for cell in CELLS]  # joblib alone would leave each on one worker only
    task = only_of(solve_once_killed(tmp_path / "large"))
    assert collect(run(task, large, backend="dask", address=scheduler)) == killed
    assert (tmp_path / "large").exists()


@needs_dask
def test_one_dask_worker_is_a_cluster_too() -> None:
    """joblib alone would run its tasks in this process."""

    def place(cell: int) -> int:
        import os

        return os.getpid()

    assert os.getpid() not in collect(run(place, CELLS, backend="dask", workers=1))


@needs_dask
@pytest.mark.slow
def test_a_task_that_kills_every_dask_worker_ends_the_run(go: Callable[..., list[Any]]) -> None:
    """joblib alone would wait for it for ever."""

    def task(cell: int) -> int:
        import os
        import signal

        if cell == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return cell

    with pytest.raises(RemoteError, match="whatever worker had one of the tasks died"):
        go(task, "dask")
    assert go(str, "dask") == [str(i) for i in CELLS]


def test_a_killed_process_is_named_and_the_next_run_works(go: Callable[..., list[Any]], tmp_path: Path) -> None:
    task = solve_once_killed(tmp_path / "mark")
    with pytest.raises(RemoteError, match="a worker process died"):
        go(task, "processes")
    assert go(task, "processes") == go(solve(), "serial")


@everywhere
def test_a_task_has_one_thread_of_blas(go: Callable[..., list[Any]], backend: Backend) -> None:
    def threads(cell: int) -> list[int]:
        import numpy as np
        import threadpoolctl

        np.ones((2, 2)) @ np.ones((2, 2))
        return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

    with threadpoolctl.threadpool_limits(2):  # whatever this process was started with
        found = go(threads, backend)
    assert all(found)
    assert {n for each in found for n in each} == {1}


@everywhere
def test_results_come_with_their_index_and_progress_counts_them(go: Callable[..., list[Any]], backend: Backend) -> None:
    seen: list[tuple[int, int]] = []
    assert go(str, backend, progress=lambda done, total: seen.append((done, total))) == [str(i) for i in CELLS]
    assert seen == [(i + 1, len(CELLS)) for i in CELLS]


@everywhere
def test_what_a_task_raises_is_raised_here(go: Callable[..., list[Any]], backend: Backend) -> None:
    def task(cell: int) -> int:
        if cell == 7:
            raise LookupError(f"cell {cell} has no people")
        return cell

    with pytest.raises(LookupError, match="cell 7 has no people"):
        go(task, backend)


class Given(Sequence[int]):
    """The numbers from 0 to 39, and the last one that somebody asked for."""

    last = -1

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: Any) -> Any:
        if i >= len(self):
            raise IndexError
        self.last = i
        return i


@everywhere
def test_a_stream_is_in_order_and_never_far_ahead_of_who_takes_it(
    request: pytest.FixtureRequest, backend: Backend, tmp_path: Path
) -> None:
    """Two workers are given six tasks at most until the first result is taken, and one more for each more: memory does
    not grow with the number of tasks. The first task ends after three others.
    """

    def task(cell: int) -> int:
        import time

        (tmp_path / str(cell)).touch()
        while cell == 0 and backend != "serial" and len(list(tmp_path.iterdir())) < 4:
            time.sleep(0.01)  # until others have ended
        return cell

    place: dict[str, Any] = {"address": request.getfixturevalue("scheduler")} if backend == "dask" else {"workers": 2}
    given = Given()
    results = stream(task, given, backend=backend, **place)
    for taken in range(3):
        assert next(results) == taken
        assert given.last == (taken if backend == "serial" else 5 + taken)
    assert list(results) == list(range(3, len(given)))


def test_a_run_may_be_left_early() -> None:
    """What was yielded is whole, and the next run is not disturbed."""
    results = run(solve(), CELLS, backend="processes", workers=2)
    index, value = next(results)
    results.close()
    assert value == collect(run(solve(), CELLS, backend="serial"))[index]
    assert collect(run(str, CELLS, backend="processes", workers=2)) == [str(i) for i in CELLS]


def test_no_tasks_are_no_results() -> None:
    assert list(run(str, [], backend="serial")) == []


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"backend": "daks"}, "backend: 'daks' is not one → did you mean `dask`?"),
        ({"workers": 0}, "workers: 0 is not a number of workers → 1 or more"),
        ({"address": "tcp://127.0.0.1:9"}, "address: processes has no scheduler → use backend"),
    ],
)
def test_settings_that_cannot_be_are_named_before_anything_runs(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(str, CELLS, **settings)
    assert str(caught.value).startswith(found)


def test_without_the_extra_dask_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'journey-bandit\[cluster\]'"):
        list(run(str, CELLS, backend="dask"))
