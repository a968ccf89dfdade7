"""Compiled kernels that are in use in this process: none, until `bandit.policies.compilation.start` has found that they
end in the bits of what they stand for.
"""

from collections.abc import Callable
from typing import NamedTuple

from bandit.arrays import Array


class CompiledKernels(NamedTuple):
    """Compiled kernels of `bandit.propensity.kernels`, by their names there, and the tables that they read: `normal`
    (cells, 5) and `logistic` (cells, 4).
    """

    choice: Callable[..., bool]
    wins: Callable[..., bool]
    drawable: Callable[..., bool]
    afforded: Callable[..., bool]
    swept: Callable[..., None]
    normal: Array
    logistic: Array


_kernels: CompiledKernels | None = None


def kernels() -> CompiledKernels | None:
    """Kernels that are in use; None: what they stand for is computed without them."""
    return _kernels


def use(found: CompiledKernels | None) -> None:
    """Use these kernels from now on, in every thread; None: use none."""
    global _kernels  # noqa: PLW0603 - one assignment, so that any thread reads either
    _kernels = found
