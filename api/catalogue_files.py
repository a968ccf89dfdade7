"""Catalogue lookup: a shipped catalogue by its name, or a catalogue file by its path, with the images that it names.
The service, its reload on SIGHUP and the command line all read catalogues here.
"""

import importlib.resources
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from bandit.catalogue.decoding import closest
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue
from bandit.errors import CatalogueError, Problem
from bandit.tables.texts import decoded

LARGEST = 200_000
"""Bytes that an image may have."""

_SHIPPED = Path(str(importlib.resources.files("bandit.catalogue.apps"))) / "images"


class ImageKind(NamedTuple):
    """Kind of image: its media type, and what its bytes hold from place `at` on; an empty `mark`: text with an svg
    element.
    """

    media: str
    at: int
    mark: bytes


_JPEG = ImageKind("image/jpeg", 0, b"\xff\xd8\xff")
_KINDS = {
    ".png": ImageKind("image/png", 0, b"\x89PNG\r\n\x1a\n"),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": ImageKind("image/webp", 8, b"WEBP"),
    ".avif": ImageKind("image/avif", 4, b"ftypavi"),
    ".svg": ImageKind("image/svg+xml", 0, b""),
}


class Image(NamedTuple):
    """Image of a catalogue: its bytes and media type."""

    content: bytes
    media: str


def read_catalogue(app: str) -> Catalogue:
    """Catalogue that `app` names: a shipped one ("travel"), or a file if it ends in ".toml". Called when a service
    starts and when it reloads.

    Raises CatalogueError with every mistake in it, NotFound for a name that is not shipped, OSError if a file cannot be
    read.
    """
    return read_file(Path(app)) if app.endswith(".toml") else parse(read_shipped(app), f"{app}.toml")


def read_file(path: Path) -> Catalogue:
    """Catalogue in a TOML file, checked, the images that it names too. Raises CatalogueError with every mistake in it,
    and OSError if the file cannot be read.
    """
    found = parse(decoded(path.read_bytes(), str(path)), str(path))
    mistakes = list(_unusable(found, str(path)))
    if mistakes:
        raise CatalogueError(str(path), mistakes)
    return found


def images(app: str, found: Catalogue) -> Mapping[str, Image]:
    """Images that the catalogue `found`, which `app` names, shows, by the name of their file; the service sends no
    other file. One that is gone since the catalogue was read is left out.
    """
    located = {name: _located(app, name) for _, name in _named(found)}
    return {
        name: Image(path.read_bytes(), _KINDS[path.suffix].media) for name, path in located.items() if path.is_file()
    }


def _located(app: str, name: str) -> Path:
    """Path of an image: in the folder `images` beside the catalogue, else with those that come with the package, so
    that a copy of a shipped catalogue finds them.
    """
    own = Path(app).parent / "images" / name
    return own if app.endswith(".toml") and own.is_file() else _SHIPPED / name


def _named(found: Catalogue) -> Iterator[tuple[str, str]]:
    """Fields that name a file, and the name of each."""
    for stage, declared in found.stages.items():
        for name, nudge in declared.nudges.items():
            image = "" if nudge.content is msgspec.UNSET else nudge.content.image
            if image and not image.startswith("https://"):
                yield f"stages.{stage}.nudges.{name}.content.image", image


def _unusable(found: Catalogue, app: str) -> Iterator[Problem]:
    """Images that are not there, too large, or not what their name says."""
    folder = Path(app).parent / "images"
    for field, name in _named(found):
        path = _located(app, name)
        if not path.is_file():
            there = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
            yield Problem(field, f"no file {name!r} in {folder}", f"put it there; {closest(name, there)}")
            continue
        content, kind = path.read_bytes(), _KINDS[path.suffix]
        if len(content) > LARGEST:
            yield Problem(field, f"{name} has {len(content):,} bytes", f"at most {LARGEST:,}: people wait for it")
        elif not (kind.mark == content[kind.at : kind.at + len(kind.mark)] and (kind.mark or b"<svg" in content)):
            yield Problem(field, f"{name} is no {kind.media}", "give it the ending of what it is")
