"""Estimators: equal to published numbers, to formulas written down again, and to exact expectations."""

import csv
import gzip
import json
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from bandit.arrays import Array
from experiments.data import files
from experiments.inference.intervals import Moments, interval
from experiments.inference.joint_moments import GROUPS, GroupSums, JointMoments, groups_of
from experiments.ope import estimators, slope_selection
from experiments.ope.estimators import EstimatorSettings, EstimatorSums, WeightedRounds
from experiments.ope.evaluation_policies import EvaluationPolicy, place

Shared = Callable[[str], Path]
DIRECTIONS = {"random->bts": "per_round_random_to_bts.csv.gz", "bts->random": "per_round_bts_to_random.csv.gz"}


def open_bandit(shared: Shared, direction: str) -> WeightedRounds:
    (rounds,) = files.open_log(shared(f"open_bandit_men/{DIRECTIONS[direction]}")).source()()
    return place(EvaluationPolicy("log"), rounds).weighted


def invented(seed: int, n: int = 3000) -> WeightedRounds:
    rng = np.random.default_rng(seed)
    return WeightedRounds((rng.random(n) < 0.1).astype(float), rng.gamma(0.5, 2.0, n), rng.random(n), rng.random(n))


def means(rounds: WeightedRounds, knobs: EstimatorSettings = EstimatorSettings()) -> dict[str, float]:  # noqa: B008
    return {name: moments.mean for name, moments in EstimatorSums.of(rounds, knobs).estimates().items()}


# -- published numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_fixed_parameter_estimate_of_the_open_bandit_data_is_obps(shared: Shared, direction: str) -> None:
    values = json.loads(shared("open_bandit_men/reference.json").read_text())["men"][direction]["values"]
    rounds = open_bandit(shared, direction)
    theirs = {"ips": "ipw", "snips": "snipw", "dm": "dm", "dr": "dr", "sndr": "sndr"}
    found = means(rounds)
    assert {ours: found[ours] for ours in theirs} == pytest.approx(
        {ours: values[name] for ours, name in theirs.items()}, abs=1e-12
    )
    for clip in (10, 100):
        assert means(rounds, EstimatorSettings(clip=clip))["clipped"] == pytest.approx(
            values[f"ipw_clip{clip}"], abs=1e-12
        )
    assert found["clipped_dr"] == pytest.approx(values["dr_clip10"], abs=1e-12)
    for tau in (1, 10, 50):
        assert means(rounds, EstimatorSettings(tau=tau))["switch_dr"] == pytest.approx(
            values[f"switch_dr_tau{tau}"], abs=1e-12
        )
    for shrink in (1, 10, 100):
        assert means(rounds, EstimatorSettings(shrink=shrink))["dros"] == pytest.approx(
            values[f"dros_lambda{shrink}"], abs=1e-12
        )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_weights_of_the_open_bandit_data_are_obps(shared: Shared, direction: str) -> None:
    known = json.loads(shared("open_bandit_men/reference.json").read_text())["men"][direction]["weights"]
    w = open_bandit(shared, direction).w
    assert float(w.mean()) == pytest.approx(known["mean"], rel=1e-10)
    assert float(w.max()) == pytest.approx(known["max"], rel=1e-10)
    assert float(w.sum() ** 2 / (w**2).sum()) == pytest.approx(known["ess"], rel=1e-10)


def test_estimates_of_the_synthetic_log_are_those_of_a_plain_loop(shared: Shared) -> None:
    """A second derivation: Python floats, one row at a time, from the file's text."""
    path = shared("synthetic_ope/synthetic_dev.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as text:
        table = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(text)]
    weight = weighted = direct = corrected = residual = 0.0
    for row in table:
        a, r = int(row["action"]), row["reward"]
        w = row[f"pi_e_{a}"] / row["pscore"]
        model = sum(row[f"pi_e_{b}"] * row[f"q_hat_{b}"] for b in range(6))
        weight, weighted, direct = weight + w, weighted + w * r, direct + model
        residual += w * (r - row[f"q_hat_{a}"])
        corrected += model + w * (r - row[f"q_hat_{a}"])
    n = len(table)
    wanted = {
        "ips": weighted / n,
        "snips": weighted / weight,
        "dm": direct / n,
        "dr": corrected / n,
        "sndr": direct / n + residual / weight,
    }
    (rounds,) = files.open_log(path).source()()
    found = means(place(EvaluationPolicy("log"), rounds).weighted)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)


# -- exact expectations ----------------------------------------------------------------------------------------


def expected(estimator: Callable[[Array, Array, Array, Array], Array], p: Array, pi: Array, q: Array) -> float:
    """Of one round whose rates are 0.3, 0.6, 0.1, over every arm and reward."""
    rates = np.array([0.3, 0.6, 0.1])
    total = 0.0
    for a, r in product(range(3), (0.0, 1.0)):
        chance = p[a] * (rates[a] if r else 1.0 - rates[a])
        one = [np.array([part]) for part in (r, pi[a] / p[a], q[a], float(pi @ q))]
        total += chance * float(estimator(one[0], one[1], one[2], one[3])[0])
    return total


P, PI, Q = np.array([0.05, 0.9, 0.05]), np.array([0.5, 0.1, 0.4]), np.array([0.9, 0.0, 0.4])
TRUTH = float(PI @ np.array([0.3, 0.6, 0.1]))


def test_ips_and_dr_are_unbiased_for_any_model() -> None:
    assert expected(lambda r, w, _q, _m: estimators.ips(r, w), P, PI, Q) == pytest.approx(TRUTH, abs=1e-15)
    assert expected(estimators.dr, P, PI, Q) == pytest.approx(TRUTH, abs=1e-15)


def test_thresholds_at_infinity_are_dr_and_at_zero_the_model() -> None:
    rounds = invented(1)
    r, w, q, model = rounds
    assert q is not None
    assert model is not None
    dr = estimators.dr(r, w, q, model)
    for most in (estimators.clipped_dr(r, w, q, model, np.inf), estimators.switch_dr(r, w, q, model, np.inf)):
        assert np.array_equal(most, dr)
    assert np.array_equal(estimators.dros(r, w, q, model, np.inf), dr)
    assert np.array_equal(estimators.dros(r, w, q, model, 0.0), estimators.dm(model))
    assert np.array_equal(estimators.switch_dr(r, w, q, model, 0.0), estimators.dm(model))
    assert np.array_equal(estimators.clipped(r, w, np.inf), estimators.ips(r, w))


def test_a_model_that_is_never_wrong_makes_dr_exact() -> None:
    r, w, _, model = invented(2)
    assert model is not None
    assert np.array_equal(estimators.dr(r, w, r, model), model)


def test_the_estimate_is_the_mean_of_the_rounds() -> None:
    rounds = invented(3)
    r, w, q, model = rounds
    assert q is not None
    assert model is not None
    each = {
        "ips": estimators.ips(r, w),
        "snips": estimators.snips(r, w),
        "dm": estimators.dm(model),
        "dr": estimators.dr(r, w, q, model),
        "sndr": estimators.sndr(r, w, q, model),
        "clipped": estimators.clipped(r, w),
        "clipped_dr": estimators.clipped_dr(r, w, q, model),
        "switch_dr": estimators.switch_dr(r, w, q, model),
        "dros": estimators.dros(r, w, q, model),
    }
    assert means(rounds) == pytest.approx({name: float(phi.mean()) for name, phi in each.items()}, abs=1e-12)


def test_a_policy_that_is_never_seen_has_no_self_normalised_value() -> None:
    r, w, q, model = invented(4)
    nothing = WeightedRounds(r, 0.0 * w, q, model)
    assert np.isnan(estimators.snips(r, nothing.w)).all()
    assert set(means(nothing)) == {"ips", "clipped", "dm", "dr", "clipped_dr", "switch_dr", "dros"}


def test_without_a_model_only_weights_estimate() -> None:
    r, w, _, _ = invented(5)
    assert set(means(WeightedRounds(r, w))) == {"ips", "snips", "clipped"}


# -- sums that merge -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(1,), (1500,), (7, 8, 2000)])
def test_parts_merge_into_the_whole(cuts: tuple[int, ...]) -> None:
    rounds, edges = invented(6), (0, *cuts, 3000)
    parts = [WeightedRounds(*(p[a:b] for p in rounds if p is not None)) for a, b in pairwise(edges)]
    total = EstimatorSums.of(parts[0])
    for part in parts[1:]:
        total += EstimatorSums.of(part)
    whole = EstimatorSums.of(rounds).estimates()
    for name, moments in total.estimates().items():
        assert (moments.mean, moments.m2, moments.m3) == pytest.approx(
            (whole[name].mean, whole[name].m2, whole[name].m3), rel=1e-9
        )


def test_moments_along_a_gradient_are_those_of_the_projected_rows() -> None:
    rng = np.random.default_rng(7)
    rows, gradient = rng.gamma(0.3, 5.0, (40_000, 4)), np.array([1.0, -2.0, 0.5, 0.0])
    found, direct = JointMoments.of(rows).along(gradient, 0.0), Moments.of(rows @ gradient)
    assert (found.m2, found.m3) == pytest.approx((direct.m2, direct.m3), rel=1e-9)


def test_snips_varies_like_its_influence_function() -> None:
    """Swaminathan & Joachims 2015: var ≈ Σ w²(r − θ)² / (Σw)²."""
    r, w, _, _ = invented(8)
    moments = EstimatorSums.of(WeightedRounds(r, w)).estimates()["snips"]
    theta = (w * r).sum() / w.sum()
    assert moments.mean == pytest.approx(theta)
    assert moments.m2 / moments.n**2 == pytest.approx(float((w**2 * (r - theta) ** 2).sum() / w.sum() ** 2))


def test_rounds_of_one_user_count_as_one_unit() -> None:
    """Each user's rows ten times over: the interval stays that of the users, not √10 narrower."""
    once = invented(9, 500)
    users = np.arange(500, dtype=np.int64)
    tenfold = WeightedRounds(*(np.repeat(part, 10) for part in once if part is not None))
    alone = EstimatorSums.of(once, group=groups_of(users)).estimates()
    repeated = EstimatorSums.of(tenfold, group=groups_of(np.repeat(users, 10))).estimates()
    for name, moments in repeated.items():
        assert interval(moments) == pytest.approx(interval(alone[name]), rel=1e-9)
    assert alone["snips"].n == len(np.unique(groups_of(users)))


def test_a_constant_does_not_vary_whatever_users_do() -> None:
    """A model that says 0.1 always: groups differ in their rounds, and rounding must not look like variance."""
    r, w, q, _ = invented(12)
    user = np.random.default_rng(12).integers(0, 700, 3000)
    found = EstimatorSums.of(WeightedRounds(r, w, q, np.full(3000, 0.1)), group=groups_of(user)).estimates()["dm"]
    assert (found.m2, found.m3) == (0.0, 0.0)
    assert found.mean == pytest.approx(0.1)


def test_users_spread_over_the_groups() -> None:
    """1,000 neighbouring numbers among 65,536 groups: 7.6 pairs expected to meet; more than 30 would be a bad hash."""
    assert len(np.unique(groups_of(np.arange(1000, dtype=np.int64)))) > 970
    assert groups_of(np.array([-1, 2**62], dtype=np.int64)).max() < GROUPS


def test_parts_with_and_without_users_do_not_merge() -> None:
    rounds = invented(10, 10)
    with pytest.raises(TypeError, match="users"):
        _ = EstimatorSums.of(rounds) + EstimatorSums.of(rounds, group=np.zeros(10, dtype=np.int64))
    assert isinstance(EstimatorSums.of(rounds, group=np.zeros(10, dtype=np.int64)).sums, GroupSums)


# -- SLOPE -----------------------------------------------------------------------------------------------------


def rung(mean: float, half: float) -> Moments:
    """Moments whose interval is mean ± half, of a symmetric sample so large that t is z."""
    n = 10**9
    return Moments(n=n, mean=mean, m2=(half / 1.959963985) ** 2 * n * n, modelled=False)


def test_slope_stops_where_an_estimate_leaves_those_before_it() -> None:
    """(√6 − 1) · 1 + 0.2 = 1.65: a rung 1.6 away is accepted, one 1.7 away is not."""
    first = (rung(0.0, 1.0), rung(0.1, 0.5))
    assert slope_selection.select((*first, rung(1.6, 0.2)) + (rung(9.0, 0.1),) * 5).moments.mean == pytest.approx(0.1)
    near = (rung(0.0, 1.0), rung(1.6, 0.2), rung(9.0, 0.1))
    assert slope_selection.select(near + (rung(9.0, 0.1),) * 5).moments.mean == pytest.approx(1.6)
    far = (rung(0.0, 1.0), rung(1.7, 0.2), rung(0.0, 0.1))
    assert slope_selection.select(far + (rung(0.0, 0.1),) * 5).threshold == np.inf


def test_slope_on_the_open_bandit_data_chooses_what_obp_chose(shared: Shared) -> None:
    """obp's `random->bts` choices. Its intervals differ from ours, so choices may; here they do not."""
    ladder = slope_selection.ThresholdLadder.of(open_bandit(shared, "random->bts"))
    found = ladder.chosen()
    assert {family: found[family].threshold for family in ("clipped_dr", "switch_dr", "dros")} == {
        "clipped_dr": 10.0,
        "switch_dr": 10.0,
        "dros": 10.0,
    }


def test_ladders_merge() -> None:
    rounds = invented(11)
    first, last = (
        WeightedRounds(*(p[rows] for p in rounds if p is not None)) for rows in (slice(1000), slice(1000, None))
    )
    merged, whole = (
        slope_selection.ThresholdLadder.of(first).merged(slope_selection.ThresholdLadder.of(last)),
        slope_selection.ThresholdLadder.of(rounds),
    )
    for family, rungs in merged.rungs.items():
        assert [m.mean for m in rungs] == pytest.approx([m.mean for m in whole.rungs[family]])
