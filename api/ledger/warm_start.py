"""Warm start: what a log from before has taught, with a weight, as if it had been learned here first: a table from
before this service (`begin`), or the decisions of the stage's own earlier schema (`resumed`).

The log's sums stand in the ledger beside those of the settlements; each row counts `weight` ≤ 1 (a power prior, Ibrahim
& Chen 2000). It can be done once for a stage and schema. Decisions made before do not know of it.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np

from api.ledger.statistics_store import key_of, settled
from api.stores.learning_state import WarmStart
from api.stores.protocol import Store
from bandit import features
from bandit.arrays import Array
from bandit.belief import Belief, add, empty
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import Stage
from bandit.errors import InvalidRequest, LedgerMismatch, Problem
from bandit.features import Given
from bandit.learning import drift
from bandit.learning.settlement import contribution, design_of_log, settlements_from_log
from bandit.learning.statistics import SettledRows, nothing, settled_rows
from bandit.snapshot import Snapshot

_BATCH = 1000
_MOST = 20  # mistakes that are named
_DIGEST = "schema {} of this ledger"  # in a log's place, where the ledger's own decisions are


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


def resumed(store: Store, name: str, was: Stage, stage: Stage) -> tuple[WarmStart, Belief] | None:
    """Warm start of a stage by the decisions of its earlier schema, in their order, as the policy of `stage` learns
    them, and its sums; weight 1. Where drift was found, only what settled after it. `was`: the stage as it was last
    served, which it continues. None if there is nothing to learn, or the stage is warm already. Reads only; `claim`
    writes it with the declaration that it belongs to.
    """
    if store.warm_start(key_of(name, stage), stage.belief_rows(stage.arms), nothing(stage).d) is not None:
        return None
    belief, learned = _from_earlier(store, name, was, stage, None)
    if not learned:
        return None
    digest, since = _DIGEST.format(was.schema), store.last().decision + 1
    return WarmStart(weight=1.0, rows=learned, digest=digest, since=since), belief


def again(store: Store, stages: Mapping[str, Stage]) -> dict[str, tuple[WarmStart, Belief]]:
    """Warm starts of the stages that began with the decisions of an earlier schema, by stage, learned again from those
    that are left: for an erasure that has forgotten some. Takes time in proportion to the ledger; reads only, from any
    thread.
    """
    found, specs = dict[str, tuple[WarmStart, Belief]](), store.specs()
    for name, stage in stages.items():
        key = key_of(name, stage)
        begun = store.warm_start(key, stage.belief_rows(stage.arms), nothing(stage).d)
        if begun is None:
            continue
        eras = [specs[era.digests[name]] for era in store.declarations().eras if name in era.digests]
        earlier = [was for was in eras if _DIGEST.format(was.schema) == begun[0].digest]
        if earlier:
            belief, learned = _from_earlier(store, name, earlier[-1], stage, store.first_settlement(key))
            found[name] = msgspec.structs.replace(begun[0], rows=learned), belief
    return found


def _from_earlier(store: Store, name: str, was: Stage, stage: Stage, through: int | None) -> tuple[Belief, int]:
    """What the decisions of the stage as it `was` teach the stage, and how many there are: those settled by number
    `through` of the ledger, or so far.
    """
    known, learned = nothing(stage), 0
    key, specs = key_of(name, was), store.specs()
    state = store.statistics(key, (), 0).drift_state
    log = settled(store, name, store.first_settlement(key), through)
    belief = empty(len(stage.belief_rows(stage.arms)), known.d)
    while batch := list(islice(log, _BATCH)):
        part = settled_rows(known, batch, specs)
        part = part.only(drift.epochs_of(state, part.seq) == state.epoch)
        belief, learned = _taught(name, stage, belief, part), learned + len(part.seq)
    return belief, learned


def _taught(name: str, stage: Stage, belief: Belief, rows: SettledRows) -> Belief:
    """Belief after these rows as well, with the sites that the stage's policy gives them."""
    live, learner = Snapshot("", name, stage, 0, belief), stage.learner
    x = learner.design(rows.x, rows.arm, rows.propensity)
    tau, nu = learner.sites(live.belief, live.arms, x, rows.arm, rows.reward)
    return add(belief, learner.sums(len(stage.arms), x, rows.arm, tau, nu, rows.reward))


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
