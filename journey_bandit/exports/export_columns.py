"""Export columns: what an export has of each decision, as an Arrow table.

First come the numbered columns that an evaluation reads (`bandit.tables.decision_log`, and `eligible_<a>`), then the
same and more under names, for people: guide `exports`.

Shapes: n decisions, k arms.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from api.stores.decision_log import DecisionRecord
from bandit import features
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import ArmWorth
from experiments.data.part_files import NUMBER
from experiments.data.rounds import LoggedRounds
from journey_bandit.workflows.ledger_log import LedgerLog


def table(log: LedgerLog, worth: ArmWorth, records: Sequence[DecisionRecord], rounds: LoggedRounds) -> Any:
    """Arrow table of n decisions: their `records` and `rounds`, as `ledger_log.batches` gives them; `worth` is that of
    the log.
    """
    columns = {**_evaluated(log, records, rounds), **_of_people(log, worth, records, rounds)}
    columns |= {f"f_{name}": values for name, values in _features(log, records)}
    return pa.table(columns)


def _evaluated(log: LedgerLog, records: Sequence[DecisionRecord], rounds: LoggedRounds) -> dict[str, Any]:
    """Columns as `experiments.data.files` reads them; q̂ on [0, 1], as logs of ours have it."""
    low, high = log.rewards
    plain = {
        NUMBER: np.array([found.seq for found in records], dtype=np.int64),
        "user": rounds.user,
        "at": rounds.at,
        "version": rounds.version,
        "action": rounds.action.astype(np.int16),
        "reward": pa.array(rounds.reward, from_pandas=True),
        "pscore": rounds.pscore,
        "holdout": rounds.holdout,
        "segment": None if rounds.segment is None else pa.array(rounds.segment.tolist(), pa.string()),
    }
    wide = {
        "x": rounds.x,
        "p": rounds.propensities,
        "q_hat": None if rounds.q_hat is None else (rounds.q_hat - low) / (high - low),
        "eligible": rounds.eligible,
    }
    each = {f"{name}_{i}": part[:, i] for name, part in wide.items() if part is not None for i in range(part.shape[1])}
    return {**{name: part for name, part in plain.items() if part is not None}, **each}


def _of_people(
    log: LedgerLog, worth: ArmWorth, records: Sequence[DecisionRecord], rounds: LoggedRounds
) -> dict[str, Any]:
    assert rounds.q_hat is not None  # noqa: S101 - a ledger has all of these
    assert rounds.propensities is not None  # noqa: S101
    assert rounds.eligible is not None  # noqa: S101
    names = pa.array(log.arms, pa.string())
    begins = np.concatenate([[0], np.cumsum(rounds.eligible.sum(axis=1))]).astype(np.int32)
    found = {
        "decision_id": _dashed([one.decision.id.bytes for one in records]),
        "user_hash": pa.array([one.decision.user.hex() for one in records], pa.string()),
        "time": pa.array(rounds.at, pa.timestamp("us", tz="UTC")),
        "arm": names.take(pa.array(rounds.action)),
        "eligible": pa.ListArray.from_arrays(begins, names.take(pa.array(np.nonzero(rounds.eligible)[1]))),
        "release": np.array([one.decision.release for one in records], dtype=np.int64),
        "holdout_share": rounds.holdout_share,
        "why": pa.array([one.settlement and one.settlement.why for one in records], pa.string()),
        "net": pa.array(worth.net(rounds.reward, rounds.action), from_pandas=True),
        "expected_net_none": worth.net(rounds.q_hat[:, 0], 0),
    }
    by_arm = {"propensity": rounds.propensities, "score": rounds.q_hat}
    return found | {f"{what}_{arm}": part[:, a] for what, part in by_arm.items() for a, arm in enumerate(log.arms)}


def _dashed(ids: Sequence[bytes]) -> Any:
    """Texts of n UUIDs, each of 16 bytes, as `str` of a UUID writes them."""
    digits = np.frombuffer(b"".join(ids).hex().encode(), dtype=np.uint8).reshape(-1, 32)
    texts = np.full((len(ids), 36), ord("-"), dtype=np.uint8)
    for at, (begin, end) in enumerate(pairwise((0, 8, 12, 16, 20, 32))):
        texts[:, begin + at : end + at] = digits[:, begin:end]
    return pa.array(texts.view("S36").ravel(), pa.binary()).cast(pa.string())


def _features(log: LedgerLog, records: Sequence[DecisionRecord]) -> Iterator[tuple[str, Any]]:
    """Name and values of each feature, as the declaration encoded it that the decision was made under."""
    rows = dict[str, list[int]]()
    for i, one in enumerate(records):
        rows.setdefault(one.decision.stage_digest, []).append(i)
    specs, n = log.store.specs(), len(records)
    parts = [(mine, _decoded(specs, digest, [records[i] for i in mine])) for digest, mine in rows.items()]
    for name, feature in log.spec.features.items():
        kind = {"category": pa.string(), "boolean": pa.bool_()}.get(feature.type, pa.float64())
        values, missing = np.empty(n, dtype=object if kind == pa.string() else kind.to_pandas_dtype()), np.ones(n, bool)
        for mine, decoded in parts:
            if name in decoded:
                values[mine], missing[mine] = decoded[name]
        yield name, pa.array(values, kind, mask=missing)


def _decoded(
    specs: Mapping[str, Stage], digest: str, records: Sequence[DecisionRecord]
) -> dict[str, features.DecodedFeature]:
    x = np.array([one.decision.x for one in records])
    return features.decode(features.schema(specs[digest].features), x)
