"""Top-two and ramp: against the definition, their limits, and through a whole decision."""

import uuid
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit import engine
from bandit.belief import empty
from bandit.catalogue.model import Stage
from bandit.engine import DecisionQuery
from bandit.propensity import transforms
from bandit.propensity.floor import UNITS, floored
from bandit.snapshot import Snapshot

vectors = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=8).map(lambda v: np.array(v) / sum(v))


@given(p=vectors, beta=st.floats(0.01, 1.0))
def test_top_two_is_its_definition(p: np.ndarray, beta: float) -> None:
    """First winner i; kept with probability β, else redrawn until another arm j wins."""
    expected = np.zeros(len(p))
    for i in range(len(p)):
        expected[i] += beta * p[i]
        for j in range(len(p)):
            if j != i:
                expected[j] += (1 - beta) * p[i] * p[j] / (1 - p[i])
    np.testing.assert_allclose(transforms.top_two(p, beta), expected, rtol=0, atol=1e-12)
    assert transforms.top_two(p, beta).sum() == pytest.approx(1.0, abs=1e-12)


GRID = 1.0 / UNITS


def test_top_two_by_drawing() -> None:
    """200,000 draws; false alarm below 1e-6 (5 sds of 0.0011), detects an error of 0.012."""
    rng, p = np.random.default_rng(4), np.array([0.6, 0.25, 0.1, 0.05])
    first = rng.choice(4, 200_000, p=p)
    second = rng.choice(4, 200_000, p=p)
    while (same := second == first).any():
        second[same] = rng.choice(4, same.sum(), p=p)
    drawn = np.where(rng.random(200_000) < 0.5, first, second)
    np.testing.assert_allclose(np.bincount(drawn) / 200_000, transforms.top_two(p, 0.5), atol=0.0056)


def test_the_limits_of_top_two() -> None:
    sure = np.array([0.0, 1.0, 0.0])
    np.testing.assert_array_equal(transforms.top_two(sure, 0.5), sure)
    p = np.array([0.3, 0.7, 0.0])
    np.testing.assert_allclose(transforms.top_two(p, 1.0), p)
    assert transforms.top_two(p, 0.5)[2] == 0.0
    for small in (1e-6, 1e-12, 1e-17, 1e-200):
        near = transforms.top_two(np.array([1.0 - 3 * small, small, 2 * small]), 0.5)
        assert near.sum() == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(near, [0.5, 0.5 / 3, 1.0 / 3], rtol=1e-5)


def test_ramp_leaves_the_rest_to_no_nudge() -> None:
    np.testing.assert_allclose(transforms.ramp(np.array([0.2, 0.3, 0.5]), 0.1), [0.92, 0.03, 0.05])


def decided(stage: Stage, n: int = 40) -> list[np.ndarray]:
    d = len(Snapshot("a", "cart", stage, 0, empty(1, 1)).arms.columns)
    live = engine.prepare(Snapshot("a", "cart", stage, 0, empty(len(stage.arms), d)))
    result = []
    for i in range(n):
        decision = engine.decide(
            live, DecisionQuery(id=uuid.UUID(int=i), user_id=f"u{i}", context={}), now=0, salt=b"s"
        )
        again = engine.recompute(live, decision, b"s")
        assert np.array_equal(again.propensity, decision.propensity)
        assert decision.arm == again.arm
        result.append(decision.propensity)
    return result


def test_a_stage_declares_them_and_the_floor_comes_last(make_stage: Callable[..., Stage]) -> None:
    plain = msgspec.structs.replace(make_stage(), floor=0.02, holdout=0.0)
    p = decided(msgspec.structs.replace(plain, floor=0.0))[0]
    ramped = decided(msgspec.structs.replace(plain, ramp=0.2))[0]
    eligible = p > 0
    np.testing.assert_allclose(ramped, floored(transforms.ramp(p, 0.2), 0.02, eligible), rtol=0, atol=2 * GRID)
    assert ramped[eligible].min() >= 0.02
    both = decided(msgspec.structs.replace(plain, ramp=0.5, top_two=0.5))[0]
    expected = floored(transforms.ramp(transforms.top_two(p, 0.5), 0.5), 0.02, eligible)
    np.testing.assert_allclose(both, expected, rtol=0, atol=6 * GRID)


def test_a_price_makes_nudges_rarer_and_is_no_cost(make_stage: Callable[..., Stage]) -> None:
    plain = msgspec.structs.replace(make_stage(), floor=0.0, holdout=0.0)
    dear = msgspec.structs.replace(plain, price=0.05 * plain.reward.value)
    assert decided(dear)[0][0] > decided(plain)[0][0]
    name = next(n for n, nudge in plain.nudges.items() if nudge.evidence is None)
    priced = {**plain.nudges, name: msgspec.structs.replace(plain.nudges[name], price=0.05 * plain.reward.value)}
    one = msgspec.structs.replace(plain, nudges=priced)
    a = plain.arms.index(name)
    assert decided(one)[0][a] < decided(plain)[0][a]
    np.testing.assert_allclose(
        one.arm_economics.cost - plain.arm_economics.cost,
        0.05 / (plain.reward.max - plain.reward.min) * np.eye(len(plain.arms))[a],
    )


def test_a_paused_nudge_is_never_shown_and_says_why(make_stage: Callable[..., Stage]) -> None:
    stage = msgspec.structs.replace(make_stage(), holdout=0.0)
    name = next(n for n, nudge in stage.nudges.items() if nudge.evidence is None)
    paused = {**stage.nudges, name: msgspec.structs.replace(stage.nudges[name], paused=True)}
    stage = msgspec.structs.replace(stage, nudges=paused)
    assert all(p[stage.arms.index(name)] == 0.0 for p in decided(stage))
    d = len(Snapshot("a", "cart", stage, 0, empty(1, 1)).arms.columns)
    live = engine.prepare(Snapshot("a", "cart", stage, 0, empty(len(stage.arms), d)))
    ask = DecisionQuery(id=uuid.UUID(int=1), user_id="u", context={})
    assert engine.decide(live, ask, now=0, salt=b"s").excluded[name] == "paused in the catalogue"
