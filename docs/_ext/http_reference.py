"""The HTTP reference: tables of the routes, their scopes and their fields, from the kept OpenAPI document."""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from markdown_tables import table
from parsed_markdown import parsed
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

TAGS = {  # in this order
    "decide": "Decide",
    "report": "Report",
    "browser": "Pages in browsers",
    "look up": "Look up",
    "release": "Release",
    "people": "People's rights",
    "operate": "Operate",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive `http-reference`."""
    app.add_directive("http-reference", HttpReference)
    return {"parallel_read_safe": True}


class HttpReference(SphinxDirective):
    """Everything the document in the argument says, as sections."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Sections of one tag each, then types, then routes of other protocols."""
        path = Path(self.env.relfn2path(self.arguments[0])[1])
        self.env.note_dependency(str(path))
        return parsed(self, "\n".join(Document(json.loads(path.read_text("utf-8"))).pages()))


class Document:
    """An OpenAPI document as lines of Markdown."""

    def __init__(self, document: dict[str, Any]):
        self._paths = document["paths"]
        self._others = document["x-other-routes"]
        self._schemas = document["components"]["schemas"]

    def pages(self) -> list[str]:
        """The reference."""
        operations = [(path, m, o) for path, found in self._paths.items() for m, o in found.items()]
        lines = ["## Routes"]
        rows = [(f"[`{m.upper()} {p}`](#{anchor(m, p)})", scope(o), o.get("summary", "")) for p, m, o in operations]
        lines += table(("route", "scope", ""), rows)
        for tag, title in TAGS.items():
            lines += [f"## {title}", ""]
            for path, method, operation in operations:
                if tag in operation["tags"]:
                    lines += self._operation(path, method, operation)
        return [*lines, *self._types(), *self._other_routes()]

    def _operation(self, path: str, method: str, operation: dict[str, Any]) -> list[str]:
        lines = [f"({anchor(method, path)})=", f"### `{method.upper()} {path}`", ""]
        lines += [f"**{operation.get('summary', '')}.** {said(operation)}", "", f"Scope: {scope(operation)}.", ""]
        given = [
            (f"`{p['name']}`", p["in"], self._kind(p["schema"]), "yes" if p.get("required") else "")
            for p in operation.get("parameters", [])
        ]
        lines += table(("parameter", "in", "type", "required"), given)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            lines += [f"Request body: {self._kind(content['schema'])}", ""]
        rows = []
        for status, reply in operation["responses"].items():
            kinds = [self._kind(content["schema"]) for content in reply.get("content", {}).values()]
            words = "" if status == "200" else reply.get("description", "")  # Litestar's own for 200 says nothing
            rows.append((status, ", ".join(kinds) or "nothing", words))
        return [*lines, *table(("status", "body", ""), rows)]

    def _types(self) -> list[str]:
        lines = ["## Types", ""]
        for name, schema in sorted(self._schemas.items()):
            lines += self._type(name, schema)
        return lines

    def _type(self, name: str, schema: dict[str, Any]) -> list[str]:
        needed = schema.get("required", ())
        rows = [
            (f"`{field}`", self._kind(part), "yes" if field in needed else "", default(part), bounds(part))
            for field, part in schema.get("properties", {}).items()
        ]
        head = [f"({type_anchor(name)})=", f"### {name}", "", said(schema), ""]
        return [*head, *table(("field", "type", "required", "default", "constraints"), rows)]

    def _kind(self, schema: dict[str, Any]) -> str:
        """A schema in a few words; a link where it has a name."""
        if "$ref" in schema:
            return link(schema["$ref"].rsplit("/", 1)[1])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return " or ".join(dict.fromkeys(self._kind(part) for part in schema[several]))
        if "enum" in schema:
            return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
        kind = schema.get("type", "any value")
        if isinstance(kind, list):
            return " or ".join(kind)
        if kind == "array":
            return f"list of {self._kind(schema.get('items', {}))}"
        inner = schema.get("additionalProperties")
        if kind == "object":
            return f"object of {self._kind(inner)}" if isinstance(inner, dict) and inner else "object"
        return f"{kind} ({schema['format']})" if "format" in schema else str(kind)

    def _other_routes(self) -> list[str]:
        rows = [(f"`{o['method']} {o['path']}`", f"`{o['x-scope']}`") for o in self._others]
        text = "These follow the specifications of the protocols that they serve; the guides say what is taken of them."
        return ["## Routes of other protocols", "", text, *table(("route", "scope"), rows)]


def anchor(method: str, path: str) -> str:
    """The label of an operation."""
    return f"{method}-{path.strip('/')}".replace("/", "-").replace("{", "").replace("}", "").replace("_", "-")


def type_anchor(name: str) -> str:
    """The label of a type."""
    return f"http-{name.lower()}"


def link(name: str) -> str:
    """A type's name as a link to it."""
    return f"[{name}](#{type_anchor(name)})"


def scope(operation: dict[str, Any]) -> str:
    """The scope that a key needs."""
    return f"`{operation['x-scope']}`" if operation["x-scope"] else "none"


def said(part: dict[str, Any]) -> str:
    """Its description, in one paragraph a paragraph."""
    paragraphs = part.get("description", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def default(schema: dict[str, Any]) -> str:
    """The default, as JSON."""
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


_WORDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "exclusiveMinimum": "> {}",
    "exclusiveMaximum": "< {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
}


def bounds(schema: dict[str, Any]) -> str:
    """Its limits in words, those of its alternatives too."""
    parts = [schema, *schema.get("anyOf", ())]
    return ", ".join(text.format(f"{part[key]:,}") for part in parts for key, text in _WORDS.items() if key in part)
