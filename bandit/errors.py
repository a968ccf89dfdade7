"""Every error this project raises on purpose.

JourneyBanditError
├── CatalogueError       a catalogue with mistakes; carries all of them
├── InvalidRequest       a caller's request cannot be used; carries every problem with its field and fix
├── NotFound             the thing asked for does not exist
├── Conflict             the same id came back with other content
├── PropensityError      a computed probability vector does not sum to one: an alarm, never renormalised away
├── SnapshotError        bytes that are not a snapshot we can trust
├── RemoteError          a service or file we talk to did not answer as agreed
└── LedgerError
    ├── LedgerMismatch   the ledger was written for another catalogue, salt or schema
    └── Unavailable      not known to be durable: retry with the same id
        └── Overloaded   refused before anything was written: retry later
"""

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: where, what, and what to do about it."""

    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem} → {self.fix}"


class JourneyBanditError(Exception):
    """Root of the tree."""


class CatalogueError(JourneyBanditError):
    """A catalogue with mistakes. `mistakes` holds them all, `file` says where."""

    def __init__(self, file: str, mistakes: list[Problem]):
        self.file = file
        self.mistakes = mistakes
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        super().__init__(f"{file}: {len(mistakes)} mistake(s)\n{lines}")


class InvalidRequest(JourneyBanditError):
    """A request that cannot be used. `problems` names each field and its fix."""

    def __init__(self, *problems: Problem):
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class NotFound(JourneyBanditError):
    """The thing asked for does not exist."""

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class Conflict(JourneyBanditError):
    """The same id was used before with other content."""

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class PropensityError(JourneyBanditError):
    """Σp is not 1: the integration failed, and nobody may draw from the result."""


class SnapshotError(JourneyBanditError):
    """Bytes that are not a snapshot this version can trust."""


class RemoteError(JourneyBanditError):
    """A service or a file that we talk to did not answer as agreed."""


class LedgerError(JourneyBanditError):
    """The ledger cannot be used."""


class LedgerMismatch(LedgerError):
    """The ledger was written for another catalogue, salt or schema."""


class Unavailable(LedgerError):
    """The write is not known to be durable. Retry with the same id: that is always safe."""


class Overloaded(Unavailable):
    """Refused before anything was written: too much waits for the disk, or the service is stopping."""
