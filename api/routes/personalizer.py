"""Routes of Azure Personalizer: rank, reward and activate, and their multi-slot forms, under every path its clients
call.

A loop is a stage whose policy is "shared": its name stands before /personalizer in the client's endpoint, or with the
key. Success is 201 for a ranking and 204 for the rest, exactly: clients refuse anything else, and ignore fields that
they do not know. Errors are in Personalizer's shape, by the version of the path; `api.http.protocol_paths` rewrites the
paths.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.status_codes import HTTP_429_TOO_MANY_REQUESTS

from api.components import CurrentParts
from api.decisions.ranking import ReportedReward, Slot, in_order, is_long
from api.http import lenient_json
from api.http.access import ExpiredKey, Reporter
from api.http.batch_items import BatchEnvelope
from api.http.lenient_json import CleanedJson
from api.http.protocol_paths import NO
from api.http.request_body import body
from api.metrics import Metrics
from api.traffic.refusals import LimitReached
from api.traffic.request_limits import apart
from bandit.catalogue import durations
from bandit.errors import Conflict, InvalidRequest, NotFound, Problem, Unavailable
from bandit.policies.shared import Action

log = logging.getLogger("journey_bandit.http")

Ask = Request[Any, Any, Any]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Objects = list[dict[str, Any]]
Own = Callable[[Ask], str]
Named = Callable[[Ask, str], str]
Read = Callable[[Ask, msgspec.json.Decoder[Any]], Awaitable[Any]]

PATH = "/personalizer/"
_BASE = "/personalizer/{loop:str}/{version:str}"
_BODY_BYTES = 500_000
_FIX = "send what Personalizer's documentation says"
_NO_KEY = "Access denied due to invalid subscription key or wrong API endpoint. Send a key of this service."


class _Action(msgspec.Struct):
    id: Id
    features: Objects


class _Rank(msgspec.Struct, rename="camel"):
    """Fields that are not known are ignored: the protocol's versions differ in them."""

    actions: list[_Action]
    context_features: Objects | None = None
    excluded_actions: list[str] | None = None
    event_id: Id | None = None
    defer_activation: bool | None = False


class _Slot(msgspec.Struct, rename="camel"):
    id: Id
    baseline_action: str
    features: Objects | None = None
    excluded_actions: list[str] | None = None


class _Slots(msgspec.Struct, rename="camel"):
    actions: list[_Action]
    slots: Annotated[list[_Slot], msgspec.Meta(min_length=1)]
    context_features: Objects | None = None
    event_id: Id | None = None
    defer_activation: bool | None = False


class _Reward(msgspec.Struct):
    value: float


class _SlotReward(msgspec.Struct, rename="camel"):
    slot_id: Id
    value: float


class _SlotRewards(msgspec.Struct):
    reward: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


_RANK, _SLOTS = msgspec.json.Decoder(_Rank), msgspec.json.Decoder(_Slots)
_REWARD, _SLOT_REWARD = msgspec.json.Decoder(_Reward), msgspec.json.Decoder(_SlotReward)
_REWARDS = BatchEnvelope(_SlotRewards, "reward")


def routes(current: CurrentParts, own: Own, reporter: Reporter) -> list[HTTPRouteHandler]:
    """Route handlers of one service. `own`: the loop that a request's key stands for, "" if none; it is asked where the
    path names no loop. `reporter`: the name of that key.
    """

    def named(request: Ask, loop: str) -> str:
        return current.parts.ranking.loop(unquote(loop) if loop != NO else own(request) or None)

    async def read(request: Ask, decoder: msgspec.json.Decoder[Any]) -> Any:
        return _decoded(await body(request), decoder, current.ground.metrics)

    return [
        *_single(current, named, read, reporter),
        *_multiple(current, named, read, reporter),
        _configuration(current, named),
    ]


def _single(current: CurrentParts, named: Named, read: Read, reporter: Reporter) -> list[HTTPRouteHandler]:
    @_post("/rank", 201, "decide")
    async def rank(request: Ask, loop: FromPath[str]) -> Response[bytes]:
        name = named(request, loop)
        asked = await read(request, _RANK)
        context, actions = asked.context_features or [], _actions(asked.actions)
        if long := is_long(context, actions, ()):
            await apart(request.scope)
        async with current.inside() as parts:
            ranked = await parts.ranking.rank(
                name, asked.event_id, context, actions,
                asked.excluded_actions or [], deferred=bool(asked.defer_activation), long=long,
            )  # fmt: skip
        (decision,) = ranked.decisions
        ranks = [{"id": action, "probability": p} for action, p in in_order(decision)]
        drawn = {"rewardActionId": decision.arm, "decisionId": decision.id}
        return _answer(201, {"ranking": ranks, "eventId": ranked.event, **drawn})

    @_post("/events/{event:str}/reward", 204, "reward")
    async def reward(request: Ask, loop: FromPath[str], event: FromPath[str]) -> None:
        name = named(request, loop)
        given = await read(request, _REWARD)
        async with current.inside() as parts:
            one = ReportedReward(None, given.value, _request(request))
            await parts.ranking.reward(name, _event(event), [one], reporter(request))

    @_post("/events/{event:str}/activate", 204, "reward")
    async def activate(request: Ask, loop: FromPath[str], event: FromPath[str]) -> None:
        name = named(request, loop)
        async with current.inside() as parts:
            await parts.ranking.activate(name, _event(event), reporter(request))

    return [rank, reward, activate]


def _multiple(current: CurrentParts, named: Named, read: Read, reporter: Reporter) -> list[HTTPRouteHandler]:
    @_post("/multislot/rank", 201, "decide")
    async def rank(request: Ask, loop: FromPath[str]) -> Response[bytes]:
        name = named(request, loop)
        asked = await read(request, _SLOTS)
        slots = [
            Slot(slot.id, slot.baseline_action, slot.features or [], slot.excluded_actions or [])
            for slot in asked.slots
        ]
        _check_slots(slots, len(asked.actions))
        context, actions = asked.context_features or [], _actions(asked.actions)
        if long := is_long(context, actions, slots):
            await apart(request.scope)
        async with current.inside() as parts:
            ranked = await parts.ranking.slots(
                name, asked.event_id, context, actions, slots,
                deferred=bool(asked.defer_activation), long=long,
            )  # fmt: skip
        filled = [
            {
                "id": slot.id,
                "rewardActionId": decision.arm,
                "probability": dict(in_order(decision))[decision.arm],
                "decisionId": decision.id,
            }
            for slot, decision in zip(slots, ranked.decisions, strict=True)
        ]
        return _answer(201, {"slots": filled, "eventId": ranked.event})

    @_post("/multislot/events/{event:str}/reward", 204, "reward")
    async def reward(request: Ask, loop: FromPath[str], event: FromPath[str]) -> None:
        """Slot by slot: one that cannot be used is refused after the others were recorded."""
        name, sent, own = named(request, loop), _REWARDS.read(await body(request)), _request(request)
        given, problems = list[ReportedReward](), list[Problem]()
        for i, raw in enumerate(sent.reward):
            try:
                one = _decoded(bytes(raw), _SLOT_REWARD, None)
                given.append(ReportedReward(one.slot_id, one.value, own and f"{own}:{i}", f"reward[{i}]."))
            except InvalidRequest as error:
                problems += [msgspec.structs.replace(p, field=f"reward[{i}].{p.field}") for p in error.problems]
        try:
            async with current.inside() as parts:
                await parts.ranking.reward(name, _event(event), given, reporter(request))
        except InvalidRequest as error:
            problems += error.problems
        if problems:
            raise InvalidRequest(*problems)

    @_post("/multislot/events/{event:str}/activate", 204, "reward")
    async def activate(request: Ask, loop: FromPath[str], event: FromPath[str]) -> None:
        name = named(request, loop)
        async with current.inside() as parts:
            await parts.ranking.activate(name, _event(event), reporter(request), slots=True)

    return [rank, reward, activate]


def _configuration(current: CurrentParts, named: Named) -> HTTPRouteHandler:
    @get(f"{_BASE}/configurations/service", opt={"scope": "read"}, include_in_schema=False)
    async def service(request: Ask, loop: FromPath[str]) -> Response[bytes]:
        """What the catalogue says, in their words. It is changed there."""
        stage = current.parts.catalogue.stages[named(request, loop)]
        content = {
            "rewardWaitTime": f"PT{durations.seconds(stage.reward.window):g}S",
            "defaultReward": stage.reward.default,
            "rewardAggregation": "earliest" if stage.loop.rewards == "first" else "sum",
            "learningMode": "Online",
        }
        return _answer(200, content)

    return service


def _post(path: str, status: int, scope: str) -> post:
    return post(
        _BASE + path,
        status_code=status,
        request_max_body_size=_BODY_BYTES,
        opt={"scope": scope},
        include_in_schema=False,
        name=f"personalizer{path}",
    )


def owns(path: str) -> bool:
    """Whether a path is one of Personalizer's, so that errors there are answered by `refusal`."""
    return f"{path}/".startswith(PATH)


def refusal(request: Ask, error: Exception) -> Response[bytes]:
    """Response to any error on a path of Personalizer, in the shape and with the codes of the path's version, routing
    errors included.
    """
    _, _, _, version, *rest = [*request.scope["path"].split("/"), "", "", "", ""]
    operation = "/".join(part for part in rest if part)
    status, code, message, headers = _told(error, operation)
    if version.startswith("v1.0"):  # the first version knows few words
        code = {400: "BadRequest", 404: "ResourceNotFound", 409: "BadRequest"}.get(status, code)
    target = error.problems[0].field if isinstance(error, InvalidRequest) else None
    content = {"code": code, "message": message, **({"target": target} if target else {})}
    return _answer(status, {"error": content}, headers)


def _told(error: Exception, operation: str) -> tuple[int, str, str, dict[str, str]]:
    """Status, code of the newer versions, message and headers."""
    invalid = "InvalidRewardRequest" if operation.endswith("reward") else "InvalidRankRequest"
    if operation.endswith("activate"):
        invalid = "InvalidEventIdToActivate"
    if isinstance(error, InvalidRequest):
        return 400, invalid, str(error), {}
    if isinstance(error, NotFound):
        return 404, "ResourceNotFound", str(error), {}
    if isinstance(error, Conflict):
        return 409, invalid, str(error), {}
    if isinstance(error, Unavailable):
        return 503, "ServiceUnavailable", f"{error}; send the same again", {"Retry-After": "1"}
    if isinstance(error, LimitReached):
        code = "TooManyRequests" if error.status_code == HTTP_429_TOO_MANY_REQUESTS else "ServiceUnavailable"
        return error.status_code, code, f"{error.detail}; {error.fix}", dict(error.headers or {})
    if isinstance(error, HTTPException) and error.status_code < 500:
        words = {401: "401", 403: "403", 404: "ResourceNotFound", 405: "OperationNotAllowed"}
        headers = {k: v for k, v in (error.headers or {}).items() if k.lower() == "allow"}
        message = str(error.detail) or "there is nothing here"
        if error.status_code == 401 and not isinstance(error, ExpiredKey):
            message = _NO_KEY
        return error.status_code, words.get(error.status_code, "BadRequest"), message, headers
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return 500, "InternalServerError", "This is our fault; the error was logged.", {}


def _decoded(raw: bytes, decoder: msgspec.json.Decoder[Any], metrics: Metrics | None) -> Any:
    """The body, without features that JSON cannot hold: they are as null, which is nothing."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem, found = _problem(error), _cleaned(raw)
    if not found.flaws:
        raise InvalidRequest(problem)
    for flaw in found.flaws:
        if not {"features", "contextFeatures"} & set(flaw.path[:-1]):
            raise InvalidRequest(Problem(lenient_json.text(flaw.path)[:120] or "(body)", flaw.problem, _FIX))
    if metrics:
        metrics.unusable.labels("personalizer").inc(len(found.flaws))
    try:
        return decoder.decode(msgspec.json.encode(found.value))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(_problem(error)) from error


def _cleaned(raw: bytes) -> CleanedJson:
    try:
        return lenient_json.clean(raw)
    except (ValueError, RecursionError):
        return CleanedJson(None, [])


def _problem(error: Exception) -> Problem:
    if not isinstance(error, msgspec.ValidationError):
        return Problem("(body)", "not JSON, or nested too deep", "send UTF-8 JSON")
    what, _, where = str(error).partition(" - at `$.")
    return Problem(where.rstrip("`")[:120] or "(body)", what[:120], _FIX)


def _check_slots(slots: list[Slot], actions: int) -> None:
    names = [slot.id for slot in slots]
    if len(set(names)) < len(names):
        raise InvalidRequest(Problem("slots", "an id is there twice", "give every slot an id of its own"))
    baselines = [slot.baseline for slot in slots]
    if len(set(baselines)) < len(baselines):
        raise InvalidRequest(Problem("slots", "a baselineAction is there twice", "give every slot one of its own"))
    if len(slots) > actions:
        raise InvalidRequest(Problem("slots", f"{len(slots)} slots and {actions} actions", "send more actions"))
    for i, slot in enumerate(slots):
        if slot.baseline in slot.excluded:
            fix = "take it out of excludedActions"
            raise InvalidRequest(Problem(f"slots[{i}].baselineAction", "excluded from its own slot", fix))


def _actions(sent: list[_Action]) -> list[Action]:
    return [Action(action.id, action.features) for action in sent]


def _event(sent: str) -> str:
    event = unquote(sent)
    if len(event) > 256:
        raise InvalidRequest(Problem("eventId", "longer than 256 characters", "send the id that rank answered"))
    return event


def _request(request: Ask) -> str:
    """The client's id of a request, which its retries repeat. Some clients send one."""
    return request.headers.get("x-ms-client-request-id", "")


def _answer(status: int, content: object, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(
        msgspec.json.encode(content), status_code=status, media_type="application/json", headers=headers or {}
    )
