"""Operator log of a SQL ledger."""

import msgspec

from api.stores.sql.connections import SqlPart
from api.stores.sql.rows import withdrawals
from api.stores.sql.rows.decisions import insert
from bandit.records import AlarmAcknowledgement, OperatorAction, Withdrawal

_COLUMNS = OperatorAction.__struct_fields__


class SqlOperatorLog(SqlPart):
    """`OperatorLog` of one SQL ledger."""

    def withdraw(self, asked: Withdrawal, after: int, most: int) -> tuple[Withdrawal, int]:
        """As `OperatorLog.withdraw`, in one transaction."""
        with self._ledger.transaction() as conn:
            return withdrawals.withdraw(conn, asked, after, most)

    def withdrawals(self) -> list[Withdrawal]:
        """As `OperatorLog.withdrawals`."""
        query = f"SELECT {', '.join(withdrawals.COLUMNS)} FROM withdrawals ORDER BY seq"  # noqa: S608
        return [Withdrawal(**dict(zip(withdrawals.COLUMNS, row, strict=True))) for row in self._ledger.rows(query)]

    def acknowledge(self, asked: AlarmAcknowledgement, after: int) -> AlarmAcknowledgement:
        """As `OperatorLog.acknowledge`, in one transaction."""
        with self._ledger.transaction() as conn:
            return withdrawals.acknowledge(conn, asked, after)

    def acknowledgements(self) -> list[AlarmAcknowledgement]:
        """As `OperatorLog.acknowledgements`."""
        names = withdrawals.ACKNOWLEDGED
        rows = self._ledger.rows(f"SELECT {', '.join(names)} FROM acknowledgements ORDER BY seq")  # noqa: S608
        return [AlarmAcknowledgement(**dict(zip(names, row, strict=True))) for row in rows]

    def operate(self, asked: OperatorAction) -> OperatorAction:
        """As `OperatorLog.operate`."""
        with self._ledger.transaction() as conn:
            (last,) = conn.execute("SELECT coalesce(max(seq), 0) FROM operator_actions").fetchone()
            kept = msgspec.structs.replace(asked, seq=last + 1)
            conn.execute(insert("operator_actions", _COLUMNS), msgspec.structs.astuple(kept))
        return kept

    def operator_actions(self) -> list[OperatorAction]:
        """As `OperatorLog.operator_actions`."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM operator_actions ORDER BY seq"  # noqa: S608
        return [OperatorAction(**dict(zip(_COLUMNS, row, strict=True))) for row in self._ledger.rows(query)]
