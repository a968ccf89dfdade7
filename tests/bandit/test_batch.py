"""Batches of decisions: propensities, floor, draw and the engine's own choice against the same things one by one."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.engine import PreparedPolicy, choose, choose_many, prepare
from bandit.errors import InvalidRequest, PropensityError
from bandit.policies import Beta, EpsilonGreedy, Fixed, Hierarchical, Linear, LinUCB, Logistic, Uniform
from bandit.policies.protocol import ArmEconomics
from bandit.policies.quadratic_forms import forms
from bandit.propensity import batching, correlated, gaussian, transforms
from bandit.propensity.draw import draw, draw_many
from bandit.propensity.floor import UNITS, apportioned, apportioned_many, floored, floored_many
from bandit.snapshot import Snapshot

seeds = st.integers(0, 2**32 - 1)


def some(rng: np.random.Generator, n: int, k: int) -> Mask:
    """At least one arm in each row, each with probability 0.8."""
    eligible = rng.random((n, k)) < 0.8
    eligible[np.arange(n), rng.integers(0, k, n)] = True
    return eligible


def on_grid(rng: np.random.Generator, n: int, d: int) -> Array:
    """Contexts as they are encoded."""
    return np.asarray(np.rint(rng.uniform(-1, 1, (n, d)) * 4096) / 4096, dtype=np.float64)


# -- independent scores ----------------------------------------------------------------------------------------


def laws(rng: np.random.Generator, n: int, k: int) -> tuple[Array, Array]:
    """Rows of every kind: alike, decades apart in width, tied, dominated, far apart."""
    spread, width = 10 ** rng.uniform(-4, 1.5, (n, 1)), rng.choice([0.02, 0.5, 1.0, 3.0], (n, 1))
    mean = np.where(rng.random((n, k)) < 0.2, 0.0, rng.normal(0, 1, (n, k)) * spread)
    return mean, 10 ** (rng.uniform(-1, 1, (n, k)) * width)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 9, 14, 20])
def test_independent_scores_of_a_batch_win_as_often_as_one_by_one(k: int) -> None:
    rng = np.random.default_rng(k)
    (mean, sd), eligible = laws(rng, 600, k), some(rng, 600, k)
    p = gaussian.gaussian_many(mean, sd, eligible)
    assert (p[~eligible] == 0.0).all()
    for row, e, m, s in zip(p, eligible, mean, sd, strict=True):
        assert row[e].tobytes() == gaussian.gaussian(m[e], s[e]).tobytes()


def test_rows_that_one_grid_cannot_hold_go_to_the_panels() -> None:
    """Half the rows have a needle among wide arms: the batch has both, and both are right."""
    rng = np.random.default_rng(1)
    mean, sd = rng.normal(0, 1, (200, 4)), np.ones((200, 4))
    sd[::2, 0] = 1e-4
    assert gaussian.trapezoid(mean[0].tolist(), sd[0].tolist()).sum() == 0.0
    p = gaussian.gaussian_many(mean, sd, np.ones((200, 4), dtype=bool))
    alone = np.array([gaussian.gaussian(*row) for row in zip(mean, sd, strict=True)])
    assert p.tobytes() == alone.tobytes()


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1.0])
def test_one_row_that_is_no_law_is_the_alarm_of_the_batch(position: int, wrong: float) -> None:
    values = [np.zeros((5, 3)), np.ones((5, 3))]
    values[position][3, 1] = wrong if position or wrong != -1.0 else np.nan
    with pytest.raises(PropensityError, match="not normal laws"):
        gaussian.gaussian_many(values[0], values[1], np.ones((5, 3), dtype=bool))
    out = np.ones((5, 3), dtype=bool)
    out[3, 1] = False  # what may not be shown may be anything
    assert np.isfinite(gaussian.gaussian_many(values[0], values[1], out)).all()


# -- correlated scores -----------------------------------------------------------------------------------------


def joint(rng: np.random.Generator, n: int, k: int) -> tuple[Array, Array]:
    """Random laws of correlated scores, of very different widths; some of low rank, some tied."""
    root = rng.normal(size=(n, k, k + 2)) * 10 ** rng.uniform(-0.5, 0.5, (n, k, 1))
    root[: n // 5, :, 2:] *= 1e-3
    own = root @ root.transpose(0, 2, 1) / (k + 2)
    size = np.sqrt(np.einsum("naa->na", own).mean(axis=1, keepdims=True))
    mean = rng.normal(0, 1, (n, k)) * size * rng.uniform(0.0, 2, (n, 1))
    mean[n // 5 : n // 4] = 0.0
    return mean, own + rng.uniform(0, 3, (n, 1, 1))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 9])
def test_correlated_scores_of_a_batch_win_as_often_as_one_by_one(k: int) -> None:
    rng = np.random.default_rng(k)
    (mean, covariance), eligible = joint(rng, 200, k), some(rng, 200, k)
    p = correlated.correlated_many(mean, covariance, eligible)
    assert (p[~eligible] == 0.0).all()
    for row, e, m, c in zip(p, eligible, mean, covariance, strict=True):
        assert row[e].tobytes() == correlated.correlated(m[e], c[np.ix_(e, e)]).tobytes()


@given(seed=seeds, k=st.integers(2, 8), n=st.integers(1, 40))
def test_neighbours_do_not_change_a_bit(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    (mean, covariance), eligible = joint(rng, n, k), some(rng, n, k)
    sd = np.sqrt(np.einsum("naa->na", covariance))
    joined, apart = (
        correlated.correlated_many(mean, covariance, eligible),
        gaussian.gaussian_many(mean, sd, eligible),
    )
    for row in (slice(i, i + 1) for i in range(n)):
        assert correlated.correlated_many(mean[row], covariance[row], eligible[row]).tobytes() == joined[row].tobytes()
        assert gaussian.gaussian_many(mean[row], sd[row], eligible[row]).tobytes() == apart[row].tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_row_that_is_no_joint_law_is_the_alarm_of_the_batch(bad: float) -> None:
    mean = np.zeros((4, 3))
    mean[2, 1] = bad
    with pytest.raises(PropensityError, match="not finite"):
        correlated.correlated_many(mean, np.tile(np.eye(3), (4, 1, 1)), np.ones((4, 3), dtype=bool))
    with pytest.raises(PropensityError, match="at most 64"):
        correlated.correlated_many(np.zeros((2, 65)), np.tile(np.eye(65), (2, 1, 1)), np.ones((2, 65), dtype=bool))


# -- transforms, floor and draw --------------------------------------------------------------------------------


@given(seed=seeds, k=st.integers(1, 9), floor=st.floats(0, 0.1))
def test_floor_transforms_and_draw_of_rows_are_those_of_each_row(seed: int, k: int, floor: float) -> None:
    rng = np.random.default_rng(seed)
    n = 25
    eligible = some(rng, n, k)
    p = np.where(eligible, rng.gamma(10 ** rng.uniform(-2, 1, (n, 1)), size=(n, k)) + 1e-12, 0.0)
    p[:3] = np.eye(k)[eligible[:3].argmax(axis=1)]  # sure things
    p /= p.sum(axis=1, keepdims=True)
    lifted = floored_many(p, floor, eligible)
    rows = list(zip(p, [floor] * n, eligible, strict=True))
    assert np.array_equal(lifted, [floored(*row) for row in rows])
    drawn = apportioned_many(p, floor, eligible)
    assert np.array_equal(drawn, [apportioned(*row) for row in rows])
    assert (drawn[eligible] >= floor).all() or floor * k > 1.0 - k / UNITS
    assert (drawn.sum(axis=1) == 1.0).all()
    assert np.array_equal(np.rint(drawn * UNITS), drawn * UNITS)
    assert (np.abs(drawn - lifted) < (k + 1) / UNITS).all()
    assert (lifted[eligible] >= floor).all()
    np.testing.assert_allclose(lifted.sum(axis=1), 1.0, rtol=0, atol=1e-14)
    assert np.array_equal(transforms.top_two_many(p, 0.4), [transforms.top_two(row, 0.4) for row in p])
    assert np.array_equal(transforms.ramp(p, 0.3), [transforms.ramp(row, 0.3) for row in p])
    u = np.where(rng.random(n) < 0.3, rng.choice([0.0, 1.0 - 2.0**-53, 1.0], n), rng.random(n))
    assert draw_many(p, u).tolist() == [draw(*row) for row in zip(p, u, strict=True)]


def test_rows_that_are_no_distribution_are_refused() -> None:
    p = np.array([[0.5, 0.5], [0.5, 0.4]])
    with pytest.raises(PropensityError, match=r"row 1, \[0.5, 0.4\]"):
        floored_many(p, 0.0, np.ones((2, 2), dtype=bool))


def test_the_draw_of_a_batch_has_the_stated_frequencies() -> None:
    """200,000 draws. False alarm ≤ 1e-6 (χ², 3 degrees); detects 0.015 moved between two arms with 1 − 1e-6."""
    p = np.array([0.1, 0.0, 0.25, 0.05, 0.6])
    arm = draw_many(np.tile(p, (200_000, 1)), np.random.default_rng(3).random(200_000))
    count = np.bincount(arm, minlength=5)
    assert count[1] == 0
    some_ = p > 0
    assert ((count[some_] - 2e5 * p[some_]) ** 2 / (2e5 * p[some_])).sum() < 30.7


# -- scores ----------------------------------------------------------------------------------------------------


@given(seed=seeds, k=st.integers(1, 12), d=st.integers(1, 24), n=st.integers(1, 300))
def test_products_of_a_batch_are_those_of_each_row(seed: int, k: int, d: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    mean, root, x = rng.normal(size=(k, d)), rng.normal(size=(3, d, d)), on_grid(rng, n, d)
    form = root + root.transpose(0, 2, 1)
    prepare = forms(mean, form)
    means, quadratic = prepare.many(x)
    np.testing.assert_allclose(means, x @ mean.T, rtol=0, atol=d * 2.0**-32)
    np.testing.assert_allclose(quadratic, np.einsum("nd,qde,ne->nq", x, form, x), rtol=0, atol=d * d * 2.0**-30)
    row = int(rng.integers(n))
    alone = prepare.one(x[row])
    assert (alone[0].tobytes(), alone[1].tobytes()) == (means[row].tobytes(), quadratic[row].tobytes())


@given(seed=seeds, d=st.integers(1, 128), size=st.integers(-20, 20))
def test_sums_of_a_score_are_exact_in_any_order(seed: int, d: int, size: int) -> None:
    """Against whole fractions; so no order, fusion or thread of a library can show."""
    rng = np.random.default_rng(seed)
    root, x = rng.normal(size=(1, d, d)) * 2.0**size, on_grid(rng, 1, d)[0]
    x[0] = 1.0
    prepare = forms(rng.normal(size=(2, d)) * 2.0**size, root + root.transpose(0, 2, 1))
    means, quadratic = prepare.one(x)
    exact = [Fraction(v) for v in x.tolist()]
    for mean, row in zip(means.tolist(), prepare.stacked[-2:].tolist(), strict=True):
        assert Fraction(mean) == sum(a * Fraction(b) for a, b in zip(exact, row, strict=True))
    inner = [sum(a * Fraction(b) for a, b in zip(exact, row, strict=True)) for row in prepare.stacked[:-2].tolist()]
    assert all(Fraction(float(v)) == v for v in inner), "G x is exact before it is rounded"
    sharp = float(prepare.sharp[0])
    rounded = [Fraction((float(v) + sharp) - sharp) for v in inner]
    assert Fraction(float(quadratic[0])) == sum(a * b for a, b in zip(exact, rounded, strict=True))


@given(seed=seeds, n=st.integers(0, 30), k=st.integers(1, 6))
def test_groups_hold_every_row_once_with_its_arms(seed: int, n: int, k: int) -> None:
    live = np.random.default_rng(seed).random((n, k)) < 0.5
    seen = np.zeros_like(live)
    for m, rows, arms in batching.by_number(live):
        assert arms.shape == (len(rows), m)
        assert not seen[rows[:, None], arms].any()
        seen[rows[:, None], arms] = True
    assert np.array_equal(seen, live)


@pytest.mark.parametrize("policy", [Logistic(), Hierarchical(), Linear()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("gain", [[1.0, 1.0, 0.4, 0.4], [1.0, 1.0, 1.0, 1.0]])
def test_rows_whose_arms_are_worth_the_same_are_compared_as_such(
    make_belief: Callable[..., Belief], policy: Any, gain: list[float]
) -> None:
    """Utilities where what may be shown differs in gain or cost, else the scores: decided row by row."""
    arms = ArmEconomics(
        ("none", "a", "b", "c"), ("none", "x", "x", "y"), np.array(gain), np.array([0.0, 0.0, 0.0, 0.1])
    )
    posterior = policy.posterior(make_belief(4, 3, 200, 1), arms)
    eligible = np.array(
        [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], dtype=bool
    )
    x = on_grid(np.random.default_rng(2), 6, 3)
    alone = [posterior.choose(*row).propensity for row in zip(x, eligible, strict=True)]
    assert np.array_equal(posterior.choose_many(x, eligible).propensity, alone)


# -- the engine ------------------------------------------------------------------------------------------------

Go = Callable[..., PreparedPolicy]
POLICIES: list[Any] = [
    Linear(),
    Logistic(),
    Hierarchical(),
    Beta(),
    Uniform(),
    Fixed("reminder"),
    EpsilonGreedy(),
    LinUCB(),
]


@pytest.fixture(scope="session")
def live(make_stage: Callable[..., Stage], make_belief: Callable[..., Belief]) -> Go:
    belief = make_belief(5, 11, 300, 0)
    return lambda **fields: prepare(Snapshot("shop", "checkout", make_stage(**fields), 300, belief))


@pytest.mark.parametrize("fields", [{}, {"top_two": 0.6}, {"ramp": 0.3}, {"top_two": 0.5, "ramp": 0.5}], ids=repr)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_the_engine_chooses_for_many_as_for_one(live: Go, policy: Any, fields: dict[str, float]) -> None:
    now, rng = live(policy=policy, floor=0.03, **fields), np.random.default_rng(7)
    x = np.rint(rng.uniform(-1, 1, (150, 11)) * 4096) / 4096
    eligible = some(rng, 150, 5)
    eligible[:, 0] = True
    many = choose_many(now, x, eligible)
    for row, scores in enumerate(choose(now, *ask) for ask in zip(x, eligible, strict=True)):
        for part, alone in zip(many, scores, strict=True):
            assert part[row].tobytes() == alone.tobytes()
    assert (many.propensity[eligible] >= 0.03).all()
    assert (many.propensity[~eligible] == 0.0).all()
    assert (many.propensity.sum(axis=1) == 1.0).all()


def test_no_rows_are_no_decisions(live: Go) -> None:
    assert [p.shape for p in choose_many(live(), np.zeros((0, 11)), np.zeros((0, 5), dtype=bool))] == [(0, 5)] * 3


@pytest.mark.parametrize(
    ("x", "eligible", "field"),
    [
        (np.zeros((2, 10)), np.ones((2, 5), dtype=bool), "x"),
        (np.zeros(11), np.ones((1, 5), dtype=bool), "x"),
        (np.full((2, 11), np.nan), np.ones((2, 5), dtype=bool), "x"),
        (np.zeros((2, 11)), np.ones((3, 5), dtype=bool), "eligible"),
        (np.zeros((2, 11)), np.zeros((2, 5), dtype=bool), "eligible"),
    ],
)
def test_a_batch_that_cannot_be_chosen_for_names_what_is_wrong(live: Go, x: Array, eligible: Mask, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        choose_many(live(), x, eligible)
    assert [problem.field for problem in caught.value.problems] == [field]
