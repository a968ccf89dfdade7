"""Routes for pages in browsers, under /v1/browser: a decision, events and activations of one user, with a publishable
key. `docs/guides/browser.md` says which threat each rule answers.
"""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response, post
from litestar.exceptions import HTTPException, PermissionDeniedException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Operation

from api.components import CurrentParts
from api.decisions.pages import FORMATS, PageView
from api.events.service import EventService
from api.http.batch_items import BatchEnvelope
from api.http.browser_access import BrowserAccess
from api.http.error_responses import documented, handle, http_problem, item
from api.http.keys import PublishableKey
from api.http.request_body import BodyShape, body, takes
from api.messages.browser import (
    BrowserActivationRequest,
    BrowserDecisionReply,
    BrowserDecisionRequest,
    BrowserEvent,
    BrowserEventParts,
    BrowserEventRequest,
)
from api.messages.decisions import DecisionRequest, OutcomeReply, OutcomeRequest
from api.messages.events import EventItem, EventReplies, EventRequest
from api.times import time_of
from bandit.errors import InvalidRequest, JourneyBanditError, Problem

Ask = Request[Any, Any, Any]
Sent = TypeVar("Sent", BrowserDecisionRequest, BrowserEventParts, BrowserActivationRequest)

_BYTES = 65_536
_EVENT = BodyShape(BrowserEvent)
_ANSWERS = {"Nudge Declined", "Nudge Dismissed", "Nudge Clicked"}
_EXAMPLE = {"key": "pub_shop_0123456789abcdef", "token": "", "user_id": "u-1"}
_OPERATIONS = {  # id and summary
    "decisions": ("decide_for_page", "Ask for a nudge from a page"),
    "events": ("report_page_events", "Report events from a page"),
    "activations": ("report_page_activation", "Report that a page showed a nudge"),
}
_ERRORS = (400, 401, 403, 404, 409, 413, 415)


def routes(current: CurrentParts, access: BrowserAccess) -> list[HTTPRouteHandler]:
    """Route handlers of one service. Keys are checked here: pages send them in the body."""

    async def decided(sent: BrowserDecisionRequest, key: PublishableKey | None) -> BrowserDecisionReply:
        asked = DecisionRequest(
            evidence=access.evidence(key, sent.evidence, sent.user_id),
            stage=sent.stage,
            user_id=sent.user_id,
            context=sent.context,
            exclude=sent.exclude,
            consent=sent.consent,
            deferred=True,
            decision_id=sent.decision_id,
        )
        formats = FORMATS if sent.formats is None else frozenset(sent.formats)
        async with current.inside() as parts:
            return await parts.service.decide_on(PageView(sent.page, formats, sent.locale), asked)

    async def taken(sent: BrowserEventParts, key: PublishableKey | None) -> EventReplies:
        async with current.inside() as parts:
            read = [_read_event(i, raw, sent.user_id, parts.events, key, access) for i, raw in enumerate(sent.events)]
            usable = [one for one in read if isinstance(one, EventRequest)]
            results = iter(await parts.events.report(usable, _name(key)) if usable else [])
        return EventReplies(
            [
                one if isinstance(one, EventItem) else EventItem(*item(next(results), f"events[{i}]"))
                for i, one in enumerate(read)
            ]
        )

    async def shown(sent: BrowserActivationRequest, key: PublishableKey | None) -> OutcomeReply:
        async with current.inside() as parts:
            if not parts.service.is_of(sent.decision_id, sent.user_id):
                raise access.refuse("user", "decision_id is no decision of this user")
            token = parts.service.outcome_token(sent.decision_id)  # the page has shown that it is its user's
            told = OutcomeRequest(decision_id=sent.decision_id, kind="activation", outcome_token=token)
            return await parts.service.report(told, _name(key))

    return [
        _route(
            "decisions",
            takes(BrowserDecisionRequest, _EXAMPLE),
            {200: ResponseSpec(BrowserDecisionReply, generate_examples=False)},
            _answering(BodyShape(BrowserDecisionRequest), decided, access),
        ),
        _route(
            "events",
            takes(BrowserEventRequest, _EXAMPLE | {"events": [{"event_id": "e-1", "event": "Product Viewed"}]}),
            {200: ResponseSpec(EventReplies, generate_examples=False)},
            _answering(BatchEnvelope(BrowserEventParts, "events"), taken, access),
        ),
        _route(
            "activations",
            takes(BrowserActivationRequest, _EXAMPLE | {"decision_id": "01890a5d-ac96-774b-bcce-b302099a8057"}),
            {200: ResponseSpec(OutcomeReply, generate_examples=False)},
            _answering(BodyShape(BrowserActivationRequest), shown, access),
        ),
    ]


def _name(key: PublishableKey | None) -> str:
    """Name of a page's key as the ledger keeps it; "" in a trial without keys."""
    return key.id if key else ""


def _read_event(
    place: int,
    raw: msgspec.Raw,
    user_id: str,
    known: EventService,
    key: PublishableKey | None,
    access: BrowserAccess,
) -> EventRequest | EventItem:
    """Event of a page as the native protocol has it, or what is wrong with this one. One that a page may not report is
    refused: a forged purchase would be a reward.
    """
    try:
        sent = _EVENT.read(bytes(raw))
        if key and not _may_report(key, sent.event, known):
            fix = "send it from your backend, or list it in the key's `events`"
            raise access.refuse("event", f"pages may not report {sent.event!r} with this key: {fix}")
        return EventRequest(
            event_id=sent.event_id,
            event=sent.event,
            user_id=user_id,
            properties=sent.properties,
            occurred_at=_happened(sent, known.now()),
        )
    except InvalidRequest as error:
        return EventItem(*item(error, f"events[{place}]"))
    except PermissionDeniedException as error:
        return EventItem(error.status_code, problem=http_problem(error))


def _may_report(key: PublishableKey, name: str, known: EventService) -> bool:
    """Whether pages with this key may report an event: those it lists, else all that report no outcome. What somebody
    answered to a nudge they may always say.
    """
    if key.events is not None and name in key.events:
        return True
    return (key.events is None or name in _ANSWERS) and not known.reports(name)


def _happened(sent: BrowserEvent, now: int) -> dt.datetime | None:
    if sent.ago is None:
        return sent.occurred_at
    if sent.occurred_at:
        raise InvalidRequest(Problem("ago", "there beside occurred_at", "send one of the two"))
    return time_of(now - round(sent.ago * 1e6))


def _answering(
    shape: BodyShape[Sent] | BatchEnvelope[Sent],
    answer: Callable[[Sent, PublishableKey | None], Awaitable[Any]],
    access: BrowserAccess,
) -> Callable[[Ask], Awaitable[Response[Any]]]:
    """Handler of requests with a body of that shape: admitted, answered, and readable by pages of the key's origins."""

    async def handled(request: Ask) -> Response[Any]:
        headers, origin = {"Vary": "Origin"}, request.headers.get("origin", "")
        try:
            sent = shape.read(await body(request))
            if access.allowed(sent.key, origin):
                headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After"}
            key = access.admit(sent.key, origin, sent.token, sent.user_id)
            with access.answering(key, sent.user_id):
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
    operation_id, summary = _OPERATIONS[name]

    @post(
        f"/v1/browser/{name}",
        status_code=200,
        operation_id=operation_id,
        summary=summary,
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
