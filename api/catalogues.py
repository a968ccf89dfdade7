"""Which catalogue is meant: a shipped one by its name, or a file."""

from pathlib import Path

from bandit.catalogue import Catalogue, parse, read_shipped
from bandit.errors import CatalogueError, Problem


def read_catalogue(app: str) -> Catalogue:
    """A shipped catalogue by name, or a file's. CatalogueError, NotFound, OSError."""
    return read_file(Path(app)) if app.endswith(".toml") else parse(read_shipped(app), f"{app}.toml")


def read_file(path: Path) -> Catalogue:
    """The catalogue in a file. CatalogueError lists every mistake; OSError if it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise CatalogueError(str(path), [Problem("(file)", f"not UTF-8: {error}", "save it as UTF-8")]) from None
