"""Rows of withdrawals, and of acknowledgements of alarms, in a SQL ledger. Whoever calls holds the transaction."""

import msgspec

from api.stores.operator_log import voiding
from api.stores.sql.connection import SqlConnection
from api.stores.sql.rows.decisions import OUTCOME_COLUMNS, insert, outcome_of, outcome_row
from bandit.records import AlarmAcknowledgement, Withdrawal

COLUMNS = Withdrawal.__struct_fields__
"""Columns of a withdrawal, its number first."""

ACKNOWLEDGED = AlarmAcknowledgement.__struct_fields__
"""Columns of an acknowledgement, its number first."""

_ABOUT = f"""SELECT o.seq, {", ".join(f"o.{c}" for c in OUTCOME_COLUMNS)} FROM outcomes o
    WHERE o.seq > ? AND o.reporter = ? AND o.received >= ? AND o.received < ? AND o.voids = ''
    AND NOT EXISTS (SELECT 1 FROM outcomes w WHERE w.decision = o.decision AND w.voids = o.id AND w.withdrawal > 0)
    ORDER BY o.seq LIMIT ?"""  # noqa: S608
_CORRECT = """INSERT OR IGNORE INTO uncorrected SELECT DISTINCT d.seq FROM decisions d
    JOIN settlements s ON s.decision_seq = d.seq WHERE d.id = ?"""
_WAIT = """UPDATE pending SET due = (SELECT expires FROM decisions WHERE seq = decision_seq)
    WHERE decision_seq = (SELECT seq FROM decisions WHERE id = ?)"""

_RELEASE = """INSERT OR IGNORE INTO uncorrected SELECT s.decision_seq FROM settlements s
    JOIN decisions d ON d.seq = s.decision_seq
    WHERE s.stage = ? AND s.seq > ? AND s.why = 'held'
    AND NOT EXISTS (SELECT 1 FROM settlements n WHERE n.decision_seq = s.decision_seq AND n.seq > s.seq)
    AND EXISTS (SELECT 1 FROM outcomes o WHERE o.decision = d.id AND o.reporter = ?)"""


def acknowledge(conn: SqlConnection, asked: AlarmAcknowledgement, after: int) -> AlarmAcknowledgement:
    """As `OperatorLog.acknowledge`."""
    seq, through = (
        conn.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0]  # noqa: S608
        for table in ("acknowledgements", "settlements")
    )
    kept = msgspec.structs.replace(asked, seq=seq + 1, through=through)
    conn.execute(insert("acknowledgements", ACKNOWLEDGED), msgspec.structs.astuple(kept))
    if kept.verdict == "honest":
        conn.execute(_RELEASE, (kept.stage, after, kept.reporter))
    return kept


def withdraw(conn: SqlConnection, asked: Withdrawal, after: int, most: int) -> tuple[Withdrawal, int]:
    """As `OperatorLog.withdraw`."""
    found = conn.execute(_ABOUT, (after, asked.reporter, asked.since, asked.until, most)).fetchall()
    if not found:
        return asked, 0
    if not asked.seq:
        number = 1 + conn.execute("SELECT coalesce(max(seq), 0) FROM withdrawals").fetchone()[0]
        asked = msgspec.structs.replace(asked, seq=number)
        conn.execute(insert("withdrawals", COLUMNS), msgspec.structs.astuple(asked))
    void = list(voiding((outcome_of(row[1:]) for row in found), asked))
    conn.executemany(insert("outcomes", OUTCOME_COLUMNS), [outcome_row(one) for one in void])
    counted = [(one.decision.bytes,) for one in void if not one.late]
    conn.executemany(_CORRECT, counted)
    conn.executemany(_WAIT, counted)
    return asked, int(found[-1][0])
