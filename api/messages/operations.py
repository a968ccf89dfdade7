"""Messages about what operators do to nudges, and to a stage's traffic, while the service runs."""

import datetime as dt
from typing import Annotated

import msgspec

from bandit.catalogue.limits import AlarmAction, BadEvent
from bandit.records import OperatorVerb

WHO_LENGTH, REASON_LENGTH = 200, 500
"""Most characters of who had something done, and of why."""


class OperatorActionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Request to pause, resume or retire a nudge. `nudge`: its name; left out, all nudges of the stage are meant. `by`:
    who had it done, and `reason` why: both are kept in the ledger, and decisions from which the nudge is excluded say
    them.
    """

    by: Annotated[str, msgspec.Meta(min_length=1, max_length=WHO_LENGTH)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_LENGTH)]
    nudge: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


class TrafficRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Request to set the ramp, or the holdout, of a stage. `share`: of the traffic that the policy decides (above 0, up
    to 1), or of people who get no nudge (0 or more, below 1); null: as declared again. `by`: who had it done, and
    `reason` why: both are kept in the ledger.
    """

    by: Annotated[str, msgspec.Meta(min_length=1, max_length=WHO_LENGTH)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_LENGTH)]
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] | None


class ShareReply(msgspec.Struct, frozen=True, kw_only=True):
    """Ramp or holdout of a stage: the share that counts now, the one that is `declared`, by the catalogue or by the
    release that decides, and the action of an operator who set it, null for none.
    """

    share: float
    declared: float
    set: "OperatorActionReply | None"


class OperatorActionReply(msgspec.Struct, frozen=True, kw_only=True):
    """Action of an operator as the ledger keeps it. `nudge`: null for all nudges of the stage. `share`: the ramp or
    holdout that was set, null for "as declared", and for other actions. `who`: the key that was presented, and whom its
    holder named.
    """

    number: int
    stage: str
    nudge: str | None
    action: OperatorVerb
    who: str
    reason: str
    share: float | None
    at: dt.datetime


class GuardrailReply(msgspec.Struct, frozen=True, kw_only=True):
    """Guardrail of one nudge: of so many `decisions` that have matured since it was last resumed, `bad` were followed
    by an event `of` these kinds; the stage declares a share of `at_most`. `e_value`: evidence that it is more, which
    reaches `raised_from` by chance in a share of `alpha` at most, for ever; `raised`: it has, after the declared number
    of decisions.
    """

    nudge: str
    decisions: int
    bad: int
    of: list[BadEvent]
    at_most: float
    alpha: float
    e_value: float
    raised_from: float
    raised: bool


class StageAlarmReply(msgspec.Struct, frozen=True):
    """Alarm of a stage as a whole: `collapse` of exploration, `silence` of outcomes, or a fall of who is `eligible`;
    whether it is `raised`, what was `seen`, and what is done `then`, as the catalogue declares.
    """

    alarm: str
    raised: bool
    seen: str
    then: AlarmAction


class OperatorActionsReply(msgspec.Struct, frozen=True):
    """Actions of operators, in the order of the ledger."""

    actions: list[OperatorActionReply]
