"""Routes of the native protocol for decisions, outcomes and look-ups, under /v1. Bodies are decoded strictly, errors
are RFC 9457 problem details.
"""

from functools import partial
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from api.components import CurrentParts
from api.http.access import Reporter
from api.http.batch_items import ItemBatch, answers
from api.http.error_responses import documented, item
from api.http.hot_routes import HOT
from api.http.request_body import BodyShape, body, takes
from api.ledger.recomputation import Recomputer
from api.messages.decisions import (
    DecisionBatch,
    DecisionItem,
    DecisionReplies,
    DecisionReply,
    DecisionRequest,
    OutcomeBatch,
    OutcomeItem,
    OutcomeReplies,
    OutcomeReply,
    OutcomeRequest,
    PoliciesReply,
    Receipt,
    RecomputationReply,
    StagesReply,
)
from api.traffic.request_limits import apart, charge, visit_of
from bandit.catalogue.model import Catalogue
from bandit.snapshot import to_zip

Ask = Request[Any, Any, Any]

_DECISION, _DECISIONS = BodyShape(DecisionRequest), ItemBatch(DecisionBatch, DecisionRequest)
_OUTCOME, _OUTCOMES = BodyShape(OutcomeRequest), ItemBatch(OutcomeBatch, OutcomeRequest)
_BATCH_BYTES = 4_000_000

_OUTCOME_EXAMPLE = {"decision_id": "01890a5d-ac96-774b-bcce-b302099a8057", "kind": "reward", "value": 1}


def routes(current: CurrentParts, reporter: Reporter, recomputer: Recomputer) -> list[HTTPRouteHandler]:
    """Route handlers of one service: decide, report outcomes, and look up receipts, stages, policies and snapshots.
    `reporter`: the name of the key that a request presents.
    """
    return [*_deciding(current), *_reporting(current, reporter), *_receipts(current, recomputer), *_looking_up(current)]


def _deciding(current: CurrentParts) -> list[HTTPRouteHandler]:
    example = _example(current.parts.catalogue)

    async def answer(_: Ask, raw: bytes) -> DecisionReply:
        asked = _DECISION.read(raw)
        async with current.inside() as parts:
            return await parts.service.decide(asked)

    @post(
        "/v1/decisions",
        operation_id="decide",
        status_code=200,
        summary="Ask for a nudge",
        operation_class=takes(DecisionRequest, example),
        responses=documented(400, 401, 403, 404, 409, 413, 415),
        opt={"scope": "decide", HOT: answer},
        tags=["decide"],
    )
    async def decide(request: Ask) -> DecisionReply:
        """The arm is drawn from `propensities`; the decision is on disk before you read it."""
        return await answer(request, await body(request))

    @post(
        "/v1/decisions/batch",
        operation_id="decide_batch",
        status_code=200,
        summary="Ask for up to 1,000 nudges",
        operation_class=takes(DecisionBatch, {"decisions": [example]}),
        responses=documented(400, 401, 403, 413, 415),
        request_max_body_size=_BATCH_BYTES,
        opt={"scope": "decide"},
        tags=["decide"],
    )
    async def decide_batch(request: Ask) -> DecisionReplies:
        """Answers in order; an item that cannot be used gets its own problem, the others their decision.

        The batch is refused as a whole (400, nothing recorded) only if it is no JSON object with a list of items.
        """
        asked = _DECISIONS.read(await body(request))
        charge(request.scope, len(asked))
        async with current.inside() as parts:
            results = await answers(asked, parts.service.decide_many)
        return DecisionReplies([DecisionItem(*item(one, f"decisions[{i}]")) for i, one in enumerate(results)])

    return [decide, decide_batch]


def _reporting(current: CurrentParts, reporter: Reporter) -> list[HTTPRouteHandler]:
    async def answer(request: Ask, raw: bytes) -> OutcomeReply:
        told = _OUTCOME.read(raw)
        async with current.inside() as parts:
            return await parts.service.report(told, reporter(request))

    @post(
        "/v1/outcomes",
        operation_id="report_outcome",
        status_code=200,
        summary="Report what happened",
        operation_class=takes(OutcomeRequest, _OUTCOME_EXAMPLE),
        responses=documented(400, 401, 403, 404, 409, 413, 415),
        opt={"scope": "reward", HOT: answer},
        tags=["report"],
    )
    async def report(request: Ask) -> OutcomeReply:
        """Safe to repeat: the same outcome again answers `duplicate`."""
        return await answer(request, await body(request))

    @post(
        "/v1/outcomes/batch",
        operation_id="report_outcome_batch",
        status_code=200,
        summary="Report up to 1,000 outcomes",
        operation_class=takes(OutcomeBatch, {"outcomes": [_OUTCOME_EXAMPLE]}),
        responses=documented(400, 401, 403, 413, 415),
        request_max_body_size=_BATCH_BYTES,
        opt={"scope": "reward"},
        tags=["report"],
    )
    async def report_batch(request: Ask) -> OutcomeReplies:
        """Answers in order; an item that cannot be used gets its own problem, the others are recorded.

        The batch is refused as a whole (400, nothing recorded) only if it is no JSON object with a list of items.
        """
        told = _OUTCOMES.read(await body(request))
        charge(request.scope, len(told))
        async with current.inside() as parts:
            results = await answers(told, partial(parts.service.report_many, reporter=reporter(request)))
        return OutcomeReplies([OutcomeItem(*item(one, f"outcomes[{i}]")) for i, one in enumerate(results)])

    return [report, report_batch]


def _receipts(current: CurrentParts, recomputer: Recomputer) -> list[HTTPRouteHandler]:
    @get(
        "/v1/decisions/{decision_id:uuid}",
        operation_id="get_decision",
        summary="The receipt of a decision",
        responses=documented(400, 401, 403, 404),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def receipt(decision_id: FromPath[UUID]) -> Receipt:
        """What the decision was computed from, every propensity, and what became of it."""
        async with current.inside() as parts:
            return await parts.service.receipt(decision_id)

    @get(
        "/v1/decisions/{decision_id:uuid}/recomputation",
        operation_id="recompute_decision",
        summary="A decision recomputed from the ledger",
        responses=documented(400, 401, 403, 404),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def recomputation(request: Ask, decision_id: FromPath[UUID]) -> RecomputationReply:
        """Scores, propensities and the draw, computed again from the rows and compared with what was answered."""
        await apart(request.scope)
        result = await recomputer.recompute(decision_id)
        return RecomputationReply(
            decision_id=decision_id,
            verdict=result.verdict,
            differences=list(result.differences),
            said=result.said,
        )

    return [receipt, recomputation]


def _looking_up(current: CurrentParts) -> list[HTTPRouteHandler]:
    @get(
        "/v1/stages",
        operation_id="list_stages",
        summary="What this app declares",
        responses=documented(401, 403),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def stages() -> StagesReply:
        """Stages of the app with their features, nudges, rewards and attribution windows."""
        return current.parts.service.stages()

    @get(
        "/v1/policies",
        operation_id="list_policies",
        summary="What is live",
        responses=documented(400, 401, 403),
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def policies(request: Ask, wait: FromQuery[bool] = False) -> PoliciesReply:
        """Live policy of every stage: version, arms, counts and means. `wait=true` answers after all that matured so
        far was learned.
        """
        visit = visit_of(request.scope)
        if wait and visit is not None:
            visit.rest()
        async with current.inside() as parts:
            return await parts.service.policies(wait=wait)

    @get(
        "/v1/policies/{stage:str}/snapshot",
        operation_id="get_snapshot",
        summary="The live policy as data",
        responses=documented(400, 401, 403, 404),
        media_type="application/zip",
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def snapshot(stage: FromPath[str]) -> Response[bytes]:
        """The live policy of a stage: policy.json and posterior.npz in one archive; no pickle."""
        return Response(to_zip(current.parts.service.snapshot(stage)), media_type="application/zip")

    return [stages, policies, snapshot]


def _example(catalogue: Catalogue) -> dict[str, Any]:
    """A request that this app accepts as it stands."""
    name, stage = next(iter(catalogue.stages.items()))
    context = {feature: declared.default for feature, declared in stage.features.items()}
    return {"stage": name, "user_id": "u-1", "context": context}
