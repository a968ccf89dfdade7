"""Ids of decisions are the same for ever: ledgers hold them, and clients ask again."""

import uuid

from api.decisions.ids import keyed_id

SALT = b"salt"


def test_ids_are_those_that_ledgers_hold() -> None:
    """Values of the version that first wrote them."""
    assert keyed_id(b'["home","e-1",null]', SALT, b"event") == uuid.UUID("4a4264c8-da30-8d00-bdfe-b5862b226d57")
    assert keyed_id(b"body", SALT, b"flag3", at=1_760_000_000_000_000) == uuid.UUID(
        "0199c82c-c000-80be-9691-4834798c635e"
    )


def test_ids_with_a_time_are_in_its_order_and_all_are_of_version_8() -> None:
    ids = [keyed_id(b"body", SALT, b"flag0", at=at) for at in range(-1000, 10_000_000, 999_983)]
    assert ids == sorted(ids)
    assert {one.version for one in (*ids, keyed_id(b"body", SALT, b"event"))} == {8}
    assert len({keyed_id(b"body", salt, name) for salt in (b"a", b"b") for name in (b"x", b"y")}) == 4
