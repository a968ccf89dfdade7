"""Retraction of what an API key reported, in a ledger whose service is stopped: void it, correct what it taught."""

from api.learning.learner import Learner
from api.ledger import audit
from api.metrics import Metrics
from api.stores.protocol import Store
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError
from bandit.records import Withdrawal

_ROWS = 500  # outcomes that are voided in one transaction
_STEP = 128  # decisions that are corrected in one


def retract(store: Store, asked: Withdrawal) -> tuple[Withdrawal, int, int]:
    """Void what a key reported, and have the belief lose exactly that. Returns the withdrawal as the ledger keeps it
    (number 0: nothing was left to void), how many outcomes it voided, and how many settled decisions were corrected.

    Called again, it goes on where an earlier process was interrupted. Raises LedgerError and Unavailable; LedgerError
    too while a person's erasure is not finished: some of their decisions have another id already.
    """
    if store.erasures_under_way():
        raise LedgerError("an erasure was interrupted: start the service, which finishes it, stop it and try again")
    before, last = store.last().outcome, 0
    while True:
        asked, last = store.withdraw(asked, last, _ROWS)
        if not last:
            break
    meta, voided = store.meta(), store.last().outcome - before
    catalogue = Catalogue(app=meta["app"], currency=meta["currency"], stages=audit.stages(store))
    learner, corrected = Learner(store, catalogue, Metrics(), lambda _: None, now=asked.at), 0
    try:
        while done := learner.step(asked.at, _STEP, corrections_only=True):
            corrected += done
    finally:
        learner.close()
    return asked, voided, corrected
