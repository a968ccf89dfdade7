"""Command `journey-bandit ledger copy`: a ledger in another store."""

from contextlib import closing

import click

from api.stores import open_store
from api.stores.sql.store import SqlStore
from bandit.errors import LedgerError


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
