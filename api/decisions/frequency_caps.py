"""How often all users together were given nudges, for caps on everyone. Derived from the ledger at the start.

Decisions reserve before anything else runs in the event loop, so no cap is passed, whoever asks at the same time. A
write that is not known to be durable keeps its reservation.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from api.stores.protocol import Store
from bandit.catalogue import durations
from bandit.catalogue.limits import Limits
from bandit.catalogue.model import NONE, Catalogue
from bandit.guardrails import CapScope
from bandit.records import Decision


class _Period(NamedTuple):
    """Exposures in period `number`, which is `length` µs long."""

    length: int
    number: int
    exposures: int

    def at(self, now: int) -> "_Period":
        number = now // self.length
        return self if number <= self.number else _Period(self.length, number, 0)


class GlobalFrequencyCaps:
    """Counters by place, for the places that declare a cap on everyone."""

    def __init__(self, catalogue: Catalogue, store: Store, now: int, scale: float = 1.0):
        self._periods = {
            place: _Period(length, now // length, 0)
            for place, limits in _places(catalogue)
            if limits.everyone
            for length in (durations.micro(limits.everyone.per, scale),)
        }
        if self._periods:
            first = min(period.length * period.number for period in self._periods.values())
            for found in store.decisions(since=first):
                self.add(found.decision, 1)

    def at(self, now: int) -> Mapping[CapScope, int]:
        """Exposures of each place in the period of `now`."""
        return {place: period.at(now).exposures for place, period in self._periods.items()}

    def add(self, decision: Decision, count: int) -> None:
        """A decision was made (1), or turned out to be an older one (-1)."""
        if decision.arm == NONE:
            return
        for place in ((decision.stage, decision.arm), (decision.stage, ""), ("", "")):
            if place in self._periods:
                period = self._periods[place].at(decision.at)
                if decision.at // period.length == period.number:  # an earlier period is over
                    self._periods[place] = period._replace(exposures=period.exposures + count)


def _places(catalogue: Catalogue) -> Iterator[tuple[CapScope, Limits]]:
    yield ("", ""), catalogue.limits
    for name, stage in catalogue.stages.items():
        yield (name, ""), stage.limits
        yield from (((name, nudge), declared.limits) for nudge, declared in stage.nudges.items())
