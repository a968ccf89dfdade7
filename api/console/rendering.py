"""Rendering of the console's pages: Jinja2 templates with autoescape, how numbers and times are written, and the
headers of each page. What came from outside is text on every page; nothing is inline, so that the policy forbids all of
it.
"""

import datetime as dt
import functools
import importlib.resources
import math
from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from bandit.catalogue.model import Reward

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers call forms' origin "null", which a trial refuses
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of pages and of the files that they load."""

MEDIA = {"console.css": "text/css", "console.js": "text/javascript"}
"""Files that pages load, with their media types."""

NOTHING = "–"
"""What stands where there is no number."""


@functools.cache
def environment() -> jinja2.Environment:
    """Templates, compiled when they are first asked for; a name that a page does not get is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("api.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= FILTERS
    return found


def page(template: str, **values: Any) -> bytes:
    """HTML of a page."""
    return environment().get_template(template).render(**values).encode()


def file(name: str) -> bytes:
    """Content of a file that pages load."""
    return importlib.resources.files("api.console").joinpath("static", name).read_bytes()


def whole(number: float | None) -> str:
    """A count, with commas: 1,234,567."""
    return NOTHING if number is None else f"{number:,.0f}"


def figure(number: float | None) -> str:
    """A number to four digits: 0.1235, 12,350."""
    if number is None or not math.isfinite(number):
        return NOTHING
    return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"


def percent(share: float | None) -> str:
    """A share in percent: 12.3 %."""
    return NOTHING if share is None else f"{100.0 * share:.3g} %" if share < 0.9995 else f"{100.0 * share:.0f} %"


def money(amount: float | None, currency: str) -> str:
    """An amount in the app's currency: 1,234.50 EUR."""
    if amount is None:
        return NOTHING
    digits = 2 if amount == 0.0 or abs(amount) >= 0.1 else 4
    return f"{amount:,.{digits}f} {currency}"


def utc(when: dt.datetime | None) -> str:
    """A time: 2026-01-31 18:00:00 UTC."""
    return NOTHING if when is None else f"{when:%Y-%m-%d %H:%M:%S} UTC"


def period(seconds: float) -> str:
    """How long: 45 s, 12 min, 3 h, 2 d."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def worth(mean: float | None, reward: Reward) -> float | None:
    """What a mean reward, in its own units, is worth in the app's currency."""
    return None if mean is None else mean * reward.value


FILTERS: Mapping[str, Callable[..., Any]] = {
    "whole": whole,
    "figure": figure,
    "percent": percent,
    "money": money,
    "utc": utc,
    "period": period,
}
