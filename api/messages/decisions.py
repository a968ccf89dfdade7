"""Messages of the native protocol about decisions, outcomes, receipts and policies. Unknown fields are refused; times
are RFC 3339 in UTC.

Docstrings of these types are texts of the OpenAPI document, which clients read.
"""

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

import msgspec

from api.messages.alarms import RewardAlarmReply
from api.messages.operations import GuardrailReply, OperatorActionReply, ShareReply, StageAlarmReply
from bandit.errors import Problem

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Names = Annotated[list[Name], msgspec.Meta(max_length=100)]
Aware = Annotated[dt.datetime, msgspec.Meta(tz=True)]
UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


_FEATURES = {"additionalProperties": {"type": ["string", "number", "boolean", "null"]}}  # a stage says which fits


class EvidenceIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Evidence of a claim: units left in stock, when an offer ends, and when that was looked up (left
    out: just now).
    """

    stock: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None = None
    deadline: Aware | None = None
    as_of: Aware | None = None


class DecisionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Request for a nudge. Send a `decision_id` (UUID) to make a retry return the same decision.

    Without `stage`, the user's journey says stage, moment and features; what the journey does not say is taken from
    `context`. `deferred`: the nudge may never be shown; the decision is learned from only if an activation is reported.
    """

    stage: Name | None = None
    user_id: UserId
    context: Annotated[dict[Name, Any], msgspec.Meta(max_length=200, extra_json_schema=_FEATURES)] = {}
    evidence: EvidenceIn = EvidenceIn()
    include: Names | None = None
    exclude: Names = []
    consent: Annotated[dict[Name, bool], msgspec.Meta(max_length=20)] = {}
    deferred: bool = False
    decision_id: uuid.UUID | None = None


class DecisionBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 requests, answered in order."""

    decisions: Annotated[list[DecisionRequest], msgspec.Meta(max_length=1000)]


class OutcomeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Report of what happened after a decision. Without `outcome_id`, a decision has one outcome of each kind.

    reward: `value` in the stage's units (1 if left out and binary). activation: the nudge was really shown. retraction:
    takes `value` back, or the whole reward if left out. opt_out: the person wants no more of this (unsubscribed, muted,
    complained); it changes no reward, and guardrails count it. `outcome_token`: as it came with the decision, where the
    catalogue wants it (`rewards_of = "decider"`).
    """

    decision_id: uuid.UUID
    kind: Literal["reward", "activation", "retraction", "opt_out"]
    value: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)] | None = None
    outcome_id: Name | None = None
    occurred_at: Aware | None = None
    outcome_token: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class OutcomeBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 outcomes, answered in order."""

    outcomes: Annotated[list[OutcomeRequest], msgspec.Meta(max_length=1000)]


class NudgeOut(msgspec.Struct, frozen=True):
    """The nudge to show, with the payload that the catalogue declares; `none` is no nudge."""

    id: str
    type: str
    format: str
    payload: dict[str, Any]


class ReleaseOut(msgspec.Struct, frozen=True, kw_only=True):
    """An approved snapshot: `number` in this ledger, `version` in the registry. `sha256` is that of its policy.json.
    `judge`, where it is true: the snapshot is a candidate, and decided one half.
    """

    number: int
    model: str
    version: str
    sha256: str
    judge: bool | msgspec.UnsetType = msgspec.UNSET


class DecisionReply(msgspec.Struct, frozen=True, kw_only=True):
    """A decision. `propensities` holds the probability of every eligible arm, `excluded` every other arm with its
    reason.

    `moment`, where the journey was asked: the moment that holds, or null for "not now". `release`: the approved
    snapshot that decided, where one did. `outcome_token`, where outcomes have to bring it.
    """

    decision_id: uuid.UUID
    stage: str
    nudge: NudgeOut
    propensity: float
    propensities: dict[str, float]
    excluded: dict[str, str]
    policy: str
    policy_version: int
    holdout: bool
    expires_at: dt.datetime
    notes: list[str]
    duplicate: bool = False
    moment: str | msgspec.UnsetType | None = msgspec.UNSET
    release: ReleaseOut | msgspec.UnsetType = msgspec.UNSET
    outcome_token: str | msgspec.UnsetType = msgspec.UNSET


class OutcomeReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an outcome. `late`: it came after the decision matured; it is recorded, and not learned.
    `corrects`, only where true: it came after that too, but within the stage's grace, so that what was learned is
    corrected. `notes`: what counts otherwise than it was sent.
    """

    recorded: bool
    duplicate: bool
    late: bool = False
    corrects: bool | msgspec.UnsetType = msgspec.UNSET
    notes: list[str] | msgspec.UnsetType = msgspec.UNSET


class ProblemReply(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457 problem details; `errors` names each field and its fix. `request_id`: what the answer's X-Request-Id and
    the service's log call the request; items of a batch have none of their own.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: list[Problem] = []
    request_id: str | msgspec.UnsetType = msgspec.UNSET


class DecisionItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer of a batch: `decision` with status 200, or `problem` with the status it would have had alone."""

    status: int
    decision: DecisionReply | None = None
    problem: ProblemReply | None = None


class DecisionReplies(msgspec.Struct, frozen=True):
    """One answer for each request, in order."""

    decisions: list[DecisionItem]


class OutcomeItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer of a batch: `outcome` with status 200, or `problem` with the status it would have had alone."""

    status: int
    outcome: OutcomeReply | None = None
    problem: ProblemReply | None = None


class OutcomeReplies(msgspec.Struct, frozen=True):
    """One answer for each outcome, in order."""

    outcomes: list[OutcomeItem]


class ReceiptOutcome(msgspec.Struct, frozen=True):
    """An outcome of a decision as the ledger holds it. `late`: it came after the decision matured and
    was not learned. `reporter`: name of the API key that reported it first, empty if that was not recorded.
    `retracted_at`, only where it was: since then it does not count, because what its key reported was retracted.
    """

    outcome_id: str
    kind: str
    value: float | None
    occurred_at: dt.datetime
    received_at: dt.datetime
    late: bool
    reporter: str
    retracted_at: dt.datetime | msgspec.UnsetType = msgspec.UNSET


class ReceiptSettlement(msgspec.Struct, frozen=True):
    """How a decision ended: its `reward` in the stage's units, and `why`. `seq` is the version of the policy that had
    learned it.
    """

    seq: int
    reward: float
    why: str
    learned: bool
    settled_at: dt.datetime


class ArmScore(msgspec.Struct, frozen=True):
    """Scores of one arm: expected reward in [0, 1] of its range, its standard deviation as sampled, and the probability
    with which the arm was drawn.
    """

    mean: float
    sd: float
    propensity: float


class LossReply(msgspec.Struct, frozen=True, kw_only=True):
    """Loss account of a stage: what learning may cost against no nudge, and the `share` of the traffic that it may
    decide for that, exactly as it entered the probabilities (times the stage's `ramp`). `declared`: share of what is
    earned with no nudge; `effective`: the part of it that may be lost at this traffic.

    Amounts are in the app's currency, 0 before a day of traffic: `budget` of a month, or of all traffic so far if that
    is more; `reserve`: the part of it that is not spent; `spent` so far over no nudge (below 0: earned), with the ends
    of its 90 % interval; `left`: what may still be lost (budget − reserve − spent_at_most, where the loss is kept);
    `daily`: what a day may cost if the policy decides all traffic. `why`: why the share is what it is, and what would
    change it.
    """

    share: float
    declared: float
    effective: float
    budget: float
    reserve: float
    spent: float
    spent_at_least: float
    spent_at_most: float
    left: float
    daily: float
    why: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the ledger knows of a decision, enough to recompute it: inputs `x` and `u`, scores and propensities of
    the arms, outcomes, and how it settled. `candidate`, while one was judged: its own probability of each arm; the
    propensities are half of these and half of the live policy's. `corrected`: settlements that `settled` corrects, in
    order; left out where it is the only one. `loss`: the loss account of the policy that decided;
    null where there was none, and for decisions recorded before ledgers kept it.
    """

    decision_id: uuid.UUID
    seq: int
    stage: str
    nudge: NudgeOut
    decided_at: dt.datetime
    expires_at: dt.datetime
    policy: str
    policy_version: int
    release: ReleaseOut | None
    loss: LossReply | None
    spec: str
    holdout: bool
    x: dict[str, float]
    eligible: list[str]
    excluded: dict[str, str]
    evidence: dict[str, Any]
    arms: dict[str, ArmScore]
    candidate: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    u: float
    notes: list[str]
    outcomes: list[ReceiptOutcome]
    settled: ReceiptSettlement | None
    corrected: list[ReceiptSettlement] | msgspec.UnsetType = msgspec.UNSET


class RecomputationReply(msgspec.Struct, frozen=True, kw_only=True):
    """Recomputation of a decision from the ledger. `verdict`: "equal", to the bit; "different" in the parts named in
    `differences`; "forgotten" where what was learned from people who are erased since is missing and the rest is equal;
    "impossible" where the ledger does not hold what it was computed from. `said`: the same in words.
    """

    decision_id: uuid.UUID
    verdict: Literal["equal", "different", "forgotten", "impossible"]
    differences: list[str]
    said: str


class StageReply(msgspec.Struct, frozen=True, kw_only=True):
    """A stage as declared, with the `holdout` that counts now. `window_seconds`: the attribution window as it runs
    here; `declared_seconds`: as written.
    """

    stage: str
    description: str
    features: dict[str, Any]
    nudges: dict[str, Any]
    reward: dict[str, Any]
    window_seconds: float
    declared_seconds: float
    floor: float
    holdout: float
    activation: str
    policy: dict[str, Any]


class StagesReply(msgspec.Struct, frozen=True):
    """The stages of the app, as its catalogue declares them."""

    app: str
    currency: str
    stages: list[StageReply]


class ArmReply(msgspec.Struct, frozen=True):
    """What one arm has taught: settled and learned decisions, and the mean reward of those (null before any)."""

    arm: str
    learned: int
    mean_reward: float | None


class BudgetReply(msgspec.Struct, frozen=True):
    """Budget of a nudge in its present period, in the app's currency. `committed`: spent, or reserved until decisions
    settle.
    """

    nudge: str
    amount: float
    committed: float
    left: float
    period_ends_at: dt.datetime


class AlarmReply(msgspec.Struct, frozen=True):
    """Alarm of drift: rewards of an arm moved away from what was expected. What was learned before
    weighs less since.
    """

    arm: str
    direction: str
    raised_at: dt.datetime
    through_version: int


class NudgePriceReply(msgspec.Struct, frozen=True, kw_only=True):
    """Price of a nudge at a stage: what showing one costs later rewards, in the app's currency, with its 95 % interval.

    `charged`: whether the choice counts it; a stage that declares a `price` counts that. `evidence`: what it rests on,
    in words, of so many settled `decisions` of `people`, `nudges` and `opt_outs`.
    """

    price: float
    low: float
    high: float
    charged: bool
    evidence: str
    decisions: int
    people: int
    nudges: int
    opt_outs: int


class HoldoutReply(msgspec.Struct, frozen=True, kw_only=True):
    """Audit by the holdout: what a person brought at the stage in all, in the app's currency, with nudges (`people` of
    them) and in the holdout; the difference, and its 95 % interval (null where a group has fewer than two people).
    """

    with_nudges: float
    people: int
    without: float
    holdout: int
    difference: float
    low: float | None
    high: float | None


class OverLimitReply(msgspec.Struct, frozen=True, kw_only=True):
    """User over the stage's contribution limit: `user` is the ledger's hash of the id; how many of their decisions were
    over the limit within its last period, and when the newest was made.
    """

    user: str
    decisions: int
    newest: dt.datetime


class PolicyReply(msgspec.Struct, frozen=True, kw_only=True):
    """A live policy. `version` counts the settlements of the ledger up to the last one it learned.

    `release`: the approved snapshot that it is; null where what has been learned so far decides. `loss`: its loss
    account; null where the stage bounds no loss. `nudge_price`: null where the policy learns none; `holdout` stands
    beside it as an audit, null where nobody is in a holdout. `ramp`, `holdout_share`: shares of the traffic that the
    policy decides, and of people who get no nudge. `paused`: what operators did that keeps nudges from being shown now;
    `guardrails`: of each nudge, where the stage declares one; `alarms`: those
    that the stage declares. `over_limit`: the ten users who are furthest
    over the stage's contribution limit.
    """

    stage: str
    policy: dict[str, Any]
    version: int
    belief_sha256: str
    release: ReleaseOut | None
    loss: LossReply | None
    arms: list[ArmReply]
    paused: list[OperatorActionReply]
    ramp: ShareReply
    holdout_share: ShareReply
    guardrails: list[GuardrailReply]
    alarms: list[StageAlarmReply]
    budgets: list[BudgetReply]
    drift: list[AlarmReply]
    reward_alarms: list[RewardAlarmReply]
    nudge_price: NudgePriceReply | None
    holdout: HoldoutReply | None
    over_limit: list[OverLimitReply]


class PoliciesReply(msgspec.Struct, frozen=True):
    """The live policy of every stage."""

    policies: list[PolicyReply]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """State of the service. `failing` names what does not work now and why; `warnings` what works, and somebody should
    look at. `releases`: by stage, the approved snapshot that decides.
    """

    status: Literal["ok", "failing"]
    app: str
    version: str
    store: dict[str, str]
    failing: dict[str, str]
    warnings: dict[str, str] = {}
    releases: dict[str, str] = {}
