"""Docstrings here are plain text with `names` in backquotes: made reStructuredText as they are read by autodoc."""

import re
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"(`+)([^`]+)\1")
_MARKUP = re.compile(r"([\\*|_])")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the listener."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}


def _process(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = plain(lines)


def _signature(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Defaults that are no Python, as an ellipsis: a signature that does not parse would lose its links."""
    return re.sub(r"= ?<[^<>]*>", "= ...", signature) if signature else signature, returns


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
    return _MARKUP.sub(r"\\\1", text.replace("`", "'"))
