"""Keyed ids of decisions: the same question gets the same id, after a restart too, and the id tells nothing of it."""

import hashlib
import uuid


def keyed_id(content: bytes, salt: bytes, purpose: bytes, *, at: int | None = None) -> uuid.UUID:
    """Id of a decision, a UUID of version 8 (RFC 9562): a hash of `content` under the ledger's salt.

    `purpose`, at most 16 bytes, keeps ids of different questions apart. With `at` (µs since 1970) the first 48 bits are
    its milliseconds, so that ids are ordered by time, which is cheap to store; without it all bits are of the hash.
    """
    size = 16 if at is None else 10
    value = int.from_bytes(hashlib.blake2b(content, digest_size=size, key=salt, person=purpose).digest(), "big")
    if at is not None:
        value |= max(at, 0) // 1000 << 80
    value = value & ~(0xF << 76) | 8 << 76
    return uuid.UUID(int=value & ~(0b11 << 62) | 0b10 << 62)
