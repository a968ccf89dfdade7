"""Context → x: always on the grid, always in range, never a silent guess; what cannot be used is refused by name."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue.model import Feature, Stage
from bandit.errors import InvalidRequest
from bandit.features import Schema, decode, encode, schema


@pytest.fixture(scope="module")
def layout(make_stage: Callable[..., Stage]) -> Schema:
    return schema(make_stage().features)


def column(layout: Schema, context: dict[str, Any], name: str) -> float:
    return float(encode(layout, context).x[layout.columns.index(name)])


def refused(layout: Schema, context: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """field → (problem, fix) of everything that is wrong with `context`."""
    with pytest.raises(InvalidRequest) as caught:
        encode(layout, context)
    return {p.field: (p.problem, p.fix) for p in caught.value.problems}


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300)


@st.composite
def features(draw: st.DrawFn) -> dict[str, Feature]:
    """A schema of any kind and range."""
    made: dict[str, Feature] = {}
    for i in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["number", "boolean", "category"]))
        if kind == "number":
            low = draw(st.floats(-1e12, 1e12))
            high = low + draw(st.floats(1e-3, 1e12))
            scale = draw(st.sampled_from(["linear", "log"]))
            made[f"f{i}"] = Feature(type="number", default=low, min=low, max=high, scale=scale)  # type: ignore[arg-type]
        elif kind == "boolean":
            made[f"f{i}"] = Feature(type="boolean", default=draw(st.booleans()))
        else:
            made[f"f{i}"] = Feature(type="category", default="a", values=["a", "b", "other"])
    return made


@given(features(), st.data())
def test_every_element_is_on_the_grid_and_in_range(declared: dict[str, Feature], data: st.DataObject) -> None:
    fitting = {"number": numbers, "boolean": st.booleans(), "category": st.text(max_size=5) | st.just("b")}
    context = {name: data.draw(st.none() | fitting[f.type]) for name, f in declared.items()}
    layout = schema(declared)
    x = encode(layout, context).x
    assert x.shape == (len(layout.columns),)
    assert x[0] == 1.0
    assert (np.abs(x) <= 1.0).all()
    assert (x * 4096 == np.rint(x * 4096)).all()


def test_the_columns_are_named_in_the_order_of_x(layout: Schema) -> None:
    assert layout.columns == (
        *("1", "seconds", "visits", "returning", "device=mobile", "device=desktop", "device=other"),
        *("seconds missing", "visits missing", "returning missing", "device missing"),
    )
    x = encode(layout, {"seconds": 600, "visits": -5, "returning": True, "device": "desktop"}).x
    assert x.tolist() == [1, 1, -1, 1, 0, 1, 0, 0, 0, 0, 0]


def test_what_is_missing_takes_its_default_and_sets_its_indicator(layout: Schema) -> None:
    given = {"seconds": 60, "returning": False, "device": "mobile"}
    complete, partial = encode(layout, {**given, "visits": 0}), encode(layout, given)
    differs = [n for n, a, b in zip(layout.columns, complete.x, partial.x, strict=True) if a != b]
    assert differs == ["visits missing"]
    assert partial.notes == ("missing, declared defaults used: visits",)
    assert complete.notes == ()


def test_null_is_the_same_as_absent(layout: Schema) -> None:
    absent, null = encode(layout, {}), encode(layout, dict.fromkeys(layout.features))
    assert absent.x.tolist() == null.x.tolist()
    assert absent.notes == null.notes == ("missing, declared defaults used: seconds, visits, returning, device",)


@pytest.mark.parametrize(("value", "clipped"), [(7, 5), (-1e300, -5), (10**300, 5)])
def test_a_number_outside_its_range_is_clipped_and_said(layout: Schema, value: float, clipped: float) -> None:
    got, want = encode(layout, {"visits": value}), encode(layout, {"visits": clipped})
    assert got.x.tolist() == want.x.tolist()
    assert got.notes[0] == f"visits: {value:g} is outside [-5, 5], clipped to {clipped}"


@pytest.mark.parametrize(("value", "scaled"), [(-5, -1.0), (0, 0.0), (2.5, 0.5), (5, 1.0)])
def test_a_linear_number_is_scaled_from_its_range(layout: Schema, value: float, scaled: float) -> None:
    assert column(layout, {"visits": value}, "visits") == scaled


@given(st.floats(-5, 5))
def test_a_number_is_rounded_to_the_nearest_point_of_the_grid(layout: Schema, value: float) -> None:
    assert abs(column(layout, {"visits": value}, "visits") - value / 5) <= 2**-13 + 1e-12


@pytest.mark.parametrize(("value", "scaled"), [(0, -1.0), (600, 1.0), (math.sqrt(601) - 1, 0.0)])
def test_a_logarithmic_number_keeps_its_ends_and_bends_between(layout: Schema, value: float, scaled: float) -> None:
    """Halfway in log(1 + v): 1 + v = √(1 + 600)."""
    assert column(layout, {"seconds": value}, "seconds") == scaled


def test_more_is_never_encoded_as_less(layout: Schema) -> None:
    for name, low, high in (("seconds", 0, 600), ("visits", -5, 5)):
        encoded = [column(layout, {name: v}, name) for v in np.linspace(low, high, 300)]
        assert (np.diff(encoded) >= 0).all()


def test_an_unknown_category_is_taken_as_other_and_said(layout: Schema) -> None:
    encoded = encode(layout, {"device": "fridge"})
    assert encoded.x[layout.columns.index("device=other")] == 1.0
    assert encoded.notes[0] == "device: 'fridge' is not a declared value, taken as \"other\""


def test_without_other_an_unknown_category_is_refused_with_the_closest_value() -> None:
    layout = schema({"size": Feature(type="category", default="small", values=["small", "large"])})
    problem, fix = refused(layout, {"size": "smal"})["context.size"]
    assert problem == "'smal' is not one of its values"
    assert fix == "did you mean `small`? known: large, small"


def test_every_problem_is_reported_at_once_with_its_field_and_fix(layout: Schema) -> None:
    wrong = refused(layout, {"second": 3, "visits": "3", "returning": 1, "device": ["mobile"]})
    assert wrong == {
        "context.second": (
            "unknown feature",
            "did you mean `seconds`? known: device, returning, seconds, visits",
        ),
        "context.visits": ("'3' is not a finite number", "send a number in [-5, 5]"),
        "context.returning": ("1 is not a boolean", "send true or false"),
        "context.device": ("['mobile'] is not a text", "send one of mobile, desktop, other"),
    }


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        True,
        "1",
        [],
        [1],
        {},
        {"a": 1},
        10**400,
        -(10**400),
        10**5000,
        [10**5000],
        b"1",
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("name", ["seconds", "visits"])
def test_what_is_not_a_finite_number_is_refused_by_name(layout: Schema, name: str, value: object) -> None:
    problem, fix = refused(layout, {name: value})[f"context.{name}"]
    assert problem.endswith("is not a finite number")
    assert fix.startswith("send a number in")
    assert len(problem) < 120


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, b"", ...]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["seconds", "visits", "returning", "device", "x"]), anything))
def test_whatever_comes_is_encoded_or_refused_by_name(layout: Schema, context: dict[str, Any]) -> None:
    x, named = np.zeros(0), set[str]()
    try:
        x = encode(layout, context).x
    except InvalidRequest as refusal:
        named = {p.field for p in refusal.problems}
    assert (len(x) == len(layout.columns)) == (not named)
    assert (np.abs(x) <= 1.0).all()
    assert named <= {f"context.{name}" for name in context}


def test_a_stage_without_features_still_has_its_constant() -> None:
    assert encode(schema({}), {}).x.tolist() == [1.0]


@given(features(), st.data())
def test_what_is_decoded_is_encoded_in_the_same_way(declared: dict[str, Feature], data: st.DataObject) -> None:
    """Whatever was sent: the same x, and the same features missing."""
    fitting = {"number": numbers, "boolean": st.booleans(), "category": st.text(max_size=5) | st.just("b")}
    contexts = [{name: data.draw(st.none() | fitting[f.type]) for name, f in declared.items()} for _ in range(3)]
    layout = schema(declared)
    x = np.array([encode(layout, context).x for context in contexts])
    found = decode(layout, x)
    again = [
        {name: None if one.missing[i] else one.values[i].item() for name, one in found.items()} for i in range(len(x))
    ]
    for left, right in zip(contexts, again, strict=True):
        assert {name for name, value in left.items() if value is None} == {n for n, v in right.items() if v is None}
    assert np.array_equal([encode(layout, context).x for context in again], x)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_whole_numbers_come_back_as_they_were_sent(scale: Any) -> None:
    """Where a step of the grid is less than 1; a price comes back to a step, with no more digits than that needs."""
    declared = {"n": Feature(type="number", default=0.0, min=0.0, max=1000.0, scale=scale)}
    layout, sent = schema(declared), [float(n) for n in range(1001)]
    x = np.array([encode(layout, {"n": n}).x for n in sent])
    assert decode(layout, x)["n"].values.tolist() == sent
    (price,) = decode(layout, encode(layout, {"n": 419.87}).x[None])["n"].values
    assert abs(price - 419.87) <= {"linear": 0.13, "log": 0.37}[scale]
    assert len(str(price)) <= 5
