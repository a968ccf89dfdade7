"""Text of answers to an assistant: short, one sentence first, then a small table. What others wrote is quoted as JSON,
so that a reader can tell it from the words of this server.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.inference.intervals import Interval
from experiments.inference.wording import estimate

MOST_ROWS = 12
_LONGEST = 200  # characters of a quoted text


def quoted(value: object) -> str:
    """A value as JSON for a table: text in double quotes, cut at 200 characters. Characters that cannot be seen
    (controls, marks of direction, zero widths, tags) and bars are written as \\uXXXX.
    """
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{quoted(value[:_LONGEST])} (cut: {len(value):,} characters)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(_escaped(char) if char == "|" or not char.isprintable() else char for char in text)


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1] if char != "|" else "\\u007c"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown of at most 12 rows; how many more there are is said below it. "" without rows."""
    every = list(rows)
    if not every:
        return ""
    lines = [head, ["---"] * len(head), *every[:MOST_ROWS]]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    left = len(every) - MOST_ROWS
    return f"{text}\n{left} more are left out." if left > 0 else text


def answer(*parts: str) -> str:
    """The parts that are not empty, an empty line between them."""
    return "\n\n".join(part for part in parts if part)


def by_holdout(policy: dict[str, Any], currency: str) -> str:
    """What nudges bring a person against no nudge at a stage, by its holdout, with the interval; of a stage as
    `/v1/policies` describes it.
    """
    audit, stage = policy["holdout"], quoted(policy["stage"])
    if audit is None:
        return f"{stage}: not known, nobody is in a holdout"
    if audit["low"] is None or audit["high"] is None:
        return f"{stage}: not known, too few people ({audit['people']:,} with nudges, {audit['holdout']:,} without)"
    over = Interval(audit["difference"], audit["low"], audit["high"], audit["people"])
    return f"{stage}: {estimate(over, f'{currency} per person')}"


def money_first(policies: Sequence[dict[str, Any]], currency: str) -> str:
    """The sentence that an answer about stages begins with: money against no nudge, with its interval."""
    said = "; ".join(by_holdout(one, currency) for one in policies)
    look = (
        "The 95 % interval is for one look, fixed beforehand: before anything is done, ask `monitor`, whose bounds hold"
    )
    return f"Money against no nudge, by the holdout: {said}. {look} at every look."
