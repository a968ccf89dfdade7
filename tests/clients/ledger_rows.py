"""What a ledger holds of the calls of a client: for tests that compare it with what the client was answered."""

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import NamedTuple


class LedgerRows(NamedTuple):
    """The nudge of each decision by its id, and the decisions of all rewards and the ids of all events, both sorted."""

    decisions: dict[uuid.UUID, str]
    rewarded: list[uuid.UUID]
    events: list[str]


def read(ledger: Path) -> LedgerRows:
    """Rows of a ledger in a SQLite file that no service writes to."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as conn:
        decisions = {uuid.UUID(bytes=i): arm for i, arm in conn.execute("SELECT id, arm FROM decisions")}
        rewards = [uuid.UUID(bytes=i) for (i,) in conn.execute("SELECT decision FROM outcomes WHERE kind = 'reward'")]
        events = [event for (event,) in conn.execute("SELECT id FROM events")]
    return LedgerRows(decisions, sorted(rewards), sorted(events))
