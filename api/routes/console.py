"""Routes of the operators' console at /console: pages for people, who sign in with a key of the scope `read`.

Sessions are checked here (`own_keys`): browsers send a cookie, not a key. Whatever changes something, or is costly, is
a POST whose form carries the session's secret; a page of another site knows none.
"""

import functools
import ipaddress
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.console import rendering
from api.console.console import Console
from api.console.decision_pages import SearchForm
from api.console.sessions import ConsoleSession, SignInRefusal
from api.http.error_responses import handle
from api.http.request_body import body
from api.routes.browser_files import BrowserFile, answered, browser_file
from api.traffic.request_limits import apart, present
from bandit.errors import InvalidRequest, JourneyBanditError, NotFound

PATH, COOKIE = "/console", "journey_console"
SIGN_IN = f"{PATH}/sign-in"
BY_ITSELF = "x-console-refresh"
"""Header of a page that looks for news by itself: it does not keep a session alive."""

Ask = Request[Any, Any, Any]
Page = Response[bytes]

OWN = {"own_keys": True}
_FIELDS = 64  # of a form
BYTES = 16_384
_SAME = ("same-origin", "none")  # Sec-Fetch-Site of forms of ours
_TITLES = {401: "Sign in first", 403: "This is not allowed", 404: "There is no such page"}
_TITLES |= {
    405: "This cannot be done here",
    500: "Something went wrong here",
    429: "Too many requests",
    503: "The service is busy",
}


def owns(path: str) -> bool:
    """Whether an error at this path is shown as a page."""
    return path == PATH or path.startswith(f"{PATH}/")


def refusal(request: Ask, error: Exception) -> Response[Any]:
    """Page that says what went wrong, in the words of a problem response."""
    said = handle(request, error)
    words = "The error was logged."
    if isinstance(error, HTTPException | JourneyBanditError) and (said.status_code or 500) != 500:
        words = error.detail if isinstance(error, HTTPException) else str(error)
    title = _TITLES.get(said.status_code or 500, "The request cannot be used")
    content = rendering.page("refusal.html", title=title, words=words)
    kept = {name: value for name, value in said.headers.items() if name.lower() in ("retry-after", "allow")}
    return html(content, said.status_code or 500, kept)


def routes(console: Console) -> list[HTTPRouteHandler]:
    """Route handlers of one service's console."""
    return [*_signing(console), *_looking(console), *_acting(console), _file_route()]


def _signing(console: Console) -> list[HTTPRouteHandler]:
    @get(SIGN_IN, include_in_schema=False, opt={"public": True})
    async def form(request: Ask) -> Page:
        then = _local(request.query_params.get("next", ""))
        if console.sessions.trial:
            return _redirect(then)
        return html(await console.sign_in(then, plain=_plain(request) and not _loopback(request)))

    @post(SIGN_IN, include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def enter(request: Ask) -> Page:
        _check_site(request)
        sent = await _form(request)
        then, key = _local(sent.get("next", "")), sent.get("key", "").strip()
        present(request.scope, key or "-")
        found = console.sessions.sign_in(key)
        if isinstance(found, SignInRefusal):
            return html(await console.sign_in(then, found.why), found.status)
        return _redirect(then, _cookie(request, console.sessions.token(found)))

    @post(f"{PATH}/sign-out", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def leave(request: Ask) -> Page:
        session = _session(console, request)
        if session is not None:
            _check(session, request, await _form(request))
        return _redirect(SIGN_IN, _cookie(request, "", 0))

    return [form, enter, leave]


def _looking(console: Console) -> list[HTTPRouteHandler]:
    @get(PATH, include_in_schema=False, opt=OWN)
    async def overview(request: Ask) -> Page:
        return await answered_page(console, request, console.overview)

    @get(f"{PATH}/stages/{{stage:str}}", include_in_schema=False, opt=OWN)
    async def stage(request: Ask, stage: FromPath[str]) -> Page:
        typed = dict(request.query_params.items())
        return await answered_page(console, request, lambda session: console.stage(session, stage, typed))

    @get(f"{PATH}/decisions", include_in_schema=False, opt=OWN)
    async def decisions(request: Ask) -> Page:
        asked = SearchForm(**{name: request.query_params.get(name, "").strip() for name in SearchForm._fields})
        return await answered_page(console, request, lambda session: console.decisions(session, asked))

    @get(f"{PATH}/decisions/{{decision_id:str}}", include_in_schema=False, opt=OWN)
    async def receipt(request: Ask, decision_id: FromPath[str]) -> Page:
        return await answered_page(console, request, lambda session: console.receipt(session, _id(decision_id)))

    @get(f"{PATH}/people", include_in_schema=False, opt=OWN)
    async def people(request: Ask) -> Page:
        return await answered_page(console, request, console.person)

    return [overview, stage, decisions, receipt, people]


def _acting(console: Console) -> list[HTTPRouteHandler]:
    """Forms of signed-in pages. What an operator may change belongs here, behind `posted` with the scope it needs."""

    @post(f"{PATH}/decisions", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def find(request: Ask) -> Page:
        async def found(_: ConsoleSession, sent: Mapping[str, str]) -> Page:
            words = {name: sent.get(name, "").strip() for name in ("stage", "nudge", "since", "until")}
            wanted, user = sent.get("id", "").strip(), sent.get("user", "").strip()
            if wanted:
                return _redirect(f"{PATH}/decisions/{quote(wanted, safe='')}")
            words |= {"person": console.user_hash(user)} if user else {"person": sent.get("person", "")}
            query = "&".join(f"{name}={quote(word, safe='')}" for name, word in words.items() if word)
            return _redirect(f"{PATH}/decisions{'?' if query else ''}{query}")

        return await posted(console, request, found)

    @post(f"{PATH}/decisions/{{decision_id:str}}/recompute", include_in_schema=False, opt=OWN)
    async def recompute(request: Ask, decision_id: FromPath[str]) -> Page:
        async def again(session: ConsoleSession, _: Mapping[str, str]) -> Page:
            number = _id(decision_id)
            await apart(request.scope)
            return html(await console.receipt(session, number, await console.recomputed(number)))

        return await posted(console, request, again)

    @post(f"{PATH}/people", include_in_schema=False, opt=OWN, request_max_body_size=BYTES)
    async def person(request: Ask) -> Page:
        async def known(session: ConsoleSession, sent: Mapping[str, str]) -> Page:
            return html(await console.person(session, sent.get("user", "")))

        return await posted(console, request, known)

    return [find, recompute, person]


def _file_route() -> HTTPRouteHandler:
    @get(f"{PATH}/static/{{name:str}}", include_in_schema=False, opt={"public": True})
    async def static(request: Ask, name: FromPath[str]) -> Page:
        if name not in rendering.MEDIA:
            raise NotFoundException
        return answered(request, _file(name), rendering.HEADERS)

    return static


async def answered_page(console: Console, request: Ask, draw: Callable[[ConsoleSession], Awaitable[bytes]]) -> Page:
    """A page for who is signed in, whose session goes on; for others, the way to the sign-in."""
    session = _session(console, request)
    if session is None:
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return _redirect(f"{SIGN_IN}?next={quote(there, safe='')}", _ended(request))
    try:
        content, status = await draw(session), 200
    except (NotFound, InvalidRequest) as error:
        status = 404 if isinstance(error, NotFound) else 400
        content = await console.problem(session, _TITLES.get(status, "The request cannot be used"), str(error))
    token = console.sessions.token(session, used=BY_ITSELF not in request.headers)
    return html(content, status, cookie=_cookie(request, token))


async def posted(
    console: Console, request: Ask, act: Callable[[ConsoleSession, Mapping[str, str]], Awaitable[Page]]
) -> Page:
    """A form of a page of this session, acted on; without a session, the way to the sign-in. PermissionDeniedException
    (403) for a form that was not on such a page.
    """
    session, sent = _session(console, request), await _form(request)
    if session is None:
        return _redirect(SIGN_IN, _ended(request))
    _check(session, request, sent)
    try:
        page = await act(session, sent)
    except (NotFound, InvalidRequest) as error:
        status = 404 if isinstance(error, NotFound) else 400
        page = html(await console.problem(session, _TITLES.get(status, "The form cannot be used"), str(error)), status)
    page.cookies.append(_cookie(request, console.sessions.token(session)))
    return page


def _check(session: ConsoleSession, request: Ask, sent: Mapping[str, str]) -> None:
    _check_site(request)
    if not session.sent(sent.get("csrf", "")):
        raise PermissionDeniedException("this form is not of a page of your session: load the page anew, and try again")


def _check_site(request: Ask) -> None:
    """PermissionDeniedException (403) for a form that stands on a page of another site, as browsers say."""
    if request.headers.get("sec-fetch-site", "none") not in _SAME:
        raise PermissionDeniedException("this form came from a page of another site")


def _session(console: Console, request: Ask) -> ConsoleSession | None:
    return console.sessions.find(request.cookies.get(COOKIE, ""))


async def _form(request: Ask) -> dict[str, str]:
    """Fields of a form, the last of each name. ClientException (413) for a body that is too long, InvalidRequest for
    one that is no form.
    """
    try:
        raw = (await body(request)).decode("ascii")
        fields = parse_qs(raw, keep_blank_values=True, max_num_fields=_FIELDS, errors="strict")
    except ValueError:
        raise PermissionDeniedException("this is no form of a page of the console") from None
    return {name: values[-1] for name, values in fields.items()}


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound(
            "decision_id", f"{text[:80]!r} is no id of a decision", "copy it from an answer or a log"
        ) from None


def _local(path: str) -> str:
    """The path of a page of ours, to go on to; the overview for anything else."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and "//" not in path
    return path if plain and owns(path.partition("?")[0]) and not path.startswith(SIGN_IN) else PATH


def _loopback(request: Ask) -> bool:
    """Whether browser and service are on one machine."""
    host = request.url.hostname or ""
    peer = request.client.host if request.client else ""
    return host in ("localhost", "127.0.0.1", "::1") and _is_loopback(peer)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _plain(request: Ask) -> bool:
    """Whether nothing says that the connection is encrypted, as a proxy before the service does."""
    return "https" not in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))


def _cookie(request: Ask, token: str, age: int | None = None) -> Cookie:
    secure = not (_plain(request) and _loopback(request))
    return Cookie(key=COOKIE, value=token, path=PATH, httponly=True, samesite="strict", secure=secure, max_age=age)


def _ended(request: Ask) -> Cookie | None:
    """End of a session whose cookie came. One that did not come may be good: browsers keep it back when the person
    follows a link from another site.
    """
    return _cookie(request, "", 0) if COOKIE in request.cookies else None


def html(
    content: bytes, status: int = 200, headers: Mapping[str, str] | None = None, cookie: Cookie | None = None
) -> Page:
    """Answer with the HTML of a page, which no cache keeps."""
    more = {**rendering.HEADERS, "Cache-Control": "no-store", **(headers or {})}
    cookies = [cookie] if cookie else []
    return Response(content, status_code=status, media_type="text/html", headers=more, cookies=cookies)


def _redirect(to: str, cookie: Cookie | None = None) -> Page:
    return html(b"", 303, {"Location": to}, cookie)


@functools.cache
def _file(name: str) -> BrowserFile:
    return browser_file(rendering.file(name), rendering.MEDIA[name], "no-cache")
