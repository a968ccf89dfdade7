"""Money over no nudge: what is summed, and that pairs are pairs."""

import numpy as np
import pytest

from bandit.errors import InvalidRequest
from simulations import scenario
from simulations.offline import study
from simulations.offline.paired import BASELINE, money, paired
from simulations.offline.runner import CellOutcome, CellRun, SimulationCell, StepDecisions, run
from simulations.worlds import effects


def outcomes(policies: tuple[str, ...], seeds: int = 2, factor: float = 1.0, users: int = 200) -> list[CellOutcome]:
    made = effects(scenario.load("gaming"), factor)
    return [run(cell) for cell in study.cells(made, policies, range(seeds), users=users, days=8)]


class _Sum:
    """Takes decisions, and adds what was shown of the exact truth."""

    total, seen = 0.0, 0

    def write(self, rows: StepDecisions) -> None:
        self.total += float(rows.truth[np.arange(len(rows.arm)), rows.arm].sum())
        self.seen += len(rows.arm)


@pytest.mark.parametrize("journey", [False, True])
def test_money_is_the_exact_value_of_every_decision_of_every_stage(journey: bool) -> None:
    given = scenario.load("gaming")
    cell = SimulationCell(scenario=given, policy="uniform", users=200, days=8, seed=3, journey=journey)
    sink = _Sum()
    done = run(cell, sink)
    assert money(done) == pytest.approx(sink.total, rel=1e-12)
    assert sink.seen == sum(sum(summary.decisions) for summary in done.stages.values()) > 300


def test_pairs_are_by_seed_in_any_order() -> None:
    done = outcomes(("uniform", BASELINE))
    first, none = paired(done)
    (backwards, *_) = paired(done[:2] + done[:1:-1])
    assert (first.policy, none.policy, first.seeds, first.users) == ("uniform", BASELINE, (0, 1), 200)
    np.testing.assert_array_equal(first.per_user, backwards.per_user)
    by_hand = [(money(done[s]) - money(done[2 + s])) / 200 for s in range(2)]
    np.testing.assert_allclose(first.per_user, by_hand)
    np.testing.assert_allclose(first.percent, 100.0 * first.per_user / (first.none / 200))
    assert not none.per_user.any()


def test_a_policy_meets_the_very_people_of_no_nudge() -> None:
    runs = [
        CellRun(cell) for cell in study.cells(scenario.load("gaming"), ("default", BASELINE), [4], users=200, days=3)
    ]
    left, right = (made.crowd.traits for made in runs)
    assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_seed_without_no_nudge_is_refused() -> None:
    done = outcomes(("uniform", BASELINE), seeds=2)
    with pytest.raises(InvalidRequest, match="seed 1"):
        paired(done[:3])
    with pytest.raises(InvalidRequest, match="as many users"):
        paired([*outcomes(("uniform",), seeds=1, users=210), done[2]])
