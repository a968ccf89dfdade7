"""Segment's HTTP tracking API, as its SDKs and RudderStack's speak it.

A batch is all or nothing on the wire, so one message that cannot be used is dropped and counted, not answered.
Bodies are read as bytes, inflated if they say gzip, and parsed as JSON whatever their content type says.
"""

import base64
import binascii
import datetime as dt
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import uuid_utils.compat as uuid7
from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from api import flaws
from api.asking import microseconds
from api.bodies import BrokenGzip, body
from api.events import Events, Sent
from api.items import Envelope
from api.metrics import Metrics
from bandit.errors import InvalidRequest, Unavailable

log = logging.getLogger("journey_bandit.http")

Ask = Request[Any, Any, Any]
Scopes = Callable[[str], Collection[str] | None]
"""What a key may do, None if it is none."""

MOST = 4_000_000  # bytes of a batch, inflated: RudderStack's limit; Segment's is 500 KB
_MESSAGE = 32_768  # bytes of a single call
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


_ENVELOPE = Envelope(_Envelope, "batch")


class RefusedError(Exception):
    """What a client is told: status, code and message."""

    def __init__(self, status: int, code: str, message: str):
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


def routes(events: Events, scopes: Scopes | None, metrics: Metrics) -> list[HTTPRouteHandler]:
    """The handlers of one service. `scopes` None: no key is needed."""

    async def taken(sent: Sequence[Sent | None]) -> Response[bytes]:
        dropped = sum(one is None for one in sent)
        metrics.events.labels("(unusable)", "dropped").inc(dropped)
        await events.take([one for one in sent if one])
        return _answer(200, {"success": True})

    @post(
        list(_BATCH),
        status_code=200,
        request_max_body_size=MOST,
        exception_handlers={Exception: refusal},
        include_in_schema=False,
    )
    async def batch(request: Ask) -> Response[bytes]:
        envelope = _ENVELOPE.read(await body(request))
        _admit(request, scopes, envelope.writeKey)
        read = _Reader(events, envelope.sentAt, envelope.context)
        return await taken([_message(read, bytes(one), None, metrics) for one in envelope.batch])

    def single(kind: str, paths: Sequence[str]) -> HTTPRouteHandler:
        @post(
            list(paths),
            status_code=200,
            request_max_body_size=MOST,
            exception_handlers={Exception: refusal},
            include_in_schema=False,
            name=f"segment-{kind}",
        )
        async def call(request: Ask) -> Response[bytes]:
            raw = await body(request)
            if len(raw) > _MESSAGE:
                raise RefusedError(400, "message_too_large", f"a message may have {_MESSAGE} bytes")
            _admit(request, scopes, _object(raw).get("writeKey"))
            sent = _message(_Reader(events, None, None), raw, kind, metrics)
            if sent is None:
                raise RefusedError(400, "invalid_message", "send userId or anonymousId, and what the call needs")
            return await taken([sent])

        return call

    return [batch, *(single(kind, paths) for kind, paths in _SINGLE.items())]


def refusal(_: Ask, error: Exception) -> Response[bytes]:
    """Any error in Segment's shape: clients need `code` and `message`, and drop or repeat by the status."""
    headers = {}
    if isinstance(error, RefusedError):
        status, code, message = error.status, error.code, error.message
    elif isinstance(error, InvalidRequest):
        status, code, message = 400, _word(error), str(error)
    elif isinstance(error, Unavailable):
        status, code, message = 503, "unavailable", f"{error}; retry with the same messages"
        headers["Retry-After"] = "1"
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
        found = flaws.sound(raw)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "invalid_json", "the body is not JSON") from error
    if not isinstance(found, dict):
        raise RefusedError(400, "invalid_request", "the body is not an object")
    return found


def _message(read: "_Reader", raw: bytes, kind: str | None, metrics: Metrics) -> Sent | None:
    """One message. Properties that JSON cannot hold are left out of it, and counted."""
    sent = read.message(raw, kind)
    if sent is not None:
        return sent
    try:
        value, unusable = flaws.clean(raw)
        if not unusable:
            return None
        sent = read.message(msgspec.json.encode(value), kind)
    except (ValueError, RecursionError):
        return None
    metrics.unusable.labels("segment").inc(len(unusable))
    return sent


def _admit(request: Ask, scopes: Scopes | None, write_key: object) -> None:
    """A key as Basic user, as X-API-Key or Bearer, or as writeKey in the body."""
    if scopes is None:
        return
    allowed = scopes(_presented(request, write_key))
    if allowed is None:
        raise RefusedError(401, "unauthorized", "send a key with the scope `events` as the write key")
    if "events" not in allowed:
        raise RefusedError(403, "forbidden", "this key lacks the scope `events`")


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


class _Reader:
    """Reads the messages of one request. None for one that cannot be used."""

    def __init__(self, events: Events, sent_at: object, context: object):
        self._events = events
        self._sent = _time(sent_at)
        self._context = context if isinstance(context, Mapping) else {}
        self._now = events.now()

    def message(self, raw: bytes, kind: str | None = None) -> Sent | None:
        """One message; `kind` is said by the path of a single call."""
        try:
            given = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(given, dict):
            return None
        what = kind or given.get("type")
        user, anonymous = _id(given.get("userId")), _id(given.get("anonymousId"))
        alias = _id(given.get("previousId")) if what == "alias" else anonymous if user else None
        name = self._name(what, given)
        if not (user or anonymous) or name is None or (what == "alias" and not (user and alias)):
            return None
        at = self._time(given)
        return Sent(
            _message_id(given, raw, at), name, user or anonymous or "", alias, self._properties(what, given), at
        )

    def _name(self, what: object, given: Mapping[str, Any]) -> str | None:
        """What the event is called: a track by its own name, a page by "page:Name" if that is declared, or "page"."""
        if what == "track":
            return given["event"] if isinstance(given.get("event"), str) and given["event"] else None
        if what in ("page", "screen"):
            named = f"{what}:{given.get('name')}"
            return named if self._events.names(named) else str(what)
        return str(what) if what in ("identify", "group", "alias") else None

    def _properties(self, what: object, given: Mapping[str, Any]) -> Mapping[str, object]:
        if what not in ("identify", "group"):
            return _table(given, "properties")
        context = {**self._context, **_table(given, "context")}
        return {**_table(context, "traits"), **_table(given, "traits")}

    def _time(self, given: Mapping[str, Any]) -> int | None:
        """When it happened on our clock: what the client's clock says, by how long ago that was when it sent it."""
        at = _time(given.get("timestamp")) or _time(given.get("originalTimestamp"))
        sent = _time(given.get("sentAt")) or self._sent
        if at is None or sent is None:
            return at
        return self._now - max(sent - at, 0)


def _message_id(given: Mapping[str, Any], raw: bytes, at: int | None) -> str:
    """The client's id. A call made by hand may have none: the same words of the same time are the same message."""
    own = given.get("messageId")
    if isinstance(own, str) and 0 < len(own) <= 128:
        return own
    if own is None and at is None:
        return str(uuid7.uuid7())
    return hashlib.blake2b(own.encode() if isinstance(own, str) else raw, digest_size=16).hexdigest()


def _id(value: object) -> str | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if 0 < len(text) <= 256 else None


def _table(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = given.get(key)
    return value if isinstance(value, dict) else {}


def _time(value: object) -> int | None:
    """Microseconds since 1970 of an ISO time; None if it is none."""
    if not isinstance(value, str):
        return None
    try:
        when = dt.datetime.fromisoformat(value)
        return microseconds(when if when.tzinfo else when.replace(tzinfo=dt.UTC))
    except (ValueError, OverflowError):
        return None
