"""The loss account: what it estimates against direct sums, and when it opens and closes."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from bandit import engine
from bandit.arrays import Array
from bandit.belief import Belief, add, empty
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Stage
from bandit.learning.loss import ExposureLog, closed
from bandit.learning.loss_account import DAY, FIRST, FIRST_EXPECTED, Exposures, ExposureSums, LossAccount
from bandit.policies import Centred, Linear, Uniform
from bandit.snapshot import Snapshot

TEXT = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "centred", prior_mean = 0.2 }
reward = { kind = "binary", window = "1d", value = 20.0 }
[stages.cart.features]
age = { type = "number", min = 0, max = 100, default = 50 }
[stages.cart.nudges.tip]
type = "help"
format = "tooltip"
[stages.cart.nudges.offer]
type = "discount"
format = "banner"
cost_when_rewarded = 4.0
cost = 0.1
"""
STAGE = parse(TEXT).stages["cart"]
POLICY, K, D = STAGE.learner, 3, 3
assert isinstance(POLICY, Centred)


def exposed(n: int, seed: int, days: float = 3.0) -> Exposures:
    rng = np.random.default_rng(seed)
    x = np.rint(np.column_stack([np.ones(n), rng.uniform(-1, 1, n), np.zeros(n)]) * 4096) / 4096
    p = np.rint(rng.dirichlet(np.ones(K), n) * 2**24) / 2**24
    at = np.sort(rng.uniform(0, days * DAY, n)).astype(np.int64)
    return Exposures(x, p, rng.uniform(0.1, 0.3, n), np.ones((n, K), dtype=bool), at, at // DAY)


def test_the_sums_are_what_the_decisions_expected_to_cost_and_to_do() -> None:
    made, arms = exposed(400, 1), STAGE.arm_economics
    sums = ExposureSums.none(K, D).plus(arms, made)
    p, q = made.propensity, made.baseline
    shown = p[:, 1].sum() + p[:, 2].sum()
    assert (sums.n, sums.first) == (400, made.at.min())
    assert sums.nudges == pytest.approx(shown, abs=1e-4)
    assert sums.cost == pytest.approx((p[:, 2] * (0.1 / 20.0 + 0.2 * q)).sum(), abs=1e-4)  # a tip costs nothing
    steep = q * (1.0 - q)
    assert sums.effect[2] == pytest.approx(((p[:, 2] * 0.8 * steep)[:, None] * made.x).sum(axis=0), abs=1e-4)
    assert sums.effect[0].tolist() == [0.0, 0.0, 0.0]


def test_the_sums_are_the_same_in_any_order_and_any_batches() -> None:
    made, arms = exposed(300, 2), STAGE.arm_economics
    whole, order = ExposureSums.none(K, D).plus(arms, made), np.random.default_rng(3).permutation(300)
    parts = ExposureSums.none(K, D)
    for rows in np.array_split(order, 7):
        parts = parts.plus(arms, Exposures._make(column[rows] for column in made))
    assert parts[:5] == whole[:5]
    assert parts.effect.tobytes() == whole.effect.tobytes()


def taught(effect: float, n: int, seed: int) -> tuple[Belief, Exposures]:
    """What n answered decisions taught, in which every nudge moved the reward by so many logits; and their exposures,
    over three days.
    """
    rng, made = np.random.default_rng(seed), exposed(n, seed)
    arm: NDArray[np.intp] = np.array([rng.choice(K, p=q / q.sum()) for q in made.propensity])
    reward = (rng.random(n) < special.expit(-1.4 + effect * (arm > 0))).astype(float)
    belief, design = empty(8, D), POLICY.design(made.x, arm, made.propensity)
    for rows in np.array_split(np.arange(n), 5):
        tau, nu = POLICY.sites(belief, STAGE.arm_economics, design[rows], arm[rows], reward[rows])
        belief = add(belief, POLICY.sums(K, design[rows], arm[rows], tau, nu, reward[rows]))
    return belief, made


def share(effect: float, n: int, seed: int, stage: Stage = STAGE) -> float:
    belief, made = taught(effect, n, seed)
    log = ExposureLog(stage, stage.arms, D)
    log.put(made)
    live = engine.prepare(Snapshot("shop", "cart", stage, n, belief))
    account = log.accounted(live, round(3 * DAY)).snapshot.loss_account
    assert account is not None
    return account.share


def test_it_opens_where_nudges_pay_and_closes_where_they_harm() -> None:
    """9,000 decisions of three days. The seeds are fixed; each of these effects is 10 standard errors or more."""
    assert share(0.7, 9000, 4) == 1.0
    assert share(-0.7, 9000, 5) == 0.0


def test_a_larger_declared_loss_opens_it_further_and_none_bounds_nothing() -> None:
    small, large = (share(0.0, 600, 6, msgspec.structs.replace(STAGE, loss=loss)) for loss in ("1%", "20%"))
    assert 0.0 <= small < large
    live = engine.prepare(Snapshot.untrained(parse(TEXT.replace("policy = {", 'loss = "none"\npolicy = {')), "cart"))
    assert ExposureLog(live.snapshot.stage_spec, STAGE.arms, D).accounted(live, DAY) is live
    assert closed(live) is live


def test_the_bolder_rule_opens_earlier_and_never_closes() -> None:
    bold = msgspec.structs.replace(STAGE, loss_rule="expected")
    assert share(0.0, 600, 6) < share(0.0, 600, 6, bold)
    assert (share(-0.7, 9000, 5), share(-0.7, 9000, 5, bold)) == (0.0, 0.02)
    live = engine.prepare(
        Snapshot.untrained(parse(TEXT.replace("policy = {", 'loss_rule = "expected"\npolicy = {')), "cart")
    )
    account = ExposureLog(bold, STAGE.arms, D).accounted(live, 0).snapshot.loss_account
    assert account is not None
    assert account.share == FIRST_EXPECTED


def test_before_a_day_has_passed_a_twentieth_is_decided() -> None:
    live = engine.prepare(Snapshot.untrained(parse(TEXT), "cart"))
    log = ExposureLog(STAGE, STAGE.arms, D)
    for made in (None, exposed(500, 7, days=0.5)):
        if made is not None:
            log.put(made)
        account = log.accounted(live, round(0.5 * DAY)).snapshot.loss_account
        assert account is not None
        assert account.share == FIRST


def test_the_share_is_what_reaches_the_propensities() -> None:
    """At a share s the policy's own propensities times s, the rest to no nudge; at 0 nobody is shown anything."""
    live = engine.prepare(Snapshot.untrained(parse(TEXT), "cart"))
    x: Array = np.array([1.0, 0.5, 0.0])
    everything, free = np.ones(K, dtype=bool), engine.choose(live, np.array([1.0, 0.5, 0.0]), np.ones(K, dtype=bool))
    none = engine.choose(closed(live), x, everything).propensity
    assert none.tolist() == [1.0, 0.0, 0.0]
    first = ExposureLog(STAGE, STAGE.arms, D).accounted(live, 0)
    np.testing.assert_allclose(
        engine.choose(first, x, everything).propensity[1:], FIRST * free.propensity[1:], atol=2.0**-23
    )


def test_after_an_alarm_the_past_is_judged_by_all_that_was_learned() -> None:
    """Nudges that pay, 9,000 decisions; then an alarm leaves a fiftieth of the evidence to decide by. What was earned
    is as before, to the bit; what a day may cost is larger, so the account does not open further. Judged by a fiftieth
    of the evidence the past is 1.64 sds of ignorance, and the account closes for good.
    """
    belief, made = taught(0.5, 9000, 7)
    log = ExposureLog(STAGE, STAGE.arms, D)
    log.put(made)
    faded = Belief(*(0.02 * part for part in belief))

    def found(now: Belief, whole: Belief | None) -> LossAccount:
        live = engine.prepare(Snapshot("shop", "cart", STAGE, 9000, now, undiscounted=whole))
        account = log.accounted(live, round(3 * DAY)).snapshot.loss_account
        assert account is not None
        return account

    before, after, closed_for_good = found(belief, None), found(faded, belief), found(faded, None)
    assert (after.gain, after.sd, after.room) == (before.gain, before.sd, before.room)
    assert after.daily > before.daily
    assert 0.0 < after.share <= before.share == 1.0
    assert closed_for_good.share == 0.0


@pytest.mark.parametrize("prior", [0.02, 0.2, 0.6])
def test_what_may_be_lost_is_a_part_of_what_is_earned_whatever_the_prior_expects(prior: float) -> None:
    """9,000 decisions in three days: 90,000 in a month, and half of a percent of what they earn with no nudge, by the
    rewards. The prior is worth 20 of some 3,000 decisions that showed none.
    """
    stage = msgspec.structs.replace(STAGE, policy=Centred(prior_mean=prior), loss="0.5%")
    belief, made = taught(0.0, 9000, 8)
    log = ExposureLog(stage, stage.arms, D)
    log.put(made)
    live = engine.prepare(Snapshot("shop", "cart", stage, 9000, belief))
    account = log.accounted(live, round(3 * DAY)).snapshot.loss_account
    assert account is not None
    rate = belief.reward[0] / belief.n[0]
    assert 0.15 < rate < 0.25
    assert account.budget == pytest.approx(0.005 * rate * 90_000, rel=0.02)
    assert account.scaled == 1.0
    assert account.reserve + account.spent_at_most + account.room == pytest.approx(account.budget)


def test_what_may_be_lost_grows_with_what_is_earned_and_is_less_of_little_traffic() -> None:
    """30 decisions a day: after a month it is of all decisions so far, twice as many bring four times as much while
    there is too little traffic.
    """

    def budget(days: int) -> LossAccount:
        log = ExposureLog(STAGE, STAGE.arms, D)
        log.put(exposed(30 * days, 9, days=float(days)))
        live = engine.prepare(Snapshot.untrained(parse(TEXT), "cart"))
        account = log.accounted(live, days * DAY).snapshot.loss_account
        assert account is not None
        return account

    ten, month, two = budget(10), budget(30), budget(60)
    assert ten.budget == pytest.approx(month.budget, rel=0.02)
    assert two.budget == pytest.approx(4.0 * month.budget, rel=0.02)
    assert month.scaled == pytest.approx(900 * 0.2 * 0.8 / 2000, rel=0.02)


def sums_of(days: Array) -> ExposureSums:
    at = np.round(np.sort(days) * DAY).astype(np.int64)
    n = len(at)
    made = Exposures(
        np.ones((n, D)), np.full((n, K), 1 / K), np.full(n, 0.2), np.ones((n, K), dtype=bool), at, at // DAY
    )
    return ExposureSums.none(K, D).plus(STAGE.arm_economics, made)


def test_traffic_is_judged_by_days_that_had_any_and_no_wrong_clock_counts_for_more_than_a_day() -> None:
    start, rng = 20_000.0, np.random.default_rng(10)
    busy = start + rng.uniform(0.0, 10.0, 3000)
    assert sums_of(busy).elapsed(round((start + 10.0) * DAY), DAY) == pytest.approx(10.0, abs=0.01)
    assert sums_of(busy).elapsed(round((start + 50.0) * DAY), DAY) == pytest.approx(10.0, abs=1.0)  # a pause
    again = np.concatenate([busy, start + 50.0 + rng.uniform(0.0, 10.0, 3000)])
    assert sums_of(again).elapsed(round((start + 60.0) * DAY), DAY) == pytest.approx(20.0, abs=1.0)
    for wrong in (365.2, 47_000.3):  # of 1971, of 2098
        assert sums_of(np.append(busy, wrong)).elapsed(round((start + 10.0) * DAY), DAY) == pytest.approx(10.0, abs=1.0)
    assert sums_of(busy).elapsed(round((start + 2.0) * DAY), DAY) >= 8.0  # the clock goes back
    hours = start + 0.95 + rng.uniform(0.0, 0.1, 50)  # two hours around midnight are no two days
    assert sums_of(hours).elapsed(round((start + 1.05) * DAY), DAY) < 0.2


def test_a_closed_account_closes_a_candidate_that_knows_nothing_of_it_unless_a_floor_is_declared() -> None:
    """Judged half and half beside what was learned: no nudge is shown, whatever the candidate is."""
    live, everything = closed(engine.prepare(Snapshot.untrained(parse(TEXT), "cart"))), np.ones(K, dtype=bool)
    x: Array = np.array([1.0, 0.5, 0.0])
    for policy in (Uniform(), Linear(), Centred()):
        stage = msgspec.structs.replace(STAGE, policy=policy)
        other = engine.prepare(Snapshot("shop", "cart", stage, 0, empty(len(stage.belief_rows(stage.arms)), D)))
        assert engine.choose(engine.beside(live, other), x, everything).propensity.tolist() == [1.0, 0.0, 0.0]
        floored = msgspec.structs.replace(stage, floor=0.02)
        kept = other._replace(snapshot=msgspec.structs.replace(other.snapshot, stage_spec=floored))
        assert engine.choose(engine.beside(live, kept), x, everything).propensity[1:] == pytest.approx(0.01, abs=1e-6)
