"""The expectation over user effects: the quadrature against the integral, and the table against the quadrature."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from bandit.catalogue.loading import parse, read_shipped
from simulations import scenario
from simulations.population import Population
from simulations.quadrature import quadrature


@pytest.mark.parametrize("sd", [0.3, 0.5, 1.0])
def test_the_quadrature_is_the_integral(sd: float) -> None:
    for s in (-6.0, -1.3, 0.0, 2.2):
        exact, _ = integrate.quad(lambda u, s=s: special.expit(s + sd * u) * stats.norm.pdf(u), -12, 12, epsabs=1e-13)
        assert quadrature(np.array(s), sd) == pytest.approx(exact, abs=1e-8)


def test_its_table_is_the_quadrature() -> None:
    found = scenario.load("travel")
    made = Population(found, parse(read_shipped("travel")).stage(found.stage))
    s = np.random.default_rng(6).uniform(-20, 20, 50_000)
    assert np.abs(made.average(s) - quadrature(s, made.scenario.user_sd)).max() < 2e-9
