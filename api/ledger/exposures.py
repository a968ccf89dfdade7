"""Exposures of a stage's decisions: read as the ledger keeps them, counted again from the decisions, and as an update.

The only code that turns the sums of a `bandit.learning.loss.ExposureLog` into rows and back.
"""

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np

from api.ledger.statistics_store import key_of, retired
from api.stores.learning_state import StoredExposures
from api.stores.protocol import Store
from bandit import features
from bandit.catalogue.model import Stage
from bandit.learning.loss import ExposureLog, counts
from bandit.learning.loss_account import RECENT, ExposureSums
from bandit.records import Decision

_BATCH = 2000  # decisions read at a time


def load(store: Store, stages: Mapping[str, Stage]) -> dict[str, ExposureLog]:
    """Exposures of all decisions, by stage: the kept sums, and the decisions that came after them. Empty where a stage
    declares no loss. Called by the learner at the start.
    """
    logs, after, specs = dict[str, ExposureLog](), dict[str, int](), store.specs()
    for name, stage in stages.items():
        names = (*stage.arms, *retired(store, name, stage))
        logs[name] = log = ExposureLog(stage, names, len(features.of(stage).columns))
        if stage.loss_share is None:
            continue
        kept, after[name] = store.statistics(key_of(name, stage), (), 0).exposures, 0
        if kept is not None and kept.learning_digest == stage.learning_digest():
            after[name], zero = kept.through, np.zeros(log.sums.effect.shape[1])
            effect = np.array([kept.effect.get(arm, zero) for arm in names])
            log.sums = ExposureSums(kept.decisions, kept.first, kept.days, kept.nudges, kept.cost, effect)
            log.look_at_decisions(_newest(store, name, stage, kept.through, specs), specs)
    through = min(after.values(), default=0)
    while after and (found := store.decisions_after(through, _BATCH)):
        for name, last in after.items():
            new = [row.decision for row in found if row.decision.stage == name and row.seq > last]
            logs[name].put_decisions(new, specs)
        through = found[-1].seq
    return logs


def look_again(store: Store, name: str, stage: Stage, log: ExposureLog, through: int) -> None:
    """Read the newest decisions of a log again, of those numbered up to `through`, if they are not known any more."""
    if log.newest is not None:
        return
    specs = store.specs()
    log.look_at_decisions(_newest(store, name, stage, through, specs), specs)


def count(store: Store, name: str, stage: Stage, through: int, decision: int | None = None) -> ExposureLog:
    """Exposures of the stage's decisions numbered up to `through`, counted from the decisions alone. With `decision`,
    over the arms that were known when the decision of that number was made.
    """
    names = (*stage.arms, *retired(store, name, stage, decision))
    log, specs = ExposureLog(stage, names, len(features.of(stage).columns)), store.specs()
    made = (row.decision for row in store.decisions(name) if row.seq <= through)
    while batch := list(islice(made, _BATCH)):
        log.put_decisions(batch, specs)
    return log


def stored(stage: Stage, log: ExposureLog, through: int) -> StoredExposures:
    """What the ledger keeps of a log that counts its decisions up to number `through`."""
    sums = log.sums
    effect = dict(zip(log.names, sums.effect, strict=True))
    digest = stage.learning_digest()
    return StoredExposures(digest, through, sums.n, sums.first, sums.days, sums.nudges, sums.cost, effect)


def differs(kept: StoredExposures, counted: StoredExposures) -> bool:
    """Whether two are not the same to the bit; an arm that one of them does not name has zeros there."""
    arms = kept.effect.keys() | counted.effect.keys()
    zero = np.zeros(max((len(v) for v in (*kept.effect.values(), *counted.effect.values())), default=0))
    same = all(np.array_equal(kept.effect.get(a, zero), counted.effect.get(a, zero)) for a in arms)
    return not same or kept._replace(effect={}) != counted._replace(effect={})


def _newest(store: Store, name: str, stage: Stage, through: int, specs: Mapping[str, Stage]) -> list[Decision]:
    """The newest RECENT decisions that count, numbered up to `through`, in order."""
    found, before = list[Decision](), through + 1
    while len(found) < RECENT and (page := store.decisions_before(name, before, RECENT)):
        found += _counting((row.decision for row in page), stage, specs)
        before = page[-1].seq
    return found[:RECENT][::-1]


def _counting(made: Iterable[Decision], stage: Stage, specs: Mapping[str, Stage]) -> list[Decision]:
    return [decision for decision in made if counts(decision, specs[decision.stage_digest], stage)]
