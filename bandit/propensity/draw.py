"""Draw of an arm from its propensities, and the uniform numbers that decide it: keyed hashes, so that a draw can be
recomputed.

Shapes: k arms, n rows. No generator: who draws brings u, and the service takes u from `unit`.
"""

import hashlib
from bisect import bisect_right
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array


def draw(p: Array, u: float) -> int:
    """Index of the arm drawn at u ∈ [0, 1) by the inverse CDF of p (k,), which need not sum to 1 exactly. An arm with p
    = 0 is never drawn.
    """
    values = p.tolist()
    cumulative = list(accumulate(values))
    arm = bisect_right(cumulative, u * cumulative[-1])
    while arm == len(values) or values[arm] == 0.0:  # u · Σp rounded up to Σp
        arm -= 1
    return arm


def draw_many(p: Array, u: Array) -> NDArray[np.intp]:
    """Indices (n,) of the arms drawn in n rows: p (n, k), u (n,) in [0, 1). The same arms as `draw`'s, row by row."""
    cumulative = np.cumsum(p, axis=1)
    arm = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(axis=1)
    last = p.shape[1] - 1 - (p[:, ::-1] > 0.0).argmax(axis=1)  # u · Σp rounded up to Σp
    return np.asarray(np.minimum(arm, last), dtype=np.intp)


def unit(key: bytes, *parts: bytes) -> float:
    """Uniform number in [0, 1) that anyone with the key can recompute: keyed BLAKE2b of the parts, 53 bits.

    The engine calls it for the draw of a decision and for the control group. Parts are hashed with their lengths, so
    that ("ab", "c") and ("a", "bc") differ.
    """
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)  # lengths keep ("ab", "c") from ("a", "bc")
    digest = hashlib.blake2b(text, digest_size=8, key=key).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
