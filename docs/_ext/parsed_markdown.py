"""Markdown as nodes of docutils, for the generated references."""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """Markdown as nodes, in the page of the directive."""
    source = directive.get_source_info()[0]
    return directive.parse_text_to_nodes(StringList(text.splitlines(), source), allow_section_headings=True)
