"""Records of a person in a ledger: under which ids, and all of them as an export."""

import uuid
from collections.abc import Mapping

import msgspec

from api.decisions.service import receipt_of
from api.messages.people import ExportedEvent, PersonExport
from api.stores.decision_log import DecisionRecord
from api.stores.protocol import Store
from api.times import time_of
from bandit.records import Release

_PAGE = 500  # decisions that are read in one transaction


def ids_of(store: Store, user: bytes) -> frozenset[bytes]:
    """Keyed hashes of all ids that are known to be of the person with this one. Reads the ledger, from any thread."""
    return store.person(user, 0).ids | {user}


def known(store: Store, ids: frozenset[bytes]) -> bool:
    """Whether the ledger holds anything of a person with these ids."""
    person = store.person(min(ids), 0)
    return len(ids) > 1 or person.state is not None or bool(store.erasable(ids, 1) or store.events(ids))


def export(store: Store, user: bytes, now: int) -> PersonExport:
    """All that the ledger holds of the person with this id (keyed hash) at `now` (µs). Reads the ledger, from any
    thread.
    """
    ids, specs = ids_of(store, user), store.specs()
    releases: Mapping[int, Release] = {release.seq: release for release in store.releases()}
    found = _decisions(store, ids)
    made = {one.decision.id for one in found}
    waiting = [one for dead in (False, True) for one in store.webhook_deliveries(dead=dead)]
    return PersonExport(
        app=store.meta().get("app", ""),
        exported_at=time_of(now),
        ids=sorted(one.hex() for one in ids),
        decisions=[
            receipt_of(one, specs[one.decision.stage_digest], releases.get(one.decision.release)) for one in found
        ],
        events=[
            ExportedEvent(
                event_id=event.id,
                event=event.name or None,
                by=event.user.hex(),
                occurred_at=time_of(event.at),
                received_at=time_of(event.received),
                reporter=event.reporter,
                properties=event.properties,
            )
            for event in store.events(ids)
        ],
        waiting=[msgspec.Raw(one.body) for one in waiting if _about(one.event) in made],
    )


def _decisions(store: Store, ids: frozenset[bytes]) -> list[DecisionRecord]:
    """All decisions of a person, in order."""
    found = list[DecisionRecord]()
    while page := store.erasable(ids, _PAGE, found[-1].seq if found else None):
        found += page
    return found[::-1]


def _about(event: str) -> uuid.UUID | None:
    """The decision that a message is about."""
    kind, _, name = event.partition(":")
    return uuid.UUID(name.partition(":")[0]) if kind in ("decision", "reward") else None
