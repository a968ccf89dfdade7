"""`journey-bandit warm-start`: begin with what a log from before has taught."""

import csv
import hashlib
from pathlib import Path

import click

from api import ledger
from api.catalogues import read_catalogue
from api.stores import open_store
from api.warm import Row, begin
from bandit.catalogue import Feature, Stage
from bandit.errors import InvalidRequest, LedgerError, Problem


@click.command("warm-start")
@click.option("--app", required=True, help="A shipped catalogue, or FILE.toml: what the ledger is for.")
@click.option("--store", required=True, help="sqlite:///FILE of a service that is stopped, or of one to come.")
@click.option("--salt", envvar="JOURNEY_BANDIT_SALT", help="If the service is given one.")
@click.option("--stage", "name", required=True)
@click.option("--log", "file", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--weight", required=True, type=click.FloatRange(0.0, 1.0, min_open=True), help="What a row counts.")
def warm(app: str, store: str, salt: str | None, name: str, file: Path, weight: float) -> None:
    """Learn a CSV with a column for each feature, `arm` and `reward`. Empty cells are missing features.

    A weight of 1 counts a row like one of the service's own; less, if the log is old or its people were others.
    """
    if store == "memory://":
        raise LedgerError("a ledger in memory ends with this command: give sqlite:///FILE")
    catalogue = read_catalogue(app)
    stage = catalogue.stage(name)
    rows = read(file, stage)
    opened = open_store(store)
    try:
        ledger.claim(opened, catalogue, salt)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        done = begin(opened, name, stage, rows, weight=weight, digest=digest)
    finally:
        opened.close()
    click.echo(f"{name}: {done.rows} rows learned, each counts {done.weight:g} (sha256 {digest[:16]})")


def read(file: Path, stage: Stage) -> list[Row]:
    """The rows of the file. InvalidRequest names what is wrong with it."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        missing = {"arm", "reward"} - set(table.fieldnames or ())
        if missing:
            fix = f"name the columns in the first line: arm, reward, {', '.join(stage.features)}"
            raise InvalidRequest(Problem("log", f"no column {' and no column '.join(sorted(missing))}", fix))
        return [_row(i, row, stage) for i, row in enumerate(table, 1)]


def _row(i: int, cells: dict[str, str], stage: Stage) -> Row:
    try:
        given = {k: v for k, v in cells.items() if k not in ("arm", "reward") and v != ""}
        context = {k: _value(v, stage.features.get(k)) for k, v in given.items()}
        return Row(context, cells["arm"], float(cells["reward"]))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(Problem(f"row {i}", str(error), "a number where the catalogue wants one")) from None


def _value(cell: str, feature: Feature | None) -> object:
    if feature is not None and feature.type == "number":
        return float(cell)
    if feature is not None and feature.type == "boolean" and cell.lower() in ("true", "false", "0", "1"):
        return cell.lower() in ("true", "1")
    return cell
