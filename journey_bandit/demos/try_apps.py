"""Command `journey-bandit try`: five example apps to click through, with a panel that shows what the service knows and
did.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from api import server
from journey_bandit.demos.example_apps import services
from journey_bandit.demos.example_apps.app_specs import BY_NAME


@click.command("try")
@click.option("--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
@click.option(
    "--app", type=click.Choice(list(BY_NAME)), help="The app whose link is printed.  [default: a list of all]"
)
def try_apps(port: int, app: str | None) -> None:
    """Start five example apps and print a link. Ctrl-C ends everything; nothing is kept."""
    from journey_bandit.demos.example_apps.backends import AppBackend
    from journey_bandit.demos.example_apps.front_server import create_front

    with ExitStack() as stack:
        early = stack.enter_context(server.hangups())
        address, port = stack.enter_context(server.claimed(services.HOST, port))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="journey-bandit-")))
        click.echo("five services start …", err=True)
        front = create_front([AppBackend(one) for one in stack.enter_context(services.running(folder, port))])
        click.echo(f"http://{services.HOST}:{port}/{f'try/{app}' if app else ''}")
        click.echo("Ctrl-C ends everything; nothing is kept", err=True)
        server.serve(front, address, port, _nothing, early)


async def _nothing() -> None:
    """What a SIGHUP makes the front server read anew: nothing."""
