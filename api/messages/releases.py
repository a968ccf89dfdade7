"""Messages of the native protocol about releases and the registry. Docstrings of these types are texts of the OpenAPI
document.
"""

import datetime as dt
from typing import Annotated, Literal

import msgspec

from api.messages.decisions import Aware

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=250)]
Digest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
Version = Annotated[str, msgspec.Meta(max_length=64)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class ReleaseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An approved snapshot to serve from now on; `version` "" withdraws the present one. Files are base64.

    `judge`: the snapshot is a candidate: from now on every decision is drawn from half of it and half of what decided
    before, until the next release. `decisions`: declared beforehand, after how many of them there is a verdict.
    """

    model: Text
    version: Version
    kind: Literal["promote", "rollback"] = "promote"
    approved_by: Text
    approved_at: Aware
    reason: Reason
    sha256: Digest = ""
    belief_sha256: Digest = ""
    policy: bytes = b""
    posterior: bytes = b""
    judge: bool = False
    decisions: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] = 0


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Go back, at once, to what the ledger holds. `to`: a version that decided before, "" for what is learned live;
    null for what decided before the present version was promoted. `approved_at`: now, if it is null.
    """

    to: Version | None = None
    approved_by: Text
    approved_at: Aware | None = None
    reason: Reason


class ReleaseReply(msgspec.Struct, frozen=True, kw_only=True):
    """A release as the ledger keeps it: what it is, who approved it, when and why, and where a rollback leads. `judge`:
    it decides one half only, and is judged after `decisions`.
    """

    number: int
    stage: str
    kind: str
    model: str
    version: str
    sha256: str
    belief_sha256: str
    approved_by: str
    approved_at: dt.datetime
    reason: str
    at: dt.datetime
    judge: bool
    decisions: int
    rolls_back_to: str  # the version that `rollback` leads to; "" for what is learned live


class ReleasesReply(msgspec.Struct, frozen=True):
    """Every release of the app, in order."""

    releases: list[ReleaseReply]


class RegistryHeartbeat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Heartbeat of `registry sync`, shown by health: is the registry reachable, since when, and what waits to be logged
    there.
    """

    reachable: bool
    since: Aware
    detail: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    every: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 5.0
    backlog: Annotated[int, msgspec.Meta(ge=0)] = 0
    dropped: Annotated[int, msgspec.Meta(ge=0)] = 0
    refused: dict[str, str] = {}
