"""The Open Bandit Dataset (Saito, Aihara, Matsutani & Narita 2021): two policies on a fashion shop's front page, logged
with propensities, so that each policy can be evaluated on the other's log and compared with what it really earned.

Layouts: `DIR/random.csv[.gz]` and `DIR/bts.csv[.gz]`, or as published, `DIR/<policy>/<campaign>/<campaign>.csv`. What
the Thompson-sampling policy `bts` would do is read from `DIR/bts_action_dist.csv` (item_id, position_0 …), or drawn
from the Beta priors of `DIR/prior_bts.yaml`; it depends on the position alone. The random policy shows all items alike.
Item features are not read: the model of rewards, `experiments.ope.reward_model`, has coefficients for each item.

x is a one-hot code of the position and of user_feature_0 … 3; rounds are in the order of their timestamps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from bandit.arrays import Array
from bandit.errors import InvalidRequest, Problem
from bandit.tables import cells, reader
from experiments.data.rounds import LoggedRounds, checked_rounds

POLICIES = ("random", "bts")
FEATURES = tuple(f"user_feature_{i}" for i in range(4))
_COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score", *FEATURES)
_DRAWS, _BLOCK = 1_000_000, 20_000
_SEED = 12345


@dataclass(frozen=True)
class BehaviorPolicy:
    """A policy of the data set as the function of the position that it is.

    `probabilities`: P(item | position), shape (positions, items), each row sums to 1. An instance is a `Probabilities`
    function, so it can stand in an `EvaluationPolicy`.
    """

    probabilities: Array

    def __call__(self, rounds: LoggedRounds) -> Array:
        """Probabilities (n, k) of the k items in each of n rounds, by the position of the round. `rounds.position` has
        to be there, as `read` sets it.
        """
        assert rounds.position is not None  # noqa: S101 - `read` sets it
        return np.asarray(self.probabilities[rounds.position], dtype=np.float64)


def read(folder: Path, policy: str, campaign: str) -> LoggedRounds:
    """The log of one policy as logged rounds: action is the item, reward the click (0 or 1), pscore the published
    propensity, x (n, d) the one-hot code, position (n,) counted from 0.

    `policy`: one of `POLICIES`; `campaign`: all, men or women, for the published layout. Raises InvalidRequest with the
    file, line or column that is missing or cannot be used.
    """
    path = _file(folder, policy, campaign)
    table = _columns(path, _COLUMNS)
    order = np.argsort(np.array(table["timestamp"], dtype=np.str_), kind="stable")
    item, position, click, propensity = (_numbers(path, table, name)[order] for name in _COLUMNS[1:5])
    places = np.unique(position, return_inverse=True)[1]
    codes = [table[name] for name in FEATURES]
    x = [places == p for p in range(1, places.max() + 1)] if len(places) else []
    for code in codes:
        words, at = np.unique(np.array(code, dtype=np.str_)[order], return_inverse=True)
        x += [at == w for w in range(1, len(words))]
    rounds = LoggedRounds(
        action=item.astype(np.intp),
        reward=click.astype(np.float64),
        pscore=propensity.astype(np.float64),
        x=np.column_stack(x).astype(np.float64) if x else np.zeros((len(item), 0)),
        position=places.astype(np.int64),
    )
    return checked_rounds(rounds)


def uniform(items: int, positions: int) -> BehaviorPolicy:
    """The random policy of the data set: probability 1 / items for each item at each position."""
    return BehaviorPolicy(np.full((positions, items), 1.0 / items))


def bts(folder: Path, campaign: str, positions: int) -> BehaviorPolicy:
    """The Thompson-sampling policy of the data set, as it was when its priors were frozen.

    Reads `bts_action_dist.csv` in `folder`, or else simulates the policy from the Beta parameters of the campaign in
    `prior_bts.yaml`. Raises InvalidRequest if neither file is there, a column is missing, or the priors do not name the
    campaign.
    """
    table, priors = folder / "bts_action_dist.csv", folder / "prior_bts.yaml"
    if table.is_file():
        names = [f"position_{p}" for p in range(positions)]
        rows = _columns(table, ("item_id", *names))
        order = np.argsort(_numbers(table, rows, "item_id"), kind="stable")
        return BehaviorPolicy(np.array([_numbers(table, rows, name)[order] for name in names]))
    if not priors.is_file():
        fix = f"put bts_action_dist.csv or prior_bts.yaml into {folder}"
        raise InvalidRequest(Problem("policy", "nothing says what bts would have done", fix))
    beliefs = yaml.safe_load(priors.read_text(encoding="utf-8"))
    if campaign not in beliefs:
        raise InvalidRequest(Problem("campaign", f"{priors} has no {campaign!r}", f"one of {', '.join(beliefs)}"))
    return BehaviorPolicy(ranked(np.array(beliefs[campaign]["alpha"]), np.array(beliefs[campaign]["beta"]), positions))


def ranked(alpha: Array, beta: Array, positions: int, draws: int = _DRAWS) -> Array:
    """P(item is drawn at each rank), shape (positions, items), when items are ranked by draws from Beta(alpha, beta).

    `alpha`, `beta`: (items,), both above 0. A Monte Carlo estimate from `draws` rankings with a fixed seed, so that it
    is the same in every run; with a million draws its standard error is at most 0.0005.
    """
    rng, counts = np.random.default_rng(_SEED), np.zeros((positions, len(alpha)))
    for start in range(0, draws, _BLOCK):
        drawn = rng.beta(alpha, beta, (min(_BLOCK, draws - start), len(alpha)))
        best = np.argsort(-drawn, axis=1)[:, :positions]
        for p in range(positions):
            counts[p] += np.bincount(best[:, p], minlength=len(alpha))
    return counts / draws


def _file(folder: Path, policy: str, campaign: str) -> Path:
    inner = folder / policy / campaign / campaign
    tried = [folder / f"{policy}.csv.gz", folder / f"{policy}.csv", Path(f"{inner}.csv.gz"), Path(f"{inner}.csv")]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        problem = f"no log of policy {policy}: none of {', '.join(str(path) for path in tried)}"
        raise InvalidRequest(Problem("obd", problem, "give the folder of the data set, and --campaign"))
    return found


def _columns(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """{name: cells} of the columns; under "" the number of every line, under "NAME mark" the decimal mark of a column.
    Raises InvalidRequest if a column is missing.
    """
    table = reader.read(str(path), lambda: path.open("rb"))
    lacking = [name for name in names if name not in table.names]
    if lacking:
        problem = f"it has no column {lacking[0]}: it is not a log of the Open Bandit Dataset"
        raise InvalidRequest(Problem(str(path), problem, f"its columns are {', '.join(names)}"))
    rows = list(table.rows())
    places = {name: table.place(name) for name in names}
    marks = {name: [table.marks[j]] for name, j in places.items()}
    lines = {"": [str(row.line) for row in rows], **{f"{name} mark": mark for name, mark in marks.items()}}
    return {**lines, **{name: [row.cells[j] for row in rows] for name, j in places.items()}}


def _numbers(path: Path, table: dict[str, list[str]], name: str) -> Array:
    numbers, bad = cells.numbers(table[name], table[f"{name} mark"][0], words=name == "click")
    wrong = sorted({*bad, *np.flatnonzero(~np.isfinite(numbers)).tolist()})
    if wrong:
        where = f"{path}:{table[''][wrong[0]]}: {name}"
        raise InvalidRequest(Problem(where, f"{table[name][wrong[0]]!r} is not a number", "a number"))
    return numbers
