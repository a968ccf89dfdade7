"""Routes for pages in browsers, under /v1/browser: a decision, events and activations of one user, with a publishable
key. `docs/guides/browser.md` says which threat each rule answers.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Operation

from api.components import CurrentParts
from api.events.service import EventService
from api.http.browser_access import BrowserAccess
from api.http.error_responses import documented, handle, item
from api.http.keys import PublishableKey
from api.http.request_body import BodyShape, body, takes
from api.messages.browser import (
    BrowserActivationRequest,
    BrowserDecisionReply,
    BrowserDecisionRequest,
    BrowserEventRequest,
)
from api.messages.decisions import DecisionRequest, OutcomeReply, OutcomeRequest
from api.messages.events import EventItem, EventReplies, EventRequest
from bandit.errors import JourneyBanditError

Ask = Request[Any, Any, Any]
Sent = TypeVar("Sent", BrowserDecisionRequest, BrowserEventRequest, BrowserActivationRequest)

_BYTES = 65_536
_EXAMPLE = {"key": "pub_shop_0123456789abcdef", "token": "", "user_id": "u-1"}
_SUMMARIES = {
    "decisions": "Ask for a nudge from a page",
    "events": "Report events from a page",
    "activations": "Report that a page showed a nudge",
}
_ERRORS = (400, 401, 403, 404, 409, 413, 415, 429, 503)


def routes(current: CurrentParts, access: BrowserAccess) -> list[HTTPRouteHandler]:
    """Route handlers of one service. Keys are checked here: pages send them in the body."""

    async def decided(sent: BrowserDecisionRequest, _: PublishableKey | None) -> BrowserDecisionReply:
        asked = DecisionRequest(
            stage=sent.stage,
            user_id=sent.user_id,
            context=sent.context,
            exclude=sent.exclude,
            consent=sent.consent,
            deferred=True,
            decision_id=sent.decision_id,
        )
        async with current.inside() as parts:
            reply = await parts.service.decide(asked)
        return BrowserDecisionReply(**{name: getattr(reply, name) for name in BrowserDecisionReply.__struct_fields__})

    async def taken(sent: BrowserEventRequest, key: PublishableKey | None) -> EventReplies:
        async with current.inside() as parts:
            for one in sent.events:
                _check_event(parts.events, one.event, key, access)
            asked = [EventRequest(**msgspec.structs.asdict(one), user_id=sent.user_id) for one in sent.events]
            results = await parts.events.report(asked)
        return EventReplies([EventItem(*item(one, f"events[{i}]")) for i, one in enumerate(results)])

    async def shown(sent: BrowserActivationRequest, _: PublishableKey | None) -> OutcomeReply:
        async with current.inside() as parts:
            if not parts.service.is_of(sent.decision_id, sent.user_id):
                raise access.refuse("user", "decision_id is no decision of this user")
            return await parts.service.report(OutcomeRequest(decision_id=sent.decision_id, kind="activation"))

    return [
        _route(
            "decisions",
            takes(BrowserDecisionRequest, _EXAMPLE),
            {200: ResponseSpec(BrowserDecisionReply, generate_examples=False)},
            _answering(BrowserDecisionRequest, decided, access),
        ),
        _route(
            "events",
            takes(BrowserEventRequest, _EXAMPLE | {"events": [{"event_id": "e-1", "event": "Product Viewed"}]}),
            {200: ResponseSpec(EventReplies, generate_examples=False)},
            _answering(BrowserEventRequest, taken, access),
        ),
        _route(
            "activations",
            takes(BrowserActivationRequest, _EXAMPLE | {"decision_id": "01890a5d-ac96-774b-bcce-b302099a8057"}),
            {200: ResponseSpec(OutcomeReply, generate_examples=False)},
            _answering(BrowserActivationRequest, shown, access),
        ),
    ]


def _check_event(known: EventService, name: str, key: PublishableKey | None, access: BrowserAccess) -> None:
    """Refuse an event that a page may not send: a forged purchase would be a reward."""
    if key is None or (not known.reports(name) if key.events is None else name in key.events):
        return
    fix = "send it from your backend, or list it in the key's `events`"
    raise access.refuse("event", f"pages may not report {name!r} with this key: {fix}")


def _answering(
    type_: type[Sent], answer: Callable[[Sent, PublishableKey | None], Awaitable[Any]], access: BrowserAccess
) -> Callable[[Ask], Awaitable[Response[Any]]]:
    """Handler of requests with a body of that type: admitted, answered, and readable by pages of the key's origins."""
    shape = BodyShape(type_)

    async def handled(request: Ask) -> Response[Any]:
        headers, origin = {"Vary": "Origin"}, request.headers.get("origin", "")
        try:
            sent = shape.read(await body(request))
            if access.allowed(sent.key, origin):
                headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After"}
            key = access.admit(sent.key, origin, sent.token, sent.user_id)
            answered = msgspec.json.encode(await answer(sent, key))
        except (JourneyBanditError, HTTPException) as error:
            response = handle(request, error)
            response.headers.update(headers)
            return response
        return Response(answered, media_type="application/json", headers=headers)

    return handled


def _route(
    name: str,
    operation: type[Operation],
    good: dict[int, ResponseSpec],
    handled: Callable[[Ask], Awaitable[Response[Any]]],
) -> HTTPRouteHandler:
    @post(
        f"/v1/browser/{name}",
        status_code=200,
        summary=_SUMMARIES[name],
        description="For pages: the key and the token are in the body. text/plain needs no preflight request.",
        operation_class=operation,
        responses=documented(*_ERRORS) | good,
        request_max_body_size=_BYTES,
        opt={"own_keys": True},
        security=[{}],
        tags=["browser"],
        name=f"browser-{name}",
    )
    async def call(request: Ask) -> Response[Any]:
        return await handled(request)

    return call
