"""Dynamics of a population: who is at which stage, when they come again, and what past nudges did to them.

Arrays over all N users of a run. Every random number of a user is a function of (seed, step, user): policies face
identical people, in any order of work and on any number of processes.

Shapes: N users of a run, n of them visiting. Times are in days since the begin of the run.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array, Mask
from simulations.scenario import FurtherStage, Scenario
from simulations.visits import Kinds, VisitSituation

Rows = NDArray[np.intp]

GONE = -1
_BLOCK = 2048  # users whose numbers come from one generator
_PEOPLE, _VISITS = 0, 1  # first element of a spawn key
_EXTRA = 8  # uniform numbers of a visit besides those of its features


class PersonNoise(NamedTuple):
    """Random numbers of n visits, all that is random about them. `normal` and `uniform` make features; the rest is (n,)
    and uniform in [0, 1), but for `gap`, which is standard normal.
    """

    normal: Array  # (n, m)
    uniform: Array  # (n, q)
    draw: Array  # picks the arm
    reward: Array  # whether a reward comes
    delay: Array  # and when
    opt_out: Array  # whether nudges are switched off
    leave: Array  # whether the app is left after that
    move: Array  # to which stage without a reward
    proof: Array  # (n, 2): deadline, stock
    gap: Array  # normal


def noise(seed: int, step: int, rows: Rows, normals: int, uniforms: int) -> PersonNoise:
    """The random numbers of these users' visits at a step; `rows` (n,) are user numbers, ascending.

    `normals`, `uniforms`: how many numbers of each kind features need (`Population.normals`, `.uniforms`). The numbers
    of a user are a function of (seed, step, user) and do not depend on who else visits.
    """
    normal, uniform = np.empty((len(rows), normals + 1)), np.empty((len(rows), uniforms + _EXTRA))
    last = int(rows[-1]) // _BLOCK if len(rows) else -1
    starts = np.searchsorted(rows, np.arange(last + 2) * _BLOCK)
    for block, (begin, end) in enumerate(pairwise(starts.tolist())):
        if begin < end:
            rng = _generator(seed, _VISITS, step, block)
            mine = rows[begin:end] - block * _BLOCK
            normal[begin:end] = rng.standard_normal((_BLOCK, normals + 1))[mine]
            uniform[begin:end] = rng.random((_BLOCK, uniforms + _EXTRA))[mine]
    own = uniform[:, uniforms:]
    draw, reward, delay, opt_out, leave, move = (own[:, i] for i in range(6))
    features = normal[:, 1:], uniform[:, :uniforms]
    return PersonNoise(*features, draw, reward, delay, opt_out, leave, move, proof=own[:, 6:8], gap=normal[:, 0])


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


class PersonTraits(NamedTuple):
    """What users are for life, (N,) each: `persona` its number, `effect` u the standard normal user effect, `harvests`
    whether they learn to wait for coupons, `holdout` whether they are in the control group, `arrives` the first visit,
    in days.
    """

    persona: Kinds
    effect: Array  # u
    harvests: Mask
    holdout: Mask
    arrives: Array


def traits(scenario: Scenario, seed: int, users: int, days: float, holdout: float) -> PersonTraits:
    """Traits of N = `users` people. They first come by a Poisson process with the scenario's weekly profile, given that
    N come within `days` days in all. `holdout`: share of them in the control group.
    """
    blocks = [_block_traits(scenario, seed, block, days) for block in range(-(-users // _BLOCK))]
    persona, effect, harvests, held, arrives = (np.concatenate(part)[:users] for part in zip(*blocks, strict=True))
    return PersonTraits(persona, effect, harvests, held < holdout, arrives)


def _block_traits(scenario: Scenario, seed: int, block: int, days: float) -> tuple[NDArray[np.generic], ...]:
    rng, personas = _generator(seed, _PEOPLE, block), list(scenario.personas.values())
    uniform = rng.random((_BLOCK, 4))
    edges = np.cumsum([p.weight for p in personas])[:-1]
    persona = (uniform[:, :1] > edges).sum(axis=1)
    share = np.array([p.harvests for p in personas])[persona]
    weight = np.cumsum(np.resize(scenario.visits.weekly, math.ceil(days)))
    day = np.searchsorted(weight, uniform[:, 1] * weight[-1], side="right")
    arrives = np.minimum(day + rng.random(_BLOCK), days)
    return persona, rng.standard_normal(_BLOCK), uniform[:, 2] < share, uniform[:, 3], arrives


class PopulationState:
    """State of all N users of a run: stage, next visit, fatigue, coupon training, opt-out. The only thing in a run that
    changes in place, by one call of `after` for each group of visits; so it belongs to one run and one thread.

    `stages`: names in the order of the numbers in `place`; `legs`: how people move between them. A run of one stage
    keeps people there. Public arrays (N,): `place` the stage's number or `GONE`, `due` the day of the next visit,
    `opted_out`.
    """

    def __init__(self, scenario: Scenario, made: PersonTraits, stages: tuple[str, ...], legs: dict[str, FurtherStage]):
        n = len(made.persona)
        self.scenario, self.traits, self._stages = scenario, made, stages
        self._moves = [_onward(stages, legs.get(name)) for name in stages]
        self.place = np.zeros(n, dtype=np.intp)
        self.due = made.arrives.copy()
        self._fatigue, self._last = np.zeros(n), made.arrives.copy()
        self._trained, self._pulled = np.zeros(n), np.zeros(n)
        self.opted_out = np.zeros(n, dtype=bool)
        self._coupon = np.full(n, -np.inf)  # day of the last coupon

    def visiting(self, stage: int, step: int) -> Rows:
        """Numbers (n,) of the users who come to the stage with number `stage` within this step, ascending."""
        return np.flatnonzero((self.place == stage) & (self.due < step + 1))

    def situation(self, rows: Rows, day: float) -> VisitSituation:
        """What these users find when they visit on this day: fatigue as it has faded since the last visit, training,
        and what was pulled forward; (n,) each.
        """
        faded = self._fatigue[rows] * self.scenario.fatigue.keeps ** np.maximum(day - self._last[rows], 0.0)
        return VisitSituation(day, faded, self._trained[rows], self._pulled[rows])

    def capped(self, rows: Rows, day: float) -> Mask:
        """Mask (n,) of users who may see no coupon now, by the frequency cap of the app (`CouponHabit.cap_days`)."""
        return np.asarray(day - self._coupon[rows] < self.scenario.coupons.cap_days)

    def after(
        self, rows: Rows, found: VisitSituation, *, nudged: Mask, coupon: Mask, reward: Mask, chance: PersonNoise
    ) -> None:
        """Update the state after a group of visits at one stage; masks are (n,). `nudged`: a nudge was shown; `coupon`:
        it was a coupon; `reward`: a reward comes, be it later. Nobody waits for a late reward to move on.
        """
        tired, day = self.scenario.fatigue, found.day
        self._fatigue[rows], self._last[rows] = found.fatigue + nudged, day
        out = nudged & (chance.opt_out < special.expit(tired.opt_out + found.fatigue))
        self.opted_out[rows] |= out
        self._learn_coupons(rows, coupon, found.trained)
        self._pulled[rows] = np.where(coupon & reward, self.scenario.visits.pull_forward, 0.0)
        self._coupon[rows] = np.where(coupon, day, self._coupon[rows])
        stage = int(self.place[rows[0]]) if len(rows) else 0
        rests = self._move(stage, rows, reward, chance.move)
        self.place[rows[out & (chance.leave < tired.leaves)]] = GONE
        visits = self.scenario.visits
        gap = visits.gap_days * np.exp(visits.gap_sd * chance.gap)
        self.due[rows] = math.floor(day) + np.where(reward & ~rests, 1.0, np.maximum(gap, 1.0))

    def _learn_coupons(self, rows: Rows, coupon: Mask, before: Array) -> None:
        rules = self.scenario.coupons
        after = np.where(coupon, before + rules.learns * (1.0 - before), before * (1.0 - rules.forgets))
        self._trained[rows] = np.where(self.traits.harvests[rows], after, 0.0)

    def _move(self, stage: int, rows: Rows, reward: Mask, at: Array) -> Mask:
        """Set the stage of the next visit of these users; returns the mask of those who rest before it, although
        rewarded.
        """
        move = self._moves[stage]
        if move is None:
            return np.ones(len(rows), dtype=bool)
        lost = move.to[(at[:, None] >= move.edges).sum(axis=1)]
        self.place[rows] = np.where(reward, np.where(at < move.stays, move.then, GONE), lost)
        return np.full(len(rows), move.rests)


class _Move(NamedTuple):
    """How people of one stage move on. `then`: number of the stage after a reward. `to`: stages after silence and at
    last `GONE`, at the cumulative probabilities `edges`. `rests`: also who was rewarded waits for the usual gap;
    `stays`: share of them who come again.
    """

    then: int
    to: NDArray[np.intp]
    edges: Array
    rests: bool
    stays: float


def _onward(stages: tuple[str, ...], leg: FurtherStage | None) -> _Move | None:
    if leg is None or len(stages) == 1:
        return None
    to = np.array([*(stages.index(name) for name in leg.otherwise), GONE], dtype=np.intp)
    return _Move(stages.index(leg.then), to, np.cumsum(list(leg.otherwise.values())), leg.rests, leg.stays)
