"""What the ledger is made of. Times are microseconds since 1970 (UTC); arrays over arms are in the
order of the stage's declaration, which `spec` names."""

import uuid
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array

OutcomeKind = Literal["reward", "activation", "retraction"]
Value = str | float | bool
Why = Literal["reward", "silence", "retraction", "holdout", "not activated", "other schema"]


NOT_NOW = "not now"
"""The moment of a decision that was asked for when no moment held."""


class PendingBasis(NamedTuple):
    """What was known beyond what had settled: at `at` (µs), of the ledger's first decisions and outcomes, that many.

    All zero: nothing.
    """

    at: int = 0
    decisions: int = 0
    outcomes: int = 0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision and everything needed to recompute it: a row of the ledger.

    Times in µs since 1970 (UTC). Arrays over arms are (k,) in the order of the stage's declaration, no nudge first, or
    of `actions`. `engine.recompute` gives the same arrays bit for bit.
    """

    id: uuid.UUID
    at: int
    expires: int  # end of the attribution window
    stage: str
    stage_digest: str  # digest of the stage as declared when it was made
    settlement_version: int  # the settlements the policy had learned: those numbered up to this
    pending_basis: PendingBasis = PendingBasis()  # and what it took from decisions that were still open
    user: bytes  # keyed hash, 16 bytes
    unit: bytes = b""  # what the person's group is drawn from: `engine.randomization_unit`; empty: not recorded
    request: bytes  # digest of the request, to tell a retry from a conflict
    x: Array  # (d,)
    propensity: Array  # (k,); 0 where not eligible
    mean: Array  # (k,) q̂
    sd: Array  # (k,)
    u: float
    arm: str
    holdout: bool
    excluded: dict[str, str]  # nudge → reason
    evidence: dict[str, str | int]
    notes: tuple[str, ...]
    moment: str = ""  # what made the journey ask; NOT_NOW; empty when the caller named the stage
    deferred: bool = False  # learned only if an activation (it was really shown) was reported in time
    actions: tuple[str, ...] = ()  # (k,) arms that came with the request; empty: those of the declaration
    phi: Array = msgspec.field(default_factory=lambda: np.zeros((0, 0)))  # (k, d) their features; x is the drawn one's
    release: int = 0  # number of the approved release that made it; 0: what had been learned here so far

    def arms(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        """What its arrays are over."""
        return self.actions or declared

    @property
    def is_actionable(self) -> bool:
        """Whether it was a question at all: "not now" is logged, never learned, and credited with nothing."""
        return self.moment != NOT_NOW


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """An approved snapshot that a stage serves from `at` on, or, with `version` "", that it serves none any more.

    `version` is the registry's; `approved_at` in µs. `sha256` is that of policy.json, which holds the other file's.
    """

    seq: int = 0  # given by the store
    stage: str
    kind: str = ""  # promote or rollback; "" in rows of versions that did not keep it
    model: str
    version: str
    sha256: str
    belief_sha256: str
    approved_by: str
    approved_at: int
    reason: str
    at: int = 0
    policy: bytes = b""
    posterior: bytes = b""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something a user did, as the ledger keeps it. Times in µs since 1970 (UTC), `at` ≤ `received`.

    Only events and properties that the catalogue declares have a name and values here; `id` is unique in the ledger.
    """

    id: str  # unique in the ledger
    user: bytes  # keyed hash of the id it came under, 16 bytes
    alias: bytes | None = None  # keyed hash of another id of the same user, said in the same message
    at: int
    received: int
    name: str  # as declared in the catalogue; empty for an event it does not declare
    properties: dict[str, Value | None] = {}  # None: sent as null, which takes an earlier value away


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Something reported about a decision. `id` is unique within the decision; times in µs since 1970 (UTC).

    fact: what it is about, such as one order; what is taken back is taken from the same fact. "": no fact was named,
    and amounts are taken from the whole. voids: the id of an outcome of this decision that does not count any more,
    because the event it came from belongs to another decision.
    """

    decision: uuid.UUID
    id: str
    kind: OutcomeKind
    value: float | None
    occurred: int
    received: int
    late: bool = False
    fact: str = ""
    voids: str = ""


class MaturedDecision(msgspec.Struct, frozen=True):
    """A decision whose reward is final, with what was reported in time."""

    seq: int
    decision: Decision
    outcomes: tuple[Outcome, ...]


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The final reward of a decision, and the site it contributed to the belief if it was learned.

    `reward` is in the stage's own units, `tau` (precision) and `nu` (shift) in those of the policy's link; both are 0
    where nothing was learned, and `why` says why the reward is what it is. `at` in µs.
    """

    seq: int = 0  # position in the ledger, given by the store
    decision_seq: int
    stage: str
    arm: str
    at: int
    reward: float  # in the reward's own units
    why: Why
    learned: bool
    tau: float
    nu: float
