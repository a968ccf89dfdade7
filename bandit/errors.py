"""Every error this project raises on purpose.

JourneyBanditError
├── CatalogueError       a catalogue with mistakes; carries all of them
├── InvalidRequest       a caller's request cannot be used; carries every problem with its field and fix
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

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: the field (its path in the catalogue or request), what is wrong with it, and what to do.

    `str` gives all three in one line.
    """

    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem} → {self.fix}"


class JourneyBanditError(Exception):
    """Root of the tree: every error that this project raises on purpose. Its text is one readable message, and the
    command line prints it and ends with exit status 1.
    """


class CatalogueError(JourneyBanditError):
    """A catalogue, a file of keys or a file of webhooks with mistakes. `mistakes` holds them all, each with its path,
    problem and fix; `file` says where.
    """

    def __init__(self, file: str, mistakes: list[Problem]):
        self.file = file
        self.mistakes = mistakes
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        super().__init__(f"{file}: {len(mistakes)} mistake(s)\n{lines}")


class InvalidRequest(JourneyBanditError):
    """A request, or an argument of a command, that cannot be used. `problems` names each field, what is wrong with it
    and its fix; over HTTP a 400.
    """

    def __init__(self, *problems: Problem):
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class NotFound(JourneyBanditError):
    """The thing asked for does not exist. `problem` names the field, and its fix lists the known names, the closest
    first where there is one; over HTTP a 404.
    """

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class Conflict(JourneyBanditError):
    """The same id was used before with other content. What was recorded first stays; `problem` names the field that
    differs. Over HTTP it is a 409.
    """

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class PolicyError(JourneyBanditError):
    """A catalogue, a ledger or a snapshot names a policy that is not installed, or whose class cannot be used here.

    `problem` has the field, what is wrong with the class or that there is none, and what to install or to mend.
    """

    def __init__(self, field: str, problem: str, fix: str):
        self.problem = Problem(field, problem, fix)
        super().__init__(str(self.problem))


class PropensityError(JourneyBanditError):
    """Σp is not 1 to 1e-6: the integration failed, and nobody may draw from the result. An alarm: it is never mended by
    renormalising.
    """


class SnapshotError(JourneyBanditError):
    """Bytes that are not a snapshot this version can trust: not whole, changed since they were written, of another
    format, or with a policy that is not installed.
    """


class RemoteError(JourneyBanditError):
    """A service or a file that we talk to did not answer as agreed, or an optional part of this distribution is not
    installed. Nothing was written.
    """


class LedgerError(JourneyBanditError):
    """The ledger cannot be used: the file is not one, another process owns it, it was written by a newer version, or it
    refused a row. Nothing of the refused call was written.
    """


class LedgerMismatch(LedgerError):
    """The ledger was written for another app, salt or schema than the one it was opened with. Nothing was changed: give
    the ledger's own, or another file.
    """


class Unavailable(LedgerError):
    """The write is not known to be durable: the disk failed or the service is stopping. Retry with the same id: that is
    always safe. Over HTTP a 503.
    """


class Overloaded(Unavailable):
    """Refused before anything was written: too much waits for the disk, or the service is stopping. Retry later with
    the same id.
    """
