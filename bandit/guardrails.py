"""Which nudges may be shown now, and why not the others. Runs before propensities, so they account for it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.catalogue import NONE, Nudge, Stage
from bandit.decoding import closest
from bandit.errors import InvalidRequest, Problem


class Proof(msgspec.Struct, frozen=True):
    """Evidence that came with a request: units in stock, and when the offer ends (microseconds since 1970)."""

    stock: int | None = None
    deadline: int | None = None


class Eligible(NamedTuple):
    """`mask` (k,) in the stage's order, and the reason of each exclusion."""

    mask: NDArray[np.bool_]
    excluded: dict[str, str]


def eligible(
    stage: Stage,
    *,
    holdout: bool,
    proof: Proof,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    refused: Mapping[str, str],
    now: int,
) -> Eligible:
    """`refused`: nudges that may not be shown for a reason from outside, such as a budget. No nudge is always eligible.

    InvalidRequest if a list names an unknown nudge, or excludes `none`.
    """
    _check_lists(stage, include, exclude)
    excluded = {}
    for name, nudge in stage.nudges.items():
        reason = (
            "holdout: this user is in the control group"
            if holdout
            else "paused in the catalogue"
            if nudge.paused
            else "not in the request's include list"
            if include is not None and name not in include
            else "in the request's exclude list"
            if name in exclude
            else _unproven(nudge, proof, now) or refused.get(name)
        )
        if reason:
            excluded[name] = reason
    return Eligible(np.array([arm not in excluded for arm in stage.arms]), excluded)


def _unproven(nudge: Nudge, proof: Proof, now: int) -> str | None:
    """Why the nudge's claim cannot be made, or None."""
    if nudge.evidence is None:
        return None
    if nudge.evidence.kind == "stock":
        most = nudge.evidence.at_most
        if proof.stock is None:
            return "no evidence: send evidence.stock, the units left"
        if most is not None and not 1 <= proof.stock <= most:
            return f"not true: stock is {proof.stock}, the claim needs 1 to {most}"
        return None
    if proof.deadline is None:
        return "no evidence: send evidence.deadline, when the offer ends"
    return None if proof.deadline > now else "not true: the deadline has passed"


def _check_lists(stage: Stage, include: Sequence[str] | None, exclude: Sequence[str]) -> None:
    problems = [
        Problem(f"{field}[{i}]", f"this stage has no nudge {name!r}", closest(name, stage.arms))
        for field, names in (("include", include or ()), ("exclude", exclude))
        for i, name in enumerate(names)
        if name not in stage.arms
    ]
    if NONE in exclude:
        fix = "leave it out; showing nothing is always possible"
        problems.append(Problem("exclude", "no nudge cannot be excluded", fix))
    if problems:
        raise InvalidRequest(*problems)
