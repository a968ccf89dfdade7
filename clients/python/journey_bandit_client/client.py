"""The synchronous client."""

import datetime as dt
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from journey_bandit_client.calls import ServiceCalls
from journey_bandit_client.connection import LIMITS, connected_to
from journey_bandit_client.deadline import DeadlineRunner
from journey_bandit_client.messages import (
    NO_NUDGE,
    EventResult,
    Feature,
    NudgeDecision,
    NudgeRequest,
    OfferedNudge,
    OfferEvidence,
    OutcomeReport,
    ReportResult,
    UserEvent,
    UserJourney,
    new_id,
)
from journey_bandit_client.retries import Attempt, HttpAnswer, NoAnswer, Pause, RetryLoop, RetryPolicy, Steps

T = TypeVar("T")


class JourneyClient:
    """Client of one service at `url`, for any number of threads. Use it in a `with` block, which closes its
    connections.

    Deadlines are exact: each request is sent by a thread of its own, which is left behind if looking up the name of the
    service, or its answer, takes longer. At most 1,000 requests are under way at a time, those left behind included.

    `key`: API key; what it may do is its scopes. A decision is waited for `decide_seconds`, everything else
    `report_seconds`, retries and pauses included. `fallback`: what a degraded decision shows. `transport`, `clock`,
    `sleep` and `draw` stand for network, time and chance in tests.
    Raises ValueError for an address, a key or seconds that cannot be.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        decide_seconds: float = 0.5,
        report_seconds: float = 10.0,
        retries: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        fallback: OfferedNudge = NO_NUDGE,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ):
        self._sleep = sleep
        loop = RetryLoop(retries, clock, draw)
        self._calls = ServiceCalls(loop, fallback, decide_seconds, report_seconds)
        address, headers = connected_to(url, key)
        self._attempts = DeadlineRunner()
        self._http = httpx.Client(base_url=address, headers=headers, transport=transport, limits=LIMITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def decide(
        self,
        user_id: str,
        *,
        stage: str | None = None,
        context: Mapping[str, Feature] | None = None,
        evidence: OfferEvidence | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        consent: Mapping[str, bool] | None = None,
        deferred: bool = False,
        decision_id: uuid.UUID | None = None,
        seconds: float | None = None,
    ) -> NudgeDecision:
        """Nudge for a user, on the service's disk before this returns; or the fallback, marked `degraded`, if no answer
        came within `seconds` (left out: `decide_seconds`). Without `stage`, the user's journey says it.

        The id is made before the first attempt, so that a decision is made once. A decision whose answer was lost may
        be in the ledger although nothing was shown: with `deferred` it teaches nothing, because it is never activated.
        Raises RequestRefusedError, and ValueError for NaN and infinity.
        """
        asked = NudgeRequest(
            user_id=user_id,
            stage=stage,
            context=context or {},
            evidence=evidence or OfferEvidence(),
            include=include,
            exclude=exclude,
            consent=consent or {},
            deferred=deferred,
            decision_id=decision_id or new_id(),
        )
        return self._run(self._calls.decide(asked, seconds))

    def decide_many(self, requests: Sequence[NudgeRequest], *, seconds: float | None = None) -> list[NudgeDecision]:
        """Nudges for many users, in order, by the thousand; those that did not come within `seconds` (left out:
        `decide_seconds`) are degraded. Raises RequestRefusedError if the first request is refused as a whole, and
        ItemsFailedError, which has the decision or the error of each, if some were refused.
        """
        return self._run(self._calls.decide_many(requests, seconds))

    def reward(
        self,
        decision: NudgeDecision | uuid.UUID,
        value: float | None = None,
        *,
        outcome_id: str | None = None,
        occurred_at: dt.datetime | None = None,
        seconds: float | None = None,
    ) -> ReportResult:
        """Report a reward, in the stage's units; 1 if `value` is left out and the reward is binary. Several rewards of
        one decision need an `outcome_id` each. Of a degraded decision nothing is sent. Raises RequestRefusedError, or
        ServiceUnavailableError if no answer came within `seconds` (left out: `report_seconds`).
        """

        def outcome(found: uuid.UUID) -> OutcomeReport:
            return OutcomeReport(
                decision_id=found, kind="reward", value=value, outcome_id=outcome_id, occurred_at=occurred_at
            )

        return self._run(self._calls.report(decision, outcome, seconds))

    def activate(
        self,
        decision: NudgeDecision | uuid.UUID,
        *,
        occurred_at: dt.datetime | None = None,
        seconds: float | None = None,
    ) -> ReportResult:
        """Report that the nudge was really shown: a deferred decision teaches nothing without it. Otherwise as
        `reward`.
        """

        def outcome(found: uuid.UUID) -> OutcomeReport:
            return OutcomeReport(decision_id=found, kind="activation", occurred_at=occurred_at)

        return self._run(self._calls.report(decision, outcome, seconds))

    def retract(
        self,
        decision: NudgeDecision | uuid.UUID,
        value: float | None = None,
        *,
        outcome_id: str | None = None,
        occurred_at: dt.datetime | None = None,
        seconds: float | None = None,
    ) -> ReportResult:
        """Take back `value` of a decision's rewards, or all if it is left out: a refund. Otherwise as `reward`."""

        def outcome(found: uuid.UUID) -> OutcomeReport:
            return OutcomeReport(
                decision_id=found, kind="retraction", value=value, outcome_id=outcome_id, occurred_at=occurred_at
            )

        return self._run(self._calls.report(decision, outcome, seconds))

    def opt_out(
        self,
        decision: NudgeDecision | uuid.UUID,
        *,
        occurred_at: dt.datetime | None = None,
        seconds: float | None = None,
    ) -> ReportResult:
        """Report that the person wants no more of this after the nudge: unsubscribed, muted or complained. It changes
        no reward; guardrails count it. Otherwise as `reward`.
        """

        def outcome(found: uuid.UUID) -> OutcomeReport:
            return OutcomeReport(decision_id=found, kind="opt_out", occurred_at=occurred_at)

        return self._run(self._calls.report(decision, outcome, seconds))

    def report_many(self, outcomes: Sequence[OutcomeReport], *, seconds: float | None = None) -> list[ReportResult]:
        """Report many outcomes, by the thousand; results in order. Raises ItemsFailedError, which has the result or the
        error of each, if some were refused or not answered within `seconds` (left out: `report_seconds`);
        RequestRefusedError if the first request is refused as a whole.
        """
        return self._run(self._calls.report_many(outcomes, seconds))

    def events(self, events: Sequence[UserEvent], *, seconds: float | None = None) -> list[EventResult]:
        """Report what users did, by the thousand; results in order. Events without an id get one before the first
        attempt. Raises ItemsFailedError, which has the result or the error of each, if some were refused or not
        answered within `seconds` (left out: `report_seconds`); RequestRefusedError if the first request is refused as a
        whole.
        """
        return self._run(self._calls.events(events, seconds))

    def journey(self, user_id: str, *, seconds: float | None = None) -> UserJourney:
        """Where a user is, and what may be shown now (scope `read`). Raises RequestRefusedError or
        ServiceUnavailableError.
        """
        return self._run(self._calls.journey(user_id, seconds))

    def receipt(self, decision_id: uuid.UUID, *, seconds: float | None = None) -> dict[str, Any]:
        """All that the ledger holds of a decision, as the JSON object of `GET /v1/decisions/{id}` (scope `read`).
        Raises RequestRefusedError or ServiceUnavailableError.
        """
        return self._run(self._calls.receipt(decision_id, seconds))

    def _run(self, steps: Steps[T]) -> T:
        answer: HttpAnswer | NoAnswer | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                self._sleep(step.seconds)
                answer = None
            else:
                answer = self._sent(step)

    def _sent(self, attempt: Attempt) -> HttpAnswer | NoAnswer:
        call = attempt.call

        def send() -> HttpAnswer:
            got = self._http.request(call.method, call.path, content=call.body, timeout=attempt.seconds)
            return HttpAnswer(got.status_code, got.headers, got.content)

        try:
            return self._attempts.run(send, attempt.seconds)
        except TimeoutError as error:
            return NoAnswer(str(error))
        except httpx.RequestError as error:
            return NoAnswer(f"{type(error).__name__}: {error}")
