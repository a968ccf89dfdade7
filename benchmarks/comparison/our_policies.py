"""Contestants made of this project's policies: the same posterior, propensities and draw as the service, in process."""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import belief as beliefs
from bandit.arrays import Array
from bandit.belief import Belief
from bandit.catalogue.drift_rule import DriftRule
from bandit.learning import delay, drift
from bandit.learning.drift import DriftState, Residual
from bandit.policies import Beta, Centred, EpsilonGreedy, Hierarchical, Linear, LinUCB, Logistic, Uniform, hierarchy
from bandit.policies.hierarchical import LogitPolicy
from bandit.policies.hierarchy import Layout
from bandit.policies.linear import Ridge
from bandit.policies.protocol import ArmEconomics, Policy, Scores
from bandit.propensity.draw import draw_many
from bandit.propensity.floor import floored_many
from benchmarks.comparison import environments
from benchmarks.comparison.environments import Stream
from benchmarks.comparison.harness import Actions, Agent, Make, PendingOutcomes

DRIFT = DriftRule()
TYPICAL = 22.0 / environments.WINDOW_HOURS  # the mean delay of `delay`, as a share of the window


class StagePolicies:
    """Contestant with one policy over every stage, each with its own belief. No floor unless stated.

    typical: the delay, as a share of the window, that is assumed before any answer was seen; None waits for windows to
    close.
    """

    def __init__(self, policy: Policy, stream: Stream, seed: int, floor: float = 0.0, typical: float | None = TYPICAL):
        self.policy, self.arms, self.floor, self.typical = _declared(policy, stream), stream.arms, floor, typical
        self.belief = [
            beliefs.empty(len(self.policy.rows(a.names)), d) for a, d in zip(stream.arms, stream.dims, strict=True)
        ]
        self.open = list(self.belief)
        self.counts = [np.zeros((len(a.names), delay.BUCKETS)) for a in stream.arms]
        self.expected: dict[int, Scores] = {}  # of each stage's last batch
        self.logged = [np.zeros((0, len(a.names))) for a in stream.arms]  # propensities of what is not learned yet
        self.rng = np.random.default_rng([seed, 1])

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) by exact propensities, then the floor if there is one, then the draw: x (n, d), eligible (n, k)."""
        known = beliefs.add(self.belief[stage], self.open[stage])
        scores = self.policy.posterior(known, self.arms[stage]).choose_many(x, eligible)
        self.expected[stage] = scores
        p = floored_many(scores.propensity, self.floor, eligible)
        self.logged[stage] = np.concatenate([self.logged[stage], p])
        return draw_many(p, self.rng.random(len(x)))

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn n final rewards at one stage, in the order of their decisions: one site for each row, summed as the
        service sums them.
        """
        arms, before = self.arms[stage], self.belief[stage]
        design = self.policy.design(x, arm, self._drawn_from(stage, len(arm)))
        tau, nu = self.policy.sites(before, arms, design, arm, reward)
        new = self.policy.sums(len(arms.names), design, arm, tau, nu, reward)
        self.belief[stage] = beliefs.add(before, new)

    def _drawn_from(self, stage: int, n: int) -> Array:
        """Propensities (n, k) of the oldest n decisions of a stage that were not learned."""
        drawn, self.logged[stage] = self.logged[stage][:n], self.logged[stage][n:]
        return drawn

    def late(self, stage: int, arm: Actions, delays: Array) -> None:
        """Count the delays (n,) of answers, as shares of the window, by arm: what the delay distribution is estimated
        from.
        """
        self.counts[stage] += delay.counted(len(self.counts[stage]), arm, delays)

    def overlay(self, pending: PendingOutcomes) -> None:
        """Compute what decisions say whose windows are open, as the belief that is added before the next batch."""
        if self.typical is None:
            return
        for s in np.unique(pending.stage).tolist():
            rows = pending.stage == s
            x, arm, came, age = (part[rows] for part in (pending.x, pending.arm, pending.answered, pending.age))
            answers = delay.AnswerDelays(arm[came], pending.delay[rows][came], age[came])
            f = self._answered_by(s, answers)
            weight = np.where(came, 1.0, delay.answered_by(f, arm, age))
            self.open[s] = self._provisional(s, x[:, : self.belief[s].shift.shape[1]], arm, came.astype(float), weight)

    def _answered_by(self, s: int, answers: delay.AnswerDelays) -> Array:
        return delay.distribution(self.counts[s], answers, self.typical or TYPICAL)

    def _provisional(self, s: int, x: Array, arm: Actions, reward: Array, weight: Array) -> Belief:
        design = self.policy.design(x, arm, self.logged[s][: len(arm)])
        tau, nu = self.policy.provisional(self.belief[s], self.arms[s], design, arm, reward, weight)
        return self.policy.weighted_sums(len(self.arms[s].names), design, arm, tau, nu, reward, weight)


class AppPolicy(StagePolicies):
    """Contestant with one policy over every stage of an app, as the service runs it: each stage hears what the others
    know of types.
    """

    def __init__(self, policy: Policy, stream: Stream, seed: int, typical: float | None = TYPICAL):
        super().__init__(policy, stream, seed, typical=typical)
        keys = ["1", *(f"x{i}" for i in range(1, max(stream.dims)))]
        self.alone = [a._replace(columns=tuple(keys[:d])) for a, d in zip(stream.arms, stream.dims, strict=True)]
        self.said = [policy.message(b, a) for b, a in zip(self.belief, self.alone, strict=True)]

    def _hear(self, stage: int) -> None:
        others = [m for s, m in enumerate(self.said) if m and s != stage]
        heard = self.alone[stage]._replace(cross_stage_factor=hierarchy.combined(others))
        self.arms = (*self.arms[:stage], heard, *self.arms[stage + 1 :])

    def overlay(self, pending: PendingOutcomes) -> None:
        """Overlay as `StagePolicies`, and tell the other stages what this one's open decisions say of types."""
        for s in range(len(self.arms)):
            self._hear(s)
        super().overlay(pending)
        for s, own in enumerate(self.alone):
            self.said[s] = self.policy.message(beliefs.add(self.belief[s], self.open[s]), own)

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) at one stage, with what the other stages have learned of types so far."""
        self._hear(stage)
        return super().decide(stage, x, eligible)

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn as `StagePolicies`, and tell the other stages what this one has learned of types."""
        self._hear(stage)
        super().learn(stage, x, arm, reward)
        self.said[stage] = self.policy.message(self.belief[stage], self.alone[stage])


class KnownDelays(AppPolicy):
    """Contestant that is told how long answers take in `delay`, for each nudge: what no service can
    know, so a bound.
    """

    def _answered_by(self, s: int, answers: delay.AnswerDelays) -> Array:  # noqa: ARG002
        mean = np.resize(environments.DELAY_HOURS, len(self.arms[s].names))[:, None] / environments.WINDOW_HOURS
        return np.asarray(np.expm1(-delay.EDGES / mean) / np.expm1(-1.0 / mean), dtype=np.float64)


class DriftWatching(AppPolicy):
    """Contestant that watches for change as the service does: a CUSUM for each arm, and what was learned before an
    alarm weighs less.
    """

    def __init__(self, policy: Policy, stream: Stream, seed: int, rules: DriftRule = DRIFT):
        super().__init__(policy, stream, seed)
        self.rules = rules
        self.watch = [DriftState() for _ in stream.arms]
        self.epochs = [[belief] for belief in self.belief]
        self.rows = 0

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn n final rewards, and scan them for an alarm; the rows before an alarm belong to the old epoch."""
        arms, before, epochs = self.arms[stage], self.watch[stage], self.epochs[stage]
        mean, sd = (
            part[np.arange(len(arm)), arm].tolist() for part in (self.expected[stage].mean, self.expected[stage].sd)
        )
        numbers = range(self.rows + 1, self.rows + len(arm) + 1)
        told = zip(numbers, arm.tolist(), reward.tolist(), mean, sd, strict=True)
        seen = (Residual(n, 0, arms.names[a], r, m, s, self.rows) for n, a, r, m, s in told)
        self.watch[stage] = drift.scan(self.rules, before, seen)
        self.rows += len(arm)
        epochs += [beliefs.empty(*epochs[0].shift.shape)] * (self.watch[stage].epoch - before.epoch)
        tau, nu = self.policy.sites(self.belief[stage], arms, x, arm, reward)
        of = np.array([drift.epoch_of(self.watch[stage], n) for n in numbers])
        for e in np.unique(of).tolist():
            mine = of == e
            new = beliefs.sites(len(arms.names), x[mine], arm[mine], tau[mine], nu[mine], reward[mine])
            epochs[e] = beliefs.add(epochs[e], new)
        self.belief[stage] = drift.weighed(self.rules, epochs)
        self.said[stage] = self.policy.message(self.belief[stage], self.alone[stage])


class RestartedPolicy(AppPolicy):
    """Contestant that is told when everything changes, and begins anew then: what no service can know, so a bound."""

    def __init__(self, policy: Policy, stream: Stream, seed: int):
        super().__init__(policy, stream, seed)
        self.left = len(stream.stage) // 2

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) at one stage, after beliefs were emptied if the break has come."""
        if self.left == 0:
            self.belief = [beliefs.empty(*b.shift.shape) for b in self.belief]
            self.said = [self.policy.message(b, a) for b, a in zip(self.belief, self.alone, strict=True)]
        self.left -= len(x)
        return super().decide(stage, x, eligible)


class PooledPolicy:
    """Contestant with one belief over the arms of all stages, which share the effects of a nudge's type. All stages
    have d features.
    """

    def __init__(self, policy: Policy, stream: Stream, seed: int):
        sizes = [len(arms.names) for arms in stream.arms]
        self.first = np.concatenate([[0], np.cumsum(sizes)])
        self.inner = StagePolicies(policy, stream._replace(arms=(_joined(stream.arms),), dims=stream.dims[:1]), seed)

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:
        """Arms (n,) at one stage; of the pooled arms, only the stage's own are eligible."""
        mine = slice(self.first[stage], self.first[stage + 1])
        wide = np.zeros((len(x), self.first[-1]), dtype=np.bool_)
        wide[:, mine] = eligible
        return np.asarray(self.inner.decide(0, x, wide) - self.first[stage], dtype=np.intp)

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn n final rewards at one stage into the common belief, in the order in which stages report."""
        self.inner.learn(0, x, arm + self.first[stage], reward)


@dataclass(frozen=True)
class FullHierarchy(LogitPolicy):
    """Policy with the hierarchy of the whole app, z = x·β_stage + 1{a ≠ none}(x·ν_type + x·δ_arm) over all stages; by
    default env5's true prior. Sds are in logits.
    """

    mean: float = environments.BASE_MEAN
    base_sd: float = float(environments.BASE_SD)
    base_slope_sd: float = environments.BASE_SLOPE_SD
    effect_sd: float = environments.EFFECT_SD
    effect_slope_sd: float = environments.EFFECT_SLOPE_SD
    alpha: float = 1.0

    def layout(self, arms: ArmEconomics, d: int) -> Layout:
        """Layout of blocks: one for each stage, type and nudge. The stage of an arm is what stands before the / in its
        name.
        """
        stages = list(dict.fromkeys(name.partition("/")[0] for name in arms.names))
        types = sorted(set(arms.kinds) - {"none"})
        base, effect = (self.base_sd, self.base_slope_sd), (self.effect_sd, self.effect_slope_sd)
        sds = [base] * len(stages) + [effect] * len(types)
        reads: list[tuple[int, ...]] = []
        for name, kind in zip(arms.names, arms.kinds, strict=True):
            stage = stages.index(name.partition("/")[0])
            if kind == "none":
                reads.append((stage,))
            else:
                reads.append((stage, len(stages) + types.index(kind), len(sds)))
                sds.append(effect)
        variance = np.array([[intercept**2] + [slope**2] * (d - 1) for intercept, slope in sds])
        mean = np.zeros((len(sds), d))
        mean[: len(stages), 0] = self.mean
        return Layout(d, tuple(reads), 1.0 / variance.ravel(), mean.ravel())


class Always:
    """Contestant that always shows one arm at each stage, as a team without a bandit would."""

    def __init__(self, arm: tuple[int, ...]):
        self.arm = arm

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:  # noqa: ARG002
        """Arms (n,): the fixed arm of the stage, or no nudge where that arm may not be shown."""
        return np.where(eligible[:, self.arm[stage]], self.arm[stage], 0)

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn nothing: the arm is fixed."""


def best_fixed(stream: Stream, seed: int) -> Agent:  # noqa: ARG001
    """Contestant with the best fixed arm of each stage in hindsight, by expected value: what a perfect A/B test of each
    stage would ship.
    """
    value = np.where(stream.eligible, stream.value, stream.value[:, :1])
    stages = range(len(stream.arms))
    k = [len(arms.names) for arms in stream.arms]
    return Always(tuple(int(value[stream.stage == s, : k[s]].sum(axis=0).argmax()) for s in stages))


def policy(made: Policy, *, pooled: bool = False) -> Make:
    """Maker of a contestant that plays the policy `made`; where all stages belong to one app, `pooled` shares types
    across them.
    """
    if pooled:
        return lambda stream, seed: (PooledPolicy if isinstance(made, FullHierarchy) else AppPolicy)(made, stream, seed)
    return lambda stream, seed: StagePolicies(made, stream, seed)


REFERENCES: dict[str, Make] = {
    "no nudge": lambda stream, _: Always((0,) * len(stream.arms)),
    "uniform": policy(Uniform()),
    "best fixed (hindsight)": best_fixed,
}
CONTESTANTS: dict[str, Make] = {
    "ours: default": policy(Centred()),
    "ours: hierarchical": policy(Hierarchical()),
    "ours: logistic": policy(Logistic()),
    "ours: logistic, scale of slopes": policy(Logistic(scales="slopes")),
    "ours: linear": policy(Linear()),
    "ours: linear, scale of slopes": policy(Linear(scales="slopes")),
    "ours: beta": policy(Beta()),
    "ours: linucb": policy(LinUCB()),
    "ours: epsilon-greedy": policy(EpsilonGreedy()),
}
POOLED: dict[str, Make] = {  # only where stages share an app
    "ours: hierarchical, all stages": policy(Hierarchical(), pooled=True),
    "ours: hierarchical, all stages, delay assumed twice": lambda stream, seed: AppPolicy(
        Hierarchical(), stream, seed, 2 * TYPICAL
    ),
    "ours: hierarchical, all stages, delay assumed half": lambda stream, seed: AppPolicy(
        Hierarchical(), stream, seed, TYPICAL / 2
    ),
    "ours: hierarchical, all stages, delays known": lambda stream, seed: KnownDelays(Hierarchical(), stream, seed),
    "ours: hierarchical, watchful": lambda stream, seed: DriftWatching(Hierarchical(), stream, seed),
    "ours: hierarchical, told of the break": lambda stream, seed: RestartedPolicy(Hierarchical(), stream, seed),
    "Bayes TS, true prior": policy(FullHierarchy(), pooled=True),
}


def _declared(policy: Policy, stream: Stream) -> Policy:
    """The policy with the prior mean that the stream's catalogue declares, where both have one."""
    if stream.declared is None or not isinstance(policy, Centred | Hierarchical | Logistic | Ridge):
        return policy
    return msgspec.structs.replace(policy, prior_mean=stream.declared)


def _joined(stages: tuple[ArmEconomics, ...]) -> ArmEconomics:
    names = tuple(f"{s}/{name}" for s, arms in enumerate(stages) for name in arms.names)
    gain, cost = (np.concatenate([getattr(arms, part) for arms in stages]) for part in ("gain", "cost"))
    return ArmEconomics(names, tuple(kind for arms in stages for kind in arms.kinds), gain, cost)
