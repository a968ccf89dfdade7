"""Errors of the client:

JourneyClientError
├── ServiceUnavailableError    no usable answer before the deadline: not known whether anything was recorded
├── ItemsFailedError           items of a batch that failed; the others have their results
└── RequestRefusedError        the service said no, in problem details (RFC 9457)
    ├── InvalidRequestError    400, 413, 415: a field is wrong, or the body is; 403: an outcome's token
    ├── KeyRefusedError        401, 403: no key, or one without the scope
    ├── NotFoundError          404: no such decision, stage or route
    └── IdConflictError        409: the id was used with other content
"""

from collections.abc import Sequence
from typing import Any

import msgspec


class FieldProblem(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request, and what to write instead."""

    field: str
    problem: str
    fix: str


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Problem details of a refusal (RFC 9457). `type` is an identifier such as
    `urn:journey-bandit:problem:invalid-request`; `errors` names each field; `request_id` finds the request in the logs
    of the service, "" if the answer has none.
    """

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    errors: list[FieldProblem] = []
    request_id: str = ""


class JourneyClientError(Exception):
    """Any error of this client."""


class ServiceUnavailableError(JourneyClientError):
    """No usable answer came before the deadline. It is not known whether the service recorded anything: the same
    request, with the same ids, may be sent again. `attempts`: how many requests were sent; `why`: what became of the
    last one. If the last one was refused after one that may have been recorded, `why` tells both.
    """

    def __init__(self, attempts: int, why: str):
        super().__init__(f"no answer of the service after {attempts} attempts: {why}")
        self.attempts, self.why = attempts, why


class RequestRefusedError(JourneyClientError):
    """The service refused a request, and recorded nothing of it. `problem` says why."""

    def __init__(self, problem: ProblemDetails):
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem

    @property
    def status(self) -> int:
        """HTTP status, of an item of a batch the one that it would have had alone."""
        return self.problem.status

    @property
    def errors(self) -> Sequence[FieldProblem]:
        """Each wrong field with its fix."""
        return self.problem.errors


class InvalidRequestError(RequestRefusedError):
    """A field, or the body, cannot be used (400, 413, 415), or an outcome does not bring the token of its decision
    (403, field `outcome_token`).
    """


class KeyRefusedError(RequestRefusedError):
    """There is no such key (401), or it lacks the scope of the call (403)."""


class NotFoundError(RequestRefusedError):
    """There is no such decision, stage or route (404)."""


class IdConflictError(RequestRefusedError):
    """The id was used before with other content (409)."""


class ItemsFailedError(JourneyClientError):
    """Items of a batch failed. `results`, in the order of the items: each item's result, or its error. Those that have
    a result are recorded; sending the whole batch again, with the same ids, counts nothing twice. Where a later request
    of the batch was refused as a whole, the refusal is the error of its items and of all after them, which were not
    sent; items that an earlier attempt may have recorded have a ServiceUnavailableError.
    """

    def __init__(self, results: Sequence[Any]):
        failed = [(i, one) for i, one in enumerate(results) if isinstance(one, JourneyClientError)]
        place, first = failed[0]
        super().__init__(f"{len(failed)} of {len(results)} items failed; the first, item {place}: {first}")
        self.results = list(results)


_UNPROVEN = "urn:journey-bandit:problem:forbidden"  # the key is good, and its `outcome_token` is missing or another's
_TYPES = {
    400: InvalidRequestError,
    401: KeyRefusedError,
    403: KeyRefusedError,
    404: NotFoundError,
    409: IdConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
}


def refusal(problem: ProblemDetails) -> RequestRefusedError:
    """Error of the type that the status of a problem stands for; of a 403, also what it is that is refused."""
    if problem.type == _UNPROVEN:
        return InvalidRequestError(problem)
    return _TYPES.get(problem.status, RequestRefusedError)(problem)
