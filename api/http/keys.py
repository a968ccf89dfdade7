"""API keys: `id.secret`, kept in a TOML file as SHA-256, with scopes. Secrets are 192 random bits, so that no slow hash
is needed.

A key may expire. One that was rotated has a new secret, and keeps the earlier one until a time of its own.
"""

import datetime as dt
import hashlib
import hmac
import re
import secrets
import string
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec

from api import private_files
from api.times import microseconds
from api.traffic import request_limits
from api.traffic.request_limits import RequestQuota
from bandit.catalogue.decoding import Check, decode
from bandit.errors import CatalogueError, Problem
from bandit.tables.texts import decoded

Scope = Literal["decide", "reward", "read", "events", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = ("decide", "reward", "read", "events")
"""What an app needs. "admin" releases policies and sends webhooks again, "metrics" reads /metrics and nothing else; a
key gets these only when asked for.
"""
EVERY: tuple[Scope, ...] = (*SCOPES, "admin", "metrics")


_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Time = Annotated[dt.datetime, msgspec.Meta(tz=True)]
"""A time with its offset, such as 2026-12-31T00:00:00Z."""


class EarlierSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Secret of a key that was replaced by rotation: its SHA-256, and the time until which it is accepted."""

    sha256: Digest
    expires: Time


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """API key as the file keeps it: SHA-256 of its secret, what it may do, and the loop that it means where a path
    names none.

    `expires`: from then on nobody gets in with any of its secrets. `earlier`: secrets that were replaced. `rate`,
    `burst`, `in_flight`: tokens that come back in a second, tokens at once (twice the rate, if that alone is given),
    and requests at the same time; a request costs a token, a batch one for each item.
    """

    sha256: Digest
    scopes: list[Scope]
    loop: str = ""
    created: Time | None = None
    expires: Time | None = None
    earlier: list[EarlierSecret] = []
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    burst: Annotated[float, msgspec.Meta(ge=1)] | None = None
    in_flight: Annotated[int, msgspec.Meta(ge=1)] = request_limits.IN_FLIGHT

    @property
    def quota(self) -> RequestQuota:
        """What the key may ask for."""
        rate = request_limits.RATE if self.rate is None else self.rate
        burst = max(1.0, 2.0 * rate) if self.burst is None else self.burst
        return RequestQuota(rate, burst, self.in_flight)


class PublishableKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Publishable key as the file keeps it: what pages in browsers present. It is no secret; `api.http.browser_access`
    says what it opens.

    `id`: what pages send. `origins`: of pages that may use it. `users`: "signed" if a token must say who the user is,
    "anyone" if ids are so long that nobody guesses another's. `secret`: what your backend signs tokens with; pages
    never see it. `events`: names of events that pages may send; left out, all but those that report an outcome.
    `per_minute`, `in_all`: requests a minute of one user and of all. `in_flight`: requests of all at the same time.
    """

    id: Annotated[str, msgspec.Meta(pattern="^pub_[a-z0-9_-]{1,40}_[A-Za-z0-9]{12,}$")]
    origins: Annotated[list[str], msgspec.Meta(min_length=1)]
    users: Literal["signed", "anyone"] = "signed"
    secret: Annotated[str, msgspec.Meta(min_length=32)]
    events: list[str] | None = None
    per_minute: Annotated[int, msgspec.Meta(ge=1)] = 120
    in_all: Annotated[int, msgspec.Meta(ge=1)] = 60_000
    in_flight: Annotated[int, msgspec.Meta(ge=1)] = 256
    created: Time | None = None
    expires: Time | None = None


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: dict[str, ApiKey] = {}
    publishable: dict[str, PublishableKey] = {}


class PresentedKey(NamedTuple):
    """Key whose secret was presented, and the time at which that secret ends (None: never)."""

    name: str
    key: ApiKey
    expires: dt.datetime | None

    @property
    def quota(self) -> RequestQuota:
        """What the key may ask for."""
        return self.key.quota

    def over(self, now: int) -> bool:
        """Whether the secret's time is over at `now`, µs since 1970."""
        return self.expires is not None and now >= microseconds(self.expires)


class ApiKeys:
    """API keys of a service by name. Without a file there are none, and nobody gets in.

    Immutable: a reload makes another object, which `AccessControl` takes. Secrets are compared in constant time;
    `scopes` and `expired` tell a caller without the secret nothing, not even whether a key exists.
    """

    def __init__(self, keys: dict[str, ApiKey], publishable: Iterable[PublishableKey] = ()):
        self._keys = keys
        self.publishable: Mapping[str, PublishableKey] = {key.id: key for key in publishable}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def by_name(self) -> Mapping[str, ApiKey]:
        """Keys by name; a read-only view, without publishable ones."""
        return MappingProxyType(self._keys)

    def valid(self, presented: str, now: int) -> PresentedKey | None:
        """Key that is presented as `id.secret`; None if it is none at `now`, µs since 1970. Constant time in the
        secret.
        """
        found = self._find(presented)
        return None if found is None or found.over(now) else found

    def scopes(self, presented: str, now: int) -> list[Scope] | None:
        """Scopes of the presented `id.secret` at `now`, µs since 1970; None if it is not a key, or not any more.
        Constant time in the secret.
        """
        found = self.valid(presented, now)
        return None if found is None else found.key.scopes

    def holder(self, presented: str, now: int) -> str:
        """Name of the key that was presented as `id.secret`, "" if it is none at `now`, µs since 1970."""
        found = self.valid(presented, now)
        return "" if found is None else found.name

    def expired(self, presented: str, now: int) -> str:
        """Reason why a key that is one is refused at `now` (µs since 1970), with the time at which it expired; "" for
        anything else. Only who has the secret is told.
        """
        found = self._find(presented)
        if found is None or not found.over(now) or found.expires is None:
            return ""
        when = written(found.expires)
        if found.expires == found.key.expires:
            return f"the key {found.name!r} expired at {when}: ask for a new one (`journey-bandit keys rotate`)"
        return f"this secret of the key {found.name!r} was replaced, and expired at {when}: send the new one"

    def loop(self, presented: str) -> str:
        """Loop that a key stands for, "" if none. Only its name is looked at: callers have found its secret good
        before.
        """
        key = self._keys.get(presented.partition(".")[0])
        return key.loop if key else ""

    def with_secret(self, name: str, is_it: Callable[[str], bool], now: int) -> PresentedKey | None:
        """Key of this name at `now` (µs since 1970), if `is_it` is true of the SHA-256 of one of its secrets: for
        sessions, which were begun with a secret and keep a mark of it. None if the key is gone, or that secret's time
        is over.
        """
        found = self._matching(name, is_it)
        return None if found is None or found.over(now) else found

    def _find(self, presented: str) -> PresentedKey | None:
        """The key with that secret, whether or not its time is over."""
        name, _, secret = presented.partition(".")
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return self._matching(name, lambda sha256: hmac.compare_digest(digest, sha256))

    def _matching(self, name: str, is_it: Callable[[str], bool]) -> PresentedKey | None:
        key = self._keys.get(name)
        same = is_it(key.sha256 if key else "0" * 64)
        if key is None:
            return None
        if same:
            return PresentedKey(name, key, key.expires)
        for earlier in key.earlier:
            if is_it(earlier.sha256):
                return PresentedKey(name, key, min(earlier.expires, key.expires or earlier.expires))
        return None


def read(path: Path) -> dict[str, ApiKey]:
    """Keys in a TOML file by name, for commands that list or rotate them. Raises CatalogueError with every mistake,
    also for a file that cannot be read.
    """
    return dict(_read(path).keys)


def read_publishable(path: Path) -> dict[str, PublishableKey]:
    """Publishable keys in a TOML file by name. Raises as `read` does."""
    return dict(_read(path).publishable)


def _read(path: Path) -> _KeyFile:
    mistakes: list[Problem] = []
    try:
        file: _KeyFile = decode(
            tomllib.loads(decoded(path.read_bytes(), str(path))), _KeyFile, "", mistakes, _check_origins(mistakes)
        )
    except (OSError, ValueError) as error:
        fix = "make one with `journey-bandit keys new`"
        raise CatalogueError(str(path), [Problem("(file)", str(error), fix)]) from error
    if mistakes:
        raise CatalogueError(str(path), mistakes)
    return file


def _check_origins(mistakes: list[Problem]) -> Check:
    """Check of the origins of publishable keys, which adds to `mistakes`."""

    def check(struct: msgspec.Struct, path: str) -> None:
        for i, origin in enumerate(struct.origins if isinstance(struct, PublishableKey) else ()):
            if not _ORIGIN.fullmatch(origin):
                fix = 'scheme and host of your pages, such as "https://shop.example": lower case, no path, no *'
                mistakes.append(Problem(f"{path}.origins[{i}]", f"{origin!r} is no origin", fix))

    return check


def load(path: Path) -> ApiKeys:
    """Keys in a TOML file, ready to answer requests; read when a service starts and when it reloads. Raises
    CatalogueError as `read` does.
    """
    file = _read(path)
    return ApiKeys(dict(file.keys), file.publishable.values())


class NewSecret(NamedTuple):
    """New secret: its text, which is shown once, and the SHA-256 that the file keeps."""

    text: str
    sha256: str


def secret() -> NewSecret:
    """New random secret of 192 bits, with its SHA-256 in hexadecimal."""
    text = secrets.token_urlsafe(24)
    return NewSecret(text, hashlib.sha256(text.encode()).hexdigest())


def create(
    path: Path,
    name: str,
    scopes: list[Scope],
    loop: str = "",
    *,
    created: dt.datetime | None = None,
    expires: dt.datetime | None = None,
    quota: Mapping[str, float | None] | None = None,
) -> str:
    """Append a new key to the file and return it as `id.secret`; it cannot be shown again. For `journey-bandit keys
    new`. The file is made if it is missing, readable by its owner only; times are written in whole seconds. `quota`:
    rate, burst and in_flight, as far as they are given.

    Raises CatalogueError if the name is taken or not usable, the loop is no name of a stage, or the file has mistakes.
    """
    if not re.fullmatch(r"[a-z0-9_-]{1,40}", name):
        raise CatalogueError(str(path), [Problem(name, "not a usable name", "lower-case letters, digits, - and _")])
    if path.exists() and name in read(path):
        raise CatalogueError(str(path), [Problem(f"keys.{name}", "exists", "choose another name, or remove it first")])
    if loop and not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", loop):
        raise CatalogueError(str(path), [Problem(f"keys.{name}.loop", f"{loop!r} is no stage", "name a stage")])
    made, words = secret(), ", ".join(f'"{scope}"' for scope in scopes)
    more = f'loop = "{loop}"\n' if loop else ""
    times = (("created", created), ("expires", expires))
    more += "".join(f"{field} = {written(when)}\n" for field, when in times if when)
    more += "".join(f"{field} = {number:g}\n" for field, number in (quota or {}).items() if number is not None)
    with open(path, "a", encoding="utf-8", opener=private_files.opener) as file:
        file.write(f'\n[keys.{name}]\nsha256 = "{made.sha256}"\nscopes = [{words}]\n{more}')
    path.chmod(0o600)
    return f"{name}.{made.text}"


def create_publishable(
    path: Path, name: str, origins: list[str], users: Literal["signed", "anyone"], created: dt.datetime
) -> PublishableKey:
    """Append a new publishable key to the file and return it. For `journey-bandit keys publish`. The file is made if it
    is missing, readable by its owner only: it holds the secret that signs users.

    Raises CatalogueError if the name is taken or not usable, for what is no origin, or if the file has mistakes.
    """
    if not re.fullmatch(r"[a-z0-9_-]{1,40}", name):
        raise CatalogueError(str(path), [Problem(name, "not a usable name", "lower-case letters, digits, - and _")])
    if path.exists() and name in read_publishable(path):
        fix = "choose another name, or remove it first"
        raise CatalogueError(str(path), [Problem(f"publishable.{name}", "exists", fix)])
    number = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(16))
    made = PublishableKey(
        id=f"pub_{name}_{number}", origins=origins, users=users, secret=secrets.token_urlsafe(32), created=created
    )
    mistakes: list[Problem] = []
    _check_origins(mistakes)(made, f"publishable.{name}")
    if mistakes:
        raise CatalogueError(str(path), mistakes)
    listed = ", ".join(f'"{origin}"' for origin in origins)
    with open(path, "a", encoding="utf-8", opener=private_files.opener) as file:
        file.write(
            f'\n[publishable.{name}]\nid = "{made.id}"\norigins = [{listed}]\nusers = "{users}"\n'
            f'secret = "{made.secret}"\ncreated = {written(created)}\n'
        )
    path.chmod(0o600)
    return made


def written(when: dt.datetime) -> str:
    """Time as TOML and people write it: UTC, whole seconds, with a Z."""
    return f"{when.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
