"""`journey-bandit simulate`: simulated people against a live service."""

import click

from cli import runs
from simulations.client import ServiceClient
from simulations.scenario import names


@click.command()
@click.option("--app", required=True, type=click.Choice(names()), help="Whose people come.")
@click.option("--url", required=True, help="The service, started with `serve --app … --window-scale 1e-5`.")
@click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="API key, unless the service runs with --dev.")
@click.option("--users", default=12_000, show_default=True, type=click.IntRange(min=200))
@click.option("--seed", default=100, show_default=True)
@click.option("--mlflow", "uri", help="Log the run to this MLflow server, e.g. http://127.0.0.1:5000")
@click.option("--json", "as_json", is_flag=True, help="Print the headline metrics as JSON.")
def simulate(app: str, url: str, key: str, users: int, seed: int, uri: str | None, as_json: bool) -> None:
    """Drive a live service with people whose true behaviour is known, so that regret is known.

    They arrive, and convert late, on the service's compressed clock. The service sees only what an app would send.
    """
    if uri:
        runs.need_mlflow()
    with ServiceClient(url, key) as client:
        report, snapshot = runs.simulate(client, app, seed=seed, users=users)
    runs.finish(report, snapshot, uri, as_json=as_json)
