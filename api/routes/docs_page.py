"""Routes of the page at /docs: Swagger UI and the OpenAPI document, served by us, so that it works without internet.

Each file is made once and shared by all who load it. No path reaches the disk: files are known by name. Where they are
from is said in `swagger_ui/README.md`.
"""

import asyncio
import base64
import functools
import hashlib
import html
import importlib.resources
from dataclasses import dataclass, fields
from typing import Any

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, OpenAPI, Reference, SecurityScheme
from litestar.params import FromPath

from api.routes.browser_files import BrowserFile, answered, browser_file
from bandit.catalogue.model import Catalogue

PATH, ASSETS = "/docs", "/docs-assets"
PAGES = {"docs": PATH, "openapi": f"{PATH}/openapi.json"}
"""Paths that the service names at its root."""

_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_SCRIPT = f"""SwaggerUIBundle({{
  url: "{PATH}/openapi.json", dom_id: "#swagger-container", deepLinking: true, showExtensions: true,
  showCommonExtensions: true, validatorUrl: null,
}});
"""
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_SECURITY = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self' 'sha256-{_SCRIPT_HASH}'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{ASSETS}/swagger-ui.css">
<script src="{ASSETS}/swagger-ui-bundle.js"></script>
"""
_BODY = f"""</head>
<body>
<div id="swagger-container"></div>
<script>{_SCRIPT}</script>
</body>
</html>
"""


class SwaggerPage(SwaggerRenderPlugin):
    """Page that loads Swagger UI and the document from us. No word of a catalogue stands in a script of it. `title`:
    title of the app, which the page's own title ends with.
    """

    def __init__(self, title: str) -> None:
        super().__init__(path="/")
        self._title = title

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """HTML of the page."""
        title = html.escape(f"{openapi_schema['info']['title']}: {self._title}")
        return f"{_HEAD}<title>{title}</title>\n{_BODY}".encode()


class SharedDocument(JsonRenderPlugin):
    """OpenAPI document as JSON, encoded once for all who ask."""

    def __init__(self) -> None:
        super().__init__()
        self._encoded: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """JSON of the document."""
        if self._encoded is None:
            self._encoded = super().render(request, openapi_schema)
        return self._encoded


@dataclass
class NamedSchemasDocument(OpenAPI):
    """OpenAPI document whose request bodies are references to components. `api.http.request_body.takes` writes a body's
    components beside its reference, as `$defs`, because routes that read their bodies by themselves have no type that
    Litestar could name.
    """

    def to_schema(self) -> dict[str, Any]:
        """The document as plain JSON values, its components in the order of their names."""
        document = super().to_schema()
        schemas = document["components"].setdefault("schemas", {})
        for path in document.get("paths", {}).values():
            for operation in path.values():
                for media in operation.get("requestBody", {}).get("content", {}).values():
                    schemas.update(media["schema"].pop("$defs", {}))
        document["components"]["schemas"] = dict(sorted(schemas.items()))
        return document


class DocumentConfiguration(OpenAPIConfig):
    """Configuration of Litestar that makes a `NamedSchemasDocument`."""

    def to_openapi_schema(self) -> OpenAPI:
        """The document before its routes are known."""
        made = super().to_openapi_schema()
        return NamedSchemasDocument(**{field.name: getattr(made, field.name) for field in fields(made)})


def configuration(catalogue: Catalogue, version: str) -> OpenAPIConfig:
    """Configuration of the page and of the OpenAPI document. The document is the same for every app, but for the
    examples, which work as they stand.
    """
    schemes: dict[str, SecurityScheme | Reference] = {
        "key": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
        "bearer": SecurityScheme(type="http", scheme="bearer"),
    }
    router = Router(
        PATH, route_handlers=[], include_in_schema=False, opt={"public": True}, after_request=_with_security
    )
    return DocumentConfiguration(
        title="Journey Bandit",
        version=version,
        description="Which nudge, if any, and with which probability. Every 200 of a POST is on disk.",
        path=PATH,
        openapi_router=router,
        render_plugins=[SwaggerPage(catalogue.title or catalogue.app), SharedDocument()],
        components=Components(security_schemes=schemes),
        security=[{"key": []}, {"bearer": []}],
        use_handler_docstrings=True,
    )


def routes() -> list[HTTPRouteHandler]:
    """Route handlers of the files that the page loads."""

    @get(f"{ASSETS}/{{name:str}}", include_in_schema=False, opt={"public": True})
    async def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        if name not in _TYPES:
            raise NotFoundException
        return answered(request, await asyncio.to_thread(_file, name), _SECURITY)

    return [asset]


@functools.cache
def _file(name: str) -> BrowserFile:
    """File of the page, packed by gzip at the first request for it."""
    content = importlib.resources.files("api.routes").joinpath("swagger_ui", name).read_bytes()
    return browser_file(content, _TYPES[name], "public, max-age=86400")


def _with_security(response: Response[Any]) -> Response[Any]:
    response.headers.update(_SECURITY)
    return response
