"""Lines of values in TOML and JSON texts: the path of a value, such as `personas.keen.effects.push` → its line.

Texts are those that a parser has accepted already, so nothing here looks for mistakes of syntax.
"""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|\n|[\[\]{}=,:.]|[^\s\[\]{}=,:.#"\']+',
    re.DOTALL,
)

Lines = dict[str, int]


def line_of(path: str, lines: Lines) -> int:
    """Line of the value at `path`, or of the nearest table around it; 1 if nothing of it is in the text."""
    parts = re.split(r"[.\[]", path.replace("]", ""))
    known = (lines.get(".".join(parts[:n])) for n in range(len(parts), 0, -1))
    return next((line for line in known if line is not None), 1)


def toml_lines(text: str) -> Lines:
    """Lines of every table and key of a TOML text, by path; the first where a path comes again."""
    found, table = Lines(), list[str]()
    tokens = list(_tokens(text))
    at = 0
    while at < len(tokens):
        word, line = tokens[at]
        if word == "[":
            at, table = _key(tokens, at + 1 + (tokens[at + 1][0] == "["))
            _note(found, table, line)
            at = _skip(tokens, at)
        elif word == "\n":
            at += 1
        else:
            at = _pair(tokens, at, table, found)
            at = _skip(tokens, at)
    return found


def json_lines(text: str) -> Lines:
    """Lines of every key of a JSON text, by path."""
    found = Lines()
    tokens = [one for one in _tokens(text) if one[0] != "\n"]
    stack, key, is_value = list[str](), "", False
    for word, line in tokens:
        if word in "{[":
            stack.append(key if is_value else "")
            is_value = word == "["
            key = "" if is_value else key
        elif word in "}]":
            stack.pop()
            is_value = False
        elif word == ":":
            is_value = True
        elif word == ",":
            is_value = False
        elif not is_value and word.startswith('"'):
            key = word[1:-1]
            _note(found, [*(part for part in stack if part), key], line)
    return found


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        word = match.group()
        if not word.startswith("#"):
            yield word, line
        line += word.count("\n")


def _key(tokens: list[tuple[str, int]], at: int) -> tuple[int, list[str]]:
    """Where a dotted key ends, and its parts."""
    parts = list[str]()
    while at < len(tokens) and tokens[at][0] not in "=]\n":
        if tokens[at][0] != ".":
            parts.append(tokens[at][0].strip("\"'"))
        at += 1
    return at, parts


def _pair(tokens: list[tuple[str, int]], at: int, table: list[str], found: Lines) -> int:
    """Note a key and the keys of inline tables in its value; where the value ends."""
    line = tokens[at][1]
    at, parts = _key(tokens, at)
    path = [*table, *parts]
    _note(found, path, line)
    return _value(tokens, at + 1, path, found)


def _value(tokens: list[tuple[str, int]], at: int, path: list[str], found: Lines) -> int:
    if at < len(tokens) and tokens[at][0] == "{":
        at += 1
        while at < len(tokens) and tokens[at][0] != "}":
            at = at + 1 if tokens[at][0] in ",\n" else _pair(tokens, at, path, found)
        return at + 1
    depth = 0
    while at < len(tokens):
        word = tokens[at][0]
        if depth == 0 and word in ",}\n":
            return at
        depth += (word in "[{") - (word in "]}")
        at += 1
        if depth == 0 and word in "]}":
            return at
    return at


def _skip(tokens: list[tuple[str, int]], at: int) -> int:
    while at < len(tokens) and tokens[at][0] != "\n":
        at += 1
    return at


def _note(found: Lines, parts: list[str], line: int) -> None:
    for n in range(1, len(parts) + 1):
        found.setdefault(".".join(parts[:n]), line)
