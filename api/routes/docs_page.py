"""Routes of the page at /docs: Swagger UI and the OpenAPI document, served by us, so that it works without internet.

Each file is made once and shared by all who load it. No path reaches the disk: files are known by name.
"""

import asyncio
import base64
import functools
import hashlib
import html
import importlib.resources
from typing import Any

import litestar_offline_docs
from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme
from litestar.params import FromPath

from api.routes.browser_files import BrowserFile, answered, browser_file
from bandit.catalogue.model import Catalogue

PATH, ASSETS = "/docs", "/docs-assets"
PAGES = {"docs": PATH, "openapi": f"{PATH}/openapi.json"}
"""Paths that the service names at its root."""

_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_SCRIPT = f"""SwaggerUIBundle({{
  url: "{PATH}/openapi.json", dom_id: "#swagger-container", deepLinking: true, showExtensions: true,
  showCommonExtensions: true, presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
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
<script src="{ASSETS}/swagger-ui-standalone-preset.js"></script>
"""
_BODY = f"""</head>
<body>
<div id="swagger-container"></div>
<script>{_SCRIPT}</script>
</body>
</html>
"""


class SwaggerPage(SwaggerRenderPlugin):
    """Page that loads Swagger UI and the document from us. No word of a catalogue stands in a script of it."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """HTML of the page; its title is that of the document."""
        return f"{_HEAD}<title>{html.escape(openapi_schema['info']['title'])}</title>\n{_BODY}".encode()


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


def configuration(catalogue: Catalogue, version: str) -> OpenAPIConfig:
    """Configuration of the page and of the OpenAPI document of an app."""
    schemes: dict[str, SecurityScheme | Reference] = {
        "key": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
        "bearer": SecurityScheme(type="http", scheme="bearer"),
    }
    router = Router(
        PATH, route_handlers=[], include_in_schema=False, opt={"public": True}, after_request=_with_security
    )
    return OpenAPIConfig(
        title=f"Journey Bandit: {catalogue.title or catalogue.app}",
        version=version,
        description="Which nudge, if any, and with which probability. Every 200 of a POST is on disk.",
        path=PATH,
        openapi_router=router,
        render_plugins=[SwaggerPage(path="/"), SharedDocument()],
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
    content = importlib.resources.files(litestar_offline_docs).joinpath("static", name).read_bytes()
    return browser_file(content, _TYPES[name], "public, max-age=86400")


def _with_security(response: Response[Any]) -> Response[Any]:
    response.headers.update(_SECURITY)
    return response
