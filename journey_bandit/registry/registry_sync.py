"""Registry sync, the sidecar between a service and its registry: `journey-bandit registry sync`.

`round` brings what is approved to the service, sets live runs aside that are due, and tells health. `work` logs them
and scores the challenger: it takes long, so it has a thread of its own. Each step can fail alone; a failure of the
registry leaves the service as it is. All that counts is in the registry, the service and the queue of runs, so a
process that was killed goes on where it stopped.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from api.releases.service import iso
from api.stores import open_store
from bandit.errors import JourneyBanditError, RemoteError
from bandit.snapshot import Snapshot
from experiments.inference.wording import by
from experiments.mlflow.approvals import Approval, RegistryState, in_registry, named
from experiments.promotion.lift_monitor import monitor
from journey_bandit.registry.run_queue import QueuedRun, RunQueue
from journey_bandit.registry.shadows import score
from journey_bandit.service.service_client import AdminClient, decided_after, serves
from journey_bandit.workflows import ledger_log, publishing
from journey_bandit.workflows.publishing import PublishRequest

if TYPE_CHECKING:
    from experiments.mlflow.registry import Registry

log = logging.getLogger("journey_bandit.registry")

_GREW = 1.05  # a challenger is scored again when the ledger has grown by so much
_PER_ROUND = 4  # live runs that are logged before the challenger is looked at again


class RegistrySync:
    """Registry sync of one service. `ledger` "": no live runs and no shadows, only releases. `every`, `publish_every`:
    seconds between rounds and between live runs; 0 never publishes.

    Threads: `round` runs on one thread and `work` on another; the queue of runs on disk is what they share.
    """

    def __init__(
        self, registry: "Registry", service: AdminClient, ledger: str, spool: RunQueue, *,
        every: float, publish_every: float, clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ):  # fmt: skip
        self._registry, self._service, self._ledger, self._spool = registry, service, ledger, spool
        self._every, self._publish_every, self._clock = every, publish_every, clock
        self._reachable, self._since, self._detail = True, clock(), ""
        self._refreshed: dict[str, tuple[int, int]] = {}  # stage → number of the move, when (µs)
        self._scored: dict[str, tuple[str, str, int]] = {}  # stage → challenger, champion, decisions then

    def round(self) -> None:
        """Do one round. Raises nothing for what may pass by itself: a failure is logged, told to the service's health,
        and tried again in the next round.
        """
        try:
            app, stages = self._service.stages()
            kept = self._service.releases()
        except JourneyBanditError as error:
            log.warning("the service: %s", error)
            return
        refused = dict[str, str]()
        standings = dict[str, RegistryState]()
        try:
            for stage in stages:
                standings[stage] = self._registry.standing(f"{app}-{stage}")
            self._heard(None)
        except RemoteError as error:
            self._heard(error)
        for stage, standing in standings.items():
            why = self._bring(stage, standing, kept.get(stage))
            if why:
                refused[stage] = why
        if self._ledger and self._publish_every:
            self._due(stages, kept)
        self._tell(refused)

    def work(self) -> None:
        """Log the runs that were set aside, score the challengers, and say anew what is live and what it earns, as far
        as the registry answers; what fails stays queued.
        """
        if not self._ledger or not self._reachable:
            return
        try:
            app, stages = self._service.stages()
            self._log_some(app)
            kept = self._service.releases()
            for stage in stages:
                standing = self._registry.standing(f"{app}-{stage}")
                self._shadow(stage, standing)
                self._refresh(app, stage, standing, kept.get(stage))
        except JourneyBanditError as error:  # `round` tells health
            log.warning("logging is put off: %s", error)

    # -- releases ----------------------------------------------------------------------------------------------

    def _bring(self, stage: str, standing: RegistryState, kept: dict[str, object] | None) -> str | None:
        """Bring what is approved to the service; why it cannot be.

        The ledger has the last word: what the service went back to after the registry's last move is told to the
        registry, never undone.
        """
        if kept and decided_after(kept, standing.move):
            return self._told(standing, kept)
        if standing.refused:
            return standing.refused
        move = standing.serves
        if move is None or serves(kept, standing.model, move):
            return None
        try:
            self._release(stage, standing, move, kept)
        except RemoteError as error:
            log.warning("%s: %s", standing.model, error)
            return str(error)
        except JourneyBanditError as error:  # not what was approved: never tell the service
            log.error("%s: %s", standing.model, error)
            return str(error)
        return None

    def _told(self, standing: RegistryState, kept: Mapping[str, object]) -> str | None:
        """Tell the registry what the service went back to by itself; why it cannot be told."""
        version = str(kept["version"])
        move = Approval(
            number=0,
            kind="rollback",
            version=version,
            replaces=standing.move.version if standing.move else "",
            by=str(kept["approved_by"]),
            at=str(kept["approved_at"]),
            why=str(kept["reason"]),
            gate="rollback",
            sha256=str(kept["sha256"]),
            belief_sha256=str(kept["belief_sha256"]),
        )
        try:
            made = self._registry.move(standing.model, move, lambda _: {"review": "approved"})
        except JourneyBanditError as error:
            return f"the service went back to {named(version)}, and the registry cannot be told: {error}"
        for note in made.untold:
            log.warning("%s: not told: %s", standing.model, note)
        log.info("%s: told the registry of release %s, a rollback", standing.model, kept["number"])
        return None

    def _release(self, stage: str, standing: RegistryState, move: Approval, kept: Mapping[str, object] | None) -> None:
        outgoing = self._service.snapshot(stage)
        if not (move.kind == "rollback" and self._service.went_back(stage, move)):
            files = {}
            if in_registry(move.version):
                if self._registry.tags(standing.model, move.version).get("review") != "approved":
                    raise RemoteError(f"{standing.model} {move.version} does not carry review=approved")
                files = self._registry.files(standing.model, move.version, move.sha256)
            self._service.release(stage, standing.model, move, files)
        log.info("%s: %s decides now", standing.model, named(move.version))
        if self._ledger and self._publish_every:  # how what goes did while it decided
            ended = f"it was rolled back{by(move.by)}: {move.why}"
            why = f"until {ended if move.kind == 'rollback' else f'{named(move.version)} was approved{by(move.by)}'}"
            try:
                self._set_aside(stage, why, kept, outgoing)
            except JourneyBanditError as error:
                log.warning("%s: no live run of what was replaced: %s", standing.model, error)

    # -- live runs ---------------------------------------------------------------------------------------------

    def _due(self, stages: list[str], kept: Mapping[str, Mapping[str, object]]) -> None:
        for stage in stages:
            last = self._spool.latest(stage)
            if last == 0:
                self._spool.latest(stage, self._clock())  # the first is due one interval after the start
            elif self._clock() - last >= self._publish_every * 1e6:
                try:
                    self._set_aside(stage, "on schedule", kept.get(stage), self._service.snapshot(stage))
                except JourneyBanditError as error:
                    log.warning("%s: the live run is put off: %s", stage, error)

    def _set_aside(self, stage: str, why: str, kept: Mapping[str, object] | None, snapshot: Snapshot) -> None:
        store = open_store(publishing.url(self._ledger), read_only=True)
        until = store.last().decision
        any_ = next(store.decisions(stage), None)
        store.close()
        self._spool.latest(stage, self._clock())
        if any_ is not None:  # a stage that nobody asked has nothing to show
            number = int(str(kept["number"])) if kept and kept["version"] else 0
            waiting = QueuedRun(stage=stage, at=self._clock(), until=until, why=why, release=number)
            self._spool.put(waiting, snapshot)

    def _log_some(self, app: str) -> None:
        for _ in range(_PER_ROUND):
            found = self._spool.first()
            if found is None:
                return
            file, waiting, snapshot = found
            wanted = PublishRequest(
                ledger=self._ledger,
                stage=waiting.stage,
                snapshot=snapshot,
                kind="live",
                at=waiting.at,
                until=waiting.until,
                release=waiting.release,
                why=waiting.why,
                previous=self._spool.previous(waiting.stage),
            )
            try:
                done = publishing.publish(self._registry.uri, wanted)
            except RemoteError:
                raise
            except JourneyBanditError as error:  # it never can be: the ledger is another one
                log.error("%s/%s: a live run cannot be logged: %s", app, waiting.stage, error)
            else:
                log.info("%s: live run of %s logged", done.model, iso(waiting.at))
            self._spool.done(file, waiting.stage, snapshot)

    # -- shadows -----------------------------------------------------------------------------------------------

    def _shadow(self, stage: str, standing: RegistryState) -> None:
        challenger = standing.challenger
        if challenger is None:
            return
        champion = standing.serves.version if standing.serves else ""
        try:
            store = open_store(publishing.url(self._ledger), read_only=True)
            decisions = store.last().decision
            store.close()
            before = self._scored.get(stage)
            if before and before[:2] == (challenger, champion) and decisions < before[2] * _GREW:
                return
            snapshot = self._registry.snapshot(standing.model, challenger)
            against = publishing.compared(self._registry, standing)[0]
            found = score(self._ledger, stage, challenger, snapshot, against)
            self._registry.scored(standing.model, challenger, found.metrics, found.n, self._clock() // 1000)
            verdict = found.evidence.judged.verdict
            tags = {"gate": verdict.decision, "gate_reasons": "; ".join(verdict.reasons), "shadow": found.sentence}
            self._registry.annotate(standing.model, challenger, tags)
            self._scored[stage] = (challenger, champion, decisions)
        except RemoteError:
            raise
        except JourneyBanditError as error:
            log.error("%s: challenger %s cannot be scored: %s", standing.model, challenger, error)

    # -- what changes after a review was written ----------------------------------------------------------------

    def _refresh(self, app: str, stage: str, standing: RegistryState, kept: Mapping[str, object] | None) -> None:
        """After each move, and as often as live runs are logged: what is live, how it does, and how to go back."""
        if standing.move is None:
            return
        number, now = standing.move.number, self._clock()
        before = self._refreshed.get(stage)
        due = self._publish_every and before and now - before[1] >= self._publish_every * 1e6
        if before and before[0] == number and not due:
            return
        try:
            found = ledger_log.open_log(self._ledger, stage)
            found = found._replace(release=int(str(kept["number"])) if kept and kept["version"] else 0)
            floor = found.spec.common_floor
            earns = monitor(found.source(), found.rewards, found.worth, floor=floor).sentence(found.currency)
        except JourneyBanditError as error:
            earns = f"not known: {error}."
        answers = {
            14: publishing.live_answer(self._registry, standing, now),
            15: publishing.rollback_answer(standing, app, stage, now),
        }
        earns = f"What is live, as of {iso(now)}: {earns}"
        for note in self._registry.refresh(standing.model, iso(now), earns, answers):
            log.warning("%s: not told: %s", standing.model, note)
        self._refreshed[stage] = number, now

    # -- health ------------------------------------------------------------------------------------------------

    def _heard(self, error: RemoteError | None) -> None:
        if (error is None) != self._reachable:
            self._reachable, self._since = error is None, self._clock()
            log.warning("the registry is %s: %s", "back" if error is None else "unreachable", error or "")
        self._detail = str(error)[:500] if error else ""

    def _tell(self, refused: dict[str, str]) -> None:
        word = {
            "reachable": self._reachable,
            "since": iso(self._since),
            "detail": self._detail,
            "every": self._every,
            "backlog": len(self._spool),
            "dropped": self._spool.dropped,
            "refused": {stage: why[:1000] for stage, why in refused.items()},
        }
        try:
            self._service.tell(word)
        except RemoteError as error:
            log.warning("the service: %s", error)
