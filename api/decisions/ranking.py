"""Ranking of actions that come with the request: a loop is a stage whose policy is "shared". No HTTP here
(`api.routes.personalizer` speaks it).

Callers name an event, not a decision: a decision's id is a keyed hash of the event's, so that a repeated request finds
what it asked for, also after a restart.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import msgspec
import uuid_utils.compat as uuid7

from api.clocks import Clock
from api.decisions.ids import keyed_id
from api.decisions.maker import PendingDecision, PolicySource
from api.decisions.writer import DecisionWriter, WrittenDecision
from api.metrics import Metrics
from api.stores.protocol import Store
from bandit import engine
from bandit.catalogue import durations
from bandit.catalogue.model import Catalogue
from bandit.errors import InvalidRequest, JourneyBanditError, NotFound, Problem
from bandit.policies.shared import MOST, MOST_CELLS, MOST_PAIRS, Action, Objects, features
from bandit.records import Decision, Outcome

_OWN = "jb-"  # an event that we named: the rest is the decision's id
_SLOT = "slot "
_FEW, _FEW_PAIRS = 6, 5_000  # actions (for each slot) and pairs that are ranked within a millisecond or so
_THREADS = 2  # of rankings: each takes a processor, and the event loop waits for its share beside them
_REMEMBERED = 20_000


class RankedEvent(NamedTuple):
    """Ranked event: its id, and its decisions; one, or one for each slot in the order of the page."""

    event: str
    decisions: Sequence[Decision]


class Slot(NamedTuple):
    """Slot of a page, with its features and the ids of actions it does not take. `baseline`: the id of the action that
    would be there without us.
    """

    id: str
    baseline: str
    features: Objects
    excluded: Sequence[str]


class ReportedReward(NamedTuple):
    """Reward as a client reports it: of which slot, if the event has any, how much, the client's own id of the request
    if it has one, and where it stands in the body, for errors.
    """

    slot: str | None
    value: float
    request: str = ""
    place: str = ""


class Ranking:
    """Rankings of one app's loops: it draws actions, and records rewards and activations by event.

    Guarantees: decisions and outcomes are durable when a method returns; the same event with the same content gets the
    same decisions. Rankings have no user, so they reserve neither budgets nor exposures. Belongs to one event loop;
    propensities of many actions are computed in two threads of its own, so that nobody who reads the ledger waits for
    them: `long` is what `is_long` says, which bounds the work.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        policies: PolicySource,
        writer: DecisionWriter,
        *,
        salt: bytes,
        clock: Clock,
        metrics: Metrics,
        window_scale: float = 1.0,
    ):
        self._hides_ids = catalogue.personal_ids is True
        self._loops = {name: stage for name, stage in catalogue.stages.items() if stage.has_request_actions}
        self._store = store
        self._policies = policies
        self._pauses = policies.pauses
        self._writer = writer
        self._salt = salt
        self._clock = clock
        self._metrics = metrics
        self._scale = window_scale
        self._threads = ThreadPoolExecutor(_THREADS, "ranking")  # which ends with this object
        self._sums: dict[tuple[uuid.UUID, float], tuple[str, int]] = {}  # last outcome of a value, and when it came

    def loop(self, name: str | None) -> str:
        """Name of the loop that is meant: `name`, or the only one if it is None. Raises NotFound, which names the loops
        there are.
        """
        if name is None and len(self._loops) == 1:
            return next(iter(self._loops))
        if name not in self._loops:
            known = ", ".join(self._loops) or 'none: declare a stage with policy = { name = "shared" }'
            problem = f"no loop {name!r}" if name else "which loop is meant is not said"
            raise NotFound(
                "loop",
                problem,
                f"put its name before /personalizer in the endpoint, or give the key a loop; known: {known}",
            )
        return name

    async def rank(
        self, loop: str, event: str | None, context: Objects, actions: Sequence[Action], excluded: Sequence[str],
        *, deferred: bool, long: bool,
    ) -> RankedEvent:  # fmt: skip
        """Event with one decision, which draws one of the actions; durable. Without an event id one is made. Raises
        NotFound (loop), InvalidRequest, Conflict (event), Overloaded and Unavailable.
        """
        event, decision_id = self._event(self.loop(loop), event)
        ask = engine.RankQuery(
            id=decision_id,
            event=event,
            context=context,
            actions=actions,
            refused=_refused(excluded, actions, "in the request's excluded actions"),
            request=self._fingerprint([context, actions, list(excluded), deferred]),
            deferred=deferred,
        )
        return await self._write(event, await self._off(lambda: [self._decide(loop, ask)], long=long))

    async def slots(
        self, loop: str, event: str | None, context: Objects, actions: Sequence[Action], slots: Sequence[Slot],
        *, deferred: bool, long: bool,
    ) -> RankedEvent:  # fmt: skip
        """Event with a decision for each slot, in their order; no action is taken twice: each is drawn from what the
        slots before it left, so propensities are conditional on those. Durable; raises as `rank` does.
        """
        event, _ = self._event(self.loop(loop), event)
        for i, slot in enumerate(slots):
            _known(f"slots[{i}].baselineAction", [slot.baseline], actions)
        request = self._fingerprint([context, actions, list(slots), deferred])
        base = engine.RankQuery(
            id=uuid.UUID(int=0), event=event, context=context, actions=actions, request=request, deferred=deferred
        )
        return await self._write(event, await self._off(lambda: self._fill(loop, base, slots), long=long))

    async def reward(self, loop: str, event: str, given: Sequence[ReportedReward], reporter: str = "") -> None:
        """Report rewards of an event by the key called `reporter`, durable. For an event that is not known they are
        counted and dropped, as the protocol has it. Raises Overloaded and Unavailable; InvalidRequest for rewards that
        cannot be used, after the others were recorded.
        """
        now, outcomes, problems = self._clock(), list[Outcome](), list[Problem]()
        slots = await self._slots(loop, event) if any(one.slot is not None for one in given) else {}
        for one in given:
            decision = await self._known(loop, event) if one.slot is None else slots.get(one.slot)
            problem = self._unusable(loop, one, slots if decision is None else {})
            if problem:
                problems.append(problem)
            elif decision is None:
                self._metrics.outcomes.labels("reward", "unknown").inc()
            else:
                name = await self._name(loop, decision, one, now)
                outcomes.append(_outcome(decision, name, "reward", one.value, now, reporter))
        await self._report(outcomes)
        if problems:
            raise InvalidRequest(*problems)

    async def activate(self, loop: str, event: str, reporter: str = "", *, slots: bool = False) -> None:
        """Report by the key called `reporter` that an event was really shown, with all its slots if it has `slots`. An
        event that is not known is counted and dropped. Raises Overloaded and Unavailable.
        """
        now = self._clock()
        ids = list((await self._slots(loop, event)).values()) if slots else [await self._known(loop, event)]
        if not ids:
            self._metrics.outcomes.labels("activation", "unknown").inc()
        shown = [_outcome(decision, "activation", "activation", None, now, reporter) for decision in ids]
        await self._report(shown)

    # -- inside ------------------------------------------------------------------------------------------------

    def _unusable(self, loop: str, given: ReportedReward, others: Mapping[str, uuid.UUID]) -> Problem | None:
        """What is wrong with a reward. `others`: the slots of the event, if it has not that one."""
        spec = self._loops[loop].reward
        if not spec.min <= given.value <= spec.max:
            fix = f"send a number in [{spec.min:g}, {spec.max:g}]"
            return Problem(f"{given.place}value", f"{given.value:g} is outside the loop's range", fix)
        if others:
            return Problem(
                f"{given.place}slotId", f"no slot {given.slot!r} in this event", f"known: {', '.join(others)}"
            )
        return None

    def _decide(self, loop: str, ask: engine.RankQuery) -> Decision:
        live = self._policies.prepared[loop]
        if why := self._pauses.whole(loop):
            may = [action.id for action in ask.actions if action.id not in ask.refused]
            ask = msgspec.structs.replace(ask, refused={**ask.refused, **dict.fromkeys(may[1:], why)})
        return engine.rank(live, ask, now=self._clock(), salt=self._salt, window_scale=self._scale)

    def _fill(self, loop: str, base: engine.RankQuery, slots: Sequence[Slot]) -> list[Decision]:
        taken, decisions = dict[str, str](), list[Decision]()
        for i, slot in enumerate(slots):
            ask = msgspec.structs.replace(
                base,
                id=self._hashed(loop, base.event, i),
                context=[*base.context, *slot.features],
                actions=_first(base.actions, slot.baseline),
                refused=_refused(slot.excluded, base.actions, "in the slot's excluded actions") | taken,
                notes=(f"{_SLOT}{slot.id}",),
            )
            decisions.append(self._decide(loop, ask))
            taken[decisions[-1].arm] = f"taken by slot {slot.id!r}"
        return decisions

    async def _off(self, work: Callable[[], list[Decision]], *, long: bool) -> list[Decision]:
        """Do what takes long beside the event loop: propensities of many actions are joint."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work) if long else work()

    async def _write(self, event: str, decisions: Sequence[Decision]) -> RankedEvent:
        pending = [PendingDecision(decision) for decision in decisions]  # no user, so nothing to reserve
        written = await self._writer.write(pending, field="eventId", name=repr(event))
        for entry in written:
            if isinstance(entry, JourneyBanditError):
                raise entry
        return RankedEvent(event, [entry.decision for entry in written if isinstance(entry, WrittenDecision)])

    async def _report(self, outcomes: Sequence[Outcome]) -> None:
        """Record outcomes. A second reward of a loop that takes the first is a conflict, an unknown event is unknown:
        both are counted and dropped, as the protocol has it. InvalidRequest for the first that cannot be used.
        """
        for receipt in await self._writer.report(outcomes):
            if receipt.status == "invalid" and receipt.problem:
                raise InvalidRequest(receipt.problem)

    def _event(self, loop: str, event: str | None) -> tuple[str, uuid.UUID]:
        """The event's id and its decision's; ids that we give are ordered by time, which is cheap to store."""
        if event is None:
            made = uuid7.uuid7()
            return f"{_OWN}{made}", made
        return event, self._own(event) or self._hashed(loop, event, None)

    def _own(self, event: str) -> uuid.UUID | None:
        try:
            found = uuid.UUID(event.removeprefix(_OWN))
        except ValueError:
            return None
        return found if event == f"{_OWN}{found}" else None

    def _hashed(self, loop: str, event: str, slot: int | None) -> uuid.UUID:
        """Of the event, or of its slot number so and so."""
        return keyed_id(msgspec.json.encode([loop, event, slot]), self._salt, b"event")

    async def _slots(self, loop: str, event: str) -> dict[str, uuid.UUID]:
        """The decisions of an event by slot, in the order of the page."""
        ids = [self._hashed(loop, event, i) for i in range(MOST)]
        found = await asyncio.to_thread(self._store.decisions_by_id, ids)
        return {found[i].decision.notes[0].removeprefix(_SLOT): i for i in ids if i in found}

    async def _known(self, loop: str, event: str) -> uuid.UUID:
        """The decision that an event of the loop speaks about."""
        own = self._own(event)
        if own is not None:  # a name that we could have given: the decision may be another loop's
            found = (await asyncio.to_thread(self._store.decisions_by_id, [own])).get(own)
            if found is not None and found.decision.stage == loop:
                return own
        return self._hashed(loop, event, None)

    async def _name(self, loop: str, decision: uuid.UUID, given: ReportedReward, now: int) -> str:
        """The outcome's id. First: all have one. Sum: a repeated request has that of the one it repeats."""
        declared = self._loops[loop].loop
        if declared.rewards == "first":
            return "reward"
        if given.request:
            own = engine.pseudonym(self._salt, given.request) if self._hides_ids else given.request
            return f"request:{own}"[:64]
        again, within = (decision, given.value), durations.micro(declared.retry, self._scale)
        last = self._sums.get(again)
        if last is None:  # a restart forgets, the ledger does not
            found = (await asyncio.to_thread(self._store.decisions_by_id, [decision])).get(decision)
            same = [o for o in found.outcomes if o.kind == "reward" and o.value == given.value] if found else []
            last = self._sums.get(again) or ((same[-1].id, same[-1].received) if same else None)
        name = last[0] if last and now - last[1] < within else f"sum:{uuid7.uuid7()}"
        self._sums[again] = (name, now)
        while len(self._sums) > _REMEMBERED:
            del self._sums[next(iter(self._sums))]
        return name

    def _fingerprint(self, content: object) -> bytes:
        body = msgspec.json.encode(content, order="deterministic")
        return hashlib.blake2b(body, digest_size=16, key=self._salt, person=b"request").digest()


def is_long(context: Objects, actions: Sequence[Action], slots: Sequence[Slot]) -> bool:
    """Whether a ranking takes long, so that the event loop cannot do it: many actions, slots or features. Raises
    InvalidRequest, which names field and number, for one that would take too long for anybody to wait for.
    """
    cells = len(actions) * max(1, len(slots))
    if slots and cells > MOST_CELLS:
        what = f"{len(slots)} slots × {len(actions)} actions are {cells:,}"
        raise InvalidRequest(Problem("slots", what, f"send {MOST_CELLS} or fewer (slots × actions)"))
    around = max(1, len(slots)) * features(context) + sum(features(slot.features) for slot in slots)
    found = around * sum(1 + features(action.features) for action in actions)
    if found > MOST_PAIRS:
        what = f"{found:,} pairs of a feature with one of contextFeatures" + (" or a slot" if slots else "")
        fix = f"send fewer features: {MOST_PAIRS:,} pairs at most, in all actions" + (" and slots" if slots else "")
        raise InvalidRequest(Problem("actions", what, fix))
    return cells > _FEW or found > _FEW_PAIRS


def in_order(decision: Decision) -> list[tuple[str, float]]:
    """Actions with their probabilities in the order of a ranking: excluded ones where they were, the drawn one before
    the others, then by falling probability.
    """
    p: Mapping[str, float] = dict(zip(decision.actions, decision.propensity.tolist(), strict=True))
    places = {name: i for i, name in enumerate(decision.actions)}
    free = [name for name in decision.actions if name not in decision.excluded]
    free.sort(key=lambda name: (name != decision.arm, -p[name], places[name]))
    rest = iter(free)
    return [(name, p[name]) for name in (n if n in decision.excluded else next(rest) for n in decision.actions)]


def _first(actions: Sequence[Action], baseline: str) -> list[Action]:
    """The baseline before the others."""
    return sorted(actions, key=lambda action: action.id != baseline)


def _known(field: str, names: Sequence[str], actions: Sequence[Action]) -> None:
    there = {action.id for action in actions}
    for name in names:
        if name not in there:
            raise InvalidRequest(Problem(field, f"no action {name!r} in this request", "name an action of `actions`"))


def _refused(excluded: Sequence[str], actions: Sequence[Action], reason: str) -> dict[str, str]:
    """The actions that may not be taken. Names of others exclude nothing: the protocol ignores them."""
    there = {action.id for action in actions}
    return {name: reason for name in excluded if name in there}


def _outcome(
    decision: uuid.UUID, name: str, kind: Literal["reward", "activation"], value: float | None, now: int, reporter: str
) -> Outcome:
    return Outcome(decision=decision, id=name, kind=kind, value=value, occurred=now, received=now, reporter=reporter)
