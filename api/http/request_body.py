"""Request bodies: their bytes, unpacked and bounded in size and time, their value, strictly decoded, and what the
OpenAPI document says of them. `api.http.batch_items` decodes lists of items.

Litestar's own `data:` parameters convert laxly ("0.5" becomes a number) and answer 500 to deep or wrongly encoded JSON.
A typed msgspec decoder on the raw bytes (`BodyShape`) is strict, immune to nesting, and cheaper.
"""

import functools
import re
import types
import typing
import zlib
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import ClientException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody
from litestar.types import Receive

from api.http import field_fixes, lenient_json
from api.traffic.shared_deadline import Deadlines
from bandit.errors import InvalidRequest, Problem

T = TypeVar("T")
Ask = Request[Any, Any, Any]

BODY = "(body)"
"""The field that an error names when it is about the whole."""
BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec's decoders, ValidationError included; `problem_of` says what they mean."""

SECONDS = 8.0  # a body that takes longer is given up: before the server is, when it is told to stop
_IDENTITY, _GZIP = ("", "identity"), ("gzip", "x-gzip")
_MEMBERS = 1000  # gzip members of one body
_PIECE = 65_536
_DEADLINES = Deadlines(SECONDS)

_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
_FEW = 10  # flaws named in one error


class BrokenGzip(InvalidRequest):
    """Error of a body that says it is gzip, and is not, or not all of it. Protocols with a code of their own for it
    tell it from other invalid requests.
    """

    def __init__(self, problem: str):
        super().__init__(Problem(BODY, problem, "send one or more complete gzip members, or no Content-Encoding"))


class BodyShape(Generic[T]):
    """Strict JSON decoder of one type, for the body of a route. An empty array or null stands for an object that may be
    left out: PHP writes {} as []. Made once for a type; any thread may read with it.
    """

    def __init__(self, type_: type[T]):
        self._type = type_
        self._decoder = msgspec.json.Decoder(type_)
        self._objects = _optional_objects(type_)

    def read(self, raw: bytes) -> T:
        """Value of the type, from the bytes of a body. Raises InvalidRequest, which names each field and its fix, also
        for bytes that are not JSON or are nested too deep.
        """
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            return self._without_empty_arrays(raw, error)
        except BROKEN as error:
            raise InvalidRequest(*_broken(raw, error)) from error

    def _without_empty_arrays(self, raw: bytes, error: msgspec.ValidationError) -> T:
        try:
            sent = msgspec.json.decode(raw)
        except BROKEN:
            sent = None
        if isinstance(sent, dict):
            empty = [name for name in self._objects if name in sent and sent[name] in (None, [])]
            try:
                return msgspec.convert({k: v for k, v in sent.items() if k not in empty}, self._type)
            except msgspec.ValidationError as rest:
                raise InvalidRequest(problem_of(rest, self._type)) from rest
        raise InvalidRequest(problem_of(error, self._type)) from error


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
    raw = await received(request.receive, most)
    return inflated(raw, most) if coding in _GZIP else raw


async def received(receive: Receive, most: int) -> bytes:
    """Bytes of a body as they were sent, at most so many. Raises ClientException: 413 for more, 408 if they do not
    arrive within 8 seconds, 400 if the client went away.
    """
    parts, size = list[bytes](), 0
    try:
        with _DEADLINES.wait():
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientException("the client went away before its body was complete")
                size += len(message["body"])
                if size > most:
                    raise RequestEntityTooLarge
                parts.append(message["body"])
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise ClientException("the body did not arrive in time", status_code=408) from None


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


def problem_of(error: Exception, type_: Any) -> Problem:
    """Problem (field, what is wrong, fix) of an error in BROKEN about a body of `type_`, with the decoder's first
    words: of one field, or of bytes that are not UTF-8, no JSON, or nested too deep.
    """
    if isinstance(error, msgspec.ValidationError):
        return _named(str(error), type_)
    if isinstance(error, RecursionError):
        return Problem(BODY, "nested too deep", field_fixes.SEE)
    what = "not JSON" if isinstance(error, msgspec.DecodeError) else "not UTF-8"
    brief = str(error).split("\n", maxsplit=1)[0][:120]
    return Problem(BODY, f"{what}: {brief}", "send UTF-8 JSON")


def _named(words: str, type_: Any) -> Problem:
    """What msgspec finds wrong with a value of `type_`. It says "what - at `$.where`", "what - at `key` in `$.where`",
    or only what; the field may be in either part.
    """
    what, _, where = words.rpartition(" - at `") if " - at `" in words else (words, "", "")
    of_key = where.startswith("key` in `")
    path = where.removeprefix("key` in `").removeprefix("$").rstrip("`")
    right = "write a name that is not empty or too long" if of_key else field_fixes.fix(type_, path, what)
    field = _FIELD.fullmatch(what)
    path = f"{path}.{field[1]}" if field else path
    return Problem(path.lstrip(".")[:120] or BODY, what[:120], right)


def _broken(raw: bytes, error: Exception) -> list[Problem]:
    """Which fields make the bytes no JSON; the bytes as a whole if no field does."""
    try:
        flawed = list(lenient_json.found(lenient_json.lenient(raw)))
    except (ValueError, RecursionError):
        flawed = []
    fix = "send a finite number, or Unicode text as UTF-8; leave it out if there is none"
    problems = [Problem(lenient_json.text(flaw.path)[:120] or BODY, flaw.problem, fix) for flaw in flawed[:_FEW]]
    return problems or [problem_of(error, None)]


def _optional_objects(type_: Any) -> list[str]:
    """Fields of a struct that hold an object and may be left out."""
    fields = msgspec.structs.fields(type_) if isinstance(type_, type) and issubclass(type_, msgspec.Struct) else ()
    return [field.encode_name for field in fields if not field.required and _is_object(field.type)]


def _is_object(type_: Any) -> bool:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is Annotated:
        return _is_object(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return any(_is_object(argument) for argument in arguments)
    return origin is dict or (isinstance(type_, type) and issubclass(type_, msgspec.Struct | dict))


def takes(type_: type, example: Any) -> type[Operation]:
    """OpenAPI operation class whose request body is `type_`, with an example that works as it stands. For
    `operation_class=` of a route that reads its body by itself. Litestar keeps a list of components of its own: the
    schemas that the body names are beside it as `$defs`, until `api.routes.docs_page` puts them into that list.
    """

    class Takes(Operation):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            media = OpenAPIMediaType(schema=_schema(type_), example=example)
            self.request_body = RequestBody(content={"application/json": media}, required=True)

    return Takes


@functools.cache
def _schema(type_: type) -> Any:
    """JSON Schema of a type: a reference to its component, and all components that it leads to."""
    (schema,), components = msgspec.json.schema_components([type_], ref_template="#/components/schemas/{name}")
    return {**schema, "$defs": _free(components)}


def _free(schema: Any) -> Any:
    """The schema, in which a table of anything says so: clients made from the document let nothing into an object that
    only says that it is one.
    """
    if isinstance(schema, dict):
        closed = schema.get("type") == "object" and "properties" not in schema
        free: dict[str, Any] = {"additionalProperties": {}} if closed else {}
        return free | {key: _free(value) for key, value in schema.items()}
    return [_free(value) for value in schema] if isinstance(schema, list) else schema
