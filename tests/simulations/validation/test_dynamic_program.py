"""The long run: the dynamic programme against brute force, rollouts, and what a constant price recovers."""

import itertools

import msgspec
import numpy as np
import pytest

from bandit.catalogue.loading import parse, read_shipped
from simulations import scenario
from simulations.population import Population
from simulations.scenario import Scenario
from simulations.validation import dynamic_program
from simulations.validation.dynamic_program import PlanningProblem
from simulations.validation.dynamic_program import longrun as solve_app

APPS = scenario.names()


def people(found: Scenario) -> Population:
    return Population(found, parse(read_shipped(found.app)).stage(found.stage))


def tiny(tires: float = 0.5) -> PlanningProblem:
    """Two contexts, a hazard that matters, one gap."""
    base = scenario.load("travel")
    fatigue = msgspec.structs.replace(base.fatigue, opt_out=-1.0, leaves=0.5, keeps=0.8)
    grid = np.linspace(0.0, 5.0, 2001)
    still = np.stack([1.0 - 0.05 * tires * grid, 2.0 - 0.05 * tires * grid])
    nudge = np.stack([1.6 - 0.2 * tires * grid, 1.9 - 0.2 * tires * grid])
    return PlanningProblem(
        msgspec.structs.replace(base, fatigue=fatigue), grid, still, nudge, np.array([0.64]), np.ones(1)
    )


def brute(given: PlanningProblem, visits: int) -> float:
    """The best of all plans (context, F, opted out) → nudge or not, by recursion over what can happen; F exact."""
    tired = given.scenario.fatigue

    def best(left: int, f: float, out: bool) -> float:
        if left == 0:
            return 0.0
        total = 0.0
        for c in range(2):
            still = np.interp(f, given.grid, given.still[c]) + best(left - 1, 0.64 * f, out)
            options = [float(still)]
            if not out:
                h = 1.0 / (1.0 + np.exp(-(tired.opt_out + f)))
                later = (1.0 - h) * best(left - 1, 0.64 * (f + 1.0), False)
                later += h * (1.0 - tired.leaves) * best(left - 1, 0.64 * (f + 1.0), True)
                options.append(float(np.interp(f, given.grid, given.nudge[c]) + later))
            total += 0.5 * max(options)
        return total

    return best(visits, 0.0, False)


@pytest.mark.parametrize("visits", [1, 2, 3, 4])
def test_it_is_the_best_plan_by_brute_force(visits: int) -> None:
    assert dynamic_program.value(tiny(), visits, None) == pytest.approx(brute(tiny(), visits), abs=1e-5)


def test_a_price_is_worth_what_rollouts_earn() -> None:
    """400,000 users of four visits, the price 0.2: within 5.2 standard errors (0.002 each), false alarm ≤ 2e-7."""
    given, rng, n, price = tiny(), np.random.default_rng(1), 400_000, 0.2
    f, out, here, earned = np.zeros(n), np.zeros(n, dtype=bool), np.ones(n, dtype=bool), np.zeros(n)
    for _ in range(4):
        context = rng.integers(0, 2, n)
        still = np.where(context == 0, *(np.interp(f, given.grid, row) for row in given.still))
        nudge = np.where(context == 0, *(np.interp(f, given.grid, row) for row in given.nudge))
        nudged = (nudge - price > still) & ~out & here
        earned += here * np.where(nudged, nudge, still)
        goes = nudged & (rng.random(n) < 1.0 / (1.0 + np.exp(1.0 - f)))
        here &= ~(goes & (rng.random(n) < 0.5))
        out |= goes
        f = 0.64 * (f + nudged)
    assert abs(earned.mean() - dynamic_program.value(given, 4, price)) < 5.2 * earned.std() / np.sqrt(n)


@pytest.mark.parametrize("app", APPS)
def test_one_constant_price_recovers_three_quarters_of_the_best_gain(app: str) -> None:
    found = solve_app(scenario.load(app), people(scenario.load(app)))
    assert found.none < found.priced <= found.best * (1 + 1e-12)
    assert found.myopic <= found.priced
    assert found.share > 0.75


@pytest.mark.parametrize("app", APPS)
def test_with_the_fatigue_of_the_methods_being_myopic_loses_most_of_the_gain(app: str) -> None:
    """tires = 0.3, fifteen times what ships: half of the gain is gone, and the price is never worse than either."""
    base = scenario.load(app)
    made = msgspec.structs.replace(base, fatigue=msgspec.structs.replace(base.fatigue, tires=0.3))
    found = solve_app(made, people(made))
    assert found.priced >= max(found.none, found.myopic)
    assert found.myopic - found.none < 0.5 * (found.best - found.none)


def test_without_fatigue_the_myopic_choice_is_the_best() -> None:
    base = scenario.load("fintech")
    calm = msgspec.structs.replace(base.fatigue, tires=0.0, dulls=0.0, opt_out=-60.0)
    made = msgspec.structs.replace(base, fatigue=calm)
    found = solve_app(made, people(made))
    assert found.myopic == pytest.approx(found.best, rel=1e-9)
    assert found.price == 0.0


def test_all_prices_are_between_nothing_and_the_best() -> None:
    found = solve_app(scenario.load("travel"), people(scenario.load("travel")))
    values = [value for _, value in found.by_price]
    assert max(values) == found.priced
    assert all(found.none - 1e-9 <= v <= found.best + 1e-9 for v in values)
    assert all(a < b for a, b in itertools.pairwise(price for price, _ in found.by_price))
