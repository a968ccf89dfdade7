"""Command `journey-bandit ui`: a local MLflow server on the runs that were logged to a folder, with links that open on
what matters.
"""

from pathlib import Path
from typing import Any

import click
import httpx

from api.server import free_port
from bandit.errors import RemoteError
from experiments.mlflow import reviewer_view
from journey_bandit import console, mlflow_server, processes

_NOTHING = [("no runs yet", "make some with `journey-bandit demo`, or `publish` with --mlflow and this address")]


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo-output/mlflow"), show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True, help="0 takes any free port.")
def ui(folder: Path, host: str, port: int) -> None:
    """Serve the runs in FOLDER until Ctrl-C, and print a link for each experiment."""
    console.need_mlflow()
    if not (folder / "mlflow.db").exists():
        inside = folder / "mlflow"
        there = f"--folder {inside} has some" if (inside / "mlflow.db").exists() else "`journey-bandit demo` makes some"
        raise RemoteError(f"no runs in {folder}: {there}; --folder names the folder that holds mlflow.db")
    mlflow_server.refuse_taken(host, port)
    port = port or free_port(host)
    url = f"http://{host}:{port}"
    server = mlflow_server.start(folder, host, port)
    with processes.stopping(server):
        processes.wait(server, f"{url}/health", folder / "server.log")
        for name, link in [*links(url), *((f"model {name}", link) for name, link in models(url))] or _NOTHING:
            click.echo(f"{name:<24} {link}")
        click.echo("Ctrl-C stops it.")
        server.wait()


def links(url: str) -> list[tuple[str, str]]:
    """Links to the experiments of the MLflow server at `url`, (name, link): in the mode that shows metrics, or to the
    reviewer's view where the experiment has one.
    """
    found = [e for e in _search(url, "experiments", "experiments/search") if e["name"] != "Default"]
    return [link for experiment in found for link in _links_of(url, experiment)]


def _links_of(url: str, experiment: dict[str, Any]) -> list[tuple[str, str]]:
    """A link for each seeded view of an experiment, or one without a view."""
    name, number = experiment["name"], experiment["experiment_id"]
    tags = {tag["key"] for tag in experiment.get("tags", [])}
    seeded = [view for view in reviewer_view.VIEWS if reviewer_view.TAG_PREFIX + view.key in tags]
    if not seeded:
        return [(name, reviewer_view.plain(url, number))]
    first, *others = seeded
    more = [(f"{name}, {view.name.lower()}", reviewer_view.link(url, number, view)) for view in others]
    return [(name, reviewer_view.link(url, number, first)), *more]


def models(url: str) -> list[tuple[str, str]]:
    """Links to the registered models of the MLflow server at `url`, (name, link), for `ui` to print."""
    return [
        (m["name"], reviewer_view.model_link(url, m["name"]))
        for m in _search(url, "registered_models", "registered-models/search")
    ]


def _search(url: str, what: str, path: str) -> list[dict[str, Any]]:
    address = f"{url}/api/2.0/mlflow/{path}"
    if path.startswith("registered"):
        answer = httpx.get(address, params={"max_results": 100}, timeout=20.0)
    else:
        answer = httpx.post(address, json={"max_results": 100}, timeout=20.0)
    if answer.status_code != httpx.codes.OK:
        raise RemoteError(f"MLflow at {url} answered {answer.status_code} to a list of {what}")
    found: list[dict[str, Any]] = answer.json().get(what, [])
    return found
