"""The catalogue reference: every table a catalogue may hold, from the types that decode it."""

import inspect
from typing import Any

import msgspec
from catalogue_fields import anchor, paragraphs, reachable, rows
from docutils import nodes
from markdown_tables import table
from parsed_markdown import parsed
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bandit.catalogue.model import Catalogue


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive `catalogue-reference`."""
    app.add_directive("catalogue-reference", CatalogueReference)
    return {"parallel_read_safe": True}


class CatalogueReference(SphinxDirective):
    """One section for each type, in the order in which a reader meets them."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        lines = list[str]()
        for struct in reachable(Catalogue):
            self.env.note_dependency(inspect.getsourcefile(struct) or "")
            lines += section(struct)
        return parsed(self, "\n".join(lines))


def section(struct: type[msgspec.Struct]) -> list[str]:
    """A type as lines of Markdown."""
    config = struct.__struct_config__
    lines = [f"({anchor(struct)})=", f"## {struct.__name__}", "", *paragraphs(struct), ""]
    if config.tag is not None:
        lines += [f'Chosen by `{config.tag_field} = "{config.tag}"`.', ""]
    return [*lines, *table(("field", "type", "default", "constraints"), rows(struct))]
