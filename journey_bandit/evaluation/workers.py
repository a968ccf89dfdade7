"""Workers for the parts of a log: processes of this machine, or a Dask cluster."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from experiments.ope.evaluate import PartRunner, run_serially
from simulations.offline import parallel
from simulations.offline.parallel import Backend

T = TypeVar("T")


def on(backend: Backend, workers: int, address: str | None) -> PartRunner:
    """Runner of parts: one after another in this process for one worker without an address; else as
    `simulations.offline.parallel`, at the Dask scheduler `address` if given.
    """
    return run_serially if workers == 1 and address is None else partial(_spread, backend, workers, address)


def _spread(backend: Backend, workers: int, address: str | None, tasks: Sequence[Callable[[], T]], /) -> list[T]:
    return parallel.collect(parallel.run(_do, tasks, backend=backend, workers=workers, address=address))


def _do(task: Callable[[], T]) -> T:
    return task()
