"""Parallel execution of indexed tasks: one after another, in processes of this machine, or on a Dask cluster, with the
same results.

`run` gives results as they finish, `stream` in order and not many before they are asked for. The only file that knows
joblib and Dask. A task is a function of one argument that can be pickled, and whatever is
random in it is seeded by its argument, never by its worker; so results do not depend on where or in which order tasks
run. Every task runs with one thread of BLAS: with more, sums are taken in another order on another machine.

A Dask worker that dies is replaced and its tasks run again; a task under which more than `_DEATHS` workers died is
given up. A process that dies ends the run with RemoteError: what was yielded before is whole, so that a caller who
keeps it can go on from there. Workers of a Dask scheduler that somebody else started have to run the code of the
caller, and the versions of what it computes with, or the task is refused: other code gives other results.

A Dask scheduler runs whatever it is sent: keep its port in a private network, or behind Dask's own TLS.
"""

import functools
import hashlib
import importlib.metadata
import platform
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
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
_DEATHS = 3  # of workers; after one more a task is taken to be what kills them: Dask's allowed-failures
_AHEAD = 3  # tasks of `stream` for each worker that may be done, or under way, before their results are taken
_ANSWER = 60.0  # seconds to wait for a scheduler's first worker
_PACKAGES = ("bandit", "api", "experiments", "simulations", "journey_bandit")
_LIBRARIES = ("numpy", "scipy", "pyarrow")  # those that results are computed with
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
    _check(backend, workers, address)
    context = {"serial": _serial, "processes": _processes, "dask": _dask}[backend](workers, address)
    return _with_progress(_results(task, arguments, context, _expected(address)), len(arguments), progress)


def stream(
    task: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    *,
    backend: Backend = "processes",
    workers: int | None = None,
    address: str | None = None,
) -> Generator[Result, None, None]:
    """Run the task for every argument: the results in the order of the arguments, whichever ends first. A task is begun
    only when not more than 3 results for each worker wait to be taken, so that memory does not grow with the number of
    tasks; on Dask those that wait stay with the workers. Close the generator to leave early.

    Arguments and errors as for `run`.
    """
    _check(backend, workers, address)
    return _streamed(task, arguments, backend, workers, address)


def _check(backend: Backend, workers: int | None, address: str | None) -> None:
    if backend not in get_args(Backend):
        raise _refusal("backend", f"{backend!r} is not one", closest(backend, get_args(Backend)))
    if workers is not None and workers < 1:
        raise _refusal("workers", f"{workers} is not a number of workers", "1 or more")
    if address is not None and backend != "dask":
        raise _refusal("address", f"{backend} has no scheduler", 'use backend "dask", or leave the address out')


def _streamed(
    task: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    backend: Backend,
    workers: int | None,
    address: str | None,
) -> Generator[Result, None, None]:
    calls = ((task, i, argument, _expected(address)) for i, argument in enumerate(arguments))
    if backend == "serial":
        for call in calls:
            yield _run_one(call)[1]
        return
    opened = _client(workers, address) if backend == "dask" else _executor(workers)
    with opened as (submit, width):
        waiting = deque[Any]()
        try:
            for call in calls:
                waiting.append(submit(_run_one, call))
                if len(waiting) >= _AHEAD * width:
                    yield waiting.popleft().result()[1]
            while waiting:
                yield waiting.popleft().result()[1]
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _executor(workers: int | None) -> Iterator[tuple[Callable[..., Any], int]]:
    """Processes of its own: joblib takes the reusable ones for its own, and expects what it keeps with them."""
    width = workers or joblib.cpu_count()
    executor = joblib.externals.loky.ProcessPoolExecutor(max_workers=width)
    try:
        yield executor.submit, width
    except BrokenProcessPool as error:
        raise RemoteError(_DIED) from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@contextmanager
def _client(workers: int | None, address: str | None) -> Iterator[tuple[Callable[..., Any], int]]:
    with _connected(workers, address) as client:
        yield functools.partial(client.submit, pure=False, retries=0), max(sum(client.nthreads().values()), 1)


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
    task: Callable[[Argument], Result], arguments: Sequence[Argument], context: Any, code: "Code | None"
) -> Generator[tuple[int, Result], None, None]:
    # in one tuple: what is large and alone is stored on one worker by joblib, and lost with it
    calls = (joblib.delayed(_run_one)((task, i, argument, code)) for i, argument in enumerate(arguments))
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


Code = Mapping[str, str]
"""What results depend on besides their arguments: versions by name, and a digest of our own sources."""


def _run_one(call: tuple[Callable[[Argument], Result], int, Argument, Code | None]) -> tuple[int, Result]:
    task, index, argument, expected = call
    if expected is not None and (mine := code()) != expected:
        apart = ", ".join(
            f"{name} {mine[name]}, here {expected[name]}" for name in mine if mine[name] != expected[name]
        )
        raise RemoteError(f"a Dask worker runs other code, which gives other results: {apart}. Install the same there")
    with threadpoolctl.threadpool_limits(1):
        return index, task(argument)


def _expected(address: str | None) -> Code | None:
    """What workers that somebody else started have to run; None for those that are started here."""
    return code() if address is not None else None


@functools.cache
def code() -> Code:
    """The code that this process runs: version of Python, of the libraries that results are computed with, and a digest
    of the sources of our packages.
    """
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for file in sorted(file for name in _PACKAGES for file in (root / name).rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"journey-bandit": digest.hexdigest()[:16], "python": platform.python_version(), **versions}


def _serial(workers: int | None, address: str | None) -> AbstractContextManager[dict[str, Any]]:  # noqa: ARG001
    return nullcontext({"backend": "sequential", "n_jobs": 1})


def _processes(workers: int | None, address: str | None) -> AbstractContextManager[dict[str, Any]]:  # noqa: ARG001
    return nullcontext({"backend": "loky", "n_jobs": workers or joblib.cpu_count(), "inner_max_num_threads": 1})


@contextmanager
def _dask(workers: int | None, address: str | None) -> Iterator[dict[str, Any]]:
    with _connected(workers, address) as client:
        yield {"backend": _reporting(client), "n_jobs": -1}


@contextmanager
def _connected(workers: int | None, address: str | None) -> Iterator[Any]:
    """A client of the scheduler at `address`, which has a worker, or of one that is started here and ends with it."""
    distributed = _distributed()
    here = {"n_workers": workers or joblib.cpu_count(), "threads_per_worker": 1, "dashboard_address": _PRIVATE}
    try:
        with _dask_settings({"distributed.scheduler.allowed-failures": _DEATHS}):
            client = distributed.Client(address) if address else distributed.Client(**here)
    except (OSError, TimeoutError) as error:
        raise RemoteError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_ANSWER)
        except TimeoutError as error:
            raise RemoteError(f"the Dask scheduler at {address} has no workers: start some") from error
        try:
            yield client
        except distributed.KilledWorker as error:
            raise RemoteError(_KILLED) from error
        except CancelledError as error:
            raise RemoteError(f"the Dask scheduler forgot a task: {error}") from error
        except ModuleNotFoundError as error:
            fix = "install journey-bandit there as it is here, with its extras experiments and cluster"
            raise RemoteError(f"a Dask worker has no module {error.name}: {fix}") from error


def _dask_settings(settings: dict[str, Any]) -> AbstractContextManager[Any]:
    import dask

    return dask.config.set(settings)


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
