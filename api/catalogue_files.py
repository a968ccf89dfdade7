"""Catalogue lookup: a shipped catalogue by its name, or a catalogue file by its path. The service, its reload on SIGHUP
and the command line all read catalogues here.
"""

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue
from bandit.tables.texts import decoded

_SHIPPED_IMAGES = Path(str(importlib.resources.files("bandit.catalogue.apps"))) / "images"
_MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_MEDIA |= {".webp": "image/webp", ".avif": "image/avif"}


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


class Image(NamedTuple):
    """Image of a catalogue's folder: its bytes and media type."""

    content: bytes
    media: str


def images(app: str) -> Mapping[str, Image]:
    """Images of the catalogue that `app` names, by file name: those in the folder `images` beside it."""
    folder = Path(app).parent / "images" if app.endswith(".toml") else _SHIPPED_IMAGES
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: Image(path.read_bytes(), _MEDIA[path.suffix]) for path in paths if path.suffix in _MEDIA}
