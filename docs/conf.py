"""How Sphinx builds this site: pages in Markdown, references made from the code, nothing loaded from elsewhere."""

import importlib.metadata
import os
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

os.environ["COLUMNS"] = "112"  # the usage of commands, as wide as their help

project = "Journey Bandit"
author = "the authors of Journey Bandit"
version = release = importlib.metadata.version("journey-bandit")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "plain_docstrings",
    "http_reference",
    "catalogue_reference",
    "scenario_reference",
    "notebook_pages",
]
exclude_patterns = ["_*", "**/.*"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

intersphinx_mapping = {  # kept as files, so that a build needs no network
    "python": ("https://docs.python.org/3", "_inventories/python.inv"),
    "numpy": ("https://numpy.org/doc/stable", "_inventories/numpy.inv"),
    "scipy": ("https://docs.scipy.org/doc/scipy", "_inventories/scipy.inv"),
}

html_theme = "furo"
html_title = "Journey Bandit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "images/mark.svg"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Sphinx) -> None:
    """Defaults of the command line as a person types them."""
    app.connect("sphinx-click-process-options", _plain_defaults)


def _plain_defaults(_app: Sphinx, _context: Any, lines: list[str]) -> None:
    lines[:] = [re.sub(r"PosixPath\('([^']*)'\)", r"\1", line) for line in lines]
