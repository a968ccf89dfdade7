"""Request bodies: their bytes, unpacked and bounded in size and time, and what the OpenAPI document says of them.

Litestar's own `data:` parameters convert laxly ("0.5" becomes a number) and answer 500 to deep or wrongly encoded JSON.
A typed msgspec decoder on the raw bytes (`api.http.batch_items`) is strict, immune to nesting, and cheaper.
"""

import asyncio
import zlib
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import ClientException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody

from api.http.batch_items import BODY, BodyShape
from bandit.errors import InvalidRequest, Problem

T = TypeVar("T")
Ask = Request[Any, Any, Any]

SECONDS = 8.0  # a body that takes longer is given up: before the server is, when it is told to stop
_IDENTITY, _GZIP = ("", "identity"), ("gzip", "x-gzip")
_MEMBERS = 1000  # gzip members of one body
_PIECE = 65_536


class BrokenGzip(InvalidRequest):
    """Error of a body that says it is gzip, and is not, or not all of it. Protocols with a code of their own for it
    tell it from other invalid requests.
    """

    def __init__(self, problem: str):
        super().__init__(Problem(BODY, problem, "send one or more complete gzip members, or no Content-Encoding"))


async def read(request: Ask, shape: BodyShape[T]) -> T:
    """Value of a request's body, as `shape` types it. Raises InvalidRequest, which names the field, and ClientException
    as `body` does.
    """
    return shape.read(await body(request))


async def body(request: Ask) -> bytes:
    """Bytes of a request's body, unpacked if they are gzip; at most as many as the route takes, packed or unpacked.

    Raises ClientException: 413 for a body that is too large, 408 if it does not arrive within 8 seconds, 415 for
    another Content-Encoding, 400 if the client went away; and BrokenGzip.
    """
    most = request.route_handler.resolve_request_max_body_size() or 0
    coding = ",".join(request.headers.getall("content-encoding", [])).strip().lower()
    if coding not in (*_IDENTITY, *_GZIP):
        raise ClientException("the Content-Encoding is not known", status_code=415, headers={"Accept-Encoding": "gzip"})
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise RequestEntityTooLarge
    try:
        raw = await asyncio.wait_for(_received(request, most), SECONDS)
    except TimeoutError:
        raise ClientException("the body did not arrive in time", status_code=408) from None
    return inflated(raw, most) if coding in _GZIP else raw


async def _received(request: Ask, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientException("the client went away before its body was complete")
        size += len(message["body"])
        if size > most:
            raise RequestEntityTooLarge
        parts.append(message["body"])
        if not message.get("more_body", False):
            return b"".join(parts)


def inflated(raw: bytes, most: int) -> bytes:
    """Bytes that gzip members hold, one member after another, at most `most` of them: unpacking stops there, so that a
    small body cannot fill the memory. Raises BrokenGzip and RequestEntityTooLarge.
    """
    out, at, members = bytearray(), 0, 0
    while at < len(raw) or not members:
        members += 1
        if members > _MEMBERS:
            raise BrokenGzip(f"more than {_MEMBERS} gzip members")
        unpack = zlib.decompressobj(wbits=31)
        while not unpack.eof:
            piece = raw[at : at + _PIECE]
            if not piece:
                raise BrokenGzip("the gzip is cut before its end")
            try:
                out += unpack.decompress(piece, most + 1 - len(out))
            except zlib.error:
                what = "this is not gzip" if members == 1 else "something that is not gzip follows the gzip"
                raise BrokenGzip(what) from None
            if len(out) > most:
                raise RequestEntityTooLarge
            at += len(piece)
        at -= len(unpack.unused_data)
    return bytes(out)


def takes(type_: type, example: Any) -> type[Operation]:
    """OpenAPI operation class whose request body is `type_`, with an example that works as it stands. For
    `operation_class=` of a route that reads its body by itself.
    """
    schema, components = msgspec.json.schema_components([type_], ref_template="#/$defs/{name}")
    inlined = _inline(schema[0], components)

    @dataclass
    class Takes(Operation):
        def __post_init__(self) -> None:
            media = OpenAPIMediaType(schema=inlined, example=example)
            self.request_body = RequestBody(content={"application/json": media}, required=True)

    return Takes


def _inline(schema: Any, components: dict[str, Any]) -> Any:
    """Replace references by what they name, as Litestar keeps its own components. A table of anything says so: clients
    made from the document let nothing into an object that only says that it is one.
    """
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline(components[schema["$ref"].rsplit("/", 1)[1]], components)
        closed = schema.get("type") == "object" and "properties" not in schema
        free: dict[str, Any] = {"additionalProperties": {}} if closed else {}
        return free | {key: _inline(value, components) for key, value in schema.items()}
    return [_inline(value, components) for value in schema] if isinstance(schema, list) else schema
