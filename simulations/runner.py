"""Scenario × policy × seed → log and summary. The policy code is the service's own; the people are `population`'s.

Time goes in steps of a day. Within a step each user decides at most once, all users of a stage at once with one
snapshot; then what matured is learned, and the next snapshot is published. A run is a function of its `Cell`: of
nothing that ran before it, and of no other run.

Shapes: n decisions, k arms, Z personas.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import engine, propensity
from bandit.catalogue import Catalogue, Stage, parse, read_shipped
from bandit.engine import Live
from bandit.guardrails import Proof, eligible
from bandit.log import Array
from bandit.policies.protocol import Scores
from simulations.contenders import Contender, contender
from simulations.dynamics import Crowd, Mask, Noise, Rows, noise, traits
from simulations.learning import Brain, Matured
from simulations.population import Population, Situation
from simulations.scenario import Scenario, check_journey

EPOCH = 1_767_571_200_000_000  # µs: a run begins on Monday, 5 January 2026, 0:00 UTC
_DAY = 86_400_000_000
_SAMPLE = 2000
_AGES = 24  # buckets of the delay curve, over the attribution window


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run depends on. `journey`: people walk through all stages, else they return to the rich one."""

    scenario: Scenario
    policy: str
    users: int
    days: int
    seed: int
    journey: bool = False
    holdout: float = 0.0

    def digest(self) -> str:
        """Names the run: equal cells give equal logs."""
        return hashlib.sha256(msgspec.json.encode(self) + _VERSION).hexdigest()[:16]


_VERSION = b"1"  # raise it when the same cell would run otherwise


class Decided(NamedTuple):
    """Decisions of one stage in one step, and what became of them."""

    stage: str
    user: NDArray[np.int64]
    at: NDArray[np.int64]  # µs
    version: int
    x: Array  # (n, d)
    arm: NDArray[np.intp]
    reward: Array  # (n,) within the window
    delay: Array  # (n,) seconds to the reward, whenever it comes; NaN if never
    position: Array  # (n, f) features before they were encoded
    propensities: Array  # (n, k)
    mean: Array  # (n, k) q̂ in [0, 1] units
    holdout: Mask
    truth: Array  # (n, k) exact expected net value of each arm for this very person, in currency
    regret: Array  # (n,) exact, given what can be seen: best eligible arm less the one shown


class Sink(Protocol):
    """Takes the decisions of each step, in order."""

    def write(self, rows: Decided) -> None:
        """One stage's decisions of one step."""
        ...


class Tally(msgspec.Struct):
    """Sums of one stage by day, lists of D; `shown` is (Z, k), `ages` the delays of rewards in parts of the window."""

    arms: list[str]
    personas: list[str]
    decisions: list[int]
    regret: list[float]
    value: list[float]  # expected net value of what was shown, for these very people
    none: list[float]  # … of no nudge
    net: list[float]  # realised
    rewards: list[float]
    nudged: list[int]
    fatigue: list[float]  # Σ F
    by_day: list[list[int]]  # (D, k) shown
    shown: list[list[int]]  # (Z, k)
    value_by_persona: list[float]
    none_by_persona: list[float]
    rewards_by_persona: list[float]
    rate_none_by_persona: list[float]  # expected rewards without a nudge
    decisions_by_persona: list[int]
    ages: list[int]
    propensities: list[float]  # of the first decisions of each day, as a sample
    excess: float = 0.0  # Σ (truth − value given what can be seen) of what was shown: who returns is selected
    realised: float = 0.0  # Σ (realised − expected)
    variance: float = 0.0  # of that sum


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a run leaves: sums by stage, digest of its log, users lost."""

    label: str
    seed: int
    users: int
    days: int
    digest: str
    stages: dict[str, Tally]
    opted_out: list[float]  # share of users who had arrived, by day
    alarms: dict[str, int]


Progress = Callable[[int], object]


def run(cell: Cell, sink: Sink | None = None, progress: Progress = lambda _: None) -> Done:
    """Run one cell. CatalogueError or InvalidRequest, before any step, for a cell that cannot be run."""
    made = Run(cell, sink)
    for step in range(cell.days):
        progress(made.step(step))
    return made.done()


class Run:
    """A cell under way."""

    def __init__(self, cell: Cell, sink: Sink | None = None):
        catalogue = parse(read_shipped(cell.scenario.app))
        self.cell, self._sink = cell, sink
        self._who = contender(cell.policy, {arm for stage in catalogue.stages.values() for arm in stage.arms})
        stages = _stages(cell, catalogue, self._who)
        self.populations = [Population(cell.scenario, stage, name) for name, stage in stages.items()]
        self.brain = Brain(catalogue.app, stages)
        born = traits(cell.scenario, cell.seed, cell.users, float(cell.days), cell.holdout)
        self.crowd = Crowd(cell.scenario, born, tuple(stages), dict(cell.scenario.journey) if cell.journey else {})
        self._masks = [_Masks(p.stage, p.coupon) for p in self.populations]
        self._waiting: deque[tuple[float, str, Matured]] = deque()
        self._sizes = max(p.normals for p in self.populations), max(p.uniforms for p in self.populations)
        self._tallies = {p.name: _tally(p) for p in self.populations}
        self._sha = hashlib.sha256()
        self._opted_out: list[float] = []

    def step(self, step: int) -> int:
        """One day: learn what has matured, then decide for who comes; how many decisions that were."""
        self._learn(float(step))
        total = 0
        for place in range(len(self.populations)):
            rows = self.crowd.visiting(place, step)
            total += len(rows)
            self._visit(place, rows, step)
        here = self.crowd.traits.arrives < step + 1
        self._opted_out.append(float(self.crowd.opted_out[here].mean()) if here.any() else 0.0)
        return total

    def done(self) -> Done:
        """The summary so far."""
        alarms = {name: watch.epoch for name, watch in self.brain.watches.items()}
        cell = self.cell
        return Done(
            label=self._who.label,
            seed=cell.seed,
            users=cell.users,
            days=cell.days,
            digest=self._sha.hexdigest(),
            stages=self._tallies,
            opted_out=self._opted_out,
            alarms=alarms,
        )

    def _learn(self, now: float) -> None:
        ripe: dict[str, list[Matured]] = {}
        kept = deque[tuple[float, str, Matured]]()
        for entry in self._waiting:
            if entry[0] <= now:
                ripe.setdefault(entry[1], []).append(entry[2])
            else:
                kept.append(entry)
        self._waiting = kept
        joined = {
            name: Matured(*(np.concatenate(part) for part in zip(*parts, strict=True))) for name, parts in ripe.items()
        }
        self.brain.learn(joined, EPOCH + int(now * _DAY))

    def _visit(self, place: int, rows: Rows, step: int) -> None:
        people, born = self.populations[place], self.crowd.traits
        chance = noise(self.cell.seed, step, rows, *self._sizes)
        found, persona = self.crowd.situation(rows, float(step)), born.persona[rows]
        position = people.positions(persona, chance.normal, chance.uniform)
        held = born.holdout[rows]
        mask = self._masks[place].of(
            deadline=chance.proof[:, 0] < people.proof("deadline"),
            stock=chance.proof[:, 1] < people.proof("stock"),
            capped=self.crowd.capped(rows, float(step)),
            out=self.crowd.opted_out[rows] | held,
        )
        value = people.utility(people.rate(position, found))
        live, x = self.brain.lives[people.name], people.x(position)
        scores = self._scores(live, x, mask, value)
        arm = propensity.draw_many(scores.propensity, chance.draw)
        own = people.chance(persona, born.effect[rows], position, found)
        delay = people.delay(chance.delay)
        each = np.arange(len(rows))
        happened = chance.reward < own[each, arm]
        in_time = happened & (delay[each, arm] <= people.stage.reward.seconds)
        made = Decided(
            stage=people.name,
            user=rows.astype(np.int64),
            at=EPOCH + step * _DAY + each,
            version=live.snapshot.version,
            x=x,
            arm=arm,
            reward=people.amount * in_time,
            delay=np.where(happened, delay[each, arm], np.nan),
            position=position,
            propensities=scores.propensity,
            mean=scores.mean,
            holdout=held,
            truth=people.utility(own * people.within * people.amount),
            regret=np.where(mask, value, -np.inf).max(axis=1, initial=-np.inf) - value[each, arm],
        )
        self._count(people, made, persona, found, value, delay[each, arm][in_time], own[:, 0] * people.within[0])
        learned = ~held
        shown = scores.mean[each, arm], scores.sd[each, arm], np.full(len(rows), live.snapshot.version)
        matured = Matured(*(part[learned] for part in (x, arm, made.reward, *shown)))
        self._waiting.append((step + people.stage.reward.seconds / 86400.0, people.name, matured))
        nudged = arm > 0
        self.crowd.after(rows, found, nudged=nudged, coupon=people.coupon[arm], reward=happened, chance=chance)
        for part in (made.user, made.arm, made.reward, made.propensities, made.truth):
            self._sha.update(np.ascontiguousarray(part).tobytes())
        if self._sink is not None and len(rows):
            self._sink.write(made)

    def _scores(self, live: Live, x: Array, mask: Mask, value: Array) -> Scores:
        if not self._who.oracle:
            return engine.choose_many(live, x, mask)
        priced = value - self._who.price * (np.arange(value.shape[1]) > 0)
        best = np.where(mask, priced, -np.inf).argmax(axis=1) if len(x) else np.zeros(0, dtype=np.intp)
        nothing = np.zeros(value.shape)
        return Scores(nothing, nothing, np.eye(value.shape[1])[best])

    def _count(
        self,
        people: Population,
        made: Decided,
        persona: NDArray[np.intp],
        found: Situation,
        value: Array,
        delays: Array,
        rate_none: Array,
    ) -> None:
        """Add the step to the sums. Holdout decisions are left out."""
        t, on = self._tallies[people.name], ~made.holdout
        each, arm, k, zs = np.flatnonzero(on), made.arm[on], len(people.stage.arms), len(people.weights)
        expected, none, who = made.truth[each, arm], made.truth[each, 0], persona[on]
        net = made.reward[on] * people.kept[arm] - people.shown[arm]
        chance = np.clip((expected + people.shown[arm]) / (people.kept[arm] * people.amount), 0.0, 1.0)
        for name, number in (("decisions", len(arm)), ("nudged", int((arm > 0).sum()))):
            getattr(t, name).append(number)
        sums = {
            "regret": made.regret[on],
            "value": expected,
            "none": none,
            "net": net,
            "rewards": made.reward[on],
            "fatigue": found.fatigue[on],
        }
        for name, values in sums.items():
            getattr(t, name).append(float(values.sum()))
        t.by_day.append(np.bincount(arm, minlength=k).tolist())
        t.shown = (np.array(t.shown) + np.bincount(who * k + arm, minlength=zs * k).reshape(zs, k)).tolist()
        for name, weight in (
            ("value_by_persona", expected),
            ("none_by_persona", none),
            ("rewards_by_persona", made.reward[on]),
            ("rate_none_by_persona", rate_none[on] * people.amount),
        ):
            setattr(t, name, (np.array(getattr(t, name)) + np.bincount(who, weight, minlength=zs)).tolist())
        t.decisions_by_persona = (np.array(t.decisions_by_persona) + np.bincount(who, minlength=zs)).tolist()
        part = (delays / people.stage.reward.seconds * _AGES).astype(np.intp)
        t.ages = (np.array(t.ages) + np.bincount(np.minimum(part, _AGES - 1), minlength=_AGES)).tolist()
        t.propensities += made.propensities[each, arm][: max(1, _SAMPLE // self.cell.days)].tolist()
        t.excess += float((expected - value[each, arm]).sum())
        t.realised += float((net - expected).sum())
        t.variance += float((chance * (1.0 - chance) * (people.kept[arm] * people.amount) ** 2).sum())


class _Masks:
    """Eligible arms by what a visit brings, decided by the service's own guardrails, once for each combination."""

    def __init__(self, stage: Stage, coupon: Mask):
        self._stage = stage
        self._coupons = [arm for arm, is_coupon in zip(stage.arms, coupon, strict=True) if is_coupon]
        bits = [tuple(bool(number >> b & 1) for b in range(4)) for number in range(16)]
        self._table = np.array([self._row(*b) for b in bits])

    def of(self, *, deadline: Mask, stock: Mask, capped: Mask, out: Mask) -> Mask:
        """(n, k)"""
        return np.asarray(self._table[deadline + 2 * stock + 4 * capped + 8 * out])

    def _row(self, deadline: bool, stock: bool, capped: bool, out: bool) -> Mask:
        proof = Proof(stock=1 if stock else None, deadline=2**60 if deadline else None)
        exclude = self._coupons if capped else []
        return eligible(
            self._stage, holdout=out, proof=proof, include=None, exclude=exclude, refused={}, now=EPOCH
        ).mask


def _stages(cell: Cell, catalogue: Catalogue, who: Contender) -> dict[str, Stage]:
    if cell.journey:
        check_journey(cell.scenario, catalogue)
    names = tuple(catalogue.stages) if cell.journey else (cell.scenario.stage,)
    return {name: who.stage(catalogue.stage(name), cell.holdout) for name in names}


def _tally(people: Population) -> Tally:
    zs, k = len(people.weights), len(people.stage.arms)
    fields: dict[str, Any] = {f: [] for f in Tally.__struct_fields__ if f not in ("excess", "realised", "variance")}
    fields |= {f: [0] * zs for f in fields if f.endswith("_by_persona")}
    fields |= {"arms": list(people.stage.arms), "personas": list(people.personas), "shown": [[0] * k] * zs}
    return Tally(**fields | {"ages": [0] * _AGES})
