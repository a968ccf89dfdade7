"""SQLite store: a ledger in one file, in WAL mode with synchronous=FULL, one writing connection and read-only readers.

sqlite-utils opens the file, migrates it and supplies the transactions; hot writes are `executemany` inside `atomic()`.
One process owns the file (an advisory lock beside it), which also keeps SQLite's WAL-reset bug (3.7.0–3.51.2) from
forming: it needs two connections that commit or checkpoint.
"""

import sqlite3
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import sqlite_utils

from api.stores import ingest
from api.stores.admission import admit, finite
from api.stores.decision_log import DecisionRecord, LedgerPosition, OutcomeReceipt, RecordedDecision, RowCounts
from api.stores.event_log import IngestResult, MissedReport, Person
from api.stores.learning_state import (
    DeclarationEra,
    Declarations,
    ServedStage,
    StatisticsKey,
    StatisticsUpdate,
    StoredStatistics,
    WarmStart,
)
from api.stores.sqlite import learning
from api.stores.sqlite.deliveries import cursor, deliveries, keep_deliveries, move_cursors
from api.stores.sqlite.events import SqliteEventRows
from api.stores.sqlite.file import check_schema, connect, own, prepare, read_transaction
from api.stores.sqlite.rows import (
    DECISION_COLUMNS,
    OUTCOME_COLUMNS,
    RELEASE_COLUMNS,
    SETTLEMENT_COLUMNS,
    decision_of,
    decision_row,
    outcome_of,
    outcome_row,
    settlement_of,
    settlement_row,
)
from api.stores.webhook_queue import WebhookCursor, WebhookDelivery
from bandit.arrays import Array
from bandit.belief import Belief
from bandit.catalogue.loading import read_stage
from bandit.catalogue.model import Stage
from bandit.errors import LedgerError, PolicyError, Unavailable
from bandit.journey import folding
from bandit.journey.folding import JourneyFold
from bandit.records import NOT_NOW, Decision, Event, MaturedDecision, Outcome, Release, Settlement

_EVERY = 2**62
_PAGE = 2000  # rows a long read holds its transaction for


class SqliteStore:
    """`Store` in one SQLite file, opened by `sqlite:///FILE`. `read_only` opens a file that a running service may own,
    for evaluation and verification; writing methods raise LedgerError then.

    Guarantees: what a writing method wrote is synced to disk when it returns (or when the outermost `atomic` ends);
    readers see whole transactions. Threads: one thread writes; two reading connections, each behind a lock, serve any
    thread: one for reads of the ledger, which long reads hold only for a page of 2,000 rows, and one for look-ups of
    persons and events, which never waits for a long read. Times are µs since 1970.

    Raises LedgerError if another process owns the file, it is missing (`read_only`), it is no ledger, or a later
    version wrote it.
    """

    def __init__(self, path: Path, *, read_only: bool = False, busy_seconds: float = 2.0):
        self._reading, self._looking = threading.Lock(), threading.Lock()
        if read_only and not path.exists():
            raise LedgerError(f"{path} does not exist: give the file of a service's --store")
        with ExitStack() as opening:  # closes what was opened if the rest fails
            if not read_only:
                opening.enter_context(own(path))
            try:
                self._write = None if read_only else connect(path, "rwc", busy_seconds, opening)
                self._synchronous = prepare(self._write) if self._write else "read only"
                self._read = connect(path, "ro", busy_seconds, opening)
                if read_only:
                    check_schema(self._read, path)
                self._people = connect(path, "ro", busy_seconds, opening)  # never waits for a long read
                self._by_digest: dict[str, Stage] = {}
                self._specs = self._load_specs()
            except sqlite3.Error as error:
                raise LedgerError(f"{path} cannot be used as a ledger: {error}") from error
            self._opened = opening.pop_all()

    # -- facts -------------------------------------------------------------------------------------------------

    def meta(self) -> dict[str, str]:
        """As `Store.meta`."""
        return dict(self._rows("SELECT key, value FROM meta"))

    def set_meta(self, values: Mapping[str, str]) -> None:
        """As `Store.set_meta`, in one transaction."""
        with self._transaction() as conn:
            conn.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def register(self, stages: Mapping[str, Stage]) -> None:
        """As `DecisionLog.register`: in one transaction; known digests stay as they are."""
        rows = [(s.digest(), name, msgspec.json.encode(s).decode()) for name, s in stages.items()]
        with self._transaction() as conn:
            conn.executemany("INSERT OR IGNORE INTO specs (digest, stage, body) VALUES (?, ?, ?)", rows)
        self._specs = self._load_specs()

    def specs(self) -> Mapping[str, Stage]:
        """As `DecisionLog.specs`: a read-only view, which shows later registrations."""
        return MappingProxyType(self._by_digest)

    def publish(self, release: Release) -> Release:
        """As `ReleaseLog.publish`, in one transaction."""
        row = tuple(getattr(release, column) for column in RELEASE_COLUMNS)
        with self._transaction() as conn:
            number = conn.execute(_insert("releases", RELEASE_COLUMNS), row).lastrowid
        return msgspec.structs.replace(release, seq=number)

    def releases(self, stage: str | None = None) -> list[Release]:
        """As `ReleaseLog.releases`."""
        columns = ("seq", *RELEASE_COLUMNS)
        query = f"SELECT {', '.join(columns)} FROM releases WHERE ? IS NULL OR stage = ? ORDER BY seq"  # noqa: S608
        return [Release(**dict(zip(columns, row, strict=True))) for row in self._rows(query, (stage, stage))]

    def counts(self) -> RowCounts:
        """As `DecisionLog.counts`: one query a table, so under writing they may differ by a transaction."""
        tables = ("decisions", "outcomes", "settlements", "pending")
        return RowCounts(*(self._one(f"SELECT count(*) FROM {table}") for table in tables))  # noqa: S608

    def describe(self) -> dict[str, str]:
        """As `Store.describe`: SQLite's version, its real `synchronous`, and whether it has the WAL-reset bug."""
        return {
            "engine": "sqlite",
            "sqlite_version": sqlite3.sqlite_version,
            "synchronous": self._synchronous,
            "wal_reset_bug": "fixed"
            if sqlite3.sqlite_version_info >= (3, 51, 3)
            else "avoided: one writing connection",
        }

    # -- the ledger --------------------------------------------------------------------------------------------

    def record(
        self,
        decisions: Sequence[Decision],
        outcomes: Sequence[Outcome],
        now: int,
        specs: Mapping[str, Stage],
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        """As `DecisionLog.record`: `admit` decides within the writing transaction, on what the ledger holds at that
        point.
        """
        with self._transaction() as conn:
            ids = [d.id for d in decisions] + [o.decision for o in outcomes]
            known = self._find(conn, list(dict.fromkeys(ids)))
            next_seq = 1 + conn.execute("SELECT coalesce(max(seq), 0) FROM decisions").fetchone()[0]
            plan, kept, noted = admit(decisions, outcomes, now, specs, known, next_seq)
            keys = {digest: key for key, digest, _ in self._specs}
            rows = [(seq, keys[d.stage_digest], *decision_row(d)) for seq, d in plan.decisions]
            conn.executemany(_insert("decisions", ("seq", "spec", *DECISION_COLUMNS)), rows)
            waiting = [(seq, d.expires) for seq, d in plan.decisions if d.is_actionable]
            conn.executemany("INSERT INTO pending VALUES (?, ?)", waiting)
            conn.executemany(_insert("outcomes", OUTCOME_COLUMNS), [outcome_row(o) for o in plan.outcomes])
            conn.executemany("UPDATE pending SET due = 0 WHERE decision_seq = ?", [(seq,) for seq in plan.hastened])
        return kept, noted

    def atomic(self) -> AbstractContextManager[object]:
        """As `Store.atomic`: one transaction of the writing connection; inner ones become savepoints. Raises
        Unavailable when SQLite cannot say that it was committed, LedgerError for a row that the tables refuse.
        """
        return self._transaction()

    def ingest(
        self,
        events: Sequence[Event],
        now: int,
        specs: Mapping[str, Stage],
        rules: JourneyFold,
        users: Collection[bytes] = (),
    ) -> IngestResult:
        """As `EventLog.ingest`: events, journeys and outcomes in one transaction."""

        def record(outcomes: Sequence[Outcome]) -> list[OutcomeReceipt]:
            return self.record([], outcomes, now, specs)[1]

        with self._transaction() as conn:
            return ingest.ingest(SqliteEventRows(conn), rules, events, now, record, users)

    def missed(self, most: int, reason: str | None = None) -> list[MissedReport]:
        """As `EventLog.missed`, on the connection for look-ups."""
        with self._looking:
            return SqliteEventRows(self._people.conn).newest_missed(most, reason)

    def roots(self, users: Collection[bytes]) -> dict[bytes, bytes]:
        """As `EventLog.roots`, in one reading transaction of the connection for look-ups."""
        with self._looking, read_transaction(self._people.conn) as conn:
            return ingest.roots_of(SqliteEventRows(conn), users)

    def person(self, user: bytes, most: int) -> Person:
        """As `EventLog.person`, on the connection for look-ups; somebody new costs one query."""
        with self._looking:
            if SqliteEventRows(self._people.conn).unknown(user):  # one query for somebody new
                return Person(user, frozenset((user,)), None, ())
            with read_transaction(self._people.conn) as conn:
                return SqliteEventRows(conn).person(user, most)

    def events(self, users: Collection[bytes]) -> list[Event]:
        """As `EventLog.events`, on the connection for look-ups."""
        with self._looking:
            return sorted(SqliteEventRows(self._people.conn).events(users), key=folding.order)

    def matured(self, now: int, limit: int, stages: Collection[str]) -> list[MaturedDecision]:
        """As `LearningState.matured`, on the writing connection."""
        conn = self._writer().conn
        query = f"""SELECT {_columns("d")} FROM pending p JOIN decisions d ON d.seq = p.decision_seq
                    WHERE p.due <= ? AND d.stage IN ({_marks(stages)})
                    ORDER BY p.due, p.decision_seq LIMIT ?"""  # noqa: S608
        rows = conn.execute(query, (now, *stages, limit)).fetchall()
        return [MaturedDecision(f.seq, f.decision, f.outcomes) for f in self._complete(conn, rows)]

    def settle(self, settlements: Sequence[Settlement], updates: Sequence[StatisticsUpdate] = ()) -> dict[str, int]:
        """As `LearningState.settle`, in one transaction."""
        finite(settlements)
        with self._transaction() as conn:
            last = conn.execute("SELECT coalesce(max(seq), 0) FROM settlements").fetchone()[0]
            rows = [(last + i, *settlement_row(s)) for i, s in enumerate(settlements, 1)]
            conn.executemany(_insert("settlements", ("seq", *SETTLEMENT_COLUMNS)), rows)
            done = [(s.decision_seq,) for s in settlements]
            if conn.executemany("DELETE FROM pending WHERE decision_seq = ?", done).rowcount != len(done):
                raise LedgerError("the ledger refused a row: a decision is unknown, or settled already")
            versions = {s.stage: last + i for i, s in enumerate(settlements, 1)}
            conn.executemany("INSERT OR REPLACE INTO versions VALUES (?, ?)", list(versions.items()))
            for update in updates:
                learning.replace(conn, update)
        return versions

    def statistics(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> StoredStatistics:
        """As `LearningState.statistics`, in one reading transaction."""
        with self._reading, read_transaction(self._read.conn) as conn:
            return learning.statistics(conn, key, rows, d)

    def replace_statistics(self, update: StatisticsUpdate) -> None:
        """As `LearningState.replace_statistics`, in one transaction."""
        with self._transaction() as conn:
            learning.replace(conn, update)

    def first_settlement(self, key: StatisticsKey) -> int:
        """As `LearningState.first_settlement`."""
        query = "SELECT coalesce(max(after), 0) FROM schema_starts WHERE stage = ? AND schema = ?"
        return int(self._rows(query, key)[0][0])

    def warm_start(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> tuple[WarmStart, Belief] | None:
        """As `LearningState.warm_start`, in one reading transaction."""
        with self._reading, read_transaction(self._read.conn) as conn:
            return learning.warm_start(conn, key, rows, d)

    def put_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """As `LearningState.put_warm_start`, in one transaction."""
        with self._transaction() as conn:
            learning.put_warm_start(conn, key, warm, rows, belief)

    def declarations(self) -> Declarations:
        """As `LearningState.declarations`, in one reading transaction."""
        with self._reading, read_transaction(self._read.conn) as conn:
            return learning.declarations(conn)

    def declare(
        self,
        served: Mapping[str, ServedStage],
        schemas: Mapping[StatisticsKey, int],
        era: DeclarationEra | None,
        arithmetic: tuple[int, int] | None,
    ) -> None:
        """As `LearningState.declare`, in one transaction."""
        with self._transaction() as conn:
            learning.declare(conn, served, schemas, era, arithmetic)

    def version(self, stage: str) -> int:
        """As `LearningState.version`."""
        return sum(v for (v,) in self._rows("SELECT version FROM versions WHERE stage = ?", (stage,)))

    def last(self) -> LedgerPosition:
        """As `DecisionLog.last`, in one reading transaction."""
        with self._reading, read_transaction(self._read.conn) as conn:
            tables = ("decisions", "outcomes", "settlements", "releases")
            newest = (conn.execute(f"SELECT coalesce(max(seq), 0) FROM {t}").fetchone()[0] for t in tables)  # noqa: S608
            return LedgerPosition(*newest)

    def open_decisions(self, stage: str, at: LedgerPosition | None = None) -> Iterator[DecisionRecord]:
        """As `DecisionLog.open_decisions`: read in pages of 2,000 rows, each in a transaction of its own. Without `at`,
        rows that settle meanwhile may be missing.
        """
        end = at or LedgerPosition(_EVERY, _EVERY, _EVERY)
        among = (
            "pending p JOIN decisions d ON d.seq = p.decision_seq LEFT JOIN settlements s ON FALSE"
            if at is None
            else "decisions d LEFT JOIN settlements s ON s.decision_seq = d.seq"
        )
        query = f"""SELECT {_columns("d")} FROM {among}
                    WHERE d.seq > ? AND d.seq <= ? AND d.stage = ? AND d.moment <> ? AND (s.seq IS NULL OR s.seq > ?)
                    ORDER BY d.seq LIMIT {_PAGE}"""  # noqa: S608
        last = 0
        while True:
            with self._reading, read_transaction(self._read.conn) as conn:
                rows = conn.execute(query, (last, end.decision, stage, NOT_NOW, end.settlement)).fetchall()
                found = self._complete(conn, rows, end.outcome)
            if not found:
                return
            yield from (f._replace(settlement=None) for f in found)
            last = found[-1].seq

    def decisions_by_id(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        """As `DecisionLog.decisions_by_id`, in one reading transaction."""
        with self._reading, read_transaction(self._read.conn) as conn:
            return self._find(conn, list(dict.fromkeys(ids)))

    def settled(
        self, stage: str, through: int | None = None, after: int = 0
    ) -> Iterator[tuple[Settlement, Array, str]]:
        """As `LearningState.settled`: read in pages of 2,000 rows, up to what was newest at the beginning."""
        columns = ", ".join(f"s.{c}" for c in ("seq", *SETTLEMENT_COLUMNS))
        query = f"""SELECT {columns}, d.spec, d.x FROM settlements s JOIN decisions d ON d.seq = s.decision_seq
                    WHERE s.stage = ? AND s.seq > ? AND s.seq <= ? ORDER BY s.seq LIMIT {_PAGE}"""  # noqa: S608
        last, end = (
            after,
            through if through is not None else self._one("SELECT coalesce(max(seq), 0) FROM settlements"),
        )
        while rows := self._rows(query, (stage, last, end)):
            specs = {key: digest for key, digest, _ in self._load_specs()}
            for *done, spec, x in rows:
                yield settlement_of(done), np.frombuffer(x, dtype="<f4").astype(np.float64), specs[spec]
            last = rows[-1][0]

    def decisions(self, stage: str | None = None, since: int = 0) -> Iterator[DecisionRecord]:
        """As `DecisionLog.decisions`: read in pages of 2,000 rows, each in a transaction of its own, so rows that come
        meanwhile are read too.
        """
        query = f"""SELECT {_columns("d")} FROM decisions d
                    WHERE d.seq > ? AND (? IS NULL OR d.stage = ?) AND d.at >= ? ORDER BY d.seq LIMIT {_PAGE}"""  # noqa: S608
        last = 0
        while True:
            with self._reading, read_transaction(self._read.conn) as conn:
                found = self._complete(conn, conn.execute(query, (last, stage, stage, since)).fetchall())
            if not found:
                return
            yield from found
            last = found[-1].seq

    def decisions_after(self, after: int, most: int) -> list[DecisionRecord]:
        """As `DecisionLog.decisions_after`, in one reading transaction."""
        query = f"SELECT {_columns('d')} FROM decisions d WHERE d.seq > ? ORDER BY d.seq LIMIT ?"  # noqa: S608
        with self._reading, read_transaction(self._read.conn) as conn:
            return self._complete(conn, conn.execute(query, (after, most)).fetchall())

    def settlements_after(self, after: int, most: int) -> list[DecisionRecord]:
        """As `LearningState.settlements_after`, in one reading transaction."""
        query = f"""SELECT {_columns("d")} FROM settlements s JOIN decisions d ON d.seq = s.decision_seq
                    WHERE s.seq > ? ORDER BY s.seq LIMIT ?"""  # noqa: S608
        with self._reading, read_transaction(self._read.conn) as conn:
            return self._complete(conn, conn.execute(query, (after, most)).fetchall())

    def webhook_deliveries(self, endpoint: str | None = None, *, dead: bool) -> list[WebhookDelivery]:
        """As `WebhookQueue.webhook_deliveries`."""
        return deliveries(self._rows, endpoint, dead=dead)

    def webhook_cursor(self, endpoint: str) -> WebhookCursor | None:
        """As `WebhookQueue.webhook_cursor`, in one reading transaction."""
        with self._reading, read_transaction(self._read.conn) as conn:
            return cursor(conn, endpoint)

    def update_webhook_queue(
        self,
        cursors: dict[str, WebhookCursor],
        put: Sequence[WebhookDelivery],
        gone: Sequence[tuple[str, str]],
        most_dead: int | None = None,
    ) -> None:
        """As `WebhookQueue.update_webhook_queue`, in one transaction."""
        with self._transaction() as conn:
            move_cursors(conn, cursors)
            keep_deliveries(conn, put, gone, most_dead)

    def close(self) -> None:
        """Close all connections, and let go of the file. Call it once, when nothing uses the store any more."""
        self._opened.close()

    # -- inside ------------------------------------------------------------------------------------------------

    def _find(self, conn: sqlite3.Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        if not ids:
            return {}
        query = f"SELECT {_columns('d')} FROM decisions d WHERE d.id IN ({_marks(ids)})"  # noqa: S608
        rows = conn.execute(query, [i.bytes for i in ids]).fetchall()
        return {f.decision.id: f for f in self._complete(conn, rows)}

    def _complete(self, conn: sqlite3.Connection, rows: Sequence[Any], through: int = _EVERY) -> list[DecisionRecord]:
        """Add outcomes (those numbered up to `through`) and settlements to rows of decisions."""
        if not rows:
            return []
        specs = {key: digest for key, digest, _ in self._specs}
        if any(row[1] not in specs for row in rows):  # registered by the service since a reader opened the file
            self._specs = self._load_specs_from(conn)
            specs = {key: digest for key, digest, _ in self._specs}
        decisions = [(row[0], decision_of(specs[row[1]], row[2:])) for row in rows]
        outcomes: dict[uuid.UUID, list[Outcome]] = {}
        query = f"""SELECT {", ".join(OUTCOME_COLUMNS)} FROM outcomes
                    WHERE decision IN ({_marks(rows)}) AND seq <= ? ORDER BY seq"""  # noqa: S608
        for row in conn.execute(query, [*(d.id.bytes for _, d in decisions), through]):
            outcome = outcome_of(row)
            outcomes.setdefault(outcome.decision, []).append(outcome)
        columns = ", ".join(("seq", *SETTLEMENT_COLUMNS))
        query = f"SELECT {columns} FROM settlements WHERE decision_seq IN ({_marks(rows)})"  # noqa: S608
        settled = {s.decision_seq: s for s in map(settlement_of, conn.execute(query, [seq for seq, _ in decisions]))}
        return [DecisionRecord(seq, d, tuple(outcomes.get(d.id, ())), settled.get(seq)) for seq, d in decisions]

    def _load_specs(self) -> list[tuple[int, str, Stage]]:
        with self._reading:
            return self._load_specs_from(self._read.conn)

    def _load_specs_from(self, conn: sqlite3.Connection) -> list[tuple[int, str, Stage]]:
        rows = conn.execute("SELECT key, digest, stage, body FROM specs ORDER BY key").fetchall()
        specs = [(key, digest, _declared(name, body)) for key, digest, name, body in rows]
        self._by_digest.update((digest, stage) for _, digest, stage in specs)
        return specs

    def _rows(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._reading:
            return self._read.conn.execute(query, tuple(values)).fetchall()

    def _one(self, query: str) -> int:
        return int(self._rows(query)[0][0])

    def _writer(self) -> sqlite_utils.Database:
        if self._write is None:
            raise LedgerError("the ledger was opened read-only")
        return self._write

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction. Unavailable when SQLite cannot say that it was committed."""
        database = self._writer()
        try:
            with database.atomic():
                yield database.conn
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"the ledger refused a row: {error}") from error
        except sqlite3.Error as error:
            raise Unavailable(f"the ledger could not be written: {error}") from error


def _columns(alias: str) -> str:
    return ", ".join(f"{alias}.{c}" for c in ("seq", "spec", *DECISION_COLUMNS))


def _declared(name: str, body: str) -> Stage:
    """A stored declaration. LedgerError if its policy is not installed."""
    try:
        return read_stage(msgspec.json.decode(body))
    except PolicyError as error:
        raise LedgerError(f"the ledger declares stage {name!r} with a policy that cannot be used: {error}") from error


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({_marks(columns)})"  # noqa: S608


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))
