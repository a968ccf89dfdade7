"""Routes of releases: approved snapshots are released by `registry sync` and listed for anybody who may read; the sync
also tells health of the registry here.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from litestar import Request, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.components import CurrentParts
from api.http.error_responses import documented
from api.http.request_body import BodyShape, read, takes
from api.messages.releases import RegistryHeartbeat, ReleaseReply, ReleaseRequest, ReleasesReply, RollbackRequest
from api.releases.service import ReleaseService, SyncHeartbeat
from api.times import microseconds, time_of
from bandit.records import Release

Ask = Request[Any, Any, Any]

_RELEASE, _ROLLBACK, _WORD = BodyShape(ReleaseRequest), BodyShape(RollbackRequest), BodyShape(RegistryHeartbeat)
_MOST_BYTES = 64_000_000
_EXAMPLE = {
    "model": "travel-cart",
    "version": "",
    "approved_by": "ana",
    "approved_at": "2026-01-01T00:00:00Z",
    "reason": "back to what is learned live",
}
_BACK = {"approved_by": "ana", "reason": "refunds rose"}
_HEARD = {"reachable": True, "since": "2026-01-01T00:00:00Z"}


def routes(current: CurrentParts, holder: Callable[[Ask], str]) -> list[HTTPRouteHandler]:
    """Route handlers of one service: release, roll back, list, and the heartbeat of `registry sync`. What changes what
    decides runs in the worker's thread. `holder`: name of the key that a request presents, "" without one.
    """
    return [*_changing(current, holder), *_telling(current)]


def _changing(current: CurrentParts, holder: Callable[[Ask], str]) -> list[HTTPRouteHandler]:
    @put(
        "/v1/policies/{stage:str}/release",
        operation_id="release_policy",
        summary="Serve an approved snapshot",
        operation_class=takes(ReleaseRequest, _EXAMPLE),
        responses=documented(400, 401, 403, 404, 413, 415),
        request_max_body_size=_MOST_BYTES,
        opt={"scope": "admin"},
        tags=["release"],
    )
    async def release(request: Ask, stage: FromPath[str]) -> ReleaseReply:
        """The snapshot is checked, kept in the ledger, then served by the next decision; with `judge`, by half of it.
        Repeating the request changes nothing.
        """
        given = await read(request, _RELEASE)
        async with current.inside() as parts:
            parts.catalogue.stage(stage)
            kept = await parts.worker.admit(_approved(stage, given, _attributed(given.approved_by, holder(request))))
            return await _answer(kept, parts.worker.releases)

    @post(
        "/v1/policies/{stage:str}/rollback",
        operation_id="roll_back_policy",
        status_code=200,
        summary="Go back to what decided before",
        operation_class=takes(RollbackRequest, _BACK),
        responses=documented(400, 401, 403, 404, 413, 415),
        opt={"scope": "admin"},
        tags=["release"],
    )
    async def rollback(request: Ask, stage: FromPath[str]) -> ReleaseReply:
        """Takes effect at once, from the bytes in the ledger; no registry is asked. Repeating the request with its
        `approved_at` changes nothing.
        """
        given = await read(request, _ROLLBACK)
        async with current.inside() as parts:
            parts.catalogue.stage(stage)
            now, releases = current.ground.clock(), parts.worker.releases
            at = now if given.approved_at is None else microseconds(given.approved_at)
            who = _attributed(given.approved_by, holder(request))
            work = partial(releases.rollback, stage, given.to, who, at, given.reason, now)
            return await _answer(await asyncio.wrap_future(parts.worker.run(work, together=True)), releases)

    return [release, rollback]


def _telling(current: CurrentParts) -> list[HTTPRouteHandler]:
    @get(
        "/v1/releases",
        operation_id="list_releases",
        summary="Every release, in order",
        responses=documented(401, 403),
        opt={"scope": "read"},
        tags=["release"],
        sync_to_thread=True,
    )
    def listed() -> ReleasesReply:
        """Append-only list: what decided from when on, who approved it, and why."""
        return ReleasesReply([_released(kept, back) for kept, back in current.parts.worker.releases.history()])

    @post(
        "/v1/registry",
        operation_id="record_registry_heartbeat",
        status_code=200,
        summary="What `registry sync` tells health",
        operation_class=takes(RegistryHeartbeat, _HEARD),
        responses=documented(400, 401, 403, 413, 415),
        opt={"scope": "admin"},
        tags=["release"],
    )
    async def heard(request: Ask) -> dict[str, str]:
        """The heartbeat is kept in memory: health and metrics show it, nothing waits for it."""
        word = await read(request, _WORD)
        since = microseconds(word.since)
        told = (word.detail, word.every, word.backlog, word.dropped, word.refused)
        heartbeat = SyncHeartbeat(current.ground.clock(), word.reachable, since, *told)
        current.parts.worker.releases.record_heartbeat(heartbeat)
        return {"status": "ok"}

    return [listed, heard]


def _attributed(claimed: str, key: str) -> str:
    """Who approved, as the ledger keeps it: the key that was presented and whom its holder named, or where no key is
    asked for the name alone, which proves nothing.
    """
    return f"key {key}, for {claimed}" if key else claimed


def _approved(stage: str, given: ReleaseRequest, who: str) -> Release:
    return Release(
        stage=stage,
        kind=given.kind,
        model=given.model,
        version=given.version,
        sha256=given.sha256,
        belief_sha256=given.belief_sha256,
        approved_by=who,
        approved_at=microseconds(given.approved_at),
        reason=given.reason,
        policy=given.policy,
        posterior=given.posterior,
        judge=given.judge,
        decisions=given.decisions,
    )


async def _answer(kept: Release, releases: ReleaseService) -> ReleaseReply:
    """The ledger is read in another thread: a stage's releases hold the bytes of all its snapshots."""
    return _released(kept, await asyncio.to_thread(releases.rolls_back_to, kept))


def _released(kept: Release, back: str) -> ReleaseReply:
    return ReleaseReply(
        number=kept.seq,
        stage=kept.stage,
        kind=kept.kind,
        model=kept.model,
        version=kept.version,
        sha256=kept.sha256,
        belief_sha256=kept.belief_sha256,
        approved_by=kept.approved_by,
        approved_at=time_of(kept.approved_at),
        reason=kept.reason,
        at=time_of(kept.at),
        judge=kept.judge,
        decisions=kept.decisions,
        rolls_back_to=back,
    )
