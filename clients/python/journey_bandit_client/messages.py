"""What is sent and what comes back, as typed values. Fields that a later service adds to its answers are ignored."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec


def new_id() -> uuid.UUID:
    """Random UUID (version 4) of a decision or an event."""
    return uuid.uuid4()


def _new_text_id() -> str:
    return str(uuid.uuid4())


Feature = str | float | bool | None
"""Value of a feature of a context; None takes the default that the catalogue declares."""


class OfferEvidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Evidence of a claim: units left in `stock`, the `deadline` of an offer, and when that was looked up (`as_of`;
    left out: now). Times have a time zone.
    """

    stock: int | None = None
    deadline: dt.datetime | None = None
    as_of: dt.datetime | None = None


class NudgeRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Request for a nudge. Without `stage`, the user's journey says stage, moment and features. One request is one
    decision: its `decision_id` is made with it, so that sending it again gets the same answer.
    """

    user_id: str
    stage: str | None = None
    context: Mapping[str, Feature] = {}
    evidence: OfferEvidence = OfferEvidence()
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    consent: Mapping[str, bool] = {}
    deferred: bool = False
    decision_id: uuid.UUID = msgspec.field(default_factory=new_id)


class OfferedNudge(msgspec.Struct, frozen=True):
    """Nudge to show, with the payload that the catalogue declares. The id `none` is no nudge."""

    id: str
    type: str
    format: str
    payload: dict[str, Any]


NO_NUDGE = OfferedNudge("none", "none", "none", {})
"""No nudge: what a degraded decision shows where nothing else is declared."""


class ServingRelease(msgspec.Struct, frozen=True, kw_only=True):
    """Approved version that decided: `number` in the ledger, `version` in the registry."""

    number: int
    model: str
    version: str
    sha256: str
    judge: bool = False


class NudgeDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Decision of the service; or, where `degraded`, the fallback because none came in time (`why`).

    A degraded decision has no id and no propensity: nothing can be reported for it. `propensities`: probability of
    every eligible arm; `excluded`: reason of every other one. `moment`: the moment of the journey that holds, None for
    "not now", and where a stage was named. `release`: the approved version that decided, None where what is learned
    live did. `outcome_token`: what its outcomes have to bring, where the service wants one; reports of this decision
    pass it along.
    """

    nudge: OfferedNudge
    decision_id: uuid.UUID | None
    stage: str | None
    propensity: float | None = None
    propensities: dict[str, float] = {}
    excluded: dict[str, str] = {}
    policy: str = ""
    policy_version: int = 0
    holdout: bool = False
    expires_at: dt.datetime | None = None
    notes: list[str] = []
    duplicate: bool = False
    moment: str | None = None
    release: ServingRelease | None = None
    outcome_token: str | None = None
    degraded: bool = False
    why: str = ""


class OutcomeReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened after a decision. Without `outcome_id` a decision has one outcome of each kind, so that a report is
    repeated safely as it is; several rewards need ids of their own. `value` in the stage's units.
    """

    decision_id: uuid.UUID
    kind: Literal["reward", "activation", "retraction", "opt_out"]
    value: float | None = None
    outcome_id: str | None = None
    occurred_at: dt.datetime | None = None
    outcome_token: str | None = None


class ReportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an outcome. `recorded` is false only where it was not sent, because its decision is degraded.
    `late`: it came after the decision was settled, and teaches nothing, unless it `corrects`.
    """

    recorded: bool
    duplicate: bool = False
    late: bool = False
    corrects: bool = False
    notes: list[str] = []


class UserEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that a user did. Its `event_id` is made with it, so that sending it again counts nothing twice; give
    your own (an order number) where your program may make the same event again.
    """

    event: str
    user_id: str | None = None
    anonymous_id: str | None = None
    properties: Mapping[str, Any] = {}
    occurred_at: dt.datetime | None = None
    event_id: str = msgspec.field(default_factory=_new_text_id)


class EventResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an event. `known`: the catalogue declares it. `credited`: the decision of each stage that it is
    credited to; `not_credited`: why it is credited to none.
    """

    recorded: bool
    duplicate: bool
    known: bool
    credited: dict[str, uuid.UUID] = {}
    not_credited: dict[str, str] = {}
    notes: list[str] = []


class UserJourney(msgspec.Struct, frozen=True, kw_only=True):
    """Where a user is: stage and moment (None: not now) and `why`, and which nudges may be shown now."""

    stage: str
    moment: str | None
    why: str
    visits: int
    features: dict[str, str | float | bool]
    consent: list[str]
    eligible: list[str]
    excluded: dict[str, str]
    visit_began_at: dt.datetime | None = None
    last_event_at: dt.datetime | None = None
