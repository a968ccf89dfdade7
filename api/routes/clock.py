"""Routes of a driven clock, `/v1/clock`: only a service that was started with `--clock driven` has them."""

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler

from api.clocks import DrivenClock
from api.http.error_responses import documented
from api.http.request_body import BodyShape, read, takes


class Advance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far to go, in µs: a year at most."""

    microseconds: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400_000_000)]


class ClockReply(msgspec.Struct, frozen=True):
    """Simulated time, in µs since 1970."""

    now: int


_ADVANCE = BodyShape(Advance)


def routes(clock: DrivenClock) -> list[HTTPRouteHandler]:
    """Route handlers of one driven clock: read it, and advance it (scope `admin`)."""

    @get(
        "/v1/clock",
        operation_id="read_clock",
        summary="Simulated time",
        opt={"scope": "read"},
        tags=["trials"],
    )
    async def now() -> ClockReply:
        """Simulated time, in µs since 1970. Only a service that runs with `--clock driven` has this route."""
        return ClockReply(clock())

    @post(
        "/v1/clock",
        operation_id="advance_clock",
        status_code=200,
        summary="Let simulated time pass",
        operation_class=takes(Advance, {"microseconds": 60_000_000}),
        responses=documented(400, 401, 403, 413),
        opt={"scope": "admin"},
        tags=["trials"],
    )
    async def advance(request: Request[Any, Any, Any]) -> ClockReply:
        """Advance simulated time, and answer what it is then. It moves in no other way."""
        return ClockReply(clock.advance((await read(request, _ADVANCE)).microseconds))

    return [now, advance]
