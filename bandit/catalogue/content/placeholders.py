"""Placeholders in the texts of a nudge: `{stock}`, `{deadline}` and `{age}` of its evidence, and `{name}` of a text or
number in its payload.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

STOCK, DEADLINE, AGE = OF_EVIDENCE = ("stock", "deadline", "age")
_NAMED = re.compile(r"\{([^{}]*)\}")


def names(text: str) -> list[str]:
    """Names of the placeholders in a text, in its order."""
    return _NAMED.findall(text)


def has_stray_brace(text: str) -> bool:
    """Whether a brace stands in the text that is no part of a placeholder."""
    return bool(re.search(r"[{}]", _NAMED.sub("", text)))


def known(payload: Mapping[str, Any], evidence: str | None) -> set[str]:
    """Names that texts of a nudge may use: what its evidence (its kind, or None) says, and the texts and numbers of its
    payload. The names of evidence never stand for something of the payload.
    """
    proven = {STOCK: {STOCK, AGE}, DEADLINE: {DEADLINE, AGE}}.get(evidence or "", set())
    return proven | (values(payload).keys() - set(OF_EVIDENCE))


def values(payload: Mapping[str, Any]) -> dict[str, str]:
    """Texts and numbers of a payload as they read in a text, by name."""
    plain = {k: v for k, v in payload.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    return {name: value if isinstance(value, str) else f"{value:.15g}" for name, value in plain.items()}


def filled(text: str, payload: Mapping[str, Any]) -> str:
    """The text with what the payload says; placeholders of evidence and unknown ones stay."""
    own = {name: value for name, value in values(payload).items() if name not in OF_EVIDENCE}
    return _NAMED.sub(lambda found: own.get(found[1], found[0]), text)


def texts_in(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text inside a payload, however deep, with its path."""
    match value:
        case str():
            yield path, value
        case dict():
            for key, inner in value.items():
                yield from texts_in(inner, f"{path}.{key}")
        case list():
            for i, inner in enumerate(value):
                yield from texts_in(inner, f"{path}[{i}]")
