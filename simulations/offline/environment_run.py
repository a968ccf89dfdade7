"""Run in an environment of one's own: the same policies, guardrails, holdout, learning and money as in a scenario, with
people who come from Python (`simulations.contenders.environment`).

Shapes: n visits of a day, k arms, d columns of x.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit import engine, features
from bandit.arrays import Array, Ints, Mask
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import ArmWorth, arm_worth
from bandit.errors import InvalidRequest, Problem
from bandit.guardrails import ClaimEvidence, eligible
from bandit.learning.holdout_audit import PersonTotals
from bandit.policies.protocol import Scores
from bandit.propensity.draw import draw_many
from simulations.contenders import environment as outside
from simulations.contenders import own_code
from simulations.contenders.environment import EnvironmentVisits
from simulations.contenders.playing import PlayingContender
from simulations.contenders.protocol import DecisionStage
from simulations.offline import run_summary, runner
from simulations.offline.learner import SimulatedLearner
from simulations.offline.policy_specs import contender_spec
from simulations.offline.run_summary import VisitSummary
from simulations.offline.runner import DAY, EPOCH, CellOutcome, DecisionSink, SimulationCell, StepDecisions

_HELD, _DRAWN = 1, 2  # what a random number of a person is for


class EverybodyAlike(NamedTuple):
    """People of an environment as a run summary sees them: one persona, whose stage and worth are the catalogue's."""

    stage: Stage
    worth: ArmWorth
    weights: Array = np.ones(1)
    personas: tuple[str, ...] = ("everybody",)
    amount: float = 1.0


class EnvironmentRun:
    """Run of one cell in its environment, day by day, as `runner.CellRun` is one in a scenario: `step`, then `done`.
    `given`: the environment itself, where the cell only names it; `contender` likewise.

    Raises InvalidRequest for a cell that cannot be run, and when a day's visits cannot be used.
    """

    def __init__(
        self, cell: SimulationCell, sink: DecisionSink | None = None, contender: Any = None, given: Any = None
    ):
        catalogue, self.cell, self._sink = cell.declared, cell, sink
        self._environment = own_code.load(cell.environment, "environment").value if given is None else given
        self._name = cell.scenario.stage
        self._who = runner.chosen(cell) if contender is None else contender_spec(cell.policy)
        self._stage = self._who.stage(catalogue.stage(self._name), cell.holdout)
        if self._stage.has_request_actions:
            fix = "choose a stage that declares its nudges"
            raise InvalidRequest(Problem("stage", f"the actions of {self._name!r} come with requests", fix))
        self._layout = features.of(self._stage)
        self._people = EverybodyAlike(self._stage, arm_worth(self._stage.reward.value, self._stage.nudges.values()))
        self.brain = SimulatedLearner(catalogue.app, {self._name: self._stage})
        told = DecisionStage(
            self._name, self._stage.arm_economics, len(self._layout.columns), self._stage.reward.seconds
        )
        self._contender: PlayingContender | None = None
        if self._who.contender:
            self._contender = PlayingContender(cell.policy, (told,), cell.seed, contender)
        self._summary = run_summary.empty_summary(self._people)
        self._sha = hashlib.sha256()
        self._brought: dict[bool, dict[int, float]] = {False: {}, True: {}}

    def step(self, step: int) -> int:
        """Run one day: learn what has matured, then decide for who comes. Returns how many decisions that were."""
        now = EPOCH + step * DAY
        self.brain.tick(now)
        if self._contender is not None:
            self._contender.tick(now)
        field = f"environment, day {step}"
        with own_code.named(self.cell.environment, field):
            came = self._environment(self.cell.seed, step)
        visits = outside.checked(came, len(self._stage.arms), field)
        self._decide(visits, step, now)
        return len(visits.user)

    def done(self) -> CellOutcome:
        """The outcome of the steps so far."""
        on, held = (PersonTotals.of(np.array(list(self._brought[side].values()))) for side in (False, True))
        return CellOutcome(
            label=self._who.label,
            seed=self.cell.seed,
            users=max(sum(map(len, self._brought.values())), 1),
            days=self.cell.days,
            digest=self._sha.hexdigest(),
            stages={self._name: self._summary},
            opted_out=[0.0] * len(self._summary.decisions),
            alarms=self.brain.alarms,
            prices=self.brain.prices,
            nudged=on,
            holdout=held,
        )

    def _decide(self, visits: EnvironmentVisits, step: int, now: int) -> None:
        n, spec, each = len(visits.user), self._stage.reward, np.arange(len(visits.user))
        held = _uniform(self.cell.seed, _HELD, visits.user) < self.cell.holdout
        mask = self._mask(visits, held)
        x = np.array([features.encode(self._layout, context).x for context in visits.contexts])
        x = x.reshape(n, len(self._layout.columns))
        delay = np.zeros(mask.shape) if visits.delay_hours is None else 3600.0 * visits.delay_hours
        within = delay <= spec.seconds
        silence = np.full(mask.shape, spec.default)
        came = np.where(within, np.clip(visits.reward, spec.min, spec.max), silence)
        expected = came if visits.expected is None else np.where(within, visits.expected, silence)
        truth = self._people.worth.net(expected)
        scores = self._scores(x, mask, held, truth, visits)
        arm = draw_many(scores.propensity, _uniform(self.cell.seed, _DRAWN + step, visits.user))
        reward = came[each, arm]
        answers = within[each, arm] & (reward != spec.default)
        made = StepDecisions(
            stage=self._name,
            user=visits.user,
            at=now + each,
            version=self.brain.prepared[self._name].snapshot.version,
            position=np.zeros((n, len(self._stage.features))),
            x=x,
            arm=arm,
            reward=reward,
            delay=np.where(answers, delay[each, arm], np.nan),
            propensities=scores.propensity,
            mean=scores.mean,
            holdout=held,
            truth=truth,
            regret=np.where(mask, truth, -np.inf).max(axis=1, initial=-np.inf) - truth[each, arm],
        )
        self._record(made, mask, scores.sd[each, arm], answers)

    def _mask(self, visits: EnvironmentVisits, held: Mask) -> Mask:
        """Arms that the catalogue and the environment allow; an arm whose claim needs evidence may be shown where the
        environment says so.
        """
        proof = ClaimEvidence(stock=1, deadline=2**60)
        allowed = eligible(
            self._stage, holdout=False, proof=proof, include=None, exclude=[], refused={}, now=EPOCH
        ).mask
        assert visits.eligible is not None  # noqa: S101 – `checked` filled it in
        mask = visits.eligible & allowed
        mask[held, 1:] = False
        return np.asarray(mask)

    def _scores(self, x: Array, mask: Mask, held: Mask, truth: Array, visits: EnvironmentVisits) -> Scores:
        none = np.zeros(mask.shape)
        if self._contender is not None:

            def contexts(rows: Mask) -> list[Any]:
                return [visits.contexts[i] for i in np.flatnonzero(rows).tolist()]

            return Scores(none, none, self._contender.propensities(0, x, mask, ~held, contexts))
        if self._who.oracle:
            priced = truth - self._who.price * (np.arange(mask.shape[1]) > 0)
            return Scores(none, none, np.eye(mask.shape[1])[np.where(mask, priced, -np.inf).argmax(axis=1)])
        return engine.choose_many(self.brain.prepared[self._name], x, mask)

    def _record(self, made: StepDecisions, mask: Mask, sd: Array, answers: Mask) -> None:
        on = np.flatnonzero(~made.holdout)
        arm = made.arm[on]
        brought = self._people.worth.net(made.reward, made.arm)
        for user, side, money in zip(made.user.tolist(), made.holdout.tolist(), brought.tolist(), strict=True):
            self._brought[side][user] = self._brought[side].get(user, 0.0) + money
        seen = VisitSummary(
            arm=arm,
            persona=np.zeros(len(on), dtype=np.intp),
            truth=made.truth[on],
            visible=made.truth[on, arm],
            regret=made.regret[on],
            reward=made.reward[on],
            delay=np.nan_to_num(made.delay[on]),
            fatigue=np.zeros(len(on)),
            propensity=made.propensities[on, arm],
        )
        run_summary.add_step(self._summary, self._people, seen, self.cell.days)
        nobody = np.zeros(len(made.user), dtype=bool)
        rows = runner.learning_rows(self._stage, made, on, sd, mask, nobody, answers)
        if self._contender is None:
            self.brain.put(self._name, rows)
        else:
            self._contender.put(0, rows.x, rows.arm, rows.reward, rows.expires)
        for part in (made.user, made.arm, made.reward, made.propensities, made.truth):
            self._sha.update(np.ascontiguousarray(part).tobytes())
        if self._sink is not None and len(made.user):
            self._sink.write(made)


def _uniform(seed: int, what: int, user: Ints) -> Array:
    """Uniform numbers in [0, 1) of people (n,), each a function of (seed, what, user): splitmix64."""
    with np.errstate(over="ignore"):
        z: NDArray[np.uint64] = user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64((seed * 0xD1B54A32D192ED03 + what * 0x8CB92BA72F3D8DD7) % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)
