"""Replicas of a service on one ledger: what the others have committed, and which of them leads."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from api.stores.decision_log import DecisionRecord, LedgerPosition


class LedgerNews(NamedTuple):
    """News of a ledger: what other replicas have committed since this one last looked, in the order of the ledger.

    `through`: position of the ledger with them. `reported`: decisions of which something was reported. `settled`:
    numbers of settlements, each with its decision as it is now. `users`: ids (keyed hashes) of people of whom there is
    anything new, with all ids that are joined with these. `rewritten`: rows were erased or withdrawn, an alarm was
    acknowledged, or commits are gone that had been there (`lost`), so that what is known must be read again; `at` is
    the newest time (µs) of that. `released`: there are new releases. `operated`: there are new
    actions of operators.
    """

    through: LedgerPosition
    decisions: tuple[DecisionRecord, ...]
    reported: tuple[DecisionRecord, ...]
    settled: tuple[tuple[int, DecisionRecord], ...]
    users: frozenset[bytes]
    rewritten: bool
    released: bool
    operated: bool
    at: int = 0
    lost: bool = False


class ReplicaLog(Protocol):
    """The part of a ledger by which replicas of a service know of each other.

    Guarantees: the outermost `atomic` of a shared ledger begins once every other replica has ended its own, and sees
    all that they have committed; so numbers are given in the order of commits, and what a transaction decides on is
    what the ledger holds when it ends. At most one replica leads. Threads: all methods belong to the thread that
    writes, but for `shared`. Errors: Unavailable where the ledger cannot be reached.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes may write to the ledger too."""
        ...

    def news(self) -> LedgerNews | None:
        """What others have committed since the last call, None if nothing; within `atomic`, before it writes."""
        ...

    def has_news(self) -> bool:
        """Whether others have committed anything since the last call of `news`; outside `atomic`."""
        ...

    def leads(self) -> bool:
        """Whether this process leads: it alone settles what matures, and sends webhooks. Nobody leads for longer than
        it is connected; whoever asks first when nobody does leads from then on. A ledger that is not shared is led by
        its owner.
        """
        ...

    def starting(self) -> AbstractContextManager[object]:
        """Context in which no other replica starts."""
        ...


class Unshared:
    """`ReplicaLog` of a ledger that one process owns."""

    @property
    def shared(self) -> bool:
        """As `ReplicaLog.shared`: no."""
        return False

    def news(self) -> LedgerNews | None:
        """As `ReplicaLog.news`: nothing."""
        return None

    def has_news(self) -> bool:
        """As `ReplicaLog.has_news`: no."""
        return False

    def leads(self) -> bool:
        """As `ReplicaLog.leads`: yes."""
        return True

    def starting(self) -> AbstractContextManager[object]:
        """As `ReplicaLog.starting`."""
        return nullcontext()
