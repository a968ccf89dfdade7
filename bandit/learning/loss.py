"""Loss accounting of one stage: what its decisions exposed people to, and policies that carry an account of it.

The service's learner, audits and the simulator put the stage's decisions into an `ExposureLog`, and publish what
`accounted` returns. The account is a function of the decisions up to a number of the ledger, of the snapshot and of the
time, so that a receipt computes it again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import msgspec
import numpy as np

from bandit.arrays import Array
from bandit.catalogue.model import Stage
from bandit.engine import PreparedPolicy
from bandit.learning.loss_account import (
    CLOSED,
    DAY,
    RECENT,
    Evidence,
    Exposures,
    ExposureSums,
    LossAccount,
    account,
    first_day,
)
from bandit.learning.nudge_price import prices
from bandit.learning.recoding import recoded
from bandit.learning.settlement import propensities
from bandit.policies import Centred
from bandit.policies.protocol import ArmEconomics
from bandit.records import Decision


class ExposureLog:
    """Exposures of one stage so far: their exact sums, and the newest of them as they are. Mutable, of one thread.

    `names` are the arms that are known: the k declared ones in their order, then retired ones. `newest` are the latest
    RECENT decisions over the declared arms, None before any.
    """

    def __init__(self, stage: Stage, names: tuple[str, ...], d: int):
        self._stage, self.names = stage, names
        self.sums = ExposureSums.none(len(names), d)
        self.newest: Exposures | None = None

    def put(self, made: Exposures, declared: Stage | None = None) -> None:
        """Count decisions that were made under the stage as `declared`, by default as it is now. Their propensities are
        over the names.
        """
        self.sums = self.sums.plus(_economics(declared or self._stage, self.names), made)
        self.look_at(made)

    def take_back(self, made: Sequence[Decision], specs: Mapping[str, Stage]) -> None:
        """Count decisions that were counted before no longer, but for the time of the first and the days. If one of
        them may be among the newest, none of these is known any more (`newest` is None): look at them again.
        """
        for spec, mine in self._declared(made, specs):
            taken = exposures(mine, spec, self._stage, self.names)
            self.sums = self.sums.minus(_economics(spec, self.names), taken)
            if self.newest is not None and taken.at.max() >= self.newest.at.min():
                self.newest = None

    def look_at(self, made: Exposures) -> None:
        """Take decisions for the newest, without counting them: the sums have them already."""
        k = len(self._stage.arms)
        mine = made._replace(propensity=made.propensity[:, :k], eligible=made.eligible[:, :k])
        self.newest = _newest(mine) if self.newest is None else _newest(_joined(self.newest, mine))

    def put_decisions(self, made: Sequence[Decision], specs: Mapping[str, Stage]) -> None:
        """Count the decisions of the ledger among `made` that count (`counts`), each as it was declared: `specs` holds
        declarations by digest.
        """
        for spec, mine in self._declared(made, specs):
            self.put(exposures(mine, spec, self._stage, self.names), spec)

    def look_at_decisions(self, made: Sequence[Decision], specs: Mapping[str, Stage]) -> None:
        """Take decisions of the ledger, in order, for the newest, without counting them."""
        for spec, mine in self._declared(made, specs):
            self.look_at(exposures(mine, spec, self._stage, self.names))

    def _declared(self, made: Sequence[Decision], specs: Mapping[str, Stage]) -> Iterator[tuple[Stage, list[Decision]]]:
        """The decisions that count, in order, in runs made under one declaration."""
        for digest, run in groupby(made, key=lambda decision: decision.stage_digest):
            spec = specs[digest]
            if mine := [d for d in run if counts(d, spec, self._stage)]:
                yield spec, mine

    def accounted(self, live: PreparedPolicy, now: int, day: float = DAY) -> PreparedPolicy:
        """Prepared policy whose snapshot carries the loss account at time `now` (µs), `live` itself where the stage
        declares no loss. `day`: µs in a day of the app's clock.
        """
        snapshot = live.snapshot
        stage, loss = snapshot.stage_spec, snapshot.stage_spec.loss_share
        if loss is None or not isinstance(stage.policy, Centred):
            return live
        if self.newest is None:
            return with_account(live, first_day(stage.loss_rule))
        ahead = live.posterior.choose_many(self.newest.x, self.newest.eligible)
        asked = self.newest._replace(propensity=ahead.propensity, baseline=np.asarray(ahead.mean[:, 0]))
        sums = self.sums._replace(effect=self.sums.effect[: len(stage.arms)])
        rule, price = stage.loss_rule, prices(snapshot.nudge_price, stage.policy.prior_mean)
        charged = price.account if rule == "kept" else price.policy
        known = Evidence(snapshot.undiscounted_evidence, snapshot.evidence)
        found = account(stage.policy, snapshot.arms, known, sums, asked, loss, rule, charged, now, day)
        return with_account(live, found)


def _joined(one: Exposures, other: Exposures) -> Exposures:
    return Exposures(
        np.concatenate([one.x, other.x]),
        np.concatenate([one.propensity, other.propensity]),
        np.concatenate([one.baseline, other.baseline]),
        np.concatenate([one.eligible, other.eligible]),
        np.concatenate([one.at, other.at]),
        np.concatenate([one.day, other.day]),
    )


def _newest(made: Exposures) -> Exposures:
    return Exposures._make(part[-RECENT:] for part in made)


def day_of(stage: Stage, window: int) -> float:
    """Length of a day in µs on the clock on which the stage's attribution window lasts `window` µs."""
    return DAY * (window / (stage.reward.seconds * 1e6))


def closed(live: PreparedPolicy) -> PreparedPolicy:
    """Prepared policy that decides nothing until an account was made, where the stage declares a loss; else `live`."""
    return live if live.snapshot.stage_spec.loss_share is None else with_account(live, CLOSED)


def with_account(live: PreparedPolicy, found: LossAccount) -> PreparedPolicy:
    """Prepared policy whose snapshot carries the account."""
    return live._replace(snapshot=msgspec.structs.replace(live.snapshot, loss_account=found))


def counts(decision: Decision, spec: Stage, live: Stage) -> bool:
    """Whether a decision made under `spec` is one that the account of the stage as it is now is about: not of the
    control group, at a moment that held, within its user's contribution limit, under the same schema. One user who asks
    without end earns the stage no more to lose.
    """
    return decision.is_actionable and not decision.holdout and decision.contribution > 0 and spec.schema == live.schema


def exposures(made: Sequence[Decision], spec: Stage, live: Stage, names: tuple[str, ...]) -> Exposures:
    """Exposures of decisions made under `spec`, over the arms `names`, their contexts as `live` encodes them."""
    known = set(spec.arms)
    long = {window: day_of(spec, window) for window in {d.expires - d.at for d in made}}
    refused = {tuple(d.excluded) for d in made}
    may = {some: [arm in known and arm not in some for arm in names] for some in refused}
    return Exposures(
        x=recoded(np.array([d.x for d in made]), spec, live),
        propensity=propensities(made, spec.arms, names),
        baseline=np.array([float(d.mean[0]) for d in made]),
        eligible=np.array([may[tuple(d.excluded)] for d in made]),
        at=np.array([d.at for d in made], dtype=np.int64),
        day=np.array([math.floor(d.at / long[d.expires - d.at]) for d in made], dtype=np.int64),
    )


def _economics(spec: Stage, names: tuple[str, ...]) -> ArmEconomics:
    """Gains and costs of the arms `names` under a declaration; of an arm that it does not have, those of no nudge."""
    own = spec.arm_economics
    place = [own.names.index(name) if name in own.names else 0 for name in names]
    price = None if own.price is None else _taken(own.price, place)
    return ArmEconomics(names, tuple(own.kinds[i] for i in place), own.gain[place], own.cost[place], price=price)


def _taken(values: Array, place: list[int]) -> Array:
    return np.asarray(values[place], dtype=np.float64)
