"""Judgement of a twin: fitted to the first four fifths of a log, it predicts the last fifth, which it did not see.

For every prediction there is a 90 % interval of the twin (parameters and chance together) and what was really seen. If
the twin is right, nine in ten are inside. A prediction is a doubt, and says where the twin must not be believed, if
what was seen is so far outside that chance does it to one of all of them in 5 % of logs (normal, Bonferroni).
"""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

import numpy as np
from scipy import stats

from bandit.arrays import Array, Mask
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import arm_worth
from bandit.errors import InvalidRequest, Problem
from simulations.twin import fit as twin_fit
from simulations.twin import reward_model
from simulations.twin.app_log import AppLog
from simulations.twin.timing_model import DelayLaw

SEEN = 0.8
"""Share of the log, by time, that the judged twin is fitted to."""

LEVEL, ERROR = 0.9, 0.05
_FEWEST = 50  # decisions or rewards of a prediction
_AGES = (0.05, 0.1, 0.25, 0.5)  # of the attribution window
_REPEATS = 10  # of chance, for every draw of the parameters


class Prediction(NamedTuple):
    """Prediction of one figure of the last fifth. `what` names it, `unit` its unit; `n`: decisions, or rewards for
    delays; `seen` what it was; `expected`, `sd` and the 90 % interval `low`, `high` as predicted.
    """

    what: str
    unit: str
    n: int
    seen: float
    expected: float
    low: float
    high: float
    sd: float

    @property
    def inside(self) -> bool:
        """Whether what was seen is in the 90 % interval."""
        return self.low <= self.seen <= self.high


class TwinJudgement(NamedTuple):
    """Judgement of a twin: how many decisions it was fitted to and predicted, and the predictions. They overlap (a part
    of the decisions is in several), so that those outside come in groups.
    """

    fitted: int
    predicted: int
    predictions: tuple[Prediction, ...]

    @property
    def covered(self) -> int:
        """How many predictions have what was seen in their 90 % interval."""
        return sum(one.inside for one in self.predictions)

    @property
    def doubts(self) -> tuple[Prediction, ...]:
        """Predictions that what was seen refutes (see the module)."""
        most = stats.norm.ppf(1.0 - ERROR / (2 * max(len(self.predictions), 1)))
        return tuple(one for one in self.predictions if abs(one.seen - one.expected) > most * max(one.sd, 1e-12))


def judge(app: str, stage_name: str, stage: Stage, log: AppLog, *, draws: int = 80, seed: int = 1) -> TwinJudgement:
    """Judgement of the twin of a stage. Arguments are those of `fit.fit`. Raises InvalidRequest if four fifths of the
    log are too little for a fit, or nothing is known of the last fifth.
    """
    known = log.only(~np.isnan(log.reward))
    order = np.argsort(known.at, kind="stable")
    known = AppLog._make(part[order] if isinstance(part, np.ndarray) else part for part in known)
    split = int(SEEN * len(known.arm))
    if split in (0, len(known.arm)):
        raise InvalidRequest(Problem("log", "no decision with a known reward", "fit to a log that has some"))
    if split < twin_fit.FEWEST:
        problem = f"{split:,} decisions with known rewards in its first four fifths, which have to predict the last"
        fix = f"fit to {ceil(twin_fit.FEWEST / SEEN)} or more in all, of which some were rewarded"
        raise InvalidRequest(Problem("log", problem, fix))
    late = np.arange(len(known.arm)) >= split
    twin = twin_fit.fit(app, stage_name, stage, known.only(~late), draws=1, seed=seed)
    rng = np.random.default_rng([seed, 23])
    chance = np.empty((draws * _REPEATS, int(late.sum())), dtype=bool)
    for i in range(draws):
        p = reward_model.chances(stage, twin.posterior.draw(rng), known, twin.delay.within)[late]
        chance[i * _REPEATS : (i + 1) * _REPEATS] = rng.random((_REPEATS, len(p))) < p
    seen = known.only(late)
    predictions = (*_rewards(stage, seen, chance, known), *_delays(seen, twin.delay, draws, rng))
    return TwinJudgement(split, int(late.sum()), predictions)


def _rewards(stage: Stage, seen: AppLog, drawn: Mask, known: AppLog) -> Iterator[Prediction]:
    """Net value of all decisions, and the share rewarded in each part of them with enough decisions."""
    rewarded = seen.reward > 0.0
    amount = float(known.reward[known.reward > 0.0].mean())
    worth = arm_worth(stage.reward.value, stage.nudges.values())
    values = worth.net(np.where(drawn, amount, 0.0), np.broadcast_to(seen.arm, drawn.shape)).mean(axis=1)
    net = float(worth.net(seen.reward, seen.arm).mean())
    yield _prediction("net value a decision", "currency", len(seen.arm), net, values)
    for what, rows in _parts(stage, seen):
        n = int(rows.sum())
        if n >= _FEWEST:
            share = 100.0 * drawn[:, rows].mean(axis=1)
            yield _prediction(f"rewarded, {what}", "%", n, 100.0 * float(rewarded[rows].mean()), share)


def _parts(stage: Stage, seen: AppLog) -> Iterator[tuple[str, Mask]]:
    """Names and masks (n,) of parts of the decisions: all, by arm, by what a feature is, by week, by visit."""
    yield "all", np.ones(len(seen.arm), dtype=bool)
    for a, arm in enumerate(stage.arms):
        yield f"shown {arm}", seen.arm == a
    yield "in the holdout", seen.holdout
    at = 1
    for name, feature in stage.features.items():
        if feature.type == "category":
            for value in feature.values:
                yield f"{name} = {value}", seen.x[:, at] > 0.5
                at += 1
            continue
        middle = float(np.median(seen.x[:, at])) if feature.type == "number" else 0.5
        low, high = ("below its median", "above its median") if feature.type == "number" else ("false", "true")
        yield f"{name} {low}", seen.x[:, at] <= middle
        yield f"{name} {high}", seen.x[:, at] > middle
        at += 1
    first = int(seen.day.min(initial=0))
    half = (seen.day - first) * 2 > int(seen.day.max(initial=0)) - first
    for what, rows in (("first half of its days", ~half), ("second half of its days", half)):
        yield what, rows
        yield f"{what}, with a nudge", rows & (seen.arm > 0)


def _delays(seen: AppLog, law: DelayLaw, draws: int, rng: np.random.Generator) -> Iterator[Prediction]:
    """Share of rewards that came by some ages, of those within the window."""
    delay = seen.delay[~np.isnan(seen.delay) & (np.nan_to_num(seen.reward) > 0.0)]
    arm = seen.arm[~np.isnan(seen.delay) & (np.nan_to_num(seen.reward) > 0.0)]
    if len(delay) < _FEWEST:
        return
    for age in _AGES:
        hours = age * law.window / 3600.0
        shares = np.empty(draws * _REPEATS)
        for i in range(draws):
            one = law.draw(rng)
            by = one._replace(window=age * law.window).within / np.maximum(one.within, 1e-9)
            each = rng.random((_REPEATS, len(arm))) < np.minimum(by, 1.0)[arm]
            shares[i * _REPEATS : (i + 1) * _REPEATS] = 100.0 * each.mean(axis=1)
        seen_share = 100.0 * float((delay <= age * law.window).mean())
        yield _prediction(f"rewards that came within {hours:.3g} h", "%", len(delay), seen_share, shares)


def _prediction(what: str, unit: str, n: int, seen: float, drawn: Array) -> Prediction:
    low, high = np.quantile(drawn, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return Prediction(what, unit, n, seen, float(drawn.mean()), float(low), float(high), float(drawn.std()))
