"""`journey-bandit replay`: real people of a randomised experiment through a live service."""

import click

from cli import runs
from simulations.client import ServiceClient


@click.group()
def replay() -> None:
    """Pass real, randomised data through a live service."""


@replay.command()
@click.option("--url", required=True, help="The service, started with `serve --app hillstrom`.")
@click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="API key, unless the service runs with --dev.")
@click.option("--seed", default=100, show_default=True, help="Order of the customers.")
@click.option("--limit", type=click.IntRange(min=300), help="Only the first so many.  [default: all 32,000]")
@click.option("--mlflow", "uri", help="Log the run to this MLflow server, e.g. http://127.0.0.1:5000")
@click.option("--json", "as_json", is_flag=True, help="Print the headline metrics as JSON.")
def hillstrom(url: str, key: str, seed: int, limit: int | None, uri: str | None, as_json: bool) -> None:
    """32,000 real customers, three e-mail arms at random (MineThatData, 2008).

    Rejection replay: a decision that agrees with what the customer really received gets the real outcome; the others
    are skipped and not learned.
    """
    if uri:
        runs.need_mlflow()
    with ServiceClient(url, key) as client:
        report, snapshot = runs.replay_hillstrom(client, seed=seed, limit=limit)
    runs.finish(report, snapshot, uri, as_json=as_json)
