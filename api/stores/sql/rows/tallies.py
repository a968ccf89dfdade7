"""Rows of a SQL ledger counted by the database, and the conditions of a search among decisions."""

import msgspec

from api.stores.decision_log import DecisionFilter, DecisionTallies, DecisionTally, SettlementTally
from api.stores.sql.connection import SqlConnection
from api.stores.sql.rows.decisions import marks
from bandit.guardrails import DAY
from bandit.records import NOT_NOW

_ALIKE = f"""SELECT stage, arm, at / {DAY}, holdout, CASE WHEN moment = ? THEN 0 ELSE 1 END, excluded, count(*)
    FROM decisions WHERE seq > ? AND seq <= ? AND user <> x'' GROUP BY 1, 2, 3, 4, 5, 6"""  # noqa: S608
_USERS = """SELECT DISTINCT stage, user FROM decisions
    WHERE seq > ? AND seq <= ? AND user <> x'' AND request <> x''"""
_SETTLED = """SELECT s.stage, s.arm, count(CASE WHEN s.corrects = 0 THEN 1 END),
        sum(CASE WHEN s.learned = 1 THEN 1.0 ELSE 0.0 END - CASE WHEN b.learned = 1 THEN 1.0 ELSE 0.0 END),
        sum(CASE WHEN s.learned = 1 THEN s.reward ELSE 0.0 END - CASE WHEN b.learned = 1 THEN b.reward ELSE 0.0 END)
    FROM settlements s LEFT JOIN settlements b ON s.corrects > 0 AND b.decision_seq = s.decision_seq AND b.seq = (
        SELECT max(p.seq) FROM settlements p WHERE p.decision_seq = s.decision_seq AND p.seq < s.seq)
    WHERE s.seq > ? AND s.seq <= ? AND s.arm <> '' GROUP BY s.stage, s.arm ORDER BY s.stage, s.arm"""

_excluded = msgspec.json.Decoder(dict[str, str]).decode


def of_decisions(conn: SqlConnection, after: int, through: int) -> DecisionTallies:
    """As `DecisionLog.tally_decisions`."""
    alike = [
        DecisionTally(stage, arm, day, bool(held), bool(asked), _excluded(excluded), n)
        for stage, arm, day, held, asked, excluded, n in conn.execute(_ALIKE, (NOT_NOW, after, through))
    ]
    users = dict[str, set[bytes]]()
    for stage, user in conn.execute(_USERS, (after, through)):
        users.setdefault(stage, set()).add(user)
    return DecisionTallies(alike, users)


def of_settlements(conn: SqlConnection, after: int, through: int) -> list[SettlementTally]:
    """As `DecisionLog.tally_settlements`."""
    rows = conn.execute(_SETTLED, (after, through))
    return [SettlementTally(stage, arm, n, round(learned), reward) for stage, arm, n, learned, reward in rows]


def conditions(wanted: DecisionFilter, above: int, before: int) -> tuple[str, list[object]]:
    """Conditions of a search as SQL over decisions `d`, and their values. With users their index serves, which `+ 0`
    leaves no other choice; without, the numbers do.
    """
    seq = "(d.seq + 0)" if wanted.users else "d.seq"
    found: list[tuple[str, tuple[object, ...]]] = [(f"{seq} > ?", (above,)), (f"{seq} < ?", (before,))]
    if wanted.users:
        found.append((f"d.user IN ({marks(wanted.users)})", tuple(wanted.users)))
    found += [(f"d.{name} = ?", (word,)) for name, word in (("stage", wanted.stage), ("arm", wanted.arm)) if word]
    found += [("d.at >= ?", (wanted.since,)), ("d.at < ?", (wanted.until,)), ("d.user <> x''", ())]
    return " AND ".join(text for text, _ in found), [value for _, values in found for value in values]
