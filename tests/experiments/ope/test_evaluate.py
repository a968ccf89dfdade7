"""Evaluations: exact on logs small enough to sum by hand, right on average, the same in any number of parts."""

import numpy as np
import pytest
from scipy import stats

from bandit import engine
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.net_value import ArmWorth
from bandit.errors import InvalidRequest
from bandit.features import schema
from bandit.snapshot import Snapshot
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.ope import evaluate as core
from experiments.ope import train_test_split
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import (
    EvaluationPolicy,
    FixedArm,
    LoggedProbabilities,
    UniformChoice,
    snapshot_policy,
)

RATES = np.array([0.05, 0.2, 0.1])
UNIFORM, ARM, NONE = (
    EvaluationPolicy("uniform", UniformChoice()),
    EvaluationPolicy("fixed:1", FixedArm(1)),
    EvaluationPolicy("none", FixedArm(0)),
)


def log(seed: int, n: int = 4000, *, q_hat: bool = True, users: bool = False) -> LoggedRounds:
    """A policy that prefers arm 2; x tells nothing; q̂ is 0.1 for all."""
    rng = np.random.default_rng(seed)
    propensities = np.tile([0.2, 0.1, 0.7], (n, 1))
    action = rng.choice(3, n, p=[0.2, 0.1, 0.7])
    return LoggedRounds(
        action=action,
        reward=(rng.random(n) < RATES[action]).astype(float),
        pscore=propensities[np.arange(n), action],
        propensities=propensities,
        q_hat=np.full((n, 3), 0.1) if q_hat else None,
        user=rng.integers(0, n // 4, n) if users else None,
    )


def one(rounds: LoggedRounds, ask: EvaluationConfig, size: int = 1000) -> core.Evaluation:
    return core.evaluate([chunked(rounds, size)], ask)[0]


def test_on_policy_every_unbiased_estimate_is_the_mean_reward() -> None:
    found = one(log(1), EvaluationConfig((EvaluationPolicy("logged", LoggedProbabilities()),)))
    for name in ("ips", "snips", "clipped"):
        assert found.estimates[name].value == pytest.approx(log(1).reward.mean())
    assert found.contrasts["logged"].value == 0.0


def test_estimates_agree_with_the_truth_over_many_logs() -> None:
    """200 logs; 95 % intervals. False alarm ≤ 1e-6 if coverage is 95 %; coverage of 75 % is found with P > 0.999."""
    truth = {"uniform": RATES.mean(), "fixed:1": RATES[1]}
    hits = dict.fromkeys(("uniform", "fixed:1", "lift", "snips"), 0)
    for seed in range(200):
        found = core.evaluate([chunked(log(seed))], EvaluationConfig((UNIFORM, ARM), (NONE,), follow=False))
        for evaluation in found:
            low, high = evaluation.estimates["dr"].interval
            hits[evaluation.policy] += low <= truth[evaluation.policy] <= high
        low, high = found[1].contrasts["none"].interval
        hits["lift"] += low <= RATES[1] - RATES[0] <= high
        low, high = found[1].estimates["snips"].interval
        hits["snips"] += low <= RATES[1] <= high
    least = int(stats.binom.ppf(1e-6 / 4, 200, 0.95))
    assert min(hits.values()) >= least, hits


def test_contrasts_are_paired() -> None:
    """Two policies that differ in a tenth of the rounds: the interval of the difference is that of the differences."""
    rounds = log(2)

    def mostly(r: LoggedRounds) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        p = FixedArm(1)(r)
        p[::10] = np.eye(3)[0]
        return p

    found = one(rounds, EvaluationConfig((ARM,), (EvaluationPolicy("mostly", mostly),)))
    wide = found.estimates["dr"].interval
    low, high = found.contrasts["mostly"].interval
    assert high - low < 0.55 * (wide[1] - wide[0])


@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize("q_hat", [False, True])
def test_parts_on_several_workers_are_the_whole(users: bool, q_hat: bool) -> None:
    rounds, ask = log(3, users=users, q_hat=q_hat), EvaluationConfig((UNIFORM, ARM), (NONE,), slope=True)
    cuts = [slice(0, 1000), slice(1000, 3000), slice(3000, None)]
    whole = core.evaluate([chunked(rounds, 1000)], ask)
    parts = core.evaluate([chunked(rounds.only(cut), 1000) for cut in cuts], ask)
    for a, b in zip(whole, parts, strict=True):
        assert (a.n, a.units, a.chosen) == (b.n, b.units, b.chosen)
        for mine, other in ((a.estimates, b.estimates), (a.contrasts, b.contrasts)):
            for name, estimate in mine.items():
                assert estimate.value == pytest.approx(other[name].value, rel=1e-9, abs=1e-12)
                assert estimate.interval == pytest.approx(other[name].interval, rel=1e-6, abs=1e-12)


def test_rounds_count_up_to_the_first_whose_reward_is_not_known() -> None:
    rounds = log(4)
    reward = rounds.reward.copy()
    reward[[2500, 3999]] = np.nan
    tail = reward.copy()
    tail[2501:] = 1.0
    before = one(rounds.only(slice(2500)), EvaluationConfig((ARM,)))
    for given in (reward, tail):
        for size in (100, 2500, 4000):
            found = one(rounds._replace(reward=given), EvaluationConfig((ARM,), force=True), size)
            assert (found.n, found.rows) == (2500, 4000)
            assert found.estimates["dr"].value == pytest.approx(before.estimates["dr"].value)
            assert [refusal.reason for refusal in found.refused] == ["unmatured"]
            assert one(rounds._replace(reward=given), EvaluationConfig((ARM,), prefix=True), size).refused == ()
            assert found.forced


def test_an_unknown_reward_ends_the_log_for_the_parts_after_it_too() -> None:
    rounds = log(4)
    reward = rounds.reward.copy()
    reward[900] = np.nan
    parts = [chunked(rounds._replace(reward=reward).only(cut)) for cut in (slice(0, 1000), slice(1000, 4000))]
    (found,) = core.evaluate(parts, EvaluationConfig((ARM,), force=True))
    assert (found.n, found.rows) == (900, 4000)


def test_the_holdout_is_no_part_of_the_log_but_is_counted() -> None:
    rounds = log(5)
    held = np.random.default_rng(0).random(4000) < 0.1
    found, without = (
        one(rounds._replace(holdout=held), EvaluationConfig((ARM,))),
        one(rounds.only(~held), EvaluationConfig((ARM,))),
    )
    assert found.estimates["dr"].value == pytest.approx(without.estimates["dr"].value)
    assert (found.n, found.holdout) == (int((~held).sum()), int(held.sum()))
    assert found.control is not None
    assert found.control.value == pytest.approx(rounds.reward[held].mean())


def test_net_values_are_rewards_less_costs() -> None:
    """Twice: once by `worth`, once by rewards that are net already; only the guard differs, and not at this n."""
    rounds, gain, cost = log(6, 20_000), np.array([5.0, 4.0, 5.0]), np.array([0.0, 0.2, 0.1])
    assert rounds.q_hat is not None
    net = rounds._replace(
        reward=rounds.reward * gain[rounds.action] - cost[rounds.action], q_hat=rounds.q_hat * gain - cost
    )
    found = one(rounds, EvaluationConfig((ARM,), (NONE,), worth=ArmWorth(gain, cost)))
    wanted = one(net, EvaluationConfig((ARM,), (NONE,), rewards=RewardRange(-0.2, 5.0)))
    for mine, other in ((found.estimates, wanted.estimates), (found.contrasts, wanted.contrasts)):
        assert {k: e.value for k, e in mine.items()} == pytest.approx({k: e.value for k, e in other.items()})
    low, high = found.estimates["dr"].interval
    assert low <= RATES[1] * 4.0 - 0.2 <= high
    assert found.estimates["dr"].sequence is not None
    assert found.estimates["dr"].sequence[0] <= low < high <= found.estimates["dr"].sequence[1]


def test_a_model_is_fitted_where_the_log_has_none() -> None:
    found = one(log(7, q_hat=False), EvaluationConfig((ARM,)))
    assert "dr" in found.estimates
    assert found.estimates["dm"].value == pytest.approx(RATES[1], abs=0.05)


def test_rewards_outside_their_range_are_refused_or_not_guarded() -> None:
    rounds = log(8)
    with pytest.raises(InvalidRequest, match=r"outside 0 to 0\.5"):
        one(rounds, EvaluationConfig((ARM,), rewards=RewardRange(0.0, 0.5)))
    found = one(rounds._replace(reward=3.0 * rounds.reward), EvaluationConfig((ARM,)))
    assert found.estimates["dr"].sequence is None
    assert any("not declared" in note for note in found.notes)


def test_policies_must_be_probabilities_of_the_logs_arms() -> None:
    rounds = log(9)
    for policy, said in (
        (lambda r: np.full((len(r.reward), 2), 0.5), "shape"),
        (lambda r: np.full((len(r.reward), 3), 0.5), "no probabilities"),
        (FixedArm(3), "no arm 3"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            one(rounds, EvaluationConfig((EvaluationPolicy("bad", policy),)))
    with pytest.raises(InvalidRequest, match="nothing says what 'log' would have done"):
        one(rounds, EvaluationConfig((EvaluationPolicy("log"),)))


def test_fixed_and_uniform_keep_to_the_eligible_arms() -> None:
    rounds = log(10, 2)._replace(eligible=np.array([[True, False, True], [True, True, True]]))
    assert FixedArm(1)(rounds).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert UniformChoice()(rounds).tolist() == [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]]


def test_a_snapshot_decides_as_the_engine_does_whatever_the_order_of_the_logs_arms() -> None:
    stage = parse(read_shipped("travel")).stage("cart")
    d, k = len(schema(stage.features).columns), len(stage.arms)
    snapshot = Snapshot.untrained(parse(read_shipped("travel")), "cart")
    rng = np.random.default_rng(0)
    x, may = rng.integers(-1, 2, (5, d)).astype(float), rng.random((5, k)) < 0.5
    may[:, 0] = True
    wanted = engine.choose_many(engine.prepare(snapshot), x, may).propensity
    order = [3, 0, 5, 1, 4, 2]  # of the log's arms: column 2 is one that the snapshot does not know
    names = [*stage.arms, "retired"]
    wide = np.column_stack([may, np.ones(5, dtype=np.bool_)])[:, order]
    rounds = LoggedRounds(np.zeros(5, dtype=np.intp), np.zeros(5), np.ones(5), x=x, eligible=wide)
    arms = [names[i] for i in order]
    found = snapshot_policy(snapshot, arms)(rounds)
    assert np.array_equal(found[:, [arms.index(a) for a in stage.arms]], wanted)
    assert (found[:, arms.index("retired")] == 0.0).all()
    with pytest.raises(InvalidRequest, match="discount_10, which the log never could"):
        snapshot_policy(snapshot, [a for a in arms if a != "discount_10"])


def test_a_policy_is_learned_on_one_half_and_evaluated_on_the_other() -> None:
    """Where arms differ by context, the learned policy beats the best fixed arm; P(miss) < 1e-6 at 5 sd."""
    stage = parse(read_shipped("hillstrom")).stage("retention")
    columns = schema(stage.features).columns
    rng = np.random.default_rng(1)
    n = 12_000
    x = np.zeros((n, len(columns)))
    x[:, 0], x[:, columns.index("mens")] = 1.0, rng.integers(0, 2, n)
    action = rng.integers(0, 3, n)
    chance = np.where((action == 1) == (x[:, columns.index("mens")] == 1), 0.3, 0.1)
    thirds = np.full((n, 3), 1 / 3)
    rounds = LoggedRounds(action, (rng.random(n) < chance).astype(float), thirds[:, 0], x=x, propensities=thirds)
    learned = train_test_split.learn("hillstrom", "retention", stage, rounds, seed=2)
    assert learned.training_rounds + len(learned.rounds.reward) == n
    best = EvaluationPolicy("best", FixedArm(learned.best))
    (found,) = core.evaluate([chunked(learned.rounds)], EvaluationConfig((learned.target(),), (best,), heaviest=3.0))
    assert found.contrasts["best"].interval[0] > 0.05
    assert found.contrasts["best"].value == pytest.approx(0.1, abs=0.05)


def without(rounds: LoggedRounds, arm: int) -> LoggedRounds:
    """The rounds of the other arms, as if it had been eligible but never drawn."""
    left = rounds.only(rounds.action != arm)
    assert left.propensities is not None
    rest = np.where(np.arange(3) == arm, 0.0, left.propensities)
    rest /= rest.sum(axis=1, keepdims=True)
    may = np.ones(rest.shape, dtype=np.bool_)
    return left._replace(propensities=rest, pscore=rest[np.arange(len(rest)), left.action], eligible=may)


REASONS: dict[str, tuple[LoggedRounds, str]] = {
    "nothing": (log(20, 0), "empty"),
    "no support": (without(log(21), 1), "support"),
    "propensities of 1": (log(22)._replace(pscore=np.ones(4000), propensities=None), "deterministic"),
    "wrong propensities": (log(23)._replace(pscore=np.full(4000, 1 / 3), propensities=None), "propensities"),
    "a few rounds": (log(24, 100), "ess"),
    "an unmatured tail": (log(25)._replace(reward=np.r_[log(25).reward[:2000], np.full(2000, np.nan)]), "unmatured"),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_log_that_cannot_answer_is_refused_without_numbers(case: str) -> None:
    rounds, reason = REASONS[case]
    found = one(rounds, EvaluationConfig((ARM,)))
    assert reason in [refusal.reason for refusal in found.refused]
    assert all(refusal.detail and refusal.needed for refusal in found.refused)
    assert not found.estimates
    assert not found.contrasts


def test_the_report_is_plain_json() -> None:
    found = core.evaluate([chunked(log(11, 1))], ask := EvaluationConfig((ARM, UNIFORM), force=True))
    body = core.report(found, ask)
    assert list(body)[:2] == ["policy", "n"]
    assert body["estimates"]["dr"]["interval"] == [0.0, 1.0]
    assert body["forced"] is True
    assert body["others"][0]["policy"] == "uniform"
    assert body["settings"] == {"level": 0.95, "clip": 10.0, "tau": 10.0, "shrink": 10.0}
