"""decide(): snapshot + request + time → Decision. The only place where an arm is drawn.

The service and the simulator call the same function; given the ledger row, anybody can call it again.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import features, guardrails
from bandit.arrays import Array, Mask
from bandit.catalogue.model import Stage
from bandit.errors import InvalidRequest, Problem
from bandit.features import Given, Schema
from bandit.guardrails import ClaimEvidence
from bandit.policies.protocol import Posterior, Scores
from bandit.policies.shared import Action, Objects, Shared, least
from bandit.propensity import draw, transforms
from bandit.propensity.floor import apportioned, apportioned_many
from bandit.records import Decision
from bandit.snapshot import Snapshot


class RankQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Actions that a caller offers, the baseline first, and what is known. `event` keys the holdout: there is no user.

    refused: actions that may not be taken → the reason.
    """

    id: uuid.UUID
    event: str
    context: Objects
    actions: Sequence[Action]
    refused: Mapping[str, str] = {}
    request: bytes = b""
    deferred: bool = False
    notes: tuple[str, ...] = ()


class PreparedPolicy(NamedTuple):
    """A snapshot made ready: what decisions are made with until the next one is published."""

    snapshot: Snapshot
    spec: str  # digest of the stage's declaration
    schema: Schema
    posterior: Posterior
    release: int = 0  # number of the approved release it is; 0: what has been learned here so far


class DecisionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks. `id` keys the draw; `unit` decides the holdout: the person's, or that of `user_id` if empty.

    refused: nudges that may not be shown for a reason from outside, such as a budget → that reason. moment: what made
    the journey ask. deferred: teach only if it is reported that it was really shown.
    """

    id: uuid.UUID
    user_id: str
    context: Mapping[str, Given]
    proof: ClaimEvidence = ClaimEvidence()
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    request: bytes = b""
    refused: Mapping[str, str] = {}
    moment: str = ""
    notes: tuple[str, ...] = ()
    deferred: bool = False
    unit: bytes = b""


def prepare(snapshot: Snapshot) -> PreparedPolicy:
    """Compute the posterior once for all decisions of this snapshot."""
    spec = snapshot.stage_spec
    posterior = spec.learner.posterior(snapshot.evidence, snapshot.arms)
    return PreparedPolicy(snapshot, spec.digest(), features.of(spec), posterior)


def decide(live: PreparedPolicy, ask: DecisionQuery, *, now: int, salt: bytes, window_scale: float = 1.0) -> Decision:
    """One decision, a pure function of its arguments. InvalidRequest names every field that cannot be used."""
    snapshot = live.snapshot
    stage = snapshot.stage_spec
    x, notes = features.encode(live.schema, ask.context)
    unit = ask.unit or randomization_unit(salt, ask.user_id)
    holdout = in_holdout(unit, stage.holdout)
    allowed = guardrails.eligible(
        stage,
        holdout=holdout,
        proof=ask.proof,
        include=ask.include,
        exclude=ask.exclude,
        refused=ask.refused,
        now=now,
        scale=window_scale,
    )
    scores = choose(live, x, allowed.mask)
    u = draw.unit(salt, b"draw", snapshot.stage.encode(), ask.id.bytes)
    return Decision(
        id=ask.id,
        at=now,
        expires=_expires(stage, now, window_scale),
        stage=snapshot.stage,
        stage_digest=live.spec,
        settlement_version=snapshot.version,
        pending_basis=snapshot.pending_basis,
        user=user_hash(salt, ask.user_id),
        unit=unit,
        request=ask.request,
        x=x,
        propensity=scores.propensity,
        mean=scores.mean,
        sd=scores.sd,
        u=u,
        arm=stage.arms[draw.draw(scores.propensity, u)],
        holdout=holdout,
        excluded=allowed.excluded,
        evidence={k: v for k, v in msgspec.structs.asdict(ask.proof).items() if v is not None},
        notes=(*ask.notes, *notes),
        moment=ask.moment,
        deferred=ask.deferred,
        release=live.release,
    )


def _expires(stage: Stage, now: int, window_scale: float) -> int:
    """When the attribution window of a decision made `now` ends, in µs."""
    return now + max(1, round(stage.reward.seconds * window_scale * 1e6))


def rank(live: PreparedPolicy, ask: RankQuery, *, now: int, salt: bytes, window_scale: float = 1.0) -> Decision:
    """One decision among the actions of a request. InvalidRequest for what cannot be used, and if all are refused."""
    snapshot, policy = live.snapshot, live.snapshot.stage_spec.policy
    if not isinstance(policy, Shared):
        raise InvalidRequest(Problem("stage", "its nudges are declared", 'declare policy = { name = "shared" }'))
    phi = policy.encode(ask.context, ask.actions)
    names = tuple(action.id for action in ask.actions)
    may = [name for name in names if name not in ask.refused]
    if not may:
        raise InvalidRequest(Problem("excludedActions", "no action is left", "leave one at least"))
    unit = randomization_unit(salt, ask.event)
    excluded, holdout = dict(ask.refused), in_holdout(unit, snapshot.stage_spec.holdout)
    if holdout:
        excluded |= dict.fromkeys(may[1:], "holdout: control events get the first action")
    scores = choose(live, phi, np.array([name not in excluded for name in names]))
    u = draw.unit(salt, b"draw", snapshot.stage.encode(), ask.id.bytes)
    drawn = draw.draw(scores.propensity, u)
    return Decision(
        id=ask.id,
        at=now,
        expires=_expires(snapshot.stage_spec, now, window_scale),
        stage=snapshot.stage,
        stage_digest=live.spec,
        settlement_version=snapshot.version,
        pending_basis=snapshot.pending_basis,
        user=user_hash(salt, ask.event),
        unit=unit,
        request=ask.request,
        x=phi[drawn],
        propensity=scores.propensity,
        mean=scores.mean,
        sd=scores.sd,
        u=u,
        arm=names[drawn],
        holdout=holdout,
        excluded=excluded,
        evidence={},
        notes=ask.notes,
        deferred=ask.deferred,
        actions=names,
        phi=phi,
        release=live.release,
    )


def choose(live: PreparedPolicy, x: Array, eligible: Mask) -> Scores:
    """Scores and *final* propensities: the policy's own, then top-two, then ramp, and last the
    floor and the grid of 2⁻²⁴ that is drawn from. `x`: φ (K, D) of
    all actions where they come with the request.
    """
    scores, spec = live.posterior.choose(x, eligible), live.snapshot.stage_spec
    p = scores.propensity
    if spec.top_two is not None:
        p = transforms.top_two(p, spec.top_two)
    if spec.ramp < 1.0:
        p = transforms.ramp(p, spec.ramp)
    floor = least(spec.floor, eligible) if spec.has_request_actions else spec.floor
    return scores._replace(propensity=apportioned(p, floor, eligible))


def choose_many(live: PreparedPolicy, x: Array, eligible: NDArray[np.bool_]) -> Scores:
    """`choose` for n contexts at once: x (n, d), eligible (n, k); every part of the result is (n, k).

    The bits of `choose`, at a fraction of its cost (benchmarks/load/batch.py), whatever the other rows.
    InvalidRequest for shapes that do not fit, values that are not finite, and rows in which nothing is eligible.
    """
    _check(live, x, eligible)
    spec = live.snapshot.stage_spec
    if len(x) == 0:
        return Scores(*(np.zeros((0, len(spec.arms))) for _ in Scores._fields))
    scores = live.posterior.choose_many(x, eligible)
    p = scores.propensity
    if spec.top_two is not None:
        p = transforms.top_two_many(p, spec.top_two)
    if spec.ramp < 1.0:
        p = transforms.ramp(p, spec.ramp)
    return scores._replace(propensity=apportioned_many(p, spec.floor, eligible))


def _check(live: PreparedPolicy, x: Array, eligible: NDArray[np.bool_]) -> None:
    d, k = len(live.schema.columns), len(live.snapshot.stage_spec.arms)
    if x.ndim != 2 or x.shape[1] != d or not np.isfinite(x).all():
        raise InvalidRequest(Problem("x", f"shape {x.shape}", f"n rows of {d} finite numbers, as `features` encodes"))
    if eligible.shape != (len(x), k) or not eligible.any(axis=1).all():
        fix = f"({len(x)}, {k}), with at least one arm in each row"
        raise InvalidRequest(Problem("eligible", f"shape {eligible.shape}, or a row of no arm", fix))


def recompute(live: PreparedPolicy, decision: Decision, salt: bytes) -> Decision:
    """The decision again, from what its ledger row holds and the snapshot of its version. Equal bit for bit."""
    arms = decision.arms(live.snapshot.stage_spec.arms)
    eligible = np.array([arm not in decision.excluded for arm in arms])
    scores = choose(live, decision.phi if decision.actions else decision.x, eligible)
    u = draw.unit(salt, b"draw", decision.stage.encode(), decision.id.bytes)
    arm = arms[draw.draw(scores.propensity, u)]
    return msgspec.structs.replace(decision, propensity=scores.propensity, mean=scores.mean, sd=scores.sd, u=u, arm=arm)


def randomization_unit(salt: bytes, user_id: str) -> bytes:
    """What groups are drawn from, 16 bytes: the id's place in [0, 1) as 8 bytes, then 8 bytes of its hash.

    A person keeps the unit of the id under which they were first given a decision, whichever id asks later.
    """
    place = round(draw.unit(salt, b"holdout", user_id.encode()) * 2**53) << 11
    return place.to_bytes(8, "big") + user_hash(salt, user_id)[:8]


def unit_from_group(user: bytes, *, held: bool, share: float) -> bytes:
    """A unit for a person of whom only an older decision is known, which recorded the group and not the unit: a place
    inside that group. `share` is the holdout's when it was made.
    """
    low, high = (0.0, share) if held else (share, 1.0)
    place = low + (high - low) * (int.from_bytes(user[8:], "big") >> 11) * 2.0**-53
    return (round(min(place, 1.0 - 2.0**-53) * 2**53) << 11).to_bytes(8, "big") + user[:8]


def in_holdout(unit: bytes, share: float) -> bool:
    """Whether a unit is in the control group. One place for all stages: who is held out at 5 % is held out at 10 %."""
    return (int.from_bytes(unit[:8], "big") >> 11) * 2.0**-53 < share


def user_hash(salt: bytes, user_id: str) -> bytes:
    """What the ledger stores instead of the user's id: 16 bytes of keyed BLAKE2b."""
    return hashlib.blake2b(user_id.encode(), digest_size=16, key=salt, person=b"user").digest()
