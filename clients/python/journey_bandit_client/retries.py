"""Retries until a deadline, without any I/O: a generator says what to send and how long to pause, its driver does it.

Every request that the client sends may be repeated, because its ids are made before the first attempt.
"""

import email.utils
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from journey_bandit_client.errors import (
    JourneyClientError,
    ProblemDetails,
    RequestRefusedError,
    ServiceUnavailableError,
    refusal,
)

T = TypeVar("T")

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which it is not known whether a request was recorded, or known that it was not."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a request is repeated, always within the deadline of its call.

    `tries`: requests of one call at most. The pause after attempt n (from 0) is drawn evenly between 0 and
    min(`longest`, `shortest` · 2ⁿ) seconds ("full jitter"), after the time that a Retry-After asks for. Raises
    ValueError.
    """

    tries: int = 6
    shortest: float = 0.05
    longest: float = 2.0

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries is {self.tries}: at least 1, which is no retry")
        if not 0 < self.shortest <= self.longest < float("inf"):
            raise ValueError(f"shortest is {self.shortest} and longest {self.longest}: 0 < shortest ≤ longest, seconds")

    def pause(self, attempt: int, asked: float, draw: Callable[[], float]) -> float:
        """Seconds to wait after attempt `attempt` (from 0). `asked`: seconds of a Retry-After, 0 without; `draw`: a
        number in [0, 1).
        """
        return asked + draw() * min(self.longest, self.shortest * 2.0 ** min(attempt, 60))


@dataclass(frozen=True)
class HttpCall:
    """Request: method, path below the service's address, and body."""

    method: str
    path: str
    body: bytes | None = None


@dataclass(frozen=True)
class Attempt:
    """Step: send `call` and wait for `seconds` at most."""

    call: HttpCall
    seconds: float


@dataclass(frozen=True)
class Pause:
    """Step: wait."""

    seconds: float


@dataclass(frozen=True)
class HttpAnswer:
    """Answer to an attempt. Names of `headers` in any case, as httpx looks them up."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class NoAnswer:
    """No answer to an attempt: why."""

    why: str


Steps = Generator[Attempt | Pause, HttpAnswer | NoAnswer | None, T]
"""Steps of a call for its driver, which sends back the answer of each attempt; T is what the call returns."""


@dataclass(frozen=True)
class RetryLoop:
    """Sends calls until they are answered. `clock` in seconds, of any origin; `draw` gives numbers in [0, 1)."""

    policy: RetryPolicy
    clock: Callable[[], float]
    draw: Callable[[], float]

    def call(self, call: HttpCall, seconds: float, read: Callable[[bytes], T]) -> Steps[T]:
        """Steps of one call; returns what `read` makes of the body of its 200. Raises RequestRefusedError, or
        ServiceUnavailableError if nothing usable came within `seconds`.
        """
        end, why = self.clock() + seconds, "the deadline had passed before the first"
        attempts = 0
        while attempts < self.policy.tries and (left := end - self.clock()) > 0:
            answer = yield Attempt(call, left)
            attempts += 1
            if isinstance(answer, HttpAnswer) and answer.status == 200:
                try:
                    return read(answer.content)
                except (
                    msgspec.DecodeError,
                    ValueError,
                ) as error:  # a page of something between
                    answer = NoAnswer(f"200 with a body that cannot be read: {error}")
            asked = 0.0
            if isinstance(answer, HttpAnswer):
                if answer.status not in RETRIED:
                    raise refusal(problem_of(answer))
                why, asked = f"{answer.status} {problem_of(answer).detail}".strip(), retry_after(answer.headers)
            elif answer is not None:
                why = answer.why
            pause = self.policy.pause(attempts - 1, asked, self.draw)
            if attempts == self.policy.tries or self.clock() + pause >= end:
                break
            yield Pause(pause)
        raise ServiceUnavailableError(attempts, why)

    def items(
        self,
        of: Callable[[Sequence[int]], HttpCall],
        count: int,
        seconds: float,
        read: Callable[[bytes], Sequence[T | ProblemDetails]],
    ) -> Steps[list[T | JourneyClientError]]:
        """Steps of a batch of `count` items; returns the result or error of each, in order. `of` gives the call for the
        items at some places: those whose own status says so are sent again, without the others. Raises
        RequestRefusedError if the batch is refused as a whole.
        """
        end = self.clock() + seconds
        results: list[T | JourneyClientError] = [ServiceUnavailableError(0, "not sent") for _ in range(count)]
        waiting, sent = list(range(count)), 0
        while waiting:
            try:
                answers = yield from self.call(of(waiting), end - self.clock(), _counted(read, len(waiting)))
            except RequestRefusedError:
                raise
            except JourneyClientError as error:
                for place in waiting:
                    results[place] = error
                break
            sent += 1
            again = []
            for place, answer in zip(waiting, answers, strict=True):
                if not isinstance(answer, ProblemDetails):
                    results[place] = answer
                elif answer.status in RETRIED:
                    results[place] = ServiceUnavailableError(sent, f"{answer.status} {answer.detail}")
                    again.append(place)
                else:
                    results[place] = refusal(answer)
            waiting = again
            pause = self.policy.pause(sent - 1, 0.0, self.draw)
            if not waiting or sent == self.policy.tries or self.clock() + pause >= end:
                break
            yield Pause(pause)
        return results


def _counted(
    read: Callable[[bytes], Sequence[T | ProblemDetails]], count: int
) -> Callable[[bytes], Sequence[T | ProblemDetails]]:
    """`read`, which takes no other number of answers than there are items. Raises ValueError."""

    def counted(content: bytes) -> Sequence[T | ProblemDetails]:
        answers = read(content)
        if len(answers) != count:
            raise ValueError(f"{len(answers)} answers to {count} items")
        return answers

    return counted


def problem_of(answer: HttpAnswer) -> ProblemDetails:
    """Problem details of a refusal; what is no problem document, as of a proxy, is told by its status alone."""
    try:
        told: Any = msgspec.json.decode(answer.content)
        return msgspec.convert({**told, "status": answer.status}, ProblemDetails)
    except (msgspec.DecodeError, TypeError, ValueError):
        title = "The answer is no problem document"
        return ProblemDetails(status=answer.status, title=title, detail=answer.content[:200].decode(errors="replace"))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After asks for, 0 without one that can be read. A time is compared with the answer's own
    Date: clocks of two machines are not.
    """
    asked = headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        until = email.utils.parsedate_to_datetime(asked)
        now = email.utils.parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0
