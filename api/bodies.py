"""Reading bodies: strict typed decoding of raw bytes, and what the OpenAPI page says of them.

Litestar's own `data:` parameters convert laxly ("0.5" becomes a number) and answer 500 to deep or wrongly encoded
JSON. A typed msgspec decoder on the raw bytes is strict, immune to nesting, and cheaper.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import ClientException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody

from bandit.errors import InvalidRequest, Problem

T = TypeVar("T")

_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
SECONDS = 8.0  # a body that takes longer is given up: before the server is, when it is told to stop


async def read(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """The body as `decoder` types it. InvalidRequest names the field; ClientException 408 when it does not arrive."""
    raw = await body(request)
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_named(error)) from error
    except RecursionError as error:
        raise InvalidRequest(Problem("(body)", "nested too deep", "see /docs for what belongs here")) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = "not JSON" if isinstance(error, msgspec.DecodeError) else "not UTF-8"
        raise InvalidRequest(Problem("(body)", f"{what}: {_brief(error)}", "send UTF-8 JSON")) from error


async def body(request: Request[Any, Any, Any]) -> bytes:
    """The raw body. ClientException 408 when it does not arrive."""
    try:
        return await asyncio.wait_for(request.body(), SECONDS)
    except TimeoutError:
        raise ClientException("the body did not arrive in time", status_code=408) from None


def takes(type_: type, example: Any) -> type[Operation]:
    """An OpenAPI operation whose request body is `type_`, with an example that works as it stands."""
    schema, components = msgspec.json.schema_components([type_], ref_template="#/$defs/{name}")
    inlined = _inline(schema[0], components)

    @dataclass
    class Takes(Operation):
        def __post_init__(self) -> None:
            media = OpenAPIMediaType(schema=inlined, example=example)
            self.request_body = RequestBody(content={"application/json": media}, required=True)

    return Takes


def _inline(schema: Any, components: dict[str, Any]) -> Any:
    """Replace references by what they name, as Litestar keeps its own components."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline(components[schema["$ref"].rsplit("/", 1)[1]], components)
        return {key: _inline(value, components) for key, value in schema.items()}
    return [_inline(value, components) for value in schema] if isinstance(schema, list) else schema


def _named(error: msgspec.ValidationError) -> Problem:
    """msgspec says "what - at `$.where`", "what - at `key` in `$.where`", or only what; the field may be in either."""
    what, _, where = str(error).rpartition(" - at `") if " - at `" in str(error) else (str(error), "", "")
    path = where.removeprefix("key` in `").removeprefix("$").rstrip("`")
    field = _FIELD.fullmatch(what)
    path = f"{path}.{field[1]}" if field else path
    return Problem(path.lstrip(".")[:120] or "(body)", what[:120], "see /docs for what belongs here")


def _brief(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0][:120]
