"""Erasure log of a SQL ledger: rows are overwritten in place, and their commits sealed anew."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from api.stores import rest
from api.stores.decision_log import DecisionRecord
from api.stores.erasure_log import DecisionTime, ErasedDecision, Erasure, ErasureEntry, by_user, users_of
from api.stores.learning_state import StatisticsUpdate
from api.stores.rest import RestCursor, RestPage
from api.stores.sql.connection import SqlConnection
from api.stores.sql.decision_log import SqlDecisionLog
from api.stores.sql.rows import learning
from api.stores.sql.rows.amendments import Amendment, Row
from api.stores.sql.rows.decisions import (
    DECISION_COLUMNS,
    SETTLEMENT_COLUMNS,
    columns_of,
    decision_row,
    insert,
    marks,
    settlement_row,
)
from api.stores.sql.rows.rest import SqlRestRows
from api.stores.sql.schema import SCHEMA
from bandit.errors import LedgerError
from bandit.records import NOT_NOW, Decision, Settlement

_EVERY = 2**62
_UNDER_WAY = "SELECT user, erasure, at, forget FROM erasing ORDER BY erasure, user"
_MOST = 4000  # rows that one transaction digests again, before it overwrites any
_ENTRY = """INSERT INTO erasures (erasure, at, forget, decisions, outcomes, events, ids, first, done)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_NOTHING = """UPDATE decisions SET id = randomblob(16), at = 0, expires = 0, version = 0, user = x'', request = x'',
    x = x'', propensity = x'', mean = x'', sd = x'', u = 0.0, arm = '', holdout = 0, excluded = '{}', evidence = '{}',
    notes = '[]', basis_at = 0, basis_decisions = 0, basis_outcomes = 0, moment = '', deferred = 0, actions = '',
    phi = x'', release = 0, unit = x'', loss_account = x'', candidate = x'', contribution = 1 WHERE seq = ?"""
_NO_OUTCOME = """UPDATE outcomes SET decision = randomblob(16), id = '', kind = 'activation', value = NULL,
    occurred = 0, received = 0, late = 0, fact = '', voids = '', reporter = '', withdrawal = 0 WHERE seq = ?"""
_NO_SETTLEMENT = """UPDATE settlements SET arm = '', at = 0, reward = 0.0, why = 'erased', learned = 0, tau = 0.0,
    nu = 0.0, outcomes = 0 WHERE seq = ?"""
_NO_EVENT = """UPDATE events SET id = lower(hex(randomblob(16))), user = x'', alias = NULL, at = 0, received = 0,
    name = '', properties = '{}', reports = 0, reporter = '' WHERE seq = ?"""


class SqlErasureLog(SqlDecisionLog):
    """`ErasureLog` of one SQL ledger."""

    def begin_erasure(self, erasure: Erasure) -> Erasure:
        """As `ErasureLog.begin_erasure`, in one transaction."""
        with self._ledger.transaction() as conn:
            for one in _under_way(conn.execute(_UNDER_WAY)):  # also those of the same transaction
                if one.users & erasure.users and one.forget >= erasure.forget:
                    erasure = one._replace(users=one.users | erasure.users)
            rows = [(user, erasure.number, erasure.at, int(erasure.forget)) for user in erasure.users]
            conn.executemany("INSERT OR REPLACE INTO erasing VALUES (?, ?, ?, ?)", rows)
        return erasure

    def erasures_under_way(self) -> list[Erasure]:
        """As `ErasureLog.erasures_under_way`."""
        return _under_way(self._ledger.rows(_UNDER_WAY))

    def erasable(self, users: Collection[bytes], most: int, before: int | None = None) -> list[DecisionRecord]:
        """As `ErasureLog.erasable`, in one reading transaction."""
        query = f"""SELECT {columns_of("d")} FROM decisions d WHERE d.seq IN (
                        SELECT seq FROM decisions WHERE user IN ({marks(users)}) AND seq < ? ORDER BY seq DESC LIMIT ?)
                    ORDER BY d.seq DESC"""  # noqa: S608
        with self._ledger.reading() as conn:
            return self._complete(conn, conn.execute(query, (*users, before or _EVERY, most)).fetchall())

    def erase_decisions(
        self,
        erasures: Sequence[Erasure],
        now: int,
        erased: Sequence[ErasedDecision],
        settlements: Sequence[Settlement] = (),
        updates: Sequence[StatisticsUpdate] = (),
    ) -> bool:
        """As `ErasureLog.erase_decisions`, in one transaction."""
        with self._ledger.transaction() as conn:
            outcomes = {one.record.seq: _outcomes(conn, one) for one in erased}
            touched: list[Row] = [("decisions", one.record.seq) for one in erased]
            touched += [("outcomes", seq) for mine in outcomes.values() for seq in mine]
            gone = [one for one in erased if one.remainder is None]
            ended = [done.seq for one in gone for done in one.record.settlements]
            touched += [("settlements", seq) for seq in ended]
            amendment = Amendment(conn, SCHEMA)
            if not amendment.prepare(touched, _MOST):
                return False
            _settle(conn, settlements)
            conn.executemany(_NOTHING, [(one.record.seq,) for one in gone])
            conn.executemany(_NO_SETTLEMENT, [(seq,) for seq in ended])
            for one in erased:
                _leave(conn, one.record.seq, one.remainder)
                _leave_outcomes(conn, one, outcomes[one.record.seq])
            _forget_credits(conn, erased)
            for update in updates:
                learning.replace(conn, update)
            conn.executemany(_ENTRY, _entries(erasures, now, erased, outcomes))
            amendment.seal(touched)
        return True

    def erase_events(self, erasures: Sequence[Erasure], now: int, most: int) -> bool:
        """As `ErasureLog.erase_events`, in one transaction."""
        users = tuple(users_of(erasures))
        with self._ledger.transaction() as conn:
            query = f"SELECT seq, id, user FROM events WHERE user IN ({marks(users)}) LIMIT ?"  # noqa: S608
            found = conn.execute(query, (*users, most)).fetchall()
            rows: list[Row] = [("events", seq) for seq, *_ in found]
            amendment = Amendment(conn, SCHEMA)
            if not found or not amendment.prepare(rows, _MOST):
                return bool(found)
            conn.executemany(_NO_EVENT, [(seq,) for seq, *_ in found])
            ids = [(event,) for _, event, _ in found]
            conn.executemany("DELETE FROM credits WHERE event = ?", ids)
            conn.executemany("DELETE FROM uncredited WHERE event = ?", ids)
            erasure = by_user(erasures)
            each = Counter(erasure[user] for *_, user in found)
            conn.executemany(_ENTRY, [(*_head(one, now), 0, 0, n, 0, 0, 0) for one, n in each.items()])
            amendment.seal(rows)
        return len(found) == most

    def end_erasures(self, erasures: Sequence[Erasure], now: int) -> None:
        """As `ErasureLog.end_erasures`, in one transaction; other users' events that name an id of the erasures' lose
        it.
        """
        users = tuple(users_of(erasures))
        self._ledger.earlier.forget(users)
        mine = f"IN ({marks(users)})"
        while True:
            with self._ledger.transaction() as conn:
                owners = conn.execute(f"SELECT DISTINCT owner FROM links WHERE alias {mine}", users).fetchall()  # noqa: S608
                query = f"SELECT seq FROM events WHERE user IN ({marks(owners)}) AND alias {mine}"  # noqa: S608
                rows: list[Row] = [("events", seq) for (seq,) in conn.execute(query, (*(o for (o,) in owners), *users))]
                amendment = Amendment(conn, SCHEMA)
                if not amendment.prepare(rows, _MOST):
                    continue
                conn.executemany("UPDATE events SET alias = NULL WHERE seq = ?", [(seq,) for _, seq in rows])
                for table, columns in (
                    ("links", ("alias", "owner")),
                    ("owners", ("alias", "owner")),
                    ("journeys", ("user",)),
                ):
                    for column in columns:
                        conn.execute(f"DELETE FROM {table} WHERE {column} {mine}", users)  # noqa: S608
                conn.executemany("DELETE FROM erasing WHERE erasure = ?", [(one.number,) for one in erasures])
                conn.executemany(_ENTRY, [(*_head(one, now), 0, 0, 0, len(one.users), 0, 1) for one in erasures])
                amendment.seal(rows)
                return

    def erasures(self, after: int = 0, number: bytes | None = None) -> list[ErasureEntry]:
        """As `ErasureLog.erasures`."""
        of, asked = ("", ()) if number is None else ("AND erasure = ?", (number,))
        rows = self._ledger.rows(f"SELECT * FROM erasures WHERE seq > ? {of} ORDER BY seq", (after, *asked))  # noqa: S608
        return [ErasureEntry(*row)._replace(forget=bool(row[3]), done=bool(row[9])) for row in rows]

    def at_rest(self, after: RestCursor, before: int, most: int, stages: Collection[str]) -> RestPage:
        """As `ErasureLog.at_rest`, on a connection of its own."""
        with self._ledger.beside() as conn:
            return rest.page(SqlRestRows(conn), after, before, most, stages)

    def is_at_rest(self, users: Collection[bytes], before: int) -> bool:
        """As `ErasureLog.is_at_rest`, in one reading transaction."""
        with self._ledger.reading() as conn:
            return not SqlRestRows(conn).came(users, before)

    def overwrite_erased(self, first: int, most: int) -> int:
        """As `ErasureLog.overwrite_erased`."""
        return self._ledger.overwrite_free(first, most)

    def decision_times(self, stage: str) -> Iterator[DecisionTime]:
        """As `ErasureLog.decision_times`, on a connection of its own."""
        query = """SELECT d.seq, s.digest, d.at, d.expires FROM decisions d JOIN specs s ON s.key = d.spec
                   WHERE d.stage = ? AND d.holdout = 0 AND d.moment <> ? AND d.user <> x'' ORDER BY d.seq"""
        with self._ledger.beside() as conn:
            yield from (DecisionTime(*row) for row in conn.execute(query, (stage, NOT_NOW)))


def _head(erasure: Erasure, now: int) -> tuple[Any, ...]:
    return erasure.entry, now, int(erasure.forget)


def _under_way(rows: Iterable[tuple[bytes, bytes, int, int]]) -> list[Erasure]:
    found: dict[bytes, Erasure] = {}
    for user, number, at, forget in rows:
        known = found.get(number, Erasure(number, frozenset(), at, bool(forget)))
        found[number] = known._replace(users=known.users | {user})
    return list(found.values())


def _entries(
    erasures: Sequence[Erasure], now: int, erased: Sequence[ErasedDecision], outcomes: Mapping[int, Sequence[int]]
) -> Iterator[tuple[Any, ...]]:
    """Rows of the log, one for each erasure that some of these decisions are of."""
    erasure = by_user(erasures)
    for one in dict.fromkeys(erasure[each.record.decision.user] for each in erased):
        mine = [each for each in erased if erasure[each.record.decision.user] == one]
        first = min((each.record.seq for each in mine if each.remainder is None), default=0)
        yield *_head(one, now), len(mine), sum(len(outcomes[each.record.seq]) for each in mine), 0, 0, first, 0


def _outcomes(conn: SqlConnection, erased: ErasedDecision) -> list[int]:
    """Numbers of the outcomes of a decision, in order."""
    query = "SELECT seq FROM outcomes WHERE decision = ? ORDER BY seq"
    return [seq for (seq,) in conn.execute(query, (erased.record.decision.id.bytes,))]


def _settle(conn: SqlConnection, settlements: Sequence[Settlement]) -> None:
    last = conn.execute("SELECT coalesce(max(seq), 0) FROM settlements").fetchone()[0]
    rows = [(last + i, *settlement_row(s)) for i, s in enumerate(settlements, 1)]
    conn.executemany(insert("settlements", ("seq", *SETTLEMENT_COLUMNS)), rows)
    versions = {s.stage: last + i for i, s in enumerate(settlements, 1)}
    conn.executemany("INSERT OR REPLACE INTO versions VALUES (?, ?)", list(versions.items()))


def _leave(conn: SqlConnection, seq: int, remainder: Decision | None) -> None:
    for table in ("pending", "uncorrected"):
        conn.execute(f"DELETE FROM {table} WHERE decision_seq = ?", (seq,))  # noqa: S608
    if remainder is not None:
        assigned = ", ".join(f"{column} = ?" for column in DECISION_COLUMNS)
        conn.execute(f"UPDATE decisions SET {assigned} WHERE seq = ?", (*decision_row(remainder), seq))  # noqa: S608


def _leave_outcomes(conn: SqlConnection, erased: ErasedDecision, seqs: Sequence[int]) -> None:
    """Outcomes as they are left, or nothing of them. The ledger has those that the record knows."""
    if erased.remainder is None:
        conn.executemany(_NO_OUTCOME, [(seq,) for seq in seqs])
        return
    if len(seqs) != len(erased.outcomes):
        raise LedgerError(f"decision number {erased.record.seq} has other outcomes than were read")
    rows = [(o.decision.bytes, o.id, o.fact, o.voids, seq) for o, seq in zip(erased.outcomes, seqs, strict=True)]
    conn.executemany("UPDATE outcomes SET decision = ?, id = ?, fact = ?, voids = ? WHERE seq = ?", rows)


def _forget_credits(conn: SqlConnection, erased: Iterable[ErasedDecision]) -> None:
    """What events credit to decisions, and messages about them that wait to be delivered."""
    ids = [one.record.decision.id for one in erased]
    conn.executemany("DELETE FROM credits WHERE decision = ?", [(i.bytes,) for i in ids])
    endpoints = [name for (name,) in conn.execute("SELECT endpoint FROM webhook_cursors")]
    letters = [(name, f"{kind}:{i}") for name in endpoints for i in ids for kind in ("decision", "reward")]
    conn.executemany("DELETE FROM webhook_deliveries WHERE endpoint = ? AND event = ?", letters)
    again = [(name, f"reward:{i}:*") for name in endpoints for i in ids]  # of corrections
    conn.executemany("DELETE FROM webhook_deliveries WHERE endpoint = ? AND event GLOB ?", again)
