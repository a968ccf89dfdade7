"""Silence of outcomes: how likely it is that none has come for so long, if they still come as often as before.

Where outcomes come independently at one rate, the n gaps between n + 1 of them last T together, T is a gamma variable
of shape n, and the next gap is longer than d with probability

    P(gap > d) = (1 + d / T)^−n,

whatever the rate is: that n gaps tell it only roughly is part of the number. For a known rate it would be exp(−nd/T).

What gaps are measured in is the caller's choice, the same for T and d. Time makes every quiet night an alarm; the
number of decisions that were shown, or that have matured, does not, as long as outcomes come in proportion to them (of
decisions that each have an outcome with the same probability, the chance of silence is smaller still than P).
"""

from typing import NamedTuple

from bandit.numerics.arithmetic import exp_of, log_of


class OutcomeGaps(NamedTuple):
    """Earlier gaps between outcomes: their number, one less than the outcomes, and what they last together, in any
    unit.
    """

    number: int
    lasted: float


class Silence(NamedTuple):
    """Silence since the last outcome: how many outcomes the earlier rate would have brought meanwhile, and the
    probability of a gap at least so long.
    """

    expected: float
    probability: float


def silence(earlier: OutcomeGaps, since: float) -> Silence:
    """Silence that has lasted `since`, ≥ 0, in the unit of `earlier`. Without earlier gaps nothing is expected, and the
    probability is 1.

    An alarm at a probability of `level` or less is raised falsely once in 1/level outcomes on average, because each
    outcome is followed by a gap: a level of 1e-4 suits a stage with a hundred outcomes a day that wants one false alarm
    in a hundred days.
    """
    if earlier.number < 1 or earlier.lasted <= 0.0 or since <= 0.0:
        return Silence(0.0, 1.0)
    ratio = since / earlier.lasted
    return Silence(earlier.number * ratio, exp_of(-earlier.number * log_of(1.0 + ratio)))
