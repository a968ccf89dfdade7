"""Error responses: our errors as RFC 9457 problem details. Nothing a caller sent is echoed beyond the names that the
caller needs to find the mistake.
"""

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec

from api.http.request_body import BODY
from api.messages.decisions import ProblemReply
from api.telemetry.request_context import current_id
from api.traffic.refusals import LimitReached
from bandit.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    JourneyBanditError,
    NotFound,
    Overloaded,
    Problem,
    Unavailable,
)

log = logging.getLogger("journey_bandit.http")

Reply = TypeVar("Reply")
MEDIA = "application/problem+json"


def problem_of(error: JourneyBanditError) -> ProblemReply:
    """Problem details, status included, of one of our errors: InvalidRequest 400, Forbidden 403, NotFound 404, Conflict
    409, Overloaded and Unavailable 503. Any other is logged and answered 500. For single replies and for the items of a
    batch.
    """
    if isinstance(error, InvalidRequest):
        return _problem("invalid-request", "The request cannot be used", 400, str(error), list(error.problems))
    if isinstance(error, Forbidden):
        return _problem("forbidden", "The sender may not report this", 403, str(error), [error.problem])
    if isinstance(error, NotFound):
        return _problem("not-found", "There is no such thing", 404, str(error), [error.problem])
    if isinstance(error, Conflict):
        return _problem("conflict", "The id was used before", 409, str(error), [error.problem])
    if isinstance(error, Overloaded):
        return _problem("overloaded", "Retry later", 503, f"{error}; nothing was recorded: retry later.")
    if isinstance(error, Unavailable):
        detail = f"{error}. It is not known whether this was recorded: retry with the same id."
        return _problem("unavailable", "Retry with the same id", 503, detail)
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return _problem("internal", "This is our fault", 500, "The error was logged.")


def handle(_: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Problem response to any exception of any route, routing errors included: the exception handler of the native
    protocol. Errors that nobody expected are logged, and answered 500 without details.
    """
    headers = {}
    if isinstance(error, JourneyBanditError):
        problem = problem_of(error)
    elif isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        problem = limit_problem(error) if isinstance(error, LimitReached) else http_problem(error)
    else:
        log.error("unexpected %s", type(error).__name__, exc_info=error)
        problem = _problem("internal", "This is our fault", 500, "The error was logged.")
    if problem.status == 503:
        headers.setdefault("Retry-After", "1")
    return _response(problem, headers)


def failed(kind: str, title: str, detail: str) -> Response[bytes]:
    """Problem response (500) to a failure that the client is told, and that was logged."""
    return _response(_problem(kind, title, 500, detail), {})


def _response(problem: ProblemReply, headers: Mapping[str, str]) -> Response[bytes]:
    problem = msgspec.structs.replace(problem, request_id=current_id() or msgspec.UNSET)
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type=MEDIA, headers=headers)


def limit_problem(error: LimitReached) -> ProblemReply:
    """Problem details of a refusal by a limit, which name the limit and its number."""
    title = "Too many requests" if error.status_code == 429 else "The service is busy"
    errors = [Problem("(request)", error.detail, error.fix)]
    return _problem("limit-reached", title, error.status_code, error.detail, errors)


def http_problem(error: HTTPException) -> ProblemReply:
    """Problem details of one of Litestar's errors. Those that are our fault are logged and answered without details."""
    titles = {401: "A key is needed", 403: "The key may not do this", 404: "There is no such route"}
    titles |= {405: "The route has no such method", 408: "The body came too slowly", 413: "The body is too large"}
    titles |= {415: "The Content-Encoding is not known", 429: "Too many requests"}
    status = error.status_code
    if status >= 500:
        log.error("unexpected %s", type(error).__name__, exc_info=error)
        return _problem("internal", "This is our fault", status, "The error was logged.")
    fixes = {404: "see /docs", 405: "see /docs", 408: "send it without pauses", 413: "send less at once"}
    fixes |= {415: "send it as it is, or as Content-Encoding: gzip", 429: "wait as long as Retry-After says"}
    detail = str(error.detail) if status in (401, 403) else titles.get(status, "The request cannot be used")
    errors = [Problem("(request)", detail, fixes[status])] if status in fixes else []
    if not errors and error.extra and isinstance(error.extra, list):
        errors = [
            Problem(str(e.get("key", "(request)")), str(e.get("message", "wrong")), "see /docs") for e in error.extra
        ]
    return _problem(f"http-{status}", titles.get(status, "The request cannot be used"), status, detail, errors)


def _problem(kind: str, title: str, status: int, detail: str, errors: list[Problem] | None = None) -> ProblemReply:
    return ProblemReply(
        type=f"urn:journey-bandit:problem:{kind}",
        title=title,
        status=status,
        detail=detail,
        errors=errors or [],
    )


def item(result: Reply | JourneyBanditError, place: str) -> tuple[int, Reply | None, ProblemReply | None]:
    """Status, reply and problem of one item of a batch: (200, reply, None), or (status, None, problem). `place` is
    where the item stands, such as `events[1]`: fields of the problem are named from the top of the body.
    """
    if isinstance(result, JourneyBanditError):
        problem = problem_of(_placed(result, place))
        return problem.status, None, problem
    return 200, result, None


def _placed(error: JourneyBanditError, place: str) -> JourneyBanditError:
    """The error with its fields named from the top of the body."""
    if isinstance(error, InvalidRequest):
        return InvalidRequest(*(_moved(problem, place) for problem in error.problems))
    if isinstance(error, Forbidden | NotFound | Conflict):
        moved = _moved(error.problem, place)
        return type(error)(moved.field, moved.problem, moved.fix)
    return error


def _moved(problem: Problem, place: str) -> Problem:
    dot = "" if problem.field.startswith("[") else "."
    return msgspec.structs.replace(problem, field=place if problem.field == BODY else f"{place}{dot}{problem.field}")


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """Error responses of a route for the OpenAPI document: status → schema and what the status means here. 429 and 503
    are among them unasked, because limits refuse any request before a route sees it.
    """
    words = {
        400: "A field is wrong: `errors` names it and its fix",
        401: "No key, or not a key",
        403: "The key lacks the scope, or an outcome its decision's token",
        404: "Not found",
        409: "The id was used with other content",
        413: "The body is too large",
        415: "The Content-Encoding is neither gzip nor none",
        500: "It failed: `detail` says why",
        429: "Too many requests of this key or address: Retry-After says how long to wait",
        503: "Busy, or not known to be recorded: retry with the same id",
    }
    return {
        s: ResponseSpec(ProblemReply, description=words[s], media_type=MEDIA, generate_examples=False)
        for s in sorted({*statuses, 429, 503})
    }
