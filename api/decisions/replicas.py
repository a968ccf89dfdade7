"""Limits on everyone where several replicas decide: what a decision must still keep to when it is written."""

from collections.abc import Callable, Iterable

from api.decisions.budgets import Budgets
from api.decisions.frequency_caps import GlobalFrequencyCaps
from bandit.records import Decision, Settlement

LimitsOnEveryone = tuple[Budgets, GlobalFrequencyCaps]


class CommittedLimits:
    """Budgets and caps on everyone as the ledger has them: of what is committed, whichever replica decided it.

    `live` are the budgets that this replica's decisions are made by, which also count what is not written yet; `count`
    counts both kinds of limits anew from the ledger. Guarantee: as long as each decision is asked about by `take` in
    the transaction that writes it, and what others committed was told by `follow` first, no replica passes a limit.
    Belongs to the thread that writes.
    """

    def __init__(self, live: Budgets, count: Callable[[], LimitsOnEveryone]):
        self._live, self._count = live, count
        self._budgets, self._caps = count()

    def load(self) -> None:
        """Count anew from the ledger: what was written is not known. Called within a transaction."""
        self._budgets, self._caps = self._count()

    def take(self, decision: Decision) -> bool:
        """Whether the limits allow a decision; if so, it is counted."""
        if not (self._budgets.allows(decision) and self._caps.allows(decision)):
            return False
        self._budgets.reserve(decision)
        self._caps.add(decision, 1)
        return True

    def give_back(self, decision: Decision) -> None:
        """Count a decision no more: it was not written."""
        self._budgets.cancel(decision)
        self._caps.add(decision, -1)

    def follow(self, decisions: Iterable[Decision]) -> None:
        """Count decisions that other replicas have committed."""
        for decision in decisions:
            self._live.reserve(decision)
            self._budgets.reserve(decision)
            self._caps.add(decision, 1)

    def settled(self, done: Iterable[tuple[Decision, Settlement, Settlement | None]]) -> None:
        """Keep what decisions have cost, and free the rest of their reservations, as `Budgets.settled`."""
        found = list(done)
        self._live.settled(found)
        self._budgets.settled(found)
