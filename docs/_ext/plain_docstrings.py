"""Docstrings here are plain text with `names` in backquotes: made reStructuredText as they are read by autodoc."""

import re
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"(`+)([^`]+)\1")
_EMPHASIS = re.compile(r"(?<!\w)\*\w+\*(?!\w)")
_MARKUP = re.compile(r"([\\*|_])")
_ARRAY = re.compile(r"~?numpy\.ndarray\[~?tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[(~?[\w.]+)\]\]")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the listener."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}


def _process(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = [] if lines and lines[0].startswith("Alias for field number") else plain(lines)


def _signature(
    _app: Sphinx, _what: str, _name: str, object_: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Arrays by their short name; an ellipsis for defaults that do not parse, which would cost the links.

    A protocol is not called.
    """
    if getattr(object_, "_is_protocol", False):
        return "", None
    short = [_ARRAY.sub(r"~numpy.typing.NDArray[\1]", part) if part else part for part in (signature, returns)]
    return re.sub(r"= ?<[^<>]*>", "= ...", short[0]) if short[0] else short[0], short[1]


def plain(lines: list[str]) -> list[str]:
    """The lines as reStructuredText: indented and drawn parts word for word, the rest as sentences."""
    done: list[str] = []
    literal = False
    for line in lines:
        drawn = line.startswith((" ", "├", "└", "│"))
        if drawn and not literal:
            done += ["", "::", ""]
        if not drawn and literal and line:
            done.append("")
        literal = drawn or (literal and not line)
        done.append(f"    {line}".rstrip() if literal else sentence(line))
    return done


def sentence(line: str) -> str:
    """A line with code as literals and every other mark as the character it is."""
    parts, end = list[str](), 0
    for found in _CODE.finditer(line):
        parts += [_escaped(line[end : found.start()]), _literal(line, found)]
        end = found.end()
    return "".join([*parts, _escaped(line[end:])])


def _literal(line: str, found: re.Match[str]) -> str:
    """Code, set off from letters that touch it."""
    before, after = line[: found.start()][-1:], line[found.end() :][:1]
    left = "\\ " if before and (before.isalnum() or before == "_") else ""
    right = "\\ " if after and (after.isalnum() or after == "_") else ""
    return f"{left}``{found[2]}``{right}"


def _escaped(text: str) -> str:
    if found := _EMPHASIS.search(text):
        return f"{_escaped(text[: found.start()])}{found[0]}{_escaped(text[found.end() :])}"
    return _MARKUP.sub(r"\\\1", text.replace("`", "'"))
