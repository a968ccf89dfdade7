"""Decision log of a SQL ledger: declarations, decisions and outcomes."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from api.stores.admission import admit
from api.stores.decision_log import (
    LAST,
    DecisionFilter,
    DecisionRecord,
    DecisionTallies,
    EarlierDecision,
    LedgerPosition,
    NumberedOutcome,
    OutcomeReceipt,
    RecordedDecision,
    RowCounts,
    SettlementTally,
    UserOverLimit,
)
from api.stores.sql.connection import SqlConnection
from api.stores.sql.connections import SqlConnections, SqlPart
from api.stores.sql.rows import tallies
from api.stores.sql.rows.decisions import (
    DECISION_COLUMNS,
    OUTCOME_COLUMNS,
    SETTLEMENT_COLUMNS,
    columns_of,
    decision_row,
    decisions_of,
    earlier_of,
    insert_rows,
    marks,
    outcome_of,
    outcome_row,
    settlement_of,
)
from bandit.catalogue.loading import read_stage
from bandit.catalogue.model import Stage
from bandit.errors import LedgerError, PolicyError
from bandit.records import NOT_NOW, Decision, Outcome, Settlement

SPECS = "SELECT key, digest, stage, body FROM specs ORDER BY key"
_ASKED = 1000  # users that one query is about
PAGE = 2000
"""Rows that a long read takes in one transaction."""


class SqlDecisionLog(SqlPart):
    """`DecisionLog` of one SQL ledger. It knows the declarations by their keys, and reads those again that another
    process has registered meanwhile.
    """

    def __init__(self, ledger: SqlConnections):
        super().__init__(ledger)
        self._by_digest: dict[str, Stage] = {}
        self._specs = self._load_specs()

    def register(self, stages: Mapping[str, Stage]) -> None:
        """As `DecisionLog.register`: in one transaction; known digests stay as they are."""
        rows = [(s.digest(), name, msgspec.json.encode(s).decode()) for name, s in stages.items()]
        with self._ledger.transaction() as conn:
            conn.executemany("INSERT OR IGNORE INTO specs (digest, stage, body) VALUES (?, ?, ?)", rows)
        self._specs = self._load_specs()

    def specs(self) -> Mapping[str, Stage]:
        """As `DecisionLog.specs`: a read-only view, which shows later registrations."""
        return MappingProxyType(self._by_digest)

    def declared(self, stage: str) -> set[str]:
        """As `DecisionLog.declared`: found by the database."""
        query = """SELECT DISTINCT s.digest FROM (SELECT DISTINCT spec FROM decisions WHERE stage = ? AND user <> x'') d
                   JOIN specs s ON s.key = d.spec"""
        return {digest for (digest,) in self._ledger.rows(query, (stage,))}

    def record(
        self,
        decisions: Sequence[Decision],
        outcomes: Sequence[Outcome],
        now: int,
        specs: Mapping[str, Stage],
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        """As `DecisionLog.record`: `admit` decides within the writing transaction, on what the ledger holds at that
        point; `now` in µs.
        """
        with self._ledger.transaction() as conn:
            ids = [d.id for d in decisions] + [o.decision for o in outcomes]
            known = self._find(conn, list(dict.fromkeys(ids)))
            next_seq = 1 + conn.execute("SELECT coalesce(max(seq), 0) FROM decisions").fetchone()[0]
            plan, kept, noted = admit(decisions, outcomes, now, specs, known, next_seq)
            if self._ledger.known is not None:
                self._ledger.known.add(d.user for _, d in plan.decisions)
            keys = {digest: key for key, digest, _ in self._specs}
            if any(d.stage_digest not in keys for _, d in plan.decisions):  # a reader has put back an older list
                self._specs = self._specs_of(conn.execute(SPECS).fetchall())
                keys = {digest: key for key, digest, _ in self._specs}
            rows = [(seq, keys[d.stage_digest], *decision_row(d)) for seq, d in plan.decisions]
            insert_rows(conn, "decisions", ("seq", "spec", *DECISION_COLUMNS), rows)
            waiting = [(seq, d.expires) for seq, d in plan.decisions if d.is_actionable]
            insert_rows(conn, "pending", ("decision_seq", "due"), waiting)
            insert_rows(conn, "outcomes", OUTCOME_COLUMNS, [outcome_row(o) for o in plan.outcomes])
            conn.executemany("UPDATE pending SET due = 0 WHERE decision_seq = ?", [(seq,) for seq in plan.hastened])
            conn.executemany("INSERT OR IGNORE INTO uncorrected VALUES (?)", [(seq,) for seq in plan.corrected])
        return kept, noted

    def decisions_by_id(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        """As `DecisionLog.decisions_by_id`, in one reading transaction."""
        with self._ledger.reading() as conn:
            return self._find(conn, list(dict.fromkeys(ids)))

    def decisions(self, stage: str | None = None, since: int = 0, after: int = 0) -> Iterator[DecisionRecord]:
        """As `DecisionLog.decisions`: read in pages of 2,000 rows, each in a transaction of its own, so rows that come
        meanwhile are read too.
        """
        query = f"""SELECT {columns_of("d")} FROM decisions d
                    WHERE d.seq > ? AND (? IS NULL OR d.stage = ?) AND d.at >= ? AND d.user <> x''
                    ORDER BY d.seq LIMIT {PAGE}"""  # noqa: S608
        last = after
        while True:
            with self._ledger.reading() as conn:
                found = self._complete(conn, conn.execute(query, (last, stage, stage, since)).fetchall())
            if not found:
                return
            yield from found
            last = found[-1].seq

    def decisions_after(self, after: int, most: int) -> list[DecisionRecord]:
        """As `DecisionLog.decisions_after`, in one reading transaction."""
        query = f"SELECT {columns_of('d')} FROM decisions d WHERE d.seq > ? AND d.user <> x'' ORDER BY d.seq LIMIT ?"  # noqa: S608
        with self._ledger.reading() as conn:
            return self._complete(conn, conn.execute(query, (after, most)).fetchall())

    def decisions_before(self, stage: str, before: int, most: int) -> list[DecisionRecord]:
        """As `DecisionLog.decisions_before`, in one reading transaction."""
        query = f"""SELECT {columns_of("d")} FROM decisions d WHERE d.stage = ? AND d.seq < ? AND d.user <> x''
                    ORDER BY d.seq DESC LIMIT ?"""  # noqa: S608
        with self._ledger.reading() as conn:
            return self._complete(conn, conn.execute(query, (stage, before, most)).fetchall())

    def decisions_found(self, wanted: DecisionFilter, above: int, before: int, most: int) -> list[DecisionRecord]:
        """As `DecisionLog.decisions_found`, in one reading transaction: along numbers, or of users by their index."""
        conditions, values = tallies.conditions(wanted, above, before)
        query = f"SELECT {columns_of('d')} FROM decisions d WHERE {conditions} ORDER BY d.seq DESC LIMIT ?"  # noqa: S608
        with self._ledger.reading() as conn:
            return self._complete(conn, conn.execute(query, (*values, most)).fetchall())

    def tally_decisions(self, after: int, through: int) -> DecisionTallies:
        """As `DecisionLog.tally_decisions`, in one reading transaction: counted by the database."""
        with self._ledger.reading() as conn:
            return tallies.of_decisions(conn, after, through)

    def tally_settlements(self, after: int, through: int) -> list[SettlementTally]:
        """As `DecisionLog.tally_settlements`, in one reading transaction: summed by the database."""
        with self._ledger.reading() as conn:
            return tallies.of_settlements(conn, after, through)

    def over_limit(self, stage: str, since: int, most: int) -> list[UserOverLimit]:
        """As `DecisionLog.over_limit`; an index has those over the limit alone."""
        query = """SELECT user, count(*), max(at) FROM decisions
                   WHERE stage = ? AND at > ? AND contribution = 0 GROUP BY user ORDER BY count(*) DESC, user LIMIT ?"""
        return [UserOverLimit(*row) for row in self._ledger.rows(query, (stage, since, most))]

    def earlier_decisions(self, asked: Sequence[tuple[bytes, int]], most: int) -> list[list[EarlierDecision]]:
        """As `DecisionLog.earlier_decisions`: one query, in one reading transaction, for every 1,000 of them."""
        found: list[list[EarlierDecision]] = [[] for _ in asked]
        for start in range(0, len(asked), _ASKED):
            part = asked[start : start + _ASKED]
            query = f"""WITH asked (number, user, before) AS (VALUES {", ".join(["(?, ?, ?)"] * len(part))})
                        SELECT a.number, d.at, d.arm, d.actions, substr(d.propensity, 1, 8), d.excluded
                        FROM asked a CROSS JOIN decisions d ON d.seq IN (
                            SELECT seq FROM decisions WHERE user = a.user AND seq < a.before AND holdout = 0
                            AND moment <> ? ORDER BY seq DESC LIMIT ?)
                        ORDER BY a.number, d.seq DESC"""  # noqa: S608
            values = [value for i, (user, before) in enumerate(part, start) for value in (i, user, before)]
            with self._ledger.reading() as conn:
                for number, *row in conn.execute(query, (*values, NOT_NOW, most)):
                    found[number].append(EarlierDecision._make(earlier_of(row)))
        return found

    def outcomes_after(self, stage: str, after: int, most: int) -> list[NumberedOutcome]:
        """As `DecisionLog.outcomes_after`, in one reading transaction."""
        columns = ", ".join(f"o.{column}" for column in OUTCOME_COLUMNS)
        query = f"""SELECT o.seq, d.seq, d.at, coalesce(v.seq, 0), {columns}
                    FROM outcomes o JOIN decisions d ON d.id = o.decision
                    LEFT JOIN outcomes v ON o.voids <> '' AND v.decision = o.decision AND v.id = o.voids
                    WHERE o.seq > ? AND d.stage = ? AND d.user <> x'' ORDER BY o.seq LIMIT ?"""  # noqa: S608
        with self._ledger.reading() as conn:
            rows = conn.execute(query, (after, stage, most)).fetchall()
        return [NumberedOutcome(row[0], row[1], row[2], row[3], outcome_of(row[4:])) for row in rows]

    def open_decisions(self, stage: str, at: LedgerPosition | None = None) -> Iterator[DecisionRecord]:
        """As `DecisionLog.open_decisions`: read in pages of 2,000 rows, each in a transaction of its own. Without `at`,
        rows that settle meanwhile may be missing.
        """
        end = at or LedgerPosition(LAST, LAST, LAST)
        among = (
            "pending p JOIN decisions d ON d.seq = p.decision_seq LEFT JOIN settlements s ON FALSE"
            if at is None
            else "decisions d LEFT JOIN settlements s ON s.decision_seq = d.seq AND s.corrects = 0"
        )
        query = f"""SELECT {columns_of("d")} FROM {among}
                    WHERE d.seq > ? AND d.seq <= ? AND d.stage = ? AND d.moment <> ? AND (s.seq IS NULL OR s.seq > ?)
                    AND d.user <> x''
                    ORDER BY d.seq LIMIT {PAGE}"""  # noqa: S608
        last = 0
        while True:
            with self._ledger.reading() as conn:
                rows = conn.execute(query, (last, end.decision, stage, NOT_NOW, end.settlement)).fetchall()
                found = self._complete(conn, rows, end.outcome)
            if not found:
                return
            yield from (f.with_settlements(()) for f in found)
            last = found[-1].seq

    def open_after(self, after: int, most: int, stages: Collection[str]) -> list[DecisionRecord]:
        """As `DecisionLog.open_after`, in one reading transaction."""
        query = f"""SELECT {columns_of("d")} FROM pending p CROSS JOIN decisions d ON d.seq = p.decision_seq
                    WHERE p.decision_seq > ? AND d.stage IN ({marks(stages)})
                    ORDER BY p.decision_seq LIMIT ?"""  # noqa: S608
        with self._ledger.reading() as conn:
            found = conn.execute(query, (after, *stages, most)).fetchall()
            return self._complete(conn, found, settled=False)

    def last(self) -> LedgerPosition:
        """As `DecisionLog.last`, in one reading transaction."""
        with self._ledger.reading() as conn:
            tables = ("decisions", "outcomes", "settlements", "releases")
            newest = (conn.execute(f"SELECT coalesce(max(seq), 0) FROM {t}").fetchone()[0] for t in tables)  # noqa: S608
            return LedgerPosition(*newest)

    def counts(self) -> RowCounts:
        """As `DecisionLog.counts`: one query a table, so under writing they may differ by a transaction."""
        tables = ("decisions", "outcomes", "settlements", "pending")
        return RowCounts(*(self._ledger.number(f"SELECT count(*) FROM {table}") for table in tables))  # noqa: S608

    def _find(self, conn: SqlConnection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        if not ids:
            return {}
        query = f"SELECT {columns_of('d')} FROM decisions d WHERE d.id IN ({marks(ids)})"  # noqa: S608
        rows = conn.execute(query, [i.bytes for i in ids]).fetchall()
        return {f.decision.id: f for f in self._complete(conn, rows)}

    def _complete(
        self, conn: SqlConnection, rows: Sequence[Any], through: int = LAST, *, settled: bool = True
    ) -> list[DecisionRecord]:
        """Add outcomes (those numbered up to `through`) and settlements to rows of decisions, of which some may be
        `settled`.
        """
        if not rows:
            return []
        specs = {key: digest for key, digest, _ in self._specs}
        if any(row[1] not in specs for row in rows):  # registered by the service since a reader opened the file
            self._specs = self._specs_of(conn.execute(SPECS).fetchall())
            specs = {key: digest for key, digest, _ in self._specs}
        decisions = decisions_of(specs, rows)
        outcomes: dict[bytes, list[Outcome]] = {}
        query = f"""SELECT {", ".join(OUTCOME_COLUMNS)} FROM outcomes
                    WHERE decision IN ({marks(rows)}) AND seq <= ? ORDER BY seq"""  # noqa: S608
        for row in conn.execute(query, [*(row[2] for row in rows), through]):
            outcomes.setdefault(row[0], []).append(outcome_of(row))
        ended = self._settlements(conn, [seq for seq, _ in decisions]) if settled else {}
        records = list[DecisionRecord]()
        for row, (seq, decision) in zip(rows, decisions, strict=True):
            told = tuple(outcomes.get(row[2], ()))
            done = ended.get(seq)
            records.append(
                DecisionRecord(seq, decision, told, done[-1], tuple(done[:-1]))
                if done
                else DecisionRecord(seq, decision, told, None)
            )
        return records

    def _settlements(self, conn: SqlConnection, seqs: Sequence[int]) -> dict[int, list[Settlement]]:
        """Settlements of decisions, by the numbers of these, in order; and those of others between them."""
        columns, found = ", ".join(("seq", *SETTLEMENT_COLUMNS)), dict[int, list[Settlement]]()
        first, last, values = min(seqs), max(seqs), seqs
        which = f"decision_seq IN ({marks(seqs)})"
        if last - first < 2 * len(seqs):  # most of those between are asked for: one range of the index
            which, values = "decision_seq BETWEEN ? AND ?", (first, last)
        for done in map(settlement_of, conn.execute(f"SELECT {columns} FROM settlements WHERE {which}", values)):  # noqa: S608
            found.setdefault(done.decision_seq, []).append(done)
        for several in found.values():
            several.sort(key=lambda done: done.seq)
        return found

    def _load_specs(self) -> list[tuple[int, str, Stage]]:
        return self._specs_of(self._ledger.rows(SPECS))

    def _specs_of(self, rows: Sequence[Any]) -> list[tuple[int, str, Stage]]:
        specs = [(key, digest, _declared(name, body)) for key, digest, name, body in rows]
        self._by_digest.update((digest, stage) for _, digest, stage in specs)
        return specs


def _declared(name: str, body: str) -> Stage:
    """A stored declaration. LedgerError if its policy is not installed."""
    try:
        return read_stage(msgspec.json.decode(body))
    except PolicyError as error:
        raise LedgerError(f"the ledger declares stage {name!r} with a policy that cannot be used: {error}") from error
