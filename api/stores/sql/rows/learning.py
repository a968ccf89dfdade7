"""Rows of derived learning state in a SQL ledger: statistics, warm starts, declarations. Sums are float64,
little-endian, so that what is read has the bits that were written.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from api.stores.learning_state import (
    DeclarationEra,
    Declarations,
    ServedStage,
    StatisticsKey,
    StatisticsUpdate,
    StoredExposures,
    StoredStatistics,
    WarmStart,
)
from api.stores.sql.connection import SqlConnection
from api.stores.sql.rows.decisions import marks
from bandit.belief import Belief
from bandit.learning.delay import BUCKETS
from bandit.learning.drift import DriftAlarm, DriftState
from bandit.learning.nudge_price import NudgeSums
from bandit.reporters.reward_watch import RewardWatch

_pack, _watch = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(RewardWatch).decode
_NUDGES = NudgeSums._fields[:-2]
_SUMS = "arm, count, reward, square, precision, shift"


def replace(conn: SqlConnection, update: StatisticsUpdate) -> None:
    """Overwrite what an update of statistics names; None in the update leaves a part as it is. Whoever calls holds the
    transaction.
    """
    key = update.key
    for epoch, belief in update.epochs.items():
        rows = [(*key, epoch, *row) for row in _sums(update.rows, belief)]
        conn.executemany("INSERT OR REPLACE INTO statistics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    if update.drift_state is not None:
        _put_drift(conn, key, update.drift_state)
    if update.delays is not None:
        conn.execute("INSERT OR IGNORE INTO delay_counts VALUES (?, ?)", key)
        conn.execute("DELETE FROM answer_delays WHERE stage = ? AND schema = ?", key)
        counts = [(*key, arm, b, n) for arm, row in update.delays.items() for b, n in enumerate(row) if n]
        conn.executemany("INSERT INTO answer_delays VALUES (?, ?, ?, ?, ?)", counts)
    if update.exposures is not None:
        _put_exposures(conn, key, update.exposures)
    if update.nudges is not None:
        _put_nudges(conn, key, update.nudges)
    if update.reward_watch is not None:
        row = (*key, _pack(update.reward_watch))
        conn.execute("INSERT OR REPLACE INTO reward_watches VALUES (?, ?, ?)", row)


def statistics(conn: SqlConnection, key: StatisticsKey, rows: tuple[str, ...], d: int) -> StoredStatistics:
    """Statistics of a key over these rows and d columns, zeros where nothing is kept. Whoever calls holds a reading
    transaction, so that all of it is of one version.
    """
    version = conn.execute("SELECT version FROM versions WHERE stage = ?", (key.stage,)).fetchone()
    state = _drift(conn, key)
    query = f"SELECT {_SUMS} FROM statistics WHERE stage = ? AND schema = ? AND epoch = ?"  # noqa: S608
    epochs = tuple(_belief(conn.execute(query, (*key, e)), rows, d) for e in range(state.epoch + 1))
    counted = conn.execute("SELECT 1 FROM delay_counts WHERE stage = ? AND schema = ?", key).fetchone()
    delays: dict[str, list[int]] = {}
    query = "SELECT arm, bucket, answers FROM answer_delays WHERE stage = ? AND schema = ?"
    for arm, bucket, answers in conn.execute(query, key):
        delays.setdefault(arm, [0] * BUCKETS)[bucket] = answers
    kept = delays if counted else None
    rest = _exposures(conn, key), _nudges(conn, key), _reward_watch(conn, key)
    return StoredStatistics(version[0] if version else 0, epochs, state, kept, *rest)


def warm_start(
    conn: SqlConnection, key: StatisticsKey, rows: tuple[str, ...], d: int
) -> tuple[WarmStart, Belief] | None:
    """Warm start of a key with its sums over these rows and d columns; None if there was none. Whoever calls holds a
    reading transaction.
    """
    query = "SELECT weight, rows, digest, since FROM warm_starts WHERE stage = ? AND schema = ?"
    found = conn.execute(query, key).fetchone()
    if found is None:
        return None
    sums = conn.execute(f"SELECT {_SUMS} FROM warm_sums WHERE stage = ? AND schema = ?", key)  # noqa: S608
    warm = WarmStart(weight=found[0], rows=found[1], digest=found[2], since=found[3])
    return warm, _belief(sums, rows, d)


def put_warm_start(
    conn: SqlConnection, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief
) -> None:
    """Insert a warm start and its sums; sqlite3.IntegrityError if the key has one. Whoever calls holds
    the transaction.
    """
    row = (*key, warm.weight, warm.rows, warm.digest, warm.since)
    conn.execute("INSERT INTO warm_starts VALUES (?, ?, ?, ?, ?, ?)", row)
    sums = [(*key, *one) for one in _sums(rows, belief)]
    conn.executemany("INSERT INTO warm_sums VALUES (?, ?, ?, ?, ?, ?, ?, ?)", sums)


def declarations(conn: SqlConnection) -> Declarations:
    """Declarations that were served when: stages as last served, eras and arithmetics in order. Whoever calls holds a
    reading transaction.
    """
    served = {
        stage: ServedStage(digest, learning, schema)
        for stage, digest, learning, schema in conn.execute(
            "SELECT stage, digest, learning_digest, schema FROM served_stages ORDER BY stage"
        )
    }
    eras: dict[int, dict[str, str]] = {}
    for first, stage, digest in conn.execute("SELECT first, stage, digest FROM declaration_eras ORDER BY first, stage"):
        eras.setdefault(first, {})[stage] = digest
    arithmetics = conn.execute("SELECT first, number FROM arithmetics ORDER BY first").fetchall()
    return Declarations(
        served, [DeclarationEra(first, digests) for first, digests in eras.items()], [tuple(r) for r in arithmetics]
    )


def declare(
    conn: SqlConnection,
    served: Mapping[str, ServedStage],
    schemas: Mapping[StatisticsKey, int],
    era: DeclarationEra | None,
    arithmetic: tuple[int, int] | None,
) -> None:
    """Keep what is served from now on; an era or an arithmetic replaces one that begins with the same decision. Whoever
    calls holds the transaction.
    """
    update = """INSERT INTO served_stages (stage, digest, learning_digest, schema) VALUES (?, ?, ?, ?)
                ON CONFLICT (stage) DO UPDATE SET digest = excluded.digest,
                learning_digest = excluded.learning_digest, schema = excluded.schema"""
    conn.executemany(update, [(stage, *one) for stage, one in served.items()])
    rows = [(*key, after) for key, after in schemas.items()]
    conn.executemany("INSERT OR REPLACE INTO schema_starts VALUES (?, ?, ?)", rows)
    if era is not None:
        conn.execute("DELETE FROM declaration_eras WHERE first = ?", (era.first,))
        eras = [(era.first, stage, digest) for stage, digest in era.digests.items()]
        conn.executemany("INSERT INTO declaration_eras (first, stage, digest) VALUES (?, ?, ?)", eras)
    if arithmetic is not None:
        conn.execute("INSERT OR REPLACE INTO arithmetics VALUES (?, ?)", arithmetic)


def _put_drift(conn: SqlConnection, key: StatisticsKey, state: DriftState) -> None:
    conn.execute("DELETE FROM drift_sums WHERE stage = ? AND schema = ?", key)
    sides = (("up", state.up), ("down", state.down))
    sums = [(*key, direction, arm, value) for direction, side in sides for arm, value in side.items()]
    conn.executemany("INSERT INTO drift_sums VALUES (?, ?, ?, ?, ?)", sums)
    alarms = [(*key, i, a.arm, a.direction, a.through, a.at) for i, a in enumerate(state.alarms)]
    conn.executemany("INSERT OR REPLACE INTO drift_alarms VALUES (?, ?, ?, ?, ?, ?, ?)", alarms)


def _put_exposures(conn: SqlConnection, key: StatisticsKey, sums: StoredExposures) -> None:
    days = np.array(sorted(sums.days), dtype="<i8").tobytes()
    row = (*key, sums.learning_digest, sums.through, sums.decisions, sums.first, sums.nudges, sums.cost, days)
    conn.execute("INSERT OR REPLACE INTO exposures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    conn.execute("DELETE FROM exposure_effects WHERE stage = ? AND schema = ?", key)
    effects = [(*key, arm, values.astype("<f8").tobytes()) for arm, values in sums.effect.items()]
    conn.executemany("INSERT INTO exposure_effects VALUES (?, ?, ?, ?)", effects)


def _exposures(conn: SqlConnection, key: StatisticsKey) -> StoredExposures | None:
    columns = "learning_digest, through, decisions, first, days, nudges, cost"
    found = conn.execute(f"SELECT {columns} FROM exposures WHERE stage = ? AND schema = ?", key).fetchone()  # noqa: S608
    if found is None:
        return None
    digest, through, decisions, first, days, nudges, cost = found
    query = "SELECT arm, effect FROM exposure_effects WHERE stage = ? AND schema = ?"
    effect = {arm: np.frombuffer(data, dtype="<f8").astype(np.float64) for arm, data in conn.execute(query, key)}
    on = frozenset(np.frombuffer(days, dtype="<i8").tolist())
    return StoredExposures(digest, through, decisions, first, on, nudges, cost, effect)


def _put_nudges(conn: SqlConnection, key: StatisticsKey, sums: NudgeSums) -> None:
    row = (*key, *sums[:-2])
    conn.execute(f"INSERT OR REPLACE INTO nudge_sums VALUES ({marks(row)})", row)  # noqa: S608
    conn.execute("DELETE FROM nudge_days WHERE stage = ? AND schema = ?", key)
    days = [(*key, day, n, sums.opt_out_days.get(day, 0)) for day, n in sums.days.items()]
    conn.executemany("INSERT INTO nudge_days VALUES (?, ?, ?, ?, ?)", days)


def _nudges(conn: SqlConnection, key: StatisticsKey) -> NudgeSums:
    columns = ", ".join(_NUDGES)
    found = conn.execute(f"SELECT {columns} FROM nudge_sums WHERE stage = ? AND schema = ?", key).fetchone()  # noqa: S608
    if found is None:
        return NudgeSums()
    query = "SELECT day, decisions, opt_outs FROM nudge_days WHERE stage = ? AND schema = ? ORDER BY day"
    days = conn.execute(query, key).fetchall()
    counts = {day: n for day, n, _ in days}, {day: out for day, _, out in days if out}
    return NudgeSums._make((*found, *counts))


def _reward_watch(conn: SqlConnection, key: StatisticsKey) -> RewardWatch:
    found = conn.execute("SELECT state FROM reward_watches WHERE stage = ? AND schema = ?", key).fetchone()
    return RewardWatch() if found is None else _watch(found[0])


def _drift(conn: SqlConnection, key: StatisticsKey) -> DriftState:
    sums: dict[str, dict[str, float]] = {"up": {}, "down": {}}
    query = "SELECT direction, arm, value FROM drift_sums WHERE stage = ? AND schema = ?"
    for direction, arm, value in conn.execute(query, key):
        sums[direction][arm] = value
    query = "SELECT arm, direction, through, at FROM drift_alarms WHERE stage = ? AND schema = ? ORDER BY number"
    alarms = [
        DriftAlarm(arm=arm, direction=direction, through=through, at=at)
        for arm, direction, through, at in conn.execute(query, key)
    ]
    return DriftState(sums["up"], sums["down"], tuple(alarms))


def _sums(rows: Sequence[str], belief: Belief) -> list[tuple[Any, ...]]:
    return [
        (
            row,
            float(belief.n[i]),
            float(belief.reward[i]),
            float(belief.square[i]),
            belief.precision[i].astype("<f8").tobytes(),
            belief.shift[i].astype("<f8").tobytes(),
        )
        for i, row in enumerate(rows)
    ]


def _belief(found: Iterable[Sequence[Any]], rows: Sequence[str], d: int) -> Belief:
    sums = {row[0]: row[1:] for row in found}
    zero = (0.0, 0.0, 0.0, bytes(8 * d * d), bytes(8 * d))
    table = [sums.get(row, zero) for row in rows]
    n, reward, square = (np.array([row[i] for row in table], dtype=np.float64) for i in range(3))
    precision = np.array([np.frombuffer(row[3], dtype="<f8").reshape(d, d) for row in table])
    shift = np.array([np.frombuffer(row[4], dtype="<f8") for row in table])
    return Belief(n, reward, square, precision, shift)
