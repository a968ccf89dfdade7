"""Classification tables as bandits: arms are the classes, the reward is 1 for the right class and 0 otherwise.

The right class of a row is known, so regret is counted and not estimated (Beygelzimer & Langford 2009). A row's x: the
constant 1; numbers as z-scores by median and quartiles, squashed to [−1, 1]; other columns one-hot. Scaling and
categories are taken from the whole file, labels never. A column holds numbers if most of its values do; the rest of its
cells are then missing, and named. Rows without a label are left out.

Shapes: n rows, d columns of x, K classes; policies see K + 1 arms, because the first of a stage is "no nudge", which is
never eligible here: every class then has an effect of its own.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import belief as beliefs
from bandit.arrays import Array, Ints
from bandit.belief import X_GRID
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import NONE
from bandit.errors import InvalidRequest, PolicyError, Problem
from bandit.policies import AnyPolicy, Linear, Logistic, registry
from bandit.policies.protocol import ArmEconomics, Policy
from bandit.propensity.draw import draw
from bandit.propensity.floor import floored
from bandit.tables import cells as values
from bandit.tables import reader
from bandit.tables.reader import TableRow

CATEGORIES = 30  # of one column; rarer ones become one category
MOST_CLASSES = 60
_EXAMPLES = 3  # of rows and cells that are named
_LOOK = 50  # lines that tell a header from data
_CLIP = 3.0  # z-scores beyond this are clipped

POLICIES: dict[str, Any] = {tag: made for tag, made in registry.BUILT_IN.items() if tag != "shared"}


def names() -> list[str]:
    """Policies that can play: built-in ones, and those of installed packages that this process has looked for."""
    return [name for name in registry.names() if name != "shared"]


class LabelledExamples(NamedTuple):
    """The n labelled examples of a table, encoded for policies. `columns` names the d columns of x, `name` is that of
    the label's column; `notes` are sentences on cells and rows that could not be used.
    """

    x: Array  # (n, d) on the 2⁻¹² grid
    label: NDArray[np.intp]  # (n,) index into `classes`
    classes: tuple[str, ...]  # K labels as written in the file
    columns: tuple[str, ...]
    name: str  # of the label's column
    notes: tuple[str, ...]

    @property
    def most_frequent(self) -> str:
        """The class that most examples have: the best constant arm."""
        return self.classes[int(np.bincount(self.label, minlength=len(self.classes)).argmax())]


def read(path: Path, label: str, *, header: bool | None = None) -> LabelledExamples:
    """The labelled examples in a table of text: see `bandit.tables.reader` for what it may look like.

    `label`: a column's name, or its place: 1 is the first, −1 the last. `header`: whether there is one; None means find
    out. Raises InvalidRequest with what is wrong and how to mend it: no rows, no such column, fewer than 2 or more than
    60 classes.
    """
    text = reader.text_of(str(path), lambda: path.open("rb"))
    named = _has_header([row.cells for row in islice(text.rows(), _LOOK)], label) if header is None else header
    table = reader.table_of(text, header=named)
    rows = [TableRow(line, [sys.intern(cell) for cell in cells]) for line, cells in table.rows()]  # equal cells are one
    if not rows:
        raise _refusal(table.name, "it has a header and no rows", "add rows, or say --no-header")
    at = _label_place(label, list(table.names), named=named)
    known = [row for row in rows if not values.unnamed(row.cells[at])]
    notes = list(table.notes)
    if len(known) < len(rows):
        lost = [row for row in rows if values.unnamed(row.cells[at])]
        which = _first_cells(lost, at)
        notes.append(f"column {table.names[at]}: {len(lost)} rows have no label and are left out: {which}")
    classes, index = _classes(table.names[at], [row.cells[at] for row in known])
    x, columns, more = _encoded(known, table, at)
    return LabelledExamples(x, index, classes, columns, table.names[at], (*notes, *more))


def arms(classes: tuple[str, ...]) -> ArmEconomics:
    """Economics of the K + 1 arms, each of a type of its own and without costs: classes share nothing but the
    baseline.
    """
    names = (NONE, *(f"class {c}" for c in classes))
    return ArmEconomics(names, names, np.ones(len(names)), np.zeros(len(names)))


def policy_class(name: str) -> Any:
    """The policy class of a name, built in or of an installed package. Raises InvalidRequest if what is installed under
    the name cannot be used.
    """
    try:
        return registry.named(name)
    except PolicyError as error:
        raise InvalidRequest(error.problem) from None


def policy_named(name: str, classes: int, settings: Mapping[str, float | str]) -> AnyPolicy:
    """The policy of that name, a key of `POLICIES`, with `settings`. Raises InvalidRequest for settings that the policy
    does not have or cannot take.

    A prior mean that nobody set is 1/K, the rate of guessing among K = `classes`. Where nobody set the scales or a
    prior sd of `linear` or `logistic`, scales are "slopes": how much a column tells of a class is not known beforehand.
    """
    made = policy_class(name)
    known = made.__struct_fields__
    problems = [
        Problem(f"set.{key}", f"{name} has no such setting", closest(key, known))
        for key in settings.keys() - set(known)
    ]
    if problems:
        raise InvalidRequest(*problems)
    start: dict[str, float | str] = {"prior_mean": 1.0 / classes} if "prior_mean" in known else {}
    if made in (Linear, Logistic) and not settings.keys() & {"prior_sd", "slope_sd"}:
        start["scales"] = "slopes"
    try:
        policy: AnyPolicy = msgspec.convert({"name": name} | start | dict(settings), made)
    except msgspec.ValidationError as error:
        raise _refusal("set", str(error), "another value") from None
    return policy


def play(
    policy: Policy, table: LabelledExamples, *, rounds: int, seed: int, batch: int | None, floor: float = 0.0
) -> Array:
    """Play a policy on the examples: 1 for each wrong answer and 0 for each right one, (rounds,). The order is that of
    `seed`: shuffled, and drawn again where rows run out.

    The policy learns after every `batch` rounds; None: whenever what it knows has grown by 1 %, so that being late
    costs at most about that much. `floor`: least propensity of a class.
    """
    rng = np.random.default_rng(seed)
    k, order = len(table.classes) + 1, _order(rng, len(table.label), rounds)
    u = rng.random(rounds).tolist()
    facts, eligible = arms(table.classes), np.arange(k) > 0
    belief, wrong = beliefs.empty(len(policy.rows(facts.names)), table.x.shape[1]), np.zeros(rounds)
    start = 0
    while start < rounds:
        end = min(rounds, start + (batch or max(1, start // 100)))
        rows, chosen = order[start:end], np.zeros(end - start, dtype=np.intp)
        logged = np.zeros((end - start, k))
        posterior = policy.posterior(belief, facts)
        for i, x in enumerate(table.x[rows]):
            p = floored(posterior.choose(x, eligible).propensity, floor, eligible)
            chosen[i], logged[i] = draw(p, u[start + i]), p
        reward = (chosen == table.label[rows] + 1).astype(np.float64)
        wrong[start:end] = 1.0 - reward
        design = policy.design(table.x[rows], chosen, logged)
        tau, nu = policy.sites(belief, facts, design, chosen, reward)
        belief = beliefs.add(belief, policy.sums(k, design, chosen, tau, nu, reward))
        start = end
    return wrong


def play_constant(table: LabelledExamples, *, rounds: int, seed: int) -> Array:
    """Answer the most frequent class always: 1 for each wrong answer and 0 for each right one, (rounds,), in the order
    in which `play` asks with this `seed`. No constant arm is right more often on the whole table.
    """
    order = _order(np.random.default_rng(seed), len(table.label), rounds)
    wrong: Array = (table.label[order] != table.classes.index(table.most_frequent)).astype(np.float64)
    return wrong


def _order(rng: np.random.Generator, n: int, rounds: int) -> Ints:
    """Rows (rounds,) in the order in which they are asked: shuffled, and drawn again where they run out."""
    return rng.permutation(n)[:rounds] if rounds <= n else rng.integers(0, n, rounds)


def _has_header(rows: list[list[str]], label: str) -> bool:
    """Whether the first row is a header: names stand above numbers there; or the label, which is no number, stands in
    it.
    """
    first, some = rows[0], rows[1:]
    if not _is_place(label):
        return True
    if label in first and len(set(first)) == len(first) and not all(map(_is_number, first)):
        return True
    return any(
        _is_name(top, [c for c in rest if not values.missing(c)]) for top, *rest in zip(first, *some, strict=True)
    )


def _is_name(top: str, rest: list[str]) -> bool:
    """Whether the cell `top` is no number and stands above numbers."""
    return not values.missing(top) and not _is_number(top) and 2 * sum(map(_is_number, rest)) > len(rest)


def _label_place(label: str, names: list[str], *, named: bool) -> int:
    if named and names.count(label) > 1:
        raise _refusal("label", f"{names.count(label)} columns are called {label!r}", "give each its own name")
    if named and label in names:
        return names.index(label)
    if _is_place(label):
        place = int(label)
        if 1 <= abs(place) <= len(names):
            return place - 1 if place > 0 else len(names) + place
        raise _refusal(
            "label", f"there is no column {label}", f"1 to {len(names)}, or -1 to -{len(names)} from the end"
        )
    if not named:
        fix = f"with --no-header give its place: 1 to {len(names)}, or -1 for the last"
        raise _refusal("label", f"{label!r} is a name", fix)
    fix = f"{closest(label, names)}; in a file without a header, its place: 1 is the first column, -1 the last"
    raise _refusal("label", f"no column {label!r} in the first line", fix)


def _classes(name: str, cells: list[str]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    if not cells:
        raise _refusal("label", f"column {name!r} is empty", "choose a column with two classes or more")
    cells = _spelled_alike(cells)
    found = sorted(set(cells), key=lambda c: (not _is_number(c), values.number(c) if _is_number(c) else 0.0, c))
    if len(found) < 2:
        raise _refusal(
            "label", f"column {name!r} is {found[0]!r} in every row", "choose a column with two classes or more"
        )
    if len(found) > MOST_CLASSES:
        fix = f"at most {MOST_CLASSES}; choose another column, or put values into groups"
        raise _refusal("label", f"column {name!r} has {len(found)} classes", fix)
    index = {c: i for i, c in enumerate(found)}
    return tuple(found), np.array([index[c] for c in cells], dtype=np.intp)


def _spelled_alike(cells: list[str]) -> list[str]:
    """Labels that are all numbers, `1` and `1.0` among them, with each number spelled as it is most often written."""
    if not all(map(_is_number, set(cells))):
        return cells
    spelled: dict[float, str] = {}
    for cell, _ in reversed(Counter(cells).most_common()):
        spelled[float(values.number(cell) or 0.0)] = cell
    return [spelled[float(values.number(cell) or 0.0)] for cell in cells]


def _encoded(rows: list[TableRow], table: reader.Table, label: int) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    columns: list[Array] = [np.ones(len(rows))]
    called, notes = ["1"], list[str]()
    for j, name in enumerate(table.names):
        cells = [row.cells[j] for row in rows]
        known = [cell for cell in cells if not values.missing(cell)]
        if j == label or len(set(cells)) == 1 or not known:
            if j != label and not known:
                notes.append(f"column {name or j + 1} is empty and left out")
            continue
        if 2 * sum(map(_is_number, known)) > len(known):
            numbers, bad = values.numbers(cells, table.marks[j])
            if bad:
                lost = _first_cells([rows[i] for i in bad], j)
                notes.append(f"column {name}: {len(bad)} cells are not numbers and count as missing: {lost}")
            columns.append(_scaled(numbers))
            called.append(name)
            continue
        parts, names, more = _one_hot(name, ["(missing)" if values.missing(cell) else cell for cell in cells])
        columns += parts
        called += names
        notes += more
    if len(columns) == 1:
        notes.append("no column but the label varies: policies see no context")
    return np.rint(np.stack(columns, axis=1) * X_GRID) / X_GRID, tuple(called), tuple(notes)


def _one_hot(name: str, cells: list[str]) -> tuple[list[Array], list[str], list[str]]:
    """Columns, their names, and a note if rare categories became one."""
    many = Counter(cells).most_common()
    kept = [c for c, _ in many[:CATEGORIES]]
    columns = [np.array([c == value for c in cells], dtype=np.float64) for value in kept]
    called = [f"{name}={value}" for value in kept]
    if len(many) <= CATEGORIES:
        return columns, called, []
    columns.append(np.array([c not in kept for c in cells], dtype=np.float64))
    note = f"column {name} has {len(many)} categories: all but the {CATEGORIES} most common are one"
    return columns, [*called, f"{name}=(other)"], [note]


def _first_cells(rows: list[TableRow], at: int) -> str:
    """The first three of these rows in words, by line and by the cell in column `at`."""
    some = ", ".join(f"line {row.line} {row.cells[at]!r}" for row in rows[:_EXAMPLES])
    return some + (", …" if len(rows) > _EXAMPLES else "")


def _scaled(numbers: Array) -> Array:
    """z by median and quartiles (or sd where the quartiles agree), clipped, in [−1, 1]; 0 where missing."""
    known = numbers[np.isfinite(numbers)]
    low, centre, high = np.quantile(known, [0.25, 0.5, 0.75])
    spread = (high - low) / 1.349 or float(known.std()) or 1.0
    z = np.clip((numbers - centre) / spread, -_CLIP, _CLIP) / _CLIP
    return np.asarray(np.nan_to_num(z, nan=0.0), dtype=np.float64)


def _is_number(cell: str) -> bool:
    return values.numeric(cell)


def _is_place(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _refusal(field: str, problem: str, fix: str) -> InvalidRequest:
    return InvalidRequest(Problem(field, problem, fix))
