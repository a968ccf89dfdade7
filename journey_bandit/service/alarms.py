"""Command `journey-bandit alarms`: keys that were accused of reporting more rewards than were usual, and what was
found out about them.
"""

import getpass
from typing import cast

import click

from api import clocks
from api.learning import withdrawals
from api.ledger import audit, statistics_store
from api.stores import file_of, is_database, open_store
from api.times import time_of
from bandit.errors import InvalidRequest, LedgerError, Problem
from bandit.records import AlarmAcknowledgement, AlarmVerdict
from bandit.reporters.acknowledgements import about
from journey_bandit.service.service_client import AdminClient


@click.group()
def alarms() -> None:
    """See which keys were accused of forging rewards, and say what was found out about them."""


@alarms.command("list")
@click.option("--store", required=True, help="sqlite:///FILE of the service; it may be running.")
def listed(store: str) -> None:
    """Show the alarms of each stage, oldest first: time (UTC), stage, key, arm, mean reward that the key brought, what
    is usual at most, and what was found out.
    """
    opened, waiting = open_store(store, read_only=True), 0
    known = opened.acknowledgements()
    for name, statistics in statistics_store.load(opened, audit.stages(opened)).items():
        mine = [one for one in known if one.stage == name]
        for alarm in statistics.reward_watch.alarms:
            found = about(alarm, mine)
            waiting += found is None
            told = f"{found.verdict}, {found.who} {time_of(found.at):%Y-%m-%d}" if found else "not acknowledged"
            click.echo(
                f"{time_of(alarm.at):%Y-%m-%d %H:%M:%S}  {name:<12} {alarm.reporter:<16} {alarm.arm:<12} "
                f"{alarm.reward / alarm.decisions:.3g} of {alarm.allowed:.3g}  {told}"
            )
    opened.close()
    click.echo(f"{waiting} alarm(s) not acknowledged", err=True)


@alarms.command()
@click.argument("stage")
@click.argument("reporter", metavar="KEY_NAME")
@click.option("--verdict", type=click.Choice(["honest", "forged"]), required=True, help="What was found out.")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--who", default=getpass.getuser, show_default="the user of this shell", help="Kept in the ledger.")
@click.option("--url", envvar="JOURNEY_BANDIT_URL", help="Of a running service.")
@click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="With the scope admin.")
@click.option("--store", help="sqlite:///FILE of a service that is stopped.")
def acknowledge(
    stage: str, reporter: str, verdict: str, reason: str, who: str, url: str | None, key: str, store: str | None
) -> None:
    """Acknowledge the alarms so far about a key at a stage: they warn no more.

    Where the stage pauses at an alarm, what the key reported is learned if it is honest, and left out for good if it is
    forged. Repeat it safely; what was interrupted goes on.
    """
    if bool(url) == bool(store):
        raise InvalidRequest(Problem("url", "give --url or --store, not both", "--url if the service runs"))
    if url:
        number = AdminClient(url, key).acknowledge(stage, reporter, verdict, who, reason)["number"]
    else:
        number = _offline(store or "", stage, reporter, cast(AlarmVerdict, verdict), who, reason)
    click.echo(f"acknowledgement {number}: {reporter!r} at {stage} is {verdict}")
    if verdict == "forged":
        click.echo("revoke the key; to take back what it taught: journey-bandit retract --key --since", err=True)


def _offline(store: str, stage: str, reporter: str, verdict: AlarmVerdict, who: str, reason: str) -> int:
    """Number of the acknowledgement that this process writes; LedgerError if a service runs on the ledger."""
    if not (is_database(store) or file_of(store).exists()):
        raise LedgerError(f"{file_of(store)} does not exist: give the file of a service's --store")
    asked = AlarmAcknowledgement(
        at=clocks.wall(), who=who, stage=stage, reporter=reporter, verdict=verdict, reason=reason
    )
    opened = open_store(store)
    try:
        done, corrected = withdrawals.acknowledge(opened, asked)
    finally:
        opened.close()
    click.echo(f"{corrected:,} settled decisions were corrected")
    return done.seq
