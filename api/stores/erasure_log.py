"""Erasure log of a ledger: what is known of persons leaves it, and what left is counted without saying whose it was."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from api.stores.decision_log import DecisionRecord
from api.stores.learning_state import StatisticsUpdate
from api.stores.rest import RestCursor, RestPage
from bandit.records import Decision, Outcome, Settlement


class Erasure(NamedTuple):
    """Erasure that goes on. `number`: a random secret, kept until it ends; `users`: the keyed hashes that it is about,
    kept as long; `at`: when it was asked for (µs); `forget`: whether what was learned of the persons leaves, too.
    """

    number: bytes
    users: frozenset[bytes]
    at: int
    forget: bool

    @property
    def entry(self) -> bytes:
        """What its entries in the log carry: it says nothing of the secret."""
        return _digest(self.number, b"")

    def pseudonym(self, user: bytes) -> bytes:
        """User of the remainders of a user's decisions. Nobody can tell whose they are when the secret is gone."""
        return _digest(self.number, user)


def _digest(secret: bytes, what: bytes) -> bytes:
    return hashlib.blake2b(what, key=secret, digest_size=16).digest()


class ErasureEntry(NamedTuple):
    """What one transaction of an erasure has erased: rows of each kind, and `ids`, keyed hashes that are gone. `first`:
    the lowest number of a decision that was forgotten, 0 for none; `at`: when (µs); `done`: the erasure ended with it.
    """

    seq: int
    number: bytes
    at: int
    forget: bool
    decisions: int
    outcomes: int
    events: int
    ids: int
    first: int
    done: bool


class DecisionTime(NamedTuple):
    """When a decision was made and when its window ends (µs), with its number and the digest of its declaration."""

    seq: int
    spec: str
    at: int
    expires: int


def users_of(erasures: Iterable[Erasure]) -> frozenset[bytes]:
    """The keyed hashes that these erasures are about."""
    return frozenset(user for one in erasures for user in one.users)


def by_user(erasures: Iterable[Erasure]) -> dict[bytes, Erasure]:
    """The erasure of each user; of several about one user, the last."""
    return {user: one for one in erasures for user in one.users}


class ErasedDecision(NamedTuple):
    """What is left of a decision: its remainder with those of its outcomes, in their order, or nothing (None). `record`
    is what the ledger holds.
    """

    record: DecisionRecord
    remainder: Decision | None = None
    outcomes: tuple[Outcome, ...] = ()


class ErasureLog(Protocol):
    """Erasures of one ledger.

    Guarantees. Numbers: rows that are overwritten keep their numbers, so that nothing that counts on them changes; a
    decision of which nothing is left is in no answer of any reading method. Atomicity: each call is one transaction,
    with its row of the log; after a crash, `erasures_under_way` says what is to be gone on with. Bounds: a call writes
    a number of rows that does not grow with the ledger. Threads, durability and errors as `DecisionLog`.
    """

    def begin_erasure(self, erasure: Erasure) -> Erasure:
        """Keep what an erasure is about until it ends. If one that asks for as much goes on for one of the users, that
        one, with all of the users.
        """
        ...

    def erasures_under_way(self) -> list[Erasure]:
        """Erasures that have not ended, in order of their numbers."""
        ...

    def erasable(self, users: Collection[bytes], most: int, before: int | None = None) -> list[DecisionRecord]:
        """Records of the newest decisions of these users, newest first, at most so many; of those numbered below
        `before`.
        """
        ...

    def erase_decisions(
        self,
        erasures: Sequence[Erasure],
        now: int,
        erased: Sequence[ErasedDecision],
        settlements: Sequence[Settlement] = (),
        updates: Sequence[StatisticsUpdate] = (),
    ) -> bool:
        """Overwrite decisions of the erasures' users with what is left of them, their outcomes too, and their
        settlements where nothing is left; none of them is open any more, and no message about them waits to be
        delivered. `settlements` are appended for those that were open and leave a remainder; `updates` replace
        statistics.

        False if only a part of what has to be prepared was done, and nothing erased: call it again with the same.
        """
        ...

    def erase_events(self, erasures: Sequence[Erasure], now: int, most: int) -> bool:
        """Overwrite events of the erasures' users, at most so many, with what they are credited to; returns whether
        some may be left, as when only a part of what has to be prepared was done.
        """
        ...

    def end_erasures(self, erasures: Sequence[Erasure], now: int) -> None:
        """Erase journeys and links of the erasures' users, and forget what they were about."""
        ...

    def erasures(self, after: int = 0, number: bytes | None = None) -> list[ErasureEntry]:
        """Entries of the log numbered above `after`, in order; with `number`, of one erasure (`Erasure.entry`)."""
        ...

    def at_rest(self, after: RestCursor, before: int, most: int, stages: Collection[str]) -> RestPage:
        """Next page of persons of whom nothing was decided and no event received at `before` (µs) or later, at most so
        many, in the order of their decisions and events. It ends with the first row that is not older, and before a
        person of whom a decision at one of the `stages` is to be settled yet. Remainders are passed over.
        """
        ...

    def is_at_rest(self, users: Collection[bytes], before: int) -> bool:
        """Whether nothing was decided for these users, and no event of theirs received, at `before` (µs) or later."""
        ...

    def overwrite_erased(self, first: int, most: int) -> int:
        """Make what was erased leave the bytes of file and log as well: of the file's pages from number `first` on, at
        most so many. Returns the page to go on with, 0 when all is done; `first` if a reader still needs the log.
        """
        ...

    def decision_times(self, stage: str) -> Iterator[DecisionTime]:
        """When decisions of a stage were made, in order, without those of the control group and those at no moment."""
        ...
