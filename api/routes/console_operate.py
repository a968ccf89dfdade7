"""Routes of the console's Operate page: what operators change by forms needs a key with the scope `admin`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar, get_args

from litestar import get, post
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import HTTPRouteHandler

from api.components import CurrentParts
from api.console.console import Console
from api.console.sessions import ConsoleSession
from api.messages.operations import REASON_LENGTH, WHO_LENGTH
from api.routes.console import BYTES, OWN, PATH, Ask, Page, answered_page, html, posted
from bandit.errors import Conflict, InvalidRequest, JourneyBanditError, NotFound, Problem
from bandit.operations import traffic
from bandit.records import ALL_NUDGES, AlarmAcknowledgement, AlarmVerdict, OperatorAction, OperatorVerb

OPERATE = f"{PATH}/operate"

Form = Mapping[str, str]
Work = Callable[[], Awaitable[str]]
T = TypeVar("T", bound=str)

_VERBS: tuple[OperatorVerb, ...] = tuple(verb for verb in get_args(OperatorVerb) if verb not in traffic.SETTINGS)
_SETTINGS: tuple[OperatorVerb, ...] = tuple(verb for verb in get_args(OperatorVerb) if verb in traffic.SETTINGS)
_VERDICTS: tuple[AlarmVerdict, ...] = get_args(AlarmVerdict)
_DONE = {"pause": "is not shown from now on", "resume": "may be shown again", "retire": "is not shown any more"}


def routes(console: Console, current: CurrentParts) -> list[HTTPRouteHandler]:
    """Route handlers of one service's Operate page."""
    acts = _Acts(console, current)

    @get(OPERATE, include_in_schema=False, opt=OWN)
    async def operate(request: Ask) -> Page:
        place = f"{request.query_params.get('stage', '')}/{request.query_params.get('nudge', '')}"
        return await answered_page(console, request, lambda one: console.operate(one, typed={"place": place}))

    @post(f"{OPERATE}/nudges", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def nudges(request: Ask) -> Page:
        return await posted(console, request, acts.nudge)

    @post(f"{OPERATE}/traffic", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def shares(request: Ask) -> Page:
        return await posted(console, request, acts.share)

    @post(f"{OPERATE}/alarms", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def alarms(request: Ask) -> Page:
        return await posted(console, request, acts.alarm)

    @post(f"{OPERATE}/dead-letters", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def letters(request: Ask) -> Page:
        return await posted(console, request, acts.letters)

    return [operate, nudges, shares, alarms, letters]


class _Acts:
    """What the forms of the page do. Each answers with the page, which says what was done, or what is wrong."""

    def __init__(self, console: Console, current: CurrentParts):
        self._console, self._current = console, current

    async def nudge(self, session: ConsoleSession, sent: Form) -> Page:
        async def work() -> str:
            stage, nudge = _place(sent, "choose a nudge")
            asked = OperatorAction(
                at=self._current.ground.clock(),
                who=_who(session, sent),
                stage=stage,
                nudge=nudge,
                verb=_one_of("verb", sent, _VERBS),
                reason=_text("reason", sent, REASON_LENGTH),
            )
            async with self._current.inside() as parts:
                kept = await asyncio.wrap_future(parts.worker.operate(asked))
            what = f"{kept.stage}.{kept.nudge}" if kept.nudge else f"Every nudge of {kept.stage}"
            return f"{what} {_DONE[kept.verb]} ({kept.who}: {kept.reason})."

        return await self._page(session, sent, work)

    async def share(self, session: ConsoleSession, sent: Form) -> Page:
        async def work() -> str:
            stage, what = _place(sent, "choose a ramp or a holdout")
            asked = OperatorAction(
                at=self._current.ground.clock(),
                who=_who(session, sent),
                stage=stage,
                nudge=ALL_NUDGES,
                verb=_one_of("place", {"place": what}, _SETTINGS),
                reason=_text("reason", sent, REASON_LENGTH),
                share=_percent(sent),
            )
            async with self._current.inside() as parts:
                kept = await asyncio.wrap_future(parts.worker.operate(asked))
            said = "as declared" if kept.share is None else f"{100.0 * kept.share:.6g} %"
            return f"The {kept.verb} of {kept.stage} is {said} from now on ({kept.who}: {kept.reason})."

        return await self._page(session, sent, work)

    async def alarm(self, session: ConsoleSession, sent: Form) -> Page:
        async def work() -> str:
            stage, reporter = _place(sent, "choose a key")
            async with self._current.inside() as parts:
                parts.catalogue.stage(stage)
                asked = AlarmAcknowledgement(
                    at=self._current.ground.clock(),
                    who=_who(session, sent),
                    stage=stage,
                    reporter=reporter,
                    verdict=_one_of("verdict", sent, _VERDICTS),
                    reason=_text("reason", sent, REASON_LENGTH),
                )
                kept = await asyncio.wrap_future(parts.worker.acknowledge(asked))
            return f"The key {kept.reporter} was found {kept.verdict} at {kept.stage} ({kept.who}: {kept.reason})."

        return await self._page(session, sent, work)

    async def letters(self, session: ConsoleSession, sent: Form) -> Page:
        async def work() -> str:
            async with self._current.inside() as parts:
                return f"{await parts.sending.again()} message(s) are tried again."

        return await self._page(session, sent, work)

    async def _page(self, session: ConsoleSession, sent: Form, work: Work) -> Page:
        if not self._console.sessions.may(session, "admin"):
            raise PermissionDeniedException("this key may only read: sign in with a key that has the scope admin")
        try:
            done = await work()
        except JourneyBanditError as error:
            status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, Conflict) else 400
            if status == 400 and not isinstance(error, InvalidRequest):
                raise  # the ledger cannot be written: the refusal says so
            return html(await self._console.operate(session, typed=sent, problem=str(error)), status)
        return html(await self._console.operate(session, done=done))


def _place(sent: Form, fix: str) -> tuple[str, str]:
    stage, slash, name = sent.get("place", "").partition("/")
    if not slash or not stage:
        raise InvalidRequest(Problem("place", "missing", fix))
    return stage, name


def _one_of(field: str, sent: Form, known: tuple[T, ...]) -> T:
    found = next((one for one in known if one == sent.get(field)), None)
    if found is None:
        raise InvalidRequest(Problem(field, f"{sent.get(field, '')[:40]!r} is not known", f"one of {', '.join(known)}"))
    return found


def _text(field: str, sent: Form, most: int) -> str:
    found = sent.get(field, "").strip()
    if not 0 < len(found) <= most:
        problem = f"{len(found)} characters" if found else "missing"
        raise InvalidRequest(Problem(field, problem, f"1 to {most} characters: it is kept in the ledger"))
    return found


def _percent(sent: Form) -> float | None:
    """Share in percent, None for as declared (an empty field)."""
    text = sent.get("share", "").strip().removesuffix("%").strip()
    try:
        return float(text.replace(",", ".")) / 100.0 if text else None
    except ValueError:
        raise InvalidRequest(Problem("share", f"{text[:40]!r} is no number", "percent, such as 10")) from None


def _who(session: ConsoleSession, sent: Form) -> str:
    by = _text("by", sent, WHO_LENGTH)
    return f"key {session.key}, for {by}" if session.key else by
