"""The people's model: what is seen, what is true, and the exact value between them."""

import numpy as np
import pytest
from scipy import special, stats

from bandit import features
from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from simulations import scenario
from simulations.population import Population
from simulations.visits import VisitSituation

APPS = scenario.names()
MANY = 1_000_000


def people(app: str, name: str | None = None) -> Population:
    found = scenario.load(app)
    name = name or found.stage
    return Population(found, parse(read_shipped(app)).stage(name), name)


def crowd(made: Population, n: int, seed: int) -> tuple[np.ndarray, Array]:
    """(persona, features) of n first visits."""
    rng = np.random.default_rng(seed)
    persona = rng.choice(len(made.weights), size=n, p=made.weights)
    return persona, made.positions(persona, rng.standard_normal((n, made.normals)), rng.random((n, made.uniforms)))


def tired(made: Population, n: int, seed: int) -> VisitSituation:
    """A visit late in a run: everything that can move an effect has moved."""
    rng = np.random.default_rng([seed, 1])
    return VisitSituation(
        17.25, rng.uniform(0.0, 3.0, n), rng.uniform(0.0, 1.0, n), np.where(rng.random(n) < 0.3, 0.5, 0.0)
    )


@pytest.mark.parametrize("app", APPS)
def test_x_is_what_the_service_makes_of_the_context(app: str) -> None:
    """At every stage, bit for bit."""
    for name, stage in parse(read_shipped(app)).stages.items():
        made = people(app, name)
        _, position = crowd(made, 300, 1)
        schema = features.schema(stage.features)
        encoded = np.array([features.encode(schema, context).x for context in made.contexts(position)])
        assert np.array_equal(made.x(position), encoded), name


@pytest.mark.parametrize("app", APPS)
def test_the_oracle_agrees_with_a_million_draws(app: str) -> None:
    """At first visits and at tired ones: each arm in five groups by the oracle's own prediction, |z| ≤ 5.9.

    At most 80 means an app: false alarm ≤ 80 · 4e-9 < 1e-6. 200,000 draws a group of first visits have a standard error
    ≤ 0.0012, so a rate off by 0.013 is found with probability > 1 − 1e-6; of tired ones, 40,000, by 0.027.
    """
    made, rng = people(app), np.random.default_rng(5)
    for n, situation in ((MANY, VisitSituation.first), (MANY // 5, lambda n: tired(made, n, 2))):
        persona, position = crowd(made, n, 2)
        found = situation(n)
        rate = made.rate(position, found)
        own = made.chance(persona, rng.standard_normal(n), position, found)
        happens = rng.random((n, 1)) < own
        in_time = made.delay(rng.random(n)) <= made.stage.reward.seconds
        error = happens * in_time - rate
        for a in range(rate.shape[1]):
            for rows in np.array_split(np.argpartition(rate[:, a], np.arange(1, 5) * n // 5), 5):
                assert abs(error[rows, a].mean()) < 5.9 * error[rows, a].std() / np.sqrt(len(rows)), a


@pytest.mark.parametrize("app", APPS)
def test_the_posterior_of_personas_is_calibrated(app: str) -> None:
    """Σ (1{z} − P(z | y)) in ten groups by P, by Bernstein's inequality: ≤ 6√V + 12 for 30 sums, false alarm ≤ 1e-6.

    40,000 people a group: an error of 0.03 is found with probability > 1 − 1e-6.
    """
    made = people(app)
    persona, position = crowd(made, 400_000, 3)
    posterior = made.posterior(position)
    assert posterior.sum(axis=1) == pytest.approx(1.0)
    for z in range(len(made.weights)):
        for rows in np.array_split(np.argsort(posterior[:, z], kind="stable"), 10):
            p = posterior[rows, z]
            assert abs(((persona[rows] == z) - p).sum()) < 6.0 * np.sqrt((p * (1.0 - p)).sum()) + 12.0


@pytest.mark.parametrize("app", APPS)
def test_the_posterior_is_the_ratio_of_densities(app: str) -> None:
    """Against scipy's densities, written out: numbers, dwell and back-tracks of one visit."""
    made, found = people(app), scenario.load(app)
    _, position = crowd(made, 20, 4)
    densities = np.ones((20, 3))
    names = list(made.stage.features)
    signals = found.hesitation
    for z, persona in enumerate(found.personas.values()):
        numbers = [
            j for j, n in enumerate(names) if made.stage.features[n].type == "number" and n not in signals.values()
        ]
        median = special.logit([persona.features[names[j]] for j in numbers])
        m = len(numbers)
        cov = found.spread**2 * ((1 - found.correlation) * np.eye(m) + found.correlation)
        densities[:, z] *= stats.multivariate_normal(median, cov).pdf(special.logit(position[:, numbers]))
        for j, name in enumerate(names):
            feature = made.stage.features[name]
            if feature.type == "boolean":
                p = float(persona.features[name])  # type: ignore[arg-type]
                densities[:, z] *= np.where(position[:, j] > 0.5, p, 1 - p)
            elif feature.type == "category":
                named = dict(persona.features[name])  # type: ignore[arg-type]
                rest = (1 - sum(named.values())) / max(1, len(feature.values) - len(named))
                densities[:, z] *= [named.get(feature.values[int(v)], rest) for v in position[:, j]]
        if "dwell" in signals:
            law = stats.norm(0.3 - 0.35 * persona.intent, 0.6)
            densities[:, z] *= law.pdf(special.logit(position[:, names.index(signals["dwell"])]))
        if "back_tracks" in signals:
            feature = made.stage.features[signals["back_tracks"]]
            value = [context[signals["back_tracks"]] for context in made.contexts(position)]
            count = np.rint(np.array(value) - float(feature.min or 0))
            densities[:, z] *= stats.poisson.pmf(count, np.exp(0.4 - 0.45 * persona.intent))
    joint = densities * made.weights
    assert made.posterior(position) == pytest.approx(joint / joint.sum(axis=1, keepdims=True), abs=1e-6)


@pytest.mark.parametrize("app", APPS)
def test_truth_does_not_depend_on_batch_mates(app: str) -> None:
    """obp's synthetic rewards move when other rows of a batch change; here a row alone has the same bits."""
    made = people(app)
    persona, position = crowd(made, 200, 7)
    found, u = tired(made, 200, 7), np.random.default_rng(8).standard_normal(200)
    rate, own = made.rate(position, found), made.chance(persona, u, position, found)
    for rows in (slice(17, 18), slice(50, 90)):
        assert np.array_equal(made.chance(persona[rows], u[rows], position[rows], found.at(rows)), own[rows])
        assert made.rate(position[rows], found.at(rows)) == pytest.approx(rate[rows], abs=1e-14)


@pytest.mark.parametrize("app", APPS)
def test_no_nudge_is_best_for_a_fifth_to_two_fifths_of_contexts(app: str) -> None:
    made = people(app)
    _, position = crowd(made, 100_000, 9)
    best = made.utility(made.rate(position, VisitSituation.first(100_000))).argmax(axis=1)
    assert 0.20 < (best == 0).mean() < 0.40


@pytest.mark.parametrize("app", APPS)
def test_every_stage_has_its_base_rate(app: str) -> None:
    found = scenario.load(app)
    for name in found.journey:
        made, base = people(app, name), found.base if name == found.stage else found.journey[name].base
        assert made.weights @ made.average(made.level) == pytest.approx(base, abs=1e-9)


def test_numbers_are_correlated_as_declared() -> None:
    """r̂ of 400,000 pairs within a persona: standard error 0.0015; 5.2 of them, false alarm ≤ 2e-7 a pair."""
    made = people("travel")
    n = 400_000
    rng = np.random.default_rng(10)
    position = made.positions(
        np.zeros(n, dtype=int), rng.standard_normal((n, made.normals)), rng.random((n, made.uniforms))
    )
    numbers = special.logit(position[:, :3])  # price, days to departure, searches
    found = np.asarray(np.corrcoef(numbers.T))[np.triu_indices(3, 1)]
    assert np.abs(found - made.scenario.correlation).max() < 0.008


@pytest.mark.parametrize("app", APPS)
def test_delays_have_their_mean_and_their_share_in_the_window(app: str) -> None:
    """200,000 delays an arm: 5.9 standard errors for 8 arms, false alarm ≤ 1e-6."""
    made, found = people(app), scenario.load(app)
    u = np.random.default_rng(11).random(200_000)
    hours = made.delay(u) / 3600
    mean = np.array([found.delay_hours[arm] for arm in made.stage.arms])
    assert (np.abs(hours.mean(axis=0) - mean) < 5.9 * hours.std(axis=0) / np.sqrt(len(u))).all()
    share = (hours * 3600 <= made.stage.reward.seconds).mean(axis=0)
    assert share == pytest.approx(made.within, abs=0.007)
