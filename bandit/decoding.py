"""Strict decoding that reports every mistake at once, each with its path and its fix.

msgspec stops at the first mistake; a person who writes a catalogue wants them all. So we walk the types:
structs, tagged unions, dicts and lists are taken apart here, and each leaf is msgspec's.
"""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bandit.errors import Problem


def decode(value: Any, type_: Any, path: str, mistakes: list[Problem]) -> Any:
    """`value` as `type_`, or None after appending to `mistakes`.

    `type_` may be a msgspec Struct, a union of tagged Structs, dict[str, T], list[T], tuple[T, ...],
    or anything msgspec converts strictly.
    """
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    structs = [t for t in arguments if isinstance(t, type) and issubclass(t, msgspec.Struct)]
    if origin in (typing.Union, types.UnionType) and structs:
        return _tagged(value, structs, path, mistakes)
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return _struct(value, type_, path, mistakes)
    if origin is dict and isinstance(value, Mapping):
        return {k: decode(v, arguments[1], f"{path}.{k}", mistakes) for k, v in value.items()}
    try:
        return msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        problem = str(error).split(" - at `$")[0]
        where = str(error).split(" - at `$")[1].rstrip("`") if " - at `$" in str(error) else ""
        mistakes.append(Problem(f"{path}{where}", problem, f"write {_wanted(type_)} here"))
        return None


def closest(name: str, known: Iterable[str]) -> str:
    """A fix for an unknown name: the closest known one, and the whole list."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"


def _struct(value: Any, type_: type[msgspec.Struct], path: str, mistakes: list[Problem]) -> Any:
    if not isinstance(value, Mapping):
        mistakes.append(Problem(path, f"expected a table, got {type(value).__name__}", "make it a table"))
        return None
    config = type_.__struct_config__
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    before = len(mistakes)
    tag = {config.tag_field} if config.tag_field else set()
    for key in value:
        if key not in fields and key not in tag:
            mistakes.append(Problem(f"{path}.{key}", "unknown key", closest(key, fields)))
    decoded = {}
    for key, field in fields.items():
        if key in value:
            decoded[field.name] = decode(value[key], field.type, f"{path}.{key}", mistakes)
        elif field.required:
            mistakes.append(Problem(f"{path}.{key}", "missing", f"add it: {_wanted(field.type)}"))
    return type_(**decoded) if len(mistakes) == before else None


def _tagged(value: Any, structs: list[type[msgspec.Struct]], path: str, mistakes: list[Problem]) -> Any:
    if value is None:
        return None
    by_tag = {str(struct.__struct_config__.tag): struct for struct in structs}
    field = structs[0].__struct_config__.tag_field
    if field is None:  # a plain optional struct
        return _struct(value, structs[0], path, mistakes)
    tag = value.get(field) if isinstance(value, Mapping) else None
    if tag not in by_tag:
        given = "missing" if tag is None else f"unknown: {tag!r}"
        mistakes.append(Problem(f"{path}.{field}", given, closest(str(tag), by_tag)))
        return None
    return _struct(value, by_tag[str(tag)], path, mistakes)


def _wanted(type_: Any) -> str:
    """What a person should write, in words."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return "a table with " + ", ".join(f.encode_name for f in msgspec.structs.fields(type_) if f.required)
    words = {str: "a text", float: "a number", int: "a whole number", bool: "true or false", dict: "a table"}
    if type_ in words:
        return words[type_]
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(a) for a in arguments if a is not type(None))
    if origin is typing.Annotated:
        return _wanted(arguments[0])
    if origin in (list, tuple):
        return f"a list, each {_wanted(arguments[0])}"
    if origin is dict:
        return "a table"
    return str(type_)
