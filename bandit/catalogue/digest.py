"""Digest of a declaration, by which decisions and statistics say under which one they were made."""

import hashlib
from typing import Any

import msgspec


def digest_of(value: Any) -> str:
    """First 32 hex digits of SHA-256 over deterministic JSON of `value`, a struct or a tuple of plain values. The same
    value has the same digest in every process and on every machine.
    """
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]
