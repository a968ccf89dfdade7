"""Effect of a catalogue on a ledger: what the ledger refuses, what begins anew, what is kept.

The service asks here when it starts and when it reads its catalogue anew, `catalogue check --store` before that: all of
them get the same answer.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from api.ledger.statistics_store import key_of, load
from api.stores.learning_state import Declarations
from api.stores.protocol import Store
from bandit.catalogue.model import DEFAULT, EARLIER_DEFAULT, Catalogue, Stage
from bandit.learning.recoding import wider

CATALOGUE = "catalogue"
"""Key of the fact which catalogue the replicas of a shared ledger serve."""

What = Literal["new", "kept", "recoded", "anew", "refused", "removed"]


class StageFate(NamedTuple):
    """Effect on one stage, or (with stage "") on the whole ledger: in one word, and in a sentence for operators."""

    stage: str
    what: What
    why: str


def refusals(store: Store, catalogue: Catalogue, salt: str | None) -> list[str]:
    """Reasons why a ledger cannot be served with this catalogue and salt, each with its fix; empty if it can. `salt`
    None: the one kept in the ledger.
    """
    return [fate.why for fate in _refused(store, as_begun(store, catalogue), salt)]


def fates(store: Store, catalogue: Catalogue, salt: str | None) -> list[StageFate]:
    """Effect of a catalogue and salt on a ledger and on each stage that either declares, refusals first. Reads only,
    and counts learned and open decisions.
    """
    given, catalogue = catalogue, as_begun(store, catalogue)
    refused = list(_refused(store, catalogue, salt))
    gone = {fate.stage for fate in refused}
    last = served(store)
    found = [_fate(store, name, stage, last) for name, stage in catalogue.stages.items() if name not in gone]
    return [
        *refused,
        *(_under_earlier(fate) if catalogue.stages[fate.stage] != given.stages[fate.stage] else fate for fate in found),
        *(_removed(store, name, stage) for name, stage in last.items() if name not in catalogue.stages),
    ]


def served(store: Store) -> dict[str, Stage]:
    """Declaration under which each stage was last served, by name; stages that were removed from the catalogue since
    are included.
    """
    specs = store.specs()
    return {name: specs[one.digest] for name, one in store.declarations().served.items() if one.digest}


def widened(store: Store, catalogue: Catalogue) -> list[str]:
    """Names of the stages that the ledger takes by encoding again what they have learned: ranges of features are wider,
    and nothing else changed what sums mean.
    """
    return [name for name, stage in catalogue.stages.items() if _wider(store, name, stage)]


def continued(store: Store, catalogue: Catalogue) -> dict[str, Stage]:
    """Stages that come with a higher schema number because their policy learns in another way: what was learned can
    teach it. By name, as they were last served.
    """
    last = served(store)
    return {
        name: last[name] for name, stage in catalogue.stages.items() if name in last and _goes_on(last[name], stage)
    }


def as_begun(store: Store, catalogue: Catalogue) -> Catalogue:
    """Catalogue as this ledger can go on with it: a stage that declares no policy, and learned under the default of an
    earlier version, keeps that one until it comes with a higher schema number. One that declares `centred` by name is
    another policy than the ledger's, and is refused as such.
    """
    last = served(store)
    kept = {
        name: msgspec.structs.replace(stage, policy=EARLIER_DEFAULT)
        for name, stage in catalogue.stages.items()
        if name in last
        and stage.policy is DEFAULT
        and last[name].policy == EARLIER_DEFAULT
        and last[name].schema == stage.schema
    }
    return msgspec.structs.replace(catalogue, stages={**catalogue.stages, **kept}) if kept else catalogue


def _goes_on(was: Stage, stage: Stage) -> bool:
    """Whether the step between two policies is all that a higher number is for. A number that is raised for no reason
    forgets what was learned, as its owner wants.
    """
    if stage.has_request_actions or was.has_request_actions or stage.schema <= was.schema:
        return False
    renumbered = msgspec.structs.replace(stage, schema=was.schema)
    as_it_was = msgspec.structs.replace(renumbered, policy=was.policy)
    return as_it_was.learning_digest() == was.learning_digest() != renumbered.learning_digest()


def last_schema(declared: Declarations, name: str, stage: Stage) -> int:
    """Number of the schema under which the stage was last served; the stage's own if it never was."""
    return declared.served[name].schema if name in declared.served else stage.schema


def served_digest(catalogue: Catalogue) -> str:
    """Digest of a whole catalogue, under which replicas know whether they serve the same."""
    return hashlib.sha256(msgspec.json.encode(catalogue, order="deterministic")).hexdigest()


def salt_digest(salt: str) -> str:
    """SHA-256 in hexadecimal that a ledger keeps in place of a salt that was given: it proves which salt is the right
    one without telling it.
    """
    return hashlib.sha256(b"journey-bandit salt\x1f" + salt.encode()).hexdigest()


def _refused(store: Store, catalogue: Catalogue, salt: str | None) -> Iterator[StageFate]:
    meta, declared = store.meta(), store.declarations()
    if meta.get("app", catalogue.app) != catalogue.app:
        why = f"the ledger holds app {meta['app']!r}, not {catalogue.app!r}: give --store another file"
        yield StageFate("", "refused", why)
    if "salt_digest" in meta and salt_digest(salt or meta.get("salt", "")) != meta["salt_digest"]:
        yield StageFate(
            "",
            "refused",
            "the salt is not the one this ledger was written with, so holdouts and draws would change: set "
            "JOURNEY_BANDIT_SALT to that one, or give --store another file",
        )
    for name, stage in catalogue.stages.items():
        last = last_schema(declared, name, stage)
        changed = _changed(declared, name, stage) and not _wider(store, name, stage)
        if stage.schema < last:
            why = f"stage {name!r}: schema {stage.schema} is over, the ledger is at {last}: declare {last} or more"
            yield StageFate(name, "refused", why)
        elif changed and stage.schema == last:
            what = _what_changed(served(store).get(name), stage)
            why = (
                f"stage {name!r}: {what} changed, so what was learned no longer means the same: undo the change, or "
                f"declare schema = {last + 1} in [stages.{name}] to begin anew (old rows are kept)"
            )
            yield StageFate(name, "refused", why)


def _what_changed(was: Stage | None, stage: Stage) -> str:
    """What of a declaration gives its sums another meaning, in words."""
    if was is None:
        return "its features or its reward"
    parts = {
        "its features": was.features != stage.features,
        "its reward": was.reward != stage.reward,
        f"its policy (`{_tag(was)}` before, `{_tag(stage)}` now)": _tag(was) != _tag(stage),
    }
    return " and ".join(part for part, differs in parts.items() if differs) or "how its policy reads the context"


def _tag(stage: Stage) -> str:
    return str(stage.policy.__struct_config__.tag)


def _fate(store: Store, name: str, stage: Stage, last: Mapping[str, Stage]) -> StageFate:
    """Of a stage that the ledger takes."""
    was = last.get(name)
    if was is None:
        return StageFate(name, "new", "it has never been served: it begins with what its policy assumes")
    learned = _learned(store, name, was)
    if stage.schema > last_schema(store.declarations(), name, stage):
        waiting = _waiting(store, name)
        late = f"; {waiting:,} open decision(s) will settle, and teach nothing" if waiting else ""
        what = "teach its policy anew" if _goes_on(was, stage) else "stay in the ledger, unused"
        why = f"schema {stage.schema} after {was.schema}: {learned:,} learned decision(s) {what}"
        return StageFate(name, "anew", why + late)
    said = [f"{learned:,} learned decision(s)"]
    wide = _wider(store, name, stage)
    said += [f"encoded again, as they would be under the wider range of {', '.join(wide)}"] * bool(wide)
    come, go = stage.nudges.keys() - was.nudges.keys(), was.nudges.keys() - stage.nudges.keys()
    said += [f"new: {', '.join(sorted(come))}"] * bool(come)
    said += [f"retired, what they taught is kept: {', '.join(sorted(go))}"] * bool(go)
    said += ["its declaration changed"] * (stage.digest() != was.digest() and not come and not go and not wide)
    return StageFate(name, "recoded" if wide else "kept", "; ".join(said))


def _under_earlier(fate: StageFate) -> StageFate:
    return fate._replace(
        why=f"{fate.why}; it declares no policy and goes on under `hierarchical`, the default that it learned with, "
        "which has no loss account: nothing bounds what learning may cost. A higher schema number begins `centred`, "
        "taught by what was learned"
    )


def _changed(declared: Declarations, name: str, stage: Stage) -> bool:
    """Whether sums of the stage would mean something else than those in the ledger."""
    was = declared.served.get(name)
    return was is not None and bool(was.learning_digest) and was.learning_digest != stage.learning_digest()


def _wider(store: Store, name: str, stage: Stage) -> list[str]:
    """Features whose wider range is all that changed. What a warm start brought is kept as sums alone, which cannot be
    encoded again.
    """
    was = served(store).get(name)
    if was is None or not _changed(store.declarations(), name, stage):
        return []
    if store.warm_start(key_of(name, stage), (), 0) is not None:
        return []
    return wider(was, stage)


def _removed(store: Store, name: str, was: Stage) -> StageFate:
    why = f"not in the catalogue: {_learned(store, name, was):,} learned and {_waiting(store, name):,} open decision(s)"
    return StageFate(name, "removed", f"{why} wait in the ledger until it is declared again")


def _learned(store: Store, name: str, stage: Stage) -> int:
    """Decisions that count under the stage's present schema."""
    tally = load(store, {name: stage})[name]
    return round(sum(float(epoch.n[: len(tally.names)].sum()) for epoch in tally.epochs))


def _waiting(store: Store, name: str) -> int:
    return sum(1 for _ in store.open_decisions(name))
