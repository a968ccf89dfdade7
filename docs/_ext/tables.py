"""Tables of docutils from rows of cells in Markdown, for the generated references."""

from collections.abc import Sequence

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """Markdown as nodes, in the page of the directive."""
    source = directive.get_source_info()[0]
    return directive.parse_text_to_nodes(StringList(text.splitlines(), source), allow_section_headings=True)


def row(*cells: str) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown; none without rows."""
    return ["", row(*head), "|" + "---|" * len(head), *(row(*cells) for cells in rows), ""] if rows else []
