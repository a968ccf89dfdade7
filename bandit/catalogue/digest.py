"""The digest of a declaration."""

import hashlib
from typing import Any

import msgspec


def digest_of(value: Any) -> str:
    """The digest."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]
