"""Environments with an exact expected value for every arm, so that regret is a sum and not an estimate.

`env5` is drawn from the family of models that `hierarchical` assumes; `journey` (the people of `simulations`, with
latent personas) is not. A stream is fixed by its seed: every contestant meets the same people, who would do the same.

Shapes: n decisions, k arms (the most of any stage), d features (the most of any stage; the rest of a row is 0).
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit import features
from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Stage
from bandit.guardrails import ClaimEvidence, eligible
from bandit.policies.protocol import ArmEconomics
from simulations import scenario
from simulations.live.visitors import FirstVisits, VisitorStream

STAGE_ARMS = (4, 5, 5, 6, 8)  # 28 in all, no nudge among them
TYPES = ("reminder", "scarcity", "discount", "social_proof", "help")
D = 7
BASE_MEAN = -2.9  # logits: half of all stages convert less than 5 % without a nudge
BASE_SD, BASE_SLOPE_SD, EFFECT_SD, EFFECT_SLOPE_SD = np.sqrt(2.0), 0.5, 0.5, 0.25
DELAY_HOURS = (2.0, 12.0, 30.0, 4.0, 60.0)  # mean, by arm in turn
WINDOW_HOURS = 7 * 24.0
DECISIONS_PER_DAY = 500.0


class Stream(NamedTuple):
    """Stream of traffic of one app, in order: n decisions at several stages, what each arm would bring, and what it is
    worth.

    `arms` and `dims`: economics and number of features of each stage. `stage` (n,), `x` (n, d), `eligible` and `reward`
    (n, k). `value` (n, k) is the expected utility in units of the reward range, −∞ where not eligible. `hours` (n,) and
    `delay` (n, k) are in hours; `declared`: the reward rate that a catalogue would declare, None if nobody knows it.
    """

    name: str
    arms: tuple[ArmEconomics, ...]  # of each stage
    dims: tuple[int, ...]  # features of each stage
    stage: NDArray[np.intp]  # (n,)
    x: Array  # (n, d)
    eligible: NDArray[np.bool_]  # (n, k)
    reward: Array  # (n, k) what each arm would bring
    value: Array  # (n, k), −∞ where not eligible
    hours: Array  # (n,) when each decision is made
    delay: Array  # (n, k) hours from decision to reward; 0 where rewards are known at once
    declared: float | None = None  # reward rate that a catalogue would declare; None: nobody knows

    def regret(self, arm: NDArray[np.intp]) -> Array:
        """Regret of each decision, (n,): expected utility lost against the best eligible arm, for arms (n,) chosen; in
        units of the reward range.
        """
        return np.asarray(self.value.max(axis=1) - self.value[np.arange(len(arm)), arm], dtype=np.float64)


class Effects(NamedTuple):
    """Effects of env5, θ: β (stages, d), ν (types, d), δ (stages, k, d). `no nudge` reads β alone."""

    base: Array
    kind: Array
    own: Array

    def logits(self, stage: NDArray[np.intp], x: Array) -> Array:
        """Logits z (n, k) of n decisions at stages (n,) with x (n, d); arms that a stage does not have get −∞."""
        theta = np.full((len(STAGE_ARMS), max(STAGE_ARMS), x.shape[1]), np.nan)
        for s, k in enumerate(STAGE_ARMS):
            theta[s, :k] = self.base[s]
            theta[s, 1:k] += self.own[s, 1:k] + self.kind[kinds(s)]
        z = np.einsum("nd,nkd->nk", x, theta[stage])
        return np.where(np.isnan(z), -np.inf, z)


def kinds(s: int) -> list[int]:
    """Type of each nudge of stage s, as indices: types recur across stages, and in the larger ones within."""
    return [(s + a) % len(TYPES) for a in range(1, STAGE_ARMS[s])]


def effects(rng: np.random.Generator) -> Effects:
    """Draw of all effects from the prior that env5 and `hierarchical` share; the generator is the caller's."""
    base_sd, effect_sd = np.full(D, BASE_SLOPE_SD), np.full(D, EFFECT_SLOPE_SD)
    base_sd[0], effect_sd[0] = BASE_SD, EFFECT_SD
    base = rng.normal(0.0, 1.0, (len(STAGE_ARMS), D)) * base_sd
    base[:, 0] += BASE_MEAN
    kind = rng.normal(0.0, 1.0, (len(TYPES), D)) * effect_sd
    return Effects(base, kind, rng.normal(0.0, 1.0, (len(STAGE_ARMS), max(STAGE_ARMS), D)) * effect_sd)


def env5(seed: int, n: int = 10_000, *, delayed: bool = False) -> list[Stream]:
    """Environment env5: five stages, 28 arms, the same effects throughout; one stream of n decisions, `delayed`: with
    rewards that come late.
    """
    people, truth, chance = _generators(seed)
    return [_stream("env5", [(effects(truth), people.integers(0, 5, n))], people, chance, delayed)]


def drift(seed: int, n: int = 20_000) -> list[Stream]:
    """Environment with a break: all effects are drawn again halfway, so that nothing learned before the break helps
    after it. n decisions.
    """
    people, truth, chance = _generators(seed)
    parts = [(effects(truth), people.integers(0, 5, m)) for m in (n // 2, n - n // 2)]
    return [_stream("drift", parts, people, chance, False)]


def launch(seed: int, n: int = 20_000) -> list[Stream]:
    """Environment with a launch: the last stage, with eight arms, opens halfway, after decisions elsewhere; then all
    five share the traffic. n decisions.
    """
    people, truth, chance = _generators(seed)
    found, before = effects(truth), n // 2
    parts = [(found, people.integers(0, 4, before)), (found, people.integers(0, 5, n - before))]
    return [_stream("launch", parts, people, chance, False)]


def delay(seed: int, n: int = 10_000) -> list[Stream]:
    """Environment with delays: env5 with rewards hours or days late, by arm; after seven days silence is final. n
    decisions.
    """
    return env5(seed, n, delayed=True)


def undelayed(seed: int, n: int = 10_000) -> list[Stream]:
    """Environment of the people of `delay`, whose rewards are known at once: what lateness costs is the difference."""
    return [stream._replace(delay=np.zeros_like(stream.delay)) for stream in delay(seed, n)]


def journey(seed: int, n: int = 4_000) -> list[Stream]:
    """Environment of the rich stage of each of the five apps, n decisions each, in net value, in units of what a reward
    of that stage is worth.
    """
    return [_journey(app, seed, n) for app in scenario.names()]


ENVIRONMENTS: dict[str, Callable[..., list[Stream]]] = {
    "env5": env5,
    "journey": journey,
    "delay": delay,
    "undelayed": undelayed,
    "drift": drift,
    "launch": launch,
}


def _generators(seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3)]


def _stream(
    name: str,
    parts: list[tuple[Effects, NDArray[np.int64]]],
    people: np.random.Generator,
    chance: np.random.Generator,
    delayed: bool,
) -> Stream:
    stage = np.concatenate([s for _, s in parts]).astype(np.intp)
    n, k = len(stage), max(STAGE_ARMS)
    x = np.where(people.random((n, D)) < 0.5, -1.0, 1.0)  # unit variance, and on the 2⁻¹² grid
    x[:, 0] = 1.0
    ends = np.cumsum([0] + [len(s) for _, s in parts])
    z = np.concatenate([e.logits(stage[a:b], x[a:b]) for (e, _), a, b in zip(parts, ends[:-1], ends[1:], strict=True)])
    rate, there = special.expit(z), np.isfinite(z)
    late = -np.resize(DELAY_HOURS, k) * np.log1p(-chance.random((n, 1)))
    if delayed:  # what comes after the window does not count
        rate = rate * -np.expm1(-WINDOW_HOURS / np.resize(DELAY_HOURS, k))
        reward = (chance.random((n, 1)) < special.expit(z)) & (late <= WINDOW_HOURS)
    else:
        reward = chance.random((n, 1)) < rate
    return Stream(
        name=name,
        arms=tuple(_arms(s) for s in range(len(STAGE_ARMS))),
        dims=(D,) * len(STAGE_ARMS),
        stage=stage,
        x=x,
        eligible=there,
        reward=reward.astype(np.float64),
        value=np.where(there, rate, -np.inf),
        hours=_hours(n, DECISIONS_PER_DAY),
        delay=late if delayed else np.zeros((n, k)),
    )


def _hours(n: int, a_day: float) -> Array:
    return np.asarray(np.arange(n) * 24.0 / a_day, dtype=np.float64)


def _arms(s: int) -> ArmEconomics:
    k = STAGE_ARMS[s]
    names = ("none", *(f"nudge_{a}" for a in range(1, k)))
    return ArmEconomics(names, ("none", *(TYPES[t] for t in kinds(s))), np.ones(k), np.zeros(k))


def _journey(app: str, seed: int, n: int) -> Stream:
    """People of one scenario as the service would see them: encoded features, eligible arms, no holdout."""
    found = scenario.load(app)
    stage = msgspec.structs.replace(parse(read_shipped(app)).stages[found.stage], holdout=0.0)
    people = VisitorStream(found, stage, seed).people(0, n)
    schema = features.schema(stage.features)
    x = np.array([features.encode(schema, context).x for context in people.contexts])
    may = _eligible(stage, people)
    k = len(stage.arms)
    return Stream(
        name=app,
        arms=(stage.arm_economics,),
        dims=(x.shape[1],),
        stage=np.zeros(n, dtype=np.intp),
        x=x,
        eligible=may,
        reward=people.converts.astype(np.float64),
        value=np.where(may, people.utility / stage.reward.value, -np.inf),
        hours=_hours(n, found.people_per_day),
        delay=np.zeros((n, k)),
        declared=getattr(stage.policy, "prior_mean", None),
    )


def _eligible(stage: Stage, people: FirstVisits) -> NDArray[np.bool_]:
    """(n, k), by what each person's app can prove."""
    rows = {}
    for proof in people.proofs:
        key = tuple(sorted(proof.items()))
        if key not in rows:
            given = ClaimEvidence(stock=proof.get("stock"), deadline=2**60 if "deadline" in proof else None)
            rows[key] = eligible(stage, holdout=False, proof=given, include=None, exclude=(), refused={}, now=0).mask
    return np.array([rows[tuple(sorted(proof.items()))] for proof in people.proofs])
