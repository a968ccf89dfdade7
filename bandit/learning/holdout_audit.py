"""Audit by the holdout: what a person brings with nudges and without, in all, whatever the model says.

Totals of people count everything that nudges do: rewards that they bring, later ones that they cost, people who leave.
They need no model and no propensities, because the holdout is drawn. Their interval is wide: with 5 % of people in the
holdout, a price of 0.01 logits would show in some 850,000 people. So they are an audit beside the price of a nudge, and
nothing is decided by them.

Money is in the app's currency, all decisions of a person at a stage together.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array

_SURE = 1.959963984540054
_ENOUGH = 2  # people of each group without whom there is no interval


class PersonTotals(NamedTuple):
    """Totals of a group of people: how many there are, Σ of what each brought, and Σ of its square."""

    people: int = 0
    total: float = 0.0
    square: float = 0.0

    @classmethod
    def of(cls, each: Array) -> "PersonTotals":
        """Totals of people who brought `each` (n,)."""
        return cls(len(each), float(each.sum()), float((each * each).sum()))

    def __add__(self, other: object) -> "PersonTotals":
        if not isinstance(other, PersonTotals):
            return NotImplemented
        return PersonTotals(self.people + other.people, self.total + other.total, self.square + other.square)

    @property
    def mean(self) -> float:
        """What a person brought, 0 of nobody."""
        return self.total / self.people if self.people else 0.0

    @property
    def error(self) -> float:
        """Standard error of `mean`; infinite of fewer than two people."""
        if self.people < _ENOUGH:
            return float("inf")
        spread = max(self.square - self.people * self.mean**2, 0.0) / (self.people - 1)
        return float(np.sqrt(spread / self.people))


class HoldoutAudit(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a person with nudges less that of one in the holdout, with its 95 % interval (None where a group has
    fewer than two people), and what it rests on.
    """

    with_nudges: float
    people: int
    without: float
    holdout: int
    difference: float
    low: float | None
    high: float | None


def audit(nudged: PersonTotals, alone: PersonTotals) -> HoldoutAudit | None:
    """Audit of both groups, None where nobody is in the holdout."""
    if not alone.people:
        return None
    difference, error = (
        nudged.mean - alone.mean,
        float(np.sqrt(nudged.error * nudged.error + alone.error * alone.error)),
    )
    known = bool(np.isfinite(error))
    return HoldoutAudit(
        with_nudges=nudged.mean,
        people=nudged.people,
        without=alone.mean,
        holdout=alone.people,
        difference=difference,
        low=difference - _SURE * error if known else None,
        high=difference + _SURE * error if known else None,
    )
