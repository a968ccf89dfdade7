"""Traffic settings of a running service: the ramps and holdouts that operators have set, as the ledger says."""

from collections.abc import Iterable, Mapping

import msgspec

from api.stores.protocol import Store
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import Catalogue, Stage
from bandit.engine import PreparedPolicy
from bandit.errors import InvalidRequest, NotFound, Problem
from bandit.operations import traffic
from bandit.operations.traffic import UNSET, TrafficSetting
from bandit.records import ALL_NUDGES, Decision, OperatorAction

_MEANT = {
    "ramp": ("the share of the traffic that the policy decides", "above 0, up to 1; to show nothing, pause the stage"),
    "holdout": ("the share of people who get no nudge", "0 or more, below 1"),
}


class TrafficSettings:
    """Ramps and holdouts of one app's stages, as operators have set them.

    Guarantee: a decision that is written after the commit of a setting was made under it, and says so by the digest of
    its declaration; the worker asks `stands` in the transaction that writes it, once `take` has told what the ledger
    says. Threads: `take`, `change` and `register` belong to the writer thread; what is in force is replaced by one
    assignment, so any thread reads it without a lock.
    """

    def __init__(self, store: Store, catalogue: Catalogue):
        self._store = store
        self._catalogue, self._stages = catalogue, catalogue.stages
        self._specs = store.specs()
        self._force: Mapping[str, TrafficSetting] = {}
        self._ever = False
        self._under: dict[tuple[str, TrafficSetting], tuple[Stage, str]] = {}  # by digest of what is declared

    def __bool__(self) -> bool:
        """Whether anything was ever set: only then may a decision be older than a setting."""
        return self._ever

    def take(self, actions: Iterable[OperatorAction]) -> None:
        """Put in force what these actions say: all of the ledger, in order."""
        counting = [one for one in actions if self._counts(one)]
        self._ever = bool(counting)
        self._force = traffic.settings(counting)

    def change(self, asked: OperatorAction, deciding: Iterable[Stage]) -> OperatorAction:
        """Append a setting to the ledger, within a transaction, and register what is declared with it by those that
        decide at the stage; it is in force after `take`. What changes nothing is answered with the action that is in
        force. Raises NotFound (stage) and InvalidRequest.
        """
        self._check(asked)
        before = self._store.operator_actions()
        last = traffic.newest(before, asked.stage, asked.verb)
        if last is not None and last.share == asked.share:
            return last
        if last is None and asked.share is None:
            problem = f"the {asked.verb} of {asked.stage} was not set: what is declared counts"
            raise InvalidRequest(Problem("share", problem, "give the share that is to count from now on"))
        counting = [one for one in (*before, asked) if self._counts(one)]
        setting = traffic.settings(counting).get(asked.stage, UNSET)
        with self._store.atomic():
            for stage in deciding:
                self._store.register({asked.stage: setting.applied(stage)})
            return self._store.operate(asked)

    def register(self, stage: str, deciding: Iterable[Stage]) -> None:
        """Register what those that decide at a stage declare, with what is set."""
        for one in deciding if stage in self._force else ():
            self._store.register({stage: self._force[stage].applied(one)})

    def of(self, stage: str) -> TrafficSetting:
        """Setting of a stage."""
        return self._force.get(stage, UNSET)

    def stage(self, name: str) -> Stage:
        """Stage as the catalogue declares it, with what is set."""
        return self.of(name).applied(self._stages[name])

    def catalogue(self) -> Catalogue:
        """Catalogue with what is set at its stages."""
        if not self._force:
            return self._catalogue
        return msgspec.structs.replace(self._catalogue, stages={name: self.stage(name) for name in self._stages})

    def over(self, stage: str, policy: PreparedPolicy) -> PreparedPolicy:
        """Prepared policy with what is set at the stage; both halves where a candidate is judged."""
        setting = self._force.get(stage)
        if setting is None:
            return policy
        known = self._under.get((policy.spec, setting))
        if known is None:
            spec = setting.applied(policy.snapshot.stage_spec)
            known = self._under[policy.spec, setting] = spec, spec.digest()
        if known[1] not in self._specs:  # what another replica has released or set is not known whole yet
            return policy
        other = None if policy.candidate is None else self.over(stage, policy.candidate)
        return policy._replace(
            snapshot=msgspec.structs.replace(policy.snapshot, stage_spec=known[0]), spec=known[1], candidate=other
        )

    def stands(self, decision: Decision) -> bool:
        """Whether a decision was made under what is set now."""
        made, now = self._specs.get(decision.stage_digest), self.stage(decision.stage)
        return made is not None and (made.live_ramp, made.holdout) == (now.live_ramp, now.holdout)

    def _counts(self, action: OperatorAction) -> bool:
        """Whether an action sets a share of a stage that is declared. A loop has no ramp: its stage may have had one
        before it became a loop.
        """
        if action.verb not in traffic.SETTINGS or action.stage not in self._stages:
            return False
        return action.verb != "ramp" or not self._stages[action.stage].has_request_actions

    def _check(self, asked: OperatorAction) -> None:
        if asked.stage not in self._stages:
            raise NotFound("stage", f"no stage {asked.stage!r}", closest(asked.stage, self._stages))
        what, fix = _MEANT[asked.verb]
        if asked.nudge != ALL_NUDGES:
            raise InvalidRequest(Problem("nudge", f"it is {what}, whatever the nudge", "leave it out"))
        if asked.verb == "ramp" and asked.share is not None and self._stages[asked.stage].has_request_actions:
            problem = "the actions of this stage come with each request: there is no arm that shows nothing"
            raise InvalidRequest(Problem("stage", problem, "set its holdout, or stop asking for it in the app"))
        share = asked.share
        fits = share is None or (0.0 < share <= 1.0 if asked.verb == "ramp" else 0.0 <= share < 1.0)
        if not fits:
            raise InvalidRequest(Problem("share", f"{share:g} is not {what}", fix))
