"""Compilation of the kernels of one decision, where numba (the extra `fast`) is installed: a decision costs a tenth.

Compiled code ends in the same bits, so ledgers, receipts and policies know nothing of it: numba compiles IEEE 754
operations in the order in which they are written, and fuses none. `start` does not rely on that: it decides and
eliminates some hundred random cases both ways, and uses nothing of what differs.

The first start compiles, which takes ten to thirty seconds of a processor; later ones read what that has kept in a
folder. What is kept there has the digest of the kernels' text and of the numbers that are compiled into it.
"""

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bandit.arrays import Array, Mask
from bandit.numerics import arithmetic, compiled, logistic
from bandit.numerics.compiled import CompiledKernels
from bandit.policies import quadratic_forms
from bandit.policies.centred import CentredPosterior
from bandit.policies.protocol import ArmEconomics
from bandit.propensity import correlated, kernels, normal_tables
from bandit.propensity.floor import afforded, apportioned

_INNER = ("below", "chance", "scores", "whether", "trapezoid", "given_factor", "nearly")
_CASES = 40  # random cases of each shape in which compiled code must end in the same bits
_SHAPES = ((2, 3), (3, 5), (4, 9), (6, 16), (9, 4))  # arms and features of these cases


class Compilation(NamedTuple):
    """Compilation as it was tried: the compiler's name and version, and why nothing that it compiled is used, in words
    (empty: it is in use). `unread`: why what was kept could not be read, or nothing be kept; empty otherwise.
    """

    compiler: str
    unused: str
    unread: str = ""


def start(folder: str = "") -> Compilation:
    """Use compiled kernels in this process from now on, unless they give other numbers here. `folder`: where what is
    compiled is kept; empty: it is compiled anew. A service calls it once, before it decides. Whatever goes wrong, a
    compiler that is not there included, is said, and decisions are computed without one.
    """
    name, unread = "numba", ""
    try:
        version = importlib.metadata.version("numba")
        name = f"numba {version}"
        try:
            found = _compiled(folder and f"{folder}/{_meaning(version)}")
        except Exception as error:
            if not folder:
                raise
            unread = f"{type(error).__name__}: {error}"
            found = _compiled("")
        wrong = differing(found)
    except Exception as error:  # noqa: BLE001 - it is told: who can decide without a compiler must not fail by one
        return Compilation(name, f"it fails: {type(error).__name__}: {error}", unread)
    if wrong:
        return Compilation(name, f"it gives other numbers here: {wrong}", unread)
    compiled.use(found)
    return Compilation(name, "", unread)


def _meaning(version: str) -> str:
    """Digest of all that compiled kernels follow from: their text, the numbers that are compiled into it, the
    compiler's version.
    """
    numbers = {name: value for name, value in vars(kernels).items() if isinstance(value, int | float | tuple)}
    text = f"{inspect.getsource(kernels)}{sorted(numbers.items())}{version}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differing(found: CompiledKernels) -> str:
    """Kernel that gives another result than what it stands for in one of the random cases, in words; empty if none."""
    rng = np.random.default_rng(0)
    for k, d in _SHAPES:
        posterior = _posterior(rng, k, d)
        for _ in range(_CASES):
            x = np.concatenate([[1.0], np.rint(rng.uniform(-1.0, 1.0, d - 1) * 4096) / 4096])
            may = rng.random(k) < 0.8
            may[rng.integers(k)] = True
            if not _same_choice(found, posterior, x, may):
                return f"choice among {k} arms"
        for _ in range(_CASES):
            factor = rng.normal(size=(k, k + 1)) * rng.uniform(0.01, 1.0)
            factor *= 10.0 ** rng.uniform(-2.0, 0.5, (k, 1))  # widths apart, and so grids that are too long for one
            mean, covariance = rng.normal(size=k), factor @ factor.T
            p, out, may = np.empty(k), np.empty(k), rng.random(k) < 0.8
            same = correlated.wins(mean.tolist(), covariance.tolist())
            if found.wins(mean, covariance, found.normal, p) and p.tolist() != same:
                return f"win probabilities of {k} arms"
            may[[0, int(np.argmax(same))]] = True  # no nudge may always be shown: a ramp gives it the rest
            share = np.where(may, same, 0.0) / np.sum(np.where(may, same, 0.0))
            floors = rng.choice((0.0, 1e-4, 0.02, 0.1), k)
            if found.drawable(share, floors, may, out) and out.tolist() != apportioned(share, floors, may).tolist():
                return f"floors of {k} arms"
            apart = 10.0 ** rng.uniform(-4.0, 0.0)  # utilities: floors of every kind
            gain, cost, traffic = rng.uniform(0.9, 1.0, k), apart * rng.random(k), rng.choice((0.01, 0.5, 1.0))
            around = (apart * rng.random(k), gain, cost, traffic, rng.random(), may)
            if found.afforded(share, *around, out) and out.tolist() != afforded(share, *around).tolist():
                return f"afforded floors of {k} arms"
        root = rng.normal(size=(4 * k, 8 * k))
        a, pivots = root @ root.T, np.empty(3 * k)
        ours, theirs = arithmetic.swept(a.copy(), pivots), a.copy()
        own = np.empty(3 * k)
        found.swept(theirs, own)
        if not (np.array_equal(ours, theirs) and np.array_equal(pivots, own)):
            return f"elimination of {4 * k} rows"
    return ""


def _same_choice(found: CompiledKernels, posterior: CentredPosterior, x: Array, may: Mask) -> bool:
    """Whether a choice has the same bits both ways, or is left to the other way."""
    out = posterior.compiled(found, x, may)
    return out is None or all(np.array_equal(a, b) for a, b in zip(out, posterior.plain(x, may), strict=True))


def _posterior(rng: np.random.Generator, k: int, d: int) -> CentredPosterior:
    """Random posterior of k arms that share a part of what was learned; costs differ where k is even."""
    names = tuple(f"a{a}" for a in range(k))
    cost = np.where(np.arange(k) > 0, rng.uniform(0.0, 0.03, k) * (k % 2 == 0), 0.0)
    arms = ArmEconomics(names, names, np.ones(k), cost)
    root = rng.normal(size=(k * d, k * d)) * 0.05
    shared = np.tile(rng.normal(size=(d, k * d)) * 0.1, (k, 1))
    covariance = (root @ root.T + shared @ shared.T).reshape(k, d, k, d).transpose(0, 2, 1, 3)
    means = rng.normal(size=(k, d)) * 0.3 - 0.5
    place = quadratic_forms.places(k)
    return CentredPosterior(quadratic_forms.joint(means, covariance), place, k % 2 == 0, 0.5, 1.0, arms)


def _compiled(folder: str) -> CompiledKernels:
    """Kernels as numba compiles them, or has kept them in `folder` (empty: nothing is kept). Raises ImportError, and
    whatever else numba raises.
    """
    import numba
    from numba.extending import register_jitable

    for name in _INNER:
        register_jitable(error_model="numpy")(getattr(kernels, name))
    array, flags = numba.float64[::1], numba.boolean[::1]
    table, places = numba.float64[:, ::1], numba.intp[:, ::1]
    number = numba.float64

    def made(function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
        kernel: Callable[..., Any] = numba.njit(signature, cache=bool(folder), error_model="numpy")(function)
        return kernel

    config: Any = numba.config
    config.CACHE_DIR = folder

    wins = made(kernels.wins, numba.boolean(array, table, table, array))
    register_jitable(error_model="numpy")(kernels.wins)
    choice = made(
        kernels.choice,
        numba.boolean(*(table, array, array, places, array, array, flags, number, numba.boolean, table, table, table)),
    )
    drawable = made(kernels.drawable, numba.boolean(array, array, flags, array))
    register_jitable(error_model="numpy")(kernels.drawable)
    afforded = made(kernels.afforded, numba.boolean(array, array, array, array, number, number, flags, array))
    swept = made(kernels.swept, numba.void(table, array))
    return CompiledKernels(choice, wins, drawable, afforded, swept, normal_tables.together(), logistic.together())
