"""`journey-bandit replay --csv`: one JSON object, a readable table, and errors that name the option and the fix."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bandit.errors import InvalidRequest
from journey_bandit.main import group


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two classes, told apart by one number."""
    x = np.random.default_rng(1).normal(size=400)
    path = tmp_path / "people.csv"
    path.write_text("size,colour,kind\n" + "".join(f"{v:.3f},red,{'big' if v > 0 else 'small'}\n" for v in x))
    return path


def replay(*arguments: Any) -> Result:
    return CliRunner().invoke(group, ["replay", *(str(a) for a in arguments)])


def test_json_is_one_object_with_the_promised_fields(file: Path) -> None:
    done = replay("--csv", file, "--label", "kind", "--policy", "logistic", "--rounds", 300, "--seeds", 3, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["policy"], found["rounds"], found["seeds"]) == ("logistic", 300, 3)
    regret = found["regret_pct_of_uniform"]
    assert regret.keys() == {"mean", "sd", "median", "per_seed"}
    assert regret["per_seed"] == pytest.approx([100 * w / 150 for w in found["wrong_answers"]])
    assert regret["mean"] == pytest.approx(np.mean(regret["per_seed"]))
    assert regret["sd"] == pytest.approx(np.std(regret["per_seed"], ddof=1))
    assert regret["median"] == pytest.approx(np.median(regret["per_seed"]))
    assert regret["mean"] < 60
    assert (found["label"], found["classes"], found["rows"], found["columns"]) == ("kind", ["big", "small"], 400, 2)
    assert found["settings"]["prior_mean"] == 0.5


def test_the_same_command_gives_the_same_figures_and_other_seeds_others(file: Path) -> None:
    command = ("--csv", file, "--label", 3, "--policy", "linear", "--rounds", 200, "--seeds", 2, "--json")
    first, again, other = (json.loads(replay(*command, *more).stdout) for more in ((), (), ("--seed", 7)))
    assert first["wrong_answers"] == again["wrong_answers"]
    assert first["wrong_answers"] != other["wrong_answers"]


def test_without_json_people_can_read_it(file: Path) -> None:
    done = replay("--csv", file, "--label", "kind", "--rounds", 150, "--seeds", 1, "--batch", 25)
    assert done.exit_code == 0
    for said in ("400 rows", "'kind' with 2 classes", "hierarchical", "after 150 rounds: mean"):
        assert said in " ".join(done.stdout.split())


def test_a_setting_reaches_the_policy(file: Path) -> None:
    done = replay("--csv", file, "--label", "kind", "--rounds", 20, "--seeds", 1, "--set", "alpha=0.25", "--json")
    assert json.loads(done.stdout)["settings"]["alpha"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--label", "sort"), "label: no column 'sort'"),
        (("--label", "colour"), "label: column 'colour' is 'red' in every row"),
        (("--label", "kind", "--set", "alpha"), "set: 'alpha' is not NAME=NUMBER"),
        (("--label", "kind", "--set", "alfa=1"), "set.alfa: "),
        (("--label", "kind", "--no-header"), "label: 'kind' is a name"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_the_field(file: Path, arguments: tuple[str, ...], said: str) -> None:
    done = replay("--csv", file, *arguments)
    assert isinstance(done.exception, InvalidRequest)
    assert said in str(done.exception)
    assert "→" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --csv FILE and --label COLUMN, or a command: hillstrom"),
        (("--csv", "x.csv"), "give --csv FILE and --label COLUMN"),
        (
            ("--csv", "x.csv", "--label", "a", "hillstrom", "--url", "http://127.0.0.1:9"),
            "without the command hillstrom",
        ),
        (("--csv", "x.csv", "--label", "a", "--policy", "linaer"), "linaer"),
    ],
)
def test_wrong_usage_is_said(arguments: tuple[str, ...], said: str) -> None:
    done = replay(*arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = replay("--csv", tmp_path / "nowhere.csv", "--label", 1)
    assert isinstance(done.exception, FileNotFoundError)


def test_the_command_for_the_experiment_is_still_there() -> None:
    assert "MineThatData" in replay("hillstrom", "--help").output
    assert "hillstrom" in replay("--help").output


def test_the_best_constant_arm_stands_beside_the_policy(tmp_path: Path) -> None:
    """Three of four rows are of one class: always that one is wrong in every fourth of all 400 rows, half of what
    chance loses among two classes.
    """
    path = tmp_path / "people.csv"
    path.write_text("size,kind\n" + "".join(f"{i % 7},{'rare' if i % 4 == 0 else 'usual'}\n" for i in range(400)))
    asked = ("--csv", path, "--label", "kind", "--rounds", 400, "--seeds", 2)
    found = json.loads(replay(*asked, "--json").stdout)["best_constant"]
    assert (found["class"], found["policy"], found["wrong_answers"]) == ("usual", "always usual", [100, 100])
    assert found["regret_pct_of_uniform"]["mean"] == pytest.approx(50.0)
    shown = replay(*asked).stdout
    assert "always usual" in shown
    assert shown.split("│ 400")[1].split("│")[2].strip() == "50.0"
