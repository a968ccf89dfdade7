"""Identifiers as exact text: of people, orders, products, decisions.

One id has one form, whatever JSON type it came in: `1001`, `1001.0` and `"1001"` are the text "1001". Texts are never
trimmed or folded. Placeholders are what programs write where an id is missing; such a text identifies nobody and
nothing.
"""

import math
from collections.abc import Collection

from bandit.errors import Problem

LONGEST = 256
"""Characters of an identifier."""

PLACEHOLDERS = frozenset(
    {"undefined", "null", "none", "nil", "nan", "n/a", "true", "false", "[object object]", "unknown", "guest",
     "anonymous", "not_authenticated", "-1"}
)  # fmt: skip
"""Texts that stand for a missing id, in lower case; empty texts and texts of zeros and dashes are placeholders too."""


def identifier(value: object) -> str | None:
    """Text of an identifier sent as text or number; None where there is none: null, an empty text, or a value that
    cannot be one. Raises nothing.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    try:
        return str(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return None


def is_placeholder(text: str, declared: Collection[str] = ()) -> bool:
    """Whether a text stands for a missing id ("undefined", "null", zeros and dashes). `declared`: further placeholders
    of the app, in lower case.
    """
    plain = text.strip().casefold()
    return plain in PLACEHOLDERS or plain in declared or not plain.strip("0-{}")


def problem(field: str, value: object) -> Problem | None:
    """Problem of a value that cannot be an identifier, with `field` as its place, or None if it can. Null and an empty
    text are no value and no problem.
    """
    if value is None or value == "":
        return None
    text = identifier(value)
    if text is None:
        return Problem(field, "neither a text nor a number", "send the id as a text")
    if len(text) > LONGEST:
        return Problem(field, f"{len(text)} characters", f"send an id of at most {LONGEST} characters")
    return None
