"""Key file: changes of a file with API keys that leave what people wrote in it, comments included, as it is."""

import contextlib
import datetime as dt
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import tomlkit

from api.http.keys import read, secret, written
from bandit.catalogue.decoding import closest
from bandit.errors import CatalogueError, NotFound, Problem
from bandit.tables.texts import decoded


def revoke(path: Path, name: str) -> None:
    """Take a key out of the file, with all its secrets. Raises NotFound if there is no such key, CatalogueError if the
    file has mistakes.
    """
    _known(path, name)
    document = _document(path)
    del document["keys"][name]
    _replace(path, document)


def rotate(path: Path, name: str, now: dt.datetime, until: dt.datetime, expires: dt.datetime | None) -> str:
    """Give a key a new secret and return it; the one it had is accepted until `until`. `expires`: when the key does,
    None leaves that as it is. Times are aware datetimes.

    Raises NotFound if there is no such key, CatalogueError if the file has mistakes or for a key that expired: it gets
    no new secret without a new end.
    """
    key = _known(path, name)
    end = expires or key.expires
    if end is not None and end <= now:
        problem = f"expired at {written(end)}: a new secret would not open anything"
        raise CatalogueError(str(path), [Problem(f"keys.{name}.expires", problem, "give --expires too")])
    made, document = secret(), _document(path)
    table = document["keys"][name]
    kept = [(one.sha256, one.expires) for one in key.earlier if one.expires > now]
    if until > now:
        kept.append((key.sha256, until))
    table["sha256"] = made.sha256
    table["created"] = _time(now)
    if expires is not None:
        table["expires"] = _time(expires)
    table.pop("earlier", None)
    if kept:
        table["earlier"] = _earlier(kept)
    _replace(path, document)
    return f"{name}.{made.text}"


def _earlier(kept: list[tuple[str, dt.datetime]]) -> Any:
    """Secrets that were replaced, one a line."""
    array = tomlkit.array()
    for digest, end in kept:
        one = tomlkit.inline_table()
        one.update({"sha256": digest, "expires": _time(end)})
        array.append(one)
    return array.multiline(multiline=True)


def _known(path: Path, name: str) -> Any:
    keys = read(path)
    if name not in keys:
        raise NotFound("name", f"{path} has no key {name!r}", closest(name, keys))
    return keys[name]


def _document(path: Path) -> MutableMapping[str, Any]:
    return tomlkit.parse(decoded(path.read_bytes(), str(path)))


def _time(when: dt.datetime) -> Any:
    return tomlkit.item(when.astimezone(dt.UTC).replace(microsecond=0))


def _replace(path: Path, document: MutableMapping[str, Any]) -> None:
    """Write the whole file or nothing: a service may read it at any moment."""
    path = path.resolve()  # a link stays one
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by its owner alone
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(tomlkit.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
