"""Commands `journey-bandit backup`, `restore` and `ledger copy`: copies of a ledger."""

from contextlib import closing
from pathlib import Path

import click

from api import clocks
from api.stores import file_of, open_store
from api.stores.sql.schema import SCHEMA
from api.stores.sql.store import SqlStore
from api.stores.sqlite import copies
from api.stores.sqlite.copies import LedgerCopy
from api.times import time_of
from bandit.errors import LedgerError

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--store", required=True, help="sqlite:///FILE of the service; it may be running.")
@click.argument("target", type=_FILE)
@click.option("--force", is_flag=True, help="Overwrite TARGET.")
def backup(store: str, target: Path, *, force: bool) -> None:
    """Copy the ledger to TARGET while its service runs, check the copy, then give it its name.

    What is acknowledged before the copy begins is in it.
    """
    copied = copies.back_up(file_of(store), target, force=force)
    click.echo(f"{target}: {_said(copied)}; checked")


@click.command()
@click.argument("backup", type=_FILE)
@click.option("--store", required=True, help="sqlite:///FILE of the service, which is stopped.")
@click.option("--force", is_flag=True, help="Replace FILE; it is kept aside under a dated name.")
def restore(backup: Path, store: str, *, force: bool) -> None:
    """Check BACKUP, and put a copy of it in the place of the ledger. BACKUP itself is left as it is."""
    file = file_of(store)
    copied = copies.restore(backup, file, time_of(clocks.wall()), force=force)
    click.echo(f"{file}: {_said(copied)}; checked")
    if copied.aside is not None:
        click.echo(f"what was there is kept: {copied.aside}", err=True)
    if copied.schema < SCHEMA:
        click.echo("an earlier version wrote it: the service brings it up to date when it starts", err=True)
    else:
        click.echo(f"prove it: journey-bandit rebuild --verify --receipts 200 --store {store}", err=True)


@click.group()
def ledger() -> None:
    """Move a ledger between SQLite and PostgreSQL."""


@ledger.command()
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """Copy every row of the ledger SOURCE to TARGET, which is empty, and compare.

    Both are stores: sqlite:///FILE or postgresql://HOST/DATABASE. The service of SOURCE may be running; what it
    acknowledges after the copy has begun is not in TARGET, so stop it first to move.
    """
    if source == target:
        raise LedgerError("both are the same store: give the target another address")
    with closing(open_store(source, read_only=True)) as old, closing(open_store(target)) as new:
        if not isinstance(old, SqlStore) or not isinstance(new, SqlStore):
            raise LedgerError("a ledger in memory ends with its service: give sqlite:///FILE or postgresql://…")
        rows = new.copy_from(old)
    for table, count in rows.items():
        if count:
            click.echo(f"{count:>12,}  {table}")
    click.echo("all rows are equal, and the digests of all commits hold")
    click.echo(f"prove it: journey-bandit rebuild --verify --receipts 200 --store {target}", err=True)


def _said(copied: LedgerCopy) -> str:
    rows = ", ".join(f"{n:,} {name}" for name, n in copied.counts._asdict().items())
    last = f", the last decision of {time_of(copied.last):%Y-%m-%d %H:%M:%S} UTC" if copied.last else ""
    return f"schema {copied.schema}, {rows}{last}"
