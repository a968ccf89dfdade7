"""Ledger log: a ledger's decisions at one stage as logged rounds, for evaluation.

What counts: decisions under the present schema whose nudge was activated where the stage requires it. A decision that
is not settled yet has no reward, and evaluation stops there. For a snapshot that learned from this ledger, only
decisions made after the last one it learned from count, so that it is never judged by what taught it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from api.learning import holdout
from api.ledger import audit
from api.stores import Store, open_store
from api.stores.decision_log import DecisionRecord
from bandit import features
from bandit.arrays import Array, Ints
from bandit.catalogue.limits import BadEvent
from bandit.catalogue.model import NONE, Stage
from bandit.catalogue.net_value import ArmWorth, arm_worth
from bandit.errors import InvalidRequest, NotFound, Problem
from bandit.learning.holdout_audit import HoldoutAudit
from bandit.learning.loss_account import LossAccount
from bandit.learning.recoding import contexts
from bandit.learning.rewards import standing
from bandit.operations import traffic
from bandit.records import CROSSED
from bandit.snapshot import Snapshot
from experiments.data.rounds import LoggedRounds, RewardRange, Source
from experiments.inference.wording import number

_BATCH = 10_000
_KEY = 2**59 - 1  # bits of a user's hash that are kept
_NEWEST = 1_000  # decisions among which one is looked for that no release made


class Contamination(NamedTuple):
    """Contamination of the control group: its decisions, and those of them whose person had been shown nudges before
    (two known people were joined, or the holdout was declared later).
    """

    control: int
    exposed: int


class LedgerLog(NamedTuple):
    """Log of one stage of a ledger. `after` and `until` bound the numbers of its decisions (`until` 0: all), `release`
    takes one release's only, `first` only so many of what is left outside the control group, as they were made,
    `segment` names the feature whose values become segments. The store is read only.
    """

    store: Store
    app: str
    stage: str
    spec: Stage  # as it was last served
    arms: tuple[str, ...]  # those of `spec`, then those that were declared once
    segment: str = ""
    after: int = 0  # only decisions with a higher number
    until: int = 0  # and up to this one; 0: all
    settled: int | None = None  # rewards as they were after so many settlements of the ledger; None: after all
    made_from: int = 0  # only decisions made at this time (µs) or later
    made_before: int = 0  # and before this one; 0: all
    release: int | None = None  # only decisions of this release, 0 for those of none; None: all
    first: int = 0  # only so many decisions outside the control group; 0: all
    bad: BadEvent | None = None  # the reward is 1 if such an outcome followed, else 0; nothing is known beforehand

    def source(self) -> Source:
        """Source of logged rounds: a function that reads the ledger anew at each call and yields chunks of at most
        10,000 rounds, in the order of the ledger.
        """
        return partial(_chunks, self)

    def records(self) -> Iterator[DecisionRecord]:
        """Records of the decisions that count, in the order of the ledger: those of `source`, one by one."""
        specs = self.store.specs()
        same = {digest for digest, spec in specs.items() if spec.schema == self.spec.schema}
        end = self.until or self.store.last().decision
        found = self.store.decisions(self.stage, since=self.made_from, after=self.after)
        rows = (f for f in found if f.seq <= end and f.decision.stage_digest in same)
        if self.made_before:
            rows = (f for f in rows if f.decision.at < self.made_before)
        if self.settled is not None:
            rows = (_as_of(f, self.settled) for f in rows)
        if self.release is not None:
            rows = (f for f in rows if f.decision.release == self.release)
        rows = (f for f in rows if f.decision.is_actionable)  # at any other time a reward never comes
        rows = (f for f in rows if f.decision.contribution)  # one user says no more here than in learning
        first = islice((f for f in rows if not f.decision.holdout), self.first) if self.first else rows
        return (
            f
            for f in first
            if f.settlement is None or f.settlement.why not in ("not activated", "other schema", "erased")
        )

    def contamination(self) -> Contamination:
        """Contamination: how much of the control group had been shown nudges before, as its decisions recorded it."""
        held = [f.decision for f in self.store.decisions(self.stage) if f.decision.holdout and f.decision.is_actionable]
        exposed = [decision for decision in held if CROSSED in decision.notes]
        return Contamination(len(held), len(exposed))

    def people(self) -> HoldoutAudit | None:
        """Audit by the holdout: what people brought in all, while it had the share that it has now; None where it has
        no holdout.
        """
        return holdout.audit_of(self.store, self.stage, self.served_spec())

    def served_spec(self, spec: Stage | None = None) -> Stage:
        """The stage as it is served, or as `spec` of a release would be: with the ramp and the holdout that an operator
        has set.
        """
        setting = traffic.settings(self.store.operator_actions()).get(self.stage, traffic.UNSET)
        return setting.applied(spec or self.spec)

    def loss_account(self) -> LossAccount | None:
        """Loss account of what learns at the stage, as the newest of its decisions that no release made recorded it;
        None where the stage bounds no loss, or none of its newest decisions has one.
        """
        newest = self.store.decisions_before(self.stage, self.store.last().decision + 1, _NEWEST)
        mine = (f.decision for f in newest if not f.decision.release)
        last = next(mine, None)
        return None if last is None or self.spec.loss_share is None else last.loss_account

    @property
    def currency(self) -> str:
        """Code of the app's currency, as the ledger keeps it."""
        return self.store.meta().get("currency", "")

    @property
    def rewards(self) -> RewardRange:
        """Declared range of rewards in the reward's own units: `low` and `high` are `min` and `max` of the stage as it
        was last served.
        """
        return RewardRange(self.spec.reward.min, self.spec.reward.max)

    @property
    def worth(self) -> ArmWorth:
        """Worth of the arms: what one unit of reward is worth and what showing a nudge costs, in currency, at the
        prices declared now.
        """
        nudges = {name: nudge for spec in self.store.specs().values() for name, nudge in spec.nudges.items()}
        nudges |= self.spec.nudges
        return arm_worth(self.spec.reward.value, (nudges[arm] for arm in self.arms if arm != NONE))

    def check(self, snapshot: Snapshot) -> None:
        """Check a snapshot's encoding. Raises InvalidRequest if the snapshot reads contexts otherwise than the log
        holds them: it would decide on others.
        """
        mine, theirs = (
            features.schema(declared).keys for declared in (self.spec.features, snapshot.stage_spec.features)
        )
        if mine != theirs:
            problem = f"version {snapshot.version} was made for other features, or other ranges of them"
            raise InvalidRequest(Problem("policy", problem, "publish it anew from this ledger, and use that one"))

    def learned_through(self, version: int) -> int:
        """Number of the last decision that a snapshot of this version learned from, 0 if none.

        Raises InvalidRequest if the ledger has fewer settlements: the snapshot did not learn here.
        """
        if version > self.store.last().settlement:
            problem = f"version {version} is beyond this ledger's last settlement, {self.store.last().settlement}"
            fix = "take a snapshot of this ledger, or the ledger that this one learned from"
            raise InvalidRequest(Problem("policy", problem, f"{fix}; `evaluate` has --learned-elsewhere"))
        learned = (f.seq for f in self.store.decisions(self.stage) if f.settled(version))
        return max(learned, default=0)


def _as_of(found: DecisionRecord, settlement: int) -> DecisionRecord:
    newest = found.settlement
    return found if newest is None or newest.seq <= settlement else found.as_of(settlement)


def learned_everything(log: LedgerLog) -> str | None:
    """What `after` leaves of the log, in words, if that is nothing though the stage has decisions; else None."""
    last = max((found.seq for found in log.store.decisions(log.stage)), default=0)
    if not last or log.after < last:
        return None
    n = sum(1 for _ in log.store.decisions(log.stage))
    return f"this snapshot learned from all {n:,} decisions of the log"


def of_those_who_stay(log: LedgerLog) -> tuple[str, ...]:
    """A note on what the log lacks because people were erased; none if it lacks nothing."""
    erased = log.store.erasures()
    if not erased:
        return ()
    forgotten = sum(entry.decisions for entry in erased if entry.forget)
    ended = (found.settlement for found in log.store.decisions(log.stage))
    unanswered = sum(done is not None and done.why == "erased" for done in ended)
    lacks = [
        *([f"{forgotten:,} decisions (of all stages) of people who were forgotten"] if forgotten else []),
        *([f"{unanswered:,} that were open when their person was erased"] if unanswered else []),
    ]
    share = (forgotten + unanswered) / max(log.store.counts().decisions, 1)
    about = f"{share:.2%} of the ledger's decisions: this is about people who stay"
    return (f"without {' and '.join(lacks)}, {about}",) if lacks else ()


def open_log(url: str, stage: str) -> LedgerLog:
    """Log of a stage of the ledger in a file, which a service may be running on. Raises NotFound if the ledger has no
    such stage, InvalidRequest if the stage's actions come with the request (there are no arms to compare), LedgerError
    if the file cannot be opened.
    """
    store = open_store(url if "://" in url else f"sqlite:///{url}", read_only=True)
    try:
        return _of_stage(store, stage)
    except BaseException:
        store.close()
        raise


def _of_stage(store: Store, stage: str) -> LedgerLog:
    served = audit.stages(store)
    if stage not in served:
        raise NotFound("stage", f"the ledger has no stage {stage!r}", f"one of {', '.join(sorted(served)) or 'none'}")
    spec = served[stage]
    if spec.has_request_actions:
        problem = f"the actions of {stage!r} come with each request, and differ: there are no arms to compare"
        raise InvalidRequest(Problem("stage", problem, "evaluate a stage whose nudges are declared"))
    declared = store.declared(stage)
    once = dict.fromkeys(arm for digest, s in store.specs().items() if digest in declared for arm in s.arms)
    arms = (*spec.arms, *(arm for arm in once if arm not in spec.arms))
    return LedgerLog(store, store.meta()["app"], stage, spec, arms)


def batches(log: LedgerLog) -> Iterator[tuple[list[DecisionRecord], LoggedRounds]]:
    """The chunks of `LedgerLog.source`, each with the records that it was made from."""
    specs, counted = log.store.specs(), log.records()
    while batch := list(islice(counted, _BATCH)):
        yield batch, _rounds(log, batch, specs)


def _chunks(log: LedgerLog) -> Iterator[LoggedRounds]:
    return (rounds for _, rounds in batches(log))


def _rounds(log: LedgerLog, found: list[DecisionRecord], specs: Mapping[str, Stage]) -> LoggedRounds:
    n, k = len(found), len(log.arms)
    at = {arm: a for a, arm in enumerate(log.arms)}
    places = {digest: [at[arm] for arm in spec.arms] for digest, spec in specs.items() if set(spec.arms) <= set(at)}
    propensities, mean, may = np.zeros((n, k)), np.zeros((n, k)), np.zeros((n, k), dtype=np.bool_)
    declared = [f.decision.stage_digest for f in found]
    for digest in dict.fromkeys(declared):
        rows = [i for i, one in enumerate(declared) if one == digest]
        there = np.ix_(rows, places[digest])
        propensities[there] = [found[i].decision.propensity for i in rows]
        mean[there] = [found[i].decision.mean for i in rows]
        may[there] = True
    for i, one in enumerate(found):
        for arm in one.decision.excluded:
            if arm in at:
                may[i, at[arm]] = False
    action = np.array([at[f.decision.arm] for f in found], dtype=np.intp)
    reward = np.array([_reward(f, log) for f in found])
    x = contexts(np.array([f.decision.x for f in found]), declared, specs, log.spec)
    spec = log.spec.reward
    return LoggedRounds(
        action=action,
        reward=reward,
        pscore=propensities[np.arange(n), action],
        x=x,
        propensities=propensities,
        q_hat=np.zeros((n, k)) if log.bad else spec.min + (spec.max - spec.min) * mean,
        eligible=may,
        user=keys_of(log.store, [f.decision.user for f in found]),
        at=np.array([f.decision.at for f in found], dtype=np.int64),
        version=np.array([f.decision.settlement_version for f in found], dtype=np.int64),
        holdout=np.array([f.decision.holdout for f in found], dtype=np.bool_),
        holdout_share=np.array([specs[digest].holdout for digest in declared]),
        segment=labels(log, x) if log.segment else None,
        candidate=_candidates(found, places, k),
    )


def _candidates(found: list[DecisionRecord], places: Mapping[str, list[int]], k: int) -> Array | None:
    """Probabilities (n, k) of the judged candidates; None unless one was judged at every decision."""
    if not all(len(f.decision.candidate) for f in found):
        return None
    own = np.zeros((len(found), k))
    for i, decision in enumerate(one.decision for one in found):
        own[i, places[decision.stage_digest]] = decision.candidate
    return own


def keys_of(store: Store, users: Sequence[bytes]) -> Ints:
    """Keys (n,) of the persons to whom these keyed hashes lead: ids that were joined are one person. Five bits of the
    hash are dropped, so that a key stays a number wherever it is read, and is the same in an export.
    """
    root = store.roots(set(users))
    found = (int.from_bytes(root[user][:8], "little") & _KEY for user in users)
    return np.fromiter(found, dtype=np.int64, count=len(users))


def _reward(found: DecisionRecord, log: LedgerLog) -> float:
    if found.settlement is None:
        return float("nan")
    if log.bad is None:
        return found.settlement.reward
    return float(any(o.kind == log.bad and not o.voids for o in standing(found.outcomes)))


def labels(log: LedgerLog, x: Array) -> NDArray[np.str_]:
    """Segment labels (n,) of contexts x (n, d), the declared feature's value: a category, a boolean, or for a number on
    which side of the middle of its scale it lies, with that threshold: "price ≤ 1510" and "price > 1510".
    """
    name, columns = log.segment, features.schema(log.spec.features).columns
    if name not in log.spec.features:
        known = ", ".join(log.spec.features)
        raise InvalidRequest(Problem("segment", f"the stage has no feature {name!r}", f"one of {known}"))
    feature = log.spec.features[name]
    if feature.type == "category":
        shown = x[:, [columns.index(f"{name}={value}") for value in feature.values]].argmax(axis=1)
        labels = np.array([f"{name}={value}" for value in feature.values])
        return np.asarray(labels[shown], dtype=np.str_)
    labels = np.array([f"{name}=false", f"{name}=true"])
    if feature.type == "number":
        middle = number(features.middle(feature), ".4g")
        labels = np.array([f"{name} ≤ {middle}", f"{name} > {middle}"])
    return np.asarray(labels[(x[:, columns.index(name)] > 0.0).astype(int)], dtype=np.str_)
