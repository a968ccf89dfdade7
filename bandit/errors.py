"""Every error this project raises on purpose.

JourneyBanditError
├── CatalogueError       a catalogue with mistakes; carries all of them
├── InvalidRequest       a caller's request cannot be used; carries every problem with its field and fix
├── Forbidden            a report without the token of its decision
├── NotFound             the thing asked for does not exist
├── Conflict             the same id came back with other content
├── PolicyError          a policy that something names is not installed, or is not one
├── PropensityError      a computed probability vector does not sum to one: an alarm, never renormalised away
├── SnapshotError        bytes that are not a snapshot we can trust
├── RemoteError          a service or file we talk to did not answer as agreed
└── LedgerError
    ├── LedgerMismatch   the ledger was written for another catalogue, salt or schema
    └── Unavailable      not known to be durable: retry with the same id
        └── Overloaded   refused before anything was written: retry later
"""

import re
from typing import Any

import msgspec

_USER_PART = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#]*@", re.IGNORECASE)


def masked(text: str) -> str:
    """Text with *** instead of the user part of each address in it, which may hold a password or a token. For messages,
    logs, and whatever else leaves the process.
    """
    return _USER_PART.sub(r"\1***@", text)


class Problem(msgspec.Struct, frozen=True):
    """Problem: one thing that is wrong: `field` where (a path), `problem` what, and `fix` what to do about it. Error
    replies carry it.
    """

    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem} → {self.fix}"


class JourneyBanditError(Exception):
    """Root of the error tree: catch it for everything that this project raises on purpose. Its text is one readable
    message; commands print it and end with exit status 1. Errors cross processes: a worker's reaches its caller whole.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """How to make the error again in another process: without its own constructor, which takes other arguments."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[JourneyBanditError], arguments: tuple[Any, ...], told: dict[str, Any]) -> JourneyBanditError:
    made = kind.__new__(kind, *arguments)
    made.__dict__.update(told)
    return made


class CatalogueError(JourneyBanditError):
    """Catalogue with mistakes. `mistakes` holds a Problem for each of them, `file` says where. Raised by
    `bandit.catalogue.loading.parse` and readers of text files.
    """

    def __init__(self, file: str, mistakes: list[Problem]):
        self.file = file
        self.mistakes = mistakes
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        super().__init__(f"{file}: {len(mistakes)} mistake(s)\n{lines}")


class InvalidRequest(JourneyBanditError):
    """Request or table that cannot be used. `problems` names each field and its fix. The service answers it in the form
    of its protocol, commands print it.
    """

    def __init__(self, *problems: Problem):
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class NotFound(JourneyBanditError):
    """Thing asked for that does not exist, such as a stage, decision or file. `problem` names it and the known ones."""

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class Conflict(JourneyBanditError):
    """Id that was used before with other content: a retry with the same content is no conflict. `problem` names the
    field.
    """

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class Forbidden(JourneyBanditError):
    """Report that its sender may not make: it lacks the token that came with its decision, or has another one.
    `problem` names the field and what to send.
    """

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class PolicyError(JourneyBanditError):
    """Policy that is named by a catalogue, a ledger or a snapshot and is not installed, or whose class cannot be used.

    `problem` has the field, what is wrong with the class or that there is none, and what to install or to mend.
    """

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class PropensityError(JourneyBanditError):
    """Probability vector whose sum is not 1: the integration failed, and nobody may draw from the result. An alarm,
    never renormalised away.
    """


class SnapshotError(JourneyBanditError):
    """Bytes that are not a snapshot this version can trust, or a snapshot that cannot decide under the stage declared
    now. `field`: which of its files is meant, "policy" or "posterior".
    """

    def __init__(self, problem: str, field: str = "policy"):
        self.field = field
        super().__init__(problem)


class RemoteError(JourneyBanditError):
    """Failure of something we talk to: a service, MLflow or a file did not answer as agreed. The message says what to
    do.
    """


class LedgerError(JourneyBanditError):
    """Ledger that cannot be used: no ledger at all, owned by another process, written by a newer version, or refusing a
    row. Nothing of the refused call was written; the message says what to do.
    """


class LedgerMismatch(LedgerError):
    """Ledger that was written for another catalogue, salt or schema than the one it is opened with, or a stage of it
    was warmed before.
    """


class Unavailable(LedgerError):
    """Write that is not known to be durable. Retry with the same id: that is always safe, because ids make writes
    idempotent.
    """


class Overloaded(Unavailable):
    """Write refused before anything was written: too much waits for the disk, or the service is stopping. Retry later,
    with the same id.
    """
