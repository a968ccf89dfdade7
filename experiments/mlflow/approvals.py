"""Approvals and rollbacks: the record of a move, the hash-chained list of all moves of a stage, and what may be served
now. Pure.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bandit.errors import RemoteError
from bandit.release import NO_NUDGE, leads_back
from experiments.inference.wording import by, capital, when, who

COLUMNS = (
    *("number", "kind", "version", "replaces", "by", "at", "why", "gate", "override"),
    *("back", "sha256", "belief_sha256", "previous"),
)


class Approval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One approval or rollback: what decides from now on. `version` "" means that nothing is approved and the service
    goes back to what it learns.

    `sha256` is that of policy.json. `previous` is the digest of the move before, so that none can be taken out or
    changed unseen.
    """

    number: int  # of the move, from 1
    kind: str  # promote or rollback
    version: str
    replaces: str  # the version that decided before; "" is none
    by: str  # who: "key NAME…" or "MLflow user NAME" if that was authenticated, else a name that nothing proves
    at: str  # ISO 8601
    why: str  # the reason in words
    gate: str  # the verdict of the promotion rule
    override: str = ""  # why it was approved against the verdict
    back: str = ""  # where a rollback leads: what decided before this version was promoted; never what was taken back
    sha256: str = ""
    belief_sha256: str = ""  # of the belief
    previous: str = ""

    def digest(self) -> str:
        """SHA-256, hexadecimal, of the move's canonical JSON; the next move holds it as `previous`."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


class ApprovalRecord(NamedTuple):
    """A move that was made, and a sentence for everything of it that could not be told to people who read the registry.
    The move counts all the same.
    """

    move: Approval
    untold: tuple[str, ...]  # one sentence each


class RegistryState(NamedTuple):
    """State of a registered model: the versions that its aliases champion and challenger name, None if not set, and the
    move that was recorded last.
    """

    model: str
    champion: str | None
    challenger: str | None
    move: Approval | None

    @property
    def serves(self) -> Approval | None:
        """The move that may be served: the last one, if the alias champion agrees with it; else None. An alias alone
        approves nothing.
        """
        if self.move is None:
            return None
        return (
            self.move
            if (self.move.version if in_registry(self.move.version) else "") == (self.champion or "")
            else None
        )

    @property
    def refused(self) -> str | None:
        """Why what the alias says is not served, as a sentence; None if it is served, or if there is nothing to
        serve.
        """
        if self.serves or (self.move is None and self.champion is None):
            return None
        said = f"version {self.champion}" if self.champion else "nothing"
        approved = named(self.move.version) if self.move else "nothing"
        return f"alias {self.model}@champion names {said}, approved is {approved}: only `promote` and `rollback` count"


def in_registry(version: str) -> bool:
    """Whether a version of a move is one of the registry's: not what is learned live (""), not `NO_NUDGE`."""
    return version not in ("", NO_NUDGE)


def named(version: str) -> str:
    """What a move leads to, in words."""
    if version == NO_NUDGE:
        return "no nudge for anybody"
    return f"version {version}" if version else "what is learned live"


def next_approval(moves: Sequence[Approval], new: Approval) -> Approval:
    """The move `new` as the next one after `moves`: with its number, the digest of the one before, and where a rollback
    from it leads.
    """
    last = moves[-1] if moves else None
    known = {m.version: m.back for m in moves}
    new = msgspec.structs.replace(new, back=leads_back(new.kind, new.version, new.replaces, known))
    number = last.number + 1 if last else 1
    return msgspec.structs.replace(new, number=number, previous=last.digest() if last else "")


def cut_short(moves: Sequence[Approval], standing: RegistryState, new: Approval) -> Approval | None:
    """The move that was recorded and never made (its alias was not moved), if `new` is the same again: it is completed
    instead of a new one. Else None.
    """
    recorded, last = standing.move, moves[-1].number if moves else 0
    if recorded is None or standing.serves or recorded.number <= last:
        return None
    return recorded if (recorded.version, recorded.kind) == (new.version, new.kind) else None


def checked_chain(lines: Sequence[Approval], served: Approval | None, head: str | None) -> list[Approval]:
    """The checked chain of moves: the lines of the audit table, and the move that is served, if the table was deleted
    or the move was killed before its line was written.

    `head`: the digest that the registry keeps of the last line. Raises RemoteError if a line was changed or taken out.
    """
    lines = list(lines)
    if not lines:
        return [served] if served else []
    check(lines, head)
    if served and served.number == lines[-1].number + 1 and served.previous == lines[-1].digest():
        lines.append(served)
    return lines


def lost_lines(moves: Sequence[Approval]) -> int:
    """How many moves at the beginning are lost, because the audit table was deleted and begun anew."""
    return moves[0].number - 1 if moves else 0


def check(moves: Sequence[Approval], head: str | None) -> None:
    """Verify the hash chain. Raises RemoteError if a line was changed, added or taken out. `head`: the digest that the
    registry keeps of the last line, None if it keeps none.
    """
    previous = moves[0].previous if moves else ""
    if moves and (moves[0].number == 1) != (previous == ""):
        raise RemoteError("the audit table was changed: its first line is not the first")
    for i, move in enumerate(moves, moves[0].number if moves else 1):
        if move.number != i or move.previous != previous:
            raise RemoteError(f"the audit table was changed: line {i} does not follow from the one before")
        previous = move.digest()
    # a move that was cut short has its line already, and the registry still remembers the one before
    if head is not None and head not in (previous, moves[-1].previous if moves else ""):
        raise RemoteError("the audit table was changed: its last line is not the one that the registry remembers")


def replacement_tags(move: Approval) -> dict[str, str]:
    """Tags of the version that a move replaces. Why a version was rolled back stands there, not at the version it went
    back to.
    """
    if move.kind != "rollback":
        return {"review": "replaced"}
    return {
        "review": "rolled back",
        "rolled_back_by": who(move.by),
        "rolled_back_at": when(move.at),
        "rolled_back_to": named(move.version),
        "rolled_back_because": move.why,
    }


def live(moves: Sequence[Approval]) -> str:
    """A sentence on what is live, as of the last of these moves: since when, approved by whom, and why. Why another
    version was rolled back stands in a sentence about that version. `moves` has one at least.
    """
    last = moves[-1]
    since = f"{named(last.version)}, since {when(last.at)}"
    if last.kind != "rollback":
        return f"{since}, approved{by(last.by)}: {last.why}"
    approval = next((m for m in reversed(moves) if m.kind == "promote" and m.version == last.version), None)
    mine = f", approved at {when(approval.at)}{by(approval.by)}: {approval.why}" if last.version and approval else ""
    return f"{since}{mine}. {_taken_back(last)}"


def _taken_back(move: Approval) -> str:
    """What a rollback took back, as a sentence that names it."""
    what = named(move.replaces)
    return f"{capital(what)} was rolled back at {when(move.at)}{by(move.by)}, because: {move.why}"


def table(moves: Sequence[Approval]) -> dict[str, Any]:
    """The moves as the table that MLflow shows: {"columns": …, "data": rows}."""
    return {"columns": list(COLUMNS), "data": [[getattr(m, c) for c in COLUMNS] for m in moves]}


def read(body: Any) -> list[Approval]:
    """The moves in a table, the inverse of `table`. Raises RemoteError if the body is no such table."""
    try:
        rows = [dict(zip(body["columns"], row, strict=True)) for row in body["data"]]
        return msgspec.convert(rows, list[Approval])
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise RemoteError(f"the audit table cannot be read: {error}") from error


def model_page(model: str, moves: Sequence[Approval], as_of: str = "", earns: str = "") -> str:
    """The page of the registered model, in Markdown: what is live, since when, by whom, why, what it earns, how to roll
    back, and the last 20 moves. `as_of`: ISO 8601, when this was so; at the last move if it is not given. `earns`: what
    is live against no nudge, a sentence.
    """
    app, _, stage = model.partition("-")
    last = moves[-1]
    rows = "\n".join(map(_row, reversed(moves[-20:])))
    return (
        f"**Live as of {when(as_of or last.at)}: {live(moves)}**\n\n"
        + (f"{earns}\n\n" if earns else "")
        + f"Roll back to {named(last.back)}: `journey-bandit rollback {app} {stage} --why '…'`; `--to none` shows "
        "nothing to anybody\n\n"
        "| # | move | version | replaces | by | at | why | gate | belief |\n|---|---|---|---|---|---|---|---|---|\n"
        + rows
    )


def why(move: Approval) -> str:
    """Why a move was made, for a table: what a rollback took back is named beside the reason."""
    if move.kind == "rollback":
        return f"{named(move.replaces)} was rolled back: {move.why}"
    return f"{move.why} ({move.override})" if move.override else move.why


def _row(m: Approval) -> str:
    gate = f"{m.gate} (overridden)" if m.override else m.gate
    names = (named(m.version), named(m.replaces))
    cells = (m.number, m.kind, *names, who(m.by), when(m.at), _cell(why(m)), gate, m.belief_sha256[:12])
    return f"| {' | '.join(map(str, cells))} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
