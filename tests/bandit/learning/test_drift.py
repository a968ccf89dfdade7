"""The watch for change: what it hears, what it ignores, and what an alarm does to the sums."""

import math

import msgspec
import numpy as np
import pytest

from bandit.belief import Belief, empty
from bandit.catalogue.drift_rule import DriftRule
from bandit.catalogue.loading import parse
from bandit.learning import statistics
from bandit.learning.drift import DriftState, Residual, epoch_of, scan, summed, weighed
from bandit.learning.statistics import SettledRows


def rows(
    rate: float, n: int, seed: int, *, q: float = 0.2, first: int = 1, sd: float = 0.0, arm: str = "a"
) -> list[Residual]:
    rng = np.random.default_rng(seed)
    return [
        Residual(first + i, 1000 + i, arm, float(y), q, sd, first + i - 1) for i, y in enumerate(rng.random(n) < rate)
    ]


def test_the_sums_are_pages() -> None:
    """By hand: q = 0.2, shift ½."""
    up = 1 / (1 + 4 * math.exp(-0.5))
    down = 1 / (1 + 4 * math.exp(0.5))
    watch = scan(
        DriftRule(shift=0.5),
        DriftState(),
        [Residual(1, 0, "a", 1.0, 0.2, 0.0, 0), Residual(2, 0, "a", 0.0, 0.2, 0.0, 0)],
    )
    first = math.log(up / 0.2)
    assert watch.up["a"] == pytest.approx(first + math.log((1 - up) / 0.8))
    assert watch.down["a"] == pytest.approx(math.log((1 - down) / 0.8)), "a success took it to 0, not below"
    assert not watch.alarms


def test_what_is_not_known_well_is_not_change() -> None:
    """By hand: an expectation of 0.2 whose sd is ¼ logit may be half a logit wrong, and only more than that counts.

    100 runs of 2,000 rows, all decided by one snapshot that was 0.4 logits too low: no more than 20 may raise an alarm
    (5 % are expected: above that with probability below 1e-6). Taken at its word, the expectation fails in all of them.
    """
    sure, unsure = 0.0, 0.25 * 0.2 * 0.8
    for sd, nothing in ((sure, 0.2), (unsure, 1 / (1 + 4 * math.exp(-0.5)))):
        up = 1 / (1 + (1 - nothing) / nothing * math.exp(-0.5))
        watch = scan(DriftRule(shift=0.5), DriftState(), [Residual(1, 0, "a", 1.0, 0.2, sd, 0)])
        assert watch.up["a"] == pytest.approx(math.log(up / nothing))
    wrong = 1 / (1 + 4 * math.exp(-0.4))
    alarms = [
        sum(scan(DriftRule(), DriftState(), rows(wrong, 2000, seed, sd=sd)).epoch > 0 for seed in range(100))
        for sd in (sure, unsure)
    ]
    assert alarms[0] >= 80
    assert alarms[1] <= 20


def test_no_change_is_hardly_ever_an_alarm_and_a_change_always_is() -> None:
    """200 runs of 2,000 rows. Without change, about 3 % of runs raise an alarm: more than 20 of 200 would have
    probability below 1e-6. From 20 % to 30 % all must be found within 2,000 rows: the mean delay is about 260.
    """
    quiet = sum(scan(DriftRule(), DriftState(), rows(0.2, 2000, seed)).epoch > 0 for seed in range(200))
    assert quiet <= 20
    loud = [scan(DriftRule(), DriftState(), rows(0.3, 2000, seed)).alarms for seed in range(200)]
    assert all(loud)
    assert {alarms[0].direction for alarms in loud} == {"up"}
    assert np.mean([alarms[0].through for alarms in loud]) < 500
    fallen = [scan(DriftRule(), DriftState(), rows(0.12, 3000, seed)).alarms for seed in range(50)]
    assert all(alarms and alarms[0].direction == "down" for alarms in fallen)


def test_rows_before_the_alarm_and_unsure_ones_do_not_speak() -> None:
    alarmed = scan(DriftRule(), DriftState(), rows(1.0, 30, 0))
    assert alarmed.epoch >= 1
    old = [msgspec_row._replace(seq=100 + i, version=0) for i, msgspec_row in enumerate(rows(1.0, 50, 1))]
    assert scan(DriftRule(), alarmed, old).alarms == alarmed.alarms
    assert scan(DriftRule(), alarmed, old).up == alarmed.up
    unsure = rows(1.0, 50, 1, sd=0.26 * 0.2 * 0.8)
    assert scan(DriftRule(), DriftState(), unsure) == DriftState()
    assert scan(DriftRule(watch=False), DriftState(), rows(1.0, 50, 1)) == DriftState()


def test_any_batching_gives_the_same_watch_and_it_survives_the_ledger() -> None:
    log = rows(0.35, 900, 4) + rows(0.05, 900, 5, first=901, arm="b")
    whole, parts = scan(DriftRule(), DriftState(), log), DriftState()
    for start in range(0, len(log), 37):
        parts = scan(DriftRule(), parts, log[start : start + 37])
        parts = msgspec.json.decode(msgspec.json.encode(parts), type=DriftState)
    assert parts == whole
    assert whole.epoch >= 2


def test_an_alarm_ends_an_epoch_with_the_row_that_raised_it() -> None:
    watch = scan(DriftRule(), DriftState(), rows(1.0, 30, 0))
    through = watch.alarms[0].through
    assert [epoch_of(watch, through), epoch_of(watch, through + 1)] == [0, 1]


def test_older_epochs_weigh_less_and_the_sums_stay() -> None:
    def of(value: float) -> Belief:
        return Belief(*(part + value for part in empty(2, 3)))

    parts = [of(1.0), of(2.0), of(4.0)]
    total = weighed(DriftRule(keep=0.25), parts)
    assert total.n[0] == 4.0 + 0.25 * 2.0 + 0.0625
    assert parts[0].n[0] == 1.0
    assert weighed(DriftRule(), parts[:1]).digest() == parts[0].digest()


def test_a_centred_policy_is_allowed_two_sds_of_its_posterior() -> None:
    """It samples 0.35 of them. 600 rewards of 35 % where 20 % was expected (0.77 logits), with an sd of 0.08 logits as
    sampled, 0.23 in all: beyond two sampled sds 0.61 logits are left, which is change for half a shift of 0.8; beyond
    two of the posterior 0.31, which is not. Where the expectation is certain, both call it change.
    """
    for name, few in (("hierarchical", 1), ("centred", 0)):
        text = f"""
app = "shop"
currency = "EUR"
[stages.cart]
policy = {{ name = "{name}", prior_mean = 0.2 }}
reward = {{ kind = "binary", window = "1h", value = 10.0 }}
features = {{}}
[stages.cart.nudges]
mail = {{ type = "reminder", format = "mail" }}
"""
        stage = parse(text).stages["cart"]
        for sd, alarms in ((0.08, few), (0.0, 1)):
            after = statistics.nothing(stage).fold(shown(600, 0.35, 0.2, sd * 0.2 * 0.8))
            assert min(after.drift_state.epoch, 1) == alarms, (name, sd, after.drift_state)
    whole = summed((of_ones(1.0), of_ones(2.0), of_ones(4.0)))
    assert whole.n.tolist() == [7.0, 7.0]


def of_ones(value: float) -> Belief:
    return Belief(*(value * np.ones_like(part) for part in empty(2, 1)))


def shown(n: int, rate: float, expected: float, sd: float) -> SettledRows:
    """n settled rows of the second arm, whose rewards came at another rate than expected, evenly."""
    one = np.ones(n)
    seq = np.arange(1, n + 1)
    return SettledRows(
        seq=seq,
        settled_at=seq,
        arm=np.ones(n, dtype=np.intp),
        x=one[:, None],
        reward=np.diff(np.floor(rate * np.arange(n + 1))),
        tau=0.1 * one,
        nu=0.1 * one,
        at=seq,
        expires=seq + 10,
        answered=np.zeros(n, dtype=np.int64),
        mean=expected * one,
        sd=sd * one,
        version=seq - 1,
        propensity=np.full((n, 2), 0.5),
    )
