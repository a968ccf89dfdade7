"""A ledger belongs to one app, one salt and one meaning of its statistics.

Claiming it checks that; rebuilding proves it.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np

from api.learning import kept, key, stored, watch_of
from api.stores.protocol import Found, Store
from bandit import drift, features, rewards
from bandit.belief import Belief, add, empty
from bandit.catalogue import Catalogue, Stage
from bandit.drift import Watch
from bandit.errors import LedgerMismatch
from bandit.learner import contribution
from bandit.snapshot import Snapshot, pooled

_BATCH = 5000


def claim(store: Store, catalogue: Catalogue, salt: str | None) -> bytes:
    """Make the ledger this app's, or check that it is; the salt that keys its draws.

    A given salt is never stored, only its digest. Without one, a random salt is made once and kept in the ledger.
    Raises LedgerMismatch when the ledger is of another app or salt, or when a stage's features or reward changed so
    that what was learned no longer means the same.
    """
    meta = store.meta()
    wrong = _mismatches(meta, catalogue, salt)
    if wrong:
        raise LedgerMismatch("\n".join(wrong))
    if salt is None:
        salt = meta.get("salt") or secrets.token_hex(32)
        store.set_meta({"salt": salt})
    _bring_back(store, catalogue, meta)
    store.set_meta({"app": catalogue.app, "salt_digest": _salt_digest(salt), **_declared(store, catalogue, meta)})
    store.register(catalogue.stages)
    return hashlib.sha256(salt.encode()).digest()


def _declared(store: Store, catalogue: Catalogue, meta: Mapping[str, str]) -> dict[str, str]:
    """Facts about the declarations that are served from now on."""
    facts, last = {}, str(store.last_settlement())
    for name, stage in catalogue.stages.items():
        if stage.schema > _last_schema(meta, name, stage):
            facts[f"since:{kept(name, stage)}"] = last  # what was settled before is of another schema
        facts[f"schema:{name}"] = str(stage.schema)
        facts[f"learning:{name}"] = stage.learning_digest()
        facts[f"spec:{name}"] = stage.digest()
    specs = {f"spec:{name}": stage.digest() for name, stage in catalogue.stages.items()}
    return {**facts, **_era(store, specs)}


def _last_schema(meta: Mapping[str, str], name: str, stage: Stage) -> int:
    """The schema under which the stage was last served; its own if it never was."""
    return int(meta.get(f"schema:{name}", 1 if f"learning:{name}" in meta else stage.schema))


def _bring_back(store: Store, catalogue: Catalogue, meta: dict[str, str]) -> None:
    """A nudge that is declared again: what its decisions taught while it was not is in the ledger only."""
    specs = store.specs()
    once = {arm for spec in specs.values() for arm in spec.arms}
    for name, stage in catalogue.stages.items():
        last = specs.get(meta.get(f"spec:{name}", ""))
        if last and last.schema == stage.schema and once & set(stage.arms) - set(last.arms):
            epochs, _ = _summed(store, name, stage, None)
            replace(store, name, stage, epochs)


def replace(store: Store, name: str, stage: Stage, epochs: Sequence[Belief]) -> None:
    """Write the sums of every epoch of a stage."""
    for e, belief in enumerate(epochs):
        store.replace_belief(key(name, stage, e, len(epochs)), stage.arms, belief)


def _era(store: Store, specs: Mapping[str, str]) -> dict[str, str]:
    """From which decision on these declarations are served: what a stage decides depends on the app's other stages."""
    served = msgspec.json.encode({k.removeprefix("spec:"): v for k, v in specs.items()}).decode()
    meta = store.meta()
    last = max((k for k in meta if k.startswith("era:")), default="")
    return {} if meta.get(last) == served else {f"era:{store.counts().decisions + 1:015d}": served}


def stages(store: Store) -> dict[str, Stage]:
    """The declaration under which each stage was last served."""
    specs = store.specs()
    return {k.removeprefix("spec:"): specs[v] for k, v in store.meta().items() if k.startswith("spec:")}


def past(store: Store, found: Found) -> Snapshot:
    """What a decision was made with, rebuilt from the ledger: its stage, and what it took from the app's others."""
    meta, specs, decision = store.meta(), store.specs(), found.decision
    era = max(k for k in meta if k.startswith("era:") and int(k.removeprefix("era:")) <= found.seq)
    served = msgspec.json.decode(meta[era], type=dict[str, str])
    snapshots = []
    for name, digest in served.items():
        epochs, _ = _summed(store, name, specs[digest], decision.version)
        belief = drift.weighed(specs[digest].drift, epochs)
        snapshots.append(Snapshot(meta["app"], name, specs[digest], decision.version, belief))
    (mine,) = [s for s in pooled(snapshots) if s.stage == decision.stage]
    return mine


def salt_of(store: Store, salt: str | None) -> bytes:
    """The key of a claimed ledger's draws. LedgerMismatch if it needs a salt that was not given."""
    given = salt or store.meta().get("salt")
    if given is None or _salt_digest(given) != store.meta().get("salt_digest"):
        raise LedgerMismatch("this ledger was written with a salt of its own: set JOURNEY_BANDIT_SALT to it")
    return hashlib.sha256(given.encode()).digest()


def _mismatches(meta: dict[str, str], catalogue: Catalogue, salt: str | None) -> list[str]:
    wrong = []
    if meta.get("app", catalogue.app) != catalogue.app:
        wrong.append(f"the ledger holds app {meta['app']!r}, not {catalogue.app!r}: give --store another file")
    if "salt_digest" in meta and _salt_digest(salt or meta.get("salt", "")) != meta["salt_digest"]:
        wrong.append(
            "the salt is not the one this ledger was written with, so holdouts and draws would change: set "
            "JOURNEY_BANDIT_SALT to that one, or give --store another file"
        )
    for name, stage in catalogue.stages.items():
        last = _last_schema(meta, name, stage)
        changed = meta.get(f"learning:{name}", stage.learning_digest()) != stage.learning_digest()
        if stage.schema < last:
            wrong.append(
                f"stage {name!r}: schema {stage.schema} is over, the ledger is at {last}: declare {last} or more"
            )
        elif changed and stage.schema == last:
            wrong.append(
                f"stage {name!r}: its features or its reward changed, so what was learned no longer means the same: "
                f"undo the change, or declare schema = {last + 1} in [stages.{name}] to begin anew (old rows are kept)"
            )
    return wrong


def _salt_digest(salt: str) -> str:
    return hashlib.sha256(b"journey-bandit salt\x1f" + salt.encode()).hexdigest()


class Rebuilt(NamedTuple):
    """One stage's sums from the ledger beside the stored ones, for each epoch."""

    stage: str
    spec: Stage
    epochs: tuple[Belief, ...]
    stored: tuple[Belief, ...]
    version: int
    settlements: int
    wrong_rewards: tuple[int, ...]  # decision numbers whose settled reward does not follow from its outcomes

    @property
    def belief(self) -> Belief:
        """What decides: all epochs, weighted."""
        return drift.weighed(self.spec.drift, self.epochs)

    @property
    def equal(self) -> bool:
        """Whether both have the same bits, and every reward follows from its outcomes."""
        return [e.digest() for e in self.epochs] == [e.digest() for e in self.stored] and not self.wrong_rewards


def rebuild(store: Store, stages: dict[str, Stage], through: int | None = None) -> Iterator[Rebuilt]:
    """Each stage's belief, summed from scratch over its settlements. With `through`, only the first that many of the
    ledger's settlements count (the belief of that version).
    """
    for name, spec in stages.items():
        was, version = stored(store, name, spec, watch_of(store.meta(), name, spec).epoch)
        end = version if through is None else through
        epochs, rows = _summed(store, name, spec, end)
        yield Rebuilt(name, spec, epochs, was, version, rows, tuple(_wrong_rewards(store, name, end)))


def _summed(store: Store, name: str, spec: Stage, through: int | None) -> tuple[tuple[Belief, ...], int]:
    """The sums of each epoch over the arms of `spec`, from scratch, and how many settlements there are.

    Alarms are facts of the ledger: those that had been raised by settlement `through` count.
    """
    meta = store.meta()
    watch = watch_of(meta, name, spec)
    watch = Watch(alarms=tuple(a for a in watch.alarms if through is None or a.through <= through))
    zero = empty(len(spec.arms), len(features.schema(spec.features).columns))
    epochs, count = [zero] * (watch.epoch + 1), 0
    settled = store.settled(name, through, int(meta.get(f"since:{kept(name, spec)}", 0)))
    while batch := list(islice(settled, _BATCH)):
        rows = [(s, x) for s, x in batch if s.learned]
        of = np.array([drift.epoch_of(watch, s.seq) for s, _ in rows])
        for e in np.unique(of).tolist():
            mine = [row for row, epoch in zip(rows, of, strict=True) if epoch == e]
            gained = contribution(spec, [s for s, _ in mine], np.array([x for _, x in mine]))
            epochs[e] = add(epochs[e], gained)
        count += len(batch)
    return tuple(epochs), count


def _wrong_rewards(store: Store, name: str, through: int) -> Iterator[int]:
    specs = store.specs()  # a decision is settled by the rules it was made under
    for found in store.decisions(name):
        done = found.settlement
        if done is None or done.seq > through:
            continue
        spec, holdout = specs[found.decision.spec], found.decision.holdout
        verdict = rewards.settle(spec, found.outcomes, holdout=holdout, current=done.why != "other schema")
        if (verdict.reward, verdict.why, verdict.learned) != (done.reward, done.why, done.learned):
            yield found.seq
