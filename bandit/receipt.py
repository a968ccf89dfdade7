"""Receipts: the comparison of a recorded decision with the same decision recomputed.

Decisions are recorded in an arithmetic that has a number (`numerics.versions`), and computed again in that one. Of
those in arithmetic 1 u, and that the recorded arm is the one drawn at u from the recorded propensities, are compared
exactly; propensities, means and sds to EARLIER.
"""

import numpy as np

from bandit.numerics.versions import SAME_BITS
from bandit.propensity.draw import draw
from bandit.records import Decision

EARLIER = 2e-6
"""Largest difference of a number recorded in arithmetic 1: its last bits, and the grid of 2⁻²⁴ and tables of 2."""


def differences(made: Decision, again: Decision, arms: tuple[str, ...], arithmetic: int) -> list[str]:
    """Names of the parts of `made` that recomputing (`again`) does not confirm: propensity, candidate, mean, sd, u,
    arm, loss_account (where it was recorded); empty if all agree. `arms` are the stage's, `arithmetic` the one in which
    `made` was recorded.
    """
    if arithmetic >= SAME_BITS:
        names = ("propensity", "candidate", "mean", "sd", "u", "arm")
        found = [name for name in names if not np.array_equal(getattr(made, name), getattr(again, name))]
        kept = made.loss_account
        return found if kept is None or kept == again.loss_account else [*found, "loss_account"]
    different = [name for name in ("propensity", "mean", "sd") if not _near(getattr(made, name), getattr(again, name))]
    if made.u != again.u:
        different.append("u")
    if made.arm != made.arms(arms)[draw(made.propensity, again.u)]:
        different.append("arm")
    return different


def _near(made: object, again: object) -> bool:
    return bool(np.allclose(np.asarray(made), np.asarray(again), rtol=EARLIER, atol=EARLIER))
