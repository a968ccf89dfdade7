"""Command `journey-bandit retract`: takes what an API key reported out of force, and out of the belief."""

import datetime as dt
import getpass

import click

from api import clocks
from api.learning import withdrawals
from api.stores import file_of, open_store
from api.times import microseconds, time_of
from bandit.errors import LedgerError
from bandit.records import Withdrawal

_TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.command()
@click.option("--store", required=True, help="sqlite:///FILE of a service that is stopped.")
@click.option("--key", "reporter", required=True, help="Name of the API key whose reports do not count any more.")
@click.option("--since", type=_TIME, required=True, help="From this time on (UTC), by when they were received.")
@click.option("--until", type=_TIME, help="Before this time (UTC); without one, all up to now.")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--who", default=getpass.getuser, show_default="the user of this shell", help="Kept in the ledger.")
def retract(store: str, reporter: str, since: dt.datetime, until: dt.datetime | None, reason: str, who: str) -> None:
    """Retract what an API key reported: outcomes, and outcomes of the events that it sent.

    They stay in the ledger, marked as retracted, and count no more: what they taught leaves the belief exactly, and
    evaluations read the corrected rewards. Repeat it safely; what was interrupted goes on. Withdraw the key first.
    """
    if not file_of(store).exists():
        raise LedgerError(f"{file_of(store)} does not exist: give the file of a service's --store")
    now = clocks.wall()
    first, end = _utc(since), now + 1 if until is None else _utc(until)
    asked = Withdrawal(at=now, who=who, reporter=reporter, since=first, until=end, reason=reason)
    opened = open_store(store)
    try:
        done, voided, corrected = withdrawals.retract(opened, asked)
    finally:
        opened.close()
    if not done.seq:
        click.echo(f"nothing to retract: {reporter!r} reported nothing then that counts")
    else:
        click.echo(f"retraction {done.seq} of {time_of(done.at):%Y-%m-%d %H:%M} UTC: {voided:,} outcomes")
    click.echo(f"{corrected:,} settled decisions were corrected")


def _utc(when: dt.datetime) -> int:
    return microseconds(when.replace(tzinfo=dt.UTC))
