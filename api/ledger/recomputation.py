"""Recomputation of a recorded decision: what receipts, the HTTP route and the audit of a ledger say about it."""

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple

from api.ledger import audit
from api.stores.decision_log import DecisionRecord
from api.stores.protocol import Store
from bandit.errors import NotFound
from bandit.numerics.versions import SAME_BITS
from bandit.receipt import EARLIER

Verdict = Literal["equal", "different", "forgotten", "impossible"]


class Recomputation(NamedTuple):
    """Result of recomputing a recorded decision from the ledger. `differences`: names of the parts that were not
    confirmed. `said`: the result in words.

    `verdict` is "equal" if all parts are confirmed; "different" if a part is not; "forgotten" if what was learned from
    people who are forgotten since is missing, and all that does not depend on it is confirmed; "impossible" if the
    ledger does not hold what the decision was computed from.
    """

    verdict: Verdict
    differences: tuple[str, ...]
    said: str


class Recomputer:
    """Recomputations for one service: one at a time, in a thread of its own, so that however many are asked for nobody
    else waits for a thread. `salt` is the key that `audit.salt_of` returns. Belongs to one event loop; the thread ends
    with this object.
    """

    def __init__(self, store: Store, salt: bytes):
        self._store, self._salt = store, salt
        self._thread = ThreadPoolExecutor(1, "recomputation")

    async def recompute(self, decision_id: uuid.UUID) -> Recomputation:
        """Recomputation of a decision, by its id. Raises NotFound, and as `recompute` does."""
        work = partial(_by_id, self._store, decision_id, self._salt)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _by_id(store: Store, decision_id: uuid.UUID, salt: bytes) -> Recomputation:
    found = store.decisions_by_id([decision_id]).get(decision_id)
    if found is None:
        raise NotFound("decision_id", f"no decision {decision_id}", "use the id of an answered decision")
    return recompute(store, found, salt)


def recompute(store: Store, found: DecisionRecord, salt: bytes) -> Recomputation:
    """Recomputation of a decision that the ledger holds. `salt` is the key that `audit.salt_of` returns. Reads only,
    from any thread, also while a service writes; takes time in proportion to what its stage had learned.

    Raises SnapshotError if the release that decided cannot be read.
    """
    decision = found.decision
    if decision.is_remainder:
        return Recomputation("impossible", (), "not possible: its person was erased, and this is what is left")
    different = tuple(audit.differences(store, found, salt))
    if not different:
        return Recomputation("equal", (), _equal(audit.arithmetic_of(store, found.seq)))
    specs = store.specs()
    if audit.rests_on_a_guess(decision, specs[decision.stage_digest]):
        why = "an earlier version weighed open decisions by a guess of how late answers come, not in the ledger"
        return Recomputation("impossible", different, f"not possible: {why}; without it {', '.join(different)} differ")
    if audit.rests_on_forgotten(store, found) and audit.drawn_as_recorded(decision, specs, different):
        said = "u and the draw equal; what it had learned from people who are forgotten is gone"
        return Recomputation("forgotten", different, said)
    return Recomputation("different", different, f"DIFFERENT in {', '.join(different)}")


def _equal(arithmetic: int) -> str:
    if arithmetic < SAME_BITS:
        return f"u and the arm equal; propensities, means and sds to {EARLIER:g}: recorded in an earlier arithmetic"
    return "equal, bit for bit"
