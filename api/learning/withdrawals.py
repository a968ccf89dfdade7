"""Retraction of what an API key reported, in a ledger whose service is stopped: void it, correct what it taught. And
what was found out about a key that was accused: what is held of it is learned, or not.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from api.learning.learner import Learner
from api.ledger import audit
from api.metrics import Metrics
from api.stores.protocol import Store
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError
from bandit.records import AlarmAcknowledgement, Withdrawal

_ROWS = 500  # outcomes that are voided in one transaction
_STEP = 128  # decisions that are corrected in one
_INTERRUPTED = "an erasure was interrupted: start the service, which finishes it, stop it and try again"


def retract(store: Store, asked: Withdrawal) -> tuple[Withdrawal, int, int]:
    """Void what a key reported, and have the belief lose exactly that. Returns the withdrawal as the ledger keeps it
    (number 0: nothing was left to void), how many outcomes it voided, and how many settled decisions were corrected.

    Called again, it goes on where an earlier process was interrupted. Raises LedgerError and Unavailable; LedgerError
    too while a person's erasure is not finished: some of their decisions have another id already.
    """
    if store.erasures_under_way():
        raise LedgerError(_INTERRUPTED)
    before, last = store.last().outcome, 0
    while True:
        asked, last = store.withdraw(asked, last, _ROWS)
        if not last:
            break
    voided = store.last().outcome - before
    with _learner(store, asked.at) as learner:
        return asked, voided, _corrected(learner, asked.at)


def acknowledge(store: Store, asked: AlarmAcknowledgement) -> tuple[AlarmAcknowledgement, int]:
    """Keep what was found out about an accused key. Returns the acknowledgement as the ledger has it, and how many
    settled decisions were corrected by it. Called again, it goes on where an earlier process was interrupted. Raises as
    `Learner.acknowledge`, and LedgerError while a person's erasure is not finished.
    """
    if store.erasures_under_way():
        raise LedgerError(_INTERRUPTED)
    with _learner(store, asked.at) as learner:
        return learner.acknowledge(asked), _corrected(learner, asked.at)


@contextmanager
def _learner(store: Store, now: int) -> Iterator[Learner]:
    meta = store.meta()
    catalogue = Catalogue(app=meta["app"], currency=meta["currency"], stages=audit.stages(store))
    learner = Learner(store, catalogue, Metrics(), lambda _: None, now=now)
    try:
        yield learner
    finally:
        learner.close()


def _corrected(learner: Learner, now: int) -> int:
    corrected = 0
    while done := learner.step(now, _STEP, corrections_only=True):
        corrected += done
    return corrected
