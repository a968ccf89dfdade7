"""Route of exports: a stage's decisions as the folder that `journey-bandit export` writes, in a tar."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated, Any, cast

from litestar import Request, Response, get
from litestar.datastructures import MultiDict
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api import times
from api.components import CurrentParts
from api.exports import tar_files
from api.exports.log_exports import TABLES, ExportOrder, LogExports
from api.exports.tar_files import TarFiles
from api.http.error_responses import documented, failed
from api.ledger import audit
from api.stores import Store
from api.stores.decision_log import LAST, DecisionFilter
from api.traffic.paced_answers import PIECE, SECONDS, nothing
from api.traffic.request_limits import visit_of
from bandit.errors import InvalidRequest, NotFound, Problem, RemoteError

log = logging.getLogger("journey_bandit.exports")

Ask = Request[Any, Any, Any]

_MEDIA = "application/x-tar"
_TIME: dict[str, Any] = {"oneOf": [{"type": "string", "format": name} for name in ("date", "date-time")]}
_STAGES: dict[str, Any] = {"oneOf": [{"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_TABLES: dict[str, Any] = {"oneOf": [{"type": "array", "items": {"type": "string", "enum": list(TABLES)}}]}
_PARAMETERS = ("stage", "since", "until", "with")


def routes(current: CurrentParts, exports: LogExports) -> list[HTTPRouteHandler]:
    """Route handler of one service's exports (scope `read`)."""

    @get(
        "/v1/export",
        operation_id="export_decisions",
        summary="Export decisions as Parquet files in a tar",
        response_description="Tar with a folder for each stage, which `evaluate --rounds` reads",
        responses=documented(400, 401, 403, 404, 500),
        media_type=_MEDIA,
        opt={"scope": "read"},
        tags=["look up"],
    )
    async def export(
        request: Ask,
        stage: Annotated[
            list[str] | None,
            QueryParameter(required=True, schema_extra=_STAGES, description="Stages, also with commas between."),
        ] = None,
        since: Annotated[
            str | None, QueryParameter(schema_extra=_TIME, description="Only what was decided then or later.")
        ] = None,
        until: Annotated[
            str | None, QueryParameter(schema_extra=_TIME, description="Only what was decided before.")
        ] = None,
        more: Annotated[
            list[str] | None,
            QueryParameter(
                name="with", schema_extra=_TABLES, description="Tables beside the decisions, as for stages."
            ),
        ] = None,
    ) -> Response[bytes]:
        """For each stage the folder that `journey-bandit export` writes: Parquet files and a manifest. One export at a
        time is made; the answer begins when all of it is written.
        """
        if not exports.possible:
            raise _impossible(current.ground.settings.store)
        _check_query(request.query_params)
        begin, end = _bounds(since, until)
        tables = _tables(_names(more or []))
        orders = [ExportOrder(name, begin, end, tables) for name in _stages(stage or [])]
        await asyncio.to_thread(_check, current.ground.store, orders)
        visit = visit_of(request.scope)
        if visit is not None:
            visit.rest()  # others have their turn while it is made and sent
        return ExportAnswer(exports, orders)

    return [export]


class ExportAnswer(Response[bytes]):
    """Answer that makes an export, sends it as a tar, and removes it.

    It ends early, and the child process with it, when the client is gone or takes no piece of it for a minute. An
    export that cannot be made is answered with a problem, 500, which says why.
    """

    def __init__(self, exports: LogExports, orders: Sequence[ExportOrder]):
        super().__init__(b"", media_type=_MEDIA)
        self._exports, self._orders = exports, orders
        self._begun = self._whole = False  # the server has its head; all of it

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        """ASGI application that answers one request. It raises LimitReached (503) while another export is made or
        sent, and when the service stops before the answer begins.
        """
        return cast(ASGIResponse, self._serve)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_gone(receive))
        made = asyncio.ensure_future(self._made_and_sent(send))
        try:
            await asyncio.wait((gone, made), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not self._whole:
                made.cancel()  # it removes its folder, which is waited for
            await asyncio.gather(gone, made, return_exceptions=True)
        if made.cancelled():
            if gone.cancelled() and not self._begun:  # its client waits: the service stops
                raise self._exports.ended()
            return
        try:
            made.result()
        except RemoteError as error:
            answer = failed("export-failed", "The export failed", str(error))
            await answer.to_asgi_response(app=None, request=Request(scope))(scope, nothing, send)

    async def _made_and_sent(self, send: Send) -> None:
        async with self._exports.made(self._orders) as folder:
            tar = await asyncio.to_thread(tar_files.of_folder, folder)
            try:
                await self._send(tar, send)
            except TimeoutError:
                log.warning("cut an export, of which its client took nothing for %g s", SECONDS)
            except OSError as error:  # the head is sent: its length says that something is missing
                log.error("cut an export: %s", error)
            else:
                log.info("an export was sent: %d bytes", tar.length)

    async def _send(self, tar: TarFiles, send: Send) -> None:
        """Send a tar in pieces that pass `PacedAnswer` as they are. Raises TimeoutError if one is not taken in time."""
        name = "-".join(order.stage for order in self._orders)
        headers = [
            (b"content-type", _MEDIA.encode()),
            (b"content-length", str(tar.length).encode()),
            (b"content-disposition", f'attachment; filename="{name}.tar"'.encode()),
            (b"cache-control", b"no-store"),
        ]
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        parts, left = tar.parts(), tar.length
        while part := await asyncio.to_thread(next, parts, b""):
            for start in range(0, len(part), PIECE):
                piece = part[start : start + PIECE]
                left -= len(piece)
                self._whole = not left
                async with asyncio.timeout(SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": bool(left)})


async def _gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _impossible(store: str) -> NotFound:
    if store.startswith("memory:"):
        problem = "the ledger is inside this service (memory://), and the process that exports cannot read it"
        return NotFound("store", problem, "start the service with --store sqlite:///FILE or postgresql://…")
    problem = "this service makes no exports: it was not started by `journey-bandit serve`"
    return NotFound("(service)", problem, "start it so, or run `journey-bandit export` where the ledger is")


def _names(values: Sequence[str]) -> list[str]:
    """Names that were given one by one, or with commas between; each once."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",")))


def _check_query(query: MultiDict[Any]) -> None:
    """Raise InvalidRequest for a parameter that is none, which may be a bound with a slip in it, or a time twice."""
    for name in query:
        if name not in _PARAMETERS:
            fix = f"leave it out, or give one of {', '.join(_PARAMETERS)}"
            raise InvalidRequest(Problem(name, "an export has no such parameter", fix))
    for name in ("since", "until"):
        if len(query.getall(name, [])) > 1:
            raise InvalidRequest(Problem(name, "given more than once", "give one time"))


def _bounds(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Times in µs since 1970, None where one is not given. Raises InvalidRequest."""
    begin, end = times.parsed("since", since, "for all"), times.parsed("until", until, "for all")
    if begin is not None and end is not None and begin >= end:
        raise InvalidRequest(Problem("until", "not later than `since`", "give a later time"))
    return begin, end


def _stages(values: Sequence[str]) -> list[str]:
    if not values:
        raise InvalidRequest(Problem("stage", "missing", "name the stage, or several with commas between"))
    return _names(values)


def _tables(names: Sequence[str]) -> list[str]:
    if unknown := [name for name in names if name not in TABLES]:
        raise InvalidRequest(Problem("with", f"there is no table {unknown[0]!r}", f"some of {', '.join(TABLES)}"))
    return list(names)


def _check(store: Store, orders: Sequence[ExportOrder]) -> None:
    """Raise NotFound for a stage that the ledger does not know, or that has no decision in this time; InvalidRequest
    for one whose actions come with requests.
    """
    served = audit.stages(store)
    for order in orders:
        stage = order.stage
        if stage not in served:
            problem = f"the ledger has no stage {stage!r}"
            raise NotFound("stage", problem, f"one of {', '.join(sorted(served)) or 'none'}")
        if served[stage].has_request_actions:
            problem = f"the actions of {stage!r} come with each request: an export has columns for declared nudges"
            raise InvalidRequest(Problem("stage", problem, "name a stage whose nudges are declared"))
        wanted = DecisionFilter(stage, since=order.since or 0, until=LAST if order.until is None else order.until)
        if not store.decisions_found(wanted, 0, LAST, 1):
            raise NotFound("stage", f"{stage!r} has no decisions in this time", "wait for some, or name another time")
