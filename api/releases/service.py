"""Approved snapshots: what a stage serves instead of what it learns, until the next release.

The writer thread admits a release: checks it, appends it to the ledger, swaps it in by one assignment. When the service
starts, the newest are read from the ledger. Whatever is wrong with one, the last good one goes on deciding and health
says why. Learning does not look at releases: it goes on, and the next candidate comes from it.
"""

import datetime as dt
import hashlib
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from api.metrics import Metrics
from api.operations.traffic_settings import TrafficSettings
from api.stores.protocol import Store
from bandit import engine, release
from bandit.catalogue.model import Catalogue, Stage
from bandit.engine import PreparedPolicy
from bandit.errors import InvalidRequest, Problem, SnapshotError
from bandit.records import Release
from bandit.release import NO_NUDGE, judged_beside, no_nudge
from bandit.snapshot import unpack

log = logging.getLogger("journey_bandit.releases")

LEAST_JUDGED = 100
"""Fewest decisions after which a judged candidate can have a verdict."""

_SILENT = 6.0  # of its own intervals that the sync may be silent, and not less than
_SILENT_SECONDS = 30.0


class SyncHeartbeat(NamedTuple):
    """Heartbeat of `registry sync`: whether the registry answers, since when that holds, and what waits to be logged
    there. Kept in memory only.
    """

    at: int  # µs, when it said so
    reachable: bool
    since: int  # µs, when that began
    detail: str
    every: float  # seconds between two words
    backlog: int
    dropped: int
    refused: dict[str, str]  # stage → why what the registry names is not served


class ServedRelease(NamedTuple):
    """Served release of a stage: its policy, ready to decide. `beside_learned`: it is a candidate that is judged, and
    the other half of every decision is what has been learned so far.
    """

    policy: PreparedPolicy
    beside_learned: bool = False


class ReleaseService:
    """Releases of one service: the approved snapshot of each stage that has one, ready to decide.

    Guarantees: a release decides only after it was checked (digests, app, stage, declaration) and is durable in the
    ledger; a release that fails a check changes nothing. Threads: `admit` and `rollback` belong to the writer thread,
    because they append to the ledger; `record_heartbeat` to the event loop. `served` (stage → policy) and `current`
    (stage → newest release, withdrawals included) are replaced by one assignment, so any thread reads them without a
    lock. `unfit` says, by stage, why its newest release does not decide.
    """

    def __init__(self, store: Store, catalogue: Catalogue, metrics: Metrics, traffic: TrafficSettings):
        self._store = store
        self._stages = catalogue.stages
        self._app = catalogue.app
        self._metrics = metrics
        self._traffic = traffic
        self.word: SyncHeartbeat | None = None
        self.served: Mapping[str, ServedRelease] = {}
        self.current: Mapping[str, Release] = {}
        self.unfit: dict[str, str] = {}  # stage → why its newest release does not decide
        self.load()

    def load(self) -> None:
        """Serve the newest releases that the ledger holds: at the start, and once one was admitted to a shared
        ledger.
        """
        every = [kept for kept in self._store.releases() if kept.stage in self._stages]
        for kept in {kept.stage: kept for kept in every}.values():
            history = [one for one in every if one.stage == kept.stage]
            other = judged_beside(history, kept.seq) if kept.judge else None
            for decides, beside in ((kept, other), (other, None)):  # if a candidate does not fit, the other half does
                if decides is None or self._serve(decides, beside):
                    break
        known = {kept.stage for kept in every}
        self.served = {stage: one for stage, one in self.served.items() if stage in known}
        self.current = {stage: one for stage, one in self.current.items() if stage in known}

    def _serve(self, kept: Release, beside: Release | None) -> bool:
        """Serve a release as the ledger has it; whether it can be. If not, what was learned decides: the ledger is
        older than the catalogue.
        """
        before = dict(self.unfit)
        try:
            policy, live = self.prepare(kept), self.prepare(beside) if beside else None
        except SnapshotError as error:
            log.error("release %s %s is not served: %s", kept.model, kept.version, error)
            self.unfit.setdefault(kept.stage, f"{kept.model} {kept.version} is not served: {error}")
            return False
        self._swap(kept, policy, live)
        self.unfit = before
        return True

    @property
    def prepared(self) -> Mapping[str, PreparedPolicy]:
        """Policy of each served release by stage, of a judged one the candidate where the other half is learned."""
        return {stage: one.policy for stage, one in self.served.items()}

    def register(self) -> None:
        """Register the declarations that releases decide under, so that their decisions can be recorded: today's, which
        may have other texts or limits than when a release was admitted. Called before the writer thread starts.
        """
        for stage, one in self.served.items():
            for spec in declared_by(one.policy):
                self._store.register({stage: spec})

    def prepare(self, kept: Release) -> PreparedPolicy | None:
        """Policy of a release, ready to decide; None for a withdrawal. Raises SnapshotError if the release is not what
        it says, or does not fit what the stage declares now.
        """
        return prepared_policy(kept, self._app, self._stages)

    def same(self, given: Release) -> Release | None:
        """Current release of the stage if it is this one (model, version, sha256, time of approval, and how it is
        judged), so that a repeated request changes nothing; None otherwise.
        """
        mine = self.current.get(given.stage)
        if mine is None:
            return None
        return mine if _named(mine) == _named(given) else None

    def admit(self, given: Release) -> Release:
        """Release as the ledger keeps it, once it decides: checked, appended, swapped in. Called in the writer thread.
        A repeated one is answered with the first. Raises InvalidRequest, which says what is wrong with it, and the
        ledger's Unavailable.
        """
        _check_judged(given, self._stages[given.stage])
        again = self.same(given)
        if again is not None:
            return again
        other = judged_beside(self._store.releases(given.stage)) if given.judge else None
        try:
            policy, live = self.prepare(given), self.prepare(other) if other else None
        except SnapshotError as error:
            self._metrics.refusals.labels(given.stage).inc()
            fix = "publish it anew, then promote that version"
            raise InvalidRequest(Problem(error.field, str(error), fix)) from error
        for one in (policy, live):
            if one is not None:
                self._store.register({given.stage: one.snapshot.stage_spec})
                self._traffic.register(given.stage, declared_by(one))
        kept = self._store.publish(given)
        if self._store.shared:
            return kept  # `load` serves it once it is committed
        self._swap(kept, policy and policy._replace(release=kept.seq), live)
        return kept

    def rollback(self, stage: str, to: str | None, by: str, at: int, why: str, now: int) -> Release:
        """Go back to a version that the ledger holds: at once, and without a registry. Called in the writer thread;
        returns the release that this appends.

        `to` is the version, "" for what is learned live, `NO_NUDGE` for no nudge to anybody (which was never released
        before, and needs no release before it), None for what decided before the present one was promoted; `at` and
        `now` are µs since 1970. Asking again with the same `by`, `at` and `why` changes nothing. Raises
        InvalidRequest if there is no such release, or if it does not fit the catalogue of today.
        """
        history = self._store.releases(stage)
        last = history[-1] if history else None
        if last is None and to != NO_NUDGE:
            fix = f'what is learned live decides; "to": "{NO_NUDGE}" shows nothing to anybody'
            raise InvalidRequest(Problem("to", f"nothing was ever released at {stage}", fix))
        told: dict[str, Any] = {"approved_by": by, "approved_at": at, "reason": why}
        more = {**told, "seq": 0, "kind": "rollback", "at": now}
        if last and (last.kind, last.approved_by, last.approved_at, last.reason) == ("rollback", by, at, why):
            return last
        if last is None or to == NO_NUDGE:
            model = last.model if last else f"{self._app}-{stage}"
            new = Release(stage=stage, model=model, version=NO_NUDGE, sha256="", belief_sha256="", **told)
            return self.admit(msgspec.structs.replace(new, **more))
        version = release.rolls_back_to(history)[-1] if to is None else to
        served = [kept for kept in history if not kept.judge]  # what was only judged never decided alone
        found = next((kept for kept in reversed(served) if kept.version == version), None)
        if version and found is None:
            known = ", ".join(dict.fromkeys(kept.version for kept in served if kept.version)) or '"", what is learned'
            raise InvalidRequest(Problem("to", f"version {version} was never released at {stage}", f"one of {known}"))
        new = found or msgspec.structs.replace(
            last, version="", sha256="", belief_sha256="", policy=b"", posterior=b"", judge=False, decisions=0
        )  # fmt: skip
        return self.admit(msgspec.structs.replace(new, **more))

    def _swap(self, kept: Release, policy: PreparedPolicy | None, live: PreparedPolicy | None = None) -> None:
        """Serve a release's policy from now on, None for none; a judged one beside the released policy `live`, or where
        that is None beside what is learned.
        """
        rest = {stage: other for stage, other in self.served.items() if stage != kept.stage}
        if policy is not None:
            joined = policy if live is None else engine.beside(live, policy)
            rest[kept.stage] = ServedRelease(joined, beside_learned=kept.judge and live is None)
        self.served = rest
        self.current = {**self.current, kept.stage: kept}
        self.unfit.pop(kept.stage, None)
        self._metrics.release.labels(kept.stage).set(kept.seq if policy is not None else 0)

    def history(self) -> list[tuple[Release, str]]:
        """Every release of the app, in order, each with the version that a rollback from it leads to ("" for what is
        learned live). Reads the ledger at each call, so it is not for the event loop.
        """
        every, back = self._store.releases(), dict[int, str]()
        for stage in {kept.stage for kept in every}:
            mine = [kept for kept in every if kept.stage == stage]
            back |= zip((kept.seq for kept in mine), release.rolls_back_to(mine), strict=True)
        return [(kept, back[kept.seq]) for kept in every]

    def rolls_back_to(self, kept: Release) -> str:
        """Version that a rollback from a kept release leads to, "" for what is learned live. Reads the ledger, so it is
        not for the event loop.
        """
        mine = self._store.releases(kept.stage)
        return dict(zip((one.seq for one in mine), release.rolls_back_to(mine), strict=True))[kept.seq]

    def failing(self, now: int) -> dict[str, str]:
        """Reasons why something about releases does not work at `now` (µs since 1970), by name: a stage's release, the
        registry, what it names. Health shows them; decisions and learning go on all the same.
        """
        found = {f"release {stage}": why for stage, why in self.unfit.items()}
        word = self.word
        if word is None:
            return found
        silent = (now - word.at) / 1e6
        if silent > max(_SILENT_SECONDS, _SILENT * word.every):
            found["registry"] = f"no word from `registry sync` since {iso(word.at)}"
        elif not word.reachable:
            found["registry"] = f"unreachable since {iso(word.since)}: {word.detail}"
        return found | {f"registry {stage}": why for stage, why in word.refused.items()}

    def record_heartbeat(self, word: SyncHeartbeat) -> None:
        """Keep the latest heartbeat of `registry sync`, and show it in the metrics. Called by `POST /v1/registry`."""
        self.word = word
        self._metrics.registry_up.set(word.reachable)
        self._metrics.backlog.set(word.backlog)
        self._metrics.dropped.set(word.dropped)


def _named(kept: Release) -> tuple[object, ...]:
    return kept.model, kept.version, kept.sha256, kept.approved_at, kept.judge, kept.decisions


def _check_judged(given: Release, stage: Stage) -> None:
    """Raises InvalidRequest, which names each field, for a judgement that no verdict could follow from."""
    problems = []
    if given.version == NO_NUDGE and (given.judge or given.policy or given.posterior):
        problem = f"{NO_NUDGE!r} is the version that shows nothing to anybody: it has no files, and nothing to judge"
        problems.append(Problem("version", problem, "send the version's own number, or no files"))
    if given.version == NO_NUDGE and stage.has_request_actions:
        problem = f"the actions of {given.stage!r} come with each request: there is no arm that shows nothing"
        problems.append(Problem("version", problem, "stop asking for it in the app"))
    if given.judge and not given.version:
        problems.append(Problem("version", "a withdrawal brings no candidate to judge", "name the candidate's version"))
    if given.judge and given.kind == "rollback":
        problems.append(Problem("kind", "a rollback brings no candidate to judge", 'leave it out, or "promote"'))
    if given.judge and stage.has_request_actions:
        problem = f"the actions of {given.stage!r} come with each request: there are no arms to compare"
        problems.append(Problem("judge", problem, "judge candidates of stages whose nudges are declared"))
    if given.judge and given.decisions < LEAST_JUDGED:
        problem = f"{given.decisions}: after so few decisions an interval at 95 % says nothing"
        problems.append(Problem("decisions", problem, f"declare {LEAST_JUDGED} or more, such as 4000"))
    if given.decisions and not given.judge:
        problems.append(Problem("decisions", "they are counted for a candidate that is judged", "add judge = true"))
    if problems:
        raise InvalidRequest(*problems)


def prepared_policy(kept: Release, app: str, stages: Mapping[str, Stage]) -> PreparedPolicy | None:
    """Policy of a release, ready to decide in an app; None for a withdrawal. A pure function of the release and of the
    stages that are declared.

    Raises SnapshotError if its bytes are not those that were approved, it is of another app or stage, or it does not
    fit what the stage declares.
    """
    if not kept.version:
        return None
    if kept.version == NO_NUDGE:
        return release.prepare(no_nudge(app, kept.stage, stages[kept.stage]), stages[kept.stage])._replace(
            release=kept.seq
        )
    if hashlib.sha256(kept.policy).hexdigest() != kept.sha256:
        raise SnapshotError("policy.json is not the one that was approved (sha256 differs)")
    snapshot = unpack({"policy.json": kept.policy, "posterior.npz": kept.posterior})
    if (snapshot.app, snapshot.stage) != (app, kept.stage):
        raise SnapshotError(f"it is of {snapshot.app}/{snapshot.stage}, not of {app}/{kept.stage}")
    if snapshot.belief.digest() != kept.belief_sha256:
        raise SnapshotError("the belief is not the one that was approved (digest differs)")
    return release.prepare(snapshot, stages[kept.stage])._replace(release=kept.seq)


def past(kept: Release, spec: Stage) -> PreparedPolicy:
    """Policy of a release as it decided under the declaration `spec`, to recompute a recorded decision. Raises
    SnapshotError if its bytes cannot be read or do not fit.
    """
    if kept.version == NO_NUDGE:
        return release.prepare(no_nudge("", kept.stage, spec), spec)._replace(release=kept.seq)
    snapshot = unpack({"policy.json": kept.policy, "posterior.npz": kept.posterior})
    return release.prepare(snapshot, spec)._replace(release=kept.seq)


def declared_by(policy: PreparedPolicy) -> list[Stage]:
    """Declarations that decisions of a prepared policy may be made under: its own, and that of a candidate."""
    halves = (policy, policy.candidate)
    return [one.snapshot.stage_spec for one in halves if one is not None]


def iso(microseconds: int) -> str:
    """Time as people read it, UTC with a Z and whole seconds, from microseconds since 1970."""
    return dt.datetime.fromtimestamp(microseconds / 1e6, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
