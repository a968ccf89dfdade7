"""Matured decisions → settlements → belief: exactly once in effect, in any order and batching."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.belief import Belief, add, empty, sites
from bandit.catalogue.model import Reward, Stage
from bandit.learning.settlement import contribution, settle
from bandit.records import MaturedDecision, Settlement
from bandit.snapshot import Snapshot

Build = Callable[..., MaturedDecision]

D = 11


def settled_by(stage: Stage, batch: Sequence[MaturedDecision], now: int) -> list[Settlement]:
    """Decisions made while a nudge `gone` was declared, learned now that it is not."""
    nudges = {**stage.nudges, "gone": next(iter(stage.nudges.values()))}
    spec, p = msgspec.structs.replace(stage, nudges=nudges), np.full(len(nudges) + 1, 1.0 / (len(nudges) + 1))
    batch = [msgspec.structs.replace(m, decision=msgspec.structs.replace(m.decision, propensity=p)) for m in batch]
    return settle(spec, batch, now, live=Snapshot("app", "cart", stage, 0, empty(len(stage.arms), D)))


@pytest.fixture(scope="module")
def shop(make_stage: Callable[..., Stage]) -> Stage:
    return make_stage(reward=Reward(kind="continuous", window="24h", min=-10.0, max=30.0))


@pytest.fixture(scope="module")
def matured(shop: Stage, make_matured: Build) -> list[MaturedDecision]:
    """60 decisions of every kind: rewarded, silent, retracted, held out, of an arm that is gone."""
    rng = np.random.default_rng(0)
    made = []
    for seq in range(60):
        arm = (*shop.arms, "gone")[rng.integers(6)]
        outcomes = [("reward", float(rng.normal(5, 20))), ("retraction", 1.5)][: rng.integers(3)]
        made.append(make_matured(seq, arm, *outcomes, holdout=arm == "none" and seq % 2 == 0))
    return made


def learn(stage: Stage, matured: Sequence[MaturedDecision]) -> Belief:
    settled = settled_by(stage, matured, now=1)
    return contribution(stage, settled, np.array([m.decision.x for m in matured]).reshape(len(matured), D))


def test_a_settlement_carries_the_reward_and_its_site(shop: Stage, make_matured: Build) -> None:
    (settled,) = settled_by(shop, [make_matured(7, "reminder", ("reward", 20.0))], now=99)
    assert (settled.decision_seq, settled.stage, settled.arm, settled.at) == (7, "checkout", "reminder", 99)
    assert (settled.reward, settled.why, settled.learned) == (20.0, "reward", True)
    assert (settled.tau, settled.nu) == (1.0, 0.75)  # 20 is three quarters of the way from −10 to 30


def test_what_is_not_learned_has_an_empty_site(shop: Stage, make_matured: Build) -> None:
    (settled,) = settled_by(shop, [make_matured(7, "none", ("reward", 20.0), holdout=True)], now=99)
    assert (settled.reward, settled.why, settled.learned) == (20.0, "holdout", False)
    assert (settled.tau, settled.nu) == (0.0, 0.0)


def test_a_contribution_is_the_sum_of_the_sites_of_what_was_learned(
    shop: Stage, matured: list[MaturedDecision]
) -> None:
    learned = [m for m in matured if m.decision.arm != "gone" and not m.decision.holdout]
    scaled = np.array([shop.reward.scaled(s.reward) for s in settled_by(shop, learned, now=1)])
    arm = np.array([shop.arms.index(m.decision.arm) for m in learned])
    expected = sites(5, np.array([m.decision.x for m in learned]), arm, np.ones(len(arm)), scaled, scaled)
    assert 0 < len(learned) < len(matured)
    assert learn(shop, matured).digest() == expected.digest()
    assert learn(shop, matured).n.sum() == len(learned)


def test_nothing_contributes_nothing(shop: Stage, make_matured: Build) -> None:
    assert settled_by(shop, [], now=1) == []
    assert learn(shop, []).digest() == empty(5, D).digest()
    assert learn(shop, [make_matured(1, "gone", ("reward", 1.0))]).digest() == empty(5, D).digest()


@given(st.data())
def test_shuffled_batches_teach_what_one_batch_teaches(
    shop: Stage, matured: list[MaturedDecision], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(matured))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, 60), max_size=6))), 60]
    batches = [learn(shop, order[start:end]) for start, end in pairwise(cuts)]
    assert reduce(add, batches, empty(5, D)).digest() == learn(shop, matured).digest()


@given(st.data())
def test_batches_delivered_twice_settle_alike_so_a_keyed_ledger_learns_once(
    shop: Stage, matured: list[MaturedDecision], data: st.DataObject
) -> None:
    """Settling again gives an equal settlement: first write wins, whoever writes it."""
    again = data.draw(st.lists(st.sampled_from(matured), max_size=40))
    delivered = data.draw(st.permutations([*matured, *again]))
    ledger = {s.decision_seq: s for batch in (delivered[:50], delivered[50:]) for s in settled_by(shop, batch, now=1)}
    x = {m.seq: m.decision.x for m in matured}
    kept = contribution(shop, list(ledger.values()), np.array([x[seq] for seq in ledger]))
    assert kept.digest() == learn(shop, matured).digest()


def test_settling_leaves_its_arguments_alone(shop: Stage, matured: list[MaturedDecision]) -> None:
    for m in matured:
        m.decision.x.flags.writeable = False
    assert learn(shop, matured).digest() == learn(shop, matured).digest()
