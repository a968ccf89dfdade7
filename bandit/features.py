"""Feature encoder: context → x, a float vector on the 2⁻¹² grid with every element in [−1, 1].

Layout: the constant 1; then for each declared feature its columns (number: 1, boolean: 1, category: one for each
value); then one missing indicator for each feature.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from reprlib import repr as brief
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.belief import X_GRID
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import Feature, Stage
from bandit.errors import InvalidRequest, Problem
from bandit.policies.shared import Shared

Given = object
"""What a caller may send: a text, number, boolean or null; anything else is refused by name."""


class EncodedContext(NamedTuple):
    """Encoded context: x (d,) on the grid, and notes for the caller: what was missing, clipped, or taken as "other"."""

    x: Array
    notes: tuple[str, ...]


class Schema(NamedTuple):
    """Schema: the encoding of one stage's features, made once for each snapshot.

    Guarantees: `columns` are in the order of x; `keys` are equal in two stages only where the columns mean the same,
    which is what stages may share across. Immutable.

        x, notes = encode(of(stage), {"cart_value": 42.0})
    """

    features: dict[str, Feature]
    columns: tuple[str, ...]  # d names
    keys: tuple[str, ...]  # d
    numbers: dict[str, "_Range"]  # of those features that are numbers


class _Range(NamedTuple):
    """Range of a number: its ends, and ln(1 + high − low) on a logarithmic scale, 0 on a linear one."""

    low: float
    high: float
    logarithm: float

    def scaled(self, value: float) -> float:
        """Column of a value in the range, in [−1, 1]."""
        if self.logarithm:
            scaled = 2.0 * math.log1p(value - self.low) / self.logarithm - 1.0
        else:
            scaled = 2.0 * (value - self.low) / (self.high - self.low) - 1.0
        return round(scaled * X_GRID) / X_GRID  # ties to even


def schema(features: dict[str, Feature]) -> Schema:
    """Schema of declared features: names and keys of the columns in the order of x."""
    columns, keys, missing = ["1"], ["1"], list[str]()
    for name, feature in features.items():
        own = [f"{name}={v}" for v in feature.values] if feature.type == "category" else [name]
        meaning = f"{feature.min} {feature.max} {feature.scale}" if feature.type == "number" else feature.type
        columns += own
        keys += [f"{column}: {meaning}" for column in own]
        missing.append(f"{name} missing")
    numbers = {name: _range(feature) for name, feature in features.items() if feature.type == "number"}
    return Schema(features, (*columns, *missing), (*keys, *missing), numbers)


def _range(feature: Feature) -> _Range:
    low, high = float(feature.min or 0.0), float(feature.max or 0.0)
    return _Range(low, high, math.log1p(high - low) if feature.scale == "log" else 0.0)


def middle(feature: Feature) -> float:
    """Value at which the column of a number is 0: the middle of its declared range on its scale, in its own unit."""
    assert feature.min is not None  # noqa: S101 - a checked catalogue gives every number its range
    assert feature.max is not None  # noqa: S101
    span = feature.max - feature.min
    return feature.min + (math.sqrt(1.0 + span) - 1.0 if feature.scale == "log" else 0.5 * span)


def of(stage: Stage) -> Schema:
    """Schema of a stage: of its features, or, where actions come with the request, of as many hashed columns as the
    shared policy has.
    """
    if not isinstance(stage.policy, Shared):
        return schema(stage.features)
    columns = ("1", *(f"hashed {i}" for i in range(1, stage.policy.columns)))
    return Schema({}, columns, columns, {})


def encode(layout: Schema, context: Mapping[str, Given]) -> EncodedContext:
    """Encoded context of one request: x (d,) and notes. A missing (or null) feature takes its default and sets its
    indicator; a number outside its range is clipped and said in the notes.

    Raises InvalidRequest, which names every unknown feature and wrong type at once (`context.NAME`).
    """
    problems = [
        Problem(f"context.{name}", "unknown feature", closest(name, layout.features))
        for name in context
        if name not in layout.features
    ]
    x, missing = [1.0], list[float]()
    notes: list[str] = []
    for name, feature in layout.features.items():
        value = context.get(name)
        missing.append(float(value is None))
        span = layout.numbers.get(name)
        if span and (type(value) is float or type(value) is int) and span.low <= value <= span.high:
            x.append(span.scaled(value))  # what most requests send: no call for it
            continue
        try:
            x += _columns(name, feature, feature.default if value is None else value, notes)
        except _RefusedError as refused:
            problems.append(Problem(f"context.{name}", *refused.args))
    if problems:
        raise InvalidRequest(*problems)
    if any(missing):
        absent = ", ".join(name for name, gone in zip(layout.features, missing, strict=True) if gone)
        notes.append(f"missing, declared defaults used: {absent}")
    return EncodedContext(np.array(x + missing), tuple(notes))


class DecodedFeature(NamedTuple):
    """Decoded feature of n contexts: `values` (n,) are numbers, booleans or texts; `missing` (n,): it was not sent, and
    the value is the declared default.
    """

    values: NDArray[Any]
    missing: NDArray[np.bool_]


def decode(layout: Schema, x: Array) -> dict[str, DecodedFeature]:
    """Decoded features by name of contexts x (n, d) that `encode` made, in the units in which they were sent.

    A number is the roundest decimal, with the fewest digits, of those that are encoded as this x: a step of the grid
    wide, 1 / 8192 of a linear range. So a whole number comes back as it was sent where that step is less than 1. One
    that was clipped comes back as the end of its range, a text that was not declared as "other".
    """
    at, gone = 1, len(layout.columns) - len(layout.features)
    found = dict[str, DecodedFeature]()
    for i, (name, feature) in enumerate(layout.features.items()):
        width = len(feature.values) if feature.type == "category" else 1
        own = x[:, at : at + width]
        values: NDArray[Any]
        if feature.type == "category":
            values = np.array(feature.values)[own.argmax(axis=1)]
        elif feature.type == "boolean":
            values = own[:, 0] > 0.0
        else:
            table = _roundest(float(feature.min or 0.0), float(feature.max or 0.0), logarithmic=feature.scale == "log")
            values = table[np.rint((own[:, 0] + 1.0) * X_GRID).astype(np.intp)]
        found[name] = DecodedFeature(values, x[:, gone + i] > 0.0)
        at += width
    return found


@lru_cache(maxsize=256)
def _roundest(low: float, high: float, *, logarithmic: bool) -> Array:
    """Roundest number in [low, high] for each point of the grid, −1 to 1: the first of ever more digits whose place on
    the scale rounds to the point.
    """
    points = np.arange(-X_GRID, X_GRID + 1.0)
    span, scaled = high - low, points / X_GRID
    exact = low + (np.expm1((scaled + 1.0) / 2.0 * np.log1p(span)) if logarithmic else (scaled + 1.0) / 2.0 * span)
    found, left = np.clip(exact, low, high), np.ones(len(points), dtype=np.bool_)
    most = math.ceil(math.log10(max(abs(low), abs(high), 1e-300)))
    for digits in range(-most, _DIGITS - most):
        tried = np.clip(np.round(exact, digits), low, high)
        place = np.log1p(tried - low) / np.log1p(span) if logarithmic else (tried - low) / span
        fits = left & (np.rint((2.0 * place - 1.0) * X_GRID) == points)
        found[fits], left[fits] = tried[fits] + 0.0, False
        if not left.any():
            break
    found.flags.writeable = False
    return found


_DIGITS = 15  # of a number, at most


class _RefusedError(Exception):
    """(problem, fix) of one value."""


def _columns(name: str, feature: Feature, value: Given, notes: list[str]) -> list[float]:
    if feature.type == "boolean":
        if not isinstance(value, bool):
            raise _RefusedError(f"{_shown(value)} is not a boolean", "send true or false")
        return [float(value)]
    if feature.type == "category":
        if not isinstance(value, str):
            raise _RefusedError(f"{_shown(value)} is not a text", f"send one of {', '.join(feature.values)}")
        if value not in feature.values:
            if "other" not in feature.values:
                raise _RefusedError(f"{_shown(value)} is not one of its values", closest(value, feature.values))
            notes.append(f'{name}: {_shown(value)} is not a declared value, taken as "other"')
            value = "other"
        return [float(value == v) for v in feature.values]
    number = value if type(value) is float else _number(value)
    if not math.isfinite(number):
        fix = f"send a number in [{feature.min:g}, {feature.max:g}]"
        raise _RefusedError(f"{_shown(value)} is not a finite number", fix)
    return [_scaled(name, feature, number, notes)]


def _number(value: Given) -> float:
    """`value` as a float, infinite if it is too large for one; NaN if it is not a number."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.inf


def _shown(value: Given) -> str:
    """`value` in a few words, whatever it is."""
    try:
        return brief(value)
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits
        return "an enormous number"


def _scaled(name: str, feature: Feature, value: float, notes: list[str]) -> float:
    span = _range(feature)
    if not span.low <= value <= span.high:
        clipped = min(max(value, span.low), span.high)
        notes.append(f"{name}: {value:g} is outside [{span.low:g}, {span.high:g}], clipped to {clipped:g}")
        value = clipped
    return span.scaled(value)
