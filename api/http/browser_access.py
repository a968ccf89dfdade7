"""Access of pages in browsers: a publishable key, the origin it is declared for, a token that says who the user is, and
so many requests a minute.

A publishable key stands in the source of a page, so it is no secret and opens little: decisions, events and activations
of one user. The app's backend signs who the user is, as a JSON Web Token (HS256, RFC 7519) with the claims sub (the
user id), aud (the key's id) and exp; any JWT library makes one. An origin is what the browser says, so it keeps other
sites' pages out, not programs: those are kept out by the token and the rates.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import jwt
import msgspec
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException

from api.clocks import Clock
from api.http.access import AccessControl
from api.http.keys import PublishableKey
from api.messages.decisions import EvidenceIn
from api.metrics import Metrics
from api.times import microseconds
from api.traffic.refusals import LimitReached
from api.traffic.token_buckets import TokenBuckets
from bandit.errors import InvalidRequest, Problem

LONGEST_TOKEN = 24 * 3600
"""Seconds to come that a token may end in at most: one that was stolen is of use for no longer."""

IN_FLIGHT_OF_USER = 16
"""Requests of one user of a page that are answered at the same time."""

Reason = Literal["key", "origin", "token", "user", "event", "rate"]

_LISTED = {
    "token": "sub (the user id), aud (the key's id) and exp",
    "evidence": "sub (the user id), aud (the key's id), exp, iat and evidence",
}


def signed(key: PublishableKey, user_id: str, ends: int, **more: Any) -> str:
    """Token that says who a user is until `ends`, seconds since 1970: what an app's backend makes with a library of its
    own. With `iat` and `evidence`, one that says what is left or when an offer ends. For trials and tests.
    """
    return jwt.encode({"sub": user_id, "aud": key.id, "exp": ends, **more}, key.secret, algorithm="HS256")


class BrowserAccess:
    """Access control of the routes for pages. `gate` holds the keys; None: a trial without keys, where any page may act
    for any user and say anything. Belongs to one event loop; rates are of this process and begin anew with it.
    """

    def __init__(self, gate: AccessControl | None, clock: Clock, metrics: Metrics):
        self._gate, self._clock, self._metrics = gate, clock, metrics
        self._buckets = TokenBuckets()
        self._flying = Counter[tuple[str, str]]()

    def allowed(self, key: str, origin: str) -> bool:
        """Whether pages of an origin may read what this key is answered."""
        if self._gate is None:
            return bool(origin)
        known = self._gate.keys.publishable.get(key)
        return known is not None and origin in known.origins

    def admit(self, key: str, origin: str, token: str, user_id: str) -> PublishableKey | None:
        """The key by which a page of this origin may act for the user; None in a trial without keys.

        Raises NotAuthorizedException (401) for no key and a token that cannot be used, PermissionDeniedException (403)
        for another origin or another user, LimitReached (429).
        """
        if self._gate is None:
            return None
        now = self._clock()
        known = self._gate.keys.publishable.get(key)
        if known is None or (known.expires is not None and now >= microseconds(known.expires)):
            self._count("key")
            raise NotAuthorizedException("key is no publishable key: make one with `journey-bandit keys publish`")
        if origin not in known.origins:
            self._count("origin")
            raise PermissionDeniedException("this key may not be used by pages of this origin: add it to its origins")
        if known.users == "signed" or token:
            self._check_user(known, token, user_id)
        self._take(known, user_id, now)
        return known

    @contextmanager
    def answering(self, key: PublishableKey | None, user_id: str) -> Iterator[None]:
        """Context in which a request that was admitted is answered. Raises LimitReached (429) if the user, or all users
        of the key, wait for as many answers as they may.
        """
        if key is None:
            yield
            return
        most = {(key.id, user_id): IN_FLIGHT_OF_USER, (key.id, ""): key.in_flight}
        for (_, who), number in most.items():
            if self._flying[key.id, who] >= number:
                raise self._too_many(who, number, "requests at the same time (in_flight)", 1.0)
        self._flying.update(most.keys())
        try:
            yield
        finally:
            self._flying.subtract(most.keys())
            for one in most:
                if not self._flying[one]:
                    del self._flying[one]

    def evidence(self, key: PublishableKey | None, token: str, user_id: str) -> EvidenceIn:
        """Evidence that an app's backend signed for this user: the claims aud, sub, exp, iat and evidence. Without an
        `as_of` of its own it was looked up when it was signed.

        Raises NotAuthorizedException (401) for a token that cannot be used, PermissionDeniedException (403) for one of
        another user, InvalidRequest for evidence that cannot be read.
        """
        if not token:
            return EvidenceIn()
        claims = self._claims(key, token, ("sub", "exp", "aud", "iat", "evidence"), "evidence")
        if claims["sub"] != user_id:
            raise self.refuse("user", "evidence was signed for another user than user_id")
        try:
            signed_at = dt.datetime.fromtimestamp(float(claims["iat"]), dt.UTC)
            found = msgspec.convert(claims["evidence"], EvidenceIn)
        except (msgspec.ValidationError, TypeError, ValueError, OverflowError, OSError) as error:
            fix = 'sign {"stock": 3} or {"deadline": "2026-12-31T18:00:00Z"}, and iat in seconds since 1970'
            raise InvalidRequest(Problem("evidence", f"cannot be read: {error}", fix)) from None
        return found if found.as_of else msgspec.structs.replace(found, as_of=signed_at)

    def refuse(self, reason: Reason, why: str) -> PermissionDeniedException:
        """The refusal (403) of something that this key does not open, counted; for the routes."""
        self._count(reason)
        return PermissionDeniedException(why)

    def _check_user(self, known: PublishableKey, token: str, user_id: str) -> None:
        if self._claims(known, token, ("sub", "exp", "aud"), "token")["sub"] != user_id:
            raise self.refuse("user", "token is of another user than user_id")

    def _claims(self, key: PublishableKey | None, token: str, names: Sequence[str], field: str) -> dict[str, Any]:
        """Claims of a token that the backend signed and that has not ended; in a trial without keys, of any token."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.secret if key else "",
                algorithms=["HS256"],
                audience=key.id if key else None,
                options={
                    "require": [name for name in names if key or name not in ("aud", "exp")],
                    "verify_signature": key is not None,
                    "verify_aud": key is not None,
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            ends = float(claims["exp"]) if key else None
        except (jwt.InvalidTokenError, TypeError, ValueError, OverflowError):
            self._count("token")
            signs = {"token": "who the user is", "evidence": "what is left, or when an offer ends"}[field]
            fix = f"sign one with HS256 and the key's secret, with {_LISTED[field]}"
            raise NotAuthorizedException(f"{field} does not say {signs}: {fix}") from None
        now = self._clock()
        if ends is not None and not now < ends * 1e6 <= now + LONGEST_TOKEN * 1e6:
            self._count("token")
            what = "is over" if now >= ends * 1e6 else "ends in more than a day"
            raise NotAuthorizedException(f"{field} {what}: ask your backend for a new one, which ends within a day")
        return claims

    def _take(self, known: PublishableKey, user_id: str, now: int) -> None:
        for who, rate, name in ((user_id, known.per_minute, "per_minute"), ("", known.in_all, "in_all")):
            wait = self._buckets.take((known.id, who), rate / 60.0, float(rate), now / 1e6).wait
            if wait:
                raise self._too_many(who, rate, f"requests a minute ({name})", wait)

    def _too_many(self, who: str, number: int, of: str, wait: float) -> LimitReached:
        self._count("rate")
        whose = "a user" if who else "all users of this key"
        return LimitReached(429, f"{whose} may send {number} {of}", "wait as long as Retry-After says", wait)

    def _count(self, reason: Reason) -> None:
        self._metrics.browser_refused.labels(reason).inc()
