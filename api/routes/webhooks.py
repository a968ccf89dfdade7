"""Routes of webhooks for operators: messages that were given up, and another try."""

import asyncio
import datetime as dt
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery, QueryParameter

from api.components import CurrentParts
from api.http.error_responses import documented
from api.times import time_of


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Message that an endpoint did not take after all its attempts. `event`: the CloudEvent."""

    endpoint: str
    id: str
    attempts: int
    error: str
    first_attempt_at: dt.datetime
    event: msgspec.Raw


class DeadLetters(msgspec.Struct, frozen=True):
    """The oldest dead letters, of `count` in all."""

    count: int
    dead_letters: list[DeadLetter]


class RetryReply(msgspec.Struct, frozen=True):
    """How many dead letters are tried again."""

    revived: int


def routes(current: CurrentParts) -> list[HTTPRouteHandler]:
    """Route handlers of one service's webhooks: list the dead letters (scope `read`), revive them (scope `admin`)."""

    @get(
        "/v1/webhooks/dead-letters",
        operation_id="list_dead_letters",
        summary="Webhooks that were given up",
        responses=documented(400, 401, 403),
        opt={"scope": "read"},
        tags=["operate"],
    )
    async def dead(limit: Annotated[int, QueryParameter(ge=0, le=1000)] = 100) -> DeadLetters:
        """Messages that an endpoint did not take after all its attempts, oldest first."""
        letters = await asyncio.to_thread(current.parts.sending.dead)
        return DeadLetters(
            len(letters),
            [
                DeadLetter(
                    endpoint=one.endpoint,
                    id=one.event,
                    attempts=one.attempts,
                    error=one.error,
                    first_attempt_at=time_of(one.at),
                    event=msgspec.Raw(one.body),
                )
                for one in letters[:limit]
            ],
        )

    @post(
        "/v1/webhooks/dead-letters/retry",
        operation_id="retry_dead_letters",
        status_code=200,
        summary="Try them again",
        responses=documented(400, 401, 403),
        opt={"scope": "admin"},
        tags=["operate"],
    )
    async def retry(endpoint: FromQuery[str | None] = None) -> RetryReply:
        """Dead letters of one endpoint, or of all, begin again with their first attempt."""
        async with current.inside() as parts:
            return RetryReply(await parts.sending.again(endpoint))

    return [dead, retry]
