"""What was sent, as its type says it must look; the items of a batch one by one, so that a bad one costs no other.

A batch is decoded at once when all of it is good. Otherwise its envelope is decoded with the items as bytes, then each
item by itself, exactly as if it had been sent alone.
"""

import re
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from api.http import lenient_json
from bandit.errors import InvalidRequest, JourneyBanditError, Problem

T = TypeVar("T")
Reply = TypeVar("Reply")

MOST = 1000
"""Items of a batch."""
BODY = "(body)"
"""The field that an error names when it is about the whole."""

_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
_SEE = "see /docs for what belongs here"
_FEW = 10  # flaws named in one error
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class BodyShape(Generic[T]):
    """One thing of a type. An empty array or null stands for an object that may be left out: PHP writes {} as []."""

    def __init__(self, type_: type[T]):
        self._type = type_
        self._decoder = msgspec.json.Decoder(type_)
        self._objects = _optional_objects(type_)

    def read(self, raw: bytes) -> T:
        """The value. InvalidRequest names each field and its fix."""
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
                raise InvalidRequest(named(rest)) from rest
        raise InvalidRequest(named(error)) from error


class BatchEnvelope(Generic[T]):
    """A struct one of whose fields, `field`, is a list[msgspec.Raw]: its items, whatever they are."""

    def __init__(self, type_: type[T], field: str):
        self._decoder = msgspec.json.Decoder(type_)
        self._field = field

    def read(self, raw: bytes) -> T:
        """The struct, without values that JSON cannot hold. InvalidRequest if the envelope cannot be used."""
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
            raise InvalidRequest(_told(error)) from error
        try:
            whole: Any = self._decoder.decode(skeleton)
        except msgspec.ValidationError as wrong:
            raise InvalidRequest(named(wrong)) from wrong
        return typing.cast(T, msgspec.structs.replace(whole, **{self._field: [msgspec.Raw(item) for item in items]}))


class ItemBatch(Generic[T]):
    """Up to 1,000 items in a struct with one field, which is a list of them."""

    def __init__(self, type_: type[msgspec.Struct], item: type[T]):
        (field,) = msgspec.structs.fields(type_)
        self.field = field.encode_name
        self._whole = msgspec.json.Decoder(type_)
        self._item = BodyShape(item)
        raws = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MOST)]
        parts = msgspec.defstruct(f"{type_.__name__}Parts", [(self.field, raws)], forbid_unknown_fields=True)
        self._envelope = BatchEnvelope(parts, self.field)

    def read(self, raw: bytes) -> list[T | InvalidRequest]:
        """Each item, or what is wrong with it, in order. InvalidRequest if the envelope cannot be used."""
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
    """What `work` answers for the items that could be read, and the errors of the others, in order."""
    usable = [one for one in given if not isinstance(one, InvalidRequest)]
    results = iter(await work(usable) if usable else [])
    return [one if isinstance(one, InvalidRequest) else next(results) for one in given]


def named(error: msgspec.ValidationError) -> Problem:
    """msgspec says "what - at `$.where`", "what - at `key` in `$.where`", or only what; the field may be in either."""
    what, _, where = str(error).rpartition(" - at `") if " - at `" in str(error) else (str(error), "", "")
    path = where.removeprefix("key` in `").removeprefix("$").rstrip("`")
    field = _FIELD.fullmatch(what)
    path = f"{path}.{field[1]}" if field else path
    return Problem(path.lstrip(".")[:120] or BODY, what[:120], _SEE)


def unreadable(error: Exception) -> Problem:
    """What is wrong with bytes that are not JSON."""
    if isinstance(error, RecursionError):
        return Problem(BODY, "nested too deep", _SEE)
    what = "not JSON" if isinstance(error, msgspec.DecodeError) else "not UTF-8"
    brief = str(error).split("\n", maxsplit=1)[0][:120]
    return Problem(BODY, f"{what}: {brief}", "send UTF-8 JSON")


def _told(error: Exception) -> Problem:
    return named(error) if isinstance(error, msgspec.ValidationError) else unreadable(error)


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
