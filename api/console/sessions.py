"""Sign-in sessions of the console: a signed token in a cookie says with which key a person signed in, and when.

Nothing is kept in a process, so any replica answers the next request. The token holds no secret: it names the key, and
a mark of the secret that was entered, by which the key is looked up again at each request.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from api.clocks import Clock
from api.http.access import AccessControl
from api.http.keys import ApiKey, Scope

IDLE, LONGEST = 30 * 60, 12 * 3600
"""Seconds without a request, and seconds since the sign-in, after which a session ends."""

NEEDED: Scope = "read"
"""Scope of a key that signs in."""

_LABEL = b"journey-bandit console 1"


class ConsoleSession(msgspec.Struct, frozen=True):
    """Session of a person: name of the key ("": a trial, which needs none), mark of its secret, when it began and was
    last used (µs), and the secret that forms of its pages send along (`csrf`).
    """

    key: str
    mark: str
    began: int
    used: int
    csrf: str

    def sent(self, csrf: str) -> bool:
        """Whether a form that sent this text stood on a page of this session."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


class SignInRefusal(NamedTuple):
    """Refusal of a sign-in: 401 for what is no key, 403 for a key without the scope, and why, in words."""

    status: int
    why: str


class ConsoleSessions:
    """Sessions of one service. `gate` None: a trial, in which everybody has one. `secret` keys the tokens: replicas of
    one ledger have the same. `clock` gives µs since 1970. Any thread may call.
    """

    def __init__(self, gate: AccessControl | None, secret: bytes, clock: Clock):
        self._gate, self._clock = gate, clock
        self._secret = hmac.digest(secret, _LABEL, "sha256")

    @property
    def trial(self) -> bool:
        """Whether no key is needed."""
        return self._gate is None

    @property
    def keys(self) -> Mapping[str, ApiKey]:
        """Keys of the service by name, none in a trial."""
        return {} if self._gate is None else self._gate.keys.by_name

    def sign_in(self, presented: str) -> ConsoleSession | SignInRefusal:
        """Session of who presents this `id.secret`, or why there is none."""
        if self._gate is None:
            return self._begun("", "")
        denial = self._gate.denied(presented, NEEDED)
        if denial is None:
            name, _, secret = presented.partition(".")
            return self._begun(name, self._mark(hashlib.sha256(secret.encode()).hexdigest()))
        if denial.status == 403:
            return SignInRefusal(403, f"This key may not read. The console needs a key with the scope “{NEEDED}”.")
        return SignInRefusal(
            401, f"This is not a key of this service{f': {denial.expired}' if denial.expired else ''}."
        )

    def find(self, token: str) -> ConsoleSession | None:
        """Session that a token is of; None if it is none, has ended, or its key may not read any more. In a trial there
        is always one.
        """
        found = self._read(token)
        if found is not None and self._goes_on(found):
            return found
        return self._begun("", "") if self._gate is None else None

    def token(self, session: ConsoleSession, *, used: bool = True) -> str:
        """Token of a session; `used`: by a person just now, and not by a page that looks for news by itself."""
        now = self._clock() if used else session.used
        body = _text(msgspec.json.encode(msgspec.structs.replace(session, used=now)))
        return f"{body}.{self._signature(body)}"

    def may(self, session: ConsoleSession, scope: Scope) -> bool:
        """Whether the key of a session has this scope now."""
        if self._gate is None:
            return True
        found = self._gate.keys.with_secret(session.key, lambda sha256: self._is(session, sha256), self._clock())
        return found is not None and scope in found.key.scopes

    def _begun(self, key: str, mark: str) -> ConsoleSession:
        now = self._clock()
        return ConsoleSession(key, mark, now, now, secrets.token_urlsafe(18))

    def _goes_on(self, session: ConsoleSession) -> bool:
        now = self._clock()
        if now >= session.used + IDLE * 1_000_000 or now >= session.began + LONGEST * 1_000_000:
            return False
        return self.may(session, NEEDED)

    def _read(self, token: str) -> ConsoleSession | None:
        body, _, signature = token.partition(".")
        if not hmac.compare_digest(self._signature(body).encode(), signature.encode()):
            return None
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=ConsoleSession)
        except (binascii.Error, msgspec.DecodeError):
            return None

    def _signature(self, body: str) -> str:
        return _text(hmac.digest(self._secret, b"token " + body.encode(), "sha256"))

    def _mark(self, sha256: str) -> str:
        return _text(hmac.digest(self._secret, b"secret " + sha256.encode(), "sha256")[:16])

    def _is(self, session: ConsoleSession, sha256: str) -> bool:
        return hmac.compare_digest(session.mark, self._mark(sha256))


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
