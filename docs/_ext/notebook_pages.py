"""Notebooks as pages: a .ipynb of docs/notebooks with its outputs as they were saved, made Markdown and parsed as
that. Nothing is run.
"""

import html
import json
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


class NotebookParser(MystParser):
    """Parser of notebooks: cells become Markdown, which MyST parses."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse the JSON of a notebook into the document."""
        super().parse(markdown(json.loads(inputstring)), document)


def markdown(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown: its texts as they are, its code as blocks, each output below its cell."""
    parts = list[str]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        text = html.escape("".join(data.get("text/plain", "figure")))
        return _raw(f'<img class="output" alt="{text}" src="data:image/png;base64,{data["image/png"]}">')
    if "text/html" in data:
        return _raw(f'<div class="output">{"".join(data["text/html"])}</div>')
    return f"```text\n{''.join(data.get('text/plain') or output['text']).rstrip()}\n```"


def _raw(text: str) -> str:
    return f"````{{raw}} html\n{text}\n````"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the suffix and its parser."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}
