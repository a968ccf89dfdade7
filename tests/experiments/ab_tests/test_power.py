"""Power: published figures, simulated tests, and the way back."""

import numpy as np
import pytest

from bandit.errors import InvalidRequest
from experiments.ab_tests import score_intervals
from experiments.ab_tests.power import PowerPlan
from experiments.ab_tests.score_intervals import ArmRate


@pytest.mark.parametrize(
    ("plan", "lift", "per_arm"),
    [
        (
            PowerPlan(rate=0.05),
            0.01,
            (8158, 8158),
        ),  # by hand: (1.96 √(2·.055·.945) + .8416 √(.05·.95 + .06·.94))² / .01²
        (PowerPlan(rate=0.05, arms=3), 0.01, (9880, 9880)),  # the same with 2.2414, the quantile of α / 2
        (PowerPlan(sd=1.0), 0.5, (64, 64)),  # Cohen 1988, table 2.4.1: n = 64 for d = .5
        (PowerPlan(sd=1.0), 0.2, (394, 394)),  # 393 by Cohen's approximation, 393.4 by Student's noncentral law
        (PowerPlan(sd=1.0, power=0.9), 0.8, (34, 34)),  # Cohen: 34
    ],
)
def test_people_are_those_of_the_tables(plan: PowerPlan, lift: float, per_arm: tuple[int, int]) -> None:
    assert plan.per_arm(lift) == per_arm


def test_means_use_students_noncentral_law() -> None:
    """63.76561 is the n that R's manual gives for power.t.test(power = .80, delta = .5); the normal law says 62.8."""
    assert PowerPlan(sd=1.0).people_for(0.5) / 2 == pytest.approx(63.76561, abs=2e-4)


def test_the_way_back_gives_what_was_given() -> None:
    for plan in (PowerPlan(rate=0.1, arms=3, share=0.5), PowerPlan(sd=20.0, mean=5.0, arms=4, alpha=0.1)):
        people = plan.people_for(0.02 if plan.rate else 1.5)
        assert plan.lift_for(people) == pytest.approx(0.02 if plan.rate else 1.5, rel=1e-6)
        assert plan.power_of(plan.lift_for(people), people) == pytest.approx(0.8, abs=1e-9)
    down = PowerPlan(rate=0.1).lift_for(10_000, down=True)
    assert down < 0.0
    assert PowerPlan(rate=0.1).power_of(down, 10_000) == pytest.approx(0.8, abs=1e-9)


def test_that_share_of_simulated_tests_finds_the_difference() -> None:
    """8,158 people in each of two arms of 5 and 6 %: 4,000 tests, 80 % ± 3.1 points (1 − 1e-6); three arms with half of
    the people in the control find one given arm as often.
    """
    rng = np.random.default_rng(1)
    for plan in (PowerPlan(rate=0.05), PowerPlan(rate=0.05, arms=3, share=0.5)):
        control, arm = plan.per_arm(0.01)
        pairs = zip(rng.binomial(arm, 0.06, 4000).tolist(), rng.binomial(control, 0.05, 4000).tolist(), strict=True)
        found = [score_intervals.p_value(ArmRate(a, arm), ArmRate(c, control)) < plan.each_alpha for a, c in pairs]
        assert np.mean(found) == pytest.approx(0.8, abs=0.031)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "rate"),
        ({"rate": 0.05, "sd": 1.0}, "rate"),
        ({"rate": 5.0}, "rate"),
        ({"sd": -1.0}, "sd"),
        ({"rate": 0.05, "share": 1.0}, "share"),
        ({"rate": 0.05, "power": 0.01}, "power"),
    ],
)
def test_a_plan_that_is_none_is_refused_by_its_field(given: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        PowerPlan(**given)  # type: ignore[arg-type]


def test_lifts_and_people_that_make_no_sense_are_refused() -> None:
    for wrong in (lambda: PowerPlan(rate=0.05).per_arm(0.0), lambda: PowerPlan(rate=0.05).per_arm(0.96),
                  lambda: PowerPlan(rate=0.05).lift_for(4.0), lambda: PowerPlan(rate=0.05).power_of(0.96, 1000.0),
                  lambda: PowerPlan(rate=0.05).power_of(-0.06, 1000.0), lambda: PowerPlan(sd=1.0).power_of(0.0, 99.0),
                  lambda: PowerPlan(sd=1.0).power_of(float("inf"), 99.0)):  # fmt: skip
        with pytest.raises(InvalidRequest):
            wrong()
