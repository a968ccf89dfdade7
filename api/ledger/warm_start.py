"""Warm start: what a log from before this service has taught, with a weight, as if it had been learned here first.

The log's sums stand in the ledger beside those of the settlements; each row counts `weight` ≤ 1 (a power prior, Ibrahim
& Chen 2000). It can be done once for a stage and schema. Decisions made before do not know of it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from api.ledger.statistics_store import key_of
from api.stores.learning_state import WarmStart
from api.stores.protocol import Store
from bandit import features
from bandit.arrays import Array
from bandit.belief import add, empty
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import Stage
from bandit.errors import InvalidRequest, LedgerMismatch, Problem
from bandit.features import Given
from bandit.learning.settlement import contribution, design_of_log, settlements_from_log
from bandit.snapshot import Snapshot

_BATCH = 1000
_MOST = 20  # mistakes that are named


class WarmStartRow(msgspec.Struct, frozen=True):
    """Row of a log: one decision's context, the arm that was shown, and the reward in its own units."""

    context: Mapping[str, Given]
    arm: str
    reward: float
    place: str = ""  # where it was logged, for messages


class WarmStartLog(NamedTuple):
    """Log that a stage can learn: n encoded contexts of d columns, with the arm and reward of each."""

    x: Array  # (n, d)
    arm: list[str]
    reward: Array  # (n,)


def checked(name: str, stage: Stage, rows: Sequence[WarmStartRow]) -> WarmStartLog:
    """Log of the rows, encoded as the stage declares. Raises InvalidRequest, which names up to twenty mistakes with
    their rows; also for a log without rows, and for a stage whose actions come with each request.
    """
    if stage.has_request_actions:
        problem = f"the actions of {name!r} come with each request"
        raise InvalidRequest(Problem("stage", problem, "warm a stage whose nudges are declared"))
    if not rows:
        raise InvalidRequest(Problem("log", "it has no rows, and a stage can be warmed once", "give a log with rows"))
    return _encoded(stage, rows)


def begin(store: Store, name: str, stage: Stage, log: WarmStartLog, *, weight: float, digest: str) -> WarmStart:
    """Learn the log, in its order, and keep its sums with their `weight` in (0, 1] in the ledger. `digest` identifies
    the log. The service must be stopped: the learner reads warm starts when it starts.

    Raises LedgerMismatch if a log was learned before under this schema.
    """
    key, rows = key_of(name, stage), stage.belief_rows(stage.arms)
    if store.warm_start(key, rows, log.x.shape[1]) is not None:
        raise LedgerMismatch(f"stage {name!r} was warmed before: declare a new schema number to begin anew")
    _, arm, reward = log
    x = design_of_log(stage, log.x, arm)
    belief = empty(len(rows), log.x.shape[1])
    for start in range(0, len(arm), _BATCH):
        part = slice(start, start + _BATCH)
        live = Snapshot("", name, stage, 0, belief)
        done = settlements_from_log(live, x[part], arm[part], reward[part])
        belief = add(belief, contribution(stage, done, x[part]))
    warm = WarmStart(weight=weight, rows=len(arm), digest=digest, since=store.last().decision + 1)
    store.put_warm_start(key, warm, rows, belief)
    return warm


def _encoded(stage: Stage, rows: Sequence[WarmStartRow]) -> WarmStartLog:
    layout, problems, x = features.schema(stage.features), list[Problem](), list[Array]()
    spec = stage.reward
    for i, row in enumerate(rows, 1):
        where = row.place or f"row {i}"
        if row.arm not in stage.arms:
            problems.append(Problem(f"{where}: arm", f"no arm {row.arm!r}", closest(row.arm, stage.arms)))
        if not spec.min <= row.reward <= spec.max:
            fix = f"a number in [{spec.min:g}, {spec.max:g}]"
            problems.append(Problem(f"{where}: reward", f"{row.reward:g} is outside the declared range", fix))
        try:
            x.append(features.encode(layout, row.context).x)
        except InvalidRequest as refused:
            problems += [Problem(f"{where}: {p.field}", p.problem, p.fix) for p in refused.problems]
        if len(problems) >= _MOST:
            break
    if problems:
        raise InvalidRequest(*problems)
    encoded = np.array(x).reshape(-1, len(layout.columns))
    return WarmStartLog(encoded, [r.arm for r in rows], np.array([r.reward for r in rows]))
