"""The draw."""

import hashlib
from bisect import bisect_right
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array


def draw(p: Array, u: float) -> int:
    """The arm at u ∈ [0, 1) of the inverse CDF of p. An arm with p = 0 is never drawn."""
    values = p.tolist()
    cumulative = list(accumulate(values))
    arm = bisect_right(cumulative, u * cumulative[-1])
    while arm == len(values) or values[arm] == 0.0:  # u · Σp rounded up to Σp
        arm -= 1
    return arm


def draw_many(p: Array, u: Array) -> NDArray[np.intp]:
    """`draw` of n rows: p (n, k), u (n,) in [0, 1) → arms (n,). The same arms as `draw`'s."""
    cumulative = np.cumsum(p, axis=1)
    arm = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(axis=1)
    last = p.shape[1] - 1 - (p[:, ::-1] > 0.0).argmax(axis=1)  # u · Σp rounded up to Σp
    return np.asarray(np.minimum(arm, last), dtype=np.intp)


def unit(key: bytes, *parts: bytes) -> float:
    """A number in [0, 1) that anyone with the key can recompute: keyed BLAKE2b of the parts, 53 bits."""
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)  # lengths keep ("ab", "c") from ("a", "bc")
    digest = hashlib.blake2b(text, digest_size=8, key=key).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
