"""Routes of OpenFeature's remote evaluation protocol (OFREP): stages as flags, as `api.decisions.flags` makes them.

Errors have one body everywhere, `{key, errorCode, errorDetails}`: all three fields, because clients differ in which of
them they need. Nobody retries: what fails here becomes the default in the caller's code.
"""

import hashlib
import logging
from typing import Any
from urllib.parse import unquote

import msgspec
from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.components import CurrentParts
from api.decisions.flags import FlagEvaluation, read
from api.http import lenient_json
from api.http.access import Reporter
from api.http.lenient_json import CleanedJson
from api.http.request_body import BrokenGzip, body
from api.metrics import Metrics
from api.traffic.refusals import LimitReached
from bandit.errors import InvalidRequest, NotFound, Overloaded, Problem, Unavailable

log = logging.getLogger("journey_bandit.http")

Ask = Request[Any, Any, Any]

PATH = "/ofrep/"
_FLAGS = "/ofrep/v1/evaluate/flags"


class _FlagBody(msgspec.Struct):
    """Unknown fields are the protocol's future."""

    context: Any = None


_BODY = msgspec.json.Decoder(_FlagBody)


class _UnreadableError(Exception):
    """The body is not JSON."""


def routes(current: CurrentParts, reporter: Reporter) -> list[HTTPRouteHandler]:
    """Route handlers of one service: evaluate one flag, or all of them. The bulk answer has an ETag; an unchanged one
    is answered 304. `reporter`: the name of the key that a request presents.
    """

    @post(_FLAGS + "/{key:str}", status_code=200, opt={"scope": "decide"}, include_in_schema=False)
    async def one(request: Ask, key: FromPath[str]) -> Response[bytes]:
        asked = read(await _context(request, current.ground.metrics))
        async with current.inside() as parts:
            return _answer(200, _flag(await parts.flags.one(unquote(key), asked, reporter(request))))

    @post(_FLAGS, status_code=200, opt={"scope": "decide"}, include_in_schema=False)
    async def everything(request: Ask) -> Response[bytes]:
        asked = read(await _context(request, current.ground.metrics))
        async with current.inside() as parts:
            results = await parts.flags.all(asked)
        content = msgspec.json.encode(
            {
                "flags": [
                    _flag(result) if isinstance(result, FlagEvaluation) else _failure(result[1], result[0])[1]
                    for result in results
                ]
            }
        )
        tag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'  # decisions in it are this user's own
        if tag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
            return Response(b"", status_code=304, headers={"ETag": tag})
        return Response(content, status_code=200, media_type="application/json", headers={"ETag": tag})

    return [one, everything]


def owns(path: str) -> bool:
    """Whether a path is one of OFREP's, so that errors there are answered by `refusal`."""
    return f"{path}/".startswith(PATH)


def refusal(request: Ask, error: Exception) -> Response[bytes]:
    """Response to any error on a path of OFREP, in its shape, routing errors included. Overloaded is 429, because
    clients then wait instead of asking again at once.
    """
    key = request.scope["path"].removeprefix(_FLAGS).strip("/")
    status, content, headers = _failure(error, unquote(key))
    return _answer(status, content, headers)


async def _context(request: Ask, metrics: Metrics) -> object:
    """The context, without attributes that JSON cannot hold: they are as if they had not been sent."""
    try:
        raw = await body(request)
    except BrokenGzip as error:
        raise _UnreadableError(str(error)) from error
    try:
        return _BODY.decode(raw).context
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = _cleaned(raw, error)
    metrics.unusable.labels("ofrep").inc(len(found.flaws))
    for flaw in found.flaws:
        if flaw.path == ("context", "targetingKey"):
            raise InvalidRequest(Problem("context.targetingKey", flaw.problem, "send the user's id as UTF-8"))
    return found.value.get("context")


def _cleaned(raw: bytes, error: Exception) -> CleanedJson:
    try:
        found = lenient_json.clean(raw)
    except (ValueError, RecursionError):
        found = CleanedJson(None, [])
    if not (found.flaws and isinstance(found.value, dict)):
        raise _UnreadableError("the body is not a JSON object with a context") from error
    return found


def _flag(found: FlagEvaluation) -> dict[str, object]:
    reply = found.reply
    sure = reply.propensity == 1.0 and not reply.holdout  # nothing was drawn: only this may be shown
    reason = "DISABLED" if reply.moment is None else "TARGETING_MATCH" if sure else "SPLIT"
    moment = {"moment": reply.moment} if isinstance(reply.moment, str) else {}
    return {
        "key": found.key,
        "value": found.value,
        "reason": reason,
        "variant": reply.nudge.id,
        "metadata": {
            "decisionId": str(reply.decision_id),
            **({"outcomeToken": reply.outcome_token} if reply.outcome_token else {}),
            "probability": reply.propensity,
            "stage": reply.stage,
            **moment,
            "type": reply.nudge.type,
            "format": reply.nudge.format,
            "holdout": reply.holdout,
            "policy": reply.policy,
            "policyVersion": reply.policy_version,
            "expiresAt": reply.expires_at.isoformat(),
        },
    }


def _failure(error: Exception, key: str) -> tuple[int, dict[str, object], dict[str, str]]:
    """Status, body and headers."""
    status, code, details, headers = 500, "GENERAL", "This is our fault; the error was logged.", dict[str, str]()
    if isinstance(error, _UnreadableError):
        status, code, details = 400, "PARSE_ERROR", str(error)
    elif isinstance(error, InvalidRequest):
        missing = error.problems[0].field == "targetingKey"
        status, code, details = 400, "TARGETING_KEY_MISSING" if missing else "INVALID_CONTEXT", str(error)
    elif isinstance(error, NotFound):
        status, code, details = 404, "FLAG_NOT_FOUND", str(error)
    elif isinstance(error, Overloaded):  # clients then wait, instead of asking again at once
        status, details, headers = 429, f"{error}; nothing was recorded", {"Retry-After": "1"}
    elif isinstance(error, Unavailable):
        status, details, headers = 503, str(error), {"Retry-After": "1"}
    elif isinstance(error, LimitReached):  # 429 for all limits: clients then wait
        status, details, headers = 429, f"{error.detail}; {error.fix}", dict(error.headers or {})
    elif isinstance(error, HTTPException) and error.status_code < 500:
        status, details = error.status_code, str(error.detail) or "this cannot be used"
        headers = {k: v for k, v in (error.headers or {}).items() if k.lower() in ("www-authenticate", "allow")}
    else:
        log.error("unexpected %s", type(error).__name__, exc_info=error)
    named: dict[str, object] = {"key": key} if key else {}
    return status, {**named, "errorCode": code, "errorDetails": details}, headers


def _answer(status: int, content: object, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(
        msgspec.json.encode(content), status_code=status, media_type="application/json", headers=headers or {}
    )
