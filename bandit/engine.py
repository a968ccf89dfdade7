"""Decisions: a prepared snapshot, a question and a time give a `Decision`. The only place where an arm is drawn.

`decide` serves stages whose nudges are declared, `rank` stages whose actions come with the request. The service and the
simulator call the same functions; `recompute` calls them again for a receipt. Pure: no clock, no random generator, no
I/O. Shapes: k arms in the order of the stage's declaration (no nudge first), d features, n rows.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bandit import features, guardrails
from bandit.arrays import Array, Mask
from bandit.errors import InvalidRequest, Problem
from bandit.features import Given, Schema
from bandit.guardrails import ClaimEvidence
from bandit.learning.loss_account import LossAccount
from bandit.policies import Centred
from bandit.policies.centred import CentredPosterior
from bandit.policies.protocol import Posterior, Scores
from bandit.policies.shared import Action, Objects, Shared, least
from bandit.propensity import draw, transforms
from bandit.propensity.floor import affordable, afforded, apportioned, apportioned_many
from bandit.propensity.mixture import half_and_half
from bandit.records import Decision
from bandit.snapshot import Snapshot

_NOBODY = np.zeros(0)


class DecisionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Question of one user at one stage, as `decide` takes it.

    id: of the decision, a UUID that keys the draw: the same id draws the same u.
    context: feature → value, as the stage declares them; features that are left out have their defaults.
    proof: evidence of claims that came with the request (stock, deadline). include, exclude: names of nudges that the
    caller wants alone, or does not want. refused: nudges that may not be shown for a reason from outside, such as a
    spent budget → that reason in words. request: digest of the request, which tells a retry from a conflict.
    moment: what made the journey ask, empty if the caller named the stage. deferred: whether the decision teaches only
    if it is reported that the nudge was really shown. unit: 16 bytes that decide the holdout; empty: those of
    `user_id`. contribution: as the decision records it.
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
    contribution: int = 1


class RankQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Question with actions of its own, as `rank` takes it: the first action is the baseline.

    event: the caller's name of the question; it keys the holdout, because there is no user. context, and the features
    of each action: JSON objects. refused: ids of actions that may not be taken → the reason. The other fields are those
    of `DecisionQuery`.
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
    """Snapshot with its posterior computed: what every decision of a stage is made with until the next is published.

    Immutable, so that any number of threads may decide with one. `spec` is the digest of the stage's declaration.
    `release` is the number of the approved release that the snapshot is, 0 for what the service has learned so far.
    `candidate` is the policy that is judged beside it, None for none: then decisions are drawn from half of each, and
    `release` is the number of the release that brought the candidate (see `beside`).
    """

    snapshot: Snapshot
    spec: str
    schema: Schema
    posterior: Posterior
    release: int = 0
    candidate: "PreparedPolicy | None" = None


class _Draw(NamedTuple):
    """An arm drawn from final propensities: scores (k,), the candidate's own propensities (k,) or (0,) without one, u
    in [0, 1), the number of the arm.
    """

    scores: Scores
    candidate: Array
    u: float
    arm: int


def prepare(snapshot: Snapshot) -> PreparedPolicy:
    """Prepared policy of a snapshot: its posterior is computed once, for all decisions made with it.

    Called whenever a snapshot is published or released, and by whoever recomputes a decision. The same snapshot gives
    the same bits on every processor. Raises PropensityError if the belief has numbers that no posterior has.
    """
    spec = snapshot.stage_spec
    posterior = spec.learner.posterior(snapshot.evidence, snapshot.arms)
    return PreparedPolicy(snapshot, spec.digest(), features.of(spec), posterior)


def beside(live: PreparedPolicy, candidate: PreparedPolicy) -> PreparedPolicy:
    """Prepared policy that decides by half of `live` and half of `candidate`, which is judged so: every decision is
    drawn once from ½ live + ½ candidate, and its row says the candidate's release.

    Each half has the floors of its own declaration. Both have one share of the traffic where the stage accounts for its
    loss: that of the live policy's account. Predictions (mean, sd) in the row are the live policy's.
    """
    return live._replace(candidate=candidate, release=candidate.release)


def decide(live: PreparedPolicy, ask: DecisionQuery, *, now: int, salt: bytes, window_scale: float = 1.0) -> Decision:
    """Decision among the declared arms of a stage: a pure function of its arguments.

    The service calls it once for each request, the simulator once for each simulated user. `now` is in µs since 1970,
    `salt` the secret of the ledger, `window_scale` a factor of all declared durations (1 but in trials). The logged
    propensity is the probability with which the arm was drawn: u is the keyed hash of the decision's id, and the arm is
    the one at u of the inverse CDF of the propensities.

    Raises InvalidRequest, which names every field that cannot be used and its fix; PropensityError if integration
    failed, in which case nothing is drawn.
    """
    stage = live.snapshot.stage_spec
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
    drawn = _draw(live, ask.id, x, allowed.mask, salt)
    return _decision(
        live,
        ask,
        drawn,
        now=now,
        window_scale=window_scale,
        user=user_hash(salt, ask.user_id),
        unit=unit,
        holdout=holdout,
        arm=stage.arms[drawn.arm],
        x=x,
        excluded=allowed.excluded,
        evidence={k: v for k, v in msgspec.structs.asdict(ask.proof).items() if v is not None},
        notes=(*ask.notes, *notes),
        moment=ask.moment,
        contribution=ask.contribution,
    )


def rank(live: PreparedPolicy, ask: RankQuery, *, now: int, salt: bytes, window_scale: float = 1.0) -> Decision:
    """Decision among the actions of a request, for a stage whose policy is `Shared`.

    Arguments (`now` in µs) and guarantees as `decide`. Raises InvalidRequest for features that cannot be used, for a
    stage whose nudges are declared, and if every action is refused.
    """
    policy = live.snapshot.stage_spec.policy
    if not isinstance(policy, Shared):
        raise InvalidRequest(Problem("stage", "its nudges are declared", 'declare policy = { name = "shared" }'))
    phi = policy.encode(ask.context, ask.actions, salt)
    names = tuple(action.id for action in ask.actions)
    may = [name for name in names if name not in ask.refused]
    if not may:
        raise InvalidRequest(Problem("excludedActions", "no action is left", "leave one at least"))
    unit = randomization_unit(salt, ask.event)
    excluded, holdout = dict(ask.refused), in_holdout(unit, live.snapshot.stage_spec.holdout)
    if holdout:
        excluded |= dict.fromkeys(may[1:], "holdout: control events get the first action")
    drawn = _draw(live, ask.id, phi, np.array([name not in excluded for name in names]), salt)
    return _decision(
        live,
        ask,
        drawn,
        now=now,
        window_scale=window_scale,
        user=user_hash(salt, ask.event),
        unit=unit,
        holdout=holdout,
        arm=names[drawn.arm],
        x=phi[drawn.arm],
        excluded=excluded,
        evidence={},
        notes=ask.notes,
        actions=names,
        phi=phi,
    )


def _draw(live: PreparedPolicy, decision: uuid.UUID, x: Array, eligible: Mask, salt: bytes) -> _Draw:
    """Scores at x, and the arm at u, which is the hash of the decision's id under the salt."""
    scores, candidate = _chosen(live, x, eligible)
    u = draw.unit(salt, b"draw", live.snapshot.stage.encode(), decision.bytes)
    return _Draw(scores, candidate, u, draw.draw(scores.propensity, u))


def _decision(
    live: PreparedPolicy, ask: DecisionQuery | RankQuery, drawn: _Draw, *, now: int, window_scale: float, **own: Any
) -> Decision:
    """The ledger's row of a draw; `own` are the fields in which declared arms and request actions differ."""
    snapshot = live.snapshot
    return Decision(
        id=ask.id,
        at=now,
        expires=now + max(1, round(snapshot.stage_spec.reward.seconds * window_scale * 1e6)),
        stage=snapshot.stage,
        stage_digest=live.spec,
        settlement_version=snapshot.version,
        pending_basis=snapshot.pending_basis,
        request=ask.request,
        propensity=drawn.scores.propensity,
        candidate=drawn.candidate,
        mean=drawn.scores.mean,
        sd=drawn.scores.sd,
        u=drawn.u,
        deferred=ask.deferred,
        release=live.release,
        loss_account=snapshot.loss_account,
        **own,
    )


def choose(live: PreparedPolicy, x: Array, eligible: Mask) -> Scores:
    """Scores (k,) and final propensities (k,) at one context: what `decide` draws from.

    x (d,), or φ (k, D) of all actions where they come with the request; eligible (k,), at least one True. The policy's
    own propensities go through top-two and ramp, if the stage declares them, then through the floor, and end on the
    grid of 2⁻²⁴, where they sum to 1 exactly. While a candidate is judged they are half of each policy's. Raises
    PropensityError if integration failed.
    """
    return _chosen(live, x, eligible)[0]


def _chosen(live: PreparedPolicy, x: Array, eligible: Mask) -> tuple[Scores, Array]:
    """Scores and final propensities (k,), and the candidate's own, (k,) or (0,) where none is judged."""
    scores = live.posterior.choose(x, eligible)
    own, account = _final(live, scores, eligible), live.snapshot.loss_account
    if live.candidate is None:
        return scores._replace(propensity=own), _NOBODY
    candidate = _final(live.candidate, live.candidate.posterior.choose(x, eligible), eligible, account)
    return scores._replace(propensity=half_and_half(own, candidate)), candidate


def choose_many(live: PreparedPolicy, x: Array, eligible: Mask) -> Scores:
    """Scores and final propensities (n, k) at n contexts: the bits of `choose`, whatever the other rows.

    x (n, d), eligible (n, k); for a stage with request actions x is φ (n, k, D) of n requests of k actions each. Costs
    a fraction of n calls of `choose` (benchmarks/load/batch.py). Raises InvalidRequest for shapes that do not fit,
    values that are not finite, and rows in which nothing is eligible.
    """
    _check(live, x, eligible)
    if len(x) == 0:
        return Scores(*(np.zeros(eligible.shape) for _ in Scores._fields))
    scores = live.posterior.choose_many(x, eligible)
    own, account = _final(live, scores, eligible), live.snapshot.loss_account
    if live.candidate is None:
        return scores._replace(propensity=own)
    candidate = _final(live.candidate, live.candidate.posterior.choose_many(x, eligible), eligible, account)
    return scores._replace(propensity=half_and_half(own, candidate))


def _final(live: PreparedPolicy, scores: Scores, eligible: Mask, account: LossAccount | None = None) -> Array:
    """Propensities (k,) or (n, k) of one policy as they are drawn from: the last step of one decision and of many.
    `account`: the loss account that counts instead of the snapshot's own, which a candidate's is not.
    """
    spec, p = live.snapshot.stage_spec, scores.propensity
    if p.ndim == 2 and spec.has_request_actions:  # each request has a floor of its own
        rows = zip(*scores, eligible, strict=True)
        return np.array([_final(live, Scores(*row), may, account) for *row, may in rows])
    many = p.ndim == 2
    if spec.top_two is not None:
        p = transforms.top_two_many(p, spec.top_two) if many else transforms.top_two(p, spec.top_two)
    account = account or live.snapshot.loss_account
    share = spec.traffic if account is None else spec.traffic * account.share
    policy = spec.policy
    if not many and spec.floor is None and isinstance(policy, Centred):
        gain, cost = _worth(live)
        return afforded(p, scores.mean, gain, cost, share, policy.prior_mean, eligible)
    if share < 1.0:
        p = transforms.ramp(p, share)
    floor = _floor(live, scores, share, eligible, bounded=account is not None)
    return apportioned_many(p, floor, eligible) if many else apportioned(p, floor, eligible)


def _floor(live: PreparedPolicy, scores: Scores, share: float, eligible: Mask, *, bounded: bool) -> float | Array:
    """Least probability of each eligible arm: as declared; else what the policy can afford in n rows, (n, k), or its
    share of the standard floor where a loss account bounds a policy that cannot tell (a judged candidate).
    """
    spec, policy = live.snapshot.stage_spec, live.snapshot.stage_spec.policy
    if spec.has_request_actions:
        return least(spec.common_floor, eligible)
    if spec.floor is None and bounded and not isinstance(policy, Centred):
        return share * spec.common_floor
    if spec.floor is not None or not isinstance(policy, Centred):
        return spec.common_floor
    gain, cost = _worth(live)
    return affordable(gain * scores.mean - cost, eligible, share, policy.prior_mean)


def _worth(live: PreparedPolicy) -> tuple[Array, Array]:
    """Gain and cost (k,) of the arms, by which floors are afforded."""
    known = live.posterior
    arms = known.arms if isinstance(known, CentredPosterior) else live.snapshot.stage_spec.arm_economics
    return arms.gain, arms.cost


def _check(live: PreparedPolicy, x: Array, eligible: Mask) -> None:
    spec, d = live.snapshot.stage_spec, len(live.schema.columns)
    k = x.shape[1] if spec.has_request_actions and x.ndim == 3 else len(spec.arms)
    shape = (len(x), k, d) if spec.has_request_actions else (len(x), d)
    if x.shape != shape or not np.isfinite(x).all():
        fix = (
            f"finite numbers (n, actions, {d}), as the policy encodes"
            if spec.has_request_actions
            else (f"n rows of {d} finite numbers, as `features` encodes")
        )
        raise InvalidRequest(Problem("x", f"shape {x.shape}", fix))
    if eligible.shape != (len(x), k) or not eligible.any(axis=1).all():
        fix = f"({len(x)}, {k}), with at least one arm in each row"
        raise InvalidRequest(Problem("eligible", f"shape {eligible.shape}, or a row of no arm", fix))


def recompute(live: PreparedPolicy, decision: Decision, salt: bytes) -> Decision:
    """Decision computed again from what its ledger row holds and the snapshot of its version: what a receipt compares.

    Equal to the recorded one bit for bit, on any processor, if the ledger and the snapshot are what they were. `live`
    must be the snapshot that the decision was made with, `salt` the ledger's. A decision that was recorded in an
    earlier arithmetic is computed within `versions.recorded_in`. Raises PropensityError if integration failed.
    """
    arms = decision.arms(live.snapshot.stage_spec.arms)
    eligible = np.array([arm not in decision.excluded for arm in arms])
    x = decision.phi if decision.actions else decision.x
    scores, candidate, u, number = _draw(live, decision.id, x, eligible, salt)
    return msgspec.structs.replace(
        decision,
        propensity=scores.propensity,
        candidate=candidate,
        mean=scores.mean,
        sd=scores.sd,
        u=u,
        arm=arms[number],
        loss_account=live.snapshot.loss_account,
    )


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


def outcome_token(salt: bytes, decision: uuid.UUID) -> str:
    """Token of a decision, which its outcomes have to bring where a catalogue says so: 128 bits of keyed BLAKE2b over
    its id, 32 hex digits. Nobody without the salt can make one.
    """
    return hashlib.blake2b(decision.bytes, digest_size=16, key=salt, person=b"outcome token").hexdigest()


def pseudonym(salt: bytes, text: str) -> str:
    """What the ledger stores instead of a personal text: the keyed hash that it has of a user of that id, 32 hex
    digits.
    """
    return user_hash(salt, text).hex()
