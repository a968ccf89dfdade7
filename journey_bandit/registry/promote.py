"""Commands `journey-bandit promote` and `shadow`. With `rollback`, they are the only ways in which what decides
changes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from bandit import release
from bandit.errors import InvalidRequest, NotFound, Problem, RemoteError
from bandit.snapshot import Snapshot, unpack
from experiments.inference.wording import by, when, who
from experiments.mlflow.approvals import Approval, named
from experiments.mlflow.approver import approver
from experiments.promotion.verdict import PromotionVerdict
from journey_bandit import console
from journey_bandit.registry.publish import MLFLOW
from journey_bandit.registry.shadows import score
from journey_bandit.service.service_client import AdminClient, serves
from journey_bandit.shell_user import shell_user
from journey_bandit.workflows import publishing
from journey_bandit.workflows.judgements import judged_release
from journey_bandit.workflows.policy_evidence import gather

if TYPE_CHECKING:
    from experiments.mlflow.registry import Registry

WHY = click.option("--why", required=True, help="For the audit table.")
WHO = click.option("--who", default=shell_user, show_default="the user of this shell")
_STORE = click.option("--store", envvar="JOURNEY_BANDIT_STORE", help="The ledger: judge by what it says now.")
URL = click.option("--url", envvar="JOURNEY_BANDIT_URL", help="Of a service: wait until it decides with it.")
KEY = click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="")
_LONGEST = 60.0  # seconds that --url waits


@click.command()
@click.argument("app")
@click.argument("stage")
@click.argument("version")
@WHY
@WHO
@_STORE
@click.option("--override", default="", help="Why it may go live against the verdict of the promotion rule.")
@URL
@KEY
@MLFLOW
def promote(
    app: str,
    stage: str,
    version: str,
    why: str,
    who: str,
    store: str | None,
    override: str,
    url: str,
    key: str,
    uri: str,
) -> None:
    """Approve a version: it decides once `registry sync` has brought it to the service.

    The gate is the stage's promotion rule. With --store it is asked now; without, what the review or the shadow found.
    Of a version that was judged it asks the judgement, which has no verdict before the declared number of decisions.
    """
    console.quiet()
    from experiments.mlflow.registry import Registry, digest, name_of

    registry, model = Registry(uri), name_of(app, stage)
    tags = registry.tags(model, version)
    files = registry.files(model, version, tags.get("policy_sha256", ""))
    snapshot = unpack(files)
    release.prepare(snapshot, snapshot.stage_spec)
    standing = registry.standing(model)
    gate, reasons = tags.get("gate", "not judged"), tags.get("gate_reasons", "")
    if store:
        verdict = asked_now(store, stage, snapshot, digest(files), lambda: publishing.compared(registry, standing)[0])
        gate, reasons = verdict.decision, "; ".join(verdict.reasons)
        untold(registry.annotate(model, version, {"gate": gate, "gate_reasons": reasons}))
    if gate != "promote" and not override:
        fix = "wait for more evidence (`journey-bandit shadow`), or say why with --override"
        raise InvalidRequest(Problem("version", f"the gate says {gate}: {reasons}", fix))
    before = standing.move.version if standing.move else ""  # whatever somebody did to the alias
    move = Approval(
        number=0, kind="promote", version=version, replaces=before, by=approver(uri, who), at=publishing.now_iso(),
        why=why, gate=gate,
        override=override if gate != "promote" else "", sha256=digest(files), belief_sha256=snapshot.belief.digest(),
    )  # fmt: skip
    _move(registry, model, move, url, key, stage)


@click.command()
@click.argument("app")
@click.argument("stage")
@click.argument("version", required=False)
@_STORE
@MLFLOW
def shadow(app: str, stage: str, version: str | None, store: str | None, uri: str) -> None:
    """Score VERSION on live traffic without showing it ("none" ends that); with --store, print the score so far."""
    console.quiet()
    from experiments.mlflow.registry import Registry, name_of

    registry, model = Registry(uri), name_of(app, stage)
    if version is not None:
        if version != "none":
            registry.tags(model, version)
        registry.challenge(model, None if version == "none" else version)
    standing = registry.standing(model)
    if standing.challenger is None:
        console.out.print(f"{model} has no challenger.")
        return
    if not store:
        console.out.print(f"{model}: the challenger is version {standing.challenger}; `registry sync` scores it.")
        return
    challenger = registry.snapshot(model, standing.challenger)
    champion = publishing.compared(registry, standing)[0]
    found = score(store, stage, standing.challenger, challenger, champion)
    console.out.print(f"{model}: {found.sentence}", soft_wrap=True)


def asked_now(
    store: str,
    stage: str,
    snapshot: Snapshot,
    sha256: str,
    champion: Callable[[], tuple[str, Snapshot] | None],
) -> PromotionVerdict:
    """What the promotion rule says now: of a candidate that was judged by its judgement, at the declared number and not
    before; of any other by the log of what decided instead.
    """
    try:
        return judged_release(store, stage, sha256=sha256).verdict
    except NotFound:
        return gather(store, stage, snapshot, champion(), segments=True).judged.verdict


def _move(registry: "Registry", model: str, move: Approval, url: str | None, key: str, stage: str) -> None:
    made = registry.move(model, move, approval_tags)
    done = made.move
    change = f"{named(done.replaces)} → {named(done.version)}"
    console.out.print(f"{model}: {change}, move {done.number}{by(done.by)}.", soft_wrap=True)
    if done.version:
        console.out.print(f"belief sha256 {done.belief_sha256}")
    untold(made.untold)
    if url:
        with AdminClient(url, key) as service:
            console.out.print(f"{service.url} decides with it after {wait(service, stage, model, done):.1f} s.")
    else:
        console.out.print("`journey-bandit registry sync` brings it to the service within seconds.")


def untold(notes: Sequence[str]) -> None:
    """Print what MLflow could not be told, one note a line. Nothing waits for MLflow: the approval itself counts."""
    for note in notes:
        console.out.print(f"note: MLflow: {note}", markup=False, soft_wrap=True)


def approval_tags(move: Approval) -> Mapping[str, str]:
    """Tags that a version gets in MLflow when it is approved: by whom, when, why, and what the gate said."""
    override = {"override": move.override} if move.override else {}
    return {
        "review": "approved",
        "approved_by": who(move.by),
        "approved_at": when(move.at),
        "replaces": move.replaces or "learned",
        "reason": move.why,
        "gate_at_approval": move.gate,
        **override,
    }


def wait(service: AdminClient, stage: str, model: str, move: Approval) -> float:
    """Seconds until a service decides with what the approval says, asked again and again. Raises RemoteError if that
    does not come in time.
    """
    start = time.monotonic()
    while time.monotonic() - start < _LONGEST:
        if serves(service.releases().get(stage), model, move):
            return time.monotonic() - start
        time.sleep(0.2)
    raise RemoteError(
        f"{service.url} does not decide with it after {_LONGEST:.0f} s: is `journey-bandit registry sync` running? "
        "Its health says why not"
    )
