"""Accumulation: one pass over a part of a log, for several policies at once. Parts merge by `+` in the order of the
log.

Rounds count up to the first whose reward is not known: a prefix by decision time, because which rewards are known later
on depends on what they are. Holdout rounds were not decided by the policy of the log and are left out. Where the log
names users, the unit of every interval is a group of users, not a round (see `joint_moments.groups_of`).

Shapes: n rounds, k arms.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Ints
from bandit.catalogue.net_value import ArmWorth
from experiments.data.rounds import LoggedRounds, RewardRange, Source, in_parts
from experiments.inference import segments
from experiments.inference.diagnostics import LogDiagnostics
from experiments.inference.dispersion import Dispersion
from experiments.inference.intervals import Moments, UserSums
from experiments.inference.joint_moments import groups_of
from experiments.inference.money import DecisionTimes
from experiments.inference.segments import by_segment
from experiments.inference.sequences import Sequence
from experiments.ope import estimators
from experiments.ope.estimators import EstimatorSettings, EstimatorSums, WeightedRounds
from experiments.ope.evaluation_policies import (
    EvaluationPolicy,
    LoggedProbabilities,
    PlacedPolicy,
    guard_moments,
    place,
)
from experiments.ope.reward_model import RewardModel
from experiments.ope.sequence_adapter import merged, policy_sequence
from experiments.ope.slope_selection import ThresholdLadder

Total = Moments | UserSums
LOGGED = "logged"
_LEAST = 1e-60  # of a propensity: cubes of larger weights are beyond floats, and a log with either is refused


def heaviest_of(floor: float) -> float:
    """Largest weight that is expected on the log of a stage with this floor; without one as if it were 1 %."""
    return 1.0 / floor if floor > 0.0 else 100.0


class EvaluationConfig(NamedTuple):
    """What to estimate on a log: which policies, against which others, in which units, with which estimators.

    `targets`: the policies to evaluate. `against`: policies to contrast each of them with, besides the one that made
    the log; the first of them is the champion. Frozen and picklable as long as the policies are, so that it can be sent
    to workers.
    """

    targets: tuple[EvaluationPolicy, ...]
    against: tuple[EvaluationPolicy, ...] = ()
    knobs: EstimatorSettings = EstimatorSettings()  # parameters of the biased estimators
    rewards: RewardRange | None = None  # their range; taken to be [0, 1] while all of them lie there
    worth: ArmWorth | None = None  # values are net of costs, in currency; else they are rewards
    slope: bool = False  # also choose thresholds by SLOPE
    follow: bool = True  # confidence sequences too: the costliest part
    heaviest: float = heaviest_of(0.0)  # the largest weight that is expected
    force: bool = False  # estimate even what would be refused
    baseline: tuple[EvaluationPolicy, ...] = ()  # to contrast with too, after the others; never the champion
    prefix: bool = False  # the log ends where rewards are not known: what comes later is no reason to refuse

    @property
    def champion(self) -> str:
        """Name of what a policy would replace: the first policy it is contrasted with, or else the one that made the
        log.
        """
        return self.against[0].name if self.against else LOGGED

    @property
    def bounds(self) -> tuple[float, float]:
        """The bounds (low, high) that values cannot leave: the range of rewards, or in currency what rewards in it are
        worth net of the arm's cost, over all arms.
        """
        rewards = self.rewards or RewardRange(0.0, 1.0)
        if self.worth is None:
            return rewards
        ends = [self.worth.net(reward) for reward in rewards]
        return float(np.min(ends)), float(np.max(ends))


class PolicySummary(NamedTuple):
    """What one pass keeps of one policy over the rounds of a part: sums from which estimates, contrasts, sequences and
    diagnostics follow. Merges by `merged`, in the order of the log.

    φ is in units of rewards, or of currency if `EvaluationConfig.worth` is given.
    """

    tally: EstimatorSums  # sums of all estimators
    value: Total  # of φ: doubly robust, or ips without a model
    contrasts: dict[str, Total]  # of φ less that of another policy, round by round
    same: dict[str, bool]  # whether the other policy did the same in every round
    ladder: ThresholdLadder | None  # for SLOPE, if it was asked for
    evidence: LogDiagnostics  # what the log can answer about the policy
    segments: dict[str, Moments]  # of the contrast with the champion
    sequence: Sequence | None  # of the value
    sequences: dict[str, Sequence | None]  # of the contrasts

    def merged(self, other: "PolicySummary") -> "PolicySummary":
        """The summary over this part and the `other`, which follows it in the log. Raises TypeError if only one of them
        has users.
        """
        contrasts = {name: _sum(total, other.contrasts[name]) for name, total in self.contrasts.items()}
        ladder = self.ladder.merged(other.ladder) if self.ladder and other.ladder else None
        sequence = merged(self.sequence, other.sequence)
        sequences = {name: merged(part, other.sequences[name]) for name, part in self.sequences.items()}
        return PolicySummary(
            tally=self.tally + other.tally,
            value=_sum(self.value, other.value),
            contrasts=contrasts,
            same={name: here and other.same[name] for name, here in self.same.items()},
            ladder=ladder,
            evidence=self.evidence + other.evidence,
            segments=segments.merged(self.segments, other.segments),
            sequence=sequence,
            sequences=sequences,
        )


@dataclass(frozen=True)
class LogSummary:
    """What one pass keeps of a part of a log: how many rounds count, moments of their rewards, and a `PolicySummary`
    for each target. `LogSummary()` is the empty part; parts merge by `+` in the order of the log. Its size is bounded
    however long the log is: where the log names users, by 65,536 groups of them.
    """

    rows: int = 0  # all of them
    holdout: int = 0  # rounds of the holdout whose reward is known
    used: int = 0  # rounds that count
    ended: bool = False  # a reward was not known: nothing after it counts
    rewards: Moments = field(default_factory=Moments)  # of the rounds used
    control: Moments = field(default_factory=Moments)  # of the holdout's values
    low: float = np.inf  # the least reward used
    high: float = -np.inf  # the largest
    dispersion: Dispersion = field(default_factory=Dispersion)  # of the rewards used
    times: DecisionTimes = field(default_factory=DecisionTimes)  # of all rows outside the holdout
    policies: tuple[PolicySummary, ...] = ()  # one for each target; () while no round counts

    def __add__(self, other: "LogSummary") -> "LogSummary":
        """The summary of this part and then the other. If this part ended at an unknown reward, only the other's rows
        are counted. Raises TypeError if only one part has users.
        """
        rows, ended, times = self.rows + other.rows, self.ended or other.ended, self.times + other.times
        if self.ended or not other.used + other.holdout:
            return replace(self, rows=rows, ended=ended, times=times)
        both = self.policies and other.policies
        pairs = zip(self.policies, other.policies, strict=True) if both else ()
        return LogSummary(
            rows=rows,
            holdout=self.holdout + other.holdout,
            used=self.used + other.used,
            ended=ended,
            rewards=self.rewards + other.rewards,
            control=self.control + other.control,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            dispersion=self.dispersion + other.dispersion,
            times=times,
            policies=tuple(a.merged(b) for a, b in pairs) if both else self.policies or other.policies,
        )


def summarise(source: Source, ask: EvaluationConfig, model: RewardModel | None = None) -> LogSummary:
    """The summary of a whole source, read once, chunk by chunk. `model`: predicts q̂ where the log has none. Called by
    `evaluate` for each source of the log, in whichever process reads it; a source that is one part of a log adds what
    the part adds where a single source is the whole log, to the bit.

    Raises InvalidRequest as `evaluation_policies.place` does, and as reading the source does.
    """
    total = LogSummary()
    for part in in_parts(source()):
        mine = LogSummary()
        for chunk in part:
            ended = total.ended or mine.ended
            late = LogSummary(rows=len(chunk.reward), ended=True, times=_times(chunk)) if ended else None
            mine += late or _summarise_chunk(chunk, ask, model)
        total += mine
    return total


def matured(chunks: Iterator[LoggedRounds]) -> Iterator[LoggedRounds]:
    """The rounds that count, chunk by chunk: up to the first unknown reward, the holdout's left out. The reward model
    is fitted on these.
    """
    for chunk in chunks:
        known = _known_prefix(chunk)
        yield _without_holdout(chunk.only(slice(known)))
        if known < len(chunk.reward):
            return


def _known_prefix(chunk: LoggedRounds) -> int:
    unknown = np.isnan(chunk.reward)
    return int(np.argmax(unknown)) if unknown.any() else len(unknown)


def _without_holdout(chunk: LoggedRounds) -> LoggedRounds:
    return chunk if chunk.holdout is None else chunk.only(~chunk.holdout)


def _times(chunk: LoggedRounds) -> DecisionTimes:
    at = _without_holdout(chunk).at
    return DecisionTimes() if at is None else DecisionTimes.of(at)


def _summarise_chunk(chunk: LoggedRounds, ask: EvaluationConfig, model: RewardModel | None) -> LogSummary:
    known = _known_prefix(chunk)
    first = chunk.only(slice(known))
    rounds = _without_holdout(first)
    rounds = rounds._replace(pscore=np.maximum(rounds.pscore, _LEAST))
    if rounds.propensities is not None:
        drawn = rounds.propensities > 0.0
        rounds = rounds._replace(propensities=np.where(drawn, np.maximum(rounds.propensities, _LEAST), 0.0))
    held = first.reward[first.holdout] if first.holdout is not None else np.zeros(0)
    if ask.worth is not None:
        held = ask.worth.net(held, 0)  # the holdout is shown nothing
    part = LogSummary(
        rows=len(chunk.reward),
        holdout=len(held),
        used=len(rounds.reward),
        ended=known < len(chunk.reward),
        times=_times(chunk),
        control=Moments.of(held),
    )
    if not part.used:
        return part
    placed = [place(target, rounds, model, ask.worth) for target in ask.targets]
    others = {target.name: place(target, rounds, model, ask.worth) for target in (*ask.against, *ask.baseline)}
    group = None if rounds.user is None else groups_of(rounds.user)
    return replace(
        part,
        rewards=Moments.of(rounds.reward),
        low=float(rounds.reward.min()),
        high=float(rounds.reward.max()),
        dispersion=Dispersion.of(rounds.reward, _drawn_q_hat(placed[0], rounds), ask.rewards or RewardRange(0.0, 1.0)),
        policies=tuple(_policy_summary(p, others, rounds, model, ask, group) for p in placed),
    )


def _policy_summary(
    mine: PlacedPolicy,
    against: dict[str, PlacedPolicy],
    rounds: LoggedRounds,
    model: RewardModel | None,
    ask: EvaluationConfig,
    group: Ints | None,
) -> PolicySummary:
    others = {LOGGED: _behavior_policy(mine, rounds, model, ask.worth), **against}
    rewards = ask.rewards or RewardRange(0.0, 1.0)
    differences = {
        name: (phi(mine) - phi(other), guard_moments(mine, other, rounds, rewards, ask.worth))
        for name, other in others.items()
    }
    champion, guarded = differences[ask.champion]
    return PolicySummary(
        tally=EstimatorSums.of(mine.weighted, ask.knobs, group),
        value=_value_sums(phi(mine), guard_moments(mine, None, rounds, rewards, ask.worth), group),
        contrasts={name: _value_sums(values, model, group) for name, (values, model) in differences.items()},
        same={name: _same(mine, other) for name, other in others.items()},
        ladder=ThresholdLadder.of(mine.weighted) if ask.slope else None,
        evidence=_evidence(mine, rounds, rewards, group),
        segments={} if rounds.segment is None else by_segment(rounds.segment, champion, *(guarded or ())),
        sequence=policy_sequence(mine, None, rounds, ask.bounds, (ask.heaviest, 0.0)) if ask.follow else None,
        sequences={name: _contrast_sequence(mine, name, other, rounds, ask) for name, other in others.items()},
    )


def _contrast_sequence(
    mine: PlacedPolicy, name: str, other: PlacedPolicy, rounds: LoggedRounds, ask: EvaluationConfig
) -> Sequence | None:
    heaviest = ask.heaviest, 1.0 if name == LOGGED else ask.heaviest
    return policy_sequence(mine, other, rounds, ask.bounds, heaviest) if ask.follow else None


def _drawn_q_hat(placed: PlacedPolicy, rounds: LoggedRounds) -> Array | None:
    """q̂ (n,) of the drawn arms, in the reward's units."""
    if placed.q_hat is None:
        return rounds.q
    return placed.q_hat[np.arange(len(rounds.action)), rounds.action]


def _evidence(mine: PlacedPolicy, rounds: LoggedRounds, rewards: RewardRange, group: Ints | None) -> LogDiagnostics:
    """The diagnostics of one policy on these rounds. q̂ is compared with rewards only where their range begins at 0, so
    that a reward of 0 stays one on [0, 1].
    """
    q, span = mine.weighted.q, rewards.high - rewards.low
    if mine.q_hat is not None:
        q = mine.q_hat[np.arange(len(rounds.action)), rounds.action]
    return LogDiagnostics.of(
        rounds.action,
        rounds.reward / span,
        rounds.pscore,
        mine.weighted.w,
        pi=mine.pi,
        propensity=rounds.propensities,
        q_hat=None if q is None or rewards.low != 0.0 else q / span,
        version=rounds.version,
        group=group,
        rewarded=rounds.rewarded,
    )


def _same(mine: PlacedPolicy, other: PlacedPolicy) -> bool:
    """Whether both policies would have done the same in every round, as far as the log says."""
    if mine.pi is not None and other.pi is not None:
        return np.array_equal(mine.pi, other.pi)
    return np.array_equal(mine.weighted.w, other.weighted.w)


def phi(placed: PlacedPolicy) -> Array:
    """φ (n,), whose mean estimates the policy's value: doubly robust, or ips where there is no model of rewards."""
    r, w, q, model = placed.weighted
    return estimators.ips(r, w) if q is None or model is None else estimators.dr(r, w, q, model)


def _behavior_policy(
    mine: PlacedPolicy, rounds: LoggedRounds, model: RewardModel | None, worth: ArmWorth | None
) -> PlacedPolicy:
    """The policy that made the log. Its φ is the reward; less noisy where all propensities and q̂ are known."""
    if rounds.propensities is not None and mine.q_hat is not None:
        return place(EvaluationPolicy(LOGGED, LoggedProbabilities()), rounds, model, worth)
    reward, _, q, _ = mine.weighted
    return PlacedPolicy(WeightedRounds(reward, np.ones_like(reward), q, q), None, mine.q_hat)


def _value_sums(values: Array, guarded: tuple[Array, ...] | None, group: Ints | None) -> Total:
    model = guarded or ()
    return Moments.of(values, *model) if group is None else UserSums.of(group, values, *model)


def _sum(left: Total, right: Total) -> Total:
    """The sum of two totals of the same type. Raises TypeError if only one of them has users."""
    if isinstance(left, UserSums) and isinstance(right, UserSums):
        return left + right
    if isinstance(left, Moments) and isinstance(right, Moments):
        return left + right
    raise TypeError("one part of the log has users and the other has not")
