"""Logged rounds as arrays: what every estimator works on, one chunk of a log at a time.

A log is a `Source`: calling it gives its chunks from the start, so that a log larger than memory can be read twice
(once to fit a model, once to estimate). Rounds are in the order in which they were decided. `PART` chunks are a part of
the log, in whatever files it lies: sums are taken by chunk, then by part, then over the parts, so that whoever sums
the parts, wherever, gets the same bits.

Shapes: n rounds, k arms, d features. Times are µs since 1970 (UTC); rewards and q̂ are in the reward's own units.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Ints
from bandit.errors import InvalidRequest, Problem
from bandit.tables.cells import missing
from experiments.data.rounding import scaled_to_one

PART = 10
"""Chunks of a part: what one task of an evaluation reads. The last bits of every result depend on it."""

_SUM = 1e-6  # how far from 1 a row of probabilities may sum: files print them with so many digits
_NUMBER = re.compile(r"0|-?[1-9]\d{0,17}", re.ASCII)
_LONG = 10**18  # numbers of users from here on are names, because the type of a column may not hold them


class LoggedRounds(NamedTuple):
    """n logged rounds of one log, column by column: who decided what, with which propensity, and which reward it
    brought.

    Columns that a log does not hold are None. Rewards and q̂ are in the reward's own units, before costs; a reward that
    is not known yet is NaN. `pi`, `q` and `model` are one evaluated policy's π(action), q̂(action) and Σ_a π(a) q̂(a),
    for logs that hold only these; `target` and `q_hat` are the whole rows.

    Guaranteed when made by `rounds_of` or passed through `checked_rounds`: actions are in 0 … k − 1, pscore is in (0,
    1], rows of `target` and `propensities` are ≥ 0 and sum to 1 to 1e-6, q̂ and x are finite. The constructor itself
    checks nothing. Immutable as a tuple; the arrays are shared and are not to be written to.

        rounds = LoggedRounds(action=np.array([0, 1]), reward=np.array([0.0, 1.0]), pscore=np.array([0.5, 0.5]))
    """

    action: NDArray[np.intp]  # (n,)
    reward: Array  # (n,), NaN where it is not known
    pscore: Array  # (n,) propensity of the action
    x: Array | None = None  # (n, d)
    propensities: Array | None = None  # (n, k) of every arm, 0 where ineligible
    target: Array | None = None  # (n, k) π of the log's own evaluation policy
    q_hat: Array | None = None  # (n, k)
    pi: Array | None = None  # (n,)
    q: Array | None = None  # (n,)
    model: Array | None = None  # (n,)
    eligible: NDArray[np.bool_] | None = None  # (n, k)
    user: Ints | None = None  # (n,)
    position: Ints | None = None  # (n,)
    at: Ints | None = None  # (n,) µs
    version: Ints | None = None  # (n,)
    holdout: NDArray[np.bool_] | None = None  # (n,)
    holdout_share: Array | None = None  # (n,) of users, as declared when the round was decided
    segment: NDArray[np.str_] | None = None  # (n,)
    truth: Array | None = None  # (n, k) what only a simulator knows
    candidate: Array | None = None  # (n, k) of the judged candidate, whose half the propensities hold
    rewarded: NDArray[np.bool_] | None = None  # (n,) whether a reward came, where `reward` is net of costs

    @property
    def arms(self) -> int | None:
        """k, the number of arms, if a column with one entry for each arm says it; else None."""
        wide = (self.propensities, self.target, self.q_hat, self.eligible)
        return next((part.shape[1] for part in wide if part is not None), None)

    def only(self, rows: NDArray[np.bool_] | slice) -> "LoggedRounds":
        """The rounds selected by a mask (n,) or a slice, all columns alike, in the same order. A slice gives views, a
        mask copies.
        """
        return LoggedRounds._make(None if part is None else part[rows] for part in self)


Source = Callable[[], Iterator[LoggedRounds]]
"""A log: each call gives its chunks from the start, in the order of the log. Reading may raise InvalidRequest."""
RowLabel = Callable[[int], str]
"""Names a row by its place in a chunk, for messages, e.g. "log.csv:17"."""


def in_parts(chunks: Iterator[LoggedRounds]) -> Iterator[Iterator[LoggedRounds]]:
    """The chunks of a log in its parts: `PART` of them each, the last one perhaps fewer. Each part is to be read to its
    end before the next.
    """
    while (first := next(chunks, None)) is not None:
        yield chain([first], islice(chunks, PART - 1))


class RewardRange(NamedTuple):
    """The range that rewards are declared or found to lie in, `low` < `high`, both in the reward's own units."""

    low: float
    high: float


def chunked(rounds: LoggedRounds, size: int = 100_000) -> Source:
    """A source of rounds that are in memory already, in chunks of `size` rounds. It may be called any number of
    times.
    """
    starts = range(0, len(rounds.reward), size)
    return lambda: (rounds.only(slice(start, start + size)) for start in starts)


def rounds_of(
    columns: Mapping[str, NDArray[np.generic]], where: RowLabel = "row {}".format, first: int = 0
) -> LoggedRounds:
    """Logged rounds from named columns (n,) each, as a file holds them; checked as `checked_rounds` does.

    `where`: names a row by its place, for messages. `first`: the number of row 0 in the whole log, by which users who
    are not known are told apart. Read are action, reward, pscore; pi_e or pi_e_0…; q_hat_logged and q_hat_under_pi_e,
    or q_hat_0…; x0… or x_0…; p_0…; eligible_0…; truth_0…; position, user, at (µs), version, holdout, segment. Other
    columns are ignored.

    Raises InvalidRequest with every column that is missing, has a gap in its numbering, or holds impossible values.
    """
    missing = [Problem(name, "there is no such column", _NEEDED) for name in _REQUIRED if name not in columns]
    if missing:
        raise InvalidRequest(*missing)
    rounds = LoggedRounds(
        action=_whole(columns, "action", where).astype(np.intp),
        reward=_numbers(columns["reward"], "reward", where),
        pscore=_numbers(columns["pscore"], "pscore", where),
        x=_wide(columns, "x", where),
        propensities=_wide(columns, "p_", where),
        target=_wide(columns, "pi_e_", where),
        q_hat=_wide(columns, "q_hat_", where),
        pi=_optional(columns, "pi_e", where),
        q=_optional(columns, "q_hat_logged", where),
        model=_optional(columns, "q_hat_under_pi_e", where),
        eligible=_mask(columns, "eligible_", where),
        user=None if "user" not in columns else user_keys(columns["user"], first),
        position=_whole(columns, "position", where) if "position" in columns else None,
        at=_whole(columns, "at", where) if "at" in columns else None,
        version=_whole(columns, "version", where) if "version" in columns else None,
        holdout=columns["holdout"].astype(np.bool_) if "holdout" in columns else None,
        segment=columns["segment"].astype(np.str_) if "segment" in columns else None,
        truth=_wide(columns, "truth_", where),
    )
    return checked_rounds(rounds, where)


_REQUIRED = ("action", "reward", "pscore")
_NEEDED = "a log needs at least action, reward, pscore, and pi_e or pi_e_0 … pi_e_<k-1>"


def checked_rounds(rounds: LoggedRounds, where: RowLabel = "row {}".format) -> LoggedRounds:
    """The same rounds once their values are checked, with rounded probabilities scaled to sum to 1 (see `rounding`).

    `where`: names a row by its place, for messages. Raises InvalidRequest with every column whose values are
    impossible, how many rows are wrong and the first of them: an action outside 0 … k − 1, an infinite reward, a pscore
    outside (0, 1], rows of probabilities that do not sum to 1, q̂ or x that are not finite, columns that disagree about
    k.
    """
    rounds = _rescaled(rounds)
    k = rounds.arms
    most = np.inf if k is None else k - 1
    problems = [
        *_bad_rows("action", (rounds.action < 0) | (rounds.action > most), where, f"from 0 to {most:g}"),
        *_bad_rows("reward", np.isinf(rounds.reward), where, "a finite number, or empty while it is not known"),
        *_bad_rows("pscore", ~((rounds.pscore > 0.0) & (rounds.pscore <= 1.0)), where, "a probability, above 0"),
    ]
    if rounds.pi is not None:
        problems += _bad_rows("pi_e", ~((rounds.pi >= 0.0) & (rounds.pi <= 1.0)), where, "a probability")
    for name, table in (("pi_e", rounds.target), ("p", rounds.propensities)):
        if table is not None:
            wrong = np.asarray(~((table.min(axis=1) >= 0.0) & (np.abs(table.sum(axis=1) - 1.0) <= _SUM)))
            problems += _bad_rows(f"{name}_0 …", wrong, where, "probabilities that sum to 1")
    for name, part in (("q_hat_0 …", rounds.q_hat), ("x0 …", rounds.x)):
        if part is not None:
            problems += _bad_rows(name, ~np.isfinite(part).all(axis=1), where, "finite numbers")
    for name, part in (("q_hat_logged", rounds.q), ("q_hat_under_pi_e", rounds.model)):
        if part is not None:
            problems += _bad_rows(name, ~np.isfinite(part), where, "finite numbers")
    wide = (rounds.propensities, rounds.target, rounds.q_hat, rounds.eligible)
    shapes = {part.shape[1] for part in wide if part is not None}
    if len(shapes) > 1:
        problems.append(
            Problem("p, pi_e, q_hat, eligible", f"they speak of {sorted(shapes)} arms", "give each arm a column")
        )
    if problems:
        raise InvalidRequest(*problems)
    return rounds


def user_keys(values: NDArray[np.generic], first: int = 0) -> Ints:
    """User keys (n,) as int64: whole numbers stay, anything else becomes 8 bytes of BLAKE2b of its text.

    A user who is not known (`cells.missing`, None, NaN) is nobody else: the key is then made from the row's own number,
    counted from `first`, so that no two unknown users are taken for one. The same user has the same key in any format.
    """
    if np.issubdtype(values.dtype, np.integer):
        if len(values) == 0 or (int(values.min()) > -_LONG and int(values.max()) < _LONG):
            return values.astype(np.int64)
        values = values.astype(np.str_)  # as text holds them: longer numbers are names
    if values.dtype == object or np.issubdtype(values.dtype, np.floating):  # whole numbers with gaps are often such
        found = [_user_key(value) for value in values.tolist()]
        unknown = np.array([key is None for key in found], dtype=np.bool_)
        keys = np.array([key or 0 for key in found], dtype=np.int64)
    else:
        names, index = np.unique(values.astype(np.str_), return_inverse=True)
        each = [_user_key(name) for name in names.tolist()]
        unknown = np.array([key is None for key in each], dtype=np.bool_)[index]
        keys = np.array([key or 0 for key in each], dtype=np.int64)[index]
    return np.where(unknown, _row_keys(first + np.arange(len(keys))), keys) if unknown.any() else keys


def _user_key(user: object) -> int | None:
    """Key of one user as a whole number; None for a user who is not known."""
    if user is None or (isinstance(user, float) and np.isnan(user)):
        return None
    if isinstance(user, (int, float)) and abs(user) < _LONG and user == int(user):
        return int(user)
    return None if missing(str(user).strip()) else _digest(str(user))


def _row_keys(row: Ints) -> Ints:
    """Keys of rows: SplitMix64 (Steele, Lea & Flood 2014) of their numbers, so that no two are equal."""
    z = row.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).astype(np.int64)


def _rescaled(rounds: LoggedRounds) -> LoggedRounds:
    """Rows of probabilities that were written with few digits, scaled to sum to 1, and pscore with its column."""
    if rounds.target is not None:
        rounds = rounds._replace(target=scaled_to_one(rounds.target)[0])
    if rounds.propensities is None:
        return rounds
    table, scaled = scaled_to_one(rounds.propensities)
    k = table.shape[1]
    if not scaled.any() or not ((rounds.action >= 0) & (rounds.action < k)).all():
        return rounds
    each = np.arange(len(table))
    same = scaled & (np.abs(rounds.propensities[each, rounds.action] - rounds.pscore) <= _SUM)
    return rounds._replace(propensities=table, pscore=np.where(same, table[each, rounds.action], rounds.pscore))


def _digest(name: str) -> int:
    if _NUMBER.fullmatch(name):  # a number, in whatever type a file holds it
        return int(name)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def _bad_rows(field: str, rows: NDArray[np.bool_] | np.bool_, where: RowLabel, fix: str) -> list[Problem]:
    wrong = np.atleast_1d(rows)
    if not wrong.any():
        return []
    return [Problem(field, f"not usable in {int(wrong.sum())} rows, first in {where(int(np.argmax(wrong)))}", fix)]


def _numbers(values: NDArray[np.generic], name: str, where: RowLabel) -> Array:
    try:
        return np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        problem = f"not a number somewhere from {where(0)} to {where(len(values) - 1)}"
        raise InvalidRequest(Problem(name, problem, "numbers only")) from None


def _optional(columns: Mapping[str, NDArray[np.generic]], name: str, where: RowLabel) -> Array | None:
    return _numbers(columns[name], name, where) if name in columns else None


def _whole(columns: Mapping[str, NDArray[np.generic]], name: str, where: RowLabel) -> Ints:
    values = columns[name]
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64)
    numbers = _numbers(values, name, where)
    wrong = ~(np.floor(numbers) == numbers)
    if wrong.any():
        raise InvalidRequest(*_bad_rows(name, wrong, where, "a whole number"))
    return numbers.astype(np.int64)


def _wide(columns: Mapping[str, NDArray[np.generic]], prefix: str, where: RowLabel) -> Array | None:
    """The columns prefix0, prefix1, … side by side. InvalidRequest where one is missing in between."""
    names = wide_names(columns, prefix)
    if not names:
        return None
    gaps = [f"{prefix}{i}" for i in range(len(names)) if i not in names]
    if gaps:
        raise InvalidRequest(Problem(gaps[0], f"missing between {len(names)} columns like it", "number them from 0"))
    return np.column_stack([_numbers(columns[names[i]], names[i], where) for i in range(len(names))])


def _mask(columns: Mapping[str, NDArray[np.generic]], prefix: str, where: RowLabel) -> NDArray[np.bool_] | None:
    """The columns prefix0, prefix1, … side by side, each of 0 and 1. InvalidRequest for other values."""
    table = _wide(columns, prefix, where)
    if table is None:
        return None
    wrong = ~np.isin(table, (0.0, 1.0)).all(axis=1)
    if wrong.any():
        raise InvalidRequest(*_bad_rows(f"{prefix}0 …", wrong, where, "0 or 1"))
    return np.asarray(table == 1.0)


def wide_names(columns: Iterable[str], prefix: str) -> dict[int, str]:
    """{number: column} of the columns whose name is `prefix` and a number, as in p_0, p_1, …; for x also without the
    underscore.
    """
    found = (
        (re.fullmatch(rf"{prefix}_?(\d+)" if prefix == "x" else rf"{prefix}(\d+)", name), name) for name in columns
    )
    return {int(match[1]): name for match, name in found if match}
