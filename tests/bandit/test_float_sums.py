"""Sums of floats that reach the ledger or a report: the same bits whatever Python's `sum` does, which compensates from
3.12 on.
"""

import math
import operator
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import numpy as np
import pytest

from bandit.alarms import guardrail_metric
from bandit.alarms.guardrail_metric import GuardrailBound, GuardrailEvidence
from bandit.learning import nudge_price
from bandit.propensity import floor
from bandit.reporters import reward_watch
from bandit.reporters.reward_watch import KeyEvidence


def plain(values: Iterable[Any], start: Any = 0) -> Any:
    """`sum` of Python 3.11."""
    return reduce(operator.add, values, start)


def compensated(values: Iterable[Any], start: Any = 0) -> Any:
    """`sum` of floats as later versions give it, to the last bit or nearly so."""
    found = list(values)
    return start + math.fsum(found) if found and all(isinstance(one, float) for one in found) else plain(found, start)


def lifted(rng: np.random.Generator) -> tuple[float, ...]:
    k = int(rng.integers(4, 8))
    p, floors = rng.dirichlet(np.full(k, 0.3)), rng.dirichlet(np.ones(k)) * 0.9
    return tuple(map(float, floor.floored(p, floors, np.ones(k, dtype=bool))))


def accused(rng: np.random.Generator) -> float:
    return KeyEvidence(3, 1.0, tuple(rng.random(len(KeyEvidence().wealth)).tolist())).e_value


def guarded(rng: np.random.Generator) -> tuple[float, ...]:
    bound = GuardrailBound(most=0.05, alpha=0.05, least=1)
    found = guardrail_metric.scan(bound, GuardrailEvidence(), (rng.random(30) < 0.2).tolist())
    of_groups = guardrail_metric.e_value_of(bound, [(10, int(n)) for n in rng.integers(0, 4, 5)])
    return found.e_value, float(found.raised), of_groups, guardrail_metric.lower_bound(found, 0.05)


def tiring(rng: np.random.Generator) -> tuple[float, float]:
    parts = [(float(w), float(m), float(s)) for w, m, s in rng.random((9, 3)) + 0.1]
    return nudge_price._tiring(parts), nudge_price._quantile(parts, 2.0)


@pytest.mark.parametrize(
    ("module", "figures"),
    [(floor, lifted), (reward_watch, accused), (guardrail_metric, guarded), (nudge_price, tiring)],
)
def test_no_figure_depends_on_how_python_sums(
    module: Any, figures: Callable[[np.random.Generator], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for way in (plain, compensated):
        monkeypatch.setattr(module, "sum", way, raising=False)
        rng = np.random.default_rng(5)
        found.append([figures(rng) for _ in range(200)])
    assert found[0] == found[1]


def test_the_two_ways_to_sum_differ() -> None:
    """Else the test above proves nothing."""
    rng = np.random.default_rng(5)
    assert any(plain(row) != compensated(row) for row in rng.random((50, 6)).tolist())
