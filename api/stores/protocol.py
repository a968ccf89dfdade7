"""Store: one ledger in eight parts. Each part states what it guarantees; every store passes the suite of each part."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from api.stores.decision_log import DecisionLog
from api.stores.erasure_log import ErasureLog
from api.stores.event_log import EventLog
from api.stores.learning_state import LearningState
from api.stores.operator_log import OperatorLog
from api.stores.release_log import ReleaseLog
from api.stores.replica_log import ReplicaLog
from api.stores.webhook_queue import WebhookQueue


class Store(
    DecisionLog,
    EventLog,
    LearningState,
    WebhookQueue,
    ReleaseLog,
    ErasureLog,
    OperatorLog,
    ReplicaLog,
    Protocol,
):
    """One ledger: decisions, events, learning, webhooks, releases, erasures, actions of operators and replicas, and
    facts about itself.

    One process owns a ledger that it writes to, or several share it (`ReplicaLog`). Only one thread of a process may
    call writing methods; reading methods may be called from any. What a part appends is never changed, but for what an
    erasure overwrites; everything else is derived from it in the same transactions.
    """

    def meta(self) -> dict[str, str]:
        """Facts about the ledger itself: app, currency, salt or its digest."""
        ...

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Add or replace facts, durable."""
        ...

    def atomic(self) -> AbstractContextManager[object]:
        """Context whose writes, of any part, are one durable transaction."""
        ...

    def try_writing(self, work: Callable[[], object]) -> None:
        """Do `work`, which writes, in a transaction that is taken back: raises what the writing would raise, changes
        nothing, and syncs nothing. A store in which writing cannot fail, and nothing can be taken back, does no work.
        """
        ...

    def describe(self) -> dict[str, str]:
        """What health reports: engine, version, settings that matter for durability."""
        ...

    def damages(self) -> Iterator[str]:
        """What is not as it was committed, in words; nothing if all is. Reads the whole ledger, from any thread."""
        ...

    def quick_damages(self, over: Callable[[], bool] = lambda: False) -> list[str]:
        """What cannot be read as a ledger any more, in words. Reads every page, not what the rows say; from any
        thread, also while another writes. Ends early, and finds nothing, once `over` is true.
        """
        ...

    def log_bytes(self) -> int:
        """Bytes that were committed and are not yet where they belong: the write-ahead log. From any thread."""
        ...

    def close(self) -> None:
        """Release files, connections and locks."""
        ...
