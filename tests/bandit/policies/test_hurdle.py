"""Revenue: whether and how much are learned apart, and together they are what an arm is worth."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from bandit.belief import Belief, add, empty
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Reward, Stage, hurdle_of
from bandit.errors import CatalogueError
from bandit.learning.delay import BUCKETS
from bandit.learning.pending import KnownDecision, OpenDecisionTable, amounts_to
from bandit.learning.settlement import contribution, settle
from bandit.policies import Hierarchical
from bandit.policies.hurdle import HierarchicalHurdle, halves, level
from bandit.policies.protocol import ArmEconomics
from bandit.records import MaturedDecision
from bandit.snapshot import Snapshot, from_zip, to_zip

POLICY = hurdle_of(Hierarchical(prior_mean=0.1))
ARMS = ArmEconomics(("none", "a", "b"), ("none", "t", "u"), np.ones(3), np.zeros(3), ("1", "v"))
Build = Callable[..., MaturedDecision]


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    return make_stage(policy=Hierarchical(), reward=Reward(kind="revenue", window="1h", delay="10m", max=200.0))


def learned(rows: int, rate: tuple[float, ...], amount: tuple[float, ...], seed: int, stage: Stage) -> Belief:
    """Arms at random; amounts are log-normal around `amount` (shares of the maximum) with sd 0.5 in the logarithm."""
    rng, belief = np.random.default_rng(seed), empty(6, 2)
    three = msgspec.structs.replace(stage, nudges=dict(list(stage.nudges.items())[:2]))
    for _ in range(0, rows, 100):
        x = np.rint(np.column_stack([np.ones(100), rng.uniform(-1, 1, 100)]) * 4096) / 4096
        arm = rng.integers(0, 3, 100)
        size = np.array(amount)[arm] * np.exp(rng.normal(0, 0.5, 100))
        reward = np.where(rng.random(100) < np.array(rate)[arm], np.minimum(size, 1.0), 0.0)
        tau, nu = POLICY.sites(belief, ARMS, x, arm, reward)
        belief = add(belief, three.learner.weighted_sums(3, x, arm, tau, nu, reward, np.ones(100)))
    return belief


def test_levels_span_four_decades() -> None:
    np.testing.assert_allclose(level(np.array([1.0, 0.1, 0.01, 1e-4, 1e-9])), [1.0, 0.75, 0.5, 0.0, 0.0], atol=1e-12)


def test_the_expected_reward_is_rate_times_amount(stage: Stage) -> None:
    """6,000 rows. True values: rate × amount × e^(0.5²/2). Standard errors are below 8 % of each; the bound is 25 %."""
    rate, amount = (0.1, 0.1, 0.3), (0.05, 0.15, 0.05)
    belief = learned(6000, rate, amount, 1, stage)
    found = POLICY.posterior(belief, ARMS).choose(np.array([1.0, 0.0]), np.ones(3, dtype=bool))
    np.testing.assert_allclose(found.mean, np.array(rate) * np.array(amount) * np.exp(0.125), rtol=0.25)
    assert found.propensity[0] < 0.05
    assert found.propensity.sum() == pytest.approx(1.0, abs=1e-12)


def test_a_dearer_sale_is_worth_a_rarer_one(stage: Stage) -> None:
    """Arm b sells half as often for six times as much: a model of conversions alone would choose a."""
    belief = learned(4000, (0.05, 0.2, 0.1), (0.03, 0.03, 0.18), 2, stage)
    posterior, at, everyone = POLICY.posterior(belief, ARMS), np.array([1.0, 0.2]), np.ones(3, dtype=bool)
    assert posterior.choose(at, everyone).propensity[2] > 0.9
    assert posterior.choose(at, np.array([True, True, False])).propensity[2] == 0.0
    many = posterior.choose_many(np.array([at, [1.0, -0.7]]), np.array([[True] * 3, [True, True, False]]))
    for i, (x, may) in enumerate(((at, everyone), (np.array([1.0, -0.7]), np.array([True, True, False])))):
        one = posterior.choose(x, may)
        for name in ("mean", "sd", "propensity"):
            np.testing.assert_allclose(getattr(many, name)[i], getattr(one, name), atol=1e-9)
    assert Hierarchical().posterior(halves(belief)[0], ARMS).choose(at, everyone).propensity[1] > 0.9


def test_settlements_teach_both_halves_exactly_and_in_any_order(stage: Stage, make_matured: Build) -> None:
    batch = [make_matured(i, "reminder", *[("reward", 20.0 + i)] * (i % 3 == 0)) for i in range(30)]
    live = Snapshot("app", "checkout", stage, 0, empty(2 * len(stage.arms), 11))
    done = settle(stage, batch, 1, live=live)
    x = np.array([m.decision.x for m in batch])
    whole, arm = contribution(stage, done, x), stage.arms.index("reminder")
    whether, much = halves(whole)
    assert (whether.n[arm], much.n[arm]) == (30, 10)
    levels = level(np.array([(20.0 + i) / 200 for i in range(0, 30, 3)]))
    assert much.reward[arm] == pytest.approx(levels.sum(), abs=1e-6)
    turned = add(contribution(stage, done[17:], x[17:]), contribution(stage, done[:17], x[:17]))
    assert turned.digest() == whole.digest()


def test_open_decisions_count_in_both_halves(stage: Stage, make_matured: Build) -> None:
    snapshot, columns = (
        Snapshot("app", "checkout", stage, 0, empty(2 * len(stage.arms), 11)),
        OpenDecisionTable(stage, 11),
    )
    made = make_matured(1, "reminder", ("reward", 50.0))
    decision = msgspec.structs.replace(made.decision, at=0, expires=1000)
    outcomes = [msgspec.structs.replace(o, received=5) for o in made.outcomes]
    columns.put([KnownDecision(1, decision, outcomes)], {decision.stage_digest: stage})
    found = amounts_to(snapshot, columns.rows(), np.zeros((len(stage.arms), BUCKETS)), 10)
    assert found is not None
    whether, much = halves(found)
    arm = stage.arms.index("reminder")
    assert whether.n[arm] == much.n[arm] == 1.0
    assert much.reward[arm] == pytest.approx(level(np.array([0.25]))[0])


def test_a_snapshot_of_revenue_survives_its_bytes(stage: Stage) -> None:
    rows = len(stage.belief_rows(stage.arms))
    snapshot = Snapshot("app", "checkout", stage, 3, empty(rows, 11))
    assert rows == 2 * len(stage.arms)
    again = from_zip(to_zip(snapshot))
    assert again.belief.digest() == snapshot.belief.digest()
    assert isinstance(again.stage_spec.learner, HierarchicalHurdle)


def test_revenue_that_does_not_start_at_nothing_is_refused() -> None:
    text = """
    app = "shop"
    currency = "EUR"
    [stages.cart]
    reward = { kind = "revenue", window = "1h", min = 5.0, max = 10.0, default = 5.0 }
    features = {}
    nudges = {}
    """
    with pytest.raises(CatalogueError, match="revenue starts at 0"):
        parse(text)
