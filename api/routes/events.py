"""Routes of the native protocol for events and journeys, under /v1."""

from functools import partial
from typing import Annotated, Any

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, Parameter

from api.components import CurrentParts
from api.http.access import Reporter
from api.http.batch_items import ItemBatch, answers
from api.http.error_responses import documented, item
from api.http.hot_routes import HOT
from api.http.protocol_paths import user_of
from api.http.request_body import body, takes
from api.messages.events import EventBatch, EventItem, EventReplies, EventRequest, JourneyReply, UncreditedReply
from api.traffic.request_limits import charge
from bandit.catalogue.model import Catalogue

_EVENTS = ItemBatch(EventBatch, EventRequest)
_BATCH_BYTES = 4_000_000


def routes(current: CurrentParts, reporter: Reporter) -> list[HTTPRouteHandler]:
    """Route handlers of one service: report events, look up a user's journey, list reports that are credited to
    nothing. `reporter`: the name of the key that a request presents.
    """
    return [_reporting(current, reporter), *_looking_up(current)]


def _reporting(current: CurrentParts, reporter: Reporter) -> HTTPRouteHandler:
    async def answer(request: Request[Any, Any, Any], raw: bytes) -> EventReplies:
        sent = _EVENTS.read(raw)
        charge(request.scope, len(sent))
        async with current.inside() as parts:
            results = await answers(sent, partial(parts.events.report, reporter=reporter(request)))
        return EventReplies([EventItem(*item(one, f"events[{i}]")) for i, one in enumerate(results)])

    @post(
        "/v1/events",
        operation_id="report_events",
        status_code=200,
        summary="Report up to 1,000 events",
        operation_class=takes(EventBatch, _example(current.parts.catalogue)),
        responses=documented(400, 401, 403, 413, 415),
        request_max_body_size=_BATCH_BYTES,
        opt={"scope": "events", HOT: answer},
        tags=["report"],
    )
    async def report(request: Request[Any, Any, Any]) -> EventReplies:
        """Answers in order; an item that cannot be used gets its own problem, the others are recorded.

        The batch is refused as a whole (400, nothing recorded) only if it is no JSON object with a list of items.
        Safe to repeat: an event that is known already answers `duplicate`.
        """
        return await answer(request, await body(request))

    return report


def _looking_up(current: CurrentParts) -> list[HTTPRouteHandler]:
    @get(
        "/v1/users/{user_id:str}/journey",
        operation_id="get_journey",
        summary="Where a user is",
        responses=documented(400, 401, 403),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def journey(user_id: FromPath[str]) -> JourneyReply:
        """Stage, moment and why, what is known of the user, and what may be shown now. Ids are percent-encoded: a/b is
        a%2Fb.
        """
        return current.parts.events.journey(user_of(user_id))

    @get(
        "/v1/events/uncredited",
        operation_id="list_uncredited_events",
        summary="Reports that are credited to nothing",
        responses=documented(400, 401, 403),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def uncredited(
        limit: Annotated[int, Parameter(ge=1, le=1000)] = 100, reason: FromQuery[str | None] = None
    ) -> UncreditedReply:
        """Refunds of unknown orders, amounts that cannot be read, rewards without a decision: newest first, each with
        its reason.
        """
        return current.parts.events.uncredited(limit, reason)

    return [uncredited, journey]


def _example(catalogue: Catalogue) -> dict[str, Any]:
    """A request that this app accepts as it stands."""
    names = [name for rule in catalogue.journey.events.values() for name in rule.names]
    name = names[0] if names else "Product Viewed"
    return {"events": [{"event_id": "e-1", "event": name, "user_id": "u-1"}]}
