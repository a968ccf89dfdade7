"""Tasks on several processes of this machine."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

from experiments.evaluate import Run, here

T = TypeVar("T")


def on(workers: int) -> Run:
    """One after another in this process for one worker, else as many processes, each with one thread of BLAS."""
    return here if workers == 1 else partial(_spread, workers)


def _spread(workers: int, tasks: Sequence[Callable[[], T]], /) -> list[T]:
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        context = multiprocessing.get_context("spawn")  # pyarrow has threads: a fork of them may hang
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return [future.result() for future in [pool.submit(task) for task in tasks]]
    finally:
        os.environ.pop("OPENBLAS_NUM_THREADS")
        if before is not None:
            os.environ["OPENBLAS_NUM_THREADS"] = before
