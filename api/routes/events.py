"""The native JSON API of events and journeys, under /v1."""

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, Parameter

from api.bodies import read, takes
from api.event_messages import EventBatch, EventItem, EventReplies, JourneyReply, UncreditedReply
from api.events import Events
from api.problems import documented, item
from bandit.catalogue import Catalogue

_EVENTS = msgspec.json.Decoder(EventBatch)
_BATCH_BYTES = 4_000_000


def routes(events: Events, catalogue: Catalogue) -> list[HTTPRouteHandler]:
    """The handlers of one service."""

    @post(
        "/v1/events",
        status_code=200,
        summary="Report up to 1,000 events",
        operation_class=takes(EventBatch, _example(catalogue)),
        responses=documented(400, 401, 403, 413, 503),
        request_max_body_size=_BATCH_BYTES,
        opt={"scope": "events"},
        tags=["report"],
    )
    async def report(request: Request[Any, Any, Any]) -> EventReplies:
        """Answers in order; an item that cannot be used gets its own problem, the others are recorded.

        Safe to repeat: an event that is known already answers `duplicate`.
        """
        batch = await read(request, _EVENTS)
        return EventReplies([EventItem(*item(result)) for result in await events.report(batch.events)])

    @get(
        "/v1/users/{user_id:str}/journey",
        summary="Where a user is",
        responses=documented(401, 403),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def journey(user_id: FromPath[str]) -> JourneyReply:
        """Stage, moment and why, what is known, and what may be shown now."""
        return events.journey(user_id)

    @get(
        "/v1/events/uncredited",
        summary="Reports that are credited to nothing",
        responses=documented(400, 401, 403),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def uncredited(
        limit: Annotated[int, Parameter(ge=1, le=1000)] = 100, reason: FromQuery[str | None] = None
    ) -> UncreditedReply:
        """Refunds of unknown orders, amounts that cannot be read, rewards without a decision: newest first, and why."""
        return events.uncredited(limit, reason)

    return [report, uncredited, journey]


def _example(catalogue: Catalogue) -> dict[str, Any]:
    """A request that this app accepts as it stands."""
    names = [name for rule in catalogue.journey.events.values() for name in rule.names]
    name = names[0] if names else "Product Viewed"
    return {"events": [{"event_id": "e-1", "event": name, "user_id": "u-1"}]}
