"""Lift monitor: what the stage earns with its policy, less what the holdout earns without.

Which of the two a user gets is itself a draw, of known probability: the declared share of the holdout. So this is an
evaluation on a log of two arms, "live" and "holdout", with the same intervals, sequences and refusals; one of its tests
is that the share which came is the share that was declared. The model of both arms is q̂ of no nudge, which is known
whoever the user is.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.catalogue.net_value import ArmWorth
from bandit.errors import InvalidRequest, Problem
from experiments.data.rounds import LoggedRounds, RewardRange, Source
from experiments.inference.intervals import LEVEL
from experiments.inference.money import NetGain, daily
from experiments.inference.sample_ratio import ALARM, SampleRatio, by_version, merged
from experiments.inference.wording import against
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluate import Evaluation
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, LoggedProbabilities

LIVE, HOLDOUT, NONE = "live", "holdout", "none"


class LiftReport(NamedTuple):
    """The live lift of a stage, measured in two ways, and tests of what was shown.

    `lift`: evaluation of the live policy on the log of two arms; its contrast "holdout" is the lift. `over_none`:
    evaluation of the decisions outside the holdout, by their propensities; its contrast "none" needs no holdout. Values
    are in units of rewards, or of currency if a worth was given. `stage` and `versions`: sample-ratio tests of the
    stage and of each policy version. `recurring`: users come back, so the sequence of the lift does not hold and is
    left out.
    """

    lift: Evaluation  # of the live policy; its contrast "holdout" is the lift
    over_none: Evaluation  # of the live policy; its contrast "none" needs no holdout
    stage: SampleRatio | None  # was what was shown what was drawn?
    versions: dict[int, SampleRatio]
    recurring: bool  # users come back: the sequence of the lift does not hold and is left out
    daily: float | None = None  # decisions a day outside the holdout; None: the log is too short to tell

    @property
    def alarms(self) -> list[int]:
        """Policy versions whose shown arms are not what was drawn: the evidence of their sample-ratio test has reached
        `ALARM`.
        """
        return [version for version, routing in self.versions.items() if routing.evidence >= ALARM]

    def gain(self, currency: str) -> NetGain | None:
        """Net gain of what decides live over no nudge, of a report in currency: by the propensities of its decisions,
        which say more than the holdout alone; by the holdout where they cannot. None if the log cannot say.
        """
        for evaluation, name in ((self.over_none, NONE), (self.lift, HOLDOUT)):
            gain = core.net_gain(evaluation.contrasts.get(name), evaluation.n, self.daily, currency)
            if gain is not None:
                return gain
        return None

    def sentence(self, currency: str) -> str:
        """What decides live against no nudge, in a sentence to act on; of a report in currency."""
        gain = self.gain(currency)
        return f"{gain.sentence}." if gain else f"{against(None, 'no nudge', '')}."


def monitor(source: Source, rewards: RewardRange, worth: ArmWorth | None = None, level: float = LEVEL) -> LiftReport:
    """The lift report of a log in which the holdout is marked. Called by `journey-bandit monitor` and by reviews; the
    source is read several times.

    `rewards`: the declared range; `worth`: turns rewards into currency, net of costs; `level`: of all intervals. Raises
    InvalidRequest if the log does not say who is in the holdout and which share was declared, or lacks q̂.
    """
    live, held = EvaluationPolicy(LIVE, FixedArm(0)), EvaluationPolicy(HOLDOUT, FixedArm(1))
    ask = EvaluationConfig(
        (EvaluationPolicy(LIVE, LoggedProbabilities()),),
        (EvaluationPolicy(NONE, FixedArm(0)),),
        rewards=rewards,
        worth=worth,
        prefix=True,
    )
    two = EvaluationConfig((live,), (held,), rewards=RewardRange(*ask.bounds), heaviest=20.0, prefix=True)
    (lift,) = core.evaluate([partial(_holdout_chunks, source, ask)], two, level)
    (over_none,) = core.evaluate([source], ask, level)
    users, rounds, versions = _shown(source)
    recurring = users < rounds
    if recurring and HOLDOUT in lift.contrasts:
        lift = lift._replace(contrasts={name: e._replace(sequence=None) for name, e in lift.contrasts.items()})
    stage = sum(list(versions.values())[1:], start=next(iter(versions.values()))) if versions else None
    return LiftReport(lift, over_none, stage, versions, recurring, daily(times(source())))


def times(chunks: Iterable[LoggedRounds]) -> NDArray[np.int64]:
    """Times (n,), in µs, of the decisions outside the holdout, those without a final reward included."""
    found = [c.at if c.holdout is None else c.at[~c.holdout] for c in chunks if c.at is not None]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _shown(source: Source) -> tuple[int, int, dict[int, SampleRatio]]:
    """How many users there are, how many rounds they have, and {version: sample-ratio test} of the decisions outside
    the holdout.
    """
    users, rounds, versions = set[int](), 0, dict[int, SampleRatio]()
    for chunk in source():
        live = chunk if chunk.holdout is None else chunk.only(~chunk.holdout)
        if chunk.user is not None:
            users.update(chunk.user.tolist())
            rounds += len(chunk.user)
        if live.propensities is not None and live.version is not None:
            versions = merged(versions, by_version(live.version, live.action, live.propensities))
    return len(users), rounds, versions


def _holdout_chunks(source: Source, ask: EvaluationConfig) -> Iterator[LoggedRounds]:
    for chunk in source():
        yield holdout_rounds(chunk, ask.worth)


def holdout_rounds(chunk: LoggedRounds, worth: ArmWorth | None = None) -> LoggedRounds:
    """The same rounds as a log of two arms: action 0 is live, 1 is holdout, propensities (n, 2) are by the declared
    share. Rewards and q̂ (of no nudge, for both arms) are net, in currency, if a worth is given.

    Raises InvalidRequest if the log lacks the holdout, its declared share or q̂.
    """
    if chunk.holdout is None or chunk.holdout_share is None or chunk.q_hat is None:
        problem = "it does not say who is in the holdout, the share that was declared, and q̂"
        raise InvalidRequest(Problem("holdout", problem, "monitor a service's ledger"))
    reward, q = chunk.reward, chunk.q_hat[:, 0]
    if worth is not None:
        reward, q = worth.net(reward, chunk.action), worth.net(q, 0)
    propensities = np.column_stack([1.0 - chunk.holdout_share, chunk.holdout_share])
    action = chunk.holdout.astype(np.intp)
    return LoggedRounds(
        action=action,
        reward=reward,
        pscore=propensities[np.arange(len(action)), action],
        propensities=propensities,
        q_hat=np.column_stack([q, q]),
        user=chunk.user,
        at=chunk.at,
    )
