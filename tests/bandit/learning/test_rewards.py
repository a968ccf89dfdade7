"""From outcomes to one final reward, whatever order they come in."""

import uuid
from collections.abc import Callable
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue.model import Reward, Stage
from bandit.learning.pending import answered
from bandit.learning.rewards import SettledReward, is_final, settle
from bandit.records import MaturedDecision, Outcome

Build = Callable[..., MaturedDecision]

REVENUE = Reward(kind="continuous", window="24h", min=-5.0, max=100.0, default=2.0)


@pytest.fixture(scope="module")
def shop(make_stage: Callable[..., Stage]) -> Stage:
    """Revenue from −5 to 100, 2 if nobody answers."""
    return make_stage(reward=REVENUE)


@pytest.mark.parametrize(
    ("outcomes", "reward", "why"),
    [
        ([], 2.0, "silence"),
        ([("reward", 30.0)], 30.0, "reward"),
        ([("reward", 0.0)], 0.0, "reward"),
        ([("reward", 30.0), ("reward", 12.5)], 42.5, "reward"),
        ([("reward", 0.1)] * 10, 1.0, "reward"),
        ([("reward", 90.0), ("reward", 90.0)], 100.0, "reward"),
        ([("reward", -90.0)], -5.0, "reward"),
        ([("reward", 30.0), ("retraction", 10.0)], 20.0, "reward"),
        ([("reward", 30.0), ("retraction", 10.0), ("retraction", 5.0)], 15.0, "reward"),
        ([("reward", 30.0), ("retraction", 99.0)], -5.0, "reward"),
        ([("reward", 30.0), ("retraction", None)], 2.0, "retraction"),
        ([("reward", 30.0), ("retraction", 10.0), ("retraction", None)], 2.0, "retraction"),
        ([("retraction", 10.0)], 2.0, "silence"),
        ([("activation", None)], 2.0, "silence"),
        ([("activation", None), ("reward", 7.0)], 7.0, "reward"),
        ([("opt_out", None)], 2.0, "silence"),
        ([("reward", 30.0), ("opt_out", None)], 30.0, "reward"),
        ([("reward", 30.0), ("retraction", None), ("opt_out", None)], 2.0, "retraction"),
    ],
)
def test_rewards_add_up_retractions_take_away_and_silence_is_the_default(
    shop: Stage, make_matured: Build, outcomes: list[tuple[str, float | None]], reward: float, why: str
) -> None:
    verdict = settle(shop, make_matured(1, "reminder", *outcomes).outcomes, holdout=False)
    assert verdict == (reward, why, True)


def test_who_opts_out_has_answered_nothing(make_matured: Build) -> None:
    """Delays are of answers: an opt-out that came early says nothing of how late rewards come."""
    told = make_matured(1, "reminder", ("opt_out", None), ("reward", 1.0)).outcomes
    muted, rewarded = (msgspec.structs.replace(one, received=5 + n) for n, one in enumerate(told))
    assert (answered([muted]), answered([muted, rewarded])) == (0, 6)


def test_the_sum_is_clipped_once_and_not_each_of_its_parts(shop: Stage, make_matured: Build) -> None:
    matured = make_matured(1, "reminder", ("reward", 150.0), ("retraction", 70.0))
    assert settle(shop, matured.outcomes, holdout=False).reward == 80.0


def test_late_outcomes_change_nothing(shop: Stage, make_matured: Build) -> None:
    late = make_matured(1, "reminder", ("reward", 30.0), ("retraction", None), ("activation", None), late=True)
    in_time = make_matured(1, "reminder", ("reward", 7.0))
    assert settle(shop, late.outcomes, holdout=False) == SettledReward(2.0, "silence", learned=True)
    both = (*late.outcomes, *in_time.outcomes)
    assert settle(shop, both, holdout=False) == SettledReward(7.0, "reward", learned=True)


def test_the_holdout_has_a_reward_but_teaches_nothing(shop: Stage, make_matured: Build) -> None:
    matured = make_matured(1, "none", ("reward", 30.0))
    assert settle(shop, matured.outcomes, holdout=True) == SettledReward(30.0, "holdout", learned=False)


def test_where_activation_is_required_nothing_is_learned_without_it(
    make_stage: Callable[..., Stage], make_matured: Build
) -> None:
    strict = make_stage(reward=REVENUE, activation="required")
    shown = make_matured(1, "reminder", ("activation", None), ("reward", 30.0))
    unseen = make_matured(1, "reminder", ("reward", 30.0))
    shown_late = make_matured(1, "reminder", ("activation", None), late=True).outcomes + unseen.outcomes
    assert settle(strict, shown.outcomes, holdout=False) == SettledReward(30.0, "reward", learned=True)
    assert settle(strict, unseen.outcomes, holdout=False) == SettledReward(30.0, "not activated", learned=False)
    assert settle(strict, shown_late, holdout=False) == SettledReward(30.0, "not activated", learned=False)
    assert settle(strict, shown.outcomes, holdout=True).why == "holdout"


def test_the_order_of_outcomes_does_not_show_in_the_last_bit(shop: Stage, make_matured: Build) -> None:
    """Plain sums of these depend on their order."""
    parts = (0.1, 0.2, 0.3, 0.7)
    orders = list(permutations(parts))
    assert len({sum(order) for order in orders}) > 1
    for kind, before in (("reward", []), ("retraction", [("reward", 1.5)])):
        reported = [[*before, *((kind, value) for value in order)] for order in orders]
        settled = {settle(shop, make_matured(1, "reminder", *r).outcomes, holdout=False).reward for r in reported}
        assert len(settled) == 1


values = st.floats(-1e12, 1e12)
reports = st.lists(
    st.tuples(st.just("reward"), values)
    | st.tuples(st.just("retraction"), st.none() | values)
    | st.tuples(st.just("activation"), st.none()),
    max_size=8,
)


def test_a_deferred_decision_needs_its_activation_whatever_the_stage_says(shop: Stage, make_matured: Build) -> None:
    silent, rewarded = make_matured(1, "reminder"), make_matured(1, "reminder", ("reward", 1.0))
    shown = make_matured(1, "reminder", ("reward", 1.0), ("activation", None))
    for matured in (silent, rewarded):
        assert settle(shop, matured.outcomes, holdout=False).learned
        found = settle(shop, matured.outcomes, holdout=False, deferred=True)
        assert (found.why, found.learned) == ("not activated", False)
    assert settle(shop, shown.outcomes, holdout=False, deferred=True) == settle(shop, shown.outcomes, holdout=False)


@given(reports, st.booleans(), st.data())
def test_the_order_of_outcomes_does_not_matter(
    shop: Stage,
    make_matured: Build,
    reported: list[tuple[str, float | None]],
    held: bool,
    data: st.DataObject,
) -> None:
    outcomes = make_matured(1, "reminder", *reported).outcomes
    verdict = settle(shop, outcomes, holdout=held)
    assert settle(shop, data.draw(st.permutations(outcomes)), holdout=held) == verdict
    assert REVENUE.min <= verdict.reward <= REVENUE.max


@pytest.mark.parametrize(
    ("settles", "activation", "outcomes", "final"),
    [
        ("window", "assumed", ["reward"], False),
        ("reward", "assumed", ["reward"], True),
        ("reward", "assumed", ["activation"], False),
        ("reward", "assumed", [], False),
        ("reward", "required", ["reward"], False),
        ("reward", "required", ["reward", "activation"], True),
        ("window", "required", ["reward", "activation"], False),
    ],
)
def test_a_reward_is_final_early_only_where_every_outcome_is_reported(
    make_stage: Callable[..., Stage],
    make_matured: Build,
    settles: str,
    activation: str,
    outcomes: list[str],
    final: bool,
) -> None:
    stage = make_stage(reward=msgspec.structs.replace(REVENUE, settle=settles), activation=activation)
    matured = make_matured(1, "reminder", *((kind, 1.0) for kind in outcomes))
    assert is_final(stage, matured.outcomes) is final
    assert is_final(stage, matured.outcomes, deferred=True) is (final and "activation" in outcomes)


# -- facts -------------------------------------------------------------------------------------------------------------


def told(kind: Any, value: float | None, fact: str = "", name: str = "", voids: str = "") -> Outcome:
    named = name or f"{kind} {value} {fact}"
    bare = Outcome(decision=uuid.UUID(int=1), id=named, kind=kind, value=value, occurred=1, received=1)
    return msgspec.structs.replace(bare, fact=fact, voids=voids)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([told("reward", 50.0, "o1")], (50.0, "reward")),
        ([told("reward", 50.0, "o1"), told("retraction", None, "o1")], (2.0, "retraction")),
        ([told("reward", 50.0, "o1"), told("retraction", 20.0, "o1")], (30.0, "reward")),
        ([told("reward", 50.0, "o1"), told("retraction", 80.0, "o1")], (2.0, "retraction")),
        ([told("reward", 5.0, "o"), told("retraction", 2.0, "o"), told("retraction", None, "o")], (2.0, "retraction")),
        ([told("reward", 50.0, "o1"), told("reward", 30.0, "o2"), told("retraction", 70.0, "o1")], (30.0, "reward")),
        ([told("reward", 50.0, "o1"), told("reward", 0.0, "o2"), told("retraction", None, "o1")], (0.0, "reward")),
        ([told("reward", 50.0, "o1"), told("retraction", None, "o2")], (50.0, "reward")),
        ([told("reward", 50.0, "o1"), told("retraction", 20.0)], (30.0, "reward")),  # taken back by hand
        ([told("reward", 50.0, "o1"), told("retraction", None)], (2.0, "retraction")),
        ([told("reward", 50.0, "o1"), told("reward", 5.0)], (55.0, "reward")),
        ([told("retraction", None, "o1")], (2.0, "silence")),
        ([told("reward", 50.0, "o1", "a"), told("retraction", None, "o1", "b", voids="a")], (2.0, "silence")),
    ],
)  # fmt: skip
def test_what_is_taken_back_is_taken_from_its_fact(
    shop: Stage, outcomes: list[Outcome], expected: tuple[float, str]
) -> None:
    for order in permutations(outcomes):
        assert settle(shop, order, holdout=False)[:2] == expected


@given(st.lists(st.floats(-200.0, 200.0) | st.sampled_from([0.0, -0.0, 1.0]), max_size=30))
def test_rewards_together_are_scaled_as_each_alone(values: list[float]) -> None:
    alone = [REVENUE.scaled(value) for value in values]
    assert REVENUE.all_scaled(values).tolist() == alone
