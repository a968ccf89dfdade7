"""Command `journey-bandit warm-start`: begin with what a log from before has taught."""

import hashlib
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import cast

import click

from api.catalogue_files import read_catalogue
from api.ledger import audit
from api.ledger.warm_start import WarmStartRow, begin, checked
from api.stores import open_store
from bandit.catalogue.model import Feature, Stage
from bandit.errors import InvalidRequest, LedgerError, Problem
from bandit.features import Given
from bandit.tables import cells, reader
from bandit.tables.reader import Table
from journey_bandit import column_names

_NEEDED = ("arm", "reward")
_MOST = 20  # mistakes that are named


@click.command("warm-start")
@click.option("--app", required=True, help="A shipped catalogue, or FILE.toml: what the ledger is for.")
@click.option("--store", required=True, help="Store of a service that is stopped, or of one to come.")
@click.option("--salt", envvar="JOURNEY_BANDIT_SALT", help="If the service is given one.")
@click.option("--stage", "name", required=True)
@click.option("--log", "file", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@column_names.OPTION
@click.option("--weight", required=True, type=click.FloatRange(0.0, 1.0, min_open=True), help="What a row counts.")
def warm(
    app: str, store: str, salt: str | None, name: str, file: Path, renamed: tuple[str, ...], weight: float
) -> None:
    """Learn a table with a column for each feature, `arm` and `reward`. Empty cells are missing features.

    A weight of 1 counts a row like one of the service's own; less, if the log is old or its people were others.
    """
    if store == "memory://":
        raise LedgerError("a ledger in memory ends with this command: give sqlite:///FILE")
    catalogue = read_catalogue(app)
    stage = catalogue.stage(name)
    rows, notes = read(file, stage, column_names.pairs(renamed))
    log = checked(name, stage, rows)
    opened = open_store(store)
    try:
        audit.claim(opened, catalogue, salt)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        done = begin(opened, name, stage, log, weight=weight, digest=digest)
    finally:
        opened.close()
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(f"{name}: {done.rows} rows learned, each counts {done.weight:g} (sha256 {digest[:16]})")


def read(file: Path, stage: Stage, renamed: Mapping[str, str] | None = None) -> tuple[list[WarmStartRow], list[str]]:
    """Rows of the file for warm start, contexts encoded for `stage`, and notes on how the file was read. Raises
    InvalidRequest, which names the line and column that is wrong.
    """
    known = (*_NEEDED, *stage.features)
    for ours in renamed or {}:
        if ours not in known:
            raise reader.refused(f"map {ours}", "there is no such column of this stage", f"one of {', '.join(known)}")
    table = reader.read(str(file), lambda: file.open("rb"), renamed)
    missing = [name for name in _NEEDED if name not in table.names]
    if missing:
        fix = f"name the columns in the first line: {', '.join(known)}; or say --map {missing[0]}=NAME"
        raise reader.refused("log", f"no column {' and no column '.join(missing)}", fix)
    other = [name for name in table.names if name and name not in known]
    notes = [*table.notes, *([f"columns that are no features are left out: {', '.join(other)}"] if other else [])]
    problems, rows = list[Problem](), list[WarmStartRow]()
    for made in _rows(table, stage, [name for name in known if name in table.names]):
        if isinstance(made, WarmStartRow):
            rows.append(made)
        else:
            problems += made
        if len(problems) >= _MOST:
            break
    if problems:
        raise InvalidRequest(*problems)
    return rows, notes


def _rows(table: Table, stage: Stage, names: list[str]) -> Iterator[WarmStartRow | list[Problem]]:
    """Each row, or what is wrong with it."""
    places = {name: table.place(name) for name in names}
    for row in table.rows():
        context, problems = dict[str, Given](), list[Problem]()
        for name, j in places.items():
            value, wanted = _value(row.cells[j], name, stage.features.get(name), table.marks[j])
            if wanted:
                said = f"{row.cells[j]!r} is not {wanted}" if row.cells[j] else "there is no value"
                problems.append(Problem(table.at(row, name), said, wanted))
            elif value is not None:
                context[name] = value
        if problems:
            yield problems
        else:
            arm, reward = cast(str, context.pop("arm")), cast(float, context.pop("reward"))
            yield WarmStartRow(context, arm, reward, f"{table.name}:{row.line}")


def _value(cell: str, name: str, feature: Feature | None, mark: str) -> tuple[Given | None, str]:
    """What the cell means, None if nothing; and what it should be where it cannot be used."""
    if name == "arm":
        return (None, "the name of an arm") if cells.unnamed(cell) else (cell, "")
    if name == "reward":
        said = cells.boolean(cell)
        value = float(said) if said is not None else cells.number(cell, mark)
        return value, "" if value is not None and isfinite(value) else "a number"
    if cells.missing(cell):
        return None, ""
    if feature is not None and feature.type == "number":
        found = cells.number(cell, mark)
        return found, "" if found is not None and isfinite(found) else "a number"
    if feature is not None and feature.type == "boolean":
        truth = cells.boolean(cell)
        return truth, "" if truth is not None else "true or false"
    return cell, ""
