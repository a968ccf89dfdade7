"""Batch scoring of a published policy on a table of contexts: the same probabilities, to the bit, as the service gives.

Columns of the table: the stage's features (one that is missing or empty takes its default), and optionally
    excluded      arms that may not be shown, separated by commas, as a decision's `excluded` names them
    u             where in [0, 1) the arm is drawn from the probabilities, as a receipt has it
    decision_id   with the parameter `salt`, the service's own draw

Without either of the last two, u comes from the parameter `seed` and the number of the row.
"""

import hashlib
import importlib.metadata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bandit import engine, features
from bandit.engine import PreparedPolicy
from bandit.errors import InvalidRequest, Problem
from bandit.policies import registry
from bandit.propensity.draw import draw, unit
from bandit.snapshot import unpack

FILES = ("policy.json", "posterior.npz")
EXTRA = {"excluded": "string", "u": "double", "decision_id": "string"}


def load(folder: Path) -> PreparedPolicy:
    """The prepared policy in a folder of policy.json and posterior.npz. Raises SnapshotError if the files are not what
    they say, OSError if one is missing.
    """
    registry.search(importlib.metadata.entry_points)
    return engine.prepare(unpack({name: (folder / name).read_bytes() for name in FILES}))


def score(live: PreparedPolicy, rows: Iterable[Mapping[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One result for each row: the drawn arm's name, its propensity, and p_<arm> of every arm. `params`: seed (0 if
    missing) and salt.

    Raises InvalidRequest with the row and the column: an unknown column, a value that a feature cannot take, arms in
    `excluded` that are none.
    """
    salt = str(params.get("salt") or "")
    key = hashlib.sha256(salt.encode()).digest() if salt else b""
    return [_score_row(live, i, row, int(params.get("seed") or 0), key) for i, row in enumerate(rows)]


def _score_row(live: PreparedPolicy, i: int, row: Mapping[str, Any], seed: int, key: bytes) -> dict[str, Any]:
    spec = live.snapshot.stage_spec
    given = {name: _python_value(value) for name, value in row.items()}
    unknown = given.keys() - spec.features.keys() - EXTRA.keys()
    if unknown:
        fix = f"the features are {', '.join(spec.features)}"
        raise InvalidRequest(Problem(f"row {i}", f"unknown columns {', '.join(sorted(unknown))}", fix))
    context = {name: given[name] for name in spec.features if given.get(name) is not None}
    x, _ = features.encode(live.schema, context)
    out = _excluded_arms(str(given.get("excluded") or ""), spec.arms, i)
    p = engine.choose(live, x, np.array([arm not in out for arm in spec.arms])).propensity
    arm = draw(p, _uniform(live, i, given, seed, key))
    return {"arm": spec.arms[arm], "propensity": float(p[arm])} | {
        f"p_{name}": float(v) for name, v in zip(spec.arms, p, strict=True)
    }


def _uniform(live: PreparedPolicy, i: int, given: Mapping[str, Any], seed: int, key: bytes) -> float:
    if given.get("u") is not None:
        return float(given["u"])
    if key and given.get("decision_id"):
        parts = (b"draw", live.snapshot.stage.encode(), uuid.UUID(str(given["decision_id"])).bytes)
        return unit(key, *parts)
    return unit(b"score", str(seed).encode(), str(i).encode())


def _excluded_arms(text: str, arms: Sequence[str], i: int) -> set[str]:
    named = {name.strip() for name in text.split(",") if name.strip()}
    if not named < set(arms):
        problem = f"{text!r} names an arm that is none, or every arm"
        raise InvalidRequest(Problem(f"row {i}: excluded", problem, f"some of {', '.join(arms)}"))
    return named


def _python_value(value: Any) -> Any:
    """The value in Python's own type; None for what a table shows as missing (NaN, NA)."""
    if isinstance(value, np.generic):
        value = value.item()
    missing = value is None or (isinstance(value, float) and np.isnan(value)) or type(value).__name__ == "NAType"
    return None if missing else value
