"""Routes of the console's Person page that need a key with the scope `admin`: export and erasure of a person."""

from collections.abc import Mapping

import msgspec
from litestar import Response, post
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import HTTPRouteHandler

from api.console.console import Console
from api.console.sessions import ConsoleSession
from api.messages.people import ErasureReply
from api.people.service import PeopleService
from api.routes.console import BYTES, OWN, PATH, Ask, Page, html, posted
from bandit.errors import InvalidRequest, Problem

PEOPLE = f"{PATH}/people"

Form = Mapping[str, str]


def routes(console: Console, people: PeopleService) -> list[HTTPRouteHandler]:
    """Route handlers of one service's Person page that export and erase."""

    @post(f"{PEOPLE}/export", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def export(request: Ask) -> Page:
        async def act(session: ConsoleSession, sent: Form) -> Page:
            _check(console, session)
            found = msgspec.json.encode(await people.export(_user(sent)))
            headers = {"Content-Disposition": 'attachment; filename="person.json"', "Cache-Control": "no-store"}
            safe = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
            return Response(found, status_code=200, media_type="application/json", headers=headers | safe)

        return await posted(console, request, act)

    @post(f"{PEOPLE}/erase", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def erase(request: Ask) -> Page:
        async def act(session: ConsoleSession, sent: Form) -> Page:
            _check(console, session)
            user = _user(sent)
            if sent.get("again", "") != user:
                problem = Problem(
                    "again", "is not the same id", "type the id of the person once more: nothing was erased"
                )
                raise InvalidRequest(problem)
            done = await people.erase(user, forget=sent.get("forget") == "yes")
            return html(await console.person(session, user, done=_words(done)))

        return await posted(console, request, act)

    return [export, erase]


def _check(console: Console, session: ConsoleSession) -> None:
    if not console.sessions.may(session, "admin"):
        raise PermissionDeniedException("this key may only read: sign in with a key that has the scope admin")


def _user(sent: Form) -> str:
    found = sent.get("user", "")
    if not found.strip():
        raise InvalidRequest(Problem("user", "missing", "type the id of the person"))
    return found


def _words(done: ErasureReply) -> str:
    if not done.found:
        return "Nothing was found under this id."
    what = f"{done.decisions:,} decisions, {done.outcomes:,} outcomes and {done.events:,} events of {done.ids:,} id(s)"
    learned = "What was learned from them left too." if done.forgot else "What was learned from them stays in the sums."
    still = (
        "" if done.overwritten else " A long reader, such as a backup, keeps their bytes in the ledger's log for now."
    )
    return f"Erased: {what}. {learned}{still}"
