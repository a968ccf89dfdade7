"""Candidate snapshots: what a policy has learned from a ledger up to one of its settlements. A pure function of the
ledger, so that a reviewer can compute the same bytes.

The stage's own policy takes the learning sites that were recorded; another policy learns the same settlements anew, in
their order.
"""

from collections.abc import Iterator
from itertools import groupby, islice

import msgspec
import numpy as np

from api.ledger import audit
from api.ledger.statistics_store import key_of, recount
from api.stores.protocol import Store
from bandit import features
from bandit.arrays import Array
from bandit.belief import add, empty
from bandit.catalogue.model import Stage
from bandit.errors import InvalidRequest, NotFound, Problem
from bandit.learning import drift
from bandit.learning.drift import DriftState
from bandit.learning.recoding import recoded
from bandit.learning.settlement import contribution, propensities, settlements_from_log
from bandit.records import Settlement
from bandit.snapshot import Snapshot, pooled

_BATCH = 512


def position(store: Store, stage: str, held_back: float) -> int:
    """Number of the settlement after which the newest share `held_back` (in [0, 1]) of the stage's settlements came: a
    candidate learned up to it can be evaluated on the rest. 0 if nothing comes before.
    """
    numbers = [settlement.seq for settlement, *_ in store.settled(stage)]
    keep = len(numbers) - round(len(numbers) * held_back)
    return numbers[keep - 1] if keep else 0


def candidate(store: Store, name: str, through: int, spec: Stage | None = None) -> Snapshot:
    """Snapshot of what the stage, or the stage declared as `spec`, knew after the ledger's first `through` settlements.
    If `spec` has another policy, that policy learns every settlement from scratch.

    Raises NotFound if the ledger has no such stage, InvalidRequest if it has fewer settlements.
    """
    served = audit.stages(store)
    if name not in served:
        raise NotFound("stage", f"the ledger has no stage {name!r}", f"one of {', '.join(sorted(served))}")
    if through > store.last().settlement:
        problem = f"{through} is beyond this ledger's last settlement"
        raise InvalidRequest(Problem("version", problem, f"at most {store.last().settlement}"))
    app = store.meta()["app"]
    if spec is not None and spec.policy != served[name].policy:
        return _anew(store, app, name, through, spec)
    firm = pooled([recount(store, n, s, through)[0].snapshot(app, n) for n, s in served.items()])
    (mine,) = [snapshot for snapshot in firm if snapshot.stage == name]
    return mine if spec is None else msgspec.structs.replace(mine, stage_spec=spec)


def _anew(store: Store, app: str, name: str, through: int, spec: Stage) -> Snapshot:
    """Every learned settlement of arms that are declared, as the policy of `spec` would have learned it. What alarms of
    drift have made old weighs as little as it does for the stage's own policy.
    """
    alarms = store.statistics(key_of(name, spec), (), 0).drift_state.alarms
    watch = DriftState(alarms=tuple(alarm for alarm in alarms if alarm.through <= through))
    epochs = [empty(len(spec.belief_rows(spec.arms)), len(features.schema(spec.features).columns))] * (watch.epoch + 1)
    for e, rows in groupby(_learned(store, name, through, spec), key=lambda row: drift.epoch_of(watch, row[0].first)):
        while batch := list(islice(rows, _BATCH)):
            x = np.array([design for _, design in batch])
            live = Snapshot(app, name, spec, through, drift.weighed(spec.drift, epochs))
            done = settlements_from_log(live, x, [s.arm for s, _ in batch], np.array([s.reward for s, _ in batch]))
            epochs[e] = add(epochs[e], contribution(spec, done, x))
    return Snapshot(app, name, spec, through, drift.weighed(spec.drift, epochs))


def _learned(store: Store, name: str, through: int, spec: Stage) -> Iterator[tuple[Settlement, Array]]:
    """Learned settlements of arms that `spec` declares, as corrected, in the order of the first ones of their
    decisions, each with its design row (D,).
    """
    after, specs = store.first_settlement(key_of(name, spec)), store.specs()
    while found := store.settlements_after(after, _BATCH):
        for after, record in found:
            settled = record.settled(through)
            if after > through or settled is None:
                return
            decision, _, settlement = settled
            if after != settlement.first:
                continue  # a correction: what it corrects stood for the decision
            if decision.stage == name and settlement.learned and settlement.arm in spec.arms:
                was = specs[decision.stage_digest]
                arm = np.array([spec.arms.index(settlement.arm)])
                x, p = recoded(decision.x[None], was, spec), propensities([decision], was.arms, spec.arms)
                yield settlement, spec.learner.design(x, arm, p)[0]
