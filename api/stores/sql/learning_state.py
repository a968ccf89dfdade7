"""Learning state of a SQL ledger: settlements, and what is derived from them."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from api.stores.admission import finite
from api.stores.decision_log import DecisionRecord
from api.stores.learning_state import (
    DeclarationEra,
    Declarations,
    PersonReward,
    ServedStage,
    StageSettlement,
    StatisticsKey,
    StatisticsUpdate,
    StoredStatistics,
    WarmStart,
)
from api.stores.sql.decision_log import PAGE, SPECS, SqlDecisionLog
from api.stores.sql.rows import learning
from api.stores.sql.rows.decisions import (
    SETTLEMENT_COLUMNS,
    columns_of,
    delete_rows,
    insert_rows,
    marks,
    settlement_of,
    settlement_row,
)
from bandit.arrays import Array
from bandit.belief import Belief
from bandit.errors import LedgerError
from bandit.records import MaturedDecision, Settlement


class SqlLearningState(SqlDecisionLog):
    """`LearningState` of one SQL ledger, over its decision log: settlements are of decisions there."""

    def matured(self, now: int, limit: int, stages: Collection[str]) -> list[MaturedDecision]:
        """As `LearningState.matured`, on the writing connection; `now` in µs."""
        conn = self._ledger.writer()
        query = f"""SELECT {columns_of("d")} FROM pending p JOIN decisions d ON d.seq = p.decision_seq
                    WHERE p.due <= ? AND d.stage IN ({marks(stages)})
                    ORDER BY p.due, p.decision_seq LIMIT ?"""  # noqa: S608
        found = self._complete(conn, conn.execute(query, (now, *stages, limit)).fetchall(), settled=False)
        query = f"""SELECT {columns_of("d")} FROM uncorrected u CROSS JOIN decisions d ON d.seq = u.decision_seq
                    WHERE d.stage IN ({marks(stages)}) ORDER BY u.decision_seq LIMIT ?"""  # noqa: S608
        found += self._complete(conn, conn.execute(query, (*stages, limit - len(found))).fetchall())
        return [MaturedDecision(*f[:4]) for f in found]

    def settle(
        self, settlements: Sequence[Settlement], updates: Sequence[StatisticsUpdate] = (), standing: Sequence[int] = ()
    ) -> dict[str, int]:
        """As `LearningState.settle`, in one transaction."""
        finite(settlements)
        with self._ledger.transaction() as conn:
            last = conn.execute("SELECT coalesce(max(seq), 0) FROM settlements").fetchone()[0]
            rows = [(last + i, *settlement_row(s)) for i, s in enumerate(settlements, 1)]
            insert_rows(conn, "settlements", ("seq", *SETTLEMENT_COLUMNS), rows)
            done = [s.decision_seq for s in settlements if not s.corrects]
            if delete_rows(conn, "pending", "decision_seq", done) != len(done):
                raise LedgerError("the ledger refused a row: a decision is unknown, or settled already")
            done = [*(s.decision_seq for s in settlements if s.corrects), *standing]
            if delete_rows(conn, "uncorrected", "decision_seq", done) != len(done):
                raise LedgerError("the ledger refused a row: nothing new was reported of a settled decision")
            versions = {s.stage: last + i for i, s in enumerate(settlements, 1)}
            conn.executemany("INSERT OR REPLACE INTO versions VALUES (?, ?)", list(versions.items()))
            for update in updates:
                learning.replace(conn, update)
        return versions

    def settled(
        self, stage: str, through: int | None = None, after: int = 0
    ) -> Iterator[tuple[Settlement, Array, str]]:
        """As `LearningState.settled`, x (d,): read in pages of 2,000 rows, up to what was newest at the beginning."""
        columns = ", ".join(f"s.{c}" for c in ("seq", *SETTLEMENT_COLUMNS))
        query = f"""SELECT {columns}, d.spec, d.x FROM settlements s JOIN decisions d ON d.seq = s.decision_seq
                    WHERE s.stage = ? AND s.seq > ? AND s.seq <= ? AND d.user <> x''
                    ORDER BY s.seq LIMIT {PAGE}"""  # noqa: S608
        last, end = (
            after,
            through if through is not None else self._ledger.number("SELECT coalesce(max(seq), 0) FROM settlements"),
        )
        while rows := self._ledger.rows(query, (stage, last, end)):
            specs = {key: digest for key, digest, _ in self._load_specs()}
            for *done, spec, x in rows:
                yield settlement_of(done), np.frombuffer(x, dtype="<f4").astype(np.float64), specs[spec]
            last = rows[-1][0]

    def settlements_after(self, after: int, most: int) -> list[tuple[int, DecisionRecord]]:
        """As `LearningState.settlements_after`, in one reading transaction."""
        query = f"""SELECT s.seq, {columns_of("d")} FROM settlements s JOIN decisions d ON d.seq = s.decision_seq
                    WHERE s.seq > ? AND d.user <> x'' ORDER BY s.seq LIMIT ?"""  # noqa: S608
        with self._ledger.reading() as conn:
            rows = conn.execute(query, (after, most)).fetchall()
            found = self._complete(conn, [row[1:] for row in rows])
        return [(number, one) for (number, *_), one in zip(rows, found, strict=True)]

    def stage_settlements_after(self, stage: str, after: int, most: int) -> list[StageSettlement]:
        """As `LearningState.stage_settlements_after`: read by the index of stages."""
        columns = ", ".join(f"s.{column}" for column in ("seq", *SETTLEMENT_COLUMNS))
        query = f"""SELECT d.id, d.at, {columns} FROM settlements s JOIN decisions d ON d.seq = s.decision_seq
                    WHERE s.stage = ? AND s.seq > ? AND d.user <> x'' ORDER BY s.seq LIMIT ?"""  # noqa: S608
        rows = self._ledger.rows(query, (stage, after, most))
        return [StageSettlement(uuid.UUID(bytes=row[0]), row[1], settlement_of(row[2:])) for row in rows]

    def version(self, stage: str) -> int:
        """As `LearningState.version`."""
        return sum(v for (v,) in self._ledger.rows("SELECT version FROM versions WHERE stage = ?", (stage,)))

    def statistics(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> StoredStatistics:
        """As `LearningState.statistics`, in one reading transaction."""
        with self._ledger.reading() as conn:
            return learning.statistics(conn, key, rows, d)

    def replace_statistics(self, update: StatisticsUpdate) -> None:
        """As `LearningState.replace_statistics`, in one transaction."""
        with self._ledger.transaction() as conn:
            learning.replace(conn, update)

    def person_rewards(self, key: StatisticsKey, holdout: float) -> list[PersonReward]:
        """As `LearningState.person_rewards`: summed by the database, on a connection that keeps nobody waiting."""
        query = """SELECT d.user, d.holdout, s.arm, count(*), sum(s.reward)
                   FROM settlements s JOIN decisions d ON d.seq = s.decision_seq
                   WHERE s.stage = ? AND d.spec IN ({under})
                   AND CASE WHEN s.corrects = 0 THEN s.seq ELSE s.corrects END > ?
                   AND d.user <> x'' AND s.why <> 'erased'
                   AND NOT EXISTS (SELECT 1 FROM settlements n WHERE n.decision_seq = s.decision_seq AND n.seq > s.seq)
                   GROUP BY d.user, d.holdout, s.arm ORDER BY d.user, s.arm, d.holdout"""
        first = self.first_settlement(key)
        with self._ledger.beside() as conn:
            specs = self._specs_of(conn.execute(SPECS).fetchall())
            under = [number for number, _, spec in specs if spec.holdout == holdout]
            query = query.format(under=", ".join("?" * len(under)))
            rows = conn.execute(query, (key.stage, *under, first)).fetchall() if under else []
        return [PersonReward(user, bool(held), arm, n, float(reward)) for user, held, arm, n, reward in rows]

    def first_settlement(self, key: StatisticsKey) -> int:
        """As `LearningState.first_settlement`."""
        query = "SELECT coalesce(max(after), 0) FROM schema_starts WHERE stage = ? AND schema = ?"
        return int(self._ledger.rows(query, key)[0][0])

    def warm_start(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> tuple[WarmStart, Belief] | None:
        """As `LearningState.warm_start`, in one reading transaction."""
        with self._ledger.reading() as conn:
            return learning.warm_start(conn, key, rows, d)

    def put_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """As `LearningState.put_warm_start`, in one transaction."""
        with self._ledger.transaction() as conn:
            learning.put_warm_start(conn, key, warm, rows, belief)

    def replace_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """As `LearningState.replace_warm_start`, in one transaction."""
        with self._ledger.transaction() as conn:
            for table in ("warm_starts", "warm_sums"):
                conn.execute(f"DELETE FROM {table} WHERE stage = ? AND schema = ?", key)  # noqa: S608
            learning.put_warm_start(conn, key, warm, rows, belief)

    def declarations(self) -> Declarations:
        """As `LearningState.declarations`, in one reading transaction."""
        with self._ledger.reading() as conn:
            return learning.declarations(conn)

    def declare(
        self,
        served: Mapping[str, ServedStage],
        schemas: Mapping[StatisticsKey, int],
        era: DeclarationEra | None,
        arithmetic: tuple[int, int] | None,
    ) -> None:
        """As `LearningState.declare`, in one transaction."""
        with self._ledger.transaction() as conn:
            learning.declare(conn, served, schemas, era, arithmetic)
