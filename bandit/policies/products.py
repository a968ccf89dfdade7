"""Scores of many decisions by one product of matrices: what `stacked.dot(x)` is to one decision.

Shapes: n rows, k arms, d features, q quadratic forms.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROWS, _COLUMNS = 128, 32


def forms(stacked: Array, x: Array, k: int) -> tuple[Array, Array]:
    """(x·m_a (n, k), x'G_j x (n, q)) of x (n, d), where `stacked` (q·d + k, d) is [G_1 … G_q, m_1 … m_k].

    128 rows at a time, with zeros around rows and columns up to multiples of 128 and 32: the library then multiplies
    matrices of one shape, in whole tiles. With OpenBLAS the bits of a row do not depend on the rows around it
    (tests/bandit/test_batch.py); with another library that holds to 1e-12.
    """
    n, d = x.shape
    q = (len(stacked) - k) // d
    columns = np.concatenate([stacked, np.zeros((-len(stacked) % _COLUMNS, d))]).T
    rows = np.concatenate([x, np.zeros((-n % _ROWS, d))])
    means, spread = np.empty((len(rows), k)), np.empty((len(rows), q, 1))
    for start in range(0, n, _ROWS):
        part = slice(start, start + _ROWS)
        product = rows[part] @ columns
        means[part] = product[:, q * d : q * d + k]
        np.matmul(product[:, : q * d].reshape(_ROWS, q, d), rows[part, :, None], out=spread[part])
    return means[:n], spread[:n, :, 0]
