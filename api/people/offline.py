"""Erasure in a ledger whose service is stopped, by the process that opened it."""

import secrets

from api.ledger import audit, erasure, exposures, statistics_store, warm_start
from api.ledger.erasure import LearnedState
from api.messages.people import ErasureReply
from api.people.records import ids_of, known
from api.stores.erasure_log import Erasure
from api.stores.protocol import Store

PAGES = 2048
"""Pages of a file that are overwritten between two commits of a service: 8 MB."""


def erase(store: Store, user: bytes, now: int, *, forget: bool) -> ErasureReply:
    """Erase all that a ledger holds of the person with this id (keyed hash), at `now` (µs), and go on with whatever
    an earlier process did not finish. Raises LedgerError and Unavailable; called again, it goes on.
    """
    ids = ids_of(store, user)
    found = known(store, ids)
    asked = Erasure(secrets.token_bytes(16), ids, now, forget)
    if found:
        asked = store.begin_erasure(asked)
    for one in store.erasures_under_way():
        if not _rows(store, one, now):
            stages = audit.stages(store)
            erasure.replace_warm_starts(store, stages, warm_start.again(store, stages))
            store.end_erasures([one], now)
    return counted(store, asked, found=found, overwritten=_overwrite(store))


def counted(store: Store, asked: Erasure, *, found: bool, overwritten: bool) -> ErasureReply:
    """What the log says of an erasure that has ended."""
    entries = store.erasures(number=asked.entry)
    return ErasureReply(
        found=found,
        forgot=asked.forget,
        decisions=sum(one.decisions for one in entries),
        outcomes=sum(one.outcomes for one in entries),
        events=sum(one.events for one in entries),
        ids=sum(one.ids for one in entries),
        overwritten=overwritten,
    )


def _rows(store: Store, asked: Erasure, now: int) -> bool:
    """Erase all rows; returns whether the erasure has ended with that."""
    stages = audit.stages(store)
    state = LearnedState(statistics_store.load(store, stages), exposures.load(store, stages), store.last().decision)
    while (done := erasure.step(store, (), [asked], state, now)).left:
        statistics, exposed = {**state.statistics, **done.statistics}, {**state.exposed, **done.exposed}
        state = state._replace(statistics=statistics, exposed=exposed)
    return done.ended


def _overwrite(store: Store) -> bool:
    page, before = 1, 0
    while page and page != before:
        page, before = store.overwrite_erased(page, PAGES), page
    return page == 0
