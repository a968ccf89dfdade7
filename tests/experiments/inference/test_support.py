"""Support of each arm: sums against direct ones, and what is said where the log cannot answer."""

import numpy as np
import pytest

from bandit.arrays import Array
from experiments.inference.support import SupportSums, least_words, sentence

N, K = 4000, 3
Drawn = tuple[Array, Array, Array]


def log(floor: float) -> tuple[Array, Array]:
    """Arms and propensities: arm 2 has the floor's, arm 1 a quarter of the rest."""
    p = np.tile([0.75 * (1 - floor), 0.25 * (1 - floor), floor], (N, 1))
    rng = np.random.default_rng(1)
    return (rng.random(N)[:, None] > p.cumsum(axis=1)).sum(axis=1), p


def sums(action: Array, p: Array, pi: Array) -> SupportSums:
    each, arm = np.arange(len(action)), action.astype(np.intp)
    return SupportSums.of(arm, p[each, arm], pi[each, arm] / p[each, arm], pi, p)


def test_each_arm_has_its_share_its_least_propensity_and_the_rounds_it_is_worth() -> None:
    action, p = log(0.02)
    p[:10, 1], p[:10, 0] = 0.05, 0.93
    pi = np.random.default_rng(2).dirichlet([1.0, 2.0, 1.0], N)
    found = sums(action, p, pi).arms()
    w = (pi / p)[np.arange(N), action.astype(int)]
    for a, arm in enumerate(found):
        mine = w[action == a]
        assert arm.arm == a
        assert arm.rounds == len(mine)
        assert arm.share == pytest.approx(pi[:, a].mean())
        assert arm.ess == pytest.approx(mine.sum() ** 2 / (mine**2).sum())
        assert arm.least == p[:, a].min()
    assert [arm.answer for arm in found] == ["answers", "answers", "cannot say"]
    assert found[2].rounds > 50 > found[2].ess


def test_parts_of_a_log_add_up() -> None:
    action, p = log(0.02)
    p[:10, 1], p[:10, 0] = 0.05, 0.93  # the least is in the first part only
    pi = np.full((N, K), 1 / 3)
    whole = sums(action, p, pi).arms()
    parts = SupportSums()
    for rows in (slice(0, 17), slice(17, 2000), slice(2000, N)):
        parts += sums(action[rows], p[rows], pi[rows])
    for one, other in zip(parts.arms(), whole, strict=True):
        assert one[:2] == pytest.approx(other[:2])
        assert one[2:5] == pytest.approx(other[2:5])
        assert one.answer == other.answer


def test_an_arm_that_the_log_never_showed_is_refused_in_plain_words() -> None:
    action, p = log(0.0)
    pi = np.tile([0.5, 0.3, 0.2], (N, 1))
    none, one, two = sums(action, p, pi).arms()
    assert (none.answer, one.answer) == ("answers", "answers")
    assert two.answer == "cannot say"
    assert np.isnan(two.least)
    assert two.why == "in 100.0% of the rounds in which the policy would show it, the log never could"
    said = sentence((none, one, two), ("none", "tip", "offer"))
    offer = "The log cannot say what the policy's choices bring for offer (20.0% of its choices)"
    assert said == f"{offer}, on which its estimate rests"


def test_an_arm_that_the_policy_never_chooses_is_not_asked_for() -> None:
    action, p = log(0.0)
    found = sums(action, p, np.tile([0.9, 0.1, 0.0], (N, 1))).arms()
    assert found[2].answer == "not asked"
    assert sentence(found, ()) == ""


def test_a_log_of_drawn_propensities_alone_tells_what_its_own_rounds_can() -> None:
    action, p = log(0.05)
    each, arm = np.arange(N), action.astype(np.intp)
    own = p[each, arm]
    weight = np.where(action == 2, 0.5 / own, np.where(action == 0, 0.5 / own, 0.0))
    found = SupportSums.of(arm, own, weight, None, None).arms()
    assert found[0].share == pytest.approx(0.5, abs=0.03)
    assert found[2].least == 0.05
    assert found[1].answer == "not asked"


def test_the_least_propensity_says_where_the_log_could_not_show_the_arm_at_all() -> None:
    """An arm that is 0 in a tenth of the rounds and 0.05 elsewhere has no least propensity of 0.05."""
    action, p = log(0.05)
    p[: N // 10, 2], p[: N // 10, 0] = 0.0, 1.0 - p[0, 1]
    action = np.where((np.arange(N) < N // 10) & (action == 2), 0, action)
    none, _, offer = sums(action, p, np.tile([0.5, 0.0, 0.5], (N, 1))).arms()
    assert least_words(offer) == "0 in 10.0%, else 0.05"
    assert (offer.answer, offer.why) == (
        "cannot say",
        "in 10.0% of the rounds in which the policy would show it, the log never could",
    )
    assert least_words(none) == f"{none.least:.3g}"


def test_arms_that_are_hardly_chosen_are_said_to_be_few_and_no_more() -> None:
    """What they weigh depends on their propensities, too."""
    action, p = log(0.0)
    found = sums(action, p, np.tile([0.795, 0.2, 0.005], (N, 1))).arms()
    said = "The log cannot say what the policy's choices bring for offer (0.5% of its choices)"
    assert sentence(found, ("none", "tip", "offer")) == f"{said}: less than 1% of its choices in all"
