"""Route of exports: a stage's decisions as the folder that `journey-bandit export` writes, in a tar."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, cast

from litestar import Request, Response, get
from litestar.datastructures import MultiDict
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api import times
from api.components import CurrentParts
from api.console.decision_pages import SPAN, between
from api.exports import tar_files
from api.exports.log_exports import TABLES, Check, ExportOrder, LogExports
from api.exports.tar_files import TarFiles
from api.http.asgi import is_head
from api.http.error_responses import documented, failed
from api.ledger import audit
from api.stores import Store
from api.stores.decision_log import LAST, DecisionFilter
from api.traffic.paced_answers import PIECE, SECONDS, nothing, paced_by_route
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
        await request.body()  # it has none that means anything: what comes after it is the client's end
        visit = visit_of(request.scope)
        if visit is not None:
            visit.rest()  # others have their turn while it is checked, made and sent
        return ExportAnswer(exports, orders, lambda: _check(current.ground.store, orders))

    return [export]


class SendingTimes(NamedTuple):
    """Times in which a client has to take an export, in seconds: `piece` for each piece of it; for all of it `base`,
    and one more for each `rate` bytes.
    """

    piece: float = SECONDS
    base: float = 600.0
    rate: float = 100_000.0

    def whole(self, length: int) -> float:
        """Seconds for a tar of so many bytes."""
        return self.base + length / self.rate


TIMES = SendingTimes()
"""Times that a client has: ten minutes, and ten seconds for each megabyte."""


class ExportAnswer(Response[bytes]):
    """Answer that checks what was ordered, makes an export, sends it as a tar, and removes it. To HEAD it makes none.

    It ends early, and the child process with it, when the client is gone or takes it slower than `times` say. An export
    that cannot be made is answered with a problem, 500, which says why.
    """

    def __init__(self, exports: LogExports, orders: Sequence[ExportOrder], check: Check, times: SendingTimes = TIMES):
        super().__init__(b"", media_type=_MEDIA)
        self._exports, self._orders, self._check, self._times = exports, orders, check, times
        self._begun = self._whole = False  # the server has its head; all of it

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        """ASGI application that answers one request. It raises what the check raises, LimitReached (503) while another
        export is made or sent, and when the service stops before the answer begins.
        """
        return cast(ASGIResponse, self._serve)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_gone(receive))
        made = asyncio.ensure_future(self._head(send) if is_head(scope) else self._made_and_sent(scope, send))
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
            if self._begun and not self._whole:
                log.info("an export was given up while it was sent: its client went, or the service stops")
            return
        try:
            made.result()
        except RemoteError as error:
            answer = failed("export-failed", "The export failed", str(error))
            await answer.to_asgi_response(app=None, request=Request(scope))(scope, nothing, send)

    async def _head(self, send: Send) -> None:
        await self._exports.checked(self._check)
        await send({"type": "http.response.start", "status": 200, "headers": self._headers()})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _made_and_sent(self, scope: Scope, send: Send) -> None:
        async with self._exports.made(self._orders, self._check) as folder:
            tar = await asyncio.to_thread(tar_files.of_folder, folder)
            seconds = self._times.whole(tar.length)
            paced_by_route(scope)
            try:
                async with asyncio.timeout(seconds) as whole:
                    await self._send(tar, send)
            except TimeoutError:
                if whole.expired():
                    log.warning("cut an export that its client did not take within %g s", round(seconds))
                else:
                    log.warning("cut an export, of which its client took nothing for %g s", self._times.piece)
            except OSError as error:  # the head is sent: its length says that something is missing
                log.error("cut an export: %s", error)
            else:
                log.info("an export was sent: %d bytes", tar.length)

    async def _send(self, tar: TarFiles, send: Send) -> None:
        """Send a tar in pieces that pass `PacedAnswer` as they are. Raises TimeoutError if one is not taken in time."""
        headers = [*self._headers(), (b"content-length", str(tar.length).encode())]
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        parts, left = tar.parts(), tar.length
        while part := await asyncio.to_thread(next, parts, b""):
            for start in range(0, len(part), PIECE):
                piece = part[start : start + PIECE]
                left -= len(piece)
                self._whole = not left
                async with asyncio.timeout(self._times.piece):
                    await send({"type": "http.response.body", "body": piece, "more_body": bool(left)})

    def _headers(self) -> list[tuple[bytes, bytes]]:
        name = "-".join(order.stage for order in self._orders)
        return [
            (b"content-type", _MEDIA.encode()),
            (b"content-disposition", f'attachment; filename="{name}.tar"'.encode()),
            (b"cache-control", b"no-store"),
        ]


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
    begin, end = _time("since", since), _time("until", until)
    if begin is not None and end is not None and begin >= end:
        raise InvalidRequest(Problem("until", "not later than `since`", "give a later time"))
    return begin, end


def _time(field: str, text: str | None) -> int | None:
    """Time in µs since 1970, None where none is given. Raises InvalidRequest, also for an empty text."""
    if text == "":
        raise InvalidRequest(Problem(field, "empty", "give a time, or leave it out for all"))
    try:
        return times.parsed(field, text, "for all")
    except InvalidRequest:
        if text is None or not _lost_plus(field, text):
            raise
    fix = "write + as %2B in an address, such as 2026-01-01T00:00:00%2B01:00"
    raise InvalidRequest(Problem(field, "a space where the offset begins: + in an address means one", fix))


def _lost_plus(field: str, text: str) -> bool:
    """Whether a text is a time with a space in place of its +."""
    try:
        return times.parsed(field, "+".join(text.rsplit(" ", 1))) is not None
    except InvalidRequest:
        return False


def _stages(values: Sequence[str]) -> list[str]:
    if not values:
        raise InvalidRequest(Problem("stage", "missing", "name the stage, or several with commas between"))
    return _names(values)


def _tables(names: Sequence[str]) -> list[str]:
    if unknown := [name for name in names if name not in TABLES]:
        raise InvalidRequest(Problem("with", f"there is no table {unknown[0]!r}", f"some of {', '.join(TABLES)}"))
    return list(names)


async def _check(store: Store, orders: Sequence[ExportOrder]) -> None:
    """Raise NotFound for a stage that the ledger does not know, or that has no decision in this time; InvalidRequest
    for one whose actions come with requests.
    """
    served = await asyncio.to_thread(audit.stages, store)
    for order in orders:
        stage = order.stage
        if stage not in served:
            problem = f"the ledger has no stage {stage!r}"
            raise NotFound("stage", problem, f"one of {', '.join(sorted(served)) or 'none'}")
        if served[stage].has_request_actions:
            problem = f"the actions of {stage!r} come with each request: an export has columns for declared nudges"
            raise InvalidRequest(Problem("stage", problem, "name a stage whose nudges are declared"))
        if not await _has_decisions(store, order):
            raise NotFound("stage", f"{stage!r} has no decisions in this time", "wait for some, or name another time")


async def _has_decisions(store: Store, order: ExportOrder) -> bool:
    """Whether an export would have any: looked for from the newest on, SPAN numbers at a time, so that others read the
    ledger in between.
    """
    wanted = DecisionFilter(order.stage, since=order.since or 0, until=LAST if order.until is None else order.until)
    newest = (await asyncio.to_thread(store.last)).decision
    above, before = await asyncio.to_thread(between, store, order.since, order.until, newest)
    while before > above + 1:
        floor = max(above, before - SPAN - 1)
        if await asyncio.to_thread(store.decisions_found, wanted, floor, before, 1):
            return True
        before = floor + 1
    return False
