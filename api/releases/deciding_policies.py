"""Policies that decide now: what is released where something is, and what is learned elsewhere."""

from collections.abc import Iterator, Mapping

from api.operations.traffic_settings import TrafficSettings
from api.releases.service import ServedRelease
from bandit import engine
from bandit.engine import PreparedPolicy


class DecidingPolicies(Mapping[str, PreparedPolicy]):
    """Policies that decide, by stage: what is released where something is, else what is learned; both halves where a
    candidate is judged beside what is learned. Joined when it is asked for, because either half may be new. Ramps and
    holdouts are those that operators have set.
    """

    def __init__(
        self,
        served: Mapping[str, ServedRelease],
        learned: Mapping[str, PreparedPolicy],
        traffic: TrafficSettings,
    ):
        self._served, self._learned, self._traffic = served, learned, traffic

    def __getitem__(self, stage: str) -> PreparedPolicy:
        """Policy of a stage. KeyError for a stage that is not declared."""
        return self._traffic.over(stage, self.declared(stage))

    def declared(self, stage: str) -> PreparedPolicy:
        """Policy of a stage as it was declared, whatever operators have set. KeyError as above."""
        one = self._served.get(stage)
        if one is None:
            return self._learned[stage]
        return engine.beside(self._learned[stage], one.policy) if one.beside_learned else one.policy

    def __iter__(self) -> Iterator[str]:
        """Stages, as declared."""
        return iter(self._learned)

    def __len__(self) -> int:
        """Number of stages."""
        return len(self._learned)
