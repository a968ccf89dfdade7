"""Tables in Markdown from rows of cells, for the generated references. Needs no Sphinx."""

from collections.abc import Sequence


def row(*cells: str) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown; none without rows."""
    return ["", row(*head), "|" + "---|" * len(head), *(row(*cells) for cells in rows), ""] if rows else []
