"""Budgets: what nudges may cost in a period. Amounts are whole micro-units (10⁻⁶) of the app's currency, so that sums
are exact; times are µs.

A decision reserves the most that its nudge can cost; when it settles, what it did cost is kept and the rest is freed.
So Σ cost of the decisions of a period ≤ amount, whatever is converted, and however late. The price of that is that what
is reserved cannot be shown to others until it settles: a period should be long against the attribution window.

Pacing: what is kept and reserved may not run ahead of the clock by more than a tenth of the amount, or one nudge.
"""

import math

import msgspec

from bandit.catalogue.model import Nudge, Stage

MICRO = 1_000_000
AHEAD = 0.1


class BudgetAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Budget account: one nudge's budget in one period. Immutable; `api.decisions.budgets` keeps one for each nudge.

    Fields: `amount` and `committed` (kept and reserved) in micro-units; `period` is the period's length in µs; `number`
    counts periods since 1970.
    """

    amount: int
    period: int
    number: int
    committed: int = 0  # kept and reserved

    def at(self, now: int) -> "BudgetAccount":
        """Account of the period that `now` (µs) falls into: empty unless it is this one's. Time that runs backwards
        keeps this one.
        """
        number = now // self.period
        return self if number <= self.number else msgspec.structs.replace(self, number=number, committed=0)

    def add(self, micro: int) -> "BudgetAccount":
        """Account with `micro` micro-units more committed, or less where `micro` is negative: reserving, settling and
        cancelling.
        """
        return msgspec.structs.replace(self, committed=self.committed + micro)

    def refuses(self, most: int, now: int) -> str | None:
        """Reason why a nudge that can cost `most` micro-units may not be shown at `now` (µs), or None: the amount is
        spent, or pacing holds it back.
        """
        if self.committed + most > self.amount:
            return f"budget: {self.committed / MICRO:g} of {self.amount / MICRO:g} is spent or reserved in this period"
        over = (now - self.number * self.period) / self.period
        if self.committed + most > max(self.amount * (over + AHEAD), most):
            return f"budget: paced, {over:.0%} of the period is over and {self.committed / self.amount:.0%} committed"
        return None


def most(stage: Stage, nudge: Nudge) -> int:
    """Most that showing the nudge once can cost, in micro-units, rounded up: what a decision reserves."""
    return spent(nudge, stage.reward.max, shown=True)


def spent(nudge: Nudge, reward: float, *, shown: bool) -> int:
    """Cost of a settled decision, in micro-units, rounded up; `reward` in its own units. 0 if the nudge
    was not shown.
    """
    return math.ceil(nudge.spending(reward) * MICRO) if shown else 0


def opened(stage: Stage, scale: float) -> dict[str, BudgetAccount]:
    """New account for each nudge of the stage that has a budget, by nudge, on a clock compressed by `scale` (1: real
    time).
    """
    return {
        name: BudgetAccount(
            amount=math.floor(nudge.budget.amount * MICRO),
            period=max(1, round(nudge.budget.seconds * scale * 1e6)),
            number=-1,
        )
        for name, nudge in stage.nudges.items()
        if nudge.budget
    }
