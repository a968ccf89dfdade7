"""Budget accounts while the service runs, derived from the ledger when it starts; one process owns the ledger.

Decisions reserve in the event loop, settlements free in the writer thread: a lock keeps both whole. A write that is not
known to be durable keeps its reservation, so a failing disk can make a budget last longer, never be overspent.
"""

import threading
from collections.abc import Iterable, Mapping
from copy import copy

from api.stores.protocol import Store
from bandit import budgets
from bandit.budgets import BudgetAccount
from bandit.catalogue.model import Catalogue, Nudge, Stage
from bandit.records import Decision, Settlement


class Budgets:
    """Accounts of all budgets by (stage, nudge), each for the present period, in millionths of the app's currency.

    Guarantees: what decisions of a period have cost, plus the most that open ones may cost, never passes the amount,
    whoever asks at the same time, but for what corrections add: what a reward costs is owed by then. Thread-safe: every
    method may be called from any thread.
    """

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
                        self.settled([(found.decision, found.settlement, None)])

    def refused(self, stage: str, now: int) -> dict[str, str]:
        """Nudges of the stage whose budget does not allow them at `now` (µs since 1970), each with the reason as
        receipts show it.
        """
        with self._lock:
            reasons = {
                nudge: account.at(now).refuses(
                    budgets.most(self._stages[stage], self._stages[stage].nudges[nudge]), now
                )
                for (name, nudge), account in self._accounts.items()
                if name == stage
            }
        return {nudge: reason for nudge, reason in reasons.items() if reason}

    def allows(self, decision: Decision) -> bool:
        """Whether the budget of the decision's nudge, if it has one, allows it at the time at which it was made."""
        with self._lock:
            account = self._accounts.get((decision.stage, decision.arm))
        if account is None:
            return True
        account = account.at(decision.at)
        in_period = decision.at // account.period == account.number  # of an earlier period nothing is known any more
        return in_period and account.refuses(self._most(decision), decision.at) is None

    def copy(self) -> "Budgets":
        """The same accounts, which go on apart."""
        with self._lock:
            new = copy(self)
            new._lock, new._accounts = threading.Lock(), dict(self._accounts)
        return new

    def at_least(self, other: "Budgets") -> None:
        """Commit at least as much of each account as another one of the same catalogue does."""
        with self._lock:
            for place, known in other._accounts.items():
                mine = self._accounts[place]
                if known.number > mine.number or (known.number == mine.number and known.committed > mine.committed):
                    self._accounts[place] = known

    def reserve(self, decision: Decision) -> None:
        """Reserve the most that the decision can cost, in the period in which it was made. Called by
        `DecisionMaker.prepare` before anything else runs.
        """
        self._add(decision, self._most(decision))

    def cancel(self, decision: Decision) -> None:
        """Take a reservation back: nothing was written, or the ledger has an older decision under this id."""
        self._add(decision, -self._most(decision))

    def settled(self, done: Iterable[tuple[Decision, Settlement, Settlement | None]]) -> None:
        """Keep what the decisions have cost, and free the rest of their reservations; or, of those that had a
        settlement before this one, change what they have cost. Called in the writer thread, once the settlements are
        durable.
        """
        for decision, settlement, before in done:
            nudge = self._spec(decision).nudges.get(decision.arm)
            if nudge and (decision.stage, decision.arm) in self._accounts:
                counted = self._most(decision) if before is None else _cost(nudge, before)
                self._add(decision, _cost(nudge, settlement) - counted)

    def accounts(self, stage: str, now: int) -> Mapping[str, BudgetAccount]:
        """Accounts of a stage by nudge, as of `now` (µs since 1970), for `GET /v1/policies`."""
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


def _cost(nudge: Nudge, done: Settlement) -> int:
    """What a settled decision has cost, in millionths."""
    return budgets.spent(nudge, done.reward, shown=done.why != "not activated")
