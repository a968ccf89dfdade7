"""Pages of decisions: a list that is searched, the receipt of one, and its recomputation."""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from api.console.charts import PropensityLine, colours, line
from api.console.stage_page import SURE
from api.messages.decisions import Receipt
from api.people.records import ids_of
from api.stores.decision_log import LAST, DecisionFilter, DecisionRecord
from api.stores.protocol import Store
from api.times import parsed, time_of
from bandit.errors import InvalidRequest, Problem
from bandit.records import Decision

PAGE = 50
"""Decisions on one page of the list."""

SPAN = 20_000
"""Decisions that one page looks at, at most, where it does not look by user: the reader goes on from there."""


class SearchForm(NamedTuple):
    """Search as its form has it, in texts: `person` is the keyed hash of a user's id as hex; `before` the number below
    which the page begins.
    """

    stage: str = ""
    nudge: str = ""
    person: str = ""
    since: str = ""
    until: str = ""
    before: str = ""


class DecisionRow(NamedTuple):
    """Decision as the list shows it."""

    seq: int
    id: uuid.UUID
    at: dt.datetime
    stage: str
    arm: str
    propensity: float | None
    holdout: bool
    state: str
    reward: float | None


class DecisionList(NamedTuple):
    """Page of the list: rows, the number to go on below (None: there is nothing more), and whether what was looked at
    ended before the page was full.
    """

    rows: list[DecisionRow]
    older: int | None
    cut: bool
    newest: int


class ReceiptArm(NamedTuple):
    """Arm of a receipt: scores in [0, 1] of the reward's range with the ends of a 90 % interval, or why it was
    excluded. `begins`, `ends`: its part of the line on which u is drawn.
    """

    name: str
    colour: int
    mean: float
    sd: float
    low: float
    high: float
    propensity: float
    begins: float
    ends: float
    candidate: float | None
    drawn: bool
    excluded: str


class TimelineEntry(NamedTuple):
    """Entry of a receipt's timeline."""

    at: dt.datetime
    what: str
    words: str


class ReceiptPage(NamedTuple):
    """Receipt as its page shows it."""

    receipt: Receipt
    arms: list[ReceiptArm]
    line: PropensityLine
    timeline: list[TimelineEntry]


def search(store: Store, asked: SearchForm) -> DecisionList:
    """Page of the list of decisions, the newest first. Reads the ledger: by the users' index, or along the numbers and
    no more than SPAN of them. Raises InvalidRequest for what cannot be read in the form.
    """
    users = ids_of(store, _hash(asked.person)) if asked.person else frozenset[bytes]()
    since, until = _time("since", asked.since), _time("until", asked.until)
    wanted = DecisionFilter(asked.stage, asked.nudge, users, since or 0, LAST if until is None else until)
    newest = store.last().decision
    before = min(_number(asked.before) if asked.before else LAST, newest + 1)
    floor = 0
    if not users:
        floor, end = between(store, since, until, newest)
        before = min(before, end)
    above = floor if users else max(floor, before - SPAN - 1)
    found = store.decisions_found(wanted, above, before, PAGE + 1)
    shown, more = found[:PAGE], len(found) > PAGE
    cut = not more and above > floor
    older = shown[-1].seq if more else above + 1 if cut else None
    return DecisionList([_row(one, store) for one in shown], older, cut, newest)


def between(store: Store, since: int | None, until: int | None, newest: int) -> tuple[int, int]:
    """Numbers above and below which the decisions are that were made at `since` (µs; None: at any time) or later, and
    before `until`.
    """
    above = first_at(store, since, newest) - 1 if since else 0
    return above, newest + 1 if until is None else first_at(store, until, newest)


def first_at(store: Store, at: int, newest: int) -> int:
    """Number of the first decision made at `at` (µs) or later, `newest + 1` if there is none: found by halving, because
    numbers follow time.
    """
    low, high = 0, newest  # the first one is numbered above low, and at most high + 1
    while low < high:
        middle = (low + high) // 2
        found = store.decisions_after(middle, 1)
        if found and found[0].decision.at < at:
            low = found[0].seq
        else:
            high = middle
    return low + 1


def receipt_page(receipt: Receipt) -> ReceiptPage:
    """Page of a receipt."""
    names, number = list(receipt.arms), colours(receipt.arms)
    scores, begins, arms = list(receipt.arms.values()), 0.0, list[ReceiptArm]()
    candidate = receipt.candidate if isinstance(receipt.candidate, Mapping) else {}
    for name, one in zip(names, scores, strict=True):
        ends = begins + one.propensity
        interval = one.mean - SURE * one.sd, one.mean + SURE * one.sd
        drawn, why = name == receipt.nudge.id, receipt.excluded.get(name, "")
        arm = (name, number[name], one.mean, one.sd, *interval, one.propensity, begins, ends, candidate.get(name))
        arms.append(ReceiptArm(*arm, drawn, why))
        begins = ends
    drawn_on = line(names, [one.propensity for one in scores], receipt.u)
    return ReceiptPage(receipt, arms, drawn_on, _timeline(receipt))


def _row(found: DecisionRecord, store: Store) -> DecisionRow:
    made, done = found.decision, found.settlement
    state = done.why if done else "open" if made.is_actionable else "not now"
    reward = done.reward if done and done.why not in ("not activated", "erased") else None
    propensity = _propensity(made, store)
    return DecisionRow(
        found.seq, made.id, time_of(made.at), made.stage, made.arm, propensity, made.holdout, state, reward
    )


def _propensity(made: Decision, store: Store) -> float | None:
    arms = made.arms(store.specs()[made.stage_digest].arms)
    return float(made.propensity[arms.index(made.arm)]) if made.arm in arms else None


def _timeline(receipt: Receipt) -> list[TimelineEntry]:
    found = [TimelineEntry(receipt.decided_at, "decided", f"{receipt.nudge.id}, at stage {receipt.stage}")]
    for one in receipt.outcomes:
        value = "" if one.value is None else f" {one.value:g}"
        words = f"{one.kind}{value} (“{one.outcome_id}”)" + (
            f", reported by key {one.reporter}" if one.reporter else ""
        )
        late = ", too late to be learned" if one.late else ""
        found.append(TimelineEntry(one.received_at, "reported", f"{words}{late}"))
        if isinstance(one.retracted_at, dt.datetime):
            found.append(TimelineEntry(one.retracted_at, "retracted", f"“{one.outcome_id}” counts no more"))
    corrected = receipt.corrected if isinstance(receipt.corrected, list) else []
    ended = [*corrected, *([receipt.settled] if receipt.settled else [])]
    for i, done in enumerate(ended):
        learned = "learned" if done.learned else "not learned"
        words = f"reward {done.reward:g} ({done.why}), {learned}, version {done.seq}"
        found.append(TimelineEntry(done.settled_at, "corrected" if i else "settled", words))
    return sorted(found, key=lambda entry: entry.at)


def _hash(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 16:
        raise InvalidRequest(Problem("person", "not the hash of a user's id", "type the id into the form"))
    return found


def _time(field: str, text: str) -> int | None:
    return parsed(field, text.strip() or None)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequest(Problem("before", "not a number", "go on by the link below the list"))
    return int(text)
