"""Positions of features (n, f), and what they stand for: what the app would send, and the x that a policy gets.

The position of a number is where it lies in its declared range, 0 to 1, on its declared scale; of a boolean 0 or 1; of
a category the index of its value. Shapes: n people, f declared features, d columns of x.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bandit.arrays import Array
from bandit.belief import X_GRID
from bandit.catalogue.model import Feature

Features = dict[str, Feature]  # declared features of a stage by name, in order


def encoded(declared: Features, position: Array) -> Array:
    """The encoded context x (n, d) of positions (n, f): bit for bit what `features.encode` makes of the same features,
    in one step, none of them missing.
    """
    columns = [np.ones((len(position), 1))]
    for j, feature in enumerate(declared.values()):
        at = position[:, j : j + 1]
        if feature.type == "category":
            columns.append((at == np.arange(len(feature.values))).astype(np.float64))
        else:
            columns.append(2.0 * at - 1.0 if feature.type == "number" else at)
    columns.append(np.zeros((len(position), len(declared))))
    return np.asarray(np.rint(np.concatenate(columns, axis=1) * X_GRID) / X_GRID)


def contexts(declared: Features, position: Array) -> list[dict[str, Any]]:
    """The n contexts that the app would send for positions (n, f): {feature: value}, in the feature's own units."""
    columns = [_feature_values(f, position[:, j]) for j, f in enumerate(declared.values())]
    names = tuple(declared)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def positions(declared: Features, values: Mapping[str, Sequence[Any]]) -> Array:
    """Positions (n, f) of features in their own units, {feature: n values}; the inverse of `contexts`. Numbers outside
    the declared range are clipped to it.
    """
    return np.column_stack([_position(feature, values[name]) for name, feature in declared.items()])


def of_encoded(declared: Features, x: Array) -> Array:
    """Positions (n, f) of encoded contexts x (n, d); a missing feature has that of its default."""
    columns, at = list[Array](), 1
    for feature in declared.values():
        wide = len(feature.values) if feature.type == "category" else 1
        own = x[:, at : at + wide]
        at += wide
        if feature.type == "category":
            columns.append(own.argmax(axis=1).astype(np.float64))
        else:
            columns.append((own[:, 0] + 1.0) / 2.0 if feature.type == "number" else own[:, 0])
    return np.column_stack(columns) if columns else np.zeros((len(x), 0))


def shift_and_slope(declared: Features) -> tuple[Array, Array]:
    """(shift, slope), (f,) each: position · slope − shift is 2p − 1 of a number at p, a boolean as it is, and 0 of a
    category.
    """
    number = np.array([f.type == "number" for f in declared.values()])
    numeric = np.array([f.type != "category" for f in declared.values()])
    return number.astype(np.float64), np.where(number, 2.0, 1.0) * numeric


def _position(feature: Feature, values: Sequence[Any]) -> Array:
    if feature.type == "category":
        index = {value: i for i, value in enumerate(feature.values)}
        return np.array([index[value] for value in values], dtype=np.float64)
    numbers = np.array(values, dtype=np.float64)
    if feature.type == "boolean":
        return numbers
    low, high = float(feature.min or 0.0), float(feature.max or 0.0)
    inside = np.clip(numbers, low, high) - low
    return np.log1p(inside) / math.log1p(high - low) if feature.scale == "log" else inside / (high - low)


def _feature_values(feature: Feature, position: Array) -> list[Any]:
    """What the app would send for these positions."""
    if feature.type == "category":
        return [feature.values[int(v)] for v in position]
    if feature.type == "boolean":
        return [bool(v) for v in position]
    low, high = float(feature.min or 0.0), float(feature.max or 0.0)
    if feature.scale == "log":
        return list(low + np.expm1(position * math.log1p(high - low)))
    return list(low + position * (high - low))
