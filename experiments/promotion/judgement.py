"""Judgement of a candidate from the decisions in which it was judged: drawn from ½ live + ½ candidate, counted up to a
number that was declared beforehand.

With π the candidate's logged vector and p the propensities, live is 2p − π and the lift of a round is

    φ = Σ_a δ_a q̂_a + (δ_A / p_A) (r − q̂_A),    δ = π − live = 2 (π − p),    |δ / p| ≤ 2

unbiased whatever the predictions q̂ are, because they were logged before the draw. Its interval at the declared number
is the ordinary one at 95 %, and is computed only then: a look before that number sees how many decisions there are, and
the confidence sequence, which may be looked at always. Only the first decisions count, so the answer at the declared
number stays the same however often it is asked for.

Shapes: n rounds, k arms.
"""

from typing import NamedTuple

import numpy as np

from bandit.catalogue.net_value import ArmWorth
from bandit.propensity.mixture import HEAVIEST
from experiments.data.rounds import LoggedRounds, RewardRange, Source
from experiments.inference.intervals import LEVEL
from experiments.inference.wording import against
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig, matured
from experiments.ope.evaluate import Evaluation
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, JudgedCandidate, JudgedLive

CANDIDATE, LIVE, NONE = "candidate", "live", "none"
_CONSTANT = 1e-30


class Judgement(NamedTuple):
    """Judgement of a candidate after some of the decisions that were declared for it.

    `declared` N; `made`: how many of the first N decisions outside the control group there are; `known`: how many of
    them in a row, from the first on, have a final reward. `sequence`: evaluation of the candidate against the live
    policy before N, with confidence sequences alone, its contrast under "live"; None before the first reward.
    `verdict`: the evaluation at N, with the ordinary interval; None before that. `saved`: share of the variance of the
    lift that the logged predictions take away against a constant one, below 0 if they add to it; None where nothing
    varies.
    """

    declared: int
    made: int
    known: int
    sequence: Evaluation | None
    verdict: Evaluation | None
    saved: float | None

    @property
    def progress(self) -> str:
        """How far the judgement is, in words."""
        if self.verdict is not None:
            return f"{self.declared:,} of {self.declared:,} decisions: the verdict is final"
        rest = f", {self.made - self.known:,} of them without a final reward" if self.made > self.known else ""
        return f"{self.made:,} of {self.declared:,} decisions{rest}: no verdict before that"

    def sentence(self, unit: str) -> str:
        """Net value of the candidate over no nudge and over the live policy, in `unit`, as far as it may be said, for a
        terminal: without values before the declared number.
        """
        found = self.verdict or self.sequence
        if found is None:
            return self.progress
        over = {
            name: found.contrasts[at]
            for name, at in (("no nudge", NONE), ("the live policy", LIVE))
            if at in found.contrasts
        }
        said = "; ".join(against(e.over(found.n), name, unit) for name, e in over.items())
        if self.verdict is None:
            return f"{self.progress}; at any time: {said}"
        saved = "" if self.saved is None else f"; the logged predictions saved {self.saved:.0%} of the variance"
        return f"{self.progress}; {said}{saved}"


def judgement(
    source: Source, declared: int, made: int, rewards: RewardRange, worth: ArmWorth | None = None, level: float = LEVEL
) -> Judgement:
    """Judgement by the first `declared` decisions of a candidate's release, of which `made` are in `source`.

    `source`: these decisions in order, with the candidate's vectors; it is read several times. `rewards`: the declared
    range; `worth` turns rewards into currency, net of costs; `level`: of the interval. Pure. Raises InvalidRequest for
    a log in which no candidate was judged.
    """
    counted = list(matured(source()))
    known = sum(len(chunk.reward) for chunk in counted)
    waiting = made < declared or any(bool(np.isnan(chunk.reward).any()) for chunk in source())
    if not known:
        return Judgement(declared, made, known, None, None, None)
    live, target = EvaluationPolicy(LIVE, JudgedLive()), EvaluationPolicy(CANDIDATE, JudgedCandidate())
    ask = EvaluationConfig(
        (target,),
        (live, EvaluationPolicy(NONE, FixedArm(0))),
        rewards=rewards,
        worth=worth,
        prefix=True,
        heaviest=HEAVIEST,
        follow=waiting,
    )
    (found,) = core.evaluate([source], ask, level)
    if waiting:
        return Judgement(declared, made, known, _without_interval(found), None, None)
    return Judgement(declared, made, known, None, found, _saved(counted, worth))


def _without_interval(found: Evaluation) -> Evaluation:
    """What may be looked at before the declared number."""
    ends = -np.inf, np.inf
    contrasts = {name: e._replace(interval=ends, value=float("nan")) for name, e in found.contrasts.items()}
    return found._replace(contrasts=contrasts, estimates={}, segments=None)


def _saved(chunks: list[LoggedRounds], worth: ArmWorth | None) -> float | None:
    """Share of the variance of the lift that q̂ saves, against the mean reward in its place."""
    rewards = [chunk.reward if worth is None else worth.net(chunk.reward, chunk.action) for chunk in chunks]
    plain, adjusted = list[float](), list[float]()
    constant = float(np.concatenate(rewards).mean())
    for chunk, reward in zip(chunks, rewards, strict=True):
        assert chunk.propensities is not None  # noqa: S101 - `JudgedLive` has read them
        assert chunk.candidate is not None  # noqa: S101
        if chunk.q_hat is None:
            return None
        each, delta = np.arange(len(reward)), 2.0 * (chunk.candidate - chunk.propensities)
        q = chunk.q_hat if worth is None else worth.net(chunk.q_hat)
        weight = delta[each, chunk.action] / chunk.pscore
        plain += (weight * (reward - constant)).tolist()
        adjusted += ((delta * q).sum(axis=1) + weight * (reward - q[each, chunk.action])).tolist()
    before = float(np.var(plain))
    return 1.0 - float(np.var(adjusted)) / before if before > _CONSTANT else None
