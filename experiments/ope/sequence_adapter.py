"""Adapter from placed policies to confidence sequences: `inference.sequences` fed with what `evaluation_policies`
places.

Values are mapped from their range to [0, 1] for the bets and back. Where the log has every arm's propensity and q̂ as
they were known before the draw, the bets use both; a log with only the action's propensity, or whose q̂ was fitted on
the log itself (so that it knows the future), is followed by its weights alone.
"""

import numpy as np

from experiments.data.rounds import LoggedRounds
from experiments.inference.intervals import LEVEL
from experiments.inference.sequences import WEIGHTS_ONLY, Sequence, SequenceDraws, SequenceLevels, levels
from experiments.ope.evaluation_policies import PlacedPolicy

Bounds = tuple[float, float]


def policy_sequence(
    mine: PlacedPolicy, other: PlacedPolicy | None, rounds: LoggedRounds, bounds: Bounds, heaviest: tuple[float, float]
) -> Sequence | None:
    """The confidence sequence over these rounds of the value of `mine`, or of its difference to the value of `other`.
    None if the worth of a reward leaves `bounds`, because a sequence would then promise falsely.

    `bounds`: the range of a value, in its own unit. `heaviest`: the largest weight that is expected of either policy, 1
    / floor. A wrong guess costs only width.
    """
    policies = (mine,) if other is None else (mine, other)
    span, reward = bounds[1] - bounds[0], (mine.weighted.reward - bounds[0]) / (bounds[1] - bounds[0])
    if not ((reward >= 0.0) & (reward <= 1.0)).all():
        return None
    value = None if rounds.q_hat is None else mine.value
    if value is None or rounds.propensities is None or any(p.pi is None for p in policies):
        column = np.zeros(len(reward), dtype=np.intp), reward, rounds.pscore[:, None], np.zeros((len(reward), 1))
        pis = [(p.weighted.w * rounds.pscore)[:, None] for p in policies]
        return _start([WEIGHTS_ONLY] * len(policies)).fed(SequenceDraws(*column), *pis)
    table = SequenceDraws(rounds.action, reward, rounds.propensities, (value - bounds[0]) / span)
    return _start([levels(weight) for weight in heaviest[: len(policies)]]).fed(
        table, *(p.pi for p in policies if p.pi is not None)
    )


def bounds_of(sequence: Sequence | None, bounds: Bounds, level: float = LEVEL) -> Bounds | None:
    """The sequence's interval (low, high) at this moment, mapped from [0, 1] back to the value's own unit; None without
    a sequence.
    """
    if sequence is None:
        return None
    low, high = sequence.bounds(level)
    start, span = bounds[0] if sequence.offset == 0.0 else 0.0, bounds[1] - bounds[0]
    return start + span * float(low), start + span * float(high)


def _start(policies: list[SequenceLevels]) -> Sequence:
    return Sequence.of_value(policies[0]) if len(policies) == 1 else Sequence.of_lift(policies[0], policies[1])


def merged(left: Sequence | None, right: Sequence | None) -> Sequence | None:
    """The sequence over both parts of a log, None if either part has none."""
    return left + right if left is not None and right is not None else None
