"""Workers for the parts of a log: processes of this machine, or a Dask cluster."""

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from experiments.ope.evaluate import PartRunner
from simulations.offline import parallel
from simulations.offline.parallel import Backend

T = TypeVar("T")


def on(backend: Backend, workers: int, address: str | None) -> PartRunner:
    """Runner of parts: one after another in this process for one worker without an address; else as
    `simulations.offline.parallel`, at the Dask scheduler `address` if given. All give the same bits.
    """
    place: Backend = "serial" if workers == 1 and address is None else backend

    def run(tasks: Sequence[Callable[[], T]], /) -> Generator[T, None, None]:
        return parallel.stream(_do, tasks, backend=place, workers=workers, address=address)

    return run


def _do(task: Callable[[], T]) -> T:
    return task()
