"""Derived learning state of the memory store: statistics, warm starts and declarations."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from api.stores.learning_state import (
    DeclarationEra,
    Declarations,
    ServedStage,
    StatisticsKey,
    StatisticsUpdate,
    StoredExposures,
    StoredStatistics,
    WarmStart,
)
from bandit.arrays import Array
from bandit.belief import Belief
from bandit.learning.drift import DriftState
from bandit.learning.nudge_price import NudgeSums
from bandit.reporters.reward_watch import RewardWatch

_Sums = dict[str, tuple[float, float, float, Array, Array]]  # row → count, reward, square, precision, shift


class MemoryLearningState:
    """Statistics, warm starts and declarations in dicts; arrays are copied in and out, so that a caller's later changes
    reach nothing here. `versions`: stage → number of its newest settlement; `schemas`: key → number of the last
    settlement before it.
    """

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.schemas: dict[StatisticsKey, int] = {}
        self._sums: dict[tuple[StatisticsKey, int], _Sums] = {}
        self._drift: dict[StatisticsKey, DriftState] = {}
        self._delays: dict[StatisticsKey, dict[str, Sequence[int]]] = {}
        self._exposures: dict[StatisticsKey, StoredExposures] = {}
        self._nudges: dict[StatisticsKey, NudgeSums] = {}
        self._reward_watches: dict[StatisticsKey, RewardWatch] = {}
        self._warm: dict[StatisticsKey, tuple[WarmStart, _Sums]] = {}
        self._served: dict[str, ServedStage] = {}
        self._eras: dict[int, DeclarationEra] = {}
        self._arithmetics: dict[int, int] = {}

    def replace(self, update: StatisticsUpdate) -> None:
        """Overwrite what an update names; None in the update leaves a part as it is."""
        for epoch, belief in update.epochs.items():
            self._sums.setdefault((update.key, epoch), {}).update(_sums(update.rows, belief))
        if update.drift_state is not None:
            self._drift[update.key] = update.drift_state
        if update.delays is not None:
            self._delays[update.key] = dict(update.delays)
        if update.exposures is not None:
            self._exposures[update.key] = update.exposures
        if update.nudges is not None:
            self._nudges[update.key] = update.nudges
        if update.reward_watch is not None:
            self._reward_watches[update.key] = update.reward_watch

    def statistics(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> StoredStatistics:
        """Statistics of a key over these rows and d columns, zeros where nothing is kept; see
        `LearningState.statistics`.
        """
        state = self._drift.get(key, DriftState())
        epochs = tuple(_belief(self._sums.get((key, e), {}), rows, d) for e in range(state.epoch + 1))
        kept = self._delays.get(key), self._exposures.get(key), self._nudges.get(key, NudgeSums())
        watch = self._reward_watches.get(key, RewardWatch())
        return StoredStatistics(self.versions.get(key.stage, 0), epochs, state, *kept, watch)

    def warm_start(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> tuple[WarmStart, Belief] | None:
        """Warm start of a key with its sums over these rows and d columns; None if there was none."""
        if key not in self._warm:
            return None
        warm, sums = self._warm[key]
        return warm, _belief(sums, rows, d)

    def put_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """Keep a warm start and its sums under a key, in place of an earlier one."""
        self._warm[key] = warm, _sums(rows, belief)

    def declarations(self) -> Declarations:
        """Declarations that were served when, eras and arithmetics in order of their first decisions."""
        eras = [self._eras[first] for first in sorted(self._eras)]
        return Declarations(dict(self._served), eras, sorted(self._arithmetics.items()))

    def declare(
        self,
        served: Mapping[str, ServedStage],
        schemas: Mapping[StatisticsKey, int],
        era: DeclarationEra | None,
        arithmetic: tuple[int, int] | None,
    ) -> None:
        """Keep what is served from now on; an era or an arithmetic replaces one that begins with the same decision."""
        self._served |= served
        self.schemas |= schemas
        self._eras |= {era.first: era} if era else {}
        self._arithmetics |= dict([arithmetic]) if arithmetic else {}


def _sums(rows: tuple[str, ...], belief: Belief) -> _Sums:
    return {
        row: (
            *(float(belief.n[i]), float(belief.reward[i]), float(belief.square[i])),
            *(belief.precision[i].copy(), belief.shift[i].copy()),
        )
        for i, row in enumerate(rows)
    }


def _belief(sums: _Sums, rows: tuple[str, ...], d: int) -> Belief:
    zero = (0.0, 0.0, 0.0, np.zeros((d, d)), np.zeros(d))
    table = [sums.get(row, zero) for row in rows]
    return Belief(*(np.array([cast(float, row[i]) for row in table]) for i in range(5)))
