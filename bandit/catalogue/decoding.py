"""Strict decoder of nested tables into structs that reports every mistake at once, each with its path and its fix.

msgspec stops at the first mistake; a person who writes a catalogue wants them all. So the types are walked: structs,
tagged unions and dicts are taken apart here, and each leaf is msgspec's.
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from bandit.errors import PolicyError, Problem

Check = Callable[[msgspec.Struct, str], None]

_FAILED = object()


class OpenUnion(NamedTuple):
    """Structs that a union takes besides those of its type: tags of all, the struct of a tag (or PolicyError), and what
    to do where a tag is not known.
    """

    names: Callable[[], Iterable[str]]
    named: Callable[[str], type[msgspec.Struct]]
    fix: str


def _accept(_struct: msgspec.Struct, _path: str) -> None:
    """No check of meaning."""


def decode(
    value: Any,
    type_: Any,
    path: str,
    mistakes: list[Problem],
    check: Check = _accept,
    open_unions: Mapping[Any, OpenUnion] = types.MappingProxyType({}),
) -> Any:
    """`value` as `type_`, or None after appending to `mistakes`.

    `type_` may be a msgspec Struct, a union of tagged Structs, dict[str, T], or anything that msgspec converts
    strictly; numbers must be finite. `check(struct, path)` is called with every struct whose fields could be decoded,
    inner ones first, whatever is wrong around it: so mistakes of form and of meaning are found in one pass.
    `open_unions`: by the type of a union, what it takes besides. A ValueError of a struct's own checks is a mistake.
    """
    before = len(mistakes)
    result = _Walk(mistakes, check, open_unions).walk(value, type_, path)
    return result if len(mistakes) == before else None


def closest(name: str, known: Iterable[str]) -> str:
    """Fix text for an unknown name: "did you mean" with the closest known name if one is near, then the whole sorted
    list.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"


class _Walk(NamedTuple):
    """One pass. Methods return what they decoded or _FAILED; an unknown key alone fails nothing."""

    mistakes: list[Problem]
    check: Check
    open_unions: Mapping[Any, OpenUnion]

    def walk(self, value: Any, type_: Any, path: str) -> Any:
        origin, arguments = typing.get_origin(type_), typing.get_args(type_)
        if _is_struct(type_):
            return self.struct(value, type_, path)
        if _structs(type_) and not (value is None and type(None) in arguments):
            return self.union(value, type_, path)
        if origin is dict and isinstance(value, Mapping):
            items = {key: self.walk(item, arguments[1], _at(path, key)) for key, item in value.items()}
            return _FAILED if any(item is _FAILED for item in items.values()) else items
        return self.leaf(value, type_, path)

    def leaf(self, value: Any, type_: Any, path: str) -> Any:
        fix = f"write {_wanted(type_)} here"
        try:
            leaf = msgspec.convert(value, type_, strict=True)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            return self.fail(path + where.rstrip("`"), problem, fix)
        if isinstance(leaf, float) and not math.isfinite(leaf):
            return self.fail(path, f"{leaf} is not a finite number", fix)
        return leaf

    def struct(self, value: Any, type_: type[msgspec.Struct], path: str) -> Any:
        if not isinstance(value, Mapping):
            return self.fail(path, f"expected a table, got {type(value).__name__}", f"write {_wanted(type_)} here")
        fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
        for key in value:
            if key not in fields and key != type_.__struct_config__.tag_field:
                reasons = getattr(type_, "refused_keys", {})
                self.fail(_at(path, key), *reasons.get(key, ("unknown key", closest(key, fields))))
        decoded = {}
        for key, field in fields.items():
            if key in value:
                decoded[field.name] = self.walk(value[key], field.type, _at(path, key))
            elif field.required:
                decoded[field.name] = self.fail(_at(path, key), "missing", f"add it: {_wanted(field.type)}")
        if any(part is _FAILED for part in decoded.values()):
            return _FAILED
        try:
            struct = type_(**decoded)
        except ValueError as error:  # of its __post_init__
            return self.fail(path, str(error), "write other values here")
        self.check(struct, path)
        return struct

    def union(self, value: Any, type_: Any, path: str) -> Any:
        by_tag = _structs(type_)
        field = next(iter(by_tag.values())).__struct_config__.tag_field
        others = {*typing.get_args(type_)} - {type(None), *by_tag.values()}
        if field is None and others and not isinstance(value, Mapping):
            return self.leaf(value, type_, path)  # a text, or a table that says more
        if field is None:  # a plain optional struct
            return self.struct(value, next(iter(by_tag.values())), path)
        if not isinstance(value, Mapping):
            return self.fail(path, f"expected a table, got {type(value).__name__}", f"write {_wanted(type_)} here")
        tag = value.get(field)
        if isinstance(tag, str) and tag in by_tag:
            return self.struct(value, by_tag[tag], path)
        more = self.open_unions.get(type_)
        known = {*by_tag, *(more.names() if more else ())}
        if more is None or not isinstance(tag, str) or tag not in known:
            given = "missing" if tag is None else f"unknown: {tag!r}"
            fix = closest(str(tag), known) + (f"; {more.fix}" if more and tag is not None else "")
            return self.fail(_at(path, field), given, fix)
        try:
            return self.struct(value, more.named(tag), path)
        except PolicyError as error:
            return self.fail(_at(path, field), error.problem.problem, error.problem.fix)

    def fail(self, path: str, problem: str, fix: str) -> object:
        self.mistakes.append(Problem(path, problem, fix))
        return _FAILED


def _at(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _structs(type_: Any) -> dict[str, type[msgspec.Struct]]:
    """The structs of a union by their tags; empty if it is not a union, or has none."""
    if typing.get_origin(type_) not in (typing.Union, types.UnionType):
        return {}
    return {str(t.__struct_config__.tag): t for t in typing.get_args(type_) if _is_struct(t)}


def _within(meta: Any) -> str:
    """Limits of a number, and examples, in words."""
    if not isinstance(meta, msgspec.Meta):
        return ""
    sides = (("above", meta.gt), ("at least", meta.ge), ("below", meta.lt), ("at most", meta.le))
    said = " and ".join(f"{word} {bound:,.10g}" for word, bound in sides if bound is not None)
    shown = ", ".join(f'"{one}"' for one in meta.examples or ())
    return (f" {said}" if said else "") + (f", such as {shown}" if shown else "")


def _wanted(type_: Any) -> str:
    """What a person should write, in words."""
    if _is_struct(type_):
        required = [field.encode_name for field in msgspec.structs.fields(type_) if field.required]
        return "a table with " + ", ".join(required) if required else "a table"
    words = {str: "a text", float: "a number", int: "a whole number", bool: "true or false", dict: "a table"}
    if type_ in words:
        return words[type_]
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    structs = _structs(type_)
    tag_field = next(iter(structs.values())).__struct_config__.tag_field if structs else None
    if tag_field:
        return f"a table with {tag_field} = " + " or ".join(f'"{tag}"' for tag in sorted(structs))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(a) for a in arguments if a is not type(None))
    if origin is typing.Annotated:
        return _wanted(arguments[0]) + "".join(_within(meta) for meta in arguments[1:])
    if origin in (list, tuple):
        return f"a list, each {_wanted(arguments[0])}"
    if origin is dict:
        return "a table"
    return str(type_)
