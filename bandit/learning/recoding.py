"""Recoding of contexts under wider ranges: x as a declaration that came later would have encoded it.

A linear scale is affine in the value, a logarithmic one is so for the same minimum; so x under the wider range is
affine in x under the narrower. The result is rounded to the grid of features: sums of re-encoded contexts stay exact,
and any order or batching of them gives the same bits. Against encoding the value itself under the wider range, x
differs by one step of the grid (2⁻¹²) at most. A value that was clipped is taken for the end at which it was. The
arithmetic is that of `arithmetic`: the same bits on every processor.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from bandit.arrays import Array
from bandit.belief import X_GRID
from bandit.catalogue.model import Feature, Stage
from bandit.features import schema
from bandit.numerics import arithmetic


def wider(was: Stage, now: Stage) -> list[str]:
    """Names of the features whose range is wider now, if that is all that changed in what statistics mean; else none.

    Of a logarithmic scale only the maximum may move.
    """
    if was.features.keys() != now.features.keys():
        return []
    narrow = {name: _with_range(feature, was.features[name]) for name, feature in now.features.items()}
    if msgspec.structs.replace(now, features=narrow).learning_digest() != was.learning_digest():
        return []
    changed = [name for name in now.features if _range(now.features[name]) != _range(was.features[name])]
    return changed if all(_holds(was.features[name], now.features[name]) for name in changed) else []


def contexts(x: Array, declared: Sequence[str], specs: Mapping[str, Stage], now: Stage) -> Array:
    """Contexts x (n, d) of decisions made under the declarations with these n digests, as `now` encodes them; `specs`
    holds the declarations by digest.
    """
    for digest in set(declared):
        was = specs[digest]
        if was.features != now.features:
            mine = np.array([one == digest for one in declared])
            x = np.where(mine[:, None], recoded(x, was, now), x)
    return x


def recoded(x: Array, was: Stage, now: Stage) -> Array:
    """Contexts x (n, d) under `was` as `now` encodes them: the same array unless ranges differ, and the schema is the
    same.
    """
    if was.features == now.features or was.schema != now.schema or was.features.keys() != now.features.keys():
        return x
    x, columns = x.copy(), schema(now.features).columns
    for name, feature in now.features.items():
        before = was.features[name]
        if feature.type == "number" and _range(before) != _range(feature):
            column = columns.index(name)
            moved = np.clip(_moved(x[:, column], before, feature), -1.0, 1.0)
            x[:, column] = np.rint(moved * X_GRID) / X_GRID
    return x


def _moved(x: Array, was: Feature, now: Feature) -> Array:
    """One column, not yet rounded."""
    (low, high), (least, most) = _range(was), _range(now)
    if now.scale == "log":
        spans = arithmetic.log(np.array([1.0 + (high - low), 1.0 + (most - least)]))
        return np.asarray((x + 1.0) * (spans[0] / spans[1]) - 1.0, dtype=np.float64)
    return np.asarray((x * (high - low) + ((low - least) + (high - most))) / (most - least), dtype=np.float64)


def _holds(was: Feature, now: Feature) -> bool:
    """Whether every value of the range before has its place in the one now, and the map is affine."""
    (low, high), (least, most) = _range(was), _range(now)
    return least <= low and high <= most and (now.scale == "linear" or least == low)


def _range(feature: Feature) -> tuple[float, float]:
    return float(feature.min or 0.0), float(feature.max or 0.0)


def _with_range(feature: Feature, of: Feature) -> Feature:
    return msgspec.structs.replace(feature, min=of.min, max=of.max)
