"""Policy evidence, what a ledger says of a policy: everything that a review and a promotion need, computed on one
reading of its log.

A candidate is judged by decisions made after the last one that taught it; the policy that is live, by its own.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit import engine
from bandit.arrays import Array
from bandit.snapshot import Snapshot
from bandit.tables.reader import refused
from experiments.data.rounds import LoggedRounds
from experiments.inference.intervals import LEVEL
from experiments.inference.money import NetGain
from experiments.inference.segments import SegmentEffects
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig, heaviest_of, matured
from experiments.ope.evaluate import Evaluation
from experiments.ope.evaluation_policies import (
    EvaluationPolicy,
    LoggedProbabilities,
    eligible,
    snapshot_policy,
)
from experiments.promotion.lift_monitor import LiftReport, monitor
from experiments.reports.policy_diff import PolicyDiff, diff
from journey_bandit.workflows import exports, ledger_log, verdicts
from journey_bandit.workflows.exports import ExportedLog
from journey_bandit.workflows.ledger_log import Contamination, LedgerLog
from journey_bandit.workflows.verdicts import NONE, PolicyVerdict

_ROUNDS = 20_000  # of the drawings and the diff: the newest


class PolicyEvidence(NamedTuple):
    """Evidence for one policy, for a review and for the gate.

    `rounds`: outside the holdout, rewards known, n of them. `may` and `pi`: eligibility and the policy's probabilities,
    (n, k). `net` in currency, `reward` in the reward's own units. `monitored`: the lift against the holdout. `judged`:
    the verdict of the promotion rule. `champion`: the name of what the policy is compared with. `diff`: how its choices
    differ from another's. Where the log cannot say what no nudge earns, which `monitored.silent` explains, no figure is
    compared with it.
    """

    log: LedgerLog
    rounds: LoggedRounds
    may: NDArray[np.bool_]  # (n, k)
    pi: Array  # (n, k)
    net: Evaluation
    reward: Evaluation
    monitored: LiftReport
    segments: Mapping[str, SegmentEffects]
    judged: PolicyVerdict
    champion: str
    q_hat: Array  # (n, k) what its own model expects, in the reward's units
    diff: PolicyDiff | None
    digest: str  # of the rounds
    contamination: Contamination
    daily: float | None  # decisions a day outside the holdout; None: the log is too short to tell
    manifest: str = ""  # digest of the export that holds these decisions; "": none was given

    @property
    def gain(self) -> NetGain | None:
        """Net gain over no nudge; None if the log cannot say."""
        return core.net_gain(self.net.contrasts.get(NONE), self.net.n, self.daily, self.log.currency)


def gather(
    ledger: str, stage: str, policy: Snapshot | None, champion: tuple[str, Snapshot] | None = None,
    until: int = 0, release: int | None = None, *, segments: bool = True, diff_with: tuple[str, Snapshot] | None = None,
    export: Path | None = None,
) -> PolicyEvidence:  # fmt: skip
    """Evidence for `policy` (None: whatever made the log) against the champion, or no nudge where there is none.

    `until`: number of the last decision that counts, 0 for all. `release`: only its decisions. `export`: folder of an
    export of the stage; the ledger is then read as of its position, and has to hold the same decisions. Raises NotFound
    if the ledger has no such stage, InvalidRequest if the policy does not fit the log, or the export is another one,
    LedgerError if the ledger cannot be read.
    """
    log, exported = exports.as_exported(ledger_log.open_log(ledger, stage), export)
    taught = [] if policy is None else [policy, *([champion[1]] if champion else [])]
    for snapshot in taught:
        log.check(snapshot)
    after = max((_taught(log, s) for s in taught), default=0)
    log = log._replace(after=after, until=log.until or until, release=release)
    chunks = list(log.source()())  # read once: everything below passes over them
    rounds = _concatenated(list(matured(iter(chunks))))
    digest = _digest(rounds)
    _check_same(exported, log.after, digest)
    target = EvaluationPolicy("this policy", snapshot_policy(policy, log.arms) if policy else LoggedProbabilities())
    against = [verdicts.no_nudge()]
    if champion and policy is not None:
        against.insert(0, EvaluationPolicy(champion[0], snapshot_policy(champion[1], log.arms)))
    floor = log.spec.common_floor
    ask = EvaluationConfig((target,), tuple(against), rewards=log.rewards, prefix=True, heaviest=heaviest_of(floor))
    (reward,) = core.evaluate([lambda: iter(chunks)], ask)
    (net,) = core.evaluate([lambda: iter(chunks)], ask._replace(worth=log.worth))
    (judged,) = verdicts.judged(log, ask._replace(worth=log.worth), [net], LEVEL, lambda: iter(chunks), [reward])
    monitored = monitor(lambda: iter(chunks), log.rewards, log.worth, floor=floor)
    if monitored.silent:  # a difference from no nudge would rest on predictions alone
        net, reward, segments = net.without(NONE), reward.without(NONE), segments and ask.champion != NONE
    newest = rounds.only(slice(max(len(rounds.reward) - _ROUNDS, 0), None))
    pi = _probabilities(target, newest, len(log.arms))
    q_hat = _expected(policy, log, newest)
    compared = diff_with or (champion if policy is not None else None)
    return PolicyEvidence(
        log=log,
        rounds=newest,
        may=eligible(newest) if len(newest.reward) else np.zeros((0, len(log.arms)), dtype=np.bool_),
        pi=pi,
        net=net,
        reward=reward,
        monitored=monitored,
        segments=_by_feature(log, chunks, ask) if segments else {},
        judged=judged,
        champion=against[0].name,
        q_hat=q_hat,
        diff=_diff(log, newest, pi, q_hat, *compared) if compared else None,
        digest=digest,
        contamination=log.contamination(),
        daily=monitored.daily,
        manifest=exported.manifest.digest if exported else "",
    )


def _check_same(exported: ExportedLog | None, after: int, digest: str) -> None:
    """Raise InvalidRequest unless the export's decisions numbered above `after`, if there is one, have this digest."""
    if exported is not None and _digest(_concatenated(list(matured(exported.rounds(after))))) != digest:
        problem = "its decisions, contexts or rewards are not those of the ledger"
        raise refused(f"{exported.folder}", problem, "export the stage again, with --continue")


def _taught(log: LedgerLog, snapshot: Snapshot) -> int:
    seen_open = snapshot.pending_basis.decisions if snapshot.pending is not None else 0
    return max(log.learned_through(snapshot.version), seen_open)


def _concatenated(chunks: Sequence[LoggedRounds]) -> LoggedRounds:
    if len(chunks) == 1:
        return chunks[0]
    if not chunks:
        return LoggedRounds(np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros(0))
    parts = zip(*chunks, strict=True)
    return LoggedRounds._make(None if any(p is None for p in part) else np.concatenate(part) for part in parts)


def _probabilities(target: EvaluationPolicy, rounds: LoggedRounds, k: int) -> Array:
    assert target.of is not None  # noqa: S101 - `gather` gives it one
    return target.of(rounds) if len(rounds.reward) else np.zeros((0, k))


def _by_feature(log: LedgerLog, chunks: Sequence[LoggedRounds], ask: EvaluationConfig) -> dict[str, SegmentEffects]:
    """{feature: effects against the champion by its values, in currency}, of features that the log tells them of."""
    worthy = ask._replace(worth=log.worth, follow=False)
    found = {name: _segments(log, chunks, name, worthy) for name in log.spec.features}
    return {name: effects for name, effects in found.items() if effects is not None}


def _segments(
    log: LedgerLog, chunks: Sequence[LoggedRounds], feature: str, ask: EvaluationConfig
) -> SegmentEffects | None:
    named = log._replace(segment=feature)
    labelled = [c if c.x is None else c._replace(segment=ledger_log.labels(named, c.x)) for c in chunks]
    (found,) = core.evaluate([lambda: iter(labelled)], ask)
    return found.segments


def _expected(policy: Snapshot | None, log: LedgerLog, rounds: LoggedRounds) -> Array:
    """What its own model expects of each arm; of the policy that made the log, what it said then."""
    logged = rounds.q_hat if rounds.q_hat is not None else np.zeros((len(rounds.reward), len(log.arms)))
    if policy is None or rounds.x is None or not len(rounds.reward):
        return logged
    columns = [log.arms.index(arm) for arm in policy.stage_spec.arms]
    scores = engine.choose_many(engine.prepare(policy), rounds.x, eligible(rounds)[:, columns])
    span = log.spec.reward.max - log.spec.reward.min
    found = logged.copy()
    found[:, columns] = log.spec.reward.min + span * scores.mean
    return found


def _diff(
    log: LedgerLog, rounds: LoggedRounds, pi: Array, q_hat: Array, name: str, before: Snapshot
) -> PolicyDiff | None:
    if not len(rounds.reward) or rounds.x is None:
        return None
    was = snapshot_policy(before, log.arms)(rounds)
    labels = {feature: ledger_log.labels(log._replace(segment=feature), rounds.x) for feature in log.spec.features}
    return diff(name, log.arms, was, pi, q_hat, log.worth, log.spec.reward.value, labels)


def _digest(rounds: LoggedRounds) -> str:
    sha = hashlib.sha256()
    for part in (rounds.action, rounds.reward, rounds.pscore, rounds.x):
        if part is not None:
            sha.update(np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()
