"""HTML of results, for the output of a notebook's cell: headings, sentences and tables. All text is escaped, and there
is no script.
"""

from collections.abc import Iterable, Sequence
from html import escape

_LEFT = ' style="text-align:left"'


def page(parts: Iterable[str]) -> str:
    """The parts, one below the other, without those that are empty."""
    return f"<div>{''.join(filter(None, parts))}</div>"


def heading(text: str) -> str:
    """A heading in bold."""
    return f"<p><strong>{escape(text)}</strong></p>"


def sentence(text: str, label: str = "") -> str:
    """A sentence, "" for none; `label` stands before it in bold."""
    bold = f"<strong>{escape(label)}</strong> " if label else ""
    return f"<p>{bold}{escape(text)}</p>" if text else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """A table with its title above, "" without rows. The first column holds names, on the left."""
    if not rows:
        return ""
    caption = f'<caption style="text-align:left">{escape(title)}</caption>' if title else ""
    top = "".join(f"<th{'' if place else _LEFT}>{escape(cell)}</th>" for place, cell in enumerate(head))
    body = "".join(f"<tr>{''.join(_cell(place, cell) for place, cell in enumerate(row))}</tr>" for row in rows)
    return f"<table>{caption}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def details(summary: str, parts: Iterable[str]) -> str:
    """The parts behind a line that opens them, "" without any; closed at first."""
    text = "".join(filter(None, parts))
    return f"<details><summary>{escape(summary)}</summary>{text}</details>" if text else ""


def _cell(place: int, text: str) -> str:
    return f"<td{'' if place else _LEFT}>{escape(text)}</td>"
