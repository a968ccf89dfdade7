"""The posterior of what brings rewards: on data whose parameters are known, and against the exact answer."""

import msgspec
import numpy as np
import pytest
from scipy import special

from bandit.arrays import Array
from simulations.offline.runner import EPOCH
from simulations.twin import reward_model
from simulations.twin.app_log import DAY, AppLog
from simulations.twin.reward_model import RewardParameters
from tests.simulations.twin.twin_worlds import log_of, one_stage, stage_of

STAGE = stage_of("fintech")
K = len(STAGE.arms)


def drawn_log(n: int, users: int | None, effects: Array, rng: np.random.Generator, user_sd: float = 0.0) -> AppLog:
    """A log whose rewards are drawn from the model itself: fatigue and slopes are 0. `users`: how many there are; None
    gives each decision another.
    """
    s = 1 + sum(len(f.values) if f.type == "category" else 1 for f in STAGE.features.values()) + len(STAGE.features)
    x = np.column_stack([np.ones(n), rng.uniform(-1, 1, (n, s - 1 - len(STAGE.features)))])
    x = np.column_stack([x, np.zeros((n, len(STAGE.features)))])
    user = np.arange(n) if users is None else rng.integers(users, size=n)
    arm = rng.integers(K, size=n)
    u = user_sd * rng.standard_normal(n if users is None else users)
    chance = special.expit(-1.0 + 0.5 * x[:, 1] + effects[arm] + u[user])
    return AppLog(
        user=user,
        at=EPOCH + np.sort(rng.integers(14 * DAY, size=n)),
        arm=arm,
        reward=(rng.random(n) < chance).astype(float),
        delay=np.full(n, np.nan),
        x=x,
        eligible=np.ones((n, K), dtype=bool),
        holdout=np.zeros(n, dtype=bool),
        out=np.zeros(n, dtype=bool),
    )


def test_parameters_are_found() -> None:
    """20,000 decisions, each of another user: standard errors are about .03, so .12 is missed once in 10,000."""
    rng = np.random.default_rng(1)
    effects = np.array([0.0, 0.3, -0.2, 0.1, 0.0, 0.4])
    log = drawn_log(20_000, None, effects, rng)
    found = reward_model.fit(STAGE, log, np.ones(K)).central
    assert found.base == pytest.approx(-1.0, abs=0.12)
    assert found.base_slopes[0] == pytest.approx(0.5, abs=0.12)
    np.testing.assert_allclose(found.effects, effects, atol=0.15)
    assert np.abs(found.slopes).max() < 0.15


def test_intervals_of_effects_cover() -> None:
    """40 logs × 5 effects, drawn from N(0, .2²): a 90 % interval that covers 90 % holds 180 of 200, sd 4.2. Below 164
    by chance once in 10,000; with intervals of 80 % it is below 164 with probability .74.
    """
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng([2, seed])
        effects = np.r_[0.0, 0.2 * rng.standard_normal(K - 1)]
        posterior = reward_model.fit(STAGE, drawn_log(1_000, None, effects, rng), np.ones(K))
        draws = np.array([posterior.draw(rng).effects[1:] for _ in range(200)])
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside += int(((low <= effects[1:]) & (effects[1:] <= high)).sum())
    assert 164 <= inside <= 197


def test_few_data_shrink_effects_to_what_nudges_do_on_average() -> None:
    rng = np.random.default_rng(3)
    posterior = reward_model.fit(STAGE, drawn_log(300, None, np.zeros(K), rng), np.ones(K))
    assert np.ptp(posterior.central.effects[1:]) < 0.1
    assert 0.1 < np.std([posterior.draw(rng).effects[1] for _ in range(200)]) < 0.5


def test_the_window_is_taken_off() -> None:
    """Where only half of the rewards come within the window, the chance of one is twice what is seen."""
    log = drawn_log(8_000, None, np.zeros(K), np.random.default_rng(4))
    whole, half = (reward_model.fit(STAGE, log, np.full(K, within)).central for within in (1.0, 0.5))
    assert special.expit(half.base) / special.expit(whole.base) == pytest.approx(2.0, abs=0.25)
    for p, within in ((whole, 1.0), (half, 0.5)):
        seen = reward_model.chances(STAGE, p, log, np.full(K, within))
        assert seen.mean() == pytest.approx(log.reward.mean(), abs=0.01)


def test_users_who_come_back_widen_it() -> None:
    """60 users who differ by 1.5 logits: decisions of one user are a cluster."""
    apart = reward_model.fit(STAGE, drawn_log(3_000, None, np.zeros(K), np.random.default_rng(5)), np.ones(K))
    few = reward_model.fit(STAGE, drawn_log(3_000, 60, np.zeros(K), np.random.default_rng(5), 1.5), np.ones(K))
    assert apart.design_effect < 1.1
    assert few.design_effect > 1.3


def test_users_who_come_back_widen_the_level_and_not_effects() -> None:
    """8 decisions a user, user effects of sd 1.5 logits: the level of rewards is known less surely than the precision
    says, by which all decisions are equally dependent; effects, which vary within users, more surely.
    """
    log = drawn_log(8_000, 1_000, np.zeros(K), np.random.default_rng(11), user_sd=1.5)
    posterior = reward_model.fit(STAGE, log, np.ones(K))
    point = posterior.points[int(posterior.weight.argmax())]
    precise = np.linalg.inv(point.root.T @ point.root)
    spread = precise @ point.spread @ point.spread.T @ precise
    wider = np.diag(spread) / np.diag(precise)
    effects = 5 + point.layout.s + (1 + point.layout.s) * np.arange(K - 1)
    assert wider[0] > 1.15
    assert (wider[effects] < 1.0).all()
    rng = np.random.default_rng(12)
    drawn = [posterior.draw(rng).base for _ in range(400)]
    assert np.std(drawn) == pytest.approx(np.sqrt(spread[0, 0]), rel=0.15)


def test_fatigue_is_seen() -> None:
    """People whom every nudge tires by half a logit: the posterior lies well above its prior of .03."""
    world = one_stage("fintech")
    tired = msgspec.structs.replace(world, fatigue=msgspec.structs.replace(world.fatigue, tires=0.5, dulls=0.0))
    found = [reward_model.fit(STAGE, log_of(w, users=2_500), np.ones(K)).central.tires for w in (world, tired)]
    assert found[0] < 0.05
    assert found[1] > 0.1


def test_draws_are_whole_and_not_negative_where_a_scenario_may_not_be() -> None:
    log = drawn_log(400, None, np.zeros(K), np.random.default_rng(6))
    posterior = reward_model.fit(STAGE, log, np.ones(K))
    rng = np.random.default_rng(7)
    for one in [posterior.draw(rng) for _ in range(50)]:
        assert min(one.season, one.tires, one.depth, one.pull) >= 0.0
        assert (one.effects[0], *one.slopes[0]) == (0.0,) * (1 + len(one.slopes[0]))
        assert all(np.isfinite(part).all() for part in one)


def test_a_log_without_nudges_leaves_the_prior() -> None:
    log = drawn_log(2_000, None, np.zeros(K), np.random.default_rng(8))
    log = log._replace(arm=np.zeros_like(log.arm))
    posterior = reward_model.fit(STAGE, log, np.ones(K))
    assert isinstance(posterior.central, RewardParameters)
    rng = np.random.default_rng(9)
    assert np.std([posterior.draw(rng).effects[1] for _ in range(300)]) > 0.2
