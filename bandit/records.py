"""Ledger records: decisions, outcomes, settlements, events and releases, as immutable values that stores keep and
policies learn from.

Times are microseconds since 1970 (UTC); arrays over arms are in the order of the stage's declaration, which
`stage_digest` names. Money and rewards are in the reward's own units unless a field says otherwise.
"""

import uuid
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array
from bandit.learning.loss_account import LossAccount

OutcomeKind = Literal["reward", "activation", "retraction", "opt_out"]
Value = str | float | bool
Why = Literal[
    "reward", "silence", "retraction", "holdout", "over limit", "not activated", "other schema", "held", "erased"
]
AlarmVerdict = Literal["honest", "forged"]
OperatorVerb = Literal["pause", "resume", "retire", "ramp", "holdout"]

ALL_NUDGES = ""
"""The nudge of an operator's action that is about all nudges of its stage."""


NOT_NOW = "not now"
"""The moment of a decision that was asked for when no moment held."""


CROSSED = "control group, but nudges were shown to this person before: under an id joined later, or before the holdout"
"""Noted on decisions of the holdout whose person had been exposed."""


class PendingBasis(NamedTuple):
    """Basis of a snapshot's provisional part: what was known beyond what had settled, at time `at` (µs), of the
    ledger's first `decisions` decisions and first `outcomes` outcomes.

    A receipt computes the same provisional belief from it again. All zero: the snapshot used nothing that was open.
    """

    at: int = 0
    decisions: int = 0
    outcomes: int = 0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Decision record: one decision at one stage and everything needed to recompute it.

    Shapes: k arms, d features. Guarantees: `propensity` (k,) holds multiples of 2⁻²⁴ that sum to 1, 0 where not
    eligible; `arm` is the one drawn at `u` from it; while a candidate is judged, `candidate` (k,) is its own vector,
    and `propensity` half of it and half of the live policy's; `x` is on the 2⁻¹² grid; the value never changes once the
    ledger has it. Times are µs since 1970 (UTC). `engine.decide` and `engine.rank` make it, `api` records it under
    `id`, and `engine.recompute` confirms it for a receipt.

        arms = decision.arms(stage.arms)
        p = decision.propensity[arms.index(decision.arm)]  # of the drawn arm, as off-policy evaluation needs it
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
    request: bytes  # digest of the request, to tell a retry from a conflict; empty: its person was erased
    x: Array  # (d,)
    propensity: Array  # (k,); 0 where not eligible
    candidate: Array = msgspec.field(default_factory=lambda: np.zeros(0))  # (k,) of the judged one's; (0,): none was
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
    contribution: int = 1  # what it took of its user's contribution limit; 0: that was used up, so it is not learned
    loss_account: LossAccount | None = None  # of the snapshot that made it; None: it has none, or was not recorded

    def arms(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        """Arm names (k,) that the decision's arrays are over: those that came with the request, else those `declared`
        by its stage.
        """
        return self.actions or declared

    @property
    def is_remainder(self) -> bool:
        """Whether this is what an erasure left of a decision: it teaches what it taught, and says of nobody that it was
        theirs. It cannot be recomputed.
        """
        return not self.request

    @property
    def is_actionable(self) -> bool:
        """Whether a moment held when the journey was asked. A decision at NOT_NOW is logged, never learned, and
        credited with nothing.
        """
        return self.moment != NOT_NOW


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Release record: an approved snapshot that a stage serves from `at` on, or, with `version` "", that it serves none
    any more.

    Fields: `seq` is given by the store. `kind`: promote or rollback, "" in rows of versions that did not keep it.
    `version` is the registry's; `at` and `approved_at` in µs. `sha256` is that of policy.json, which holds the hash of
    the other file; `belief_sha256` is `Belief.digest()`. `policy` and `posterior` are the bytes of the two files of
    `bandit.snapshot.pack`. `judge`: the snapshot is a candidate, which decides half of the traffic beside what decided
    before, until the next release; `decisions`: after how many of them there is a verdict, declared beforehand.
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
    judge: bool = False
    decisions: int = 0  # declared for the verdict on a judged candidate; 0: it is none


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Event record: something that a user did, as the ledger keeps it.

    Times in µs, `at` ≤ `received`. Only declared properties are kept. `user` and `alias` are keyed hashes, never ids.
    Immutable; `bandit.journey.folding.fold` reads them in the order of (at, id).
    """

    id: str  # unique in the ledger
    user: bytes  # keyed hash of the id it came under, 16 bytes
    alias: bytes | None = None  # keyed hash of another id of the same user, said in the same message
    at: int
    received: int
    name: str  # as declared in the catalogue; empty for an event it does not declare
    properties: dict[str, Value | None] = {}  # None: sent as null, which takes an earlier value away
    reporter: str = ""  # name of the API key that sent it first; "": no key was needed, or it was not recorded


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome record: something reported about a decision, a reward, an activation, a retraction or an opt-out (the
    person wants no more of what was shown). `id` is unique within the decision.

    Fields: `value` in the reward's own units, None where none is needed; `occurred` and `received` in µs; `late`:
    received after the decision was settled or its window was over, so that it does not count. `fact`: what it is about,
    such as one order; what is taken back is taken from the same fact. "": no fact was named, and amounts are taken from
    the whole. `voids`: the id of an outcome of this decision that does not count any more, because the event it came
    from belongs to another decision. `reporter`: name of the API key that reported it first, or sent the event it came
    from; "": no key was needed, or it was not recorded. `withdrawal`: number of the withdrawal that voids that outcome;
    0: an event does, or nothing is voided.
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
    reporter: str = ""
    withdrawal: int = 0


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """Withdrawal record: who had what a key reported taken out of force, when and why. `seq` is given by the store.

    It is about outcomes that `reporter` reported and that were received from `since` until before `until`. Times in µs.
    """

    seq: int = 0
    at: int
    who: str
    reporter: str
    since: int
    until: int
    reason: str


class AlarmAcknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Acknowledgement record: what an operator found out about a key that was accused at a stage
    (`bandit.reporters.reward_watch`), and who, when (`at`, µs) and why. `seq` is given by the store.

    It is about the alarms that settlements numbered up to `through`, the ledger's newest, have raised, and counts for
    settlements after that one. `verdict`: "honest" lets what the key reported be learned, "forged" does not.
    """

    seq: int = 0
    at: int
    who: str
    stage: str
    reporter: str
    verdict: AlarmVerdict
    reason: str
    through: int = 0  # given by the store


class OperatorAction(msgspec.Struct, frozen=True, kw_only=True):
    """Operator action record: who paused, resumed or retired a nudge of a stage, or set its ramp or its holdout, when
    (`at`, µs) and why. `seq` is given by the store.

    `nudge`: its name, or ALL_NUDGES. From a "pause" until the next "resume" the nudge is not eligible, from a "retire"
    on for good; decisions say so in `excluded`. `share`: of the traffic ("ramp", in (0, 1]) or of people ("holdout", in
    [0, 1)) from then on, for all of the stage; None: as declared, and for the other verbs.
    """

    seq: int = 0
    at: int
    who: str
    stage: str
    nudge: str
    verb: OperatorVerb
    reason: str
    share: float | None = None


class MaturedDecision(msgspec.Struct, frozen=True):
    """Matured decision: a decision whose reward is final, its number `seq` in the ledger, and the outcomes that were
    reported in time. Stores hand it to the learner, which makes a `Settlement` of it. `settled`: its newest settlement,
    if it has one, which what was reported since corrects.
    """

    seq: int
    decision: Decision
    outcomes: tuple[Outcome, ...]
    settled: "Settlement | None" = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Settlement record: the final reward of a decision, and the site (τ, ν) that it contributed to its stage's belief
    if it was learned.

    Guarantees: numbered by the store in the order in which the policy learned, never changed: a decision has one, and a
    further one for each correction. Summing the sites of each decision's newest one gives the stage's belief to the
    bit, in any order.

    Fields: `seq`: number in the ledger, given by the store. `decision_seq`: number of the decision. `at` in µs.
    `reward` in the reward's own units. `why`: where the reward came from. `tau`, `nu`: 0 where not learned. `corrects`:
    number of the decision's first settlement, 0 if this is the first. `outcomes`: how many of the decision's outcomes
    it rests on, in the order in which they came; later ones were not known.
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
    corrects: int = 0
    outcomes: int = 0

    @property
    def first(self) -> int:
        """Number of the decision's first settlement: by it the decision belongs to an epoch and to a schema."""
        return self.corrects or self.seq
