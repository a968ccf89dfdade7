"""Evaluation policies: a name, and a function from logged rounds to probabilities (n, k).

A policy is asked what it would have done in the situations of the log, among the nudges that were eligible there. It
may read x, the eligible set and the logged propensities, and must not read the reward: an estimate for a policy that
knows the reward is not an estimate of its value.

Shapes: n rounds, k arms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit import engine
from bandit.arrays import Array
from bandit.catalogue.net_value import ArmWorth
from bandit.engine import PreparedPolicy
from bandit.errors import InvalidRequest, Problem
from bandit.snapshot import Snapshot
from experiments.data.rounds import LoggedRounds, RewardRange
from experiments.inference.intervals import model_moments
from experiments.ope.estimators import WeightedRounds
from experiments.ope.reward_model import RewardModel

_SUM = 1e-6
Probabilities = Callable[[LoggedRounds], Array]


class EvaluationPolicy(NamedTuple):
    """A policy to evaluate: a name for the report, and `of`, the function that gives its probabilities (n, k) for
    rounds of a log. Without `of`, it is the policy that the log's own columns pi_e describe.

    `of` has to be deterministic, must not read the reward, and gives rows ≥ 0 that sum to 1 to 1e-6; `place` checks
    shape and sums and raises InvalidRequest otherwise. It has to be picklable if several workers evaluate.

        EvaluationPolicy("uniform", UniformChoice())
    """

    name: str
    of: Probabilities | None = None


@dataclass(frozen=True)
class UniformChoice:
    """The uniform policy: every eligible arm alike. A baseline that any randomised log can answer for."""

    def __call__(self, rounds: LoggedRounds) -> Array:
        """Probabilities (n, k): 1 / number of eligible arms for each of them, 0 elsewhere."""
        may = eligible(rounds)
        return np.asarray(may / may.sum(axis=1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True)
class FixedArm:
    """The policy that always shows one arm: number `arm` wherever it is eligible, the first eligible one elsewhere (no
    nudge is always eligible, and first).
    """

    arm: int

    def __call__(self, rounds: LoggedRounds) -> Array:
        """Probabilities (n, k): 1 for the arm, 0 for the others. Raises InvalidRequest if the log has no such arm."""
        may = eligible(rounds)
        if self.arm >= may.shape[1]:
            raise InvalidRequest(Problem("policy", f"there is no arm {self.arm}", f"0 to {may.shape[1] - 1}"))
        p = np.zeros(may.shape)
        p[np.arange(len(may)), np.where(may[:, self.arm], self.arm, may.argmax(axis=1))] = 1.0
        return p


@dataclass(frozen=True)
class LoggedProbabilities:
    """The behavior policy: the one that made the log, by its logged propensities."""

    def __call__(self, rounds: LoggedRounds) -> Array:
        """The logged propensities (n, k). Raises InvalidRequest if the log holds only those of the drawn actions."""
        if rounds.propensities is None:
            raise InvalidRequest(Problem("p_0 …", "the log has no propensities of all arms", "log all of them"))
        return rounds.propensities


@dataclass(frozen=True)
class JudgedCandidate:
    """The candidate that was judged: its own probabilities, as they were logged beside the propensities. Where none was
    judged there are none.
    """

    def __call__(self, rounds: LoggedRounds) -> Array:
        """The candidate's probabilities (n, k). Raises InvalidRequest if the log holds none."""
        if rounds.candidate is None:
            problem = "the log holds no decisions in which a candidate was judged"
            raise InvalidRequest(Problem("candidate", problem, "release it with judge = true"))
        return rounds.candidate


@dataclass(frozen=True)
class JudgedLive:
    """The live policy beside which a candidate was judged: what the propensities hold besides the candidate's half."""

    def __call__(self, rounds: LoggedRounds) -> Array:
        """The live policy's probabilities (n, k), to the grid of propensities. Raises InvalidRequest if no candidate
        was judged.
        """
        candidate, p = JudgedCandidate()(rounds), LoggedProbabilities()(rounds)
        live = np.maximum(2.0 * p - candidate, 0.0)  # below 0 by units of the grid, where the mixture was rounded
        return np.asarray(live / live.sum(axis=1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True)
class SnapshotPolicy:
    """A snapshot as an evaluation policy: it decides as the service would, with top-two, ramp and floor, but learns
    nothing on the way. `columns`: for each arm of the snapshot, its number among the log's arms. Made by
    `snapshot_policy`.
    """

    snapshot: Snapshot
    columns: tuple[int, ...]

    @cached_property
    def _live(self) -> PreparedPolicy:
        return engine.prepare(self.snapshot)

    def __call__(self, rounds: LoggedRounds) -> Array:
        """The snapshot's final propensities (n, k), 0 for arms that it does not know.

        Raises InvalidRequest if the log's x has another number of columns than the snapshot reads, or if in some round
        no arm was eligible that the snapshot knows.
        """
        d, may = len(self._live.schema.columns), eligible(rounds)
        if rounds.x is None or rounds.x.shape[1] != d:
            has = "none" if rounds.x is None else str(rounds.x.shape[1])
            raise InvalidRequest(Problem("x", f"the snapshot reads {d} columns, the log has {has}", "log x as it was"))
        known = may[:, list(self.columns)]
        if not known.any(axis=1).all():
            problem = "in some rounds none of the arms it knows was eligible"
            raise InvalidRequest(Problem("policy", problem, "evaluate a snapshot of the same stage"))
        p = np.zeros(may.shape)
        p[:, list(self.columns)] = engine.choose_many(self._live, rounds.x, known).propensity
        return p


def snapshot_policy(snapshot: Snapshot, arms: Sequence[str]) -> SnapshotPolicy:
    """The evaluation policy of a snapshot on a log whose arms are called `arms`. Raises InvalidRequest if the snapshot
    knows an arm that the log does not, because no log can say what a choice earns that was never made.
    """
    unknown = [arm for arm in snapshot.stage_spec.arms if arm not in arms]
    if unknown:
        problem = f"the snapshot may choose {', '.join(unknown)}, which the log never could"
        raise InvalidRequest(Problem("policy", problem, f"the log's arms are {', '.join(arms)}"))
    return SnapshotPolicy(snapshot, tuple(arms.index(arm) for arm in snapshot.stage_spec.arms))


def eligible(rounds: LoggedRounds) -> NDArray[np.bool_]:
    """Eligibility mask (n, k): as logged, or else where the logged propensity is above 0, or else every arm. Raises
    InvalidRequest if the log does not say how many arms there are.
    """
    if rounds.eligible is not None:
        return rounds.eligible
    if rounds.propensities is not None:
        return rounds.propensities > 0.0
    if rounds.arms is None:
        fix = "give p_0 … or q_hat_0 …, or pi_e of the policy itself"
        raise InvalidRequest(Problem("policy", "the log does not say how many arms there are", fix))
    return np.ones((len(rounds.reward), rounds.arms), dtype=np.bool_)


class PlacedPolicy(NamedTuple):
    """A policy placed on n rounds of a log: the weighted rounds that the estimators need, and its whole rows where they
    are known.

    Made by `place` for each chunk and target. `weighted` and `value` are in currency if a worth was given, else in
    units of rewards; `q_hat` is always in units of rewards. None stands for what the log and the policy do not say.
    """

    weighted: WeightedRounds  # in units of the worth, if one was given
    pi: Array | None  # (n, k)
    q_hat: Array | None  # (n, k), in units of the reward
    value: Array | None = None  # (n, k) q̂ in units of the worth


def place(
    target: EvaluationPolicy, rounds: LoggedRounds, model: RewardModel | None = None, worth: ArmWorth | None = None
) -> PlacedPolicy:
    """The policy `target` placed on these rounds. `model` predicts q̂ where the log has none; `worth` turns rewards
    into currency, net of costs.

    Raises InvalidRequest if neither the policy nor the log says what the policy would have done, or if the
    probabilities that it gives have another shape than (n, k) or do not sum to 1.
    """
    each = np.arange(len(rounds.reward))
    pi = rounds.target if target.of is None else _probabilities(target, rounds)
    if pi is None and rounds.pi is None:
        fix = "add pi_e or pi_e_0 … to the log, or give --policy"
        raise InvalidRequest(Problem("policy", f"nothing says what {target.name!r} would have done", fix))
    taken = rounds.pi if pi is None else pi[each, rounds.action]
    assert taken is not None  # noqa: S101 - one of both is there
    w, reward = taken / rounds.pscore, rounds.reward
    if target.of is None and rounds.q is not None and rounds.model is not None and worth is None:
        return PlacedPolicy(WeightedRounds(reward, w, rounds.q, rounds.model), pi, rounds.q_hat, rounds.q_hat)
    q_hat = rounds.q_hat if rounds.q_hat is not None or model is None else model.predict(rounds)
    value = q_hat
    if worth is not None:
        reward = worth.net(reward, rounds.action)
        value = None if q_hat is None else worth.net(q_hat)
    if value is None or pi is None:
        return PlacedPolicy(WeightedRounds(reward, w), pi, q_hat, value)
    weighted = WeightedRounds(reward, w, value[each, rounds.action], (pi * value).sum(axis=1))
    return PlacedPolicy(weighted, pi, q_hat, value)


def guard_moments(
    left: PlacedPolicy,
    right: PlacedPolicy | None,
    rounds: LoggedRounds,
    rewards: RewardRange,
    worth: ArmWorth | None = None,
) -> tuple[Array, Array, Array, Array] | None:
    """Model moments that guard the variance of the doubly robust value of `left`, less that of `right` if there is one:
    vm, k3m, dm (n,) as `intervals.model_moments` says, for rewards in the range `rewards`; and even (n,), its vm for
    rewards of variance 1.

    None unless the log has every arm's propensity and q̂, and the policies' whole rows. In units of rewards, or of
    currency if `worth` is given.
    """
    direct, less = left.weighted.model, right.weighted.model if right else 0.0
    if left.pi is None or left.q_hat is None or rounds.propensities is None or direct is None or less is None:
        return None
    pi = left.pi if right is None or right.pi is None else left.pi - right.pi
    span = rewards.high - rewards.low
    worthy = pi if worth is None else pi * worth.gain
    vm, k3m, _ = model_moments(span * worthy, rounds.propensities, (left.q_hat - rewards.low) / span)
    drawn = rounds.propensities > 0.0
    even = np.where(drawn, worthy * worthy / np.where(drawn, rounds.propensities, 1.0), 0.0).sum(axis=1)
    return vm, k3m, direct - less, even


def _probabilities(target: EvaluationPolicy, rounds: LoggedRounds) -> Array:
    assert target.of is not None  # noqa: S101 - the caller asked
    p = np.asarray(target.of(rounds), dtype=np.float64)
    n, k = len(rounds.reward), rounds.arms
    if p.shape != (n, k or p.shape[-1]):
        problem = f"{target.name!r} gave probabilities of shape {p.shape}"
        raise InvalidRequest(Problem("policy", problem, f"({n}, {k}): one row a round, one column an arm"))
    if not (np.isfinite(p).all() and (p >= 0.0).all() and (np.abs(p.sum(axis=1) - 1.0) <= _SUM).all()):
        raise InvalidRequest(Problem("policy", f"{target.name!r} gave rows that are no probabilities", "sum to 1"))
    return p
