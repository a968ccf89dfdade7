"""Routes for operators: the way to /docs, liveness, readiness and Prometheus metrics. They need no key and tell nothing
secret; metrics, which tell how an app does, can need one: of the scope `metrics`, which opens nothing else, or `read`.
"""

from collections.abc import Awaitable, Callable, Mapping

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec

from api.http.error_responses import documented
from api.messages.decisions import Health


def routes(
    health: Callable[[], Awaitable[Health]],
    metrics: Callable[[], bytes],
    pages: Mapping[str, str],
    *,
    scope: str = "",
) -> list[HTTPRouteHandler]:
    """Route handlers of one service. `health` computes the state of its parts at each request, `metrics`
    the exposition; `pages`: paths of what people may look at, by name; `scope`: what a key needs for metrics, "" if
    they need none.
    """

    @get("/", include_in_schema=False, opt={"public": True})
    async def root() -> dict[str, str]:
        """Where to go from the address that `serve` prints."""
        return {"service": "journey-bandit", **pages, "health": "/health/ready"}

    @get(
        "/health/live",
        operation_id="check_liveness",
        summary="Is the process up",
        opt={"public": True},
        security=[{}],
        tags=["operate"],
    )
    async def live() -> dict[str, str]:
        """200 while the process answers at all."""
        return {"status": "ok"}

    @get(
        "/health/ready",
        operation_id="check_readiness",
        summary="Can it decide and record",
        responses={503: ResponseSpec(Health, description="It cannot", generate_examples=False)},
        opt={"public": True},
        security=[{}],
        tags=["operate"],
    )
    async def ready() -> Response[Health]:
        """503 when the writer does not run or the ledger cannot be written; `failing` says why."""
        state = await health()
        return Response(state, status_code=200 if state.status == "ok" else 503)

    @get(
        "/metrics",
        operation_id="read_metrics",
        summary="Prometheus metrics",
        responses=documented(*((401, 403) if scope else ())),
        opt={"scope": scope} if scope else {"public": True},
        security=None if scope else [{}],
        media_type="text/plain",
        tags=["operate"],
    )
    async def exposition() -> Response[bytes]:
        """Text format 0.0.4."""
        return Response(metrics(), media_type="text/plain; version=0.0.4")

    return [root, live, ready, exposition]
