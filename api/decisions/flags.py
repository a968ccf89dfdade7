"""Stages as feature flags: what OpenFeature's clients evaluate, without HTTP (`api.routes.ofrep` speaks it).

Providers evaluate freely, long before anything is shown, and all flags at once. So a decision made here is deferred (it
teaches only once it was shown), and the same question of the same user gets the same decision while a visit lasts: its
id is a keyed hash of what was asked, so that this holds after a restart too.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from api.clocks import Clock
from api.decisions.ids import keyed_id
from api.decisions.maker import content
from api.decisions.service import DecisionService
from api.messages.decisions import DecisionReply, DecisionRequest, EvidenceIn, OutcomeRequest
from api.stores.decision_log import DecisionRecord
from api.stores.protocol import Store
from bandit.catalogue import durations
from bandit.catalogue.model import Catalogue
from bandit.errors import InvalidRequest, JourneyBanditError, NotFound, Problem
from bandit.propensity.draw import unit

_AGAIN = 8  # decisions that one question may have in a visit: the next is made when the last has settled
_VIEWS = ("", ".nudge", ".show")

JOURNEY = "journey"
"""The flag that asks where the user is, and whether this is the moment. Bulk answers leave it out."""


class FlagContext(NamedTuple):
    """Evaluation context as a client sent it, read: the user, attributes, evidence of claims, consent, and whether the
    flag is about to be shown.
    """

    user: str
    attributes: Mapping[str, Any]
    evidence: EvidenceIn
    consent: Mapping[str, bool]
    shown: bool


class FlagEvaluation(NamedTuple):
    """Evaluation of one flag: the decision's reply, and the value under which the flag shows it."""

    key: str
    reply: DecisionReply
    value: object


class Flags:
    """Feature flags of one app. Every stage is three flags: `cart` (the nudge's payload), `cart.nudge` (its id),
    `cart.show` (a boolean); `journey` asks for the user's present moment.

    Guarantees: decisions are durable before they are answered; the same context of the same user gets the same decision
    until it settles or expires, its claim or the user's consent ends, or a visit's length is over. That needs no state
    here, because ids are hashes keyed by the salt. Users under a placeholder share no decision. Belongs to one event
    loop.
    """

    def __init__(self, service: DecisionService, store: Store, *, salt: bytes, clock: Clock, window_scale: float = 1.0):
        self._service = service
        self._catalogue: Catalogue = service.catalogue
        self._store = store
        self._salt = salt
        self._clock = clock
        self._scale = window_scale
        self._stages = [name for name, stage in self._catalogue.stages.items() if not stage.has_request_actions]
        self._digests = {name: stage.digest() for name, stage in self._catalogue.stages.items()}

    async def one(self, key: str, asked: FlagContext, reporter: str = "") -> FlagEvaluation:
        """Evaluation of the flag `key`. With `shown` in the context, the decision's activation is reported too, by the
        key called `reporter`. Raises NotFound for an unknown flag, InvalidRequest for the context, Overloaded and
        Unavailable.
        """
        stage, dot, view = key.partition(".")
        if dot + view not in _VIEWS or not (stage in self._stages or self._is_journey(stage)):
            known = ", ".join([*self._stages, *([JOURNEY] if self._is_journey(JOURNEY) else [])])
            raise NotFound("key", f"no flag {key!r}", f"one of {known}, or with {' or '.join(_VIEWS[1:])} after it")
        (result,) = await (self._journey(asked) if stage not in self._stages else self._decide([stage], asked))
        if isinstance(result, JourneyBanditError):
            raise result
        if asked.shown and result.moment is not None:  # "not now" shows nothing, and is never learned
            token = self._service.outcome_token(result.decision_id)
            shown = OutcomeRequest(result.decision_id, "activation", outcome_token=token)
            await self._service.report(shown, reporter)
        return _viewed(stage, result, dot + view)

    async def all(self, asked: FlagContext) -> list[FlagEvaluation | tuple[str, JourneyBanditError]]:
        """Evaluation of every flag but the journey's, or its key with what is wrong with the context for it; one
        durable write for all. Nothing is reported as shown. Raises Overloaded and Unavailable.
        """
        results = zip(self._stages, await self._decide(self._stages, asked), strict=True)
        return [
            (stage + view, result) if isinstance(result, JourneyBanditError) else _viewed(stage, result, view)
            for stage, result in results
            for view in _VIEWS
        ]

    def _is_journey(self, stage: str) -> bool:
        """Whether a flag asks the journey: where the app declares events, and no stage is called so."""
        return stage == JOURNEY and JOURNEY not in self._stages and bool(self._catalogue.journey.events)

    async def _journey(self, asked: FlagContext) -> list[DecisionReply | JourneyBanditError]:
        """What the user's moment asks for. The journey itself gives one decision a visit."""
        stages = self._catalogue.stages.values()
        known = {name for stage in stages if not stage.has_request_actions for name in stage.features}
        request = DecisionRequest(
            user_id=asked.user,
            context={name: value for name, value in asked.attributes.items() if name in known},
            evidence=asked.evidence,
            consent=dict(asked.consent),
            deferred=True,
        )
        return await self._service.decide_many([request])

    async def _decide(self, stages: Sequence[str], asked: FlagContext) -> list[DecisionReply | JourneyBanditError]:
        """Each stage's decision: the one that was made for this question, or a new one. One durable write."""
        now = self._clock()
        if not self._service.maker.is_somebody(asked.user):  # many people under one word share no decision
            return await self._service.decide_many([self._request(stage, asked) for stage in stages])
        key = self._service.maker.unit(asked.user).hex()
        chains = [self._chain(self._request(stage, asked), key, now) for stage in stages]
        ids = [request.decision_id for chain in chains for request in chain if request.decision_id]
        known = await asyncio.to_thread(self._store.decisions_by_id, ids)
        chosen = [self._pick(chain, known, now) for chain in chains]
        new = [one for one in chosen if isinstance(one, DecisionRequest)]
        made = iter(await self._service.decide_many(new) if new else [])
        return [
            next(made) if isinstance(one, DecisionRequest) else self._service.reply(one.decision, duplicate=True)
            for one in chosen
        ]

    def _pick(
        self, chain: Sequence[DecisionRequest], known: Mapping[uuid.UUID, DecisionRecord], now: int
    ) -> DecisionRecord | DecisionRequest:
        """The last decision of a chain if it still stands, else the request for the next."""
        last: DecisionRecord | None = None
        for request in chain:
            found = known.get(request.decision_id) if request.decision_id else None
            if found is None:
                stands = last and not last.settlement and self._service.maker.stands(last.decision, request, now)
                return last if last and stands else request
            last = found
        return msgspec.structs.replace(chain[-1], decision_id=None)

    def _request(self, stage: str, asked: FlagContext) -> DecisionRequest:
        """What the context says about this stage. Attributes that it does not declare are for others."""
        features = self._catalogue.stages[stage].features
        return DecisionRequest(
            stage=stage,
            user_id=asked.user,
            context={name: value for name, value in asked.attributes.items() if name in features},
            evidence=asked.evidence,
            consent=dict(asked.consent),
            deferred=True,
        )

    def _chain(self, request: DecisionRequest, person: str, now: int) -> list[DecisionRequest]:
        """The same question with the ids that its decisions in this visit have, in their order. `person` keys them: the
        same for every id of a person, so that nothing changes at login.
        """
        stage = self._catalogue.stages[request.stage or ""]
        declared = min(durations.seconds(self._catalogue.journey.visit), stage.reward.seconds)
        length = max(round(declared * self._scale * 1e6), 1)
        shift = int(unit(self._salt, b"visit", person.encode()) * length)  # not everybody's at once
        began = (now + shift) // length * length - shift
        asked = content(msgspec.structs.replace(request, user_id=person))
        body = f"{self._digests[request.stage or '']} {began} ".encode() + asked
        return [
            msgspec.structs.replace(request, decision_id=keyed_id(body, self._salt, b"flag%d" % number, at=began))
            for number in range(_AGAIN)
        ]


def read(context: object) -> FlagContext:
    """Evaluation context of a request's body, checked. Raises InvalidRequest, which names the attribute, for a context
    that cannot be used.

    Reserved attributes: `targetingKey`, `evidence` (stock, deadline, as_of), `consent`, `shown`.
    """
    if not isinstance(context, dict):
        raise InvalidRequest(Problem("context", "not an object", "send the evaluation context as an object"))
    user = context.get("targetingKey")
    if user is None or user == "":
        raise InvalidRequest(Problem("targetingKey", "missing", "set a targeting key: the user's id"))
    if not isinstance(user, str) or len(user) > 256:
        raise InvalidRequest(Problem("context.targetingKey", "not a text of 1 to 256 characters", "send the user's id"))
    return FlagContext(
        user,
        {name: value for name, value in context.items() if name not in ("targetingKey", *_RESERVED)},
        _converted(context, "evidence", EvidenceIn, EvidenceIn()),
        _converted(context, "consent", dict[str, bool], {}),
        _converted(context, "shown", bool, False),
    )


_RESERVED = ("evidence", "consent", "shown")


def _converted(context: Mapping[str, Any], name: str, type_: Any, default: Any) -> Any:
    if context.get(name) is None:
        return default
    try:
        return msgspec.convert(context[name], type_, strict=True)
    except msgspec.ValidationError as error:
        fix = "see docs/guides/openfeature.md for the reserved attributes"
        raise InvalidRequest(Problem(f"context.{name}", str(error)[:120], fix)) from error


def _viewed(flag: str, reply: DecisionReply, view: str) -> FlagEvaluation:
    values = {"": reply.nudge.payload, ".nudge": reply.nudge.id, ".show": reply.nudge.id != "none"}
    return FlagEvaluation(flag + view, reply, values[view])
