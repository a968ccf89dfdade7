"""Audit of a ledger, which belongs to one app, one salt and one meaning of its statistics: `claim` checks that when a
service starts, `rebuild` and `differences` prove what the ledger holds.
"""

import hashlib
import math
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from api.ledger import exposures, warm_start
from api.ledger.catalogue_changes import (
    CATALOGUE,
    as_begun,
    continued,
    last_schema,
    refusals,
    salt_digest,
    served,
    served_digest,
    widened,
)
from api.ledger.statistics_store import held_then, holds, key_of, load, open_at, recount, replace, update_of
from api.releases import service
from api.stores.decision_log import DecisionRecord
from api.stores.learning_state import DeclarationEra, Declarations, ServedStage
from api.stores.protocol import Store
from bandit import engine, receipt
from bandit.belief import Belief
from bandit.catalogue.model import Catalogue, Stage
from bandit.engine import PreparedPolicy
from bandit.errors import LedgerMismatch
from bandit.learning import rewards
from bandit.learning.loss import closed, day_of
from bandit.learning.pending import KnownDecision, OpenDecisionTable, amounts_to
from bandit.learning.statistics import StageStatistics
from bandit.numerics import versions
from bandit.propensity.draw import draw
from bandit.records import Decision, Outcome, Settlement
from bandit.release import judged_beside
from bandit.snapshot import Snapshot, pooled

stages = served
"""The declaration under which each stage was last served."""

_LAST_BITS = 1e-12  # of a settled reward: earlier versions added a decision's rewards in another way


def claim(store: Store, catalogue: Catalogue, salt: str | None) -> bytes:
    """Claim a ledger for an app, or check that it is the app's; returns the 32 bytes that key its draws and hashes.
    Called before the parts of a service are built, and by a warm start: while no worker of this process runs: by the
    only process that may write to the ledger, or by a replica that starts (`ReplicaLog.starting`). Replicas that serve
    another catalogue write no more from then on.

    A given salt is never stored, only its digest. Without one, a random salt is made once and kept in the ledger. Where
    ranges of features are wider, and nothing else changed, what was learned is summed again from the ledger, as the new
    ranges encode it, in one transaction with the new declaration. Where a stage comes with a higher schema number and
    means the same but for its policy, it begins with what the ledger's decisions teach that policy (`warm_start`).

    Raises LedgerMismatch, and writes nothing, when the ledger is of another app or salt, or when a stage's features or
    reward changed so that what was learned no longer means the same.
    """
    meta, catalogue = store.meta(), as_begun(store, catalogue)
    wrong = refusals(store, catalogue, salt)
    if wrong:
        raise LedgerMismatch("\n".join(wrong))
    if salt is None:
        salt = meta.get("salt") or secrets.token_hex(32)
        store.set_meta({"salt": salt})
    if store.shared:  # from here on replicas with another catalogue write no more
        store.set_meta({CATALOGUE: served_digest(catalogue)})
    before = store.declarations()
    wider, old = widened(store, catalogue), continued(store, catalogue)
    store.register(catalogue.stages)
    anew = {name: recount(store, name, catalogue.stages[name])[0] for name in wider}
    warm = {name: warm_start.resumed(store, name, was, catalogue.stages[name]) for name, was in old.items()}
    with store.atomic():  # the declaration, and what was learned as it encodes it
        store.set_meta({"app": catalogue.app, "currency": catalogue.currency, "salt_digest": salt_digest(salt)})
        _declare(store, catalogue, before)
        for name, statistics in anew.items():
            replace(store, name, statistics)
        for name, begun in warm.items():
            if begun is not None:
                stage = catalogue.stages[name]
                store.put_warm_start(key_of(name, stage), begun[0], stage.belief_rows(stage.arms), begun[1])
    _count_delays(store, catalogue, before)
    return hashlib.sha256(salt.encode()).digest()


def _declare(store: Store, catalogue: Catalogue, before: Declarations) -> None:
    """Keep what is served from the next decision on: what a stage decides depends on the app's other stages, too."""
    last, first = store.last().settlement, store.counts().decisions + 1
    stages = catalogue.stages
    served = {
        name: ServedStage(stage.digest(), stage.learning_digest(), stage.schema) for name, stage in stages.items()
    }
    begun = {
        key_of(name, stage): last  # what was settled before is of another schema
        for name, stage in stages.items()
        if stage.schema > last_schema(before, name, stage)
    }
    era = DeclarationEra(first, {name: one.digest for name, one in served.items()})
    same = bool(before.eras) and before.eras[-1].digests == era.digests
    known = bool(before.arithmetics) and before.arithmetics[-1][1] == versions.ARITHMETIC
    store.declare(served, begun, None if same else era, None if known else (first, versions.ARITHMETIC))


def _count_delays(store: Store, catalogue: Catalogue, before: Declarations) -> None:
    """Count how late answers came, from the rows of stages that had settled decisions before the ledger counted
    that.
    """
    for name, stage in catalogue.stages.items():
        stored = store.statistics(key_of(name, stage), (), 0)
        if stored.delays is None and name in before.served and stored.version:
            counted = update_of(name, recount(store, name, stage)[0])
            assert counted is not None  # noqa: S101 - without `before` everything is new
            store.replace_statistics(counted._replace(epochs={}, drift_state=None))


def arithmetic_of(store: Store, seq: int) -> int:
    """Number of the arithmetic in which the scores of decision number `seq` were computed; 1 for decisions before
    ledgers said which.
    """
    return max((pair for pair in store.declarations().arithmetics if pair[0] <= seq), default=(0, 1))[1]


def differences(store: Store, found: DecisionRecord, salt: bytes) -> list[str]:
    """Names of the parts of a recorded decision that recomputing it from the ledger does not confirm; empty if the
    decision is exactly what its inputs give. `salt` is the key that `salt_of` returns. Reads only, from any thread,
    also while a service writes.

    Propensities, scores and the draw are compared as `bandit.receipt.differences` says: to the bit under the present
    arithmetic. Raises SnapshotError if the release that decided cannot be read.
    """
    arithmetic = arithmetic_of(store, found.seq)
    with versions.recorded_in(arithmetic):
        live = deciding(store, found)
        again = engine.recompute(live, found.decision, salt)
    return receipt.differences(found.decision, again, live.snapshot.stage_spec.arms, arithmetic)


def deciding(store: Store, found: DecisionRecord) -> PreparedPolicy:
    """Policy that a recorded decision was made with: its release, or else what had been learned then, counted again
    from the ledger's settlements. If the release was judged, both halves: the candidate, and what decided beside it.
    """
    number = found.decision.release
    if number == 0:
        return _accounted(store, engine.prepare(past(store, found)), found)
    history, spec = store.releases(found.decision.stage), store.specs()[found.decision.stage_digest]
    (release,) = [one for one in history if one.seq == number]
    if not release.judge:
        return service.past(release, spec)
    other = judged_beside(history, number)
    live = service.past(other, spec) if other else _accounted(store, engine.prepare(past(store, found)), found)
    return engine.beside(live, service.past(release, spec))


def past(store: Store, found: DecisionRecord) -> Snapshot:
    """Snapshot of what had been learned when a decision was made: of its stage, and what the stage took from the app's
    others, with what open decisions said then.
    """
    app, specs, decision = store.meta()["app"], store.specs(), found.decision
    eras = [era.digests for era in store.declarations().eras if era.first <= found.seq]
    own = {decision.stage: decision.stage_digest}  # before eras were kept, a stage learned from its own decisions only
    served = eras[-1] if eras else own
    tallied = {
        name: recount(store, name, specs[digest], decision.settlement_version, found.seq)[0]
        for name, digest in served.items()
    }
    firm = pooled([tally.snapshot(app, name) for name, tally in tallied.items()])
    if decision.pending_basis.at:
        firm = pooled([_with_open(store, snapshot, tallied[snapshot.stage], found) for snapshot in firm])
    (mine,) = [s for s in firm if s.stage == decision.stage]
    return msgspec.structs.replace(mine, stage_spec=_as_operated(mine.stage_spec, specs[decision.stage_digest]))


def _as_operated(stage: Stage, made_under: Stage) -> Stage:
    """The declaration with the ramp and holdout that a decision was made under."""
    return msgspec.structs.replace(stage, live_ramp=made_under.live_ramp, holdout=made_under.holdout)


def _accounted(store: Store, live: PreparedPolicy, found: DecisionRecord) -> PreparedPolicy:
    """The policy with its loss account as it was when it was published: of the ledger's decisions until then."""
    basis, spec = found.decision.pending_basis, live.snapshot.stage_spec
    if spec.loss_share is None or not basis.at:
        return closed(live)
    log = exposures.count(store, live.snapshot.stage, spec, basis.decisions, found.seq)
    window = found.decision.expires - found.decision.at
    return log.accounted(live, basis.at, day_of(spec, window))


def rests_on_a_guess(decision: Decision, spec: Stage) -> bool:
    """Whether an earlier version may have weighed open decisions by a delay that it guessed and did not record, which
    it did for stages that declare none. Such a decision cannot be computed again, so an audit counts it apart.
    """
    return not decision.unit and bool(decision.pending_basis.at) and spec.reward.delay is None


def rests_on_forgotten(store: Store, found: DecisionRecord) -> bool:
    """Whether a decision may rest on what was learned from people who are forgotten since: then it was decided as it is
    recorded, but what it was decided from is gone in part.
    """
    known = found.decision.pending_basis.at or found.decision.at
    return any(0 < entry.first < found.seq and known < entry.at for entry in store.erasures())


def drawn_as_recorded(decision: Decision, specs: Mapping[str, Stage], different: Collection[str]) -> bool:
    """Whether all that does not depend on what was learned is confirmed, where the names of parts that were not are
    `different`: u, and that the arm is the one drawn there from the recorded propensities.
    """
    arms = decision.arms(specs[decision.stage_digest].arms)
    return "u" not in different and arms[draw(decision.propensity, decision.u)] == decision.arm


def _with_open(store: Store, snapshot: Snapshot, tally: StageStatistics, found: DecisionRecord) -> Snapshot:
    """The snapshot with what open decisions said when it was published: nothing, in a stage that declares no delay, to
    versions before `versions.OPEN_EVERYWHERE`.
    """
    specs, basis, spec = store.specs(), found.decision.pending_basis, snapshot.stage_spec
    if spec.reward.delay is None and arithmetic_of(store, found.seq) < versions.OPEN_EVERYWHERE:
        return msgspec.structs.replace(snapshot, pending_basis=basis)
    columns = OpenDecisionTable(spec, tally.d)
    held = held_then(store, key_of(snapshot.stage, spec), found.decision.settlement_version, basis.at)
    columns.put((KnownDecision(*other[:3]) for other in open_at(store, snapshot.stage, found)), specs, held)
    seen = amounts_to(snapshot, columns.rows(), tally.delays[: len(spec.arms)], basis.at)
    return msgspec.structs.replace(snapshot, pending=seen, pending_basis=basis)


def salt_of(store: Store, salt: str | None) -> bytes:
    """Key of a claimed ledger's draws (32 bytes), for audits. `salt` is the one that the operator gave, None or "" for
    the one kept in the ledger. Raises LedgerMismatch if the ledger needs a salt that was not given.
    """
    given = salt or store.meta().get("salt")
    if given is None or salt_digest(given) != store.meta().get("salt_digest"):
        wrong = "the salt is not the one of this ledger" if salt else "this ledger was written with a salt of its own"
        raise LedgerMismatch(f"{wrong}: give the service's with --salt, or set JOURNEY_BANDIT_SALT to it")
    return hashlib.sha256(given.encode()).digest()


class RebuildResult(NamedTuple):
    """Result of rebuilding one stage: its statistics counted again from the ledger's settlements (`tally`), beside
    those that the ledger keeps (`stored`).
    """

    stage: str
    tally: StageStatistics
    stored: StageStatistics
    settlements: int
    wrong_rewards: tuple[int, ...]  # decision numbers whose settled reward does not follow from its outcomes
    wrong_exposures: bool = False  # the kept sums of the loss account are not those of the decisions

    @property
    def belief(self) -> Belief:
        """Belief that decides, from the statistics counted again: sums of all drift epochs, weighted."""
        return self.tally.snapshot("", self.stage).belief

    @property
    def equal(self) -> bool:
        """Whether both have the same bits (sums of each epoch, counts of delays, exposures, recent nudges), and every
        settled reward follows from its outcomes.
        """
        mine, other = self.tally, self.stored
        same = [e.digest() for e in mine.epochs] == [e.digest() for e in other.epochs]
        same = same and np.array_equal(mine.delays, other.delays) and mine.nudges == other.nudges
        return same and not self.wrong_rewards and not self.wrong_exposures


def rebuild(store: Store, stages: dict[str, Stage], through: int | None = None) -> Iterator[RebuildResult]:
    """Result for each stage of counting its statistics again from scratch, over its settlements: the proof that derived
    state follows from the append-only rows. With `through`, only the first that many of the ledger's settlements count
    (the belief of that version).

    Reads only, from any thread; while a service writes, each stage is counted up to the version that its stored
    statistics have. Takes time in proportion to the ledger.
    """
    for name, was in load(store, stages).items():
        end = was.version if through is None else through
        tally, rows = recount(store, name, was.spec, end)
        tally = tally._replace(drift_state=was.drift_state)
        wrong = through is None and _wrong_exposures(store, name, was.spec)
        yield RebuildResult(name, tally, was, rows, tuple(_wrong_rewards(store, name, end)), wrong)


def _wrong_exposures(store: Store, name: str, stage: Stage) -> bool:
    kept = store.statistics(key_of(name, stage), (), 0).exposures
    if kept is None or kept.learning_digest != stage.learning_digest():
        return False
    counted = exposures.count(store, name, stage, kept.through)
    return exposures.differs(kept, exposures.stored(stage, counted, kept.through))


def _wrong_rewards(store: Store, name: str, through: int) -> Iterator[int]:
    specs = store.specs()  # a decision is settled by the rules it was made under
    held = {spec.schema: holds(store, key_of(name, spec)) for spec in specs.values()}
    for found in store.decisions(name):
        decision, spec = found.decision, specs[found.decision.stage_digest]
        for done in found.settlements:
            keys = held[spec.schema](done.seq)
            if (
                done.seq <= through
                and done.why != "erased"
                and not _follows(decision, spec, found.outcomes, done, keys)
            ):
                yield found.seq


def _follows(
    decision: Decision, spec: Stage, outcomes: Sequence[Outcome], done: Settlement, held: Collection[str]
) -> bool:
    """Whether a settlement is what the outcomes that it rests on amount to, where the rewards of keys are `held`."""
    verdict = rewards.settle(
        spec,
        outcomes[: done.outcomes],
        holdout=decision.holdout,
        current=done.why != "other schema",
        deferred=decision.deferred,
        over_limit=not decision.contribution,
        held=held,
    )
    near = math.isclose(verdict.reward, done.reward, rel_tol=_LAST_BITS, abs_tol=_LAST_BITS)
    return near and (verdict.why, verdict.learned) == (done.why, done.learned)
