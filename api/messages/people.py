"""Messages about people's rights: what is known of a person, and what was erased.

Docstrings of these types are texts of the OpenAPI document, which clients read.
"""

import datetime as dt

import msgspec

from api.messages.decisions import Receipt
from bandit.records import Value


class ErasureReply(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure has erased. `found`: there was anything; asking again finds nothing. `forgot`: what was learned
    from the person left as well. `ids`: ids of the person that were joined. `overwritten`: nothing of it is in the
    bytes of the ledger's file and log any more; false while a long reader, such as a backup, keeps the log from being
    emptied.
    """

    found: bool
    forgot: bool
    decisions: int
    outcomes: int
    events: int
    ids: int
    overwritten: bool


class ExportedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Event of a person as the ledger holds it. `event`: the declared name; null for one that the catalogue does not
    declare. `by`: the keyed hash of the id that it came under. `reporter`: name of the API key that sent it first,
    empty if that was not recorded.
    """

    event_id: str
    event: str | None
    by: str
    occurred_at: dt.datetime
    received_at: dt.datetime
    reporter: str
    properties: dict[str, Value | None]


class PersonExport(msgspec.Struct, frozen=True, kw_only=True):
    """All that the ledger holds of a person. `ids`: keyed hashes of the ids that are known to be theirs; the ids
    themselves are not kept. `decisions` are receipts, in order. `waiting`: messages about them that no webhook endpoint
    has taken yet. What was learned from them is in sums with everybody's.
    """

    app: str
    exported_at: dt.datetime
    ids: list[str]
    decisions: list[Receipt]
    events: list[ExportedEvent]
    waiting: list[msgspec.Raw]
