"""Release log of a ledger: approved snapshots that a stage serves, append-only."""

from typing import Protocol

from bandit.records import Release


class ReleaseLog(Protocol):
    """Releases of one ledger, append-only, with the bytes of their snapshots.

    Guarantees. Order: numbered without gaps from 1; the last release of a stage is what it serves. Durability, threads
    and errors as `DecisionLog`.
    """

    def publish(self, release: Release) -> Release:
        """The release as it is kept, with its number; durable."""
        ...

    def releases(self, stage: str | None = None) -> list[Release]:
        """Every release of a stage, or of all, in order."""
        ...
