"""What changes from visit to visit, and that every random number belongs to its user and step."""

import msgspec
import numpy as np
import pytest
from scipy import special

from simulations import dynamics, scenario
from simulations.dynamics import GONE, PersonNoise, PopulationState, noise, traits
from simulations.scenario import Scenario

TRAVEL = scenario.load("travel")


def crowd(made: Scenario, users: int = 20_000, stages: tuple[str, ...] = ("cart",)) -> PopulationState:
    legs = dict(made.journey) if len(stages) > 1 else {}
    return PopulationState(made, traits(made, 1, users, 1.0, 0.0), stages, legs)


def visit(
    these: PopulationState,
    rows: np.ndarray,
    day: int,
    *,
    coupon: bool = False,
    nudged: bool = True,
    reward: bool = False,
) -> None:
    flags = {
        name: np.full(len(rows), value) for name, value in (("nudged", nudged), ("coupon", coupon), ("reward", reward))
    }
    these.after(rows, these.situation(rows, float(day)), **flags, chance=noise(1, day, rows, 3, 3))


def test_numbers_belong_to_user_and_step_whoever_else_is_there() -> None:
    everyone = noise(9, 4, np.arange(10_000), 5, 6)
    some = np.array([0, 3, 2047, 2048, 7777])
    alone = noise(9, 4, some, 5, 6)
    for whole, part in zip(everyone, alone, strict=True):
        assert np.array_equal(whole[some], part)
    other = noise(9, 5, some, 5, 6)
    assert not np.array_equal(alone.reward, other.reward)
    assert all(len(part) == 0 for part in noise(9, 4, np.zeros(0, dtype=np.intp), 5, 6))


def test_no_two_numbers_of_a_visit_are_the_same() -> None:
    given = noise(9, 4, np.arange(500), 5, 6)
    flat = np.concatenate([part.reshape(500, -1) for part in given], axis=1)
    assert len(np.unique(flat)) == flat.size == 500 * (5 + 6 + 6 + 2 + 1)


def test_a_user_is_the_same_in_a_larger_run() -> None:
    few, many = traits(TRAVEL, 3, 500, 30.0, 0.1), traits(TRAVEL, 3, 9000, 30.0, 0.1)
    for part, whole in zip(few, many, strict=True):
        assert np.array_equal(part, whole[:500])


def test_people_have_their_shares() -> None:
    """200,000 users: 5.2 standard errors (≤ 0.0011 each), five shares, false alarm ≤ 1e-6."""
    made = traits(TRAVEL, 4, 200_000, 28.0, 0.05)
    weights = [p.weight for p in TRAVEL.personas.values()]
    assert np.bincount(made.persona) / 200_000 == pytest.approx(np.array(weights), abs=0.006)
    assert made.holdout.mean() == pytest.approx(0.05, abs=0.0026)
    comparers = made.harvests[made.persona == 1].mean()
    assert comparers == pytest.approx(0.2, abs=0.007)
    assert not made.harvests[made.persona != 1].any()
    weekday = np.bincount(made.arrives.astype(int) % 7) / 200_000
    assert weekday == pytest.approx(np.array(TRAVEL.visits.weekly) / sum(TRAVEL.visits.weekly), abs=0.0045)


def test_fatigue_adds_up_and_fades() -> None:
    these, rows = crowd(TRAVEL), np.arange(100)
    visit(these, rows, 10)
    visit(these, rows, 12)
    keeps = TRAVEL.fatigue.keeps
    assert these.situation(rows, 15.0).fatigue == pytest.approx((keeps**2 + 1.0) * keeps**3)
    assert not these.situation(np.arange(100, 200), 15.0).fatigue.any()


def test_opt_outs_follow_their_hazard_and_some_leave() -> None:
    """20,000 users: 5.3 standard errors of two shares; false alarm ≤ 3e-7."""
    tired = msgspec.structs.replace(TRAVEL.fatigue, opt_out=-1.0, leaves=0.3)
    these, rows = crowd(msgspec.structs.replace(TRAVEL, fatigue=tired)), np.arange(20_000)
    visit(these, rows, 1)
    hazard = special.expit(-1.0)
    assert these.opted_out.mean() == pytest.approx(hazard, abs=0.017)
    assert (these.place == GONE)[these.opted_out].mean() == pytest.approx(0.3, abs=0.034)
    assert (these.place == GONE).sum() == (these.place == GONE)[these.opted_out].sum()


def test_nobody_opts_out_without_a_nudge() -> None:
    these, rows = crowd(TRAVEL), np.arange(20_000)
    visit(these, rows, 1, nudged=False)
    assert not these.opted_out.any()


def test_harvesters_learn_to_wait_and_others_do_not() -> None:
    these, rows = crowd(TRAVEL), np.arange(20_000)
    visit(these, rows, 1, coupon=True)
    visit(these, rows, 4, coupon=True)
    trained = these.situation(rows, 7.0).trained
    rules = TRAVEL.coupons
    assert np.unique(trained) == pytest.approx([0.0, 1.0 - (1.0 - rules.learns) ** 2])
    assert np.array_equal(trained > 0, these.traits.harvests)
    visit(these, rows, 7)
    assert these.situation(rows, 9.0).trained.max() == pytest.approx(trained.max() * (1.0 - rules.forgets))


def test_a_redeemed_coupon_pulls_the_next_purchase_forward_once() -> None:
    these, rows = crowd(TRAVEL), np.arange(50)
    visit(these, rows, 1, coupon=True, reward=True)
    assert (these.situation(rows, 4.0).pulled == TRAVEL.visits.pull_forward).all()
    visit(these, rows, 4)
    assert not these.situation(rows, 8.0).pulled.any()


def test_the_guard_counts_days_since_the_last_coupon() -> None:
    capped = msgspec.structs.replace(TRAVEL.coupons, cap_days=14.0)
    these, rows = crowd(msgspec.structs.replace(TRAVEL, coupons=capped)), np.arange(50)
    assert not these.capped(rows, 3.0).any()
    visit(these, rows, 3, coupon=True)
    assert these.capped(rows, 16.0).all()
    assert not these.capped(rows, 17.0).any()


def test_gaps_between_visits_have_their_median() -> None:
    """Half of 20,000 gaps are at most 3 days: standard error 0.0035; five of them, false alarm 6e-7."""
    these, rows = crowd(TRAVEL), np.arange(20_000)
    visit(these, rows, 5, nudged=False)
    assert (these.due - 5 <= 3.0).mean() == pytest.approx(0.5, abs=0.018)
    assert (these.due - 5).min() == 1.0


def test_people_walk_the_edges_of_the_journey() -> None:
    """Shares of 20,000 after silence at a stage, 5.2 standard errors (≤ 0.0036): false alarm ≤ 1e-6 for 4 edges."""
    stages = ("onboarding", "browsing", "cart", "checkout", "retention")
    these, rows = crowd(TRAVEL, stages=stages), np.arange(20_000)
    these.place[:] = 2
    visit(these, rows, 1, nudged=False)
    left = 1.0 - sum(TRAVEL.journey["cart"].otherwise.values())
    for name, share in (*TRAVEL.journey["cart"].otherwise.items(), ("", left)):
        place = stages.index(name) if name else GONE
        assert (these.place == place).mean() == pytest.approx(share, abs=0.019)
    these.place[:] = 1
    visit(these, rows, 1, nudged=False, reward=True)
    assert (these.place == 2).all()
    assert (these.due == 2.0).all(), "whoever goes on comes on the next day"


def test_noise_is_named_in_the_order_of_its_columns() -> None:
    assert PersonNoise._fields == (
        "normal",
        "uniform",
        "draw",
        "reward",
        "delay",
        "opt_out",
        "leave",
        "move",
        "proof",
        "gap",
    )
    assert dynamics.GONE == -1
