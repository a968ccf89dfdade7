"""Command `journey-bandit registry`: the sidecar that keeps a service and its registry together, and
what was approved.
"""

import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from journey_bandit import console
from journey_bandit.registry.publish import MLFLOW
from journey_bandit.registry.run_queue import RunQueue
from journey_bandit.service.service_client import AdminClient

if TYPE_CHECKING:
    from journey_bandit.registry.registry_sync import RegistrySync

WAITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


@click.group()
def registry() -> None:
    """Keep a service and its registry of policies together."""


@registry.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The service.")
@click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="With the scopes admin and read.")
@MLFLOW
@click.option("--store", envvar="JOURNEY_BANDIT_STORE", default="", help="The service's ledger: live runs and shadows.")
@click.option("--every", default=3.0, show_default=True, type=click.FloatRange(0.2, 3600.0), help="Seconds.")
@click.option(
    "--publish-every", default=3600.0, show_default=True, type=click.FloatRange(min=0.0), help="Seconds; 0: no."
)
@click.option("--spool", type=click.Path(path_type=Path), default=Path("registry-spool"), show_default=True)
@click.option("--once", is_flag=True, help="One round, then end.")
def sync(url: str, key: str, uri: str, store: str, every: float, publish_every: float, spool: Path, once: bool) -> None:
    """Bring approved policies to the service, log its live runs, score its challenger, tell its health."""
    os.environ.update(WAITS)
    console.quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from experiments.mlflow.registry import Registry
    from journey_bandit.registry.registry_sync import RegistrySync

    with AdminClient(url, key) as service:
        mine = RegistrySync(Registry(uri), service, store, RunQueue(spool), every=every, publish_every=publish_every)
        if once:
            mine.round()
            mine.work()
            return
        threading.Thread(target=_working, args=(mine, every), name="registry-work", daemon=True).start()
        while True:
            start = time.monotonic()
            mine.round()
            time.sleep(max(0.0, every - (time.monotonic() - start)))


def _working(mine: "RegistrySync", every: float) -> None:
    while True:
        try:
            mine.work()
        except Exception:
            logging.getLogger("journey_bandit.registry").exception("logging failed; it is tried again")
        time.sleep(every)


@registry.command()
@click.argument("app")
@click.argument("stage")
@MLFLOW
def audit(app: str, stage: str, uri: str) -> None:
    """Every approval and rollback, checked as a chain: no line was changed or taken out."""
    console.quiet()
    from experiments.inference.wording import when, who
    from experiments.mlflow.approvals import lost_lines, named, why
    from experiments.mlflow.registry import Registry, name_of

    client, model = Registry(uri), name_of(app, stage)
    moves = client.audit(model)
    table = Table("#", "move", "version", "replaces", "by", "at", "why", "gate", "belief", title=model)
    for m in moves:
        row = (str(m.number), m.kind, named(m.version), named(m.replaces), who(m.by), when(m.at), why(m), m.gate)
        table.add_row(*row, m.belief_sha256[:12])
    console.out.print(table)
    if lost := lost_lines(moves):
        where = "the audit table was deleted in MLflow; the ledger has its releases"
        console.out.print(f"Moves 1 to {lost} are lost: {where}.", soft_wrap=True)
    standing = client.standing(model)
    console.out.print(standing.refused or "The alias and the last approval agree; the chain is whole.")
