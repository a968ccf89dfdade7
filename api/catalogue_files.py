"""Which catalogue is meant: a shipped one by its name, or a file."""

from pathlib import Path

from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue
from bandit.tables.texts import decoded


def read_catalogue(app: str) -> Catalogue:
    """A shipped catalogue by name, or a file's. CatalogueError, NotFound, OSError."""
    return read_file(Path(app)) if app.endswith(".toml") else parse(read_shipped(app), f"{app}.toml")


def read_file(path: Path) -> Catalogue:
    """The catalogue in a file. CatalogueError lists every mistake; OSError if it cannot be read."""
    return parse(decoded(path.read_bytes(), str(path)), str(path))
