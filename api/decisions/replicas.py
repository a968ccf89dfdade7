"""Limits on everyone where several replicas decide: what a decision must still keep to when it is written."""

from collections.abc import Callable, Iterable

from api.decisions.budgets import Budgets
from api.decisions.frequency_caps import GlobalFrequencyCaps
from bandit.records import Decision, Settlement

LimitsOnEveryone = tuple[Budgets, GlobalFrequencyCaps]


class CommittedLimits:
    """Budgets and caps on everyone as the ledger has them: of what is committed, whichever replica decided it.

    `budgets` and `caps` are those that this replica's decisions are made by, which also count what is not written yet;
    nothing is in flight when these limits are made of them. `count` counts both kinds anew from the ledger. Guarantee:
    as long as each decision is asked about by `take` in the transaction that writes it, and what others committed was
    told by `follow` first, no replica passes a limit. Belongs to the thread that writes.
    """

    def __init__(self, budgets: Budgets, caps: GlobalFrequencyCaps, count: Callable[[], LimitsOnEveryone]):
        self._live = budgets, caps
        self._count = count
        self._budgets, self._caps = budgets.copy(), caps.copy()

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

    def caught_up(self) -> Callable[[], None]:
        """Work of the event loop after which it decides under limits that are as strict as these at least."""
        (budgets, caps), (own, counted) = self._live, (self._budgets.copy(), self._caps.copy())

        def work() -> None:
            budgets.at_least(own)
            caps.at_least(counted)

        return work

    def give_back(self, decision: Decision) -> None:
        """Count a decision no more: it was not written."""
        self._budgets.cancel(decision)
        self._caps.add(decision, -1)

    def follow(self, decisions: Iterable[Decision]) -> None:
        """Count decisions that other replicas have committed."""
        for decision in decisions:
            self._live[0].reserve(decision)
            self._budgets.reserve(decision)
            self._caps.add(decision, 1)

    def settled(self, done: Iterable[tuple[Decision, Settlement, Settlement | None]]) -> None:
        """Keep what decisions have cost, and free the rest of their reservations, as `Budgets.settled`."""
        found = list(done)
        self._live[0].settled(found)
        self._budgets.settled(found)
