"""`scenario fit --journey` from end to end: an app that is none of the shipped ones, a ledger of all its stages, a twin
of the whole journey, and policies ranked on it.
"""

import json
import random
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from litestar.testing import TestClient

from api.app import create_app
from api.settings import Settings
from journey_bandit.main import group
from simulations import scenario
from simulations.offline.runner import SimulationCell, run
from simulations.scenario import Scenario
from tests.simulations.twin.twin_worlds import Kept

START, HOUR = 1_767_571_200_000_000, 3_600_000_000
USERS, LAST = 360, 8

CATALOGUE = """
app = "course"
currency = "CHF"

[stages.lesson]
description = "A free lesson is over"
policy = { name = "uniform" }
reward = { kind = "binary", window = "2d", value = 0.5, description = "another lesson" }
[stages.lesson.features]
evening = { type = "boolean", default = false }
[stages.lesson.nudges.streak]
type = "reminder"
format = "push"
cost = 0.01

[stages.plan]
description = "The page with the prices was left"
policy = { name = "uniform" }
reward = { kind = "binary", window = "7d", value = 30.0, description = "a plan is bought" }
[stages.plan.features]
lessons = { type = "number", min = 0, max = 20, default = 4 }
[stages.plan.nudges.trial_week]
type = "trial"
format = "banner"
cost_when_rewarded = 2.0
"""


class Learners:
    """People who take a lesson in 4 of 10 cases and then read the prices a day later; the others take the same lesson
    again two days later, or leave. With the trial week, 6 of 10 buy; without, 3 of 10.
    """

    def __init__(self, client: TestClient[Any], now: list[int]):
        self._client, self._now, self._rng = client, now, random.Random(3)
        self.silent: dict[str, Counter[str]] = {"lesson": Counter(), "plan": Counter()}  # stage → what followed

    def use_the_app(self) -> None:
        """Nine days, 0 to `LAST`; on each, who is due comes in the order of their numbers."""
        due = {n: (n % 5, "lesson") for n in range(USERS)}
        for day in range(LAST + 1):
            for n, (when, stage) in list(due.items()):
                if when == day:
                    self._now[0] = START + day * 24 * HOUR + n * HOUR // 25
                    due[n] = self._visit(n, day, stage)

    def _visit(self, n: int, day: int, stage: str) -> tuple[int, str]:
        """One visit; day and stage of the next one, day -1 if there is none."""
        known: dict[str, Any] = {"evening": n % 2 == 0} if stage == "lesson" else {"lessons": n % 20}
        name = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))  # the draw follows from it
        request = {"stage": stage, "user_id": f"u{n}", "context": known, "decision_id": name}
        made = self._client.post("/v1/decisions", json=request).json()
        chance = 0.4 if stage == "lesson" else 0.6 if made["nudge"]["id"] == "trial_week" else 0.3
        if self._rng.random() < chance:
            self._now[0] += HOUR
            self._client.post("/v1/outcomes", json={"decision_id": made["decision_id"], "kind": "reward"})
            return (day + 1, "plan") if stage == "lesson" else (-1, stage)
        again = self._rng.random() < 0.5
        self.silent[stage]["again" if again else "gone"] += day <= LAST - 2
        return (day + 2, stage) if again else (-1, stage)


class Ledger(NamedTuple):
    """What a service left behind in `folder` (`course.toml`, `ledger.db`), and the people who used it."""

    folder: Path
    people: Learners

    def run(self, *words: str) -> dict[str, Any]:
        """JSON of a command; $ stands for the folder."""
        done = CliRunner().invoke(group, [word.replace("$", str(self.folder)) for word in words])
        assert done.exception is None, done.exception
        body: dict[str, Any] = json.loads(done.stdout)
        return body


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    made, now = tmp_path_factory.mktemp("journey"), [START]
    (made / "course.toml").write_text(CATALOGUE)
    settings = Settings(app=str(made / "course.toml"), dev=True, store=f"sqlite:///{made / 'ledger.db'}", salt="j")
    with TestClient(create_app(settings, clock=lambda: now[0])) as client:
        people = Learners(client, now)
        people.use_the_app()
        now[0] += 30 * 24 * HOUR
        client.get("/v1/policies", params={"wait": True})
    return Ledger(made, people)


@pytest.fixture(scope="module")
def twin(ledger: Ledger) -> Scenario:
    """The twin that `scenario fit --journey` writes."""
    told = ("--store", "sqlite:///$/ledger.db", "--out", "$/twin.toml", "--draws", "8", "--json")
    body = ledger.run("scenario", "fit", "--app", "$/course.toml", "--journey", "--stage", "plan", *told)
    assert body["stage"] == "plan"
    return scenario.read(ledger.folder / "twin.toml")


def test_every_stage_and_how_people_move_on_is_as_it_was(ledger: Ledger, twin: Scenario) -> None:
    """Who buys never comes again; gaps are those of who comes again, at whatever stage."""
    assert set(twin.journey) == {"lesson", "plan"}
    lesson, plan = twin.journey["lesson"], twin.journey["plan"]
    for name, leg in (("lesson", lesson), ("plan", plan)):
        seen = ledger.people.silent[name]
        assert leg.otherwise == {name: pytest.approx(seen["again"] / seen.total(), abs=0.03)}
    assert (lesson.then, lesson.rests, lesson.stays) == ("plan", False, 1.0)
    assert plan.stays == 0.0
    assert lesson.base == pytest.approx(0.4, abs=0.08)
    assert set(lesson.effects) == {"streak"}
    assert twin.personas["everybody"].effects["trial_week"] == pytest.approx(1.25, abs=0.5)  # logit 0.6 − logit 0.3
    assert 2.0 <= twin.visits.gap_days < 3.0  # seen in whole days
    assert twin.visits.gap_sd < 0.2
    assert twin.visits.weekly[5:] == pytest.approx((0.0, 0.0), abs=0.05)  # first lessons are on Monday to Friday
    draws = scenario.draws(twin, ledger.folder / "twin.toml")
    assert len({one.journey["lesson"].base for one in draws}) == 8
    assert len({one.visits.gap_days for one in draws}) == 8


def test_what_to_do_next_is_said_with_journey(ledger: Ledger, tmp_path: Path) -> None:
    told = ["--store", f"sqlite:///{ledger.folder / 'ledger.db'}", "--out", str(tmp_path / "twin.toml"), "--draws", "8"]
    done = CliRunner().invoke(
        group, ["scenario", "fit", "--app", str(ledger.folder / "course.toml"), "--journey", *told]
    )
    assert done.exception is None, done.exception
    (line,) = [line for line in done.output.splitlines() if "journey-bandit simulate" in line]
    assert " --journey " in line


def test_nobody_of_the_twin_buys_twice(twin: Scenario) -> None:
    """As nobody in the ledger did; two days after silence they come again, or never."""
    kept = Kept()
    cell = SimulationCell(
        scenario=twin, policy="uniform", users=300, days=40, seed=1, journey=True, catalogue=CATALOGUE
    )
    run(cell, kept)
    bought = np.concatenate([s.user[s.reward > 0] for s in kept.parts if s.stage == "plan"])
    assert len(bought) > 50
    assert len(set(bought.tolist())) == len(bought)


def test_policies_are_ranked_on_the_whole_journey(ledger: Ledger, twin: Scenario) -> None:
    told = ("--users", "200", "--days", "20", "--seeds", "8", "--backend", "serial", "--out", "$/sim", "--json")
    words = ("--app", "$/course.toml", "--scenario", "$/twin.toml", "--journey", "--policy", "fixed:trial_week")
    found = {one["policy"]: one for one in ledger.run("simulate", *words, *told)["ranking"]}
    assert set(found) == {"fixed:trial_week", "fixed:none"}
    assert found["fixed:trial_week"]["best"] >= 0.5
    assert found["fixed:trial_week"]["gain"] > 0.0
