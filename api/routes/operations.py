"""Routes by which operators pause, resume and retire nudges, and set ramps and holdouts, while the service runs; and
the list of who did what.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.components import CurrentParts
from api.http.error_responses import documented
from api.http.request_body import BodyShape, read, takes
from api.messages.operations import OperatorActionReply, OperatorActionRequest, OperatorActionsReply, TrafficRequest
from api.operations.paused_nudges import action_out
from bandit.records import ALL_NUDGES, OperatorAction, OperatorVerb

Ask = Request[Any, Any, Any]

_BODY, _SHARE = BodyShape(OperatorActionRequest), BodyShape(TrafficRequest)
_EXAMPLE = {"nudge": "ten", "by": "ana", "reason": "refunds rose"}
_SHARES: dict[OperatorVerb, tuple[str, str]] = {
    "ramp": (
        "Set the share of the traffic that the policy decides",
        "In force for every decision that is written after this one is, on every replica, in place of the ramp that "
        "the catalogue or a release declares: the rest gets no nudge, and propensities and receipts count with it. "
        "`share` null ends it. Repeating the request changes nothing.",
    ),
    "holdout": (
        "Set the share of people who get no nudge",
        "In force for every decision that is written after this one is, on every replica, in place of the holdout that "
        "the catalogue declares. Who is held out at 5 % is held out at 10 %, too; who joins the control group after "
        "nudges were shown to them is marked in receipts. `share` null ends it. Repeating the request changes nothing.",
    ),
}
_TOLD: dict[OperatorVerb, tuple[str, str]] = {
    "pause": (
        "Show a nudge to nobody for now",
        "In force for every decision that is written after this one is, on every replica: the nudge is not eligible, "
        "receipts name who and why, and what was shown before goes on teaching. Without `nudge`, the whole stage shows "
        "nothing; a loop, whose actions come with requests, answers with its first action for what is asked from then "
        "on. Repeating the request changes nothing.",
    ),
    "resume": (
        "Show a paused nudge again",
        "Ends the pause of the same nudge, or of the whole stage; nudges that were paused one by one stay paused. "
        "Repeating the request changes nothing.",
    ),
    "retire": (
        "Show a nudge to nobody any more",
        "Like a pause that nobody can end: to show it again, declare it under another name. Repeating the request "
        "changes nothing.",
    ),
}


def routes(current: CurrentParts, holder: Callable[[Ask], str]) -> list[HTTPRouteHandler]:
    """Route handlers of one service's operations (scope `admin`), and the list of what was done (`read`). `holder`:
    name of the key that a request presents, "" without one.
    """
    changing = (_changing(current, holder, verb) for verb in _TOLD)
    return [*changing, *(_setting(current, holder, verb) for verb in _SHARES), _listing(current)]


def _changing(current: CurrentParts, holder: Callable[[Ask], str], verb: OperatorVerb) -> HTTPRouteHandler:
    summary, description = _TOLD[verb]

    @post(
        f"/v1/policies/{{stage:str}}/{verb}",
        status_code=200,
        summary=summary,
        description=description,
        operation_id=f"{verb}_nudge",
        operation_class=takes(OperatorActionRequest, _EXAMPLE),
        responses=documented(400, 401, 403, 404, 409, 413, 415),
        opt={"scope": "admin"},
        tags=["operate"],
    )
    async def change(request: Ask, stage: FromPath[str]) -> OperatorActionReply:
        given = await read(request, _BODY)
        async with current.inside() as parts:
            asked = OperatorAction(
                at=current.ground.clock(),
                who=_who(holder(request), given.by),
                stage=stage,
                nudge=ALL_NUDGES if given.nudge is None else given.nudge,
                verb=verb,
                reason=given.reason,
            )
            return action_out(await asyncio.wrap_future(parts.worker.operate(asked)))

    return change


def _setting(current: CurrentParts, holder: Callable[[Ask], str], verb: OperatorVerb) -> HTTPRouteHandler:
    summary, description = _SHARES[verb]

    @post(
        f"/v1/policies/{{stage:str}}/{verb}",
        status_code=200,
        summary=summary,
        description=description,
        operation_id=f"set_{verb}",
        operation_class=takes(TrafficRequest, {"share": 0.1, "by": "ana", "reason": "go on slowly"}),
        responses=documented(400, 401, 403, 404, 413, 415),
        opt={"scope": "admin"},
        tags=["operate"],
    )
    async def change(request: Ask, stage: FromPath[str]) -> OperatorActionReply:
        given = await read(request, _SHARE)
        async with current.inside() as parts:
            asked = OperatorAction(
                at=current.ground.clock(),
                who=_who(holder(request), given.by),
                stage=stage,
                nudge=ALL_NUDGES,
                verb=verb,
                reason=given.reason,
                share=given.share,
            )
            return action_out(await asyncio.wrap_future(parts.worker.operate(asked)))

    return change


def _who(key: str, by: str) -> str:
    return f"key {key}, for {by}" if key else by


def _listing(current: CurrentParts) -> HTTPRouteHandler:
    @get(
        "/v1/operator-actions",
        operation_id="list_operator_actions",
        summary="What operators did, and why",
        responses=documented(401, 403),
        opt={"scope": "read"},
        tags=["operate"],
        sync_to_thread=True,
    )
    def listed() -> OperatorActionsReply:
        """Append-only list of pauses, resumptions and retirements of nudges, of ramps and holdouts, oldest first."""
        return OperatorActionsReply([action_out(one) for one in current.ground.store.operator_actions()])

    return listed
