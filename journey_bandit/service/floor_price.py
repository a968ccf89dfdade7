"""Price of floors: what it costs to show every nudge at least so often, in money, if nudges do nothing.

Off-policy evaluation needs that every arm is shown now and then; this says what such support costs, for `catalogue
check`. Only what is certain counts: the cost of showing, and what a nudge gives away of rewards that would have come
anyway. Shapes: k arms, no nudge first.
"""

from typing import NamedTuple

import numpy as np

from bandit.arrays import Array
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import arm_worth
from bandit.learning.loss_account import declared_budget
from bandit.policies import Centred
from bandit.propensity.floor import affordable


class FloorPrice(NamedTuple):
    """Price of a stage's floors, for each arm (k,). `floor`: least probability while the policy decides; `cost`: money
    that showing the arm costs in one decision for certain, and `given_away` money for one unit of reward.

    `rate`: reward that a decision is expected to bring, in the reward's own units; None where the policy assumes none.
    `declared`: whether the catalogue declares the floor; else it is the policy's own.
    """

    arms: tuple[str, ...]
    floor: Array
    cost: Array
    given_away: Array
    value: float
    rate: float | None
    declared: bool

    @property
    def each(self) -> Array:
        """Money for each arm (k,) in one decision: floor · (cost + given_away · rate); without a rate, of 0."""
        return np.asarray(self.floor * (self.cost + self.given_away * (self.rate or 0.0)), dtype=np.float64)

    @property
    def total(self) -> float:
        """Money in one decision, over all arms."""
        return float(self.each.sum())


def floor_price(stage: Stage) -> FloorPrice | None:
    """Price of a stage's floors where nudges do nothing and all are eligible; None where nothing has a floor, or
    actions come with the request.
    """
    if stage.has_request_actions or not stage.nudges:
        return None
    reward, arms = stage.reward, stage.arm_economics
    prior = getattr(stage.policy, "prior_mean", None)
    if stage.floor is None and isinstance(stage.learner, Centred):
        q, everyone = stage.learner.prior_mean, np.ones(len(arms.names), dtype=bool)
        floor = affordable(arms.gain * q - arms.cost, everyone, stage.ramp, q)
    elif stage.common_floor > 0.0:
        floor = np.full(len(arms.names), stage.common_floor)
    else:
        return None
    worth = arm_worth(reward.value, stage.nudges.values())
    rate = None if prior is None else reward.min + (reward.max - reward.min) * prior
    return FloorPrice(
        arms.names, floor, worth.cost, worth.gain[0] - worth.gain, reward.value, rate, stage.floor is not None
    )


def loss_sentence(name: str, stage: Stage, currency: str, monthly: float | None) -> str | None:
    """What learning may cost at stage `name`, in a line; None where no loss is declared. `monthly`: decisions of a
    month, where that is known. The reward rate is the one that the policy assumes before any reward.
    """
    share, learner, reward = stage.loss_share, stage.learner, stage.reward
    if share is None or not isinstance(learner, Centred):
        return None
    text = f"{name}: learning may cost {stage.loss} of what is earned with no nudge"
    if monthly is None or monthly <= 0.0:
        return f"{text} (--monthly N says how much money that is)"
    scaled, budget = declared_budget(share, learner.prior_mean, monthly)
    if scaled < 1.0:
        text += f", and {100.0 * scaled * share:.3g}% while there is so little traffic to learn from"
    money = reward.value * (reward.max - reward.min) * budget
    text += f": {currency} {money:,.2f} of a month of {monthly:,.0f} decisions"
    return f"{text}, if {learner.prior_mean:.3g} of them are rewarded (prior_mean)"


def sentence(name: str, stage: Stage, found: FloorPrice, currency: str, monthly: float | None) -> str:
    """What the floors of stage `name` cost, in a line. `monthly`: decisions of a month, where that is known."""
    nudges = list(zip(found.arms, found.floor, found.each, strict=True))[1:]
    bounded = stage.loss_share is not None
    if found.declared or not bounded:
        kind = f"floor {stage.common_floor:g}" + ("" if found.declared else " (none declared)")
        if not found.declared and not stage.common_floor:
            kind = "what the policy explores (no floor declared)"
    else:
        least = ", ".join(f"{arm} {floor:.4f}" for arm, floor, _ in nudges)
        kind = f"no floor declared: centred affords {least} while its loss account is open; that"
    parts = ", ".join(f"{arm} {1000.0 * each:.2f}" for arm, _, each in nudges if each > 0.0)
    text = f"{name}: {kind} costs {currency} {1000.0 * found.total:.2f} in 1,000 decisions if nudges do nothing"
    text += f" ({parts})" if parts else ""
    earned = found.value * (found.rate or 0.0)
    if earned > 0.0:
        text += f", {100.0 * found.total / earned:.3g}% of what they earn with no nudge"
    given = float((found.floor * found.given_away).sum())
    if found.rate is None and given > 0.0:
        text += f", and {currency} {1000.0 * given:.2f} more for each unit of reward that a decision brings"
    if monthly is not None:
        text += f"; {currency} {monthly * found.total:,.2f} a month at {monthly:,.0f} decisions"
    if found.declared and bounded:
        text += "; it is paid while the loss account is closed, too"
    return text
