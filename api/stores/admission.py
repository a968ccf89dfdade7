"""Admission of decisions and outcomes to a ledger: what is new, what is a duplicate, what contradicts. Pure functions;
the same rules in every store.
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import msgspec

from api.stores.decision_log import DecisionRecord, OutcomeReceipt, RecordedDecision
from bandit.catalogue.model import Stage
from bandit.errors import LedgerError, Problem
from bandit.learning import rewards
from bandit.records import Decision, Outcome, OutcomeKind, Settlement

SKEW = 300_000_000  # µs that a client's clock may differ from ours

MOST_OUTCOMES = 500
"""Outcomes of one decision: each further one is compared with all that came before."""


class AdmissionPlan(NamedTuple):
    """Plan of what one transaction has to write: new decisions with their numbers, new outcomes, and the numbers of
    decisions whose reward is final before their window ends, and of settled ones that are to be corrected.
    """

    decisions: list[tuple[int, Decision]]
    outcomes: list[Outcome]
    hastened: list[int]  # decisions whose reward is final before their window ends
    corrected: list[int]  # settled decisions about which something was reported within the stage's grace


def admit(
    decisions: Sequence[Decision],
    outcomes: Sequence[Outcome],
    now: int,
    specs: Mapping[str, Stage],
    known: Mapping[uuid.UUID, DecisionRecord],
    next_seq: int,
) -> tuple[AdmissionPlan, list[RecordedDecision], list[OutcomeReceipt]]:
    """Plan of what to write, with the result of each decision and the receipt of each outcome, in the order given.
    Pure; called by `record` of a store within its transaction.

    `known`: the ledger's records of the ids concerned; `next_seq`: the number of the next decision; `now` in µs since
    1970. The rules of an outcome are those its decision was made under (`specs`, by digest), whatever the catalogue
    says by now.
    """
    plan, kept, noted = AdmissionPlan([], [], [], []), [], []
    ledger = dict(known)
    for decision in decisions:
        found = ledger.get(decision.id)
        if found is None:
            seq = next_seq + len(plan.decisions)
            plan.decisions.append((seq, decision))
            ledger[decision.id] = DecisionRecord(seq, decision, (), None)
            kept.append(RecordedDecision(decision, duplicate=False, seq=seq))
        else:
            kept.append(RecordedDecision(found.decision, duplicate=True, seq=found.seq))
    for reported in outcomes:
        found = ledger.get(reported.decision)
        outcome, note = _judge(found, reported, now, specs)
        if found is None or note.status != "recorded":
            noted.append(note)
            continue
        plan.outcomes.append(outcome)
        seen = found._replace(outcomes=(*found.outcomes, outcome))
        noted.append(note._replace(found=seen, notes=outside(specs[found.decision.stage_digest], outcome)))
        ledger[reported.decision] = seen
        if found.settlement is not None:
            plan.corrected.extend(() if outcome.late else (found.seq,))
        elif not outcome.late and _is_final(specs, seen):
            plan.hastened.append(found.seq)
    return plan, kept, noted


def outside(stage: Stage, outcome: Outcome) -> tuple[str, ...]:
    """Notes on a reward whose value the stage's declared range does not hold, and which counts as the nearest value
    inside; empty for any other outcome.
    """
    spec = stage.reward
    if outcome.kind != "reward" or outcome.value is None or spec.min <= outcome.value <= spec.max:
        return ()
    clipped = min(max(outcome.value, spec.min), spec.max)
    span = f"[{spec.min:g}, {spec.max:g}]"
    return (f"value: {outcome.value:g} is outside the declared range {span}, counts as {clipped:g} at most",)


def _is_final(specs: Mapping[str, Stage], found: DecisionRecord) -> bool:
    decision = found.decision
    return rewards.is_final(specs[decision.stage_digest], found.outcomes, deferred=decision.deferred)


def finite(settlements: Sequence[Settlement]) -> None:
    """Check that rewards and learning sites of settlements are finite. Raises LedgerError if one is not: SQLite would
    keep NaN as NULL, and no sum survives it either.
    """
    for s in settlements:
        if not all(map(math.isfinite, (s.reward, s.tau, s.nu))):
            raise LedgerError(f"the settlement of decision number {s.decision_seq} is not finite")


def _judge(
    found: DecisionRecord | None, outcome: Outcome, now: int, specs: Mapping[str, Stage]
) -> tuple[Outcome, OutcomeReceipt]:
    """The outcome as it would be recorded, and what to answer."""
    if found is None:
        return outcome, OutcomeReceipt("unknown")
    decision = found.decision
    problem = _invalid(specs[decision.stage_digest], decision, outcome, now)
    if problem:
        return outcome, OutcomeReceipt("invalid", problem=problem, stage=decision.stage)
    if outcome.kind == "reward" and outcome.value is None:
        outcome = msgspec.structs.replace(outcome, value=1.0)
    for place, other in enumerate(found.outcomes):
        if other.id == outcome.id:
            same = (other.kind, other.value) == (outcome.kind, outcome.value)
            status: Literal["duplicate", "conflict"] = "duplicate" if same else "conflict"
            after = other.received >= decision.expires or any(place >= s.outcomes for s in found.settlements[:1])
            corrects = after and not other.late
            return outcome, OutcomeReceipt(status, late=other.late, stage=decision.stage, corrects=corrects)
    if len(found.outcomes) >= MOST_OUTCOMES and not outcome.voids:  # what moves to another decision must end here
        what, fix = f"it has {MOST_OUTCOMES} outcomes, and takes no more", "send sums of what happened, not every step"
        return outcome, OutcomeReceipt("invalid", problem=Problem("decision_id", what, fix), stage=decision.stage)
    if outcome.kind != outcome.id and outcome.id in get_args(OutcomeKind):
        problem = Problem("outcome_id", f"{outcome.id!r} names a decision's {outcome.id} without an id", "send another")
        return outcome, OutcomeReceipt("invalid", problem=problem, stage=decision.stage)
    problem = _second(specs[decision.stage_digest], found, outcome)
    if problem:
        return outcome, OutcomeReceipt("conflict", problem=problem, stage=decision.stage)
    over = found.settlement is not None or now >= decision.expires
    ends = _grace_ends(specs[decision.stage_digest], decision)
    if outcome.kind == "opt_out":  # a reward that came early ends no time to be annoyed
        ends = max(ends, decision.expires)
    late = over and now >= ends
    receipt = OutcomeReceipt("recorded", late=late, stage=decision.stage, corrects=over and not late)
    return msgspec.structs.replace(outcome, late=late), receipt


def _grace_ends(stage: Stage, decision: Decision) -> int:
    """Time (µs) from which an outcome corrects a settled decision no more; 0 where the stage has no grace."""
    share = stage.reward.grace_share
    return decision.expires + round(share * (decision.expires - decision.at)) if share else 0


def _second(stage: Stage, found: DecisionRecord, outcome: Outcome) -> Problem | None:
    """A stage that learns from the first report of a reward takes no other: which was first must not matter."""
    if outcome.kind != "reward" or stage.reward.settle != "reward":
        return None
    if not any(other.kind == "reward" for other in rewards.standing(found.outcomes)):
        return None
    fix = 'repeat the same outcome, or declare settle = "window" to add rewards up'
    return Problem("outcome_id", "this decision has its reward, and its stage learns from one", fix)


def _invalid(stage: Stage, decision: Decision, outcome: Outcome, now: int) -> Problem | None:
    if outcome.occurred > now + SKEW:
        return Problem("occurred_at", "lies in the future", "send when it happened, in UTC")
    if outcome.occurred < min(decision.at, now) - SKEW:  # our own clock may have been set back since the decision
        return Problem("occurred_at", "lies before the decision", "send when it happened, in UTC")
    if outcome.value is not None and not math.isfinite(outcome.value):
        return Problem("value", "not a finite number", "send a number")
    if outcome.kind not in rewards.MONEY and outcome.value is not None:
        return Problem("value", f"an {outcome.kind.replace('_', '-')} has no value", "leave it out")
    binary = stage.reward.kind == "binary"
    if (
        outcome.kind == "retraction"
        and outcome.value is not None
        and (outcome.value <= 0.0 or (binary and outcome.value != 1.0))
    ):
        fix = "leave it out to take the reward back" if binary else "send how much is taken back, above 0"
        return Problem("value", f"{outcome.value:g} cannot be taken back here", fix)
    if outcome.kind == "reward" and outcome.value is None and not binary:
        fix = f"send a number in [{stage.reward.min:g}, {stage.reward.max:g}]"
        return Problem("value", "missing; this stage's reward is continuous", fix)
    if binary and outcome.kind == "reward" and outcome.value not in (None, 0.0, 1.0):
        return Problem("value", f"{outcome.value:g} is not 0 or 1; this stage's reward is binary", "send 0 or 1")
    return None
