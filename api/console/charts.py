"""Geometry of the console's charts, which templates draw as SVG: no number is computed in a template."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

WIDTH, HEIGHT = 720.0, 160.0
"""Size of the chart of shares, in units of its own."""

LINE = 1000.0
"""Length of the line of propensities, in units of its own."""

COLOURS = 8
"""Colours that the style sheet has for arms; the next arm begins again with the first."""

_DAYS = 60  # at most, the newest
_GAP = 0.15  # of a day's width


class ChartBox(NamedTuple):
    """Rectangle of a chart: of an arm, with its share; `colour` numbers the style sheet's classes."""

    arm: str
    colour: int
    x: float
    y: float
    width: float
    height: float
    share: float


class ChartDay(NamedTuple):
    """Day of the chart of shares, with its decisions."""

    day: str
    decisions: int
    boxes: list[ChartBox]

    def share(self, arm: str) -> float | None:
        """Share of an arm on this day; None if it was not drawn."""
        return next((box.share for box in self.boxes if box.arm == arm), None)


class PropensityLine(NamedTuple):
    """Line of an arm's cumulative propensities, and where on it u was drawn."""

    boxes: list[ChartBox]
    at: float


def colours(arms: Iterable[str]) -> dict[str, int]:
    """Colour of each arm, in order."""
    return {arm: i % COLOURS for i, arm in enumerate(arms)}


def shares(days: Mapping[int, Counter[str]], arms: Sequence[str]) -> list[ChartDay]:
    """Chart of the share of each arm by day, the newest on the right: days without decisions are empty."""
    known = [day for day in days if sum(days[day].values())]
    if not known:
        return []
    first = max(min(known), max(known) - _DAYS + 1)
    span, names = max(known) - first + 1, [*arms, *sorted({a for day in known for a in days[day]} - {*arms})]
    number, step, found = colours(names), WIDTH / max(span, 7), list[ChartDay]()
    for place in range(span):
        drawn = days.get(first + place, Counter[str]())
        total, boxes, top = sum(drawn.values()), list[ChartBox](), HEIGHT
        for arm in names:
            if drawn[arm]:
                share = drawn[arm] / total
                top -= share * HEIGHT
                box = (round((place + _GAP / 2) * step, 2), round(top, 2), round(step * (1 - _GAP), 2))
                boxes.append(ChartBox(arm, number[arm], *box, round(share * HEIGHT, 2), share))
        day = dt.date(1970, 1, 1) + dt.timedelta(days=first + place)
        found.append(ChartDay(day.isoformat(), total, boxes))
    return found


def line(arms: Sequence[str], propensity: Sequence[float], u: float) -> PropensityLine:
    """Line of propensities, arms in the order in which they are drawn, and the place of u."""
    ends = list(accumulate(propensity))
    number, total = colours(arms), ends[-1] if ends else 1.0
    boxes = [
        ChartBox(arm, number[arm], LINE * (end - p) / total, 0.0, LINE * p / total, 1.0, p)
        for arm, p, end in zip(arms, propensity, ends, strict=True)
        if p > 0.0
    ]
    return PropensityLine(boxes, LINE * u)
