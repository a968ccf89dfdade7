"""The live accounts of budgets. Derived from the ledger when the service starts; one process owns the ledger.

Decisions reserve in the event loop, settlements free in the writer thread: a lock keeps both whole. A write that is not
known to be durable keeps its reservation, so a failing disk can make a budget last longer, never shorter.
"""

import threading
from collections.abc import Iterable, Mapping

from api.stores.protocol import Store
from bandit import budgets
from bandit.budgets import BudgetAccount
from bandit.catalogue.model import Catalogue, Stage
from bandit.records import Decision, Settlement


class Budgets:
    """Accounts by (stage, nudge)."""

    def __init__(self, catalogue: Catalogue, store: Store, now: int, scale: float = 1.0):
        self._stages = catalogue.stages
        self._specs = store.specs()
        self._lock = threading.Lock()
        self._accounts: dict[tuple[str, str], BudgetAccount] = {}
        for name, stage in catalogue.stages.items():
            accounts = budgets.opened(stage, scale)
            self._accounts |= {(name, nudge): account.at(now) for nudge, account in accounts.items()}
            if accounts:
                first = min(now - now % account.period for account in accounts.values())
                for found in store.decisions(name, since=first):
                    self.reserve(found.decision)
                    if found.settlement:
                        self.settled([(found.decision, found.settlement)])

    def refused(self, stage: str, now: int) -> dict[str, str]:
        """The stage's nudges whose budget does not allow them now, with the reason."""
        with self._lock:
            reasons = {
                nudge: account.at(now).refuses(
                    budgets.most(self._stages[stage], self._stages[stage].nudges[nudge]), now
                )
                for (name, nudge), account in self._accounts.items()
                if name == stage
            }
        return {nudge: reason for nudge, reason in reasons.items() if reason}

    def reserve(self, decision: Decision) -> None:
        """Commit the most that the decision can cost."""
        self._add(decision, self._most(decision))

    def cancel(self, decision: Decision) -> None:
        """Take a reservation back: the ledger has an older decision under this id."""
        self._add(decision, -self._most(decision))

    def settled(self, done: Iterable[tuple[Decision, Settlement]]) -> None:
        """Keep what the decisions have cost and free the rest."""
        for decision, settlement in done:
            nudge = self._spec(decision).nudges.get(decision.arm)
            if nudge and (decision.stage, decision.arm) in self._accounts:
                shown = settlement.why != "not activated"
                cost = budgets.spent(nudge, settlement.reward, shown=shown)
                self._add(decision, cost - self._most(decision))

    def accounts(self, stage: str, now: int) -> Mapping[str, BudgetAccount]:
        """The accounts of a stage as of now."""
        with self._lock:
            return {nudge: a.at(now) for (name, nudge), a in self._accounts.items() if name == stage}

    def _most(self, decision: Decision) -> int:
        """By the rules it was made under."""
        spec = self._spec(decision)
        return budgets.most(spec, spec.nudges[decision.arm]) if decision.arm in spec.nudges else 0

    def _spec(self, decision: Decision) -> Stage:
        return self._specs[decision.stage_digest]

    def _add(self, decision: Decision, micro: int) -> None:
        key = (decision.stage, decision.arm)
        with self._lock:
            account = self._accounts.get(key)
            if account is None:
                return
            account = account.at(decision.at)
            if decision.at // account.period == account.number:  # what an earlier period committed is no longer asked
                self._accounts[key] = account.add(micro)
