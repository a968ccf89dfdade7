"""The calls of the service as steps, the same for the synchronous client and for asyncio: what is sent has
its ids already, and answers become values here.
"""

import math
import urllib.parse
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from journey_bandit_client.errors import ItemsFailedError, JourneyClientError, ProblemDetails, ServiceUnavailableError
from journey_bandit_client.messages import (
    EventResult,
    NudgeDecision,
    NudgeRequest,
    OfferedNudge,
    OutcomeReport,
    ReportResult,
    UserEvent,
    UserJourney,
)
from journey_bandit_client.retries import HttpCall, RetryLoop, Steps

T = TypeVar("T")

MOST_ITEMS = 1000
"""Items of one request; longer batches are sent in several."""

MOST_BYTES = 4_000_000
"""Bytes of the body of one request, as the service takes them; larger batches are sent in several."""

_NOT_SENT = "not sent: the decision is degraded, so the service does not know what was shown"


class _Item(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a batch, whatever it is of."""

    status: int
    problem: ProblemDetails | None = None
    decision: NudgeDecision | None = None
    outcome: ReportResult | None = None
    event: EventResult | None = None


class _Items(msgspec.Struct, frozen=True, kw_only=True):
    decisions: list[_Item] = []
    outcomes: list[_Item] = []
    events: list[_Item] = []


class _ItemReader(Generic[T]):
    """Reads the answers of a batch: a list of that name, each with its result under that name or with a problem."""

    def __init__(self, items: str, result: str):
        self._items, self._result = items, result

    def __call__(self, content: bytes) -> list[T | ProblemDetails]:
        return [self._one(item) for item in getattr(msgspec.json.decode(content, type=_Items), self._items)]

    def _one(self, item: _Item) -> T | ProblemDetails:
        found: T | None = getattr(item, self._result)
        if item.status == 200 and found is not None:
            return found
        problem = item.problem or ProblemDetails(status=item.status, title="An item without a result")
        return msgspec.structs.replace(problem, status=item.status)


_DECISION = msgspec.json.Decoder(NudgeDecision)
_REPORT = msgspec.json.Decoder(ReportResult)
_JOURNEY = msgspec.json.Decoder(UserJourney)
_RECEIPT = msgspec.json.Decoder(dict[str, Any])


class ServiceCalls:
    """Calls of one service as steps. `fallback` is what a degraded decision shows. Each call takes the `seconds` until
    its deadline; None stands for `decide_seconds` or `report_seconds`.
    """

    def __init__(
        self,
        loop: RetryLoop,
        fallback: OfferedNudge,
        decide_seconds: float,
        report_seconds: float,
    ):
        self._loop, self._fallback = loop, fallback
        self._decide_seconds = _positive(decide_seconds, "decide_seconds")
        self._report_seconds = _positive(report_seconds, "report_seconds")

    def decide(self, asked: NudgeRequest, seconds: float | None) -> Steps[NudgeDecision]:
        """A decision, degraded if the service does not answer in time. Raises RequestRefusedError."""
        call = _post("/v1/decisions", asked)
        try:
            return (yield from self._loop.call(call, self._deciding(seconds), _DECISION.decode))
        except ServiceUnavailableError as error:
            return self._degraded(asked, error)

    def decide_many(self, asked: Sequence[NudgeRequest], seconds: float | None) -> Steps[list[NudgeDecision]]:
        """Decisions in order; those that do not come in time are degraded. Raises RequestRefusedError, or
        ItemsFailedError if some were refused.
        """
        reader = _ItemReader[NudgeDecision]("decisions", "decision")
        results = yield from self._batches("/v1/decisions/batch", "decisions", asked, self._deciding(seconds), reader)
        return _all_of([
            self._degraded(request, result) if isinstance(result, ServiceUnavailableError) else result
            for request, result in zip(asked, results, strict=True)
        ])  # fmt: skip

    def report(
        self, decision: NudgeDecision | uuid.UUID, make: Callable[[uuid.UUID], OutcomeReport], seconds: float | None
    ) -> Steps[ReportResult]:
        """Report the outcome that `make` gives for the decision's id; of a degraded decision nothing is sent. Raises
        RequestRefusedError or ServiceUnavailableError.
        """
        found = decision.decision_id if isinstance(decision, NudgeDecision) else decision
        if found is None:
            return ReportResult(recorded=False, notes=[_NOT_SENT])
        outcome = make(found)
        if isinstance(decision, NudgeDecision):
            outcome = msgspec.structs.replace(outcome, outcome_token=decision.outcome_token)
        call = _post("/v1/outcomes", outcome)
        return (yield from self._loop.call(call, self._reporting(seconds), _REPORT.decode))

    def report_many(self, outcomes: Sequence[OutcomeReport], seconds: float | None) -> Steps[list[ReportResult]]:
        """Report outcomes; results in order. Raises RequestRefusedError, or ItemsFailedError if some failed."""
        reader = _ItemReader[ReportResult]("outcomes", "outcome")
        within = self._reporting(seconds)
        return _all_of((yield from self._batches("/v1/outcomes/batch", "outcomes", outcomes, within, reader)))

    def events(self, events: Sequence[UserEvent], seconds: float | None) -> Steps[list[EventResult]]:
        """Report events; results in order. Raises RequestRefusedError, or ItemsFailedError if some failed."""
        reader = _ItemReader[EventResult]("events", "event")
        return _all_of((yield from self._batches("/v1/events", "events", events, self._reporting(seconds), reader)))

    def journey(self, user_id: str, seconds: float | None) -> Steps[UserJourney]:
        """Where a user is. Raises RequestRefusedError or ServiceUnavailableError."""
        path = f"/v1/users/{urllib.parse.quote(user_id, safe='')}/journey"
        return (yield from self._loop.call(HttpCall("GET", path), self._reporting(seconds), _JOURNEY.decode))

    def receipt(self, decision_id: uuid.UUID, seconds: float | None) -> Steps[dict[str, Any]]:
        """All that the ledger holds of a decision. Raises RequestRefusedError or ServiceUnavailableError."""
        call = HttpCall("GET", f"/v1/decisions/{decision_id}")
        return (yield from self._loop.call(call, self._reporting(seconds), _RECEIPT.decode))

    def _deciding(self, seconds: float | None) -> float:
        return self._decide_seconds if seconds is None else _positive(seconds, "seconds")

    def _reporting(self, seconds: float | None) -> float:
        return self._report_seconds if seconds is None else _positive(seconds, "seconds")

    def _degraded(self, asked: NudgeRequest, error: ServiceUnavailableError) -> NudgeDecision:
        return NudgeDecision(nudge=self._fallback, decision_id=None, stage=asked.stage, degraded=True, why=str(error))

    def _batches(
        self,
        path: str,
        name: str,
        items: Sequence[msgspec.Struct],
        seconds: float,
        read: Callable[[bytes], Sequence[T | ProblemDetails]],
    ) -> Steps[list[T | JourneyClientError]]:
        """Results of items that are sent in parts, within one deadline. Raises ValueError for an item that is larger
        than a request may be, before anything is sent.
        """
        raw = [_encoded(item, f"{name}[{place}]") for place, item in enumerate(items)]

        def of(places: Sequence[int]) -> HttpCall:
            return HttpCall("POST", path, msgspec.json.encode({name: [raw[place] for place in places]}))

        parts = _parts([len(bytes(one)) for one in raw], name)
        return (yield from self._loop.items(of, parts, seconds, read))


def _parts(sizes: Sequence[int], name: str) -> list[list[int]]:
    """Places of the items of each request, in order, for items of so many bytes in a list of that name. Raises
    ValueError for an item that fits into none.
    """
    parts, empty = list[list[int]](), len(f'{{"{name}":[]}}')
    size = 0  # of the last part
    for place, more in enumerate(sizes):
        if empty + more > MOST_BYTES:
            most = MOST_BYTES - empty
            raise ValueError(f"{name}[{place}] has {more:,} bytes: an item may have {most:,}; send less in it")
        if not parts or len(parts[-1]) == MOST_ITEMS or size + 1 + more > MOST_BYTES:
            parts.append([place])
            size = empty + more
        else:
            parts[-1].append(place)
            size += 1 + more  # a comma
    return parts


def _positive(seconds: float, name: str) -> float:
    """The seconds, if they can be waited for. Raises ValueError otherwise: no attempt would be made, as if the service
    were away.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} is {seconds}: a finite number of seconds above 0")
    return seconds


def _all_of(results: Sequence[T | JourneyClientError]) -> list[T]:
    """The results, if there is no error among them. Raises ItemsFailedError."""
    good = [one for one in results if not isinstance(one, JourneyClientError)]
    if len(good) < len(results):
        raise ItemsFailedError(results)
    return good


def _post(path: str, message: msgspec.Struct) -> HttpCall:
    return HttpCall("POST", path, bytes(_encoded(message, "")))


def _encoded(message: msgspec.Struct, place: str) -> msgspec.Raw:
    """JSON of a message. Raises ValueError for a number that JSON does not have: it would become null, which is
    another value.
    """
    for field, value in _leaves(msgspec.to_builtins(message), place):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field} is {value}: JSON has no such number; leave the field out or send a finite one")
    return msgspec.Raw(msgspec.json.encode(message))


def _leaves(value: Any, place: str) -> Generator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{number}]")
    else:
        yield place, value
