"""Environments of one's own: the same people for every policy, with the learning, holdout and money of a scenario."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bandit.errors import InvalidRequest
from journey_bandit.comparison import EnvironmentVisits, compare, paired
from simulations.offline import study
from simulations.offline.environment_run import EnvironmentRun
from simulations.offline.paired import BASELINE
from simulations.offline.runner import SimulationCell

SHOP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "linear" }
reward = { kind = "binary", window = "3d", value = 20.0 }
[stages.cart.features]
items = { type = "number", min = 0, max = 20, default = 1 }
[stages.cart.nudges.reminder]
type = "reminder"
format = "push"
cost = 0.1
[stages.cart.nudges.discount]
type = "discount"
format = "banner"
cost_when_rewarded = 2.0
"""
CHANCE = np.array([0.1, 0.12, 0.5])  # no nudge, reminder, discount
WORTH = np.array([20.0 * 0.1, 20.0 * 0.12 - 0.1, 18.0 * 0.5])  # of a visit, net of costs


def shoppers(seed: int, day: int, n: int = 100) -> EnvironmentVisits:
    rng = np.random.default_rng([seed, day])
    items, reward = rng.integers(0, 21, n), (rng.random((n, 1)) < CHANCE).astype(float)
    contexts = [{"items": int(one)} for one in items]
    return EnvironmentVisits(np.arange(n) + n * day, contexts, reward, expected=np.tile(CHANCE, (n, 1)))


def cell(policy: str = "uniform", **changes: Any) -> SimulationCell:
    size: dict[str, Any] = {"users": 1, "days": 10, "seed": 1, "catalogue": SHOP, "environment": "mine"} | changes
    return SimulationCell(scenario=study.nobody("shop", "cart"), policy=policy, **size)


def played(one: SimulationCell, environment: Any = shoppers) -> EnvironmentRun:
    made = EnvironmentRun(one, None, None, environment)
    for day in range(one.days):
        made.step(day)
    return made


def test_money_is_exact_and_against_no_nudge_on_the_same_people() -> None:
    policies = {"discount": "fixed:discount", "reminder": "fixed:reminder", "oracle": "oracle"}
    runs = {r.policy: r for r in paired(compare(shoppers, policies, [1, 2], catalogue=SHOP, stage="cart", days=10))}
    assert list(runs) == ["discount", "reminder", "oracle", BASELINE]
    assert runs["discount"].per_user == pytest.approx(WORTH[2] - WORTH[0])
    assert runs["reminder"].per_user == pytest.approx(WORTH[1] - WORTH[0])
    assert runs["oracle"].per_user == pytest.approx(runs["discount"].per_user)
    assert runs["discount"].users == 1000


def test_the_services_policy_learns_there_what_pays() -> None:
    summary = played(cell("linear", days=30)).done().stages["cart"]
    by_day = np.array(summary.by_day, dtype=float)
    assert by_day[-5:, 2].sum() > 0.8 * by_day[-5:].sum()
    assert by_day[:2, 2].sum() < 0.7 * by_day[:2].sum(), "nothing was learned before the first window closed"
    regret = np.array(summary.regret)
    assert regret.sum() == pytest.approx(((WORTH[2] - WORTH) * by_day).sum())


def test_the_holdout_gets_no_nudge_and_is_its_own_control() -> None:
    made = played(cell("fixed:discount", holdout=0.3))
    done = made.done()
    assert 0.2 < done.holdout.people / 1000 < 0.4
    assert sum(done.stages["cart"].decisions) == done.nudged.people == 1000 - done.holdout.people
    assert set(np.array(done.stages["cart"].by_day).sum(axis=0)[:2].tolist()) == {0}


def test_rewards_that_come_late_teach_late_and_those_after_the_window_never_count() -> None:
    def late(seed: int, day: int) -> EnvironmentVisits:
        visits = shoppers(seed, day)
        hours = np.full(visits.reward.shape, 30.0)
        hours[:, 2] = 24.0 * 4
        return visits._replace(delay_hours=hours)

    summary = played(cell("fixed:discount"), late).done().stages["cart"]
    assert sum(summary.conversions) == 0
    assert sum(summary.value) == 0.0, "nothing within three days"
    at_once = played(cell("fixed:reminder")).done().stages["cart"]
    later = played(cell("fixed:reminder"), late).done().stages["cart"]
    assert later.conversions == at_once.conversions
    assert sum(later.ages[:5]) == 0 < sum(later.ages)


def test_what_the_environment_rules_out_is_not_shown() -> None:
    def without(seed: int, day: int) -> EnvironmentVisits:
        visits = shoppers(seed, day)
        may = np.ones(visits.reward.shape, dtype=bool)
        may[:, 2] = False
        return visits._replace(eligible=may)

    shown = np.array(played(cell("uniform"), without).done().stages["cart"].by_day).sum(axis=0)
    assert shown[2] == 0 < shown[1]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"user": np.zeros(100, dtype=int)}, "somebody comes twice"),
        ({"user": np.arange(99)}, "not 100 whole numbers"),
        ({"reward": np.zeros((100, 2))}, "100 × 3 finite numbers but an array of shape"),
        ({"expected": np.full((100, 3), np.nan)}, "expected"),
        ({"eligible": np.zeros((100, 3), dtype=bool)}, "without no nudge"),
    ],
)
def test_visits_that_cannot_be_used_are_refused_by_name(changes: dict[str, Any], found: str) -> None:
    made = EnvironmentRun(cell(), None, None, lambda seed, day: shoppers(seed, day)._replace(**changes))
    with pytest.raises(InvalidRequest, match=found):
        made.step(0)


def test_a_cell_of_a_file_runs_in_a_worker_and_is_kept(tmp_path: Path) -> None:
    (tmp_path / "world.py").write_text(
        "import numpy as np\nfrom journey_bandit.comparison import EnvironmentVisits\n\n\n"
        "def people(seed, day):\n"
        "    rng = np.random.default_rng([seed, day])\n"
        "    contexts = [{'items': 3} for _ in range(20)]\n"
        "    return EnvironmentVisits(np.arange(20), contexts, (rng.random((20, 3)) < 0.2).astype(float))\n"
    )
    size: dict[str, Any] = {"users": 1, "days": 5, "catalogue": SHOP}
    where = f"python:{tmp_path}/world.py:people"
    cells = study.cells(study.nobody("shop", "cart"), ["uniform", "linear"], [1], **size, environment=where)
    found = study.study(cells, tmp_path / "out", backend="processes", workers=1, logs=True)
    assert [sum(one.stages["cart"].decisions) for one in found] == [100, 100]
    assert [one.users for one in found] == [20, 20]
    assert study.study(cells, tmp_path / "out", logs=True) == found
    assert len(list((tmp_path / "out" / "logs").glob("*.cart.parquet"))) == 2
    changed = msgspec.structs.replace(cells[0], code="another file")
    assert changed.digest() != cells[0].digest()
