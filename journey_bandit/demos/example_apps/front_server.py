"""Front server of the example apps: their pages, their backends, and the panel beside them, on one port."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from uuid import UUID

import httpx
import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from journey_bandit.demos.example_apps import panel
from journey_bandit.demos.example_apps.backends import STEP, AppBackend

Ask = Request[Any, Any, Any]

_PAGES = files("journey_bandit.demos.example_apps").joinpath("pages")
_MEDIA = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
}
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_FILE = re.compile(r"[a-z0-9-]{1,40}\.(css|js|json|svg)")
_SERVICE, _KEY = "https://nudges.example", "pub_your_key"
"""What the pages' code has in place of the service's address and the key, so that it reads as one would write it."""


def create_front(backends: Sequence[AppBackend]) -> Litestar:
    """Application that serves the pages of these apps."""
    known = {backend.service.app.name: backend for backend in backends}
    return Litestar(
        route_handlers=[*_pages(known), *_backends(known), *_panels(known)],
        exception_handlers={httpx.HTTPStatusError: _refused, KeyError: _unknown},
        openapi_config=None,
        logging_config=None,
    )


def _pages(known: Mapping[str, AppBackend]) -> list[HTTPRouteHandler]:
    @get("/")
    async def index() -> Response[bytes]:
        return _page("shared", "index.html", known.values())

    @get("/try/{name:str}")
    async def beside(name: FromPath[str]) -> Response[bytes]:
        _found(known, name)
        return _page("shared", "try.html", ())

    @get("/files/{folder:str}/{name:str}")
    async def file(folder: FromPath[str], name: FromPath[str]) -> Response[bytes]:
        if folder != "shared":
            _found(known, folder)
        if not _FILE.fullmatch(name):
            raise NotFoundException
        return _file(folder, name, [known[folder]] if folder in known else [])

    @get(["/{name:str}", "/{name:str}/{rest:path}"])
    async def page(name: FromPath[str]) -> Response[bytes]:
        return _page(name, "index.html", [_found(known, name)])

    return [index, beside, file, page]


def _backends(known: Mapping[str, AppBackend]) -> list[HTTPRouteHandler]:
    @get("/{name:str}/api/me")
    async def me(request: Ask, name: FromPath[str]) -> Response[bytes]:
        backend = _found(known, name)
        person = _person(request, backend) or backend.newcomer(None)
        await backend.advance(STEP)
        return _as_person(name, person, backend.state(person))

    @get("/{name:str}/api/token")
    async def token(request: Ask, name: FromPath[str]) -> Response[str]:
        backend = _found(known, name)
        return Response(await backend.token(_signed_in(request, backend)), media_type="text/plain")

    @get("/{name:str}/api/evidence")
    async def evidence(request: Ask, name: FromPath[str], about: FromQuery[str] = "") -> Response[str]:
        backend = _found(known, name)
        return Response(await backend.evidence(_signed_in(request, backend), about), media_type="text/plain")

    @post("/{name:str}/api/{action:str}", status_code=200)
    async def act(request: Ask, name: FromPath[str], action: FromPath[str]) -> dict[str, Any]:
        backend = _found(known, name)
        return await backend.act(_signed_in(request, backend), action, await _sent(request))

    return [me, token, evidence, act]


def _panels(known: Mapping[str, AppBackend]) -> list[HTTPRouteHandler]:
    @get("/panel/{name:str}/app")
    async def app(name: FromPath[str]) -> dict[str, Any]:
        return await panel.declared(_found(known, name))

    @get("/panel/{name:str}/state")
    async def state(request: Ask, name: FromPath[str], decision: FromQuery[str] = "") -> dict[str, Any]:
        backend = _found(known, name)
        return await panel.known(backend, _signed_in(request, backend), decision)

    @get("/panel/{name:str}/receipt/{decision:uuid}")
    async def receipt(name: FromPath[str], decision: FromPath[UUID]) -> Response[bytes]:
        found = (await _found(known, name).http.get(f"/v1/decisions/{decision}")).raise_for_status().json()
        return Response(msgspec.json.format(msgspec.json.encode(found)), media_type="application/json")

    @post("/panel/{name:str}/person", status_code=200)
    async def person(request: Ask, name: FromPath[str]) -> Response[bytes]:
        backend, wanted = _found(known, name), (await _sent(request)).get("story")
        story = next((one for one in backend.service.app.stories if one.person == wanted), None)
        who = backend.newcomer(story)
        ids = backend.people.decision_ids(story, who) if story else []
        return _as_person(name, who, {"user_id": who, "decision_ids": ids})

    @post("/panel/{name:str}/clock", status_code=200)
    async def clock(request: Ask, name: FromPath[str]) -> dict[str, Any]:
        return {"now": await _found(known, name).advance(int((await _sent(request))["seconds"]))}

    return [app, state, receipt, person, clock]


def _found(known: Mapping[str, AppBackend], name: str) -> AppBackend:
    if name not in known:
        raise NotFoundException
    return known[name]


def _person(request: Ask, backend: AppBackend) -> str:
    """Whom the cookie names: in a real app, who is logged in."""
    named = request.cookies.get(f"person_{backend.service.app.name}", "")
    return named if _NAME.fullmatch(named) else ""


def _signed_in(request: Ask, backend: AppBackend) -> str:
    if not (person := _person(request, backend)):
        raise HTTPException("nobody is logged in: open the app's first page", status_code=401)
    return person


async def _sent(request: Ask) -> dict[str, Any]:
    """Body of a request. A page of another site could not send this media type without being allowed to."""
    if request.content_type[0] != "application/json":
        raise HTTPException("send application/json", status_code=415)
    return msgspec.json.decode(await request.body(), type=dict[str, Any])


def _as_person(app: str, person: str, body: Mapping[str, Any]) -> Response[bytes]:
    cookie = Cookie(f"person_{app}", value=person, httponly=True, samesite="strict")
    return Response(msgspec.json.encode(body), media_type="application/json", cookies=[cookie])


def _page(folder: str, name: str, backends: Sequence[AppBackend] | Any) -> Response[bytes]:
    """HTML page with a policy that allows nothing inline, and no host but this one and the app's service."""
    services = " ".join(["'self'", *(backend.service.url for backend in backends)])
    policy = {
        "default-src": "'none'",
        "script-src": services,
        "connect-src": services,
        "img-src": services,
        "style-src": "'self'",
        "frame-src": "'self'",
        "frame-ancestors": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
    }
    response = _file(folder, name, ())
    response.headers["Content-Security-Policy"] = "; ".join(f"{rule} {allowed}" for rule, allowed in policy.items())
    return response


def _file(folder: str, name: str, backends: Sequence[AppBackend]) -> Response[bytes]:
    found = _PAGES.joinpath(folder, name)
    if not found.is_file():
        raise NotFoundException
    text = found.read_text(encoding="utf-8")
    for backend in backends:
        text = text.replace(_SERVICE, backend.service.url).replace(_KEY, backend.service.key.id)
    media = _MEDIA[name.rpartition(".")[2]]
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
    return Response(text.encode(), media_type=f"{media}; charset=utf-8", headers=headers)


def _refused(_: Ask, error: httpx.HTTPStatusError) -> Response[Any]:
    return Response({"detail": error.response.text}, status_code=502)


def _unknown(_: Ask, error: KeyError) -> Response[Any]:
    return Response({"detail": f"cannot be done: {error}"}, status_code=409)
