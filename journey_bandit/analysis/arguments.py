"""Arguments of the analysis functions: what commands check of their options, checked where Python is called."""

from math import inf, isfinite

from bandit.errors import InvalidRequest, Problem


def check_lists(**given: object) -> None:
    """Raise InvalidRequest, which names the argument, for one text where a list of texts is wanted: Python would take
    its letters for the list.
    """
    for field, value in given.items():
        if isinstance(value, str):
            raise InvalidRequest(Problem(field, "one text is no list", f"{field}=[{value!r}]"))


def check_within(field: str, value: float, low: float, high: float = inf) -> None:
    """Raise InvalidRequest, which names the argument `field`, unless `value` is a number from `low` to `high`."""
    if not (low <= value <= high and isfinite(value)):
        wanted = f"a number from {low:g} to {high:,.10g}" if high < inf else f"{low:,.10g} or more"
        raise InvalidRequest(Problem(field, f"{value:,.10g} is not possible", wanted))


def check_level(level: float) -> None:
    """Raise InvalidRequest unless `level` is one of intervals, from 0.5 to 0.999999."""
    if not 0.5 <= level <= 0.999999:
        fix = "a number from 0.5 to 0.999999, such as 0.95"
        raise InvalidRequest(Problem("level", f"{level:g} is no level of intervals", fix))
