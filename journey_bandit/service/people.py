"""Commands `journey-bandit erase` and `export-user`: answers to a person who asks what is known, or to be forgotten."""

from typing import Any

import click
import msgspec

from api import clocks
from api.ledger import audit
from api.people import offline, records
from api.stores import file_of, is_database, open_store
from bandit import engine
from bandit.errors import InvalidRequest, LedgerError, Problem
from journey_bandit.service.service_client import AdminClient

_SECONDS = 600.0  # that a service may take for one person
_URL = click.option("--url", envvar="JOURNEY_BANDIT_URL", help="Of a running service.")
_KEY = click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="With the scope admin.")
_SALT = click.option("--salt", envvar="JOURNEY_BANDIT_SALT", help="With --store: if the service was given one.")


@click.command()
@click.argument("user")
@click.option("--forget", is_flag=True, help="Also take back what was learned from them, exactly.")
@_URL
@_KEY
@click.option("--store", help="Store of a service that is stopped.")
@_SALT
def erase(user: str, forget: bool, url: str | None, key: str, store: str | None, salt: str | None) -> None:
    """Erase the person with the id USER, and all ids joined to it: decisions, outcomes, events and links.

    An anonymous remainder of each decision stays, so that nothing that was learned changes; with --forget nothing
    stays. Repeat it safely; what was interrupted goes on.
    """
    _one_of(url, store)
    done = AdminClient(url, key, _SECONDS).erase(user, forget=forget) if url else _offline(user, store, salt, forget)
    if not done["found"]:
        click.echo("nothing is known of this person")
        return
    counts = ", ".join(f"{done[name]:,} {name}" for name in ("decisions", "outcomes", "events", "ids"))
    click.echo(f"erased: {counts}{', with what was learned from them' if done['forgot'] else ''}")
    if not done["overwritten"]:
        click.echo("its bytes leave the file when a reader that needs the log ends: erase again then", err=True)
    click.echo("backups made before still hold it: make a new one, and delete them", err=True)


@click.command()
@click.argument("user")
@_URL
@_KEY
@click.option("--store", help="Store of the service, which may be running.")
@_SALT
def export_user(user: str, url: str | None, key: str, store: str | None, salt: str | None) -> None:
    """Print all that the ledger holds of the person with the id USER, as JSON."""
    _one_of(url, store)
    if url:
        told: Any = AdminClient(url, key, _SECONDS).person(user)
    else:
        opened = open_store(store or "", read_only=True)
        told = records.export(opened, engine.user_hash(audit.salt_of(opened, salt), user), clocks.wall())
        opened.close()
    click.echo(msgspec.json.format(msgspec.json.encode(told)).decode())


def _one_of(url: str | None, store: str | None) -> None:
    if bool(url) == bool(store):
        raise InvalidRequest(Problem("url", "give --url or --store, not both", "--url if the service runs"))


def _offline(user: str, store: str | None, salt: str | None, forget: bool) -> dict[str, Any]:
    """What an erasure says that this process does; LedgerError if a service runs on the ledger."""
    if not is_database(store or "") and not file_of(store or "").exists():
        raise LedgerError(f"{file_of(store or '')} does not exist: give the file of a service's --store")
    try:
        opened = open_store(store or "")
    except LedgerError as error:
        if "in use" not in str(error):
            raise
        raise LedgerError(f"{error}; it erases while it runs: give --url and --key instead of --store") from error
    try:
        person = engine.user_hash(audit.salt_of(opened, salt), user)
        return dict(msgspec.structs.asdict(offline.erase(opened, person, clocks.wall(), forget=forget)))
    finally:
        opened.close()
