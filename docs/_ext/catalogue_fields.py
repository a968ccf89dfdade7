"""Fields of the tables of a catalogue in words, from the types that decode them. It needs nothing of Sphinx."""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

_NOTHING = (type(None), msgspec.UnsetType)  # what a field that may be left out is, besides its own type


def reachable(struct: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The type and all that its fields may hold, breadth first."""
    found = [struct]
    for known in found:
        for field in msgspec.structs.fields(known):
            found += [inner for inner in structs_in(field.type) if inner not in found]
    return found


def structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """The structs that an annotation names, in its order, each once."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    seen = list[Any]()
    for part in get_args(kind):
        for inner in structs_in(part):
            if inner not in seen:
                seen.append(inner)
                yield inner


def rows(struct: type[msgspec.Struct]) -> list[tuple[str, str, str, str]]:
    """Rows of a type's table: field, type, default and constraints, as Markdown."""
    return [
        (f"`{f.encode_name}`", named(f.type), default(f), ", ".join(constraints(f.type)))
        for f in msgspec.structs.fields(struct)
    ]


def paragraphs(struct: type[msgspec.Struct]) -> list[str]:
    """The docstring, one line a paragraph."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(struct) or "").splitlines()


def anchor(struct: type[msgspec.Struct]) -> str:
    """The label of a type."""
    return f"catalogue-{struct.__name__.lower()}"


def named(kind: Any) -> str:
    """A type in words of TOML, with links to tables."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is typing.Annotated:
        return named(arguments[0])
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(named(part) for part in arguments if part not in _NOTHING))
    if origin in (list, tuple):
        return f"list of {named(arguments[0])}"
    if origin is dict:
        return f"table: name → {named(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"[{kind.__name__}](#{anchor(kind)})"
    return {str: "text", float: "number", int: "whole number", bool: "true or false", Any: "any value"}.get(
        kind, str(kind)
    )


def default(field: msgspec.structs.FieldInfo) -> str:
    """What stands if the field is left out."""
    if field.required:
        return "**required**"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None:
        return "none"
    if value is msgspec.UNSET:
        return "left out"
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        return f'`name = "{tag}"`' if tag else "its defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str | list | dict | tuple):
        return f'`"{value}"`' if value else "empty"
    return f"`{value:g}`"


def constraints(kind: Any) -> Iterator[str]:
    """The limits that an annotation declares, in words."""
    if get_origin(kind) is typing.Annotated:
        inner, *notes = get_args(kind)
        for note in notes:
            if isinstance(note, msgspec.Meta):
                yield from limits(note, text=inner is str)
        yield from constraints(inner)
    elif get_origin(kind) in (list, dict, tuple, typing.Union, types.UnionType):
        for part in get_args(kind):
            prefix = "each " if get_origin(kind) in (list, dict, tuple) else ""
            yield from (f"{prefix}{limit}" for limit in constraints(part))


def limits(note: msgspec.Meta, *, text: bool) -> Iterator[str]:
    """A note's limits in words."""
    for value, sign in ((note.ge, "≥"), (note.gt, ">"), (note.le, "≤"), (note.lt, "<")):
        if value is not None:
            yield f"{sign} {value:g}" if isinstance(value, float) else f"{sign} {value:,}"
    unit = "characters" if text else "items"
    if note.min_length is not None:
        yield f"at least {note.min_length} {unit}"
    if note.max_length is not None:
        yield f"at most {note.max_length} {unit}"
    if note.examples:
        yield "such as " + ", ".join(f'`"{one}"`' for one in note.examples)
