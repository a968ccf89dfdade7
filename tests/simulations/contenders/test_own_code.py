"""What own code does wrong is said in one sentence with its file and line, and nothing wrong is taken for an answer."""

from pathlib import Path

import pytest

from bandit.errors import InvalidRequest
from simulations import scenario
from simulations.offline import study
from simulations.offline.runner import SimulationCell, run

CODE = """
def raises(context, eligible):
    return {}["my own mistake"]

def nothing(context, eligible):
    return None

def not_a_number(context, eligible):
    return {"none": float("nan")}

def words(context, eligible):
    return {"none": "often"}

class Unmakeable:
    def __init__(self, stages, seed):
        raise ValueError("no seed")

class Forgets:
    def __init__(self, stages, seed):
        pass

    def decide(self, stage, x, eligible):
        return eligible.argmax(axis=1)

    def learn(self, stage, x, arm, reward):
        return self.nothing
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "raised KeyError('my own mistake') in mine.py, line 3 → mend it there"),
        ("nothing", "answered None → an arm, or {arm: probability}"),
        ("not_a_number", "probabilities {'none': nan} → 0 or more each, with the sum 1"),
        ("words", "probabilities {'none': 'often'} → 0 or more each, with the sum 1"),
        ("Unmakeable", "raised ValueError('no seed') in mine.py, line 16 → mend it there"),
        ("Forgets", "in mine.py, line 26 → mend it there"),
    ],
)
def test_a_mistake_names_the_policy_and_its_line(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    policy = f"python:{tmp_path / 'mine.py'}:{name}"
    cell = SimulationCell(scenario=scenario.load("travel"), policy=policy, users=200, days=12, seed=1)
    with pytest.raises(InvalidRequest) as refused:
        run(cell)
    (problem,) = refused.value.problems
    assert problem.field == f"policy {policy}"
    assert said in str(refused.value)


def test_a_mistake_in_an_environment_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "world.py").write_text("def world(seed, day):\n    return 1 / day\n")
    cell = SimulationCell(
        scenario=scenario.load("travel"), policy="uniform", users=200, days=2, seed=1,
        environment=f"python:{tmp_path / 'world.py'}:world",
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"environment, day 0: raised ZeroDivisionError.* in world.py, line 2"):
        study.play(cell)
