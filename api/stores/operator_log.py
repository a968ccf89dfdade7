"""Operator log of a ledger: what operators had taken out of force, what they found out about keys that were accused,
what they did to nudges, and who had it done.
"""

import uuid
from collections.abc import Iterable, Iterator
from typing import Protocol

from bandit.records import AlarmAcknowledgement, OperatorAction, Outcome, Withdrawal


class OperatorLog(Protocol):
    """What operators did to one ledger, append-only. An outcome that is withdrawn stays, and a further one voids it.
    Acknowledgements of alarms say whether what an accused key reported may be learned; actions, which nudges may be
    shown.

    Guarantees. Atomicity: each call of a writing method is one transaction. Order: numbered without gaps from 1.
    Threads, durability and errors as `DecisionLog`.
    """

    def withdraw(self, asked: Withdrawal, after: int, most: int) -> tuple[Withdrawal, int]:
        """Void outcomes that the withdrawal is about and that are not withdrawn yet: of those numbered above `after`
        the first `most`. Returns the withdrawal, numbered once it has voided something, and the number of the last
        outcome that was voided; 0 where none was.

        Settled decisions are to be corrected then (`LearningState.matured`); open ones wait for their window to end.
        """
        ...

    def withdrawals(self) -> list[Withdrawal]:
        """All withdrawals, in order."""
        ...

    def acknowledge(self, asked: AlarmAcknowledgement, after: int) -> AlarmAcknowledgement:
        """Append an acknowledgement, and return it with its number and that of the ledger's newest settlement
        (`through`). If it finds the key honest, settled decisions of its stage are to be corrected
        (`LearningState.matured`): those whose newest settlement is numbered above `after`, is held, and which have an
        outcome that the key reported.
        """
        ...

    def acknowledgements(self) -> list[AlarmAcknowledgement]:
        """All acknowledgements, in order."""
        ...

    def operate(self, asked: OperatorAction) -> OperatorAction:
        """Append what an operator did to a nudge, and return it with its number."""
        ...

    def operator_actions(self) -> list[OperatorAction]:
        """All that operators did to nudges, in order."""
        ...


def voiding(outcomes: Iterable[Outcome], by: Withdrawal) -> Iterator[Outcome]:
    """Outcomes that void these. They do not count either where these came too late."""
    for one in outcomes:
        yield Outcome(
            decision=one.decision,
            id=f"withdrawn:{uuid.uuid4()}",  # nobody can have taken it
            kind="retraction",
            value=None,
            occurred=by.at,
            received=by.at,
            late=one.late,
            voids=one.id,
            withdrawal=by.seq,
        )
