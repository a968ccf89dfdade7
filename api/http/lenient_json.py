"""Lenient JSON: which values of a body JSON may not hold, what is left without them, and which part is which.

Python's json.dumps writes NaN and Infinity, JavaScript cuts emoji in half, and some clients send bytes that are not
UTF-8. A strict decoder says only that the whole is not JSON. Here the brackets of the whole are told apart from what is
inside them, so that each part can be judged by itself. Used when the strict decoder has refused, never before.
"""

import json
import math
import re
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN = re.compile(_STRING + rb'|["\[\]{},]', re.DOTALL)
_MEMBER = re.compile(rb"(" + _STRING + rb")\s*:\s*(.*)", re.DOTALL)
_HALF = re.compile("[\ud800-\udfff]")
_BLANK = b" \t\r\n"
_PAIRS = {ord("{"): ord("}"), ord("["): ord("]")}
_CLOSING = frozenset(_PAIRS.values())
_MOST = 500_000  # brackets and commas of one body: to tell them apart takes about a microsecond each
_COMMA, _QUOTE = b',"'

Path = tuple[str | int, ...]


class JsonFlaw(NamedTuple):
    """Value that JSON cannot hold: its path in the body, and what is wrong with it."""

    path: Path
    problem: str


class CleanedJson(NamedTuple):
    """JSON value without its flaws, and the flaws, outer ones first."""

    value: Any
    flaws: list[JsonFlaw]


def lenient(raw: bytes) -> Any:
    """Value of JSON that may hold NaN, infinities, halves of surrogate pairs and bytes that are not UTF-8 (as such
    halves). Raises ValueError if it is not JSON even so, RecursionError if it is nested too deep.
    """
    return json.loads(raw.decode("utf-8", "surrogateescape"))


def clean(raw: bytes) -> CleanedJson:
    """JSON value without what JSON cannot hold: members are left out, elements are null. For protocols to which a
    missing value means nothing. Raises ValueError and RecursionError as `lenient` does.
    """
    value = lenient(raw)
    flaws = list(found(value))
    return CleanedJson(_pruned(value) if flaws else value, flaws)


def marked(raw: bytes) -> CleanedJson:
    """JSON value with NaN in place of values that JSON cannot hold, for a reader that must not take them for absent.
    Members whose names are flawed are left out. Raises ValueError and RecursionError as `lenient` does.
    """
    value = lenient(raw)
    flaws = list(found(value))
    return CleanedJson(_marked(value) if flaws else value, flaws)


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _marked(one) for name, one in value.items() if not _problem(name)}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return math.nan if _problem(value) else value


def sound(raw: bytes) -> Any:
    """JSON value without what JSON cannot hold, for callers that need not know what was left out. Raises ValueError and
    RecursionError as `lenient` does.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return clean(raw).value


def found(value: Any) -> Iterator[JsonFlaw]:
    """Every flaw of a decoded value, outer ones first. It does not recurse, so that depth costs no stack."""
    waiting = deque[tuple[Path, Any]]([((), value)])
    while waiting:
        path, one = waiting.popleft()
        problem = _problem(one)
        if problem:
            yield JsonFlaw(path, problem)
        elif isinstance(one, dict):
            for name, inner in one.items():
                if _problem(name):
                    yield JsonFlaw((*path, name), "its name is not Unicode text")
                else:
                    waiting.append(((*path, name), inner))
        elif isinstance(one, list):
            waiting.extend(((*path, i), inner) for i, inner in enumerate(one))


def text(path: Path) -> str:
    """Path as errors write it: `events[1].user_id`. Characters that are not Unicode text are written
    with a backslash.
    """
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return written.encode("utf-8", "backslashreplace").decode()


def members(raw: bytes) -> dict[str, bytes]:
    """Members of an object by name, each with its value as the bytes that were sent; of a repeated name the last.
    Raises ValueError if the bytes are not an object, its brackets do not pair, or it has more than 500,000 parts.
    """
    named = {}
    for part in _parts(raw, b"{}"):
        member = _MEMBER.fullmatch(part)
        if member is None:
            raise ValueError("not a name, a colon and a value")
        named[str(lenient(member[1]))] = member[2]
    return named


def elements(raw: bytes) -> list[bytes]:
    """Elements of an array, each as the bytes that were sent. Raises ValueError if the bytes are not an array, its
    brackets do not pair, or it has more than 500,000 parts.
    """
    return _parts(raw, b"[]")


def _parts(raw: bytes, brackets: bytes) -> list[bytes]:
    """What stands between the outermost brackets, cut at their commas."""
    whole = raw.strip(_BLANK)
    if len(whole) < 2 or bytes((whole[0], whole[-1])) != brackets:
        raise ValueError(f"not in {brackets.decode()}")
    cuts = [0, *_commas(whole), len(whole) - 1]
    parts = [whole[begin + 1 : end].strip(_BLANK) for begin, end in pairwise(cuts)]
    if parts == [b""]:
        return []
    if not all(parts):
        raise ValueError("nothing stands between two commas")
    return parts


def _commas(whole: bytes) -> Iterator[int]:
    """Where the commas of the outermost brackets stand. Texts hide brackets and commas."""
    if sum(map(whole.count, (b"{", b"[", b","))) > _MOST:
        raise ValueError("too many parts")
    opened = bytearray()
    for token in _TOKEN.finditer(whole):
        at = token.start()
        sign = whole[at]
        if sign in _PAIRS:
            opened.append(_PAIRS[sign])
        elif sign in _CLOSING:
            if not opened or opened.pop() != sign or (not opened and at + 1 < len(whole)):
                raise ValueError("brackets do not pair")
        elif sign == _COMMA and len(opened) == 1:
            yield at
        elif sign == _QUOTE and token.end() == at + 1:
            raise ValueError("a text has no end")
    if opened:
        raise ValueError("brackets do not pair")


def _problem(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number of JSON".replace("nan", "NaN").replace("inf", "Infinity")
    if isinstance(value, str) and _HALF.search(value):
        return "not Unicode text: half of a surrogate pair, or bytes that are not UTF-8"
    return ""


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pruned(one) for name, one in value.items() if not (_problem(name) or _problem(one))}
    if isinstance(value, list):
        return [None if _problem(one) else _pruned(one) for one in value]
    return None if _problem(value) else value
