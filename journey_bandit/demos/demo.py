"""Command `journey-bandit demo`: the whole loop on embedded defaults, in about a minute."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from api.ledger import audit
from api.server import free_port
from api.stores import open_store
from bandit.errors import LedgerError
from bandit.snapshot import Snapshot
from journey_bandit import console, mlflow_server, processes
from simulations import scenario
from simulations.live.client import ServiceClient

if TYPE_CHECKING:
    from experiments.reports.report import Report

_HOST = "127.0.0.1"
_SALT = "demo"


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
@click.option("--users", default=12_000, show_default=True, type=click.IntRange(min=200), help="Simulated people.")
@click.option("--customers", type=click.IntRange(min=300), help="Real customers.  [default: all 32,000]")
@click.option("--seed", default=100, show_default=True)
def demo(folder: Path, users: int, customers: int | None, seed: int) -> None:
    """Start a service, let real and simulated people use it over HTTP, show what it learned, and log it to MLflow."""
    console.need_mlflow()
    some = f" --customers {customers}" if customers else ""
    again = f"journey-bandit demo --users {users}{some} --seed {seed}"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="journey-bandit-")))
        tracking = f"http://{_HOST}:{free_port(_HOST)}"
        server = mlflow_server.start(folder / "mlflow", _HOST, int(tracking.rsplit(":", 1)[1]))
        stack.enter_context(processes.stopping(server))
        finished = []
        with _service(temporary, "hillstrom") as client:
            finished.append(console.replay_hillstrom(client, seed=seed, limit=customers, again=again))
        with _service(temporary, "travel", "--clock", "driven") as client:
            finished.append(_simulated(client, seed, users, again))
        for app in ("hillstrom", "travel"):
            _verify(temporary / f"{app}.db")
        processes.wait(server, f"{tracking}/health", folder / "mlflow" / "server.log")
        for report, snapshot in finished:
            console.show(report)
            console.log(tracking, report, snapshot)
    console.out.rule()
    console.out.print("Both services are stopped. Every belief was rebuilt from its ledger: equal, bit for bit.")
    console.out.print(f"Both runs are in MLflow: [bold]make ui[/] (or journey-bandit ui --folder {folder / 'mlflow'})")
    console.out.print("shows them; the report of each is under Artifacts, review/report.html.")


def _simulated(client: ServiceClient, seed: int, users: int, again: str) -> tuple["Report", Snapshot]:
    world, currency = scenario.load("travel"), console.currency_of("travel")
    return console.simulate(client, world, currency, seed=seed, users=users, again=again)


@contextmanager
def _service(folder: Path, app: str, *options: str) -> Iterator[ServiceClient]:
    """A service on a temporary ledger, and a client of it."""
    url, log = f"http://{_HOST}:{free_port(_HOST)}", folder / f"{app}.log"
    where = ("--app", app, "--store", f"sqlite:///{folder / app}.db", "--port", url.rsplit(":", 1)[1])
    process = processes.serve(*where, "--dev", "--salt", _SALT, *options, log=log)
    with processes.stopping(process), ServiceClient(url) as client:
        processes.wait(process, f"{url}/health/ready", log)
        yield client


def _verify(path: Path) -> None:
    opened = open_store(f"sqlite:///{path}", read_only=True)
    for result in audit.rebuild(opened, audit.stages(opened)):
        if not result.equal:
            raise LedgerError(f"{path}: the belief of {result.stage} is not what its ledger adds up to")
    opened.close()
