"""Paused nudges of a running service: what operators have paused or retired, as the ledger says."""

from collections.abc import Mapping, Sequence

from api.messages.operations import OperatorActionReply
from api.stores.protocol import Store
from api.times import time_of
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import Catalogue
from bandit.errors import Conflict, InvalidRequest, NotFound, Problem
from bandit.operations import pauses
from bandit.operations.pauses import Place
from bandit.records import ALL_NUDGES, Decision, OperatorAction


class PausedNudges:
    """Nudges of one app that may not be shown because an operator said so.

    Guarantee: a decision that is written after the commit of a pause does not show the nudge; the worker asks `refuses`
    in the transaction that writes it, once `take` has told what the ledger says. Threads: `change` and `take` belong to
    the writer thread; what is in force is replaced by one assignment, so any thread reads it without a lock.
    """

    def __init__(self, store: Store, catalogue: Catalogue):
        self._store = store
        self._stages = catalogue.stages
        self._force: Mapping[Place, OperatorAction] = {}
        self._resumed: Mapping[Place, int] = {}

    def __len__(self) -> int:
        return len(self._force)

    def take(self, actions: Sequence[OperatorAction]) -> None:
        """Put in force what these actions say: all of the ledger, in order."""
        self._force, self._resumed = pauses.in_force(actions), pauses.resumed(actions)

    def change(self, asked: OperatorAction) -> OperatorAction:
        """Append an action to the ledger, within a transaction; it is in force after `take`. What changes nothing is
        answered with the action that is in force. Raises NotFound (stage), InvalidRequest and Conflict.
        """
        self._check(asked)
        last = pauses.newest(self._store.operator_actions()).get((asked.stage, asked.nudge))
        what = f"{asked.stage}.{asked.nudge}" if asked.nudge else f"all nudges of {asked.stage}"
        if last is None and asked.verb == "resume":
            raise Conflict("nudge", f"{what}: not paused", "resume what /v1/policies lists as paused")
        if last is not None and last.verb == asked.verb:
            return last
        if last is not None and last.verb == "retire":
            raise Conflict("nudge", f"{what}: {pauses.reason(last)}", "declare it under another name to show it again")
        return self._store.operate(asked)

    def refused(self, stage: str) -> dict[str, str]:
        """Nudges of a stage that may not be shown, each with its reason."""
        return pauses.refused(self._force, stage, self._stages[stage].nudges) if self._force else {}

    def whole(self, stage: str) -> str:
        """Reason for which a stage shows nothing at all, "" if it does."""
        action = self._force.get((stage, ALL_NUDGES))
        return pauses.reason(action) if action else ""

    def refuses(self, decision: Decision) -> bool:
        """Whether the nudge that a decision shows may not be shown."""
        places = (decision.stage, decision.arm), (decision.stage, ALL_NUDGES)
        return decision.arm in self._stages[decision.stage].nudges and any(place in self._force for place in places)

    def resumed(self) -> Mapping[Place, int]:
        """When (µs) each nudge, or stage, was resumed last, by place."""
        return self._resumed

    def changed(self, stage: str) -> int:
        """When (µs) a stage as a whole was paused or resumed last, 0 for never."""
        action = self._force.get((stage, ALL_NUDGES))
        return max(action.at if action else 0, self._resumed.get((stage, ALL_NUDGES), 0))

    def of(self, stage: str) -> list[OperatorAction]:
        """Pauses and retirements in force at a stage, in the order of the ledger."""
        return sorted((one for (its, _), one in self._force.items() if its == stage), key=lambda one: one.seq)

    def _check(self, asked: OperatorAction) -> None:
        if asked.stage not in self._stages:
            raise NotFound("stage", f"no stage {asked.stage!r}", closest(asked.stage, self._stages))
        nudges = self._stages[asked.stage].nudges
        if asked.nudge and asked.nudge not in nudges and (asked.stage, asked.nudge) not in self._force:
            fix = closest(asked.nudge, nudges) if nudges else "leave it out: actions come with each request"
            raise InvalidRequest(Problem("nudge", f"{asked.stage} has no nudge {asked.nudge!r}", fix))
        if asked.verb == "retire" and not asked.nudge:
            raise InvalidRequest(
                Problem("nudge", "missing: nudges are retired one by one", "name a nudge, or pause all")
            )


def action_out(action: OperatorAction) -> OperatorActionReply:
    """Reply that says what an operator did."""
    return OperatorActionReply(
        number=action.seq,
        stage=action.stage,
        nudge=action.nudge or None,
        action=action.verb,
        who=action.who,
        reason=action.reason,
        share=action.share,
        at=time_of(action.at),
    )
