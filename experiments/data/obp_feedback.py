"""Bandit feedback of the Open Bandit Pipeline (`obp`), the dictionary that its data sets return, saved by
`numpy.savez` or as JSON: `action`, `reward` and `pscore` (n,), `context` (n, d) and `pi_b` (n, k) or (n, k, positions),
the propensities.

Pickles are refused: reading one runs whatever it says.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.tables.reader import refused
from experiments.data.imported_events import ImportedLog, LogColumns

_MOST_ARMS = 1000
_ONE_EACH = ("action", "reward", "pscore")
_SAVE = "np.savez('log.npz', **{key: value for key, value in bandit_feedback.items() if value is not None})"


def refuse_pickle(name: str) -> None:
    """Raise InvalidRequest for a pickle, with the line of Python that writes what can be read."""
    raise refused(name, "it is a pickle, and reading one runs whatever it says", f"where you trust it, {_SAVE}")


def from_npz(path: Path) -> ImportedLog:
    """The log of a file of `numpy.savez`. Raises InvalidRequest, with the array, for what cannot be used; arrays of
    Python objects are not read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _log(str(path), {name: _array(archive, name) for name in archive.files})
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise refused(str(path), f"it cannot be read: {error}", f"write it again: {_SAVE}") from None


def from_json(path: Path, found: Mapping[str, Any]) -> ImportedLog:
    """The log of a decoded JSON object. Raises InvalidRequest as `from_npz`."""
    arrays = dict[str, NDArray[Any] | None]()
    for name, value in found.items():
        try:
            arrays[name] = None if value is None else np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            arrays[name] = None
    return _log(str(path), arrays)


def json_object(data: bytes) -> Mapping[str, Any] | None:
    """The one JSON object of a file, if it may be bandit feedback; else None."""
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) and set(_ONE_EACH) <= set(found) else None


def _array(archive: Any, name: str) -> NDArray[Any] | None:
    """None for arrays of Python objects, such as a position that is None."""
    try:
        found: NDArray[Any] = archive[name]
    except ValueError:
        return None
    return found if found.dtype.kind in "biuf" else None


def _log(name: str, arrays: Mapping[str, NDArray[Any] | None]) -> ImportedLog:
    columns: LogColumns = {}
    for key in _ONE_EACH:
        found = arrays.get(key)
        if found is None or found.ndim != 1:
            what = "there is no such array" if found is None else f"an array of the shape {found.shape}"
            raise refused(f"{name}: {key}", what, "numbers, one a round")
        columns[key] = found
    n = len(columns["action"])
    for key in _ONE_EACH[1:]:
        if len(columns[key]) != n:
            raise refused(f"{name}: {key}", f"{len(columns[key]):,} values for {n:,} actions", "one a round")
    position = arrays.get("position")
    if position is not None and position.shape == (n,):
        columns["position"] = position
    columns |= _wide(name, "context", "x", arrays.get("context"), n)
    columns |= _wide(name, "pi_b", "p", _of_position(name, arrays.get("pi_b"), columns.get("position"), n), n)
    arms = arrays.get("n_actions")
    if "p_0" not in columns and arms is not None and arms.ndim == 0 and 0 < arms <= _MOST_ARMS:
        columns |= {f"eligible_{a}": np.ones(n) for a in range(int(arms))}
    known = ("context", "pi_b", "position", *_ONE_EACH)
    ignored = [key for key, found in arrays.items() if key not in known and found is not None and found.ndim]
    notes = (f"not read: {', '.join(sorted(ignored))}",) if ignored else ()
    return ImportedLog(name, columns, np.arange(1, n + 1), (), notes)


def _of_position(
    name: str, table: NDArray[Any] | None, position: NDArray[Any] | None, n: int
) -> NDArray[np.float64] | None:
    """π_b (n, k) of each round's own position."""
    if table is None or table.ndim == 2:
        return table
    if table.ndim != 3 or len(table) != n:
        raise refused(f"{name}: pi_b", f"an array of the shape {table.shape}", f"({n}, arms) or ({n}, arms, positions)")
    if table.shape[2] == 1:
        return np.asarray(table[:, :, 0], dtype=np.float64)
    if position is None or not np.isin(position, np.arange(table.shape[2])).all():
        raise refused(f"{name}: position", f"not the {table.shape[2]} positions of pi_b", "numbers from 0, one a round")
    return np.asarray(table[np.arange(n), :, position.astype(np.int64)], dtype=np.float64)


def _wide(name: str, key: str, prefix: str, table: NDArray[Any] | None, n: int) -> LogColumns:
    if table is None:
        return {}
    if table.ndim != 2 or len(table) != n:
        raise refused(f"{name}: {key}", f"an array of the shape {table.shape}", f"({n}, …), one row a round")
    return {f"{prefix}_{j}": table[:, j].astype(np.float64) for j in range(table.shape[1])}
