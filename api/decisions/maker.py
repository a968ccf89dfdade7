"""Making of decisions: from a request to a reserved, unwritten decision.

Who asks, where the user is in the journey, what may be shown; then `bandit.engine` draws. `api.decisions.writer` writes
the decision and concludes.
"""

import datetime as dt
import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec
import uuid_utils.compat as uuid7

from api.decisions.budgets import Budgets
from api.decisions.frequency_caps import GlobalFrequencyCaps
from api.decisions.local_time import TimeZones
from api.decisions.pages import PageView
from api.decisions.sessions import UserSession, UserSessions
from api.messages.decisions import DecisionRequest, EvidenceIn
from api.operations.paused_nudges import PausedNudges
from api.operations.traffic_settings import TrafficSettings
from api.stores.event_log import IngestResult
from api.stores.protocol import Store
from api.stores.replica_log import LedgerNews
from api.times import microseconds
from bandit import engine, guardrails
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import NONE, Stage
from bandit.engine import DecisionQuery, PreparedPolicy
from bandit.errors import InvalidRequest, Problem
from bandit.guardrails import Circumstances, ClaimEvidence, Eligibility
from bandit.identifiers import is_placeholder
from bandit.journey import folding
from bandit.journey.folding import Journey, JourneyFold
from bandit.records import CROSSED, NOT_NOW, Decision

log = logging.getLogger("journey_bandit.decisions")

NOBODY = "nobody:"
"""Before the decision's id: the user of a decision that was asked for under a placeholder."""


class PolicySource(Protocol):
    """Source of what decides now, such as the worker: stage → prepared policy, which nudges operators have paused, and
    which ramps and holdouts they have set. Reading it takes no lock.
    """

    @property
    def prepared(self) -> Mapping[str, PreparedPolicy]:
        """Prepared policy of every stage, as last published or released."""
        ...

    @property
    def pauses(self) -> PausedNudges:
        """Nudges that may not be shown for now, or any more."""
        ...

    @property
    def traffic(self) -> TrafficSettings:
        """Ramps and holdouts as operators have set them."""
        ...


class PendingDecision(NamedTuple):
    """Decision that is to be written. `reserved`: whether `prepare` counted its exposure, budget and caps, so that it
    must be committed or cancelled. `reused`: whether it is the original of this visit, asked for once more. `again`
    prepares it anew at a time (µs), where another replica has changed what it rests on; None where nothing can.
    `known`: number of the news of other replicas that it knew.
    """

    decision: Decision
    reused: bool = False
    reserved: bool = False
    again: "Callable[[int], PendingDecision] | None" = None
    known: int = 0


class JourneyView(NamedTuple):
    """Session, folded journey and eligible nudges of one user at one instant."""

    session: UserSession
    journey: Journey
    eligible: Eligibility


class DecisionMaker:
    """Maker of one app's decisions: finds the user's session, journey and limits, asks the engine, and reserves.

    Life cycle: `prepare` reserves what the decision may cost and show; the caller writes it, then calls `commit` (it is
    durable, or that is not known) or `cancel` (nothing was written, or the ledger holds an older decision under its
    id). Nothing here waits, so no other request runs between the look at caps and budgets and the reservation. Belongs
    to one event loop.
    """

    def __init__(
        self,
        rules: JourneyFold,
        store: Store,
        sessions: UserSessions,
        budgets: Budgets,
        caps: GlobalFrequencyCaps,
        policies: PolicySource,
        *,
        salt: bytes,
        window_scale: float,
    ):
        self._rules = rules
        self._catalogue = rules.catalogue
        self._store = store
        self._sessions = sessions
        self._budgets = budgets
        self._caps = caps
        self._zones = TimeZones(rules.catalogue)
        self._policies = policies
        self._pauses = policies.pauses
        self._salt = salt
        self._scale = window_scale
        self._known = 0  # number of the last news of other replicas

    def prepare(self, request: DecisionRequest, now: int, page: PageView | None = None) -> PendingDecision:
        """Pending decision of a request at `now` (µs): what it may cost and show is reserved. `page`: the page of a
        browser that asks, which may not show every nudge.

        Raises InvalidRequest, which names each field and its fix, and NotFound for a stage that is not declared.
        """
        request = self._named(request)
        made = self._by_journey(request, now, page) if request.stage is None else self._by_stage(request, now, page)

        def again(later: int) -> PendingDecision:
            return self.prepare(request, later, page)

        return PendingDecision(made.decision, made.reused, made.reserved, again, self._known)

    def _by_stage(self, request: DecisionRequest, now: int, page: PageView | None) -> PendingDecision:
        assert request.stage is not None  # noqa: S101 - `prepare` looked
        stage = self._declared(request.stage)
        someone = self._sessions.session(engine.user_hash(self._salt, request.user_id))
        ask = self._ask(request, request.stage, someone, now, page)
        told = page.excluded(self._catalogue) if page else ""
        if told:
            told = f"{NOT_NOW}: {told}"
            refused = dict.fromkeys(stage.nudges, told)
            ask = msgspec.structs.replace(ask, refused=refused, moment=NOT_NOW, notes=(told, *ask.notes))
        return self._draw(request.stage, ask, someone, now)

    def where(self, user_id: str, now: int) -> JourneyView:
        """View of a user's journey at `now` (µs since 1970), with what a decision without evidence could show. It
        reserves and writes nothing.
        """
        someone = self._sessions.session(engine.user_hash(self._salt, user_id))
        found = folding.read(self._rules, someone.state, now)
        stage = self._catalogue.stages[found.stage]
        eligible = guardrails.eligible(
            stage,
            holdout=engine.in_holdout(self._sessions.unit(someone, user_id, self._salt), self._held_out(found.stage)),
            proof=ClaimEvidence(),
            include=None,
            exclude=(),
            refused=self._refused(found.stage, someone, (), now, None),
            now=now,
            scale=self._scale,
        )
        return JourneyView(someone, found, eligible)

    def unit(self, user_id: str) -> bytes:
        """Randomization unit of the user behind an id: the same before and after their ids are joined."""
        return self._sessions.unit(self._sessions.session(engine.user_hash(self._salt, user_id)), user_id, self._salt)

    def is_somebody(self, user_id: str) -> bool:
        """Whether an id can be a person's: placeholders such as "null" or "guest", as the catalogue lists them, stand
        for many people.
        """
        return not is_placeholder(user_id, self._rules.placeholders)

    def cancel(self, pending: PendingDecision) -> None:
        """Give back what `prepare` reserved: nothing was written, or the ledger has an older decision under this id.
        Does nothing for a decision that reserved nothing.
        """
        decision = pending.decision
        if not pending.reserved:
            return
        self._budgets.cancel(decision)
        self._caps.add(decision, -1)
        self._sessions.cancel(decision)

    def commit(self, pending: PendingDecision) -> None:
        """Keep what `prepare` reserved: the decision is durable, or that is not known. Does nothing for a decision that
        reserved nothing.
        """
        if pending.reserved:
            self._sessions.commit([pending.decision])

    def activated(self, decision: uuid.UUID) -> None:
        """Count the exposure of a deferred decision for good: it was reported that its nudge was really shown."""
        self._sessions.activated(decision)

    def apply(self, change: IngestResult) -> None:
        """Move sessions on with what events have changed in the ledger. The writer calls it in the event loop, before
        those who sent the events are answered.
        """
        self._sessions.apply(change)

    def follow(self, news: LedgerNews, number: int) -> None:
        """Take in what other replicas have committed, which is news number `number`: caps on everyone count it, and
        sessions of the people whom it is about are read from the ledger again. Called in the event loop.
        """
        for record in news.decisions:
            self._caps.add(record.decision, 1)
        users = self._sessions.everybody | news.users if news.rewritten else news.users
        self._sessions.apply(IngestResult([], {}, users, []))
        self._known = number

    # -- inside ------------------------------------------------------------------------------------------------

    def _by_journey(self, request: DecisionRequest, now: int, page: PageView | None) -> PendingDecision:
        if not self._rules.declares_events:
            fix = f"name one: {', '.join(self._catalogue.stages)}"
            raise InvalidRequest(Problem("stage", "missing, and this app declares no events to know it from", fix))
        self._check_names(request)
        someone = self._sessions.session(engine.user_hash(self._salt, request.user_id))
        found = folding.read(self._rules, someone.state, now)
        if page and (told := page.excluded(self._catalogue)):
            found = Journey(found.stage, None, told)
        ask = self._ask(request, found.stage, someone, now, page)
        original = self._sessions.original(someone, found.stage, found.moment, now) if found.moment else None
        if original and self._still_true(found.stage, original.arm, request, someone, now, page):
            return PendingDecision(
                original.decision or self._store.decisions_by_id([original.id])[original.id].decision, reused=True
            )
        stage = self._declared(found.stage)
        told = f"moment {found.moment}: {found.why}" if found.moment else f"{NOT_NOW}: {found.why}"
        given = {name: value for name, value in request.context.items() if name in stage.features}
        context = {**given, **folding.features(self._rules, stage, someone.state, now)}
        include = request.include if request.include is None else [n for n in request.include if n in stage.arms]
        ask = msgspec.structs.replace(
            ask,
            context=context,
            include=include,
            exclude=[name for name in request.exclude if name in stage.arms],
            refused=ask.refused if found.moment else dict.fromkeys(stage.nudges, told),
            moment=found.moment or NOT_NOW,
            notes=(told, *ask.notes),
        )
        return self._draw(found.stage, ask, someone, now)

    def _declared(self, stage: str) -> Stage:
        """The stage. NotFound; InvalidRequest if it has no nudges of its own."""
        found = self._catalogue.stage(stage)
        if found.has_request_actions:
            fix = "rank them as docs/guides/personalizer.md says"
            raise InvalidRequest(Problem("stage", f"the actions of {stage!r} come with each request", fix))
        return found

    def _named(self, request: DecisionRequest) -> DecisionRequest:
        """A request under a placeholder becomes that of a stranger, who is nobody else."""
        if self.is_somebody(request.user_id):
            return request
        decision_id = request.decision_id or uuid7.uuid7()
        return msgspec.structs.replace(request, decision_id=decision_id, user_id=f"{NOBODY}{decision_id}")

    def _notes(self, request: DecisionRequest, someone: UserSession, unit: bytes, share: float) -> tuple[str, ...]:
        """What is said about who asks."""
        if request.user_id.startswith(NOBODY):
            return ("user_id: it stands for a missing id: decided as for a stranger",)
        if engine.in_holdout(unit, share) and any(someone.exposures.values()):
            return (CROSSED,)
        return ()

    def _ask(
        self, request: DecisionRequest, stage: str, someone: UserSession, now: int, page: PageView | None
    ) -> DecisionQuery:
        unit = self._sessions.unit(someone, request.user_id, self._salt)
        share = self._held_out(stage)
        return DecisionQuery(
            unit=unit,
            notes=(*self._notes(request, someone, unit, share), *self._zones.notes(someone.state)),
            id=request.decision_id or uuid7.uuid7(),
            user_id=request.user_id,
            context=request.context,
            proof=_proof(request.evidence),
            include=request.include,
            exclude=request.exclude,
            request=self._fingerprint(request),
            refused=self._refused(stage, someone, request.consent, now, page),
            deferred=request.deferred,
        )

    def _held_out(self, stage: str) -> float:
        """Share of people in the stage's control group, as it is drawn now."""
        return self._policies.traffic.stage(stage).holdout

    def _draw(self, stage: str, ask: DecisionQuery, someone: UserSession, now: int) -> PendingDecision:
        ask = msgspec.structs.replace(ask, contribution=self._contribution(stage, ask, someone, now))
        decision = engine.decide(
            self._policies.prepared[stage], ask, now=now, salt=self._salt, window_scale=self._scale
        )
        self._budgets.reserve(decision)
        self._caps.add(decision, 1)
        self._sessions.reserve(decision)
        return PendingDecision(decision, reserved=True)

    def _contribution(self, stage: str, ask: DecisionQuery, someone: UserSession, now: int) -> int:
        """What a decision takes of the user's contribution limit, 0 if that is too much. All of it, where the request
        chooses among the nudges: it could aim at one of them.
        """
        limit = self._catalogue.stages[stage].contribution
        if limit is None:
            return 1
        takes = limit.most if ask.include is not None or ask.exclude else 1
        room = someone.room(stage, limit.most, now - round(limit.seconds * self._scale * 1e6))
        if takes <= room:
            return takes
        if not room and stage not in someone.warned and ask.moment != NOT_NOW:
            someone.warned.add(stage)
            log.warning(
                "user %s: more than %d decisions at %s within %s; those beyond teach nothing (contribution)",
                *(someone.root.hex(), limit.most, stage, limit.per),
            )
        return 0

    def _refused(
        self,
        stage: str,
        someone: UserSession,
        consent: Mapping[str, bool] | tuple[()],
        now: int,
        page: PageView | None,
    ) -> dict[str, str]:
        said = dict(consent)
        around = Circumstances(
            shown=someone.shown,
            everyone=self._caps.at(now),
            consent=self._consented(someone, said),
            abandoned=someone.state.abandoned if someone.state else (),
            declined=someone.state.declined if someone.state else (),
            began=someone.state.began if someone.state else None,
            minutes=self._zones.minutes(now),
            local=self._zones.local(someone.state, now),
        )
        return {
            **self._budgets.refused(stage, now),
            **guardrails.refused(self._catalogue, stage, now, around, self._scale),
            **(page.unfit(self._catalogue.stages[stage]) if page else {}),
            **self._pauses.refused(stage),
        }

    def stands(self, decision: Decision, request: DecisionRequest, now: int, page: PageView | None = None) -> bool:
        """Whether a decision may be shown again at `now` (µs since 1970) to who asks once more: its window is open, its
        claim still true, the user still consents and has not declined it, and the page may show it.
        """
        someone = self._sessions.session(decision.user)
        if page and decision.arm != NONE and page.excluded(self._catalogue):
            return False
        return now < decision.expires and self._still_true(decision.stage, decision.arm, request, someone, now, page)

    def _still_true(
        self, stage: str, arm: str, request: DecisionRequest, someone: UserSession, now: int, page: PageView | None
    ) -> bool:
        """Whether a nudge may be shown again: it is declared and not paused, its evidence is here, the user consents
        and has not declined it, and the page can show it.
        """
        nudge = self._catalogue.stages[stage].nudges.get(arm)
        if nudge is None:
            return arm in self._catalogue.stages[stage].arms
        if arm in self._pauses.refused(stage):
            return False
        if guardrails.unproven(nudge, _proof(request.evidence), now, self._scale):
            return False
        if (someone.state and f"{stage}.{arm}" in someone.state.declined) or (page and not page.shows(nudge)):
            return False
        return not nudge.consent or set(nudge.consent) <= self._consented(someone, request.consent)

    def _consented(self, someone: UserSession, said: Mapping[str, bool]) -> set[str]:
        """Flags that the user gave by events, unless the request takes them back, and those that the request gives."""
        given = {flag for flag in folding.flags(self._rules, someone.state) if said.get(flag, True)}
        return given | {flag for flag, yes in said.items() if yes}

    def _check_names(self, request: DecisionRequest) -> None:
        """Who does not know the stage may send what any stage knows, and nothing else."""
        stages = self._catalogue.stages.values()
        features = {name for stage in stages for name in stage.features}
        arms = {arm for stage in stages for arm in stage.arms}
        problems = [
            Problem(f"context.{name}", "no stage has this feature", closest(name, features))
            for name in request.context
            if name not in features
        ]
        for field, names in (("include", request.include or ()), ("exclude", request.exclude)):
            problems += [
                Problem(f"{field}[{i}]", f"no stage has a nudge {name!r}", closest(name, arms))
                for i, name in enumerate(names)
                if name not in arms
            ]
        if problems:
            raise InvalidRequest(*problems)

    def _fingerprint(self, request: DecisionRequest) -> bytes:
        """Equal for a retry of the same request, keyed so that it tells nothing about the user."""
        return hashlib.blake2b(content(request), digest_size=16, key=self._salt, person=b"request").digest()


def content(request: DecisionRequest) -> bytes:
    """Content of a request as canonical JSON, whatever its decision id: equal bytes for equal questions, 420 and 420.0
    included.
    """
    context = {k: float(v) if type(v) is int and abs(v) < 2**53 else v for k, v in request.context.items()}
    same = msgspec.structs.replace(request, decision_id=None, context=context)  # 420 and 420.0 are one number
    return msgspec.json.encode(same, order="deterministic")


def _proof(evidence: EvidenceIn) -> ClaimEvidence:
    return ClaimEvidence(
        evidence.stock,
        _when("evidence.deadline", evidence.deadline),
        _when("evidence.as_of", evidence.as_of),
    )


def _when(field: str, when: dt.datetime | None) -> int | None:
    """In microseconds. InvalidRequest for the few hours that an offset moves out of the calendar."""
    try:
        return microseconds(when.astimezone(dt.UTC)) if when else None
    except OverflowError:
        problem = Problem(field, "lies outside the years 1 to 9999 in UTC", "send a time in UTC")
        raise InvalidRequest(problem) from None
