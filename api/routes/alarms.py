"""Route of alarms that keys raised: an operator says what was found out."""

import asyncio
from collections.abc import Callable
from typing import Any

from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.components import CurrentParts
from api.decisions.service import acknowledged
from api.http.error_responses import documented
from api.http.request_body import BodyShape, read, takes
from api.messages.alarms import AlarmAcknowledgementReply, AlarmAcknowledgementRequest
from bandit.records import AlarmAcknowledgement

Ask = Request[Any, Any, Any]

_BODY = BodyShape(AlarmAcknowledgementRequest)
_EXAMPLE = {"reporter": "backend", "verdict": "honest", "acknowledged_by": "ana", "reason": "a campaign began"}


def routes(current: CurrentParts, holder: Callable[[Ask], str]) -> list[HTTPRouteHandler]:
    """Route handler of one service's alarms about keys (scope `admin`). `holder`: name of the key that a request
    presents, "" without one.
    """

    @post(
        "/v1/policies/{stage:str}/reward-alarms/acknowledge",
        operation_id="acknowledge_reward_alarm",
        status_code=200,
        summary="Say what was found out about an accused key",
        operation_class=takes(AlarmAcknowledgementRequest, _EXAMPLE),
        responses=documented(400, 401, 403, 404, 413, 415),
        opt={"scope": "admin"},
        tags=["operate"],
    )
    async def acknowledge(request: Ask, stage: FromPath[str]) -> AlarmAcknowledgementReply:
        """The alarms so far about the key at the stage warn no more. Where the stage pauses at an alarm, what the key
        reported is learned from now on if it is honest, and else is left out for good; `journey-bandit retract` takes
        back what it taught before. Repeating the request changes nothing.
        """
        given = await read(request, _BODY)
        async with current.inside() as parts:
            parts.catalogue.stage(stage)
            key = holder(request)
            asked = AlarmAcknowledgement(
                at=current.ground.clock(),
                who=f"key {key}, for {given.acknowledged_by}" if key else given.acknowledged_by,
                stage=stage,
                reporter=given.reporter,
                verdict=given.verdict,
                reason=given.reason,
            )
            return acknowledged(await asyncio.wrap_future(parts.worker.acknowledge(asked)))

    return [acknowledge]
