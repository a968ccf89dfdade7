"""Fit of a twin: a scenario of one stage from the log of an app, and draws of whole scenarios that the log allows.

What a log cannot tell apart is neutral in it: one persona, no drift, no novelty. `doubts` says so, with what was seen.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from scipy import special

from bandit.arrays import Array
from bandit.catalogue.model import NONE, Stage
from bandit.errors import InvalidRequest, Problem
from simulations import feature_values
from simulations.scenario import Contexts, CouponHabit, Fatigue, Persona, Scenario, Slopes
from simulations.twin import reward_model, timing_model
from simulations.twin.app_log import AppLog, coupons, past
from simulations.twin.reward_model import RewardParameters, RewardPosterior
from simulations.twin.timing_model import DelayLaw, OptOutLaw, VisitLaw

ROWS = 2_000
"""Contexts that a twin keeps, drawn from those of the log."""

FEWEST = 200
"""Decisions with known rewards that a fit needs."""

EVERYBODY = "everybody"
"""The one persona of a twin."""

NEUTRAL = (
    "Not told apart by a log, and neutral here: kinds of people (one persona; what features say is in the slopes),",
    "drift and novelty of effects (they are averages over the log), who leaves after switching nudges off.",
)
"""What a twin does not hold, in sentences for its file."""

_DIGITS = 5


class Twin(NamedTuple):
    """Twin of an app's stage: the central scenario, draws of whole scenarios, and what it was fitted to.

    `decisions` and `rewards` are counts of the log; `design_effect`: by how much users who come back widen intervals.
    """

    scenario: Scenario
    draws: tuple[Scenario, ...]
    decisions: int
    rewards: int
    design_effect: float
    posterior: RewardPosterior
    delay: DelayLaw


def fit(app: str, stage_name: str, stage: Stage, log: AppLog, *, draws: int = 80, seed: int = 1) -> Twin:
    """Twin of a stage. `draws`: how many scenarios are drawn; `seed`: of the draws.

    Raises InvalidRequest if the log has fewer than `FEWEST` decisions with known rewards, or no reward at all.
    """
    known = int((~np.isnan(log.reward)).sum())
    rewards = int((np.nan_to_num(log.reward) > 0.0).sum())
    if known < FEWEST or not rewards:
        problem = f"{known:,} decisions with known rewards, {rewards:,} of them rewarded"
        raise InvalidRequest(Problem("log", problem, f"fit to {FEWEST} or more, of which some were rewarded"))
    rng = np.random.default_rng([seed, 17])
    delay = timing_model.delays(stage, log)
    found = reward_model.fit(stage, log, delay.within)
    seen = past(
        log, coupons(stage), keeps=found.central.keeps, learns=reward_model.LEARNS, forgets=reward_model.FORGETS
    )
    parts = _Parts(
        app=app,
        stage_name=stage_name,
        stage=stage,
        visit=timing_model.visits(log, seen),
        out=timing_model.opt_outs(log, seen),
        proof={kind: _share(share) for kind, share in timing_model.evidence_shares(stage, log).items()},
        amount=_amounts(log),
    )
    central = parts.scenario(found.central, delay, None)
    contexts = _contexts(stage, log, rng)
    made = tuple(
        msgspec.structs.replace(parts.scenario(found.draw(rng), delay.draw(rng), rng), resample=number)
        for number in range(1, draws + 1)
    )
    return Twin(
        scenario=msgspec.structs.replace(central, contexts=contexts),
        draws=tuple(msgspec.structs.replace(one, contexts=contexts) for one in made),
        decisions=len(log.arm),
        rewards=rewards,
        design_effect=found.design_effect,
        posterior=found,
        delay=delay,
    )


class _Parts(NamedTuple):
    """What all scenarios of a twin have in common, and the laws from which the rest is drawn."""

    app: str
    stage_name: str
    stage: Stage
    visit: VisitLaw
    out: OptOutLaw
    proof: dict[str, float]
    amount: tuple[float, float]  # mean and its standard error

    def scenario(self, p: RewardParameters, delay: DelayLaw, rng: np.random.Generator | None) -> Scenario:
        """Scenario of these parameters; with `rng` the rest is drawn too."""
        stage, nudges = self.stage, tuple(self.stage.nudges)
        is_coupon = coupons(stage)
        opt_out = self.out.logits if rng is None else self.out.draw(rng)
        fatigue = Fatigue(keeps=p.keeps, tires=_rounded(p.tires), dulls=p.dulls, opt_out=_rounded(opt_out))
        names = [arm for arm, coupon in zip(stage.arms, is_coupon, strict=True) if coupon]
        habit = CouponHabit(
            arms=names,
            depth=_rounded(p.depth) if names else 0.0,
            learns=reward_model.LEARNS,
            forgets=reward_model.FORGETS,
        )
        pull = _rounded(p.pull) if names else 0.0
        mean, se = self.amount
        amount = mean if rng is None else max(mean + se * float(rng.standard_normal()), mean / 10.0)
        effects = {name: _rounded(e) for name, e in zip(nudges, p.effects[1:], strict=True)}
        return Scenario(
            app=self.app,
            stage=self.stage_name,
            base=_share(float(special.expit(p.base))),
            season=_rounded(p.season),
            personas={
                EVERYBODY: Persona(
                    weight=1.0, intent=0.0, effects=effects, features={}, harvests=1.0 if habit.depth > 0.0 else 0.0
                )
            },
            base_slopes=_slopes(stage, p.base_slopes),
            slopes={name: _slopes(stage, own) for name, own in zip(nudges, p.slopes[1:], strict=True)},
            delay_hours={arm: _rounded(h) for arm, h in zip((NONE, *nudges), delay.hours, strict=True)},
            delay_shape={arm: _rounded(delay.shape) for arm in (NONE, *nudges)},
            proof=self.proof,
            people_per_day=_rounded(self.visit.people_per_day if rng is None else self.visit.arrivals(rng)),
            fatigue=fatigue,
            coupons=habit,
            visits=self.visit.timing(pull, rng),
            amount=_rounded(amount),
        )


def _amounts(log: AppLog) -> tuple[float, float]:
    """Mean of the rewards above 0, and its standard error."""
    reward = log.reward[np.nan_to_num(log.reward) > 0.0]
    return float(reward.mean()), float(reward.std() / np.sqrt(len(reward)))


def _slopes(stage: Stage, own: Array) -> Slopes:
    """Slopes (s,) by feature, as a scenario has them."""
    made: Slopes = {}
    at = 0
    for name, feature in stage.features.items():
        if feature.type == "category":
            wide = len(feature.values)
            made[name] = {v: _rounded(b) for v, b in zip(feature.values, own[at : at + wide], strict=True)}
            at += wide
        else:
            made[name] = _rounded(own[at])
            at += 1
    return made


def _contexts(stage: Stage, log: AppLog, rng: np.random.Generator) -> Contexts:
    """Contexts of up to `ROWS` visits of the log, drawn without replacement."""
    if not stage.features:
        return {}
    n = len(log.arm)
    rows = np.sort(rng.choice(n, size=min(ROWS, n), replace=False))
    position = feature_values.of_encoded(stage.features, log.x[rows])
    seen = feature_values.contexts(stage.features, position)
    return {name: [_short(row[name]) for row in seen] for name in stage.features}


def _short(value: bool | float | str) -> bool | float | str:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)


def _share(value: float) -> float:
    return min(max(round(value, 6), 0.0), 1.0)
