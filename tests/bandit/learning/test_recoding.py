"""Contexts under wider ranges: what encoding the values themselves would have given, to one step of the grid."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.belief import X_GRID
from bandit.catalogue.model import Feature, Reward, Stage
from bandit.features import encode, schema
from bandit.learning.recoding import contexts, recoded, wider

STEP = 1.0 / X_GRID


def stage(scale: Any = "linear", *, low: float = 0.0, high: float = 100.0, **more: Any) -> Stage:
    features = {
        "plan": Feature(type="category", values=["free", "pro"], default="free"),
        "age": Feature(type="number", min=low, max=high, default=max(low, 30.0), scale=scale),
        "back": Feature(type="boolean", default=False),
    }
    return Stage(reward=Reward(kind="binary", window="1h"), features=features, **more)


def x_of(declared: Stage, *ages: float | None) -> Any:
    layout = schema(declared.features)
    rows = [{"age": age, "plan": ("free", "pro")[n % 2], "back": bool(n % 3)} for n, age in enumerate(ages)]
    return np.array([encode(layout, row).x for row in rows])


@given(
    ages=st.lists(st.floats(0.0, 100.0) | st.none(), min_size=1, max_size=20),
    below=st.floats(0.0, 1e6),
    above=st.floats(0.0, 1e6),
)
def test_a_wider_linear_range_gives_what_encoding_again_would(
    ages: list[float | None], below: float, above: float
) -> None:
    was, now = stage(), stage(low=-below, high=100.0 + above)
    again = recoded(x_of(was, *ages), was, now)
    assert np.abs(again - x_of(now, *ages)).max() <= STEP
    assert np.array_equal(np.rint(again * X_GRID), again * X_GRID), "on the grid: sums of it are exact"
    assert np.abs(again).max() <= 1.0


@given(ages=st.lists(st.floats(5.0, 100.0) | st.none(), min_size=1, max_size=20), above=st.floats(0.0, 1e6))
def test_a_wider_logarithmic_range_of_the_same_minimum_does_too(ages: list[float | None], above: float) -> None:
    was, now = stage("log", low=5.0), stage("log", low=5.0, high=100.0 + above)
    again = recoded(x_of(was, *ages), was, now)
    assert np.abs(again - x_of(now, *ages)).max() <= STEP
    assert np.array_equal(np.rint(again * X_GRID), again * X_GRID)


def test_both_ends_and_the_middle_by_hand() -> None:
    was, now = stage(), stage(low=-100.0, high=300.0)
    column = schema(was.features).columns.index("age")
    assert recoded(x_of(was, 0.0, 50.0, 100.0, 1e9), was, now)[:, column].tolist() == [-0.5, -0.25, 0.0, 0.0]


def test_nothing_else_moves_and_what_was_given_stays() -> None:
    was, now = stage(), stage(high=1000.0)
    x = x_of(was, 10.0, None, 99.0)
    before, again = x.copy(), recoded(x, was, now)
    others = [i for i, name in enumerate(schema(was.features).columns) if name != "age"]
    assert np.array_equal(again[:, others], x[:, others])
    assert np.array_equal(x, before)
    assert recoded(x, was, was) is x
    assert recoded(x, was, stage(high=1000.0, schema=2)) is x, "another schema learns nothing from it"


def test_rows_of_several_declarations_are_each_encoded_from_their_own() -> None:
    first, second, now = stage(), stage(high=200.0), stage(high=400.0)
    specs = {spec.digest(): spec for spec in (first, second, now)}
    x = np.vstack([x_of(spec, 80.0) for spec in (first, second, now, first)])
    again = contexts(x, [spec.digest() for spec in (first, second, now, first)], specs, now)
    assert np.abs(again - np.vstack([x_of(now, 80.0)] * 4)).max() <= STEP


@pytest.mark.parametrize(
    ("was", "now", "names"),
    [
        (stage(), stage(high=200.0), ["age"]),
        (stage(), stage(low=-1.0), ["age"]),
        (stage(), stage(high=200.0, floor=0.05), ["age"]),
        (stage("log"), stage("log", high=200.0), ["age"]),
        (stage(), stage(), []),
        (stage(), stage(high=99.0), []),
        (stage(), stage(low=1.0, high=200.0), []),
        (stage("log"), stage("log", low=-1.0), []),
        (stage(), stage("log", high=200.0), []),
        (stage(), stage(high=200.0, schema=2), []),
        (stage(), msgspec.structs.replace(stage(high=200.0), reward=Reward(kind="continuous", window="1h")), []),
        (stage(), msgspec.structs.replace(stage(high=200.0), features={}), []),
    ],
)
def test_only_wider_ranges_can_be_encoded_again(was: Stage, now: Stage, names: list[str]) -> None:
    assert wider(was, now) == names


def test_the_order_of_the_features_is_part_of_what_columns_mean() -> None:
    now = stage(high=200.0)
    turned = msgspec.structs.replace(now, features=dict(reversed(now.features.items())))
    assert wider(stage(), turned) == []
