"""Command `journey-bandit publish`: what a ledger has taught, as a version in the registry with its review."""

from pathlib import Path
from typing import Any

import click
import msgspec

from api.ledger import audit, candidates
from api.stores import open_store
from bandit.snapshot import Snapshot
from journey_bandit import console
from journey_bandit.workflows import publishing
from journey_bandit.workflows.publishing import PublishRequest
from simulations.offline.policy_specs import policy_spec

MLFLOW = click.option(
    "--mlflow", "uri", envvar="JOURNEY_BANDIT_MLFLOW", default="http://127.0.0.1:5000", show_default=True
)
STORE = click.option("--store", required=True, envvar="JOURNEY_BANDIT_STORE", help="The ledger; it may be in use.")


@click.command()
@click.argument("stage")
@STORE
@MLFLOW
@click.option(
    "--policy", help="Another policy, learned from the same ledger: linear:alpha=0.3, hierarchical, uniform …"
)
@click.option(
    "--hold-back", default=0.3, show_default=True, type=click.FloatRange(0.0, 0.9),
    help="Newest share of settlements that do not teach it, so that they can judge it.",
)  # fmt: skip
@click.option("--why", default="", help="What is new about it.")
@click.option(
    "--rounds", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="An export of the stage, to judge by what it holds; its manifest is named.",
)  # fmt: skip
@click.option("--shadow", is_flag=True, help="Make it the challenger too: scored on live traffic, never shown.")
@click.option("--json", "as_json", is_flag=True)
def publish(stage: str, store: str, uri: str, policy: str | None, hold_back: float, why: str, **given: Any) -> None:
    """Learn a candidate from the ledger's older decisions, judge it by the newer ones, register it for review."""
    console.need_mlflow()
    snapshot = learned(store, stage, policy, hold_back)
    wanted = PublishRequest(store, stage, snapshot, "candidate", why=why, export=given["folder"])
    done = publishing.publish(uri, wanted)
    if given["shadow"]:
        from experiments.mlflow.registry import Registry

        Registry(uri).challenge(done.model, done.version)
    from experiments.mlflow import reviewer_view

    link = reviewer_view.run_link(uri, *done.logged)
    if given["as_json"]:
        body = {"model": done.model, "version": done.version, "run": link, "belief_sha256": snapshot.belief.digest()}
        click.echo(msgspec.json.encode(body).decode())
        return
    app = snapshot.app
    console.out.print(
        f"{done.model} version {done.version}, learned from {snapshot.version:,} settlements. Its review: {link}"
    )
    console.out.print(f"To approve it: journey-bandit promote {app} {stage} {done.version} --why '…' --store {store}")


def learned(store: str, stage: str, policy: str | None, hold_back: float) -> Snapshot:
    """Snapshot of what the stage's own policy, or another one (`policy`), has learned but for the newest share
    `hold_back` in [0, 1) of decisions, which are kept to judge it by. Raises LedgerError if the ledger cannot be
    opened.
    """
    opened = open_store(publishing.url(store), read_only=True)
    try:
        spec = None
        if policy:
            declared = audit.stages(opened)[stage]
            made = policy_spec(policy, set(declared.arms)).stage(declared, declared.holdout)
            spec = msgspec.structs.replace(made, floor=declared.floor)  # without a floor nothing could judge it later
        return candidates.candidate(opened, stage, candidates.position(opened, stage, hold_back), spec)
    finally:
        opened.close()
