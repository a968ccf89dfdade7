"""Digest of a declaration, by which decisions and statistics say under which one they were made."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec


def digest_of(value: Any) -> str:
    """First 32 hex digits of SHA-256 over deterministic JSON of `value`, a struct or a tuple of plain values. The same
    value has the same digest in every process and on every machine.
    """
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]


def digest_without(value: msgspec.Struct, left_out: Collection[str], given: Mapping[str, Any]) -> str:
    """Digest of a struct as it was before it had the fields `left_out`, with `given` values in place of its own: so a
    field that is new changes no digest of what does not use it.
    """
    fields = ((f.encode_name, given.get(f.name, getattr(value, f.name))) for f in msgspec.structs.fields(value))
    parts = [
        msgspec.json.encode(name) + b":" + msgspec.json.encode(field, order="deterministic")
        for name, field in fields
        if name not in left_out
    ]
    return hashlib.sha256(b"{" + b",".join(parts) + b"}").hexdigest()[:32]
