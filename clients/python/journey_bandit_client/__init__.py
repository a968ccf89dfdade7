"""Typed client of a Journey Bandit service: `JourneyClient`, and `AsyncJourneyClient` for asyncio.

Every call is repeated with the same ids until its deadline. Where the service is away, a decision is the fallback,
marked `degraded`; everything else raises ServiceUnavailableError.
"""

from journey_bandit_client.async_client import AsyncJourneyClient
from journey_bandit_client.client import JourneyClient
from journey_bandit_client.errors import (
    FieldProblem,
    IdConflictError,
    InvalidRequestError,
    ItemsFailedError,
    JourneyClientError,
    KeyRefusedError,
    NotFoundError,
    ProblemDetails,
    RequestRefusedError,
    ServiceUnavailableError,
)
from journey_bandit_client.messages import (
    NO_NUDGE,
    EventResult,
    Feature,
    NudgeDecision,
    NudgeRequest,
    OfferedNudge,
    OfferEvidence,
    OutcomeReport,
    ReportResult,
    ServingRelease,
    UserEvent,
    UserJourney,
)
from journey_bandit_client.retries import RetryPolicy

__all__ = [
    "NO_NUDGE",
    "AsyncJourneyClient",
    "EventResult",
    "Feature",
    "FieldProblem",
    "IdConflictError",
    "InvalidRequestError",
    "ItemsFailedError",
    "JourneyClient",
    "JourneyClientError",
    "KeyRefusedError",
    "NotFoundError",
    "NudgeDecision",
    "NudgeRequest",
    "OfferEvidence",
    "OfferedNudge",
    "OutcomeReport",
    "ProblemDetails",
    "ReportResult",
    "RequestRefusedError",
    "RetryPolicy",
    "ServiceUnavailableError",
    "ServingRelease",
    "UserEvent",
    "UserJourney",
]
