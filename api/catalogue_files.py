"""Catalogue lookup: a shipped catalogue by its name, or a catalogue file by its path. The service, its reload on SIGHUP
and the command line all read catalogues here.
"""

from pathlib import Path

from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue
from bandit.tables.texts import decoded


def read_catalogue(app: str) -> Catalogue:
    """Catalogue that `app` names: a shipped one ("travel"), or a file if it ends in ".toml". Called when a service
    starts and when it reloads.

    Raises CatalogueError with every mistake in it, NotFound for a name that is not shipped, OSError if a file cannot be
    read.
    """
    return read_file(Path(app)) if app.endswith(".toml") else parse(read_shipped(app), f"{app}.toml")


def read_file(path: Path) -> Catalogue:
    """Catalogue in a TOML file, checked. Raises CatalogueError with every mistake in it, and OSError if the file cannot
    be read.
    """
    return parse(decoded(path.read_bytes(), str(path)), str(path))
