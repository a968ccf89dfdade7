"""`journey-bandit ui`: MLflow on the runs that were logged."""

from pathlib import Path

import click
import httpx

from bandit.errors import RemoteError
from cli import mlflow_server, processes, runs


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo-output/mlflow"), show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
def ui(folder: Path, host: str, port: int) -> None:
    """Serve the runs in FOLDER until Ctrl-C, and print a link for each experiment."""
    runs.need_mlflow()
    if not (folder / "mlflow.db").exists():
        raise RemoteError(f"no runs in {folder}: `make demo` makes some, or give --folder")
    url = f"http://{host}:{port}"
    server = mlflow_server.start(folder, host, port)
    with processes.stopping(server):
        processes.wait(server, f"{url}/health", folder / "server.log")
        for name, link in links(url):
            click.echo(f"{name:<24} {link}")
        click.echo("Ctrl-C stops it.")
        server.wait()


def links(url: str) -> list[tuple[str, str]]:
    """(experiment, link), in the mode that shows metrics."""
    answer = httpx.post(f"{url}/api/2.0/mlflow/experiments/search", json={"max_results": 100}, timeout=20.0)
    if answer.status_code != httpx.codes.OK:
        raise RemoteError(f"MLflow at {url} answered {answer.status_code} to a list of experiments")
    found = answer.json().get("experiments", [])
    mode = "workflowType=machine_learning"
    return [
        (e["name"], f"{url}/#/experiments/{e['experiment_id']}/runs?{mode}") for e in found if e["name"] != "Default"
    ]
