"""Fractions: how commands read a share, a rate or a probability that somebody types: 0.25, .25, 0,25, 25% and 1/4."""

from typing import Any

import click

from bandit.errors import InvalidRequest, Problem
from bandit.tables import cells


def fraction(field: str, text: str) -> float:
    """The number that the text says: a decimal, a whole number over another, or per cent. Raises InvalidRequest for
    `field` if it says none, or might say two; whether the number is a share is for the caller to check.
    """
    whole = text.strip()
    top, slash, below = whole.partition("/")
    percent = whole.endswith("%")
    parts = (top, below) if slash else (whole.removesuffix("%"), "100" if percent else "1")
    unsure = next((part.strip() for part in parts if cells.ambiguous(part.strip())), "")
    if unsure:
        problem = f"{unsure!r} may be one number with three decimals, or thousands"
        raise InvalidRequest(Problem(field, problem, "leave the mark between thousands out, or end with another digit"))
    values = [cells.number(part.strip()) for part in parts]
    if any(value is None or abs(value) == float("inf") for value in values) or not values[1]:
        raise InvalidRequest(Problem(field, f"{text!r} is not a number", "a number, such as 0.5, 50% or 1/2"))
    return float(values[0] or 0.0) / values[1]


class FractionParameter(click.ParamType[float]):
    """Type of an option that is a fraction, for click: as `fraction` reads it."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ARG002
        """The number of a text; a default that is a number already stays one."""
        return value if isinstance(value, float) else fraction(str(param.name) if param else "value", str(value))


FRACTION = FractionParameter()
