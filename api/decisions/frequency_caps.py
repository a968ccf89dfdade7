"""Global frequency caps: how often all users together were given nudges. Derived from the ledger when the service
starts.

Decisions reserve before anything else runs in the event loop, so no cap is passed, whoever asks at the same time. A
write that is not known to be durable keeps its reservation.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import NamedTuple

from api.stores.protocol import Store
from bandit.catalogue import durations
from bandit.catalogue.limits import Limits
from bandit.catalogue.model import NONE, Catalogue
from bandit.guardrails import CapScope
from bandit.records import Decision


class _Period(NamedTuple):
    """Exposures in period `number`, which is `length` µs long; `most` are allowed."""

    length: int
    number: int
    exposures: int
    most: int

    def at(self, now: int) -> "_Period":
        number = now // self.length
        return self if number <= self.number else self._replace(number=number, exposures=0)


class GlobalFrequencyCaps:
    """Counters of exposures in the present period, for each scope (app, stage or nudge) that declares a cap on
    everyone. Periods are aligned to 1970, their lengths multiplied by `scale`. Belongs to one event loop.
    """

    def __init__(self, catalogue: Catalogue, store: Store, now: int, scale: float = 1.0):
        self._periods = {
            place: _Period(length, now // length, 0, limits.everyone.most)
            for place, limits in _places(catalogue)
            if limits.everyone
            for length in (durations.micro(limits.everyone.per, scale),)
        }
        if self._periods:
            first = min(period.length * period.number for period in self._periods.values())
            for found in store.decisions(since=first):
                self.add(found.decision, 1)

    def at(self, now: int) -> Mapping[CapScope, int]:
        """Exposures of each scope in the period of `now` (µs since 1970)."""
        return {place: period.at(now).exposures for place, period in self._periods.items()}

    def allows(self, decision: Decision) -> bool:
        """Whether all caps that the decision's nudge counts for have room for it."""
        places = () if decision.arm == NONE else _scopes(decision)
        periods = [self._periods[place].at(decision.at) for place in places if place in self._periods]
        return all(  # of an earlier period nothing is known any more
            decision.at // period.length == period.number and period.exposures < period.most for period in periods
        )

    def copy(self) -> "GlobalFrequencyCaps":
        """The same counters, which go on apart."""
        new = copy(self)
        new._periods = dict(self._periods)
        return new

    def at_least(self, other: "GlobalFrequencyCaps") -> None:
        """Count at least as many exposures in each scope as another counter of the same catalogue."""
        for place, known in other._periods.items():
            mine = self._periods[place]
            self._periods[place] = max(mine, known, key=lambda period: (period.number, period.exposures))

    def add(self, decision: Decision, count: int) -> None:
        """Count a decision in the scopes of its nudge: 1 when it is made, -1 when it is cancelled. No nudge is no
        exposure.
        """
        if decision.arm == NONE:
            return
        for place in _scopes(decision):
            if place in self._periods:
                period = self._periods[place].at(decision.at)
                if decision.at // period.length == period.number:  # an earlier period is over
                    self._periods[place] = period._replace(exposures=period.exposures + count)


def _scopes(decision: Decision) -> tuple[CapScope, ...]:
    """Scopes that a decision with a nudge counts for: the nudge, the stage, the app."""
    return (decision.stage, decision.arm), (decision.stage, ""), ("", "")


def _places(catalogue: Catalogue) -> Iterator[tuple[CapScope, Limits]]:
    yield ("", ""), catalogue.limits
    for name, stage in catalogue.stages.items():
        yield (name, ""), stage.limits
        yield from (((name, nudge), declared.limits) for nudge, declared in stage.nudges.items())
