"""A ledger belongs to one app, one salt and one meaning of its statistics.

Claiming it checks that; rebuilding proves it.
"""

import hashlib
import math
import secrets
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from api.ledger.catalogue_changes import last_schema, refusals, salt_digest, served, widened
from api.ledger.statistics_store import (
    StageStatistics,
    epoch_key,
    facts_of,
    open_at,
    recounted,
    statistics_key,
    tallies,
)
from api.releases import service
from api.stores.protocol import DecisionRecord, Store
from bandit import engine, receipt
from bandit.belief import Belief
from bandit.catalogue.model import Catalogue, Stage
from bandit.engine import PreparedPolicy
from bandit.errors import LedgerMismatch
from bandit.learning import rewards
from bandit.learning.pending import OpenDecisionTable, amounts_to, row
from bandit.records import Decision
from bandit.snapshot import Snapshot, pooled

stages = served
"""The declaration under which each stage was last served."""

_LAST_BITS = 1e-12  # of a settled reward: earlier versions added a decision's rewards in another way


def claim(store: Store, catalogue: Catalogue, salt: str | None) -> bytes:
    """Make the ledger this app's, or check that it is; the salt that keys its draws.

    A given salt is never stored, only its digest. Without one, a random salt is made once and kept in the ledger.
    Raises LedgerMismatch when the ledger is of another app or salt, or when a stage's features or reward changed so
    that what was learned no longer means the same. Where ranges of features are wider, and nothing else changed, what
    was learned is summed again from the ledger, as the new ranges encode it.
    """
    meta = store.meta()
    wrong = refusals(store, catalogue, salt)
    if wrong:
        raise LedgerMismatch("\n".join(wrong))
    if salt is None:
        salt = meta.get("salt") or secrets.token_hex(32)
        store.set_meta({"salt": salt})
    wider, facts = widened(store, meta, catalogue), _declared(store, catalogue, meta)
    store.register(catalogue.stages)
    anew = {name: recounted(store, name, catalogue.stages[name])[0] for name in wider}
    with store.atomic():  # the declaration, and what was learned as it encodes it
        store.set_meta(
            {"app": catalogue.app, "currency": catalogue.currency, "salt_digest": salt_digest(salt), **facts}
        )
        for name, tally in anew.items():
            replace(store, name, tally)
    store.set_meta(_delays(store, catalogue, meta))
    return hashlib.sha256(salt.encode()).digest()


def _declared(store: Store, catalogue: Catalogue, meta: Mapping[str, str]) -> dict[str, str]:
    """Facts about the declarations that are served from now on."""
    facts, last = {}, str(store.last().settlement)
    for name, stage in catalogue.stages.items():
        if stage.schema > last_schema(meta, name, stage):
            facts[f"since:{statistics_key(name, stage)}"] = last  # what was settled before is of another schema
        facts[f"schema:{name}"] = str(stage.schema)
        facts[f"learning:{name}"] = stage.learning_digest()
        facts[f"spec:{name}"] = stage.digest()
    specs = {f"spec:{name}": stage.digest() for name, stage in catalogue.stages.items()}
    return {**facts, **_era(store, specs), **_arithmetic(store)}


def _delays(store: Store, catalogue: Catalogue, meta: Mapping[str, str]) -> dict[str, str]:
    """How late answers came, of stages that had settled decisions before the ledger counted that: from its rows."""
    return {
        fact: facts_of(name, recounted(store, name, stage)[0])[fact]
        for name, stage in catalogue.stages.items()
        for fact in (f"delays:{statistics_key(name, stage)}",)
        if fact not in meta and f"learning:{name}" in meta and store.version(name)
    }


def replace(store: Store, name: str, tally: StageStatistics) -> None:
    """Write a stage's tally."""
    for e, belief in enumerate(tally.epochs):
        store.replace_belief(epoch_key(name, tally.spec, e, len(tally.epochs)), tally.rows, belief)
    store.set_meta(facts_of(name, tally))


def _era(store: Store, specs: Mapping[str, str]) -> dict[str, str]:
    """From which decision on these declarations are served: what a stage decides depends on the app's other stages."""
    served = msgspec.json.encode({k.removeprefix("spec:"): v for k, v in specs.items()}).decode()
    meta = store.meta()
    last = max((k for k in meta if k.startswith("era:")), default="")
    return {} if meta.get(last) == served else {f"era:{store.counts().decisions + 1:015d}": served}


def _arithmetic(store: Store) -> dict[str, str]:
    """From which decision on numbers are recorded in the present arithmetic."""
    meta = store.meta()
    if meta.get(max((k for k in meta if k.startswith("arithmetic:")), default="")) == str(receipt.ARITHMETIC):
        return {}
    return {f"arithmetic:{store.counts().decisions + 1:015d}": str(receipt.ARITHMETIC)}


def arithmetic_of(store: Store, seq: int) -> int:
    """The arithmetic in which a decision was recorded, by its number: 1 before ledgers said which."""
    meta = store.meta()
    begun = (k for k in meta if k.startswith("arithmetic:") and int(k.removeprefix("arithmetic:")) <= seq)
    return int(meta.get(max(begun, default=""), 1))


def differences(store: Store, found: DecisionRecord, salt: bytes) -> list[str]:
    """Names of the parts of a recorded decision that recomputing it from the ledger does not confirm."""
    live = deciding(store, found)
    again = engine.recompute(live, found.decision, salt)
    return receipt.differences(found.decision, again, live.snapshot.stage_spec.arms, arithmetic_of(store, found.seq))


def deciding(store: Store, found: DecisionRecord) -> PreparedPolicy:
    """What a decision was made with: its release, or else what had been learned, rebuilt from the ledger."""
    number = found.decision.release
    if number == 0:
        return engine.prepare(past(store, found))
    (statistics_key,) = [
        statistics_key for statistics_key in store.releases(found.decision.stage) if statistics_key.seq == number
    ]
    return service.past(statistics_key, store.specs()[found.decision.stage_digest])


def past(store: Store, found: DecisionRecord) -> Snapshot:
    """What had been learned when a decision was made: of its stage, and what it took from the app's others."""
    meta, specs, decision = store.meta(), store.specs(), found.decision
    eras = [k for k in meta if k.startswith("era:") and int(k.removeprefix("era:")) <= found.seq]
    own = {decision.stage: decision.stage_digest}  # before eras were kept, a stage learned from its own decisions only
    served = msgspec.json.decode(meta[max(eras)], type=dict[str, str]) if eras else own
    tallied = {
        name: recounted(store, name, specs[digest], decision.settlement_version, found.seq)[0]
        for name, digest in served.items()
    }
    firm = pooled([tally.snapshot(meta["app"], name) for name, tally in tallied.items()])
    if decision.pending_basis.at:
        firm = pooled([_with_open(store, snapshot, tallied[snapshot.stage], found) for snapshot in firm])
    (mine,) = [s for s in firm if s.stage == decision.stage]
    return mine


def rests_on_a_guess(decision: Decision, spec: Stage) -> bool:
    """Whether an earlier version may have weighed open decisions by a delay that it guessed and did not record: of a
    stage that declares none. Such a decision cannot be computed again.
    """
    return not decision.unit and bool(decision.pending_basis.at) and spec.reward.typical is None


def _with_open(store: Store, snapshot: Snapshot, tally: StageStatistics, found: DecisionRecord) -> Snapshot:
    """The snapshot with what open decisions said when it was published."""
    specs, basis, spec = store.specs(), found.decision.pending_basis, snapshot.stage_spec
    columns = OpenDecisionTable(tally.d)
    for other in open_at(store, snapshot.stage, found):
        decision = other.decision
        columns.put(other.seq, row(other.seq, decision, other.outcomes, specs[decision.stage_digest], spec))
    seen = amounts_to(snapshot, columns.rows(), tally.delays[: len(spec.arms)], basis.at)
    return msgspec.structs.replace(snapshot, pending=seen, pending_basis=basis)


def salt_of(store: Store, salt: str | None) -> bytes:
    """The key of a claimed ledger's draws. LedgerMismatch if it needs a salt that was not given."""
    given = salt or store.meta().get("salt")
    if given is None or salt_digest(given) != store.meta().get("salt_digest"):
        raise LedgerMismatch("this ledger was written with a salt of its own: set JOURNEY_BANDIT_SALT to it")
    return hashlib.sha256(given.encode()).digest()


class RebuildResult(NamedTuple):
    """One stage's tally counted from the ledger beside the stored one."""

    stage: str
    tally: StageStatistics
    stored: StageStatistics
    settlements: int
    wrong_rewards: tuple[int, ...]  # decision numbers whose settled reward does not follow from its outcomes

    @property
    def belief(self) -> Belief:
        """What decides: all epochs, weighted."""
        return self.tally.snapshot("", self.stage).belief

    @property
    def equal(self) -> bool:
        """Whether both have the same bits, and every reward follows from its outcomes."""
        mine, other = self.tally, self.stored
        same = [e.digest() for e in mine.epochs] == [e.digest() for e in other.epochs]
        return same and np.array_equal(mine.delays, other.delays) and not self.wrong_rewards


def rebuild(store: Store, stages: dict[str, Stage], through: int | None = None) -> Iterator[RebuildResult]:
    """Each stage's tally, counted from scratch over its settlements. With `through`, only the first that many of the
    ledger's settlements count (the belief of that version).
    """
    for name, was in tallies(store, stages).items():
        end = was.version if through is None else through
        tally, rows = recounted(store, name, was.spec, end)
        tally = tally._replace(watch=was.watch)
        yield RebuildResult(name, tally, was, rows, tuple(_wrong_rewards(store, name, end)))


def _wrong_rewards(store: Store, name: str, through: int) -> Iterator[int]:
    specs = store.specs()  # a decision is settled by the rules it was made under
    for found in store.decisions(name):
        done = found.settlement
        if done is None or done.seq > through:
            continue
        decision = found.decision
        verdict = rewards.settle(
            specs[decision.stage_digest],
            found.outcomes,
            holdout=decision.holdout,
            current=done.why != "other schema",
            deferred=decision.deferred,
        )
        near = math.isclose(verdict.reward, done.reward, rel_tol=_LAST_BITS, abs_tol=_LAST_BITS)
        if not near or (verdict.why, verdict.learned) != (done.why, done.learned):
            yield found.seq
