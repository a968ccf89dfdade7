"""Write docs/reference/openapi.json: what the service of the travel app serves at /docs/openapi.json, and more.

    python -m tools.openapi

Two things are added, which OpenAPI has no words for: `x-scope`, the scope that a key needs for an operation (null: no
key is needed; "publishable": one for pages), and `x-other-routes`, the routes of other protocols, which have
specifications of their own.
"""

import json
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.app import create_app
from api.routes import segment
from api.settings import Settings

KEPT = Path(__file__).parents[1] / "docs" / "reference" / "openapi.json"
_HIDDEN = ("/docs", "/console")  # pages for people, and their files


def main() -> None:
    """Write the kept file anew."""
    KEPT.write_text(text(document()), encoding="utf-8")


def document() -> dict[str, Any]:
    """The document of the travel app's service with scopes and other routes, as plain JSON values."""
    app = create_app(Settings(app="travel", store="memory://", dev=True, salt="docs"))
    served: dict[str, Any] = json.loads(json.dumps(app.openapi_schema.to_schema(), default=str))
    others = []
    for path, handler in _handlers(app):
        scope = "events" if path in segment.PATHS else handler.opt.get("scope")  # its routes ask for it themselves
        scope = "publishable" if path.startswith("/v1/browser/") else scope
        operations = served["paths"].get(path) if handler.resolve_include_in_schema() else None
        for method in sorted(handler.http_methods - {"OPTIONS", "HEAD"}):
            if operations is not None:
                operations[method.lower()]["x-scope"] = scope
            elif not path.startswith(_HIDDEN):
                others.append({"method": method, "path": path, "x-scope": scope})
    return served | {"x-other-routes": sorted(others, key=lambda other: (other["path"], other["method"]))}


def text(document: dict[str, Any]) -> str:
    """As it is kept: readable, one form for one document."""
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def without_ours(document: dict[str, Any]) -> dict[str, Any]:
    """The document as OpenAPI has it."""
    paths = {
        path: {method: {k: v for k, v in o.items() if k != "x-scope"} for method, o in operations.items()}
        for path, operations in document["paths"].items()
    }
    return {key: value for key, value in document.items() if key != "x-other-routes"} | {"paths": paths}


def _handlers(app: Litestar) -> list[tuple[str, HTTPRouteHandler]]:
    """Every HTTP handler with its path as the document writes it."""
    routes = [route for route in app.routes if isinstance(route, HTTPRoute)]
    return [(route.path_format, handler) for route in routes for handler in route.route_handlers]


if __name__ == "__main__":
    main()
