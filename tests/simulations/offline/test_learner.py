"""The whole decision path on simulated people, in process, seeded: it learns, and its propensities are true."""

from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from bandit import engine
from bandit.belief import add, empty
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Stage
from bandit.engine import DecisionQuery
from bandit.features import schema
from bandit.guardrails import ClaimEvidence
from bandit.learning import settlement
from bandit.policies import AnyPolicy, Beta, Hierarchical, Linear, Logistic, Uniform
from bandit.records import Decision, MaturedDecision, Outcome
from bandit.snapshot import Snapshot
from experiments.inference import intervals
from simulations.live.visitors import VisitorStream
from simulations.scenario import load

BATCH, LAG = 100, 5


class Run(NamedTuple):
    decisions: list[Decision]
    utility: NDArray[np.float64]  # (n, k)
    stage: Stage


def run(policy: AnyPolicy, people: int, seed: int) -> Run:
    """Decide in batches; learn each batch LAG batches later, as if its window had ended then."""
    scenario = load("travel")
    stage = msgspec.structs.replace(parse(read_shipped("travel")).stages["cart"], policy=policy, holdout=0.0)
    world, decisions, utility = VisitorStream(scenario, stage, seed), list[Decision](), []
    d = len(schema(stage.features).columns)
    belief, waiting = empty(len(stage.arms), d), list[list[MaturedDecision]]()
    for batch in range(people // BATCH):
        live = engine.prepare(Snapshot("travel", "cart", stage, batch, belief))
        crowd = world.people(batch, BATCH)
        matured = []
        for i in range(BATCH):
            proof = ClaimEvidence(deadline=2**60) if "deadline" in crowd.proofs[i] else ClaimEvidence()
            ask = DecisionQuery(id=crowd.decision_ids[i], user_id=crowd.ids[i], context=crowd.contexts[i], proof=proof)
            decision = engine.decide(live, ask, now=batch, salt=b"test")
            reward = float(crowd.converts[i, stage.arms.index(decision.arm)])
            outcome = Outcome(decision=decision.id, id="r", kind="reward", value=reward, occurred=0, received=0)
            matured.append(MaturedDecision(0, decision, (outcome,)))
            decisions.append(decision)
        utility.append(crowd.utility)
        waiting.append(matured)
        if len(waiting) > LAG:
            done = waiting.pop(0)
            settled = settlement.settle(stage, done, batch, live=live.snapshot)
            belief = add(belief, settlement.contribution(stage, settled, np.array([m.decision.x for m in done])))
    return Run(decisions, np.concatenate(utility), stage)


@pytest.fixture(scope="module")
def linear() -> Run:
    return run(Linear(prior_mean=0.14), 8_000, seed=11)


def gains(done: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected net value of each decision over no nudge, and over uniform among what was eligible."""
    arm = np.array([done.stage.arms.index(d.arm) for d in done.decisions])
    eligible = np.array([d.propensity > 0 for d in done.decisions])
    got = done.utility[np.arange(len(arm)), arm]
    uniform = np.where(eligible, done.utility, 0).sum(axis=1) / eligible.sum(axis=1)
    return got - done.utility[:, 0], got - uniform


def test_the_policy_beats_no_nudge_and_uniform_by_more_than_its_interval(linear: Run) -> None:
    over_none, over_uniform = gains(linear)
    assert intervals.mean(over_none).low > 0.0
    assert intervals.mean(over_uniform).low > 0.5


def test_it_goes_on_to_improve(linear: Run) -> None:
    over_none, _ = gains(linear)
    early, late = over_none[:1500], over_none[-4000:]
    assert intervals.mean(late).low > intervals.mean(early).value


def test_uniform_does_not_learn() -> None:
    _, over_uniform = gains(run(Uniform(), 2_000, seed=11))
    found = intervals.mean(over_uniform)
    assert found.low < 0 < found.high


def test_beta_beats_uniform() -> None:
    _, over_uniform = gains(run(Beta(alpha=0.5), 4_000, seed=11))
    assert intervals.mean(over_uniform).low > 0.3


@pytest.mark.parametrize(
    "policy", [Hierarchical(prior_mean=0.14), Logistic(prior_mean=0.14)], ids=lambda p: type(p).__name__
)
def test_logistic_policies_beat_uniform(policy: AnyPolicy) -> None:
    _, over_uniform = gains(run(policy, 3_000, seed=11))
    assert intervals.mean(over_uniform).low > 0.3


def test_logged_propensities_are_the_frequencies_of_draws(linear: Run) -> None:
    """Each arm's count against Σp, as a martingale: |z| ≤ 5.2 for 5 arms, false alarm ≤ 1e-6.

    Detects a propensity wrong by 0.03 on average with probability > 1 − 1e-6 (8,000 decisions, sd ≤ 0.5).
    """
    p = np.array([d.propensity for d in linear.decisions])
    drawn = np.array([[arm == d.arm for arm in linear.stage.arms] for d in linear.decisions])
    z = (drawn - p).sum(axis=0) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert np.abs(z).max() < 5.2


def test_inverse_propensities_average_to_the_number_of_arms(linear: Run) -> None:
    """mean(1/p_A) = number of eligible arms in expectation; 5.2 standard errors, false alarm ≤ 2e-7."""
    eligible = np.array([(d.propensity > 0).sum() for d in linear.decisions])
    weight = np.array([1 / d.propensity[linear.stage.arms.index(d.arm)] for d in linear.decisions])
    excess = weight - eligible
    assert abs(excess.mean()) < 5.2 * excess.std() / np.sqrt(len(excess))


def test_every_eligible_arm_keeps_the_floor_and_the_sum_is_one(linear: Run) -> None:
    for d in linear.decisions:
        assert abs(d.propensity.sum() - 1) < 1e-12
        shown = [arm not in d.excluded for arm in linear.stage.arms]
        assert (d.propensity[shown] >= linear.stage.common_floor).all()
        assert (d.propensity[np.logical_not(shown)] == 0).all()
