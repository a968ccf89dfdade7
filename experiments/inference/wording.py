"""Wording of numbers: the one place where money, estimates, intervals, probabilities and times become text, for reports
and commands.

What no text may hold, whatever it is given: "nan", "inf", a zero with a sign, an exponent, a bound that is none.
`tests/experiments/inference/test_wording.py` holds every sentence against a table of cases.
"""

import datetime as dt
from math import floor, isfinite, log10

from experiments.inference.intervals import Interval

NOT_KNOWN = "not known"
PROVEN = ("key ", "MLflow user ")
"""What the name of somebody begins with whom a service or MLflow has authenticated."""

_MOST_PLACES, _ZEROS, _SURE, _COARSE = 9, 3, 0.001, 7.5


def number(value: float, digits: str = ".3g") -> str:
    """A number as text, in the format `digits` (such as "+.3f" or ".3g"), with commas between thousands: without an
    exponent, and without a sign where it is written as zero; "not known" if it is not finite.
    """
    if not isfinite(value):
        return NOT_KNOWN
    text, sign = f"{value:{digits}}", "+" if digits.startswith("+") else ""
    if "e" in text:
        text = f"{value:{sign}.{0 if abs(value) >= 1.0 else places(value)}f}"
    whole, point, rest = text.lstrip("+-").partition(".")
    shown = f"{int(whole):,}{point}{rest}"
    if not shown.strip("0.,"):
        return shown if len(rest) <= _ZEROS else "0"
    return f"{text[0]}{shown}" if text[0] in "+-" else shown


def places(spread: float, figures: int = 2) -> int:
    """Digits after the point, from 0 to 9, that show so many significant ones of `spread`; 2 if that is 0 or not
    known.
    """
    if not isfinite(spread) or spread == 0.0:
        return 2
    return min(max(figures - 1 - floor(log10(abs(spread))), 0), _MOST_PLACES)


def bounds(low: float, high: float, digits: str = "+.3f", *, scale: float = 1.0) -> str:
    """Bounds as text, "[low, high]", each times `scale` and written with the format `digits`; a bound that is not
    finite is said to be missing.
    """
    if not isfinite(low) and not isfinite(high):
        return "[no bounds known]"
    least = number(scale * low, digits) if isfinite(low) else "no lower bound"
    return f"[{least}, {number(scale * high, digits) if isfinite(high) else 'no upper bound'}]"


def in_words(found: Interval, digits: str = "+.3f", *, scale: float = 1.0, unit: str = "") -> str:
    """Estimate with its bounds as text, "+0.120 [+0.080, +0.160]", both times `scale` and written with the format
    `digits`; `unit` stands after the estimate. Without bounds where one observation gives none.
    """
    value = f"{number(scale * found.value, digits)}{f' {unit}' if unit and isfinite(found.value) else ''}"
    known = isfinite(found.value) and (isfinite(found.low) or isfinite(found.high))
    return f"{value} {bounds(found.low, found.high, digits, scale=scale)}" if known else value


def estimate(found: Interval, unit: str, *, scale: float = 1.0) -> str:
    """Estimate with its bounds as text, "+0.42 EUR per decision [+0.31, +0.53]", times `scale`, with as many digits as
    the width of the interval deserves, "+8,000 EUR a month [-35,000, +55,000]". Without bounds where there are none,
    bounds alone where only they are known, "not known" without either.
    """
    figures = _deserved(found, scale)
    value, low, high = (_rounded(scale * part, figures) for part in (found.value, found.low, found.high))
    shown, digits = Interval(value, low, high, found.n), f"+.{max(figures, 0)}f"
    if not isfinite(found.value) and (isfinite(found.low) or isfinite(found.high)):
        return f"within {bounds(shown.low, shown.high, digits)} {unit}".strip()
    return in_words(shown, digits, unit=unit)


def _deserved(found: Interval, scale: float) -> int:
    """Digits after the point for a value with its bounds, below 0 for tens and thousands: two significant ones of the
    half width, or one where that is nearly as precise.
    """
    centre = found.value if isfinite(found.value) else 0.5 * (found.low + found.high)
    gaps = [abs(end - centre) for end in (found.low, found.high) if isfinite(end - centre)]
    half = abs(scale * (max(gaps, default=0.0) or 0.1 * found.value))
    if not isfinite(half) or half == 0.0:
        return 2
    return min((1 if half / 10.0 ** floor(log10(half)) < _COARSE else 0) - floor(log10(half)), _MOST_PLACES)


def _rounded(value: float, figures: int) -> float:
    """The value to so many digits after the point, to tens or thousands if `figures` is below 0."""
    return round(value, figures) if isfinite(value) else value


def money(amount: float, currency: str, *, sign: bool = False) -> str:
    """An amount of money as text, "0.0042 EUR" or "1,400 EUR", with two significant digits; its `sign` only if asked
    for. "not known" if it is not finite.
    """
    digits = f"{'+' if sign else ''}.{places(amount)}f"
    return f"{number(two_figures(amount), digits)} {currency}".strip() if isfinite(amount) else NOT_KNOWN


def two_figures(value: float) -> float:
    """The value with two significant digits."""
    return value if not isfinite(value) or value == 0.0 else round(value, 1 - floor(log10(abs(value))))


def chance(p: float | None) -> str:
    """A probability in per cent; "below 0.1 %" and "above 99.9 %" where more would be said than is known."""
    if p is None or not isfinite(p):
        return NOT_KNOWN
    if p < _SURE:
        return "below 0.1 %"
    if p > 1.0 - _SURE:
        return "above 99.9 %"
    return f"{number(100.0 * p, '.1f' if p < 0.1 or p > 0.9 else '.0f')} %"


def compared(over: Interval) -> str:
    """Comparison that an interval of a difference allows, as it stands before the name of the other: "Better than",
    "Worse than", "Not distinguishable from", or "Not compared with" where nothing is known.
    """
    if not any(map(isfinite, over[:3])):
        return "Not compared with"
    return "Better than" if over.low > 0 else "Worse than" if over.high < 0 else "Not distinguishable from"


def against(over: Interval | None, other: str, unit: str, *, scale: float = 1.0) -> str:
    """A contrast in words: better than, worse than or not distinguishable from `other`, with value and bounds times
    `scale`, in `unit`. None: the log cannot say.
    """
    if over is None or not any(map(isfinite, over[:3])):
        return f"not compared with {other}: the log cannot say"
    said = f"{compared(over).lower()} {other}, {estimate(over, unit, scale=scale)}"
    return said if isfinite(over.low) or isfinite(over.high) else f"{said}, and how sure that is is not known"


def disagreement(
    net: Interval | None, rewards: Interval | None, currency: str, *, binary: bool, each: str = "each decision"
) -> str:
    """A sentence where rewards and money against no nudge disagree, surely or by their estimates: which of them wins,
    and at what price; "" where they agree or one is not known.

    `net`: currency per decision, or whatever `each` names, net of costs; `rewards`: in their own units, conversions if
    `binary`.
    """
    if net is None or rewards is None or not isfinite(net.value * rewards.value) or net.value * rewards.value >= 0.0:
        return ""
    gained, less = ("more people convert", "fewer people convert") if binary else ("rewards rise", "rewards fall")
    unit = "points" if binary else "units of reward"
    lift = f"{gained if rewards.value > 0.0 else less} ({estimate(rewards, unit, scale=100.0 if binary else 1.0)})"
    sure = net.high < 0.0 or net.low > 0.0
    verb = (
        ("loses" if net.value < 0.0 else "earns") if sure else ("seems to lose" if net.value < 0.0 else "seems to earn")
    )
    rest = "" if net.value < 0.0 else " more"
    figures = max(_deserved(net, 1.0), 0)
    amount = f"{number(abs(net.value), f'.{figures}f')} {currency}".strip()
    return f"{lift}, and {each} {verb} {amount}{rest} net of costs {bounds(net.low, net.high, f'+.{figures}f')}"


def capital(text: str) -> str:
    """A text as it begins a sentence."""
    return f"{text[:1].upper()}{text[1:]}"


def by(name: str) -> str:
    """Who did it, as it stands after a verb: " by key ops" for somebody who was authenticated, ", said to be by ana"
    for a name that nothing proves.
    """
    return f" by {name}" if name.startswith(PROVEN) else f", said to be by {name or 'nobody'}"


def who(name: str) -> str:
    """Who it was, for a table: the name of somebody who was authenticated, "said to be ana" otherwise."""
    return name if name.startswith(PROVEN) else f"said to be {name or 'nobody'}"


def when(time: str) -> str:
    """A time to the second, in UTC: `time` is ISO 8601 with a zone; anything else is given back as it is."""
    try:
        read = dt.datetime.fromisoformat(time)
    except ValueError:
        return time
    zoned = read if read.tzinfo else read.replace(tzinfo=dt.UTC)
    return zoned.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
