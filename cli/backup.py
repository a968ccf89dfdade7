"""`journey-bandit backup` and `restore`: a copy of a ledger that is checked, and back again."""

import datetime as dt
from pathlib import Path

import click

from api.stores.backup import Copied, back_up
from api.stores.backup import restore as put_back
from bandit.errors import LedgerError

_STORE = click.option("--store", required=True, envvar="JOURNEY_BANDIT_STORE", help="sqlite:///FILE of the service.")


@click.command()
@_STORE
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
def backup(store: str, target: Path, force: bool) -> None:
    """Copy the ledger to TARGET, while the service goes on. The copy is one file, and it was checked."""
    found = back_up(_file(store), target, force=force)
    click.echo(f"{target}: {_said(found)}; checked")


@click.command()
@_STORE
@click.argument("backup_file", metavar="BACKUP", type=click.Path(path_type=Path, dir_okay=False))
def restore(store: str, backup_file: Path) -> None:
    """Put BACKUP in the place of the ledger, after checking it. The service must be stopped.

    The ledger that was there is kept beside it under another name.
    """
    ledger = _file(store)
    found = put_back(backup_file, ledger, f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}")
    click.echo(f"{ledger}: {_said(found)}; checked")
    if found.replaced:
        click.echo(f"what was there before is kept: {found.replaced}")
    click.echo(f"to prove it: journey-bandit rebuild --verify --receipts 200 --store {store}")


def _file(store: str) -> Path:
    if not store.startswith("sqlite:///") or store == "sqlite:///":
        raise LedgerError(f"store {store!r} is no file that can be copied: give sqlite:///FILE")
    return Path(store.removeprefix("sqlite:///"))


def _said(found: Copied) -> str:
    counts = f"{found.decisions:,} decisions, {found.outcomes:,} outcomes, {found.settlements:,} settled"
    return f"app {found.app}, {counts}"
