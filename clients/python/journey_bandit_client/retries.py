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

NOT_RECORDED = frozenset({"urn:journey-bandit:problem:overloaded", "urn:journey-bandit:problem:limit-reached"})
"""Types of the problems with which the service says that nothing was recorded."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a request is repeated, always within the deadline of its call.

    `tries`: requests of one call at most; of a batch that is sent in several parts, of each part. The pause after
    attempt n (from 0) is drawn evenly between 0 and min(`longest`, `shortest` · 2ⁿ) seconds ("full jitter"), after the
    time that a Retry-After asks for. Raises ValueError.
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
        (result,) = yield from self.items(lambda _: call, [[0]], seconds, lambda content: [read(content)])
        if isinstance(result, JourneyClientError):
            raise result
        return result

    def items(
        self,
        of: Callable[[Sequence[int]], HttpCall],
        parts: Sequence[Sequence[int]],
        seconds: float,
        read: Callable[[bytes], Sequence[T | ProblemDetails]],
    ) -> Steps[list[T | JourneyClientError]]:
        """Steps of a batch that is sent in `parts`, each the places of some items; returns the result or error of each
        item, in order. `of` gives the call for the items at some places: those whose own status says so are sent again,
        without the others. Each part has `tries` requests, all have one deadline.

        A request that is refused as a whole raises RequestRefusedError if no item has a result yet, and none may have
        been recorded by an earlier attempt. Otherwise the refusal is the error of its items and of those after them,
        which are not sent; items that an earlier attempt may have recorded get ServiceUnavailableError.
        """
        end = self.clock() + seconds
        results: dict[int, T | JourneyClientError] = {}
        count = sum(map(len, parts))
        for part in parts:
            try:
                yield from self._part(of, part, end, read, results)
            except RequestRefusedError as error:
                if not results:
                    raise
                results |= {place: error for place in range(count) if place not in results}
                break
        return [results[place] for place in range(count)]

    def _part(
        self,
        of: Callable[[Sequence[int]], HttpCall],
        part: Sequence[int],
        end: float,
        read: Callable[[bytes], Sequence[T | ProblemDetails]],
        results: dict[int, T | JourneyClientError],
    ) -> Steps[None]:
        """Steps of a part; puts the result or error of each of its items into `results`. Raises RequestRefusedError;
        of the items that still waited, `results` then has only those that an earlier attempt may have recorded.
        """
        waiting = dict.fromkeys(part, "the deadline had passed before the first")
        unknown: dict[int, str] = {}  # items that an attempt may have recorded, and what became of that attempt
        attempts = 0
        while (left := end - self.clock()) > 0:
            places = list(waiting)
            attempts, asked = attempts + 1, 0.0
            try:
                answers = yield from self._attempt(of(places), left, _counted(read, len(places)))
            except RequestRefusedError as error:
                results |= {
                    place: ServiceUnavailableError(attempts, f"{unknown[place]}; then it was refused: {error}")
                    for place in places
                    if place in unknown
                }
                raise
            if isinstance(answers, _NoResult):
                waiting, asked = dict.fromkeys(places, answers.why), answers.retry_after
                unknown |= {} if answers.not_recorded else waiting
            else:
                waiting = {}
                for place, answer in zip(places, answers, strict=True):
                    if not isinstance(answer, ProblemDetails):
                        results[place] = answer
                    elif answer.status in RETRIED:
                        waiting[place] = f"{answer.status} {answer.detail}"
                        unknown |= {} if _not_recorded(answer) else {place: waiting[place]}
                    else:
                        results[place] = refusal(answer)
            pause = self.policy.pause(attempts - 1, asked, self.draw)
            if not waiting or attempts == self.policy.tries or self.clock() + pause >= end:
                break
            yield Pause(pause)
        results |= {place: ServiceUnavailableError(attempts, why) for place, why in waiting.items()}

    def _attempt(self, call: HttpCall, seconds: float, read: Callable[[bytes], T]) -> Steps["T | _NoResult"]:
        """Steps of one attempt; returns what `read` makes of the body of its 200, or why there is none and the call may
        be repeated. Raises RequestRefusedError.
        """
        answer = yield Attempt(call, seconds)
        if not isinstance(answer, HttpAnswer):
            return _NoResult(answer.why if answer else "no answer")
        if answer.status == 200:
            try:
                return read(answer.content)
            except (msgspec.DecodeError, ValueError) as error:  # a page of something between
                return _NoResult(f"200 with a body that cannot be read: {error}")
        problem = problem_of(answer)
        if answer.status not in RETRIED:
            raise refusal(problem)
        why = f"{answer.status} {problem.detail}".strip()
        return _NoResult(why, retry_after(answer.headers), _not_recorded(problem))


@dataclass(frozen=True)
class _NoResult:
    """Attempt that gave no result: why, the seconds that a Retry-After asks for, and whether it is known that nothing
    was recorded.
    """

    why: str
    retry_after: float = 0.0
    not_recorded: bool = False


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


def _not_recorded(problem: ProblemDetails) -> bool:
    return problem.status == 429 or problem.type in NOT_RECORDED


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
