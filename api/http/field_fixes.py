"""Fixes for fields of a body that cannot be decoded: the fields and values that a type takes, "did you mean" first, as
the type itself says. Pure.

msgspec says what is wrong and where; what would be right stands in the types of `api.messages`.
"""

import datetime as dt
import re
import types
import typing
import uuid
from typing import Any

import msgspec

from bandit.catalogue.decoding import closest

SEE = "see /docs for what belongs here"
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value '?(.*?)'?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(?:\d+|\.\.\.)\]")
_LONGEST = 120  # characters of a name that a caller sent and is compared
_WORDS: dict[Any, str] = {
    str: "a text",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    bytes: "base64",
    uuid.UUID: "a UUID, such as 019df0a5-3c00-7000-8000-000000000000",
    dt.datetime: "a time with its zone (RFC 3339), such as 2026-05-01T12:00:00Z",
    type(None): "null",
}


def fix(type_: Any, where: str, what: str) -> str:
    """Fix text for what msgspec says of a body of `type_`. `where`: its path, such as `$.evidence`; `what`: its words.
    Says where to look if the type does not say what belongs there.
    """
    here = _at(type_, where)
    if unknown := _UNKNOWN.fullmatch(what):
        fields = _fields(here)
        return closest(unknown[1][:_LONGEST], fields) if fields else SEE
    if missing := _MISSING.fullmatch(what):
        wanted = _wanted(_fields(here).get(missing[1]))
        return f"add it: {wanted}" if wanted else SEE
    values = _values(here)
    if values:
        sent = _ENUM.fullmatch(what)
        return closest(sent[1][:_LONGEST] if sent else "", values)
    wanted = _wanted(here)
    return f"write {wanted}" if wanted else SEE


def _at(type_: Any, where: str) -> Any:
    """The type that stands at a path of msgspec, None if the path leads out of the types."""
    here = _bare(type_)
    for step in _STEP.finditer(where):
        name, arguments = step[1], typing.get_args(here)
        if name is not None:
            here = _fields(here).get(name)
        elif typing.get_origin(here) is dict:
            here = arguments[1]
        else:
            here = arguments[0] if typing.get_origin(here) in (list, tuple) else None
        here = _bare(here)
    return here


def _bare(type_: Any) -> Any:
    """The type without its limits, and without null where it is one type or null."""
    while typing.get_origin(type_) is typing.Annotated:
        type_ = typing.get_args(type_)[0]
    if typing.get_origin(type_) in (typing.Union, types.UnionType):
        some = [one for one in typing.get_args(type_) if one is not type(None)]
        return _bare(some[0]) if len(some) == 1 else type_
    return type_


def _fields(type_: Any) -> dict[str, Any]:
    """{name as it is sent: type} of a struct; empty if the type is none."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return {field.encode_name: field.type for field in msgspec.structs.fields(type_)}
    return {}


def _values(type_: Any) -> list[str]:
    return [str(value) for value in typing.get_args(type_)] if typing.get_origin(type_) is typing.Literal else []


def _wanted(type_: Any) -> str:
    """What belongs there, in words; "" where the type does not say."""
    bare = _bare(type_)
    if bare in _WORDS:
        return _WORDS[bare]
    if values := _values(bare):
        return f"one of {', '.join(values)}"
    if fields := _fields(bare):
        return f"an object with {', '.join(fields)}"
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if origin in (list, tuple):
        inner = _wanted(arguments[0])
        return f"a list, each {inner}" if inner else "a list"
    if origin is dict or bare is dict:
        inner = _wanted(arguments[1]) if arguments else ""
        return f"an object, each value {inner}" if inner else "an object"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(filter(None, map(_wanted, arguments)))
    return ""
