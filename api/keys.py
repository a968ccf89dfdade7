"""API keys: `id.secret`, kept as SHA-256 in a TOML file, with scopes. Secrets are 192 random bits, so no slow hash."""

import hashlib
import hmac
import re
import secrets
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bandit.decoding import decode
from bandit.errors import CatalogueError, Problem
from bandit.texts import decoded

Scope = Literal["decide", "reward", "read", "events", "admin"]
SCOPES: tuple[Scope, ...] = ("decide", "reward", "read", "events")
"""What an app needs. "admin" releases policies and sends webhooks again; a key gets it only when asked for."""
EVERY: tuple[Scope, ...] = (*SCOPES, "admin")


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a key: a digest, what it may do, and the loop it means where a path names none."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: list[Scope]
    loop: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: dict[str, Key] = {}


class Keys:
    """The keys of a service. Without a file nobody gets in."""

    def __init__(self, keys: dict[str, Key]):
        self._keys = keys

    def scopes(self, presented: str) -> list[Scope] | None:
        """What the presented `id.secret` may do; None if it is not a key. Constant time in the secret."""
        kid, _, secret = presented.partition(".")
        key = self._keys.get(kid)
        known = key.sha256 if key else "0" * 64
        same = hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), known)
        return key.scopes if key and same else None

    def loop(self, presented: str) -> str:
        """The loop that a key, which was found good, stands for; "" if none."""
        key = self._keys.get(presented.partition(".")[0])
        return key.loop if key else ""


def load(path: Path) -> Keys:
    """The keys in a file. CatalogueError lists what is wrong with it."""
    mistakes: list[Problem] = []
    try:
        file = decode(tomllib.loads(decoded(path.read_bytes(), str(path))), _File, "", mistakes)
    except (OSError, ValueError) as error:
        fix = "make one with `journey-bandit keys new`"
        raise CatalogueError(str(path), [Problem("(file)", str(error), fix)]) from error
    if mistakes:
        raise CatalogueError(str(path), mistakes)
    return Keys(file.keys)


def create(path: Path, name: str, scopes: list[Scope], loop: str = "") -> str:
    """Append a new key to the file and return it; it cannot be shown again. CatalogueError if the name is taken."""
    if not re.fullmatch(r"[a-z0-9_-]{1,40}", name):
        raise CatalogueError(str(path), [Problem(name, "not a usable name", "lower-case letters, digits, - and _")])
    if path.exists() and name in load(path)._keys:
        raise CatalogueError(str(path), [Problem(f"keys.{name}", "exists", "choose another name, or remove it first")])
    secret = secrets.token_urlsafe(24)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    words = ", ".join(f'"{scope}"' for scope in scopes)
    if loop and not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", loop):
        raise CatalogueError(str(path), [Problem(f"keys.{name}.loop", f"{loop!r} is no stage", "name a stage")])
    more = f'loop = "{loop}"\n' if loop else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(f'\n[keys.{name}]\nsha256 = "{digest}"\nscopes = [{words}]\n{more}')
    path.chmod(0o600)
    return f"{name}.{secret}"
