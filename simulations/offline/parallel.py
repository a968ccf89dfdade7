"""Parallel execution of indexed tasks: one after another, in processes of this machine, or on a Dask cluster, with the
same results.

The only file that knows joblib and Dask. A task is a function of one argument that can be pickled, and whatever is
random in it is seeded by its argument, never by its worker; so results do not depend on where or in which order tasks
run. Every task runs with one thread of BLAS: with more, sums are taken in another order on another machine.

A Dask worker that dies is replaced and its tasks run again. A process that dies ends the run with RemoteError: what was
yielded before is whole, so that a caller who keeps it can go on from there.

A Dask scheduler runs whatever it is sent: keep its port in a private network, or behind Dask's own TLS.
"""

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any, Literal, TypeVar, get_args

import joblib
import threadpoolctl

from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, Problem, RemoteError

Argument = TypeVar("Argument")
Result = TypeVar("Result")

Backend = Literal["serial", "processes", "dask"]
Progress = Callable[[int, int], None]
"""Called with (tasks done, tasks in all) after each."""

_PRIVATE = "127.0.0.1:0"  # any free port, seen from this machine only
_DIED = "a worker process died: killed, or out of memory. Run again with fewer workers, or with the dask backend"
_KILLED = "whatever worker had one of the tasks died, several times: it may need more memory than a worker has"


def run(
    task: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    *,
    backend: Backend = "processes",
    workers: int | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> Generator[tuple[int, Result], None, None]:
    """Run the task for every argument: (index into `arguments`, result) of each, as they finish. Close the generator to
    leave early; tasks that wait are then cancelled.

    `workers`: None means one for each core; an `address` brings its own. `address`: of a Dask scheduler, such as
    tcp://10.0.0.5:8786; None starts one here. What a task raises is raised here. Raises InvalidRequest for a backend
    that is not there, RemoteError for workers that died or a scheduler that does not answer.

        results = collect(run(play, cells, backend="processes", workers=4))
    """
    if backend not in get_args(Backend):
        raise _refusal("backend", f"{backend!r} is not one", closest(backend, get_args(Backend)))
    if workers is not None and workers < 1:
        raise _refusal("workers", f"{workers} is not a number of workers", "1 or more")
    if address is not None and backend != "dask":
        raise _refusal("address", f"{backend} has no scheduler", 'use backend "dask", or leave the address out')
    context = {"serial": _serial, "processes": _processes, "dask": _dask}[backend](workers, address)
    return _with_progress(_results(task, arguments, context), len(arguments), progress)


def collect(results: Iterator[tuple[int, Result]]) -> list[Result]:
    """The results of `run`, in the order of the arguments, once all of them are there."""
    return [result for _, result in sorted(results, key=lambda item: item[0])]


def _with_progress(
    results: Generator[tuple[int, Result], None, None], total: int, progress: Progress | None
) -> Generator[tuple[int, Result], None, None]:
    with closing(results):
        for done, item in enumerate(results, 1):
            if progress is not None:
                progress(done, total)
            yield item


def _results(
    task: Callable[[Argument], Result], arguments: Sequence[Argument], context: Any
) -> Generator[tuple[int, Result], None, None]:
    # in one tuple: what is large and alone is stored on one worker by joblib, and lost with it
    calls = (joblib.delayed(_run_one)((task, i, argument)) for i, argument in enumerate(arguments))
    try:
        with context as where:
            pool = joblib.Parallel(**where, batch_size=1, return_as="generator_unordered")
            yield from _closing_quietly(pool(calls))
    except BrokenProcessPool as error:
        raise RemoteError(_DIED) from error


def _closing_quietly(results: Generator[Result, None, None]) -> Generator[Result, None, None]:
    """The same results, closed without joblib's warning that tasks were cancelled, which is what leaving early is
    for.
    """
    try:
        for item in results:  # noqa: UP028 – `yield from` would hand the closing on
            yield item
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "[0-9]+ tasks ", UserWarning)
            results.close()


def _run_one(call: tuple[Callable[[Argument], Result], int, Argument]) -> tuple[int, Result]:
    task, index, argument = call
    with threadpoolctl.threadpool_limits(1):
        return index, task(argument)


def _serial(workers: int | None, address: str | None) -> AbstractContextManager[dict[str, Any]]:  # noqa: ARG001
    return nullcontext({"backend": "sequential", "n_jobs": 1})


def _processes(workers: int | None, address: str | None) -> AbstractContextManager[dict[str, Any]]:  # noqa: ARG001
    return nullcontext({"backend": "loky", "n_jobs": workers or joblib.cpu_count(), "inner_max_num_threads": 1})


@contextmanager
def _dask(workers: int | None, address: str | None) -> Iterator[dict[str, Any]]:
    distributed = _distributed()
    here = {"n_workers": workers or joblib.cpu_count(), "threads_per_worker": 1, "dashboard_address": _PRIVATE}
    try:
        client = distributed.Client(address) if address else distributed.Client(**here)
    except (OSError, TimeoutError) as error:
        raise RemoteError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        try:
            yield {"backend": _reporting(client), "n_jobs": -1}
        except distributed.KilledWorker as error:
            raise RemoteError(_KILLED) from error
        except CancelledError as error:
            raise RemoteError(f"the Dask scheduler forgot a task: {error}") from error


def _reporting(client: Any) -> Any:
    """joblib's backend for a Dask client, less two habits: waiting for ever for a task whose workers were killed, and
    running everything here while there is only one worker.
    """
    from joblib._dask import DaskDistributedBackend

    class Reporting(DaskDistributedBackend):  # type: ignore[misc]
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

        def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: callback(done) if done.exception() else None)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            return out.result() if isinstance(out, Future) else super().retrieve_result_callback(out)

    return Reporting(client=client)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        missing = _refusal("backend", "Dask is not installed", "pip install 'journey-bandit[cluster]'")
        raise missing from error
    return distributed


def _refusal(field: str, problem: str, fix: str) -> InvalidRequest:
    return InvalidRequest(Problem(field, problem, fix))
