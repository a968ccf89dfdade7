"""Runner: scenario × policy × seed → log and summary. The policy code is the service's own; the people are
`population`'s.

Time goes in steps of a day. Within a step each user decides at most once, all users of a stage at once with one
snapshot; before that, what has matured is learned and the next snapshot is published. A run is a function of its
`SimulationCell`: of nothing that ran before it, and of no other run.

Shapes: n decisions, k arms, f features, d columns of x.
"""

import functools
import hashlib
import importlib.metadata
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import engine
from bandit.arrays import Array, Mask
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue, Stage
from bandit.engine import PreparedPolicy
from bandit.guardrails import ClaimEvidence, eligible
from bandit.learning.holdout_audit import PersonTotals
from bandit.learning.nudge_price import NudgePrice
from bandit.policies import registry
from bandit.policies.protocol import Scores
from bandit.propensity.draw import draw_many
from simulations.contenders.playing import PlayingContender
from simulations.contenders.protocol import DecisionStage
from simulations.dynamics import PersonNoise, PopulationState, Rows, noise, traits
from simulations.offline import run_summary
from simulations.offline.learner import LearningRows, SimulatedLearner
from simulations.offline.policy_specs import PolicySpec, contender_spec, policy_spec
from simulations.offline.run_summary import RunSummary, VisitSummary
from simulations.population import Population
from simulations.scenario import Scenario, check_journey
from simulations.visits import Kinds, VisitSituation

EPOCH = 1_767_571_200_000_000
"""µs: a run begins on Monday, 5 January 2026, 0:00 UTC."""

DAY = 86_400_000_000
"""µs of a step."""

_VERSION = b"6"  # raise it when the same cell would run otherwise


class SimulationCell(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation run as a value: everything that the run depends on.

    `policy`: a specification as in `policy_specs`. `users`: how many people there are; `days`: how many steps.
    `journey`: people walk through all stages, else they return to the rich one. `holdout`: share of users in the
    control group. `catalogue`: TOML of the app's catalogue, "" for the shipped one of the scenario's app. `code`: what
    a contender is made from, so that a changed file or library runs anew. `environment`: what makes the visits in place
    of the scenario's people (`python:FILE.py:NAME`); of the scenario then count only `app` and `stage`.
    """

    scenario: Scenario
    policy: str
    users: int
    days: int
    seed: int
    journey: bool = False
    holdout: float = 0.0
    catalogue: str = ""
    code: str = ""
    environment: str = ""

    @property
    def declared(self) -> Catalogue:
        """The app's catalogue. Raises CatalogueError for mistakes in it, NotFound if the app's is not shipped."""
        return _catalogue(self.catalogue or read_shipped(self.scenario.app), f"catalogue of {self.scenario.app}")

    def digest(self) -> str:
        """Name of the run, 16 hexadecimal digits: equal cells give equal logs. A version number of the runner is part
        of it, raised when the same cell would run otherwise.
        """
        return hashlib.sha256(msgspec.json.encode(self) + _VERSION).hexdigest()[:16]


@functools.lru_cache(maxsize=16)
def _catalogue(text: str, name: str) -> Catalogue:
    registry.search(importlib.metadata.entry_points)  # a worker process knows no installed policies yet
    return parse(text, name)


class StepDecisions(NamedTuple):
    """The n decisions of one stage in one step, and what became of them. Propensities, truth and regret are exact."""

    stage: str
    user: NDArray[np.int64]  # (n,) numbers from 0
    at: NDArray[np.int64]  # (n,) µs since 1970
    version: int  # of the snapshot that decided
    position: Array  # (n, f) features before they were encoded
    x: Array  # (n, d)
    arm: NDArray[np.intp]  # (n,) number of what was shown
    reward: Array  # (n,) within the window, in its own units
    delay: Array  # (n,) seconds to the reward, also after the window; NaN if it never comes
    propensities: Array  # (n, k)
    mean: Array  # (n, k) q̂ in [0, 1] units
    holdout: Mask  # (n,)
    truth: Array  # (n, k) exact expected net value of each arm for this very person, in currency
    regret: Array  # (n,) exact, given what can be seen: best eligible arm less the one shown


class DecisionSink(Protocol):
    """Takes the decisions of each step, in order, e.g. to write them to files. The arrays must not be changed."""

    def write(self, rows: StepDecisions) -> None:
        """Take one stage's decisions of one step. Called in order of steps, for each stage that has decisions."""
        ...


class CellOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a run: sums by stage, hexadecimal digest of its decisions, share of users who opted out by the end of
    each day, and drift alarms by stage; the learned price of a nudge, of stages that learn one; and realised net value
    of people outside the holdout and in it, all stages together.
    """

    label: str  # of the policy specification
    seed: int
    users: int
    days: int
    digest: str
    stages: dict[str, RunSummary]  # stage → sums
    opted_out: list[float]  # (D,) share of those who have arrived
    alarms: dict[str, int]  # stage → drift alarms
    prices: dict[str, NudgePrice] = {}  # stage → price, in units of the reward's range
    nudged: PersonTotals = PersonTotals()
    holdout: PersonTotals = PersonTotals()


class _Visit(NamedTuple):
    """The visits of one step at one stage: who comes, and what they bring; (n,) each unless said."""

    people: Population
    rows: Rows
    persona: Kinds
    effect: Array
    found: VisitSituation
    chance: PersonNoise
    position: Array
    held: Mask
    mask: Mask
    value: Array  # (n, k) expected net value given what can be seen


def run(
    cell: SimulationCell, sink: DecisionSink | None = None, progress: Callable[[int], object] = lambda _: None
) -> CellOutcome:
    """Run one cell to its end. `sink` takes the decisions; `progress` is called with the number of decisions of each
    step.

    Raises CatalogueError or InvalidRequest, before any step, for a cell that cannot be run.
    """
    made = CellRun(cell, sink)
    for step in range(cell.days):
        progress(made.step(step))
    return made.done()


def check(cell: SimulationCell) -> None:
    """Check a cell before anything runs. Raises InvalidRequest for a policy, arm or setting that cannot be run."""
    _stages(cell, cell.declared, chosen(cell))


def chosen(cell: SimulationCell) -> PolicySpec:
    """The policy of a cell. Raises InvalidRequest for one that is not known."""
    return policy_spec(cell.policy, {arm for stage in cell.declared.stages.values() for arm in stage.arms})


class CellRun:
    """A cell under way, step by step. `run` and `study.play` drive it; tests look at `populations`, `brain` (the
    learner) and `crowd` (the state of all users) between steps.

    Guarantees: it is a function of the cell alone; the policy, its guardrails and its learning are the service's own
    code; what a policy shows changes nothing but what its users do later. It belongs to one thread. Making one raises
    CatalogueError or InvalidRequest for a cell that cannot be run. `contender`: a rule or what makes a contender, which
    plays under the name of the cell's policy.

        run = CellRun(cell)
        for day in range(cell.days):
            run.step(day)
        outcome = run.done()
    """

    def __init__(self, cell: SimulationCell, sink: DecisionSink | None = None, contender: Any = None):
        catalogue = cell.declared
        self.cell, self._sink = cell, sink
        self._who = chosen(cell) if contender is None else contender_spec(cell.policy)
        stages = _stages(cell, catalogue, self._who)
        self.populations = [Population(cell.scenario, stage, name) for name, stage in stages.items()]
        self.brain = SimulatedLearner(catalogue.app, stages)
        born = traits(cell.scenario, cell.seed, cell.users, float(cell.days), cell.holdout)
        self.crowd = PopulationState(
            cell.scenario, born, tuple(stages), dict(cell.scenario.journey) if cell.journey else {}
        )
        self._masks = [_EligibilityMasks(p.stage, p.coupon) for p in self.populations]
        self._sizes = max(p.normals for p in self.populations), max(p.uniforms for p in self.populations)
        self._tallies = {p.name: run_summary.empty_summary(p) for p in self.populations}
        self._sha = hashlib.sha256()
        self._opted_out: list[float] = []
        self._brought, self._came = np.zeros(cell.users), np.zeros(cell.users, dtype=bool)
        self._places = {name: place for place, name in enumerate(stages)}
        self._contender: PlayingContender | None = None
        if self._who.contender:
            told = tuple(_told(people) for people in self.populations)
            self._contender = PlayingContender(cell.policy, told, cell.seed, contender)

    def step(self, step: int) -> int:
        """Run one day: learn what has matured, then decide for who comes. Returns how many decisions that were. Steps
        are 0, 1, … in order.
        """
        self.brain.tick(EPOCH + step * DAY)
        if self._contender is not None:
            self._contender.tick(EPOCH + step * DAY)
        total = 0
        for place in range(len(self.populations)):
            visit = self._visit(place, step)
            self._decide_and_apply(visit, step)
            total += len(visit.rows)
        here = self.crowd.traits.arrives < step + 1
        self._opted_out.append(float(self.crowd.opted_out[here].mean()) if here.any() else 0.0)
        return total

    def done(self) -> CellOutcome:
        """The outcome of the steps so far. The summaries in it are the run's own and go on growing."""
        held, came = self.crowd.traits.holdout, self._came
        return CellOutcome(
            label=self._who.label,
            seed=self.cell.seed,
            users=self.cell.users,
            days=self.cell.days,
            digest=self._sha.hexdigest(),
            stages=self._tallies,
            opted_out=self._opted_out,
            alarms=self.brain.alarms,
            prices=self.brain.prices,
            nudged=PersonTotals.of(self._brought[came & ~held]),
            holdout=PersonTotals.of(self._brought[came & held]),
        )

    def _visit(self, place: int, step: int) -> _Visit:
        people, born, rows = self.populations[place], self.crowd.traits, self.crowd.visiting(place, step)
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
        return _Visit(people, rows, persona, born.effect[rows], found, chance, position, held, mask, value)

    def _decide_and_apply(self, visit: _Visit, step: int) -> None:
        """Decide for the visits, let the outcome happen, and hand both to the summary, to learning, to the state of the
        users and to the sink.
        """
        people, rows, found, chance = visit.people, visit.rows, visit.found, visit.chance
        live, x = self.brain.prepared[people.name], people.x(visit.position)
        scores = self._scores(live, x, visit)
        arm, each = draw_many(scores.propensity, chance.draw), np.arange(len(rows))
        own = people.chance(visit.persona, visit.effect, visit.position, found)
        happens, delay = chance.reward < own[each, arm], people.delay(chance.delay)[each, arm]
        best = np.where(visit.mask, visit.value, -np.inf).max(axis=1)
        made = StepDecisions(
            stage=people.name,
            user=rows.astype(np.int64),
            at=EPOCH + step * DAY + each,
            version=live.snapshot.version,
            position=visit.position,
            x=x,
            arm=arm,
            reward=np.where(happens & (delay <= people.stage.reward.seconds), people.amount, 0.0),
            delay=np.where(happens, delay, np.nan),
            propensities=scores.propensity,
            mean=scores.mean,
            holdout=visit.held,
            truth=people.utility(own * people.within * people.amount),
            regret=best - visit.value[each, arm],
        )
        before = self.crowd.opted_out[rows]
        self.crowd.after(rows, found, nudged=arm > 0, coupon=people.coupon[arm], reward=happens, chance=chance)
        self._record(made, visit, scores.sd[each, arm], self.crowd.opted_out[rows] & ~before)

    def _record(self, made: StepDecisions, visit: _Visit, sd: Array, opted_out: Mask) -> None:
        self._brought[made.user] += visit.people.worth.net(made.reward, made.arm)
        self._came[made.user] = True
        on = np.flatnonzero(~made.holdout)
        arm = made.arm[on]
        seen = VisitSummary(
            arm=arm,
            persona=visit.persona[on],
            truth=made.truth[on],
            visible=visit.value[on, arm],
            regret=made.regret[on],
            reward=made.reward[on],
            delay=made.delay[on],
            fatigue=visit.found.fatigue[on],
            propensity=made.propensities[on, arm],
        )
        run_summary.add_step(self._tallies[made.stage], visit.people, seen, self.cell.days)
        rows = learning_rows(visit.people.stage, made, on, sd, visit.mask, opted_out, made.reward > 0.0)
        if self._contender is None:
            self.brain.put(made.stage, rows)
        else:
            self._contender.put(self._places[made.stage], rows.x, rows.arm, rows.reward, rows.expires)
        for part in (made.user, made.arm, made.reward, made.propensities, made.truth):
            self._sha.update(np.ascontiguousarray(part).tobytes())
        if self._sink is not None and len(made.user):
            self._sink.write(made)

    def _scores(self, live: PreparedPolicy, x: Array, visit: _Visit) -> Scores:
        if self._contender is not None:
            return self._asked(self._contender, x, visit)
        if not self._who.oracle:
            return engine.choose_many(live, x, visit.mask)
        priced = visit.value - self._who.price * (np.arange(visit.value.shape[1]) > 0)
        best = np.where(visit.mask, priced, -np.inf).argmax(axis=1)
        nothing = np.zeros(priced.shape)
        return Scores(nothing, nothing, np.eye(priced.shape[1])[best])

    def _asked(self, contender: PlayingContender, x: Array, visit: _Visit) -> Scores:
        """What the contender answers; it expects nothing of any arm, as far as a log can tell."""

        def contexts(rows: Mask) -> list[dict[str, Any]]:
            return visit.people.contexts(visit.position[rows])

        place, none = self._places[visit.people.name], np.zeros(visit.mask.shape)
        return Scores(none, none, contender.propensities(place, x, visit.mask, ~visit.held, contexts))


def learning_rows(
    stage: Stage, made: StepDecisions, on: Rows, sd: Array, mask: Mask, opted_out: Mask, answered: Mask
) -> LearningRows:
    """Learning rows of the decisions `on` (m,), those outside the holdout: what the service would know of them once
    their rewards have come or their windows have ended. `sd` (n,) of what was shown, `mask` (n, k) what could be,
    `opted_out` (n,); `answered` (n,): whether a reward is reported, be it 0.
    """
    spec, arm, at = stage.reward, made.arm[on], made.at[on]
    waited = np.nan_to_num(made.delay[on] * 1e6).astype(np.int64)
    return LearningRows(
        x=made.x[on],
        arm=arm,
        reward=(np.clip(made.reward[on], spec.min, spec.max) - spec.min) / (spec.max - spec.min),
        mean=made.mean[on, arm],
        sd=sd[on],
        version=np.full(len(on), made.version, dtype=np.int64),
        at=at,
        expires=at + round(spec.seconds * 1e6),
        answered=np.where(answered[on], at + np.maximum(waited, 1), 0),
        propensity=made.propensities[on],
        baseline=made.mean[on, 0],
        eligible=mask[on],
        user=made.user[on],
        opted_out=opted_out[on],
    )


def _told(people: Population) -> DecisionStage:
    """What a contender is told of a stage."""
    spec = people.stage
    columns = people.x(np.zeros((1, len(spec.features)))).shape[1]
    return DecisionStage(people.name, spec.arm_economics, columns, spec.reward.seconds)


class _EligibilityMasks:
    """Eligible arms by what a visit brings, decided by the service's own guardrails, once for each combination."""

    def __init__(self, stage: Stage, coupon: Mask):
        self._stage = stage
        self._coupons = [arm for arm, is_coupon in zip(stage.arms, coupon, strict=True) if is_coupon]
        self._table = np.array([self._row(*(bool(number >> bit & 1) for bit in range(4))) for number in range(16)])

    def of(self, *, deadline: Mask, stock: Mask, capped: Mask, out: Mask) -> Mask:
        """(n, k)"""
        return np.asarray(self._table[deadline + 2 * stock + 4 * capped + 8 * out])

    def _row(self, deadline: bool, stock: bool, capped: bool, out: bool) -> Mask:
        proof = ClaimEvidence(stock=1 if stock else None, deadline=2**60 if deadline else None)
        exclude = self._coupons if capped else []
        found = eligible(self._stage, holdout=out, proof=proof, include=None, exclude=exclude, refused={}, now=EPOCH)
        return found.mask


def _stages(cell: SimulationCell, catalogue: Catalogue, who: PolicySpec) -> dict[str, Stage]:
    if cell.journey:
        check_journey(cell.scenario, catalogue)
    names = tuple(catalogue.stages) if cell.journey else (cell.scenario.stage,)
    return {name: who.stage(catalogue.stage(name), cell.holdout) for name in names}
