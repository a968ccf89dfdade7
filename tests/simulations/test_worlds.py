"""Worlds: what each changes in the exact truth of a scenario's people, and that it changes nothing else."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from scipy import special

from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from simulations import scenario, worlds
from simulations.offline.runner import SimulationCell
from simulations.population import Population
from simulations.scenario import EffectDrift, Scenario
from simulations.visits import VisitSituation

APPS = scenario.names()
N = 200


def stages(given: Scenario) -> Iterator[Population]:
    """The people of every stage of the app."""
    for name, stage in parse(read_shipped(given.app)).stages.items():
        yield Population(given, stage, name)


def logits(people: Population, day: float = 20.0) -> Array:
    """What each nudge adds to the logit of a reward, (N, k − 1), for people of all personas who are tired already."""
    rng = np.random.default_rng(5)
    persona = np.arange(N) % len(people.weights)
    position = people.positions(persona, rng.standard_normal((N, people.normals)), rng.random((N, people.uniforms)))
    found = VisitSituation(day, rng.exponential(2.0, N), np.zeros(N), np.zeros(N))
    made = special.logit(people.chance(persona, rng.standard_normal(N), position, found))
    return np.asarray(made[:, 1:] - made[:, :1])


@pytest.mark.parametrize("app", APPS)
def test_times_one_is_the_scenario_itself(app: str) -> None:
    given = scenario.load(app)
    assert worlds.effects(given, 1.0) == given
    assert worlds.WORLDS["declared"].change(given) is given


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0])
def test_effects_are_multiplied_at_every_stage_for_everybody(app: str, factor: float) -> None:
    """Slopes, novelty and dulling included; the drift of the other sign keeps its path, so it is left out here."""
    given = msgspec.structs.replace(scenario.load(app), drift=EffectDrift())
    for before, after in zip(stages(given), stages(worlds.effects(given, factor)), strict=True):
        np.testing.assert_allclose(logits(after), factor * logits(before), atol=1e-12)


def test_drift_is_multiplied_too() -> None:
    given = msgspec.structs.replace(scenario.load("fashion"), drift=EffectDrift(kind="ou", sd=0.5))
    for before, after in zip(stages(given), stages(worlds.effects(given, 2.0)), strict=True):
        np.testing.assert_allclose(logits(after), 2.0 * logits(before), atol=1e-12)


@pytest.mark.parametrize("app", APPS)
def test_at_times_zero_a_nudge_is_worth_no_nudge_less_its_costs(app: str) -> None:
    for people in stages(worlds.effects(scenario.load(app), 0.0)):
        position = np.full((N, len(people.stage.features)), 0.5)
        for j, feature in enumerate(people.stage.features.values()):
            position[:, j] = 0.0 if feature.type != "number" else 0.5
        situation = VisitSituation.first(N)._replace(day=3.0, fatigue=np.linspace(0.0, 5.0, N))
        rate = people.rate(position, situation) / people.within
        np.testing.assert_allclose(rate, np.repeat(rate[:, :1], rate.shape[1], axis=1), rtol=1e-12)
        value = people.utility(rate)
        expected = value[:, :1] * people.worth.gain / people.worth.gain[0] - people.worth.cost
        np.testing.assert_allclose(value, expected, atol=1e-9)


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("shift", [-0.1, -0.4])
def test_a_constant_effect_is_exactly_that_for_everybody_on_every_day(app: str, shift: float) -> None:
    changed = worlds.WORLDS[f"all{shift}"].change(scenario.load(app))
    for people in stages(changed):
        for day in (0.0, 40.0):
            np.testing.assert_allclose(logits(people, day), shift, atol=1e-12)


def test_fatigue_is_none_or_strong() -> None:
    given = scenario.load("travel")
    none, strong = worlds.no_fatigue(given).fatigue, worlds.strong_fatigue(given).fatigue
    assert (none.tires, none.dulls, none.leaves) == (0.0, 0.0, 0.0)
    assert special.expit(none.opt_out + 30.0) < 1e-8, "nobody opts out, however often nudged"
    assert (strong.tires, strong.opt_out, strong.leaves) == (0.1, -3.5, 0.3)
    assert (strong.keeps, strong.dulls) == (given.fatigue.keeps, given.fatigue.dulls)


@pytest.mark.parametrize("app", APPS)
def test_without_delay_every_reward_comes_before_anything_else(app: str) -> None:
    for people in stages(worlds.no_delay(scenario.load(app))):
        assert people.within.min() == 1.0
        assert people.delay(np.array([1.0 - 1e-12])).max() < 10.0


@pytest.mark.parametrize("app", APPS)
def test_every_world_is_another_run_with_the_same_habits_and_the_shipped_scenario_is_left_alone(app: str) -> None:
    given = scenario.load(app)
    digests = set()
    for world in worlds.WORLDS.values():
        made = world.change(given)
        digests.add(SimulationCell(scenario=made, policy="default", users=10, days=2, seed=0).digest())
        assert (made.coupons, made.visits, made.base) == (given.coupons, given.visits, given.base)
    assert len(digests) == len(worlds.WORLDS)
    assert given == scenario.load(app)
