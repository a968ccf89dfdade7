"""Lift monitor: what the stage earns with its policy, less what the holdout earns without.

Which of the two a user gets is itself a draw, of known probability: the declared share of the holdout. So this is an
evaluation on a log of two arms, "live" and "holdout", with the same intervals, sequences and refusals; one of its tests
is that the share which came is the share that was declared. The model of both arms is q̂ of no nudge, which is known
whoever the user is. Decisions that were made while the holdout had no share are not of that log: nothing was drawn.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from bandit.arrays import Mask
from bandit.catalogue.net_value import ArmWorth
from bandit.errors import InvalidRequest, Problem
from experiments.data.rounds import LoggedRounds, RewardRange, Source
from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import LEVEL
from experiments.inference.money import NetGain
from experiments.inference.sample_ratio import ALARM, SampleRatio, by_version, merged
from experiments.inference.wording import against, compared, estimate
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig, heaviest_of
from experiments.ope.evaluate import Evaluation
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, LoggedProbabilities

LIVE, HOLDOUT, NONE = "live", "holdout", "none"


class LiftReport(NamedTuple):
    """The live lift of a stage, measured in two ways, and tests of what was shown.

    `lift`: evaluation of the live policy on the log of two arms; its contrast "holdout" is the lift. `over_none`:
    evaluation of the decisions outside the holdout, by their propensities; its contrast "none" needs no holdout, and is
    left out where these decisions cannot say what no nudge earns, for the reasons in `silent`. Values are in units of
    rewards, or of currency if a worth was given. `stage` and `versions`: sample-ratio tests of the stage and of each
    policy version. `recurring`: users come back, so the sequence of the lift does not hold and is left out.
    """

    lift: Evaluation  # of the live policy; its contrast "holdout" is the lift
    over_none: Evaluation  # of the live policy; its contrast "none" needs no holdout
    stage: SampleRatio | None  # was what was shown what was drawn?
    versions: dict[int, SampleRatio]
    recurring: bool  # users come back: the sequence of the lift does not hold and is left out
    silent: tuple[Refusal, ...] = ()  # why decisions outside the holdout cannot say what no nudge earns

    @property
    def daily(self) -> float | None:
        """Decisions a day outside the holdout; None where the log is too short to tell."""
        return self.over_none.daily

    @property
    def uncounted(self) -> int:
        """Decisions from the first whose reward is not final on: none of them counts."""
        return self.over_none.rows - self.over_none.n - self.over_none.holdout

    @property
    def held(self) -> int:
        """Decisions of the holdout that `lift` compares with."""
        return self.lift.support[1].rounds if len(self.lift.support) > 1 else 0

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

    @property
    def basis(self) -> str:
        """What the net gain rests on, in words, and why it does not rest on propensities where it cannot."""
        if NONE in self.over_none.contrasts:
            return f"by the propensities of {self.over_none.n:,} decisions outside the holdout"
        why = "; ".join(f"{refusal.reason}: {refusal.detail}" for refusal in self.silent or self.over_none.refused)
        held = f"by the {self.held:,} decisions of the holdout alone, because"
        return f"{held if HOLDOUT in self.lift.contrasts else 'not even by the holdout:'} {why}"

    def headline(self, currency: str, level: float = LEVEL) -> str:
        """What decides live less no nudge, one figure with what its bounds and its sign mean; of a report in currency
        whose intervals have this `level`.
        """
        gain = self.gain(currency)
        if gain is None:
            return "live less no nudge: the log cannot say"
        figure = estimate(gain.over, f"{currency} per decision net of costs".strip())
        look = "confidence sequence: holds at every look" if gain.always else "interval for one look, fixed beforehand"
        says = compared(gain.over).lower()
        sign = "above 0, nudges earn more than they cost"
        return f"live less no nudge: {figure} ({100 * level:g} % {look}): {says} no nudge; {sign}"

    def sentence(self, currency: str) -> str:
        """What decides live against no nudge, in a sentence to act on; of a report in currency."""
        gain = self.gain(currency)
        return f"{gain.sentence}." if gain else f"{against(None, 'no nudge', '')}."


def monitor(
    source: Source, rewards: RewardRange, worth: ArmWorth | None = None, level: float = LEVEL, *, floor: float = 0.0
) -> LiftReport:
    """The lift report of a log in which the holdout is marked. Called by `journey-bandit monitor` and by reviews; the
    source is read several times.

    `rewards`: the declared range; `worth`: turns rewards into currency, net of costs; `level`: of all intervals;
    `floor`: the declared one of all arms, 0 for none. Raises
    InvalidRequest if the log does not say who is in the holdout and which share was declared, or lacks q̂.
    """
    live, held = EvaluationPolicy(LIVE, FixedArm(0)), EvaluationPolicy(HOLDOUT, FixedArm(1))
    ask = EvaluationConfig(
        (EvaluationPolicy(LIVE, LoggedProbabilities()),),
        (EvaluationPolicy(NONE, FixedArm(0)),),
        rewards=rewards,
        worth=worth,
        heaviest=heaviest_of(floor),
        prefix=True,
    )
    two = EvaluationConfig((live,), (held,), rewards=RewardRange(*ask.bounds), heaviest=20.0, prefix=True)
    shown = _shown(source)
    mixed = 0 < shown.certain < shown.known
    (lift,) = core.evaluate([partial(_holdout_chunks, source, ask, drawn_only=mixed)], two, level)
    none = EvaluationPolicy(NONE, FixedArm(0))
    over_none, alone = core.evaluate([source], ask._replace(targets=(*ask.targets, none)), level)
    silent = _silent(alone)
    if silent:
        over_none = over_none.without(NONE)
    if mixed:
        note = f"live less holdout leaves out {shown.certain:,} decisions that were made while"
        lift = lift._replace(notes=(*lift.notes, f"{note} the holdout had no share of the people, or all of them"))
    recurring, versions = shown.users < shown.rounds, shown.versions
    if recurring and HOLDOUT in lift.contrasts:
        lift = lift._replace(contrasts={name: e._replace(sequence=None) for name, e in lift.contrasts.items()})
    stage = sum(list(versions.values())[1:], start=next(iter(versions.values()))) if versions else None
    return LiftReport(lift, over_none, stage, versions, recurring, silent)


def _silent(alone: Evaluation) -> tuple[Refusal, ...]:
    """Why the log cannot say what no nudge earns, from the evaluation of no nudge `alone`; () if it can."""
    if alone.support and alone.support[0].rounds == 0:
        detail = "no nudge was never shown outside the holdout"
        return (Refusal("support", detail, "a floor for no nudge, or a larger holdout"),)
    return alone.refused


class _ShownRounds(NamedTuple):
    """What a log shows: how many `rounds` of known `users`; {version: sample-ratio test} of the decisions outside the
    holdout; how many decisions were made before the first without a `known` reward, and how many of these were
    `certain` to be in the holdout or outside it.
    """

    known: int
    rounds: int
    users: int
    versions: dict[int, SampleRatio]
    certain: int


def _shown(source: Source) -> _ShownRounds:
    users, known, rounds, versions, certain = set[int](), 0, 0, dict[int, SampleRatio](), 0
    for chunk, counts in _with_prefix(source):
        live = chunk if chunk.holdout is None else chunk.only(~chunk.holdout)
        known += int(np.count_nonzero(counts))
        certain += int(np.count_nonzero(_certain(chunk) & counts))
        if chunk.user is not None:
            users.update(chunk.user.tolist())
            rounds += len(chunk.user)
        if live.propensities is not None and live.version is not None:
            versions = merged(versions, by_version(live.version, live.action, live.propensities))
    return _ShownRounds(known, rounds, len(users), versions, certain)


def _with_prefix(source: Source) -> Iterator[tuple[LoggedRounds, Mask]]:
    """Each chunk with whether its decisions (n,) were made before the log's first one whose reward is not known."""
    ended = False
    for chunk in source():
        counts = ~(np.logical_or.accumulate(np.isnan(chunk.reward)) | ended)
        ended = ended or not counts.all()
        yield chunk, counts


def _certain(chunk: LoggedRounds) -> Mask:
    """Whether the declared share of the holdout left nothing to chance (n,): it was 0 or 1."""
    if chunk.holdout_share is None:
        return np.zeros(len(chunk.reward), dtype=np.bool_)
    return (chunk.holdout_share <= 0.0) | (chunk.holdout_share >= 1.0)


def _holdout_chunks(source: Source, ask: EvaluationConfig, *, drawn_only: bool) -> Iterator[LoggedRounds]:
    """Chunks of the log of two arms, by `drawn_only` without decisions that were certain. What was made after the first
    decision whose reward is not known has none either, so that the log ends there though that decision is left out.
    """
    for chunk, counts in _with_prefix(source):
        ended = chunk._replace(reward=np.where(counts, chunk.reward, np.nan))
        yield holdout_rounds(ended.only(~_certain(ended)) if drawn_only else ended, ask.worth)


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
        rewarded=chunk.reward != 0.0,
    )
