"""Invented people: reproducible, and with a truth that is exact."""

import msgspec
import numpy as np
import pytest

from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Stage
from bandit.errors import CatalogueError, NotFound
from simulations import scenario
from simulations.datasets import hillstrom
from simulations.live.visitors import VisitorStream
from simulations.scenario import Scenario, load


def stage_of(found: Scenario) -> Stage:
    return parse(read_shipped(found.app)).stages[found.stage]


def world(app: str, seed: int = 1) -> VisitorStream:
    found = load(app)
    return VisitorStream(found, stage_of(found), seed)


@pytest.mark.parametrize("app", scenario.names())
def test_a_batch_is_the_same_whatever_came_before_it(app: str) -> None:
    first, second = world(app), world(app)
    for batch in (0, 1, 2):
        first.people(batch, 20)
    left, right = first.people(3, 20), second.people(3, 20)
    assert left.ids == right.ids
    assert left.decision_ids == right.decision_ids
    assert left.contexts == right.contexts
    assert np.array_equal(left.utility, right.utility)
    assert np.array_equal(left.converts, right.converts)


def test_other_seeds_and_batches_are_other_people() -> None:
    ids = {i for seed in (1, 2) for batch in (0, 1) for i in world("travel", seed).people(batch, 50).decision_ids}
    assert len(ids) == 200


@pytest.mark.parametrize("app", scenario.names())
def test_the_oracle_is_the_mean_of_what_people_do(app: str) -> None:
    """Per arm and overall: |z| ≤ 5.2, so a false alarm has probability ≤ 2e-6 per app with 10 arms at most.

    400,000 people detect any bias of a rate ≥ 0.005 with probability > 1 − 1e-6.
    """
    people = world(app).people(0, 400_000)
    error = people.converts - people.rate
    z = error.mean(axis=0) / (error.std(axis=0) / np.sqrt(len(error)))
    assert np.abs(z).max() < 5.2
    # … and given what can be seen, not only on average: among those with a high and a low predicted rate
    for a in range(people.rate.shape[1]):
        for half in (
            people.rate[:, a] > np.median(people.rate[:, a]),
            people.rate[:, a] <= np.median(people.rate[:, a]),
        ):
            part = error[half, a]
            assert abs(part.mean()) < 5.2 * part.std() / np.sqrt(len(part))


@pytest.mark.parametrize("app", scenario.names())
def test_without_a_nudge_the_base_rate_is_the_declared_one(app: str) -> None:
    found = load(app)
    rate = world(app).people(0, 100_000).rate[:, 0].mean()
    within = -np.expm1(-stage_of(found).reward.seconds / 3600 / found.delay_hours["none"])
    assert rate / within == pytest.approx(found.base, rel=0.02)


def test_a_blanket_discount_sells_more_and_earns_less() -> None:
    people, arms = world("travel").people(0, 50_000), stage_of(load("travel")).arms
    blanket = arms.index("discount_10")
    assert people.rate[:, blanket].mean() > 1.3 * people.rate[:, 0].mean()
    assert people.utility[:, blanket].mean() < 0.5 * people.utility[:, 0].mean()


def test_no_nudge_is_best_for_a_fifth_to_two_fifths_of_people() -> None:
    best = world("travel").people(0, 50_000).utility.argmax(axis=1)
    assert 0.2 < (best == 0).mean() < 0.4


def test_utility_is_value_less_both_costs() -> None:
    made, stage = world("travel").population, stage_of(load("travel"))
    utility = made.utility(np.full((1, len(stage.arms)), 0.5))[0]
    nudge = stage.nudges["discount_5"]
    expected = 0.5 * (stage.reward.value - nudge.cost_when_rewarded) - nudge.cost
    assert utility[stage.arms.index("discount_5")] == pytest.approx(expected)


def test_a_scenario_must_speak_of_what_the_stage_declares() -> None:
    found = load("travel")
    broken = msgspec.structs.replace(
        found, delay_hours={"none": 1.0, "reminderr": 2.0}, slopes={"reminder": {"prize": 1.0}}
    )
    with pytest.raises(CatalogueError) as caught:
        VisitorStream(broken, stage_of(found), 1)
    fields = {mistake.field for mistake in caught.value.mistakes}
    assert {"delay_hours.reminder", "delay_hours.reminderr", "slopes.reminder.prize"} <= fields


def test_an_app_without_a_scenario_is_named() -> None:
    with pytest.raises(NotFound, match="no scenario for 'hillstrom'"):
        load("hillstrom")


def test_the_experiment_has_its_32000_customers_in_three_equal_arms() -> None:
    data = hillstrom.load()
    assert len(data.contexts) == len(data.sent) == len(data.visit) == 32_000
    shares = [np.mean(data.sent == arm) for arm in ("none", "mens", "womens")]
    assert np.allclose(shares, hillstrom.PROPENSITY, atol=0.01)
    assert set(np.unique(data.visit)) == {0.0, 1.0}
