"""Items of a batch: strict decoding of a body that holds a list of them, one by one, so that a bad item costs no other.

A batch is decoded at once when all of it is good. Otherwise its envelope is decoded with the items as bytes, then each
item by itself, exactly as if it had been sent alone.
"""

import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from api.http import lenient_json
from api.http.request_body import BROKEN, BodyShape, problem_of
from bandit.errors import InvalidRequest, JourneyBanditError

T = TypeVar("T")
Reply = TypeVar("Reply")

MOST = 1000
"""Items of a batch."""


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
        except BROKEN as error:
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
            raise InvalidRequest(problem_of(error, self._type)) from error
        try:
            whole: Any = self._decoder.decode(skeleton)
        except msgspec.ValidationError as wrong:
            raise InvalidRequest(problem_of(wrong, self._type)) from wrong
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
        except BROKEN:
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
