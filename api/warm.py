"""Warm start: what a log from before this service has taught, with a weight, as if it had been learned here first.

The log's sums stand in the ledger beside those of the settlements, under "stage@warm"; each row counts `weight` ≤ 1 (a
power prior, Ibrahim & Chen 2000). It can be done once for a stage and schema. Decisions made before do not know of it.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from api.stores.protocol import Store
from api.tallies import Warm, kept
from bandit import features
from bandit.belief import Array, add, empty
from bandit.catalogue import Stage
from bandit.decoding import closest
from bandit.errors import InvalidRequest, LedgerMismatch, Problem
from bandit.features import Given
from bandit.learner import contribution, sited
from bandit.snapshot import Snapshot

_BATCH = 1000
_MOST = 20  # mistakes that are named


class Row(msgspec.Struct, frozen=True):
    """One logged decision: its context, what was shown, and the reward in its own units."""

    context: Mapping[str, Given]
    arm: str
    reward: float


def begin(store: Store, name: str, stage: Stage, rows: Sequence[Row], *, weight: float, digest: str) -> Warm:
    """Learn the rows, in their order. InvalidRequest names every row that cannot be used; LedgerMismatch if a log was
    learned before. The service must be stopped.
    """
    if stage.dynamic:
        problem = f"the actions of {name!r} come with each request"
        raise InvalidRequest(Problem("stage", problem, "warm a stage whose nudges are declared"))
    key = kept(name, stage)
    if f"warm:{key}" in store.meta():
        raise LedgerMismatch(f"stage {name!r} was warmed before: declare a new schema number to begin anew")
    x, arm, reward = _encoded(stage, rows)
    belief = empty(len(stage.rows(stage.arms)), x.shape[1])
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        live = Snapshot("", name, stage, 0, belief)
        done = sited(live, x[part], arm[part], reward[part])
        belief = add(belief, contribution(stage, done, x[part]))
    warm = Warm(weight=weight, rows=len(rows), digest=digest, since=store.last().decision + 1)
    store.replace_belief(f"{key}@warm", stage.rows(stage.arms), belief)
    store.set_meta({f"warm:{key}": msgspec.json.encode(warm).decode()})
    return warm


def _encoded(stage: Stage, rows: Sequence[Row]) -> tuple[Array, list[str], Array]:
    layout, problems, x = features.schema(stage.features), list[Problem](), list[Array]()
    spec = stage.reward
    for i, row in enumerate(rows, 1):
        if row.arm not in stage.arms:
            problems.append(Problem(f"row {i}: arm", f"no arm {row.arm!r}", closest(row.arm, stage.arms)))
        if not spec.min <= row.reward <= spec.max:
            fix = f"a number in [{spec.min:g}, {spec.max:g}]"
            problems.append(Problem(f"row {i}: reward", f"{row.reward:g} is outside the declared range", fix))
        try:
            x.append(features.encode(layout, row.context).x)
        except InvalidRequest as refused:
            problems += [Problem(f"row {i}: {p.field}", p.problem, p.fix) for p in refused.problems]
        if len(problems) >= _MOST:
            break
    if problems:
        raise InvalidRequest(*problems)
    return np.array(x).reshape(-1, len(layout.columns)), [r.arm for r in rows], np.array([r.reward for r in rows])
