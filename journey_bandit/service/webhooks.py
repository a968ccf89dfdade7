"""Command `journey-bandit webhooks`: make endpoints, and look at what they did not take."""

from pathlib import Path
from typing import cast

import click

from api.stores import open_store
from api.times import time_of
from api.webhooks.config import KINDS, Kind, create


@click.group()
def webhooks() -> None:
    """Make webhook endpoints, and see what they did not take."""


@webhooks.command()
@click.argument("name")
@click.argument("url")
@click.option("--event", "events", multiple=True, type=click.Choice(KINDS), default=KINDS, show_default=True)
@click.option("--file", type=click.Path(path_type=Path), default=Path("webhooks.toml"), show_default=True)
def new(name: str, url: str, events: tuple[str, ...], file: Path) -> None:
    """Add an endpoint to the file, and print the secret that its receiver verifies with. SIGHUP makes a running service
    use it.
    """
    secret = create(file, name, url, [cast(Kind, event) for event in events])
    click.echo(f"kept in {file}; give the receiver this secret:", err=True)
    click.echo(secret)


@webhooks.command()
@click.option("--store", required=True, help="Store of the service, which may be running.")
def dead(store: str) -> None:
    """Show the messages that were given up, oldest first: endpoint, time (UTC), number of attempts, event and last
    error. POST /v1/webhooks/dead-letters/retry tries them again.
    """
    opened = open_store(store, read_only=True)
    letters = sorted(opened.webhook_deliveries(dead=True), key=lambda one: one.at)
    opened.close()
    for one in letters:
        click.echo(
            f"{one.endpoint:<12} {time_of(one.at):%Y-%m-%d %H:%M:%S} {one.attempts:>3} × {one.event}  {one.error}"
        )
    click.echo(f"{len(letters)} dead letter(s)", err=True)
