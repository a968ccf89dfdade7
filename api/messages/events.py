"""Messages of the native protocol about events and journeys. Docstrings of these types are texts of the OpenAPI
document.
"""

import datetime as dt
import uuid
from typing import Annotated, Any

import msgspec

from api.messages.decisions import Aware, ProblemReply, UserId
from bandit.records import Value


class EventRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something a user did. `event`: a name that the catalogue lists. Both ids together say that they are of one
    person.

    Only properties that the catalogue declares are kept.
    """

    event_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    user_id: UserId | None = None
    anonymous_id: UserId | None = None
    properties: dict[str, Any] = {}
    occurred_at: Aware | None = None


class EventBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 events, answered in order."""

    events: Annotated[list[EventRequest], msgspec.Meta(max_length=1000)]


class EventReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an event. `known`: the catalogue declares it; another one counts as activity only.

    `credited`, for an event that reports something: the decision of each stage that it is credited to. `not_credited`:
    why it is credited to none, by stage. `notes`: properties that were not kept.
    """

    recorded: bool
    duplicate: bool
    known: bool
    credited: dict[str, uuid.UUID] | msgspec.UnsetType = msgspec.UNSET
    not_credited: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    notes: list[str] | msgspec.UnsetType = msgspec.UNSET


class EventItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer of a batch: `event` with status 200, or `problem` with the status it would have had alone."""

    status: int
    event: EventReply | None = None
    problem: ProblemReply | None = None


class EventReplies(msgspec.Struct, frozen=True):
    """One answer for each event, in order."""

    events: list[EventItem]


class EventCountReply(msgspec.Struct, frozen=True):
    """How often one kind of event came from the user, and when last."""

    count: int
    last_at: dt.datetime


class ExposureReply(msgspec.Struct, frozen=True):
    """How often a nudge was given to the user (up to 100), and when last."""

    stage: str
    nudge: str
    count: int
    last_at: dt.datetime


class JourneyReply(msgspec.Struct, frozen=True, kw_only=True):
    """Journey of a user now. `moment` is null for "not now". `eligible`: what a decision without
    evidence could show.
    """

    stage: str
    moment: str | None
    why: str
    visits: int
    visit_began_at: dt.datetime | None
    last_event_at: dt.datetime | None
    events: dict[str, EventCountReply]
    abandoned: int
    features: dict[str, Value]
    consent: list[str]
    exposures: list[ExposureReply]
    eligible: list[str]
    excluded: dict[str, str]


class MissedReply(msgspec.Struct, frozen=True):
    """An event that reports something and is credited to no decision of a stage; `reason` in short, `why` in words."""

    event_id: str
    stage: str
    kind: str
    reason: str
    why: str
    received_at: dt.datetime


class UncreditedReply(msgspec.Struct, frozen=True):
    """Reports that are credited to nothing as things stand, newest first."""

    uncredited: list[MissedReply]
