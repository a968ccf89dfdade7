"""Routes of Segment's HTTP tracking API, as its SDKs and RudderStack's speak it.

A batch is all or nothing on the wire, so one message that cannot be used is dropped and counted, not answered with an
error. Bodies are read as bytes, inflated if they say gzip, and parsed as JSON whatever their content type says.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import uuid_utils.compat as uuid7
from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.status_codes import HTTP_401_UNAUTHORIZED

from api.components import CurrentParts
from api.events.service import EventReceipt, EventService, ReceivedEvent, check_number
from api.http import lenient_json
from api.http.access import AccessControl
from api.http.batch_items import BatchEnvelope
from api.http.hot_routes import HOT
from api.http.request_body import BrokenGzip, body
from api.metrics import Metrics
from api.stores.admission import SKEW
from api.times import FIRST, parsed
from api.traffic.refusals import LimitReached
from api.traffic.request_limits import charge, present
from bandit.errors import InvalidRequest, Problem, Unavailable
from bandit.identifiers import identifier
from bandit.identifiers import problem as identifier_problem

log = logging.getLogger("journey_bandit.http")

Ask = Request[Any, Any, Any]

MOST = 4_000_000  # bytes of a batch, inflated: RudderStack's limit; Segment's is 500 KB
_MESSAGE = 32_768  # bytes of a single call
_AT_ONCE = 64  # messages that are read without a pause
_SINGLE = {
    "track": ("/v1/track", "/v1/t"),
    "identify": ("/v1/identify", "/v1/i"),
    "page": ("/v1/page", "/v1/p"),
    "screen": ("/v1/screen", "/v1/s"),
    "group": ("/v1/group", "/v1/g"),
    "alias": ("/v1/alias", "/v1/a"),
}
_BATCH = ("/v1/batch", "/v1/b")
PATHS = frozenset((*_BATCH, *(path for paths in _SINGLE.values() for path in paths)))


class _Envelope(msgspec.Struct):
    """A batch; the messages are decoded one by one."""

    batch: list[msgspec.Raw]
    sentAt: Any = None  # noqa: N815 - Segment's names
    writeKey: Any = None  # noqa: N815
    context: Any = None


_ENVELOPE = BatchEnvelope(_Envelope, "batch")


class RefusedError(Exception):
    """Refusal of a whole call, as the client is told: HTTP status, code and message in Segment's shape."""

    def __init__(self, status: int, code: str, message: str):
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


def routes(current: CurrentParts, gate: AccessControl | None) -> list[HTTPRouteHandler]:
    """Route handlers of one service: batches, and the six single calls under their long and short paths. `gate` None:
    no key is needed. Keys are checked here, because Segment's clients send them in ways of their own.
    """

    metrics = current.ground.metrics

    @post(
        list(_BATCH),
        status_code=200,
        request_max_body_size=MOST,
        exception_handlers={Exception: refusal},
        opt={"own_keys": True},
        include_in_schema=False,
    )
    async def batch(request: Ask) -> Response[bytes]:
        envelope = _ENVELOPE.read(await body(request))
        reporter = _admit(request, gate, envelope.writeKey)
        check_number("batch", len(envelope.batch))
        charge(request.scope, len(envelope.batch))
        async with current.inside() as parts:
            read = _SegmentReader(parts.events, envelope.sentAt, envelope.context, metrics)
            sent = await _paced(read, envelope.batch)
            return _answer(200, _summary(sent, await parts.events.take(sent, reporter)))

    def single(kind: str, paths: Sequence[str]) -> HTTPRouteHandler:
        async def answer(request: Ask, raw: bytes) -> Response[bytes]:
            if len(raw) > _MESSAGE:
                raise RefusedError(400, "message_too_large", f"a message may have {_MESSAGE} bytes")
            reporter = _admit(request, gate, _object(raw).get("writeKey"))
            async with current.inside() as parts:
                sent = _SegmentReader(parts.events, None, None, metrics).message(raw, kind)
                (receipt,) = await parts.events.take([sent], reporter)
            if isinstance(receipt, InvalidRequest):
                raise RefusedError(400, "invalid_message", str(receipt))
            return _answer(200, _summary([sent], [receipt]))

        @post(
            list(paths),
            status_code=200,
            request_max_body_size=MOST,
            exception_handlers={Exception: refusal},
            opt={"own_keys": True, HOT: answer},
            include_in_schema=False,
            name=f"segment-{kind}",
        )
        async def call(request: Ask) -> Response[bytes]:
            return await answer(request, await body(request))

        return call

    return [batch, *(single(kind, paths) for kind, paths in _SINGLE.items())]


async def _paced(read: "_SegmentReader", batch: Sequence[msgspec.Raw]) -> list[ReceivedEvent | InvalidRequest]:
    """Messages of a batch as they are read, with others' work in between."""
    sent = list[ReceivedEvent | InvalidRequest]()
    for start in range(0, len(batch), _AT_ONCE):
        sent += [read.message(bytes(one)) for one in batch[start : start + _AT_ONCE]]
        await asyncio.sleep(0)
    return sent


def _summary(
    sent: Sequence[ReceivedEvent | InvalidRequest], taken: Sequence[EventReceipt | InvalidRequest]
) -> dict[str, object]:
    """What is answered: which messages were dropped and why, and which reports are credited to nothing. Clients look
    at the status only; people look here.
    """
    dropped = [
        {"index": i, **msgspec.to_builtins(one.problems[0])}
        for i, one in enumerate(taken)
        if isinstance(one, InvalidRequest)
    ]
    reports = [
        {"messageId": message.id, "credited": dict(one.credited), "not_credited": dict(one.missed)}
        for message, one in zip(sent, taken, strict=True)
        if isinstance(message, ReceivedEvent) and isinstance(one, EventReceipt) and (one.credited or one.missed)
    ]
    return {"success": True, **({"dropped": dropped} if dropped else {}), **({"reports": reports} if reports else {})}


def owns(path: str) -> bool:
    """Whether a path is one of Segment's, so that errors there are answered by `refusal`."""
    return path in PATHS


def refusal(_: Ask, error: Exception) -> Response[bytes]:
    """Response to any error on a path of Segment, in its shape: clients need `code` and `message`, and drop or repeat
    messages by the status.
    """
    headers = {}
    if isinstance(error, RefusedError):
        status, code, message = error.status, error.code, error.message
    elif isinstance(error, InvalidRequest):
        status, code, message = 400, _word(error), str(error)
    elif isinstance(error, Unavailable):
        status, code, message = 503, "unavailable", f"{error}; retry with the same messages"
        headers["Retry-After"] = "1"
    elif isinstance(error, LimitReached):
        status, code, message = error.status_code, "limit_reached", f"{error.detail}; {error.fix}"
        headers = dict(error.headers or {})
    elif isinstance(error, HTTPException) and error.status_code < 500:
        words = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout", 413: "payload_too_large"}
        words |= {415: "unsupported_encoding"}
        status = error.status_code
        code, message = words.get(status, "invalid_request"), str(error.detail) or "this cannot be used"
    else:
        log.error("unexpected %s", type(error).__name__, exc_info=error)
        status, code, message = 500, "internal", "This is our fault; the error was logged."
    return _answer(status, {"success": False, "code": code, "message": message}, headers)


def _word(error: InvalidRequest) -> str:
    """The code of an envelope that cannot be used."""
    if isinstance(error, BrokenGzip):
        return "invalid_gzip"
    whole = error.problems[0].problem.startswith(("not JSON", "not UTF-8", "nested"))
    return "invalid_json" if whole else "invalid_request"


def _answer(status: int, content: object, headers: dict[str, str] | None = None) -> Response[bytes]:
    body = msgspec.json.encode(content)
    return Response(body, status_code=status, media_type="application/json", headers=headers or {})


def _object(raw: bytes) -> dict[str, Any]:
    """A single call, without values that JSON cannot hold."""
    try:
        found = lenient_json.sound(raw)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "invalid_json", "the body is not JSON") from error
    if not isinstance(found, dict):
        raise RefusedError(400, "invalid_request", "the body is not an object")
    return found


def _admit(request: Ask, gate: AccessControl | None, write_key: object) -> str:
    """Name of the key that a request presents, as Basic user, as X-API-Key or Bearer, or as writeKey in the body; ""
    where none is needed.
    """
    if gate is None:
        return ""
    key = _presented(request, write_key)
    present(request.scope, key)
    denial = gate.denied(key, "events")
    if denial and denial.status == HTTP_401_UNAUTHORIZED:
        fix = "send a key with the scope `events` as the write key"
        raise RefusedError(401, "unauthorized", denial.expired or fix)
    if denial:
        raise RefusedError(403, "forbidden", "this key lacks the scope `events`")
    return gate.named(key)


def _presented(request: Ask, write_key: object) -> str:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    if scheme.lower() == "bearer" and not isinstance(write_key, str):
        return value
    return request.headers.get("x-api-key") or (write_key if isinstance(write_key, str) else "")


class _SegmentReader:
    """Reads the messages of one request: each as it was sent, or what is wrong with it."""

    def __init__(self, events: EventService, sent_at: object, context: object, metrics: Metrics):
        self._events = events
        self._metrics = metrics
        self._sent = sent_at
        self._context = context if isinstance(context, Mapping) else {}
        self._now = events.now()

    def message(self, raw: bytes, kind: str | None = None) -> ReceivedEvent | InvalidRequest:
        """One message; `kind` is said by the path of a single call. A value that JSON cannot hold counts as one that
        cannot be used, never as absent.
        """
        try:
            return self._message(self._decoded(raw), raw, kind)
        except InvalidRequest as error:
            return error
        except (ValueError, RecursionError):
            return InvalidRequest(Problem("(message)", "not JSON", "send an object"))

    def _decoded(self, raw: bytes) -> object:
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            given, unusable = lenient_json.marked(raw)
            self._metrics.unusable.labels("segment").inc(len(unusable))
            return given

    def _message(self, given: object, raw: bytes, kind: str | None) -> ReceivedEvent:
        if not isinstance(given, dict):
            raise InvalidRequest(Problem("(message)", "not an object", "send one object a message"))
        what = kind or given.get("type")
        user, anonymous = _id(given, "userId"), _id(given, "anonymousId")
        previous = _id(given, "previousId") if what == "alias" else None
        if not (user or anonymous):
            raise InvalidRequest(Problem("userId", "missing", "send userId or anonymousId"))
        if what == "alias" and not (user and previous):
            raise InvalidRequest(Problem("previousId", "missing, or userId is", "send both: they are one person"))
        at = self._time(given)
        alias = previous if what == "alias" else anonymous if user else None
        own, earlier = self._ids(given, raw, at)
        return ReceivedEvent(
            own,
            self._name(what, given),
            user or anonymous or "",
            alias,
            self._properties(what, given),
            at,
            "timestamp",
            earlier,
        )

    def _ids(self, given: Mapping[str, Any], raw: bytes, at: int | None) -> tuple[str, str]:
        """The client's id, and what an earlier version made of it. A call made by hand may have none: the same words of
        the same time are the same message.
        """
        own = identifier(given.get("messageId"))
        if own is not None and len(own) <= 128:
            return own, ""
        if own is None and at is None:
            return str(uuid7.uuid7()), ""
        words = own.encode(errors="surrogatepass") if own else raw
        return self._events.id_of(words), self._events.earlier_id_of(words)

    def _name(self, what: object, given: Mapping[str, Any]) -> str:
        """What the event is called: a track by its own name, a page by "page:Name" if that is declared, or "page"."""
        if what == "track":
            event = given.get("event")
            if not isinstance(event, str) or not event:
                raise InvalidRequest(Problem("event", "missing, or not a text", "send the name of what happened"))
            return event
        if what in ("page", "screen"):
            named = f"{what}:{given.get('name')}"
            return named if self._events.names(named) else str(what)
        if what in ("identify", "group", "alias"):
            return str(what)
        raise InvalidRequest(Problem("type", "not a kind of message", "track, identify, page, screen, group or alias"))

    def _properties(self, what: object, given: Mapping[str, Any]) -> Mapping[str, object]:
        if what not in ("identify", "group"):
            return _table(given, "properties")
        context = {**self._context, **_table(given, "context")}
        return {**_table(context, "traits"), **_table(given, "traits")}

    def _time(self, given: Mapping[str, Any]) -> int | None:
        """When it happened on our clock: what the client's clock says, by how long ago that was when it sent it. A
        sending time that was never set (before 2000), or that cannot be read, corrects nothing.
        """
        at = parsed("timestamp", given.get("timestamp"))
        if at is None:
            at = parsed("originalTimestamp", given.get("originalTimestamp"))
        sent = _sent_time(given.get("sentAt"))
        sent = _sent_time(self._sent) if sent is None else sent
        if at is None or sent is None or at < FIRST:
            return at
        if at > sent + SKEW:
            raise InvalidRequest(Problem("timestamp", "lies after sentAt", "send both by one clock"))
        return self._now - max(sent - at, 0)


def _sent_time(value: object) -> int | None:
    try:
        sent = parsed("sentAt", value)
    except InvalidRequest:
        return None
    return None if sent is None or sent < FIRST else sent


def _id(given: Mapping[str, Any], field: str) -> str | None:
    wrong = identifier_problem(field, given.get(field))
    if wrong:
        raise InvalidRequest(wrong)
    return identifier(given.get(field))


def _table(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = given.get(key)
    return value if isinstance(value, dict) else {}
