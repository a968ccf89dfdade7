"""Commands `journey-bandit backup` and `restore`: a copy of a running service's ledger, and the way back."""

from pathlib import Path

import click

from api import clocks
from api.stores import file_of
from api.stores.sql.schema import SCHEMA
from api.stores.sqlite import copies
from api.stores.sqlite.copies import LedgerCopy
from api.times import time_of

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


def _said(copied: LedgerCopy) -> str:
    rows = ", ".join(f"{n:,} {name}" for name, n in copied.counts._asdict().items())
    last = f", the last decision of {time_of(copied.last):%Y-%m-%d %H:%M:%S} UTC" if copied.last else ""
    return f"schema {copied.schema}, {rows}{last}"
