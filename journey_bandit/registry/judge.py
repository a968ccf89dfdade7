"""Command `journey-bandit judge`: let a candidate decide half of a stage's traffic until there is a verdict on it."""

import click

from api.releases.service import LEAST_JUDGED
from bandit import release
from bandit.snapshot import unpack
from experiments.inference.wording import by
from experiments.mlflow.approvals import Approval
from experiments.mlflow.approver import approver
from journey_bandit import console
from journey_bandit.registry.promote import KEY, WHO, WHY, untold
from journey_bandit.registry.publish import MLFLOW
from journey_bandit.service.service_client import AdminClient
from journey_bandit.workflows import publishing


@click.command()
@click.argument("app")
@click.argument("stage")
@click.argument("version")
@click.option(
    "--decisions",
    required=True,
    type=click.IntRange(LEAST_JUDGED, 1_000_000_000),
    help="After how many decisions there is a verdict: declared now, kept in the ledger.",
)
@WHY
@WHO
@click.option("--url", envvar="JOURNEY_BANDIT_URL", required=True, help="Of the service.")
@KEY
@MLFLOW
def judge(app: str, stage: str, version: str, decisions: int, why: str, who: str, url: str, key: str, uri: str) -> None:
    """Judge VERSION: every decision is drawn from half of it and half of what decides now.

    `journey-bandit verdict` says how far it is. It goes on until `promote`, `rollback --url` or another `judge`.
    """
    console.quiet()
    from experiments.mlflow.registry import Registry, digest, name_of

    registry, model = Registry(uri), name_of(app, stage)
    files = registry.files(model, version, registry.tags(model, version).get("policy_sha256", ""))
    snapshot = unpack(files)
    release.prepare(snapshot, snapshot.stage_spec)
    move = Approval(
        number=0, kind="promote", version=version, replaces="", by=approver(uri, who), at=publishing.now_iso(), why=why,
        gate="being judged", sha256=digest(files), belief_sha256=snapshot.belief.digest(),
    )  # fmt: skip
    with AdminClient(url, key) as service:
        kept = service.release(stage, model, move, files, decisions)
        console.out.print(
            f"{service.url}: half of every decision at {stage} is version {version} now, release {kept['number']}; a "
            f"verdict after {decisions:,} decisions.",
            soft_wrap=True,
        )
    told = f"after {decisions} decisions of release {kept['number']}{by(str(kept['approved_by']))}"
    untold(registry.annotate(model, version, {"review": "being judged", "judged": told}))
