"""`evaluate table` and `power`: what people type, what they read, and what programs get."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bandit.errors import InvalidRequest
from journey_bandit.main import group


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(a) for a in arguments])


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    """Two days of a dashboard: 20,000 people, 5.0 and 5.9 % click."""
    file = tmp_path / "clicks.csv"
    file.write_text("day;variant;views;clicks\n1;a;4000;190\n1;b;4100;250\n2;a;6000;310\n2;b;5900;340\n", "utf-8")
    return file


def body(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return found


def test_sums_of_a_dashboard_are_a_test(clicks: Path) -> None:
    asked = ("--arm", "variant", "--outcome", "clicks", "--count", "views", "--control", "a", "--shares", "a=.5,b=.5")
    found = body("evaluate", "table", clicks, *asked)
    assert (found["arms"], found["people"], found["control"]) == (["a", "b"], [10_000, 10_000], "a")
    (outcome,) = found["outcomes"]
    assert outcome["kind"] == "yes or no"
    (one,) = outcome["comparisons"]
    assert one["difference"] == pytest.approx(0.009)
    assert one["lift"] == pytest.approx(0.18)
    assert one["p"] == pytest.approx(one["p_holm"])
    assert found["shares"]["p"] == 1.0
    shown = run("evaluate", "table", clicks, *asked)
    assert shown.exit_code == 0
    for part in ("b", "+0.009", "+18 %", "at any time", "count people instead"):
        assert part in shown.stdout


def test_a_refusal_is_exit_status_3_with_its_reason(clicks: Path) -> None:
    asked = ("--arm", "variant", "--outcome", "clicks", "--count", "views", "--control", "a", "--shares", "a=.7,b=.3")
    done = run("evaluate", "table", clicks, *asked)
    assert done.exit_code == 3
    assert "refused: shares: arms were not assigned in the declared shares" in done.stdout
    assert "less control" not in done.stdout
    forced = run("evaluate", "table", clicks, *asked, "--force")
    assert forced.exit_code == 0
    assert "FORCED" in forced.stdout
    found = body("evaluate", "table", clicks, *asked)
    assert (found["outcomes"], found["refused"][0]["reason"]) == ([], "shares")


def test_arms_with_names_like_markup_and_equals_signs(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = [f"{arm},{int(i % 5 == 0)}" for i in range(60) for arm in ("[red]x=1", "control")]
    file.write_text("\n".join(["arm,y", *rows]), "utf-8")
    done = run("evaluate", "table", file, "--arm", "arm", "--outcome", "y", "--shares", "[red]x=1=.5,control=.5")
    assert done.exit_code == 0
    assert "[red]x=1 60, control 60 people" in done.stdout
    assert done.stdout.count("│ [red]x=1") == 3  # in each table


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--shares", "a"), "say NAME=VALUE"),
        (("--shares", "a=.5,a=.5"), "each name once"),
        (("--range", "clicks=5"), "say OUTCOME=LOW,HIGH"),
        (("--range", "clicks=5,1"), "say OUTCOME=LOW,HIGH"),
    ],
)
def test_an_option_that_says_nothing_is_refused(clicks: Path, given: tuple[str, str], said: str) -> None:
    done = run("evaluate", "table", clicks, "--arm", "variant", "--outcome", "clicks", "--count", "views", *given)
    assert done.exit_code == 2
    assert said in done.output


def test_a_number_that_is_none_is_named_by_its_option(clicks: Path) -> None:
    done = run("evaluate", "table", clicks, "--arm", "variant", "--outcome", "clicks", "--shares", "a=half,b=.5")
    assert isinstance(done.exception, InvalidRequest)
    assert str(done.exception) == "shares: 'half' is not a number → a number, such as 0.5, 50% or 1/2"


def test_power_says_people_lift_or_chance() -> None:
    assert "8,158 in each arm" in run("power", "--rate", ".05", "--lift", "20%").stdout
    found = body("power", "--sd", 1, "--mean", 2, "--lift", "25%", "--arms", 3, "--share", ".5")
    assert found["control"] == 2 * found["arm"]
    assert found["lift"] == 0.5
    assert body("power", "--rate", ".05", "--people", 16_316)["lift"] == pytest.approx(0.01, rel=1e-4)
    assert body("power", "--rate", ".05", "--people", 16_316, "--lift", ".01")["power"] == pytest.approx(0.8, abs=1e-4)


def test_power_refuses_what_says_too_little() -> None:
    assert run("power", "--rate", ".05").exit_code == 2
    for given in (("--rate", ".05", "--lift", "much"), ("--sd", "1", "--lift", "5%"), ("--lift", "1")):
        assert isinstance(run("power", *given).exception, InvalidRequest)
    for people, lift, said in (
        (1000, "2", "0.05 +2 is no rate"),
        (1000, "-100%", "0.05 -0.05 is no rate"),
        (1000, "0", "a lift of 0 is never found"),
        ("nan", ".01", "nan is no number of people"),
    ):
        assert said in str(run("power", "--rate", ".05", "--people", people, "--lift", lift).exception)


def test_amounts_covariates_and_money_are_numbers_in_json(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = [f"{'ab'[i % 2]},{(i * 7919) % 31},{(i * 104729) % 17},{int(i % 3 == 0)}" for i in range(300)]
    random.Random(1).shuffle(rows)
    file.write_text("\n".join(["arm,spent,before,bought", *rows]), "utf-8")
    asked = ("--arm", "arm", "--outcome", "spent", "--outcome", "bought", "--control", "a", "--value", "spent=.2")
    money = ("--cost", "b=1", "--shares", "a=.5,b=.5", "--range", "spent=0,30", "--ordered")
    for more in ((), ("--covariate", "before"), ("--no-sequence", "--level", ".9")):
        found = body("evaluate", "table", file, *asked, *money, *more)
        spent, _, net = (outcome["comparisons"][0] for outcome in found["outcomes"])
        assert net["difference"] == pytest.approx(0.2 * spent["difference"] - 1.0)
        assert (spent["sequence"] is None) == ("--no-sequence" in more)
        assert (spent["plain"] is None) == ("--covariate" not in more)
    assert run("evaluate", "table", file, *asked, *money, "--covariate", "before").exit_code == 0


def test_messages_of_segment_are_a_test(tmp_path: Path) -> None:
    """120 people, every second in b; each fifth of a and each third of b buys for 10."""
    lines = []
    for i in range(120):
        said = {"experiment_name": "Checkout", "variation_name": "ab"[i % 2]}
        message = {"type": "track", "userId": f"u{i}", "timestamp": "2026-05-01T12:00:00Z"}
        lines.append(message | {"event": "Experiment Viewed", "properties": said})
        if i % (5, 3)[i % 2] == 0:
            lines.append(message | {"event": "Order Completed", "properties": {"revenue": 10}})
    file = tmp_path / "events.json"
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    asked = ("--experiment", "Checkout", "--control", "a", "--outcome", "Order Completed")
    found = body("evaluate", "events", file, *asked, "--outcome", "Order Completed.revenue")
    bought, revenue = (outcome["comparisons"][0]["difference"] for outcome in found["outcomes"])
    assert bought == pytest.approx(20 / 60 - 12 / 60)
    assert revenue == pytest.approx(10 * bought)
    assert "Order Completed" in run("evaluate", "events", file, *asked).stdout


def test_what_no_force_can_answer_is_no_success(tmp_path: Path) -> None:
    """One arm: there is nothing to print, labelled or not."""
    (tmp_path / "one.csv").write_text("variant,bought\n" + "a,1\na,0\n" * 60, encoding="utf-8")
    asked = ("evaluate", "table", tmp_path / "one.csv", "--arm", "variant", "--outcome", "bought", "--force")
    done = run(*asked)
    assert (done.exit_code, "FORCED" in done.stdout) == (3, False)
    assert "refused" in done.stdout
