"""Typed request bodies: strict decoding of what was sent, and of the items of a batch one by one, so that a bad item
costs no other.

A batch is decoded at once when all of it is good. Otherwise its envelope is decoded with the items as bytes, then each
item by itself, exactly as if it had been sent alone.
"""

import re
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from api.http import field_fixes, lenient_json
from bandit.errors import InvalidRequest, JourneyBanditError, Problem

T = TypeVar("T")
Reply = TypeVar("Reply")

MOST = 1000
"""Items of a batch."""
BODY = "(body)"
"""The field that an error names when it is about the whole."""

_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
_FEW = 10  # flaws named in one error
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


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
        except _BROKEN as error:
            raise InvalidRequest(*_broken(raw, error)) from error

    def _without_empty_arrays(self, raw: bytes, error: msgspec.ValidationError) -> T:
        try:
            sent = msgspec.json.decode(raw)
        except _BROKEN:
            sent = None
        if isinstance(sent, dict):
            empty = [name for name in self._objects if name in sent and sent[name] in (None, [])]
            try:
                return msgspec.convert({k: v for k, v in sent.items() if k not in empty}, self._type)
            except msgspec.ValidationError as rest:
                raise InvalidRequest(named(rest, self._type)) from rest
        raise InvalidRequest(named(error, self._type)) from error


class BatchEnvelope(Generic[T]):
    """JSON decoder of a struct one of whose fields, `field`, is a list[msgspec.Raw]: items that are decoded later, each
    by itself, whatever they are.
    """

    def __init__(self, type_: type[T], field: str):
        self._type = type_
        self._decoder = msgspec.json.Decoder(type_)
        self._field = field

    def read(self, raw: bytes) -> T:
        """Struct with its items as bytes. Values of its other fields that JSON cannot hold are left out. Raises
        InvalidRequest if the envelope cannot be used: no object, a missing list, brackets that do not pair.
        """
        try:
            return self._decoder.decode(raw)
        except _BROKEN as error:
            return self._pieced(raw, error)

    def _pieced(self, raw: bytes, error: Exception) -> T:
        """Cut at its brackets. What its items hold is not looked at."""
        try:
            members = lenient_json.members(raw)
            listed = members.get(self._field, b"").startswith(b"[")
            items = lenient_json.elements(members.pop(self._field)) if listed else []
            known = {name: lenient_json.sound(part) for name, part in members.items()}
            skeleton = msgspec.json.encode(known | ({self._field: [None] * len(items)} if listed else {}))
        except (ValueError, RecursionError):
            raise InvalidRequest(_told(error, self._type)) from error
        try:
            whole: Any = self._decoder.decode(skeleton)
        except msgspec.ValidationError as wrong:
            raise InvalidRequest(named(wrong, self._type)) from wrong
        return typing.cast(T, msgspec.structs.replace(whole, **{self._field: [msgspec.Raw(item) for item in items]}))


class ItemBatch(Generic[T]):
    """JSON decoder of a batch: up to 1,000 items in a struct with one field, which is a list of them. Routes make one
    for each batch type and share it.
    """

    def __init__(self, type_: type[msgspec.Struct], item: type[T]):
        (field,) = msgspec.structs.fields(type_)
        self.field = field.encode_name
        self._whole = msgspec.json.Decoder(type_)
        self._item = BodyShape(item)
        raws = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MOST)]
        parts = msgspec.defstruct(f"{type_.__name__}Parts", [(self.field, raws)], forbid_unknown_fields=True)
        self._envelope = BatchEnvelope(parts, self.field)

    def read(self, raw: bytes) -> list[T | InvalidRequest]:
        """Each item of the batch, or what is wrong with it, in order. Raises InvalidRequest only if the envelope cannot
        be used: then nothing of the batch is.
        """
        try:
            return list(getattr(self._whole.decode(raw), self.field))
        except _BROKEN:
            return [self._one(bytes(item)) for item in getattr(self._envelope.read(raw), self.field)]

    def _one(self, raw: bytes) -> T | InvalidRequest:
        try:
            return self._item.read(raw)
        except InvalidRequest as error:
            return error


async def answers(
    given: Sequence[T | InvalidRequest], work: Callable[[Sequence[T]], Awaitable[Sequence[Reply | JourneyBanditError]]]
) -> list[Reply | JourneyBanditError]:
    """Answers for a batch, in order: what `work` answers for the items that could be read, and the errors of the
    others. `work` gets all usable items in one call, for one durable write, and is not called without any. What `work`
    raises is passed on.
    """
    usable = [one for one in given if not isinstance(one, InvalidRequest)]
    results = iter(await work(usable) if usable else [])
    return [one if isinstance(one, InvalidRequest) else next(results) for one in given]


def named(error: msgspec.ValidationError, type_: Any) -> Problem:
    """Problem (field, what is wrong, fix) of a msgspec error about a body of `type_`. msgspec says "what - at
    `$.where`", "what - at `key` in `$.where`", or only what; the field may be in either part.
    """
    what, _, where = str(error).rpartition(" - at `") if " - at `" in str(error) else (str(error), "", "")
    of_key = where.startswith("key` in `")
    path = where.removeprefix("key` in `").removeprefix("$").rstrip("`")
    right = "write a name that is not empty or too long" if of_key else field_fixes.fix(type_, path, what)
    field = _FIELD.fullmatch(what)
    path = f"{path}.{field[1]}" if field else path
    return Problem(path.lstrip(".")[:120] or BODY, what[:120], right)


def unreadable(error: Exception) -> Problem:
    """Problem of bytes that are not JSON: not UTF-8, no JSON, or nested too deep, with the decoder's first words."""
    if isinstance(error, RecursionError):
        return Problem(BODY, "nested too deep", field_fixes.SEE)
    what = "not JSON" if isinstance(error, msgspec.DecodeError) else "not UTF-8"
    brief = str(error).split("\n", maxsplit=1)[0][:120]
    return Problem(BODY, f"{what}: {brief}", "send UTF-8 JSON")


def _told(error: Exception, type_: Any) -> Problem:
    return named(error, type_) if isinstance(error, msgspec.ValidationError) else unreadable(error)


def _broken(raw: bytes, error: Exception) -> list[Problem]:
    """Which fields make the bytes no JSON; the bytes as a whole if no field does."""
    try:
        flawed = list(lenient_json.found(lenient_json.lenient(raw)))
    except (ValueError, RecursionError):
        flawed = []
    fix = "send a finite number, or Unicode text as UTF-8; leave it out if there is none"
    problems = [Problem(lenient_json.text(flaw.path)[:120] or BODY, flaw.problem, fix) for flaw in flawed[:_FEW]]
    return problems or [unreadable(error)]


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
