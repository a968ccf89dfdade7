"""The cross-fitted model: the stated formula, blind to its own fold, the same however the log is cut."""

from collections.abc import Iterable

import numpy as np
import pytest

from experiments.data.rounds import LoggedRounds, chunked
from experiments.ope import reward_model
from experiments.ope.reward_model import FOLDS, POOLED, RIDGE, GramSums, RewardModel, fitted


def log(n: int = 600, seed: int = 1, *, users: bool = False) -> LoggedRounds:
    rng = np.random.default_rng(seed)
    action, x = rng.integers(0, 3, n), rng.normal(size=(n, 2))
    reward = 0.3 + 0.2 * action + x[:, 0] * (action == 1) + 0.1 * rng.normal(size=n)
    user = rng.integers(0, 40, n) if users else None
    return LoggedRounds(action.astype(np.intp), reward, np.full(n, 1 / 3), x=x, user=user)


def fit(chunks: Iterable[LoggedRounds], k: int) -> RewardModel | None:
    return fitted(GramSums.of(rounds, k) for rounds in chunks)


def test_coefficients_are_those_of_the_formula() -> None:
    rounds = log()
    found = fit([rounds], 3)
    assert found is not None
    assert rounds.x is not None
    design, fold = np.column_stack([np.ones(600), rounds.x]), np.arange(600) % FOLDS
    for f in range(FOLDS):
        use = fold != f
        pooled = np.linalg.solve(design[use].T @ design[use] + POOLED * np.eye(3), design[use].T @ rounds.reward[use])
        for a in range(3):
            x, r = design[use & (rounds.action == a)], rounds.reward[use & (rounds.action == a)]
            own = np.linalg.solve(x.T @ x + RIDGE * np.eye(3), x.T @ r + RIDGE * pooled)
            assert found.theta[f, a] == pytest.approx(own)


@pytest.mark.parametrize("users", [False, True])
def test_a_round_is_predicted_without_its_fold(users: bool) -> None:
    """Rewards of one fold are changed: coefficients there stay, to rounding, and elsewhere they do not."""
    rounds = log(users=users)
    folds = reward_model._folds(rounds)
    before = fit([rounds], 3)
    changed = rounds._replace(reward=np.where(folds == 2, rounds.reward[::-1], rounds.reward))
    after = fit([changed], 3)
    assert before is not None
    assert after is not None
    assert before.theta[2] == pytest.approx(after.theta[2], abs=1e-13)
    assert all(np.abs(before.theta[f] - after.theta[f]).max() > 1e-3 for f in range(FOLDS) if f != 2)


def test_a_user_is_in_one_fold_only() -> None:
    rounds = log(users=True)
    assert rounds.user is not None
    folds = reward_model._folds(rounds)
    assert all(len(set(folds[rounds.user == user].tolist())) == 1 for user in set(rounds.user.tolist()))
    assert len(set(folds.tolist())) == FOLDS


def test_parts_are_fitted_like_the_whole() -> None:
    rounds = log(users=True)
    parts = fit(chunked(rounds, 70)(), 3)
    whole = fit([rounds], 3)
    assert parts is not None
    assert whole is not None
    assert parts.theta == pytest.approx(whole.theta)


def test_unknown_rewards_teach_nothing_and_move_no_fold() -> None:
    rounds = log()
    rounds.reward[50:60] = np.nan
    known = np.r_[0:50, 60:600]
    gram = GramSums.of(rounds, 3)
    assert gram.gram[:, :, 0, 0].sum() == 590
    assert gram.gram[3, :, 0, 0].sum() == np.count_nonzero(known % FOLDS == 3)


def test_predictions_stay_in_the_range_of_the_rewards() -> None:
    rounds = log()
    found = fit([rounds], 3)
    assert found is not None
    far = found.predict(rounds._replace(x=100.0 * np.ones((600, 2))))
    assert far.min() >= rounds.reward.min()
    assert far.max() <= rounds.reward.max()


def test_a_log_without_known_rewards_has_no_model() -> None:
    rounds = log()
    assert fit([rounds._replace(reward=np.full(600, np.nan))], 3) is None
    assert fit([], 3) is None
