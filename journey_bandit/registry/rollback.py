"""Command `journey-bandit rollback`: the emergency exit. What decides changes first; then people are told."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import click

from bandit.errors import InvalidRequest, JourneyBanditError, NotFound, Problem, RemoteError
from bandit.release import NO_NUDGE
from experiments.inference.intervals import Interval
from experiments.inference.wording import against
from experiments.inference.wording import by as said_by
from experiments.mlflow.approvals import Approval, in_registry, named
from experiments.mlflow.approver import approver
from journey_bandit import console
from journey_bandit.registry.promote import KEY, WHO, WHY, untold
from journey_bandit.registry.publish import MLFLOW
from journey_bandit.registry.registry import WAITS
from journey_bandit.service.service_client import AdminClient
from journey_bandit.workflows import publishing

if TYPE_CHECKING:
    from experiments.mlflow.registry import Registry

_WORDS = {"none": NO_NUDGE, "learned": ""}
_NET = {"net_gain": "net_none", "net_low": "net_none_lcb", "net_high": "net_none_ucb"}
"""Metrics of the net value over no nudge, and what they were called before."""


class RollbackTarget(NamedTuple):
    """Target of a rollback: the version it leads to ("" for what is learned live, `NO_NUDGE` for no nudge to anybody),
    what it `replaces` (what decides today), and the digests of the target's files.
    """

    version: str
    replaces: str
    sha256: str = ""
    belief_sha256: str = ""


@click.command()
@click.argument("app")
@click.argument("stage")
@WHY
@WHO
@click.option(
    "--to",
    help="A version that was approved before; none: no nudge for anybody; learned: what is learned live.  "
    "[default: the one before]",
)
@click.option("--url", envvar="JOURNEY_BANDIT_URL", help="Of the service: it goes back at once, and needs no MLflow.")
@KEY
@click.option("--yes", is_flag=True, help="Do not ask, even if the version was worse than no nudge.")
@MLFLOW
def rollback(
    app: str, stage: str, why: str, who: str, to: str | None, url: str | None, key: str, yes: bool, uri: str
) -> None:
    """Go back to the version before, or to one that was approved before: the same bytes decide again.

    With --url the service does it at once from its own ledger, whatever MLflow says, and MLflow is told what it can be
    told. Without, MLflow is told, and `registry sync` brings it to the service. `--to none` never asks, and needs no
    version that was approved before.
    """
    os.environ.update(WAITS)
    console.quiet()
    from experiments.mlflow.registry import Registry, name_of

    registry, model, at = Registry(uri), name_of(app, stage), publishing.now_iso()
    wanted, by = _WORDS.get(to or "", to), approver(uri, who)
    if url:
        with AdminClient(url, key) as service:
            target = _of_service(service, stage, wanted)
            _ask(registry, model, target, yes=yes)
            done = service.rollback(stage, target.version, by, at, why)
            by = str(done["approved_by"])
            console.out.print(f"{service.url}: {_said(target)}{said_by(by)}, release {done['number']}.", soft_wrap=True)
        sums = {"sha256": str(done["sha256"]), "belief_sha256": str(done["belief_sha256"])}
        target = target._replace(**sums)
    else:
        target = _of_registry(registry, model, wanted)
        _ask(registry, model, target, yes=yes)
    if target.belief_sha256:
        console.out.print(f"belief sha256 {target.belief_sha256}")
    move = Approval(
        number=0, kind="rollback", version=target.version, replaces=target.replaces, by=by, at=at, why=why,
        gate="rollback", sha256=target.sha256, belief_sha256=target.belief_sha256,
    )  # fmt: skip
    try:
        made = registry.move(model, move, lambda _: {"review": "approved"})
    except JourneyBanditError as error:
        if not url:
            raise
        untold([f"not told yet, `journey-bandit registry sync` goes on trying: {error}"])
        return
    if not url:
        console.out.print(f"{model}: {_said(target)}, move {made.move.number}{said_by(by)}.")
        console.out.print("`journey-bandit registry sync` brings it to the service within seconds.")
    untold(made.untold)


def _said(target: RollbackTarget) -> str:
    return " → ".join(named(version) for version in (target.replaces, target.version))


def _of_service(service: AdminClient, stage: str, wanted: str | None) -> RollbackTarget:
    """Where the service would go back to, by its ledger. NotFound if nothing was ever released."""
    last = service.releases(judged=True).get(stage)
    if last is None and wanted == NO_NUDGE:
        return RollbackTarget(NO_NUDGE, "")
    if last is None:
        fix = "what is learned live decides already; --to none shows nothing to anybody"
        raise NotFound("stage", f"nothing was ever released at {stage}", fix)
    return RollbackTarget(str(last["rolls_back_to"]) if wanted is None else wanted, str(last["version"]))


def _of_registry(registry: "Registry", model: str, wanted: str | None) -> RollbackTarget:
    """Where the registry's moves lead. NotFound, InvalidRequest, RemoteError."""
    try:
        done = registry.audit(model)
    except RemoteError as error:
        move = registry.standing(model).move  # an audit table that cannot be read stops nobody
        if move is None:
            raise
        untold([str(error)])
        done = [move]
    if not done and wanted == NO_NUDGE:
        return RollbackTarget(NO_NUDGE, "")
    if not done:
        raise NotFound("model", f"nothing was ever approved for {model}", "promote a version first")
    last = done[-1]
    version = last.back if wanted is None else wanted
    if not in_registry(version):
        return RollbackTarget(version, last.version)
    approved = next((m for m in reversed(done) if m.version == version), None)
    if approved is None:
        raise InvalidRequest(Problem("to", f"version {version} was never approved", "promote it, or give --url"))
    try:
        registry.tags(model, version)
    except NotFound as error:
        fix = "give --url of the service, whose ledger has its bytes, or --to none"
        raise InvalidRequest(Problem("to", f"version {version} was deleted in MLflow", fix)) from error
    return RollbackTarget(version, last.version, approved.sha256, approved.belief_sha256)


def _ask(registry: "Registry", model: str, target: RollbackTarget, *, yes: bool) -> None:
    """Say how the version did against no nudge, and ask if it lost. InvalidRequest where nobody can answer."""
    if not in_registry(target.version):
        return
    try:
        found = registry.metrics(model, target.version)
    except RemoteError as error:
        untold([f"how version {target.version} did against no nudge cannot be read: {error}"])
        return
    over = reviewed_gain(found)
    if over is None:
        console.out.print(f"note: how version {target.version} did against no nudge was not known at its review")
        return
    said = f"at its review: {against(over, 'no nudge', 'per decision net of costs')}"
    console.out.print(f"version {target.version} {said}", soft_wrap=True)
    if over.high >= 0.0:
        return
    offer = "--to none shows nothing to anybody, which earned more"
    console.out.print(f"version {target.version} loses money against no nudge; {offer}", soft_wrap=True)
    if yes:
        return
    try:
        click.confirm("Go back to it all the same?", abort=True)
    except click.Abort as error:
        problem = f"version {target.version} loses money against no nudge ({said}), and nobody said yes"
        fix = f"{offer}; --yes goes back to it all the same"
        raise InvalidRequest(Problem("to", problem, fix)) from error


def reviewed_gain(metrics: Mapping[str, float]) -> Interval | None:
    """Net gain of a version over no nudge per decision, as its review found it, from the metrics of its run; None where
    it was not known.
    """
    value, low, high = (metrics.get(name, metrics.get(before)) for name, before in _NET.items())
    return None if value is None or low is None or high is None else Interval(value, low, high, 0)
