"""Erasure of decisions: what is left of them, and what was learned from them taken back, a few at a time.

Without `forget`, a remainder stays of each decision: the encoded context, the probabilities, the reward and the times,
under a new id and a user that nobody can tell, so that beliefs, receipts of other people's decisions and evaluations
are what they were. A decision that was still open is settled as "erased": its reward can never be known, and teaches
nothing.

With `forget` nothing stays. Sums lose exactly what the decisions added (`StageStatistics.without`), so they have the
bits that they would have if the decisions had never been recorded. Decisions are erased newest first, because what one
found of its person's past (`nudges`) is read from those before it.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from itertools import groupby
from typing import NamedTuple

import msgspec
import numpy as np

from api.ledger import exposures
from api.ledger.statistics_store import key_of, load, update_of, without
from api.stores.decision_log import LAST, DecisionRecord
from api.stores.erasure_log import ErasedDecision, Erasure, by_user, users_of
from api.stores.learning_state import StatisticsKey, StatisticsUpdate, StoredExposures, WarmStart
from api.stores.protocol import Store
from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.guardrails import NO_CONSENT
from bandit.learning.loss import ExposureLog, counts, day_of
from bandit.learning.statistics import StageStatistics
from bandit.records import CROSSED, Outcome, Settlement

AT_ONCE = 20
"""Decisions of one step: what it takes is within what a commit of the service takes."""

TOGETHER = 10
"""Erasures of one step: they share its commit."""

_EVENTS = 5  # events that take as long as a decision

_NEAR = 20  # decisions around an erased one, among which another of its day is looked for
_COUNT_AGAIN = StoredExposures("", 0, 0, 0, frozenset(), 0.0, 0.0, {})


class LearnedState(NamedTuple):
    """What a service knows in memory of what was learned: statistics and exposures by stage, of all decisions up to
    number `through`.
    """

    statistics: Mapping[str, StageStatistics]
    exposed: Mapping[str, ExposureLog]
    through: int


class ErasureStep(NamedTuple):
    """What one step has done. `begun`: each erasure that was asked for, as it goes on; `worked`: those whose rows it
    erased, of which some may be `left`; `ended`: none was, and these erasures have ended. Then decisions as they were,
    settlements that it appended, and statistics and exposures by stage that changed: none, if it only prepared commits.
    """

    begun: Sequence[Erasure] = ()
    worked: Sequence[Erasure] = ()
    left: bool = True
    ended: bool = False
    records: Sequence[DecisionRecord] = ()
    settlements: Sequence[Settlement] = ()
    statistics: Mapping[str, StageStatistics] = {}
    exposed: Mapping[str, ExposureLog] = {}


def step(
    store: Store, asked: Sequence[Erasure], under_way: Sequence[Erasure], known: LearnedState, now: int
) -> ErasureStep:
    """Begin the erasures that are asked for, and erase rows of the first `TOGETHER` of all: the newest decisions, at
    most `AT_ONCE`, then events; one transaction, `now` in µs. When no row is left, they end with it, unless one of them
    forgets: what stages began with is to be learned again before (`replace_warm_starts`, `Store.end_erasures`).

    Called in the thread that writes, again and again. Raises LedgerError and Unavailable.
    """
    with store.atomic():
        begun = [store.begin_erasure(one) for one in asked]
        together = list({one.number: one for one in (*under_way, *begun)}.values())[:TOGETHER]
        found = store.erasable(users_of(together), AT_ONCE)
        done = _erased(store, together, known, found, now) if found else ErasureStep()
        left = ended = False
        if done is None or len(found) == AT_ONCE:
            left = True
        elif not (left := store.erase_events(together, now, _EVENTS * (AT_ONCE - len(found)))):
            ended = not any(one.forget for one in together)
            if ended:
                store.end_erasures(together, now)
    done = done or ErasureStep()
    for name, log in done.exposed.items():
        exposures.look_again(store, name, known.statistics[name].spec, log, known.through)
    return done._replace(begun=begun, worked=together, left=left, ended=ended)


def _erased(
    store: Store, erasures: Sequence[Erasure], known: LearnedState, found: Sequence[DecisionRecord], now: int
) -> ErasureStep | None:
    """Erase these decisions; None if their commits are not prepared yet."""
    erasure, specs = by_user(erasures), store.specs()
    gone = [one for one in found if erasure[one.decision.user].forget]
    stay = [one for one in found if not erasure[one.decision.user].forget]
    taken, updates = _unlearned(store, known, gone)
    ended = [
        unanswered(one, specs[one.decision.stage_digest], now)
        for one in stay
        if one.settlement is None and one.decision.is_actionable
    ]
    left = [remainder(one, erasure[one.decision.user].pseudonym(one.decision.user)) for one in stay]
    left += [ErasedDecision(one) for one in gone]
    if not store.erase_decisions(erasures, now, left, ended, updates):
        return None
    return taken._replace(records=found, settlements=ended)


def replace_warm_starts(
    store: Store, stages: Mapping[str, Stage], found: Mapping[str, tuple[WarmStart, Belief]]
) -> None:
    """Keep warm starts that were learned again (`warm_start.again`), in one transaction; in the thread that writes."""
    with store.atomic():
        for name, (warm, belief) in found.items():
            rows = stages[name].belief_rows(stages[name].arms)
            store.replace_warm_start(key_of(name, stages[name]), warm, rows, belief)


def unanswered(found: DecisionRecord, spec: Stage, now: int) -> Settlement:
    """Settlement of a decision that was open when its person was erased: nobody can report about it any more."""
    return Settlement(
        decision_seq=found.seq,
        stage=found.decision.stage,
        arm=spec.belief_row(found.decision.arm),
        at=now,
        reward=0.0,
        why="erased",
        learned=False,
        tau=0.0,
        nu=0.0,
        outcomes=len(found.outcomes),
    )


def remainder(found: DecisionRecord, user: bytes) -> ErasedDecision:
    """What is left of a decision, as one of `user`: no id, no text that came with a request, nothing that is derived
    from who asked. Ids and facts of its outcomes become numbers; reasons of exclusions are told apart as far as
    learning does.
    """
    made, number = found.decision, uuid.uuid4()
    names = {arm: f"action {i}" for i, arm in enumerate(made.actions)}
    left = msgspec.structs.replace(
        made,
        id=number,
        user=user,
        unit=b"",
        request=b"",
        u=0.0,
        arm=names.get(made.arm, made.arm),
        actions=tuple(names.values()),
        phi=np.zeros((0, len(made.x))),
        evidence={},
        notes=(CROSSED,) if CROSSED in made.notes else (),
        excluded={
            names.get(arm, arm): NO_CONSENT if reason.startswith(NO_CONSENT) else "excluded"
            for arm, reason in made.excluded.items()
        },
    )
    return ErasedDecision(found, left, tuple(_numbered(found.outcomes, number)))


def _numbered(outcomes: Sequence[Outcome], decision: uuid.UUID) -> Iterator[Outcome]:
    ids = {one.id: str(i) for i, one in enumerate(outcomes, 1)}
    facts = {fact: str(i) for i, fact in enumerate(dict.fromkeys(one.fact for one in outcomes if one.fact), 1)}
    for one in outcomes:
        fact, voids = facts.get(one.fact, ""), ids.get(one.voids, "")
        yield msgspec.structs.replace(one, decision=decision, id=ids[one.id], fact=fact, voids=voids)


def _unlearned(
    store: Store, known: LearnedState, found: Sequence[DecisionRecord]
) -> tuple[ErasureStep, list[StatisticsUpdate]]:
    """Statistics and exposures without these decisions, and how the ledger keeps them."""
    statistics, exposed = dict[str, StageStatistics](), dict[str, ExposureLog]()
    updates = list[StatisticsUpdate]()
    for name, rows in _by_stage(found):
        for stage, mine in _by_schema(store, name, rows):
            live = known.statistics.get(name)
            own = live is not None and live.spec.schema == stage.schema
            before = live if live is not None and own else load(store, {name: stage})[name]
            after = without(store, before, [done for one in mine if (done := one.settled()) is not None])
            update = update_of(name, after, before) or StatisticsUpdate(key_of(name, stage), (), {})
            if own:
                statistics[name] = after
            if own and name in known.exposed and stage.loss_share is not None:
                exposed[name] = _taken_back(store, name, before.spec, known, mine)
                update = update._replace(exposures=exposures.stored(before.spec, exposed[name], known.through))
            elif store.statistics(update.key, (), 0).exposures is not None:
                update = update._replace(exposures=_COUNT_AGAIN)
            updates.append(update)
    return ErasureStep(statistics=statistics, exposed=exposed), updates


def _by_stage(found: Sequence[DecisionRecord]) -> Iterator[tuple[str, list[DecisionRecord]]]:
    for name, rows in groupby(sorted(found, key=lambda one: one.decision.stage), key=lambda one: one.decision.stage):
        yield name, list(rows)


def _by_schema(
    store: Store, name: str, found: Sequence[DecisionRecord]
) -> Iterator[tuple[Stage, list[DecisionRecord]]]:
    """Decisions of a stage by the declaration under whose schema they were learned, or, not settled, would be."""
    specs, declared = store.specs(), dict[int, Stage]()
    for era in store.declarations().eras:
        if name in era.digests:
            stage = specs[era.digests[name]]
            declared[stage.schema] = stage
    begun = sorted((store.first_settlement(StatisticsKey(name, schema)), schema) for schema in declared)
    rows: dict[int, list[DecisionRecord]] = {}
    for one in found:
        number = one.settlement.first if one.settlement else LAST
        rows.setdefault(max((s for s in begun if s[0] < number), default=(0, 1))[1], []).append(one)
    for schema, mine in rows.items():
        yield declared.get(schema, specs[mine[0].decision.stage_digest]), mine


def _taken_back(
    store: Store, name: str, stage: Stage, known: LearnedState, found: Sequence[DecisionRecord]
) -> ExposureLog:
    """Exposures of a stage without these decisions; which are the newest is to be read again."""
    specs, log = store.specs(), copy(known.exposed[name])
    made = [one.decision for one in found if counts(one.decision, specs[one.decision.stage_digest], stage)]
    log.take_back(made, specs)
    gone, days = {one.seq for one in found}, {_day(d.at, d.expires, specs[d.stage_digest]) for d in made}
    if made and (min(d.at for d in made) <= log.sums.first or not days <= _days_near(store, name, stage, found)):
        first, on = _times(store, name, stage, gone)
        log.sums = log.sums._replace(first=first, days=on)
    return log


def _day(at: int, expires: int, spec: Stage) -> int:
    return int(np.floor(at / day_of(spec, expires - at)))


def _days_near(store: Store, name: str, stage: Stage, found: Sequence[DecisionRecord]) -> set[int]:
    """Days of decisions that count and stay, among those made about as early as these: mostly, each day has some."""
    specs, gone, days = store.specs(), {one.seq for one in found}, set[int]()
    for erased in found:
        made = erased.decision
        if _day(made.at, made.expires, specs[made.stage_digest]) in days:
            continue
        for one in store.decisions_before(name, erased.seq + _NEAR // 2, _NEAR):
            spec = specs[one.decision.stage_digest]
            if one.seq not in gone and counts(one.decision, spec, stage):
                days.add(_day(one.decision.at, one.decision.expires, spec))
    return days


def _times(store: Store, name: str, stage: Stage, gone: Collection[int]) -> tuple[int, frozenset[int]]:
    """Time of the first decision that counts and stays (0: none), and the days of all of them."""
    specs = store.specs()
    same = {digest: spec for digest, spec in specs.items() if spec.schema == stage.schema}
    stay = [one for one in store.decision_times(name) if one.seq not in gone and one.spec in same]
    days = frozenset(_day(one.at, one.expires, same[one.spec]) for one in stay)
    return min((one.at for one in stay), default=0), days
