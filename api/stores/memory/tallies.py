"""Decisions and settlements counted as the SQL stores count them, for the memory store."""

from collections import Counter
from collections.abc import Iterable

from api.stores.decision_log import DecisionRecord, DecisionTallies, DecisionTally, SettlementTally
from bandit.guardrails import DAY
from bandit.records import Settlement


def of_decisions(found: Iterable[DecisionRecord]) -> DecisionTallies:
    """Tallies of these decisions, of which something is left."""
    alike = Counter[tuple[str, str, int, bool, bool, tuple[tuple[str, str], ...]]]()
    users = dict[str, set[bytes]]()
    for record in found:
        made = record.decision
        excluded = tuple(made.excluded.items())
        alike[made.stage, made.arm, made.at // DAY, made.holdout, made.is_actionable, excluded] += 1
        if not made.is_remainder:
            users.setdefault(made.stage, set()).add(made.user)
    rows = [DecisionTally(*row[:5], dict(row[5]), n) for row, n in alike.items()]
    return DecisionTallies(rows, users)


def of_settlements(done: Iterable[tuple[Settlement, Settlement | None]]) -> list[SettlementTally]:
    """Tallies of settlements, each with the one before it of its decision."""
    sums = dict[tuple[str, str], SettlementTally]()
    for one, before in done:
        if not one.arm:
            continue
        known = sums.get((one.stage, one.arm), SettlementTally(one.stage, one.arm, 0, 0, 0.0))
        sums[one.stage, one.arm] = known._replace(
            settled=known.settled + (one.corrects == 0),
            learned=known.learned + one.learned - _learned(before),
            reward=known.reward + _reward(one) - _reward(before),
        )
    return [sums[place] for place in sorted(sums)]


def _learned(done: Settlement | None) -> int:
    return int(done is not None and done.learned)


def _reward(done: Settlement | None) -> float:
    return done.reward if done is not None and done.learned else 0.0
