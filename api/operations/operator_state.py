"""Operator state of a running service: everything that operators have said by actions, read from the ledger as one."""

from collections.abc import Iterable

from api.operations.paused_nudges import PausedNudges
from api.operations.traffic_settings import TrafficSettings
from api.stores.protocol import Store
from bandit.catalogue.model import Catalogue, Stage
from bandit.operations import traffic
from bandit.records import Decision, OperatorAction


class OperatorState:
    """Pauses and traffic settings of one app, as the ledger's actions say.

    Guarantee: a decision that is written after the commit of an action keeps to it; the worker asks `refuses` in the
    transaction that writes it, and calls `load` before it where what is in force is not known (`stale`). Belongs to the
    writer thread; `pauses` and `traffic` say which of their parts any thread may read.
    """

    def __init__(self, store: Store, catalogue: Catalogue):
        self._store = store
        self.pauses = PausedNudges(store, catalogue)
        self.traffic = TrafficSettings(store, catalogue)
        self.stale = True  # the ledger may hold actions that are not known here
        self.load()

    def __bool__(self) -> bool:
        """Whether a decision may have to be made again, because of an action that it did not know."""
        return bool(self.pauses) or bool(self.traffic)

    def load(self) -> None:
        """Read from the ledger what is in force: at the start, and once a change is committed here or elsewhere. Raises
        Unavailable, and then it stays `stale`.
        """
        self._store.register({})  # a setting's declarations are found once they are committed
        actions = self._store.operator_actions()
        self.pauses.take(actions)
        self.traffic.take(actions)
        self.stale = False

    def change(self, asked: OperatorAction, deciding: Iterable[Stage]) -> OperatorAction:
        """Append an action to the ledger, within a transaction; it is in force after `load`. `deciding`: declarations
        that decisions of the stage may be made under. Raises as `PausedNudges.change` and `TrafficSettings.change` do.
        """
        self.stale = True  # what fails may be in the ledger all the same
        if asked.verb in traffic.SETTINGS:
            return self.traffic.change(asked, deciding)
        return self.pauses.change(asked)

    def refuses(self, decision: Decision) -> bool:
        """Whether a decision does not keep to what operators have said: it shows what is paused, or was made under
        another ramp or holdout.
        """
        return self.pauses.refuses(decision) or (bool(self.traffic) and not self.traffic.stands(decision))
