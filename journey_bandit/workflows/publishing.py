"""Publishing: a policy, the evidence for it, and its review as one run and one version in the registry."""

import datetime as dt
import shlex
import sys
import time
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from api.releases.service import iso
from api.stores import open_store
from bandit.errors import JourneyBanditError, NotFound, RemoteError
from bandit.learning.loss_statement import statement
from bandit.policies.registry import requirement
from bandit.release import NO_NUDGE
from bandit.snapshot import Snapshot, pack, unpack
from experiments.inference.wording import money
from experiments.reports import review
from journey_bandit import console
from journey_bandit.workflows.ledger_log import LedgerLog
from journey_bandit.workflows.policy_evidence import PolicyEvidence, gather

if TYPE_CHECKING:
    from experiments.mlflow.approvals import RegistryState
    from experiments.mlflow.registry import Registry
    from experiments.mlflow.tracking import PublishedVersion

DISTRIBUTION = "journey-bandit"


class PublishRequest(NamedTuple):
    """Request to publish a snapshot. `kind`: candidate, or live for what decides now. `at`: µs. `until` and `release`
    bound the decisions that count; `previous`: the snapshot of the version before, for the diff; `export`: folder of an
    export that holds the decisions that count, whose manifest the run names.
    """

    ledger: str
    stage: str
    snapshot: Snapshot
    kind: str
    at: int = 0
    until: int = 0
    release: int | None = None
    why: str = ""
    previous: Snapshot | None = None  # the live run before
    export: Path | None = None


def publish(uri: str, wanted: PublishRequest) -> "PublishedVersion":
    """Gather the evidence, write the review, register the version at the MLflow `uri`; what was published, with links.
    Raises RemoteError, LedgerError, NotFound, and InvalidRequest for an export that is not of these decisions.
    """
    from experiments.mlflow import tracking
    from experiments.mlflow.registry import Registry, digest, name_of

    console.quiet()
    registry = Registry(uri)
    model = name_of(wanted.snapshot.app, wanted.stage)
    standing = registry.standing(model)
    champion, previous = compared(registry, standing)
    if wanted.kind == "live":
        previous = (f"the live run before, v{wanted.previous.version}", wanted.previous) if wanted.previous else None
    mine = wanted.snapshot if wanted.kind == "candidate" else None
    bounds = wanted.until, wanted.release
    found = gather(wanted.ledger, wanted.stage, mine, champion, *bounds, diff_with=previous, export=wanted.export)
    when = wanted.at or time.time_ns() // 1000
    live = live_answer(registry, standing, when)
    back = rollback_answer(standing, wanted.snapshot.app, wanted.stage, when)
    report = review.build(_about(wanted, found, live, back), _found(found))
    tags = {
        "kind": wanted.kind,
        "gate": found.judged.verdict.decision if wanted.kind == "candidate" else "not asked",
        "gate_reasons": "; ".join(found.judged.verdict.reasons),
        "vs_champion": found.champion,
        "review": "waiting" if wanted.kind == "candidate" else "not asked",
        "policy_sha256": digest(pack(wanted.snapshot)),
        "belief_sha256": wanted.snapshot.belief.digest(),
        "package": installed(DISTRIBUTION),
        **({"why": wanted.why} if wanted.why else {}),
        **({"export_sha256": found.manifest} if found.manifest else {}),
        **({"live_id": f"{wanted.stage}-{wanted.at}"} if wanted.kind == "live" else {}),
        **console.git(),
    }
    data = tracking.EvidenceData(f"{model} decisions", found.digest, wanted.ledger.rsplit("/", 1)[-1], found.reward.n)
    provider = requirement(str(wanted.snapshot.stage_spec.policy.__struct_config__.tag))
    packages = (f"{DISTRIBUTION}[experiments]=={installed(DISTRIBUTION)}", *([provider] if provider else ()))
    return tracking.publish(uri, report, wanted.snapshot, data, packages, tags, when)


def compared(
    registry: "Registry", standing: "RegistryState"
) -> tuple[tuple[str, Snapshot] | None, tuple[str, Snapshot] | None]:
    """Snapshots to compare with: the champion, for the gate, and the version before, for the diff; None where there is
    none.

    A version whose files were deleted in MLflow cannot be compared with, and keeps nobody from going on: a printed note
    says so.
    """
    move = standing.serves
    champion = None
    if move is not None and move.version == NO_NUDGE:
        return None, _newest(registry, standing)
    if move is not None and move.version:
        try:
            champion = (f"champion v{move.version}", unpack(registry.files(standing.model, move.version, move.sha256)))
        except (NotFound, RemoteError) as error:
            console.out.print(f"note: not compared with the champion: {error}", markup=False, soft_wrap=True)
    return (champion, champion) if champion else (None, _newest(registry, standing))


def _newest(registry: "Registry", standing: "RegistryState") -> tuple[str, Snapshot] | None:
    """Newest version that can be read, for the diff."""
    for version in reversed(registry.versions(standing.model)):
        try:
            return f"v{version}", registry.snapshot(standing.model, version)
        except (NotFound, RemoteError) as error:
            console.out.print(f"note: not compared with version {version}: {error}", markup=False, soft_wrap=True)
    return None


def _found(found: PolicyEvidence) -> review.ReviewFindings:
    r = found.rounds
    return review.ReviewFindings(
        rounds=r,
        eligible=found.may,
        pi=found.pi,
        value=found.log.worth.net(found.q_hat),
        reward=found.reward,
        net=found.net,
        monitored=found.monitored,
        segments=found.segments,
        verdict=found.judged.verdict,
        diff=found.diff,
        control=found.contamination.control,
        exposed=found.contamination.exposed,
        worth=found.log.worth,
        daily=found.daily,
    )


def _about(wanted: PublishRequest, found: PolicyEvidence, live: str, rollback: str) -> review.ReviewSubject:
    from experiments.mlflow.registry import digest

    snapshot, spec, log = wanted.snapshot, wanted.snapshot.stage_spec, found.log
    settings = {k: v for k, v in msgspec.to_builtins(spec.policy).items() if k != "name"}
    meta, git = log.store.meta(), console.git()
    terms = log.spec.promotion
    limits = ", ".join(f"{name} {limit:g}" for name, limit in terms.guardrails.items()) or "none"
    rule = (
        f"net value over no nudge and over the live version above {money(terms.min_lift, log.currency)} per decision; "
        f"at most {money(terms.max_regression, log.currency)} below the live version, overall and in each segment; "
        f"{terms.min_n:,} decisions or more; guardrails, each an increase per decision: {limits}"
    )
    at = found.rounds.at
    window = f"{iso(int(at[0]))} to {iso(int(at[-1]))}" if at is not None and len(at) else "no decisions"
    watch = _alarms(wanted)
    return review.ReviewSubject(
        app=log.app,
        stage=wanted.stage,
        currency=meta.get("currency", ""),
        kind=wanted.kind,
        algorithm=str(spec.policy.__struct_config__.tag),
        settings=", ".join(f"{k} {v}" for k, v in settings.items()) or "no settings",
        arms=log.arms,
        floor=spec.common_floor,
        version=snapshot.version,
        belief_sha256=snapshot.belief.digest(),
        policy_sha256=digest(pack(snapshot)),
        salt_id=meta.get("salt_digest", ""),
        champion=found.champion,
        rule=rule,
        data=_data(wanted, log) + (f", as the export {found.manifest} has them" if found.manifest else ""),
        data_sha256=found.digest,
        window=window,
        alarms=watch,
        live=live,
        rollback=rollback,
        command=_command(wanted),
        git=f"commit {git['git_sha'][:12]}{' with changes' if git['dirty'] == 'true' else ''}"
        if git
        else "no checkout",
        binary=log.spec.reward.kind == "binary",
        as_of=iso(wanted.at or time.time_ns() // 1000),
        **_loss(wanted, log),
    )


def _loss(wanted: PublishRequest, log: LedgerLog) -> dict[str, Any]:
    """Loss account of the snapshot; where it has none, the one of what learns at the stage, as the newest decision that
    was not a release's recorded it, and the share of traffic that a snapshot without an account decides.
    """
    spec, own = wanted.snapshot.stage_spec, wanted.snapshot.loss_account
    if own is not None:
        return {"loss": statement(log.served_spec(spec), own)}
    live = log.loss_account()
    found = None if live is None else statement(log.served_spec(), live)
    return {"loss": found, "unbounded": None if spec.loss_share is None else log.served_spec(spec).traffic}


def _command(wanted: PublishRequest) -> str:
    words = ["journey-bandit", *sys.argv[1:]]
    return shlex.join(words if "--store" in words else [*words, "--store", wanted.ledger])


def _data(wanted: PublishRequest, log: LedgerLog) -> str:
    if wanted.release is not None:
        mine = f"release {wanted.release} made" if wanted.release else "no release made"
        return f"decisions of {log.app}/{wanted.stage} that {mine}, up to number {wanted.until:,}"
    return f"decisions of {log.app}/{wanted.stage} after number {log.after:,}"


def _alarms(wanted: PublishRequest) -> tuple[str, ...]:
    from api.ledger import audit
    from api.ledger.statistics_store import load

    store = open_store(url(wanted.ledger), read_only=True)
    try:
        watch = load(store, audit.stages(store))[wanted.stage].drift_state
    finally:
        store.close()
    return tuple(f"{a.arm} {a.direction} at {iso(a.at)}" for a in watch.alarms)


def live_answer(registry: "Registry", standing: "RegistryState", when: int) -> str:
    """What is live at `when` (µs). A page may stay as it is, so it says as of when; the sync says it anew."""
    from experiments.mlflow import approvals

    as_of = f"As of {iso(when)}: "
    if standing.move is None:
        return f"{as_of}nothing was ever approved here: the service decides with what it learns live."
    try:
        done = registry.audit(standing.model)
    except JourneyBanditError:  # an audit table that cannot be read keeps no review from being written
        done = [standing.move]
    move = standing.move
    said = f"{as_of}{approvals.live([*(m for m in done if m.number < move.number), move])}. Gate: {move.gate}"
    return (
        said
        + (f", overridden: {move.override}." if move.override else ".")
        + (f" {standing.refused}." if standing.refused else "")
    )


def rollback_answer(standing: "RegistryState", app: str, stage: str, when: int) -> str:
    """How to roll back, and to what at `when` (µs)."""
    from experiments.mlflow.approvals import named

    to = standing.move.back if standing.move else ""
    return (
        f"journey-bandit rollback {app} {stage} --why '…' --url SERVICE goes back at once, "
        f"as of {iso(when)} to {named(to)}; "
        "--to VERSION to another one, --to none to no nudge for anybody, --to learned to what is learned live. "
        f"journey-bandit registry audit {app} {stage} says what is live now."
    )


def url(ledger: str) -> str:
    """Address of a store: `ledger` itself if it is one (it holds ://), otherwise sqlite:/// and the path of the file.
    Nothing is opened.
    """
    return ledger if "://" in ledger else f"sqlite:///{ledger}"


def now_iso() -> str:
    """Present time as an approval keeps it, an ISO 8601 text in UTC, to the millisecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
