"""Conversion of records to rows of a SQL ledger and back, without loss: x and the features of actions are on the
2⁻¹² grid, so float32 and 16-bit integers hold them exactly; other arrays are float64. A loss account is
MessagePack, which keeps its bits.
"""

import functools
import struct
import uuid
import zlib
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from api.stores.sql.connection import SqlConnection
from bandit.arrays import Array
from bandit.belief import X_GRID
from bandit.catalogue.model import NONE
from bandit.guardrails import NO_CONSENT
from bandit.learning.loss_account import LossAccount
from bandit.records import Decision, Outcome, PendingBasis, Release, Settlement

DECISION_COLUMNS = (
    "id", "at", "expires", "stage", "version", "user", "request", "x", "propensity", "mean", "sd", "u", "arm",
    "holdout", "excluded", "evidence", "notes", "basis_at", "basis_decisions", "basis_outcomes", "moment",
    "deferred", "actions", "phi", "release", "unit", "loss_account", "candidate", "contribution",
)  # fmt: skip
OUTCOME_COLUMNS = (
    "decision", "id", "kind", "value", "occurred", "received", "late", "fact", "voids", "reporter", "withdrawal",
)  # fmt: skip
RELEASE_COLUMNS = tuple(field for field in Release.__struct_fields__ if field != "seq")
SETTLEMENT_COLUMNS = (
    "decision_seq", "stage", "arm", "at", "reward", "why", "learned", "tau", "nu", "corrects", "outcomes",
)  # fmt: skip

_F4, _F8 = np.dtype("<f4"), np.dtype("<f8")
_encode = msgspec.json.Encoder().encode
_pack, _account = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(LossAccount).decode
_decode = msgspec.json.Decoder().decode
_first = struct.Struct("<d").unpack
_names = msgspec.json.Decoder(tuple[str, ...]).decode
_NO_PHI = np.zeros((0, 0))
_TOGETHER = (64, 32, 16, 8, 4, 2, 1)  # rows of one statement: few statements, so that they stay prepared


def decision_row(d: Decision) -> tuple[Any, ...]:
    """Row of a decision: values in the order of DECISION_COLUMNS. Arrays x (d,), propensity, mean and sd (k,) are
    little-endian bytes.
    """
    x = d.x.astype("<f4").tobytes()
    arrays = (
        d.propensity.astype("<f8").tobytes(),
        d.mean.astype("<f8").tobytes(),
        d.sd.astype("<f8").tobytes(),
    )
    texts = (_encode(d.excluded).decode(), _encode(d.evidence).decode(), _encode(d.notes).decode())
    head = (d.id.bytes, d.at, d.expires, d.stage, d.settlement_version, d.user, d.request, x)
    offered = (_encode(d.actions).decode(), _packed(d.phi)) if d.actions else ("", b"")
    return (
        *head,
        *arrays,
        d.u,
        d.arm,
        int(d.holdout),
        *texts,
        *d.pending_basis,
        d.moment,
        int(d.deferred),
        *offered,
        d.release,
        d.unit,
        b"" if d.loss_account is None else _pack(d.loss_account),
        d.candidate.astype("<f8").tobytes(),
        d.contribution,
    )


def decisions_of(specs: Mapping[int, str], rows: Sequence[tuple[Any, ...]]) -> list[tuple[int, Decision]]:
    """Numbers and decisions of rows that have their number, the key of their declaration, then DECISION_COLUMNS: the
    inverse of `decision_row`. `specs`: digests of the declarations by key.

    Arrays of one column are decoded together, and what many rows share (a loss account, a basis) once: a row costs a
    third of what it does alone.
    """
    x, propensity, mean, sd, candidate = (
        _arrays([row[i] for row in rows], kind) for i, kind in ((9, _F4), (10, _F8), (11, _F8), (12, _F8), (29, _F8))
    )
    accounts, bases = dict[bytes, LossAccount | None]({b"": None}), dict[tuple[int, ...], PendingBasis]()
    found = list[tuple[int, Decision]]()
    for i, row in enumerate(rows):
        if (account := row[28]) not in accounts:
            accounts[account] = _account(account)
        if (basis := row[19:22]) not in bases:
            bases[basis] = PendingBasis(*basis)
        decision = Decision(
            stage_digest=specs[row[1]],
            id=uuid.UUID(bytes=row[2]),
            at=row[3],
            expires=row[4],
            stage=row[5],
            settlement_version=row[6],
            user=row[7],
            request=row[8],
            x=x[i],
            propensity=propensity[i],
            mean=mean[i],
            sd=sd[i],
            u=row[13],
            arm=row[14],
            holdout=bool(row[15]),
            excluded={} if row[16] == "{}" else _decode(row[16]),
            evidence={} if row[17] == "{}" else _decode(row[17]),
            notes=() if row[18] == "[]" else _names(row[18]),
            pending_basis=bases[basis],
            moment=row[22],
            deferred=bool(row[23]),
            actions=_names(row[24]) if row[24] else (),
            phi=_unpacked(row[25], len(row[9]) // 4) if row[25] else _NO_PHI,
            release=row[26],
            unit=row[27],
            loss_account=accounts[account],
            candidate=candidate[i],
            contribution=row[30],
        )
        found.append((row[0], decision))
    return found


def earlier_of(row: Sequence[Any]) -> tuple[int, bool, float, bool]:
    """When, whether a nudge was drawn, with which probability, and whether one was refused for want of consent: of a
    row (at, arm, actions, propensity of the first arm, excluded).
    """
    at, arm, actions, first, excluded = row
    none = _names(actions)[0] if actions else NONE
    refused = NO_CONSENT in excluded and any(v.startswith(NO_CONSENT) for v in msgspec.json.decode(excluded).values())
    return at, arm != none, 1.0 - _first(first)[0], refused


def outcome_row(o: Outcome) -> tuple[Any, ...]:
    """Row of an outcome: values in the order of OUTCOME_COLUMNS."""
    reported = (o.occurred, o.received, int(o.late))
    return (o.decision.bytes, o.id, o.kind, o.value, *reported, o.fact, o.voids, o.reporter, o.withdrawal)


def outcome_of(row: Sequence[Any]) -> Outcome:
    """Outcome of a row in the order of OUTCOME_COLUMNS: the inverse of `outcome_row`."""
    return Outcome(
        decision=uuid.UUID(bytes=row[0]),
        id=row[1],
        kind=row[2],
        value=row[3],
        occurred=row[4],
        received=row[5],
        late=bool(row[6]),
        fact=row[7],
        voids=row[8],
        reporter=row[9],
        withdrawal=row[10],
    )


def settlement_row(s: Settlement) -> tuple[Any, ...]:
    """Row of a settlement without its number: values in the order of SETTLEMENT_COLUMNS."""
    learned = (s.reward, s.why, int(s.learned), s.tau, s.nu)
    return (s.decision_seq, s.stage, s.arm, s.at, *learned, s.corrects, s.outcomes)


def settlement_of(row: Sequence[Any]) -> Settlement:
    """Settlement of a row that has its number first, then SETTLEMENT_COLUMNS."""
    return Settlement(
        seq=row[0],
        decision_seq=row[1],
        stage=row[2],
        arm=row[3],
        at=row[4],
        reward=row[5],
        why=row[6],
        learned=bool(row[7]),
        tau=row[8],
        nu=row[9],
        corrects=row[10],
        outcomes=row[11],
    )


def _packed(phi: Array) -> bytes:
    """Features of actions: within [−1, 1] on the 2⁻¹² grid, so whole numbers of 16 bits, most of them 0."""
    return zlib.compress((phi * X_GRID).astype("<i2").tobytes(), level=1)


def _unpacked(blob: bytes, d: int) -> Array:
    return np.frombuffer(zlib.decompress(blob), dtype="<i2").astype(np.float64).reshape(-1, d) / X_GRID


def _arrays(blobs: Sequence[bytes], kind: np.dtype[Any]) -> Sequence[Array]:
    """Array (width,) of each blob; rows of one matrix where all blobs are as wide."""
    if len(set(map(len, blobs))) > 1:
        return [np.frombuffer(blob, dtype=kind).astype(np.float64) for blob in blobs]
    table = np.frombuffer(b"".join(blobs), dtype=kind).astype(np.float64)
    return list(table.reshape(len(blobs), -1) if len(table) else np.zeros((len(blobs), 0)))


def columns_of(alias: str) -> str:
    """Columns of a decision as `decisions_of` wants them, with its number and its declaration, of a table's alias."""
    return ", ".join(f"{alias}.{c}" for c in ("seq", "spec", *DECISION_COLUMNS))


@functools.cache
def insert(table: str, columns: tuple[str, ...], rows: int = 1) -> str:
    """Statement that appends so many rows of these columns."""
    each = f"({marks(columns)})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([each] * rows)}"  # noqa: S608


def insert_rows(conn: SqlConnection, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
    """Append rows of these columns, many in one statement: between two statements other threads take the interpreter's
    lock, and the writer waits for it.
    """
    at = 0
    for size in _TOGETHER:
        while len(rows) - at >= size:
            conn.execute(insert(table, columns, size), list(chain.from_iterable(rows[at : at + size])))
            at += size


def delete_rows(conn: SqlConnection, table: str, column: str, values: Sequence[int]) -> int:
    """Delete the rows of a table that have one of these values in a column, many in one statement, as `insert_rows`
    does; returns how many there were.
    """
    at = deleted = 0
    for size in _TOGETHER:
        while len(values) - at >= size:
            deleted += conn.execute(delete(table, column, size), values[at : at + size]).rowcount
            at += size
    return deleted


@functools.cache
def delete(table: str, column: str, values: int) -> str:
    """Statement that deletes the rows that have one of so many values in a column."""
    return f"DELETE FROM {table} WHERE {column} IN ({marks(range(values))})"  # noqa: S608


def marks(values: Collection[Any]) -> str:
    """A placeholder for each value, for IN and VALUES."""
    return ", ".join("?" * len(values)) or "NULL"
