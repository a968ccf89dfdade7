"""`journey-bandit simulate` without a service: comparisons, sweeps, trust, and messages a person can act on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import InvalidRequest
from bandit.snapshot import from_zip
from journey_bandit.main import group
from journey_bandit.simulation import simulate
from journey_bandit.simulation.simulation_plan import SimulationPlan
from simulations.offline import run_summary
from simulations.population import Population
from simulations.scenario import load

SMALL = ("--users", "200", "--days", "6", "--backend", "serial")
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run(*arguments): in this process, results under tmp_path; our own errors are raised."""

    def invoke(*arguments: Any) -> Result:
        words = ["simulate", *map(str, arguments)]
        if "--users" in words:
            words += ["--out", str(tmp_path / "out")]
        return CliRunner().invoke(group, words)

    return invoke


def answer(done: Result) -> Any:
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def test_policies_are_compared_on_the_same_people_with_figures(run: Run, tmp_path: Path) -> None:
    found = answer(
        run("--app", "travel", "--policy", "linear", "--policy", "fixed:discount_10", "--seeds", 2, *SMALL, "--json")
    )
    cart = found["stages"]["cart"]
    assert list(cart) == ["linear", "fixed:discount_10", "fixed:none"]
    assert cart["fixed:none"]["vs_none"] == 0.0
    assert cart["fixed:discount_10"]["vs_none"] < 0.0
    assert cart["fixed:discount_10"]["conv_pct"] > cart["fixed:none"]["conv_pct"]
    assert len(found["cells"]) == len(set(found["cells"].values())) == 6
    names = sorted(Path(file).name for file in found["figures"])
    assert names == ["delay.png", "fatigue.png", "over_no_nudge.png", "personas.png", "regret.png", "value.png"]
    assert found["figures"][0].endswith("over_no_nudge.png"), "money against no nudge comes first"
    assert all(Path(file).stat().st_size > 5000 for file in found["figures"])
    (page,) = found["reports"]
    text = Path(page).read_text(encoding="utf-8")
    assert "No nudge earns most of these policies. Next is linear" in text
    assert text.index("Net value over no nudge") < text.index("Regret")


def test_runs_with_other_options_leave_each_others_files_alone(run: Run, tmp_path: Path) -> None:
    words = ("--app", "travel", "--policy", "fixed:reminder", "--seeds", 1, *SMALL, "--json")
    first = answer(run(*words))
    kept = {file: Path(file).read_bytes() for file in (*first["figures"], *first["reports"])}
    others = [answer(run(*words, *more)) for more in (("--seed", 7), ("--holdout", 0.3), ("--policy", "uniform"))]
    assert {file: Path(file).read_bytes() for file in kept} == kept
    folders = {Path(found["reports"][0]).parent for found in (first, *others)}
    assert len(folders) == 4
    assert answer(run(*words))["reports"] == first["reports"], "the same options write to the same place"


def test_what_is_earned_over_no_nudge_comes_first_whatever_was_asked_for(run: Run) -> None:
    words = ("--app", "travel", "--policy", "fixed:discount_10", "--seeds", 2, *SMALL)
    cart = answer(run(*words, "--json"))["stages"]["cart"]
    assert list(cart) == ["fixed:discount_10", "fixed:none"], "no nudge runs beside it, unasked"
    figures, none = cart["fixed:discount_10"], cart["fixed:none"]["value_per_user"]
    assert next(iter(figures)) == "vs_none"
    assert figures["vs_none"] == pytest.approx(figures["value_per_user"] - none, abs=1e-3)
    assert figures["vs_none_pct"] == pytest.approx(100.0 * figures["vs_none"] / none, rel=0.05)
    assert figures["vs_none_pct_lcb"] < figures["vs_none_pct"] < figures["vs_none_pct_ucb"]
    shown = run(*words).stdout
    (row,) = [line for line in shown.splitlines() if "fixed:discount_10" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:3] == ["fixed:discount_10", f"{figures['vs_none']:+.2f}", f"{figures['vs_none_pct']:+.1f}"]
    assert shown.index("over no nudge,") < shown.index("regret")
    for low, high, digits in (("vs_none_lcb", "vs_none_ucb", "+.2f"), ("vs_none_pct_lcb", "vs_none_pct_ucb", "+.1f")):
        assert f"[{figures[low]:{digits}}, {figures[high]:{digits}}]" in shown, "an interval is not broken"


def test_a_second_run_reads_what_is_finished(run: Run, tmp_path: Path) -> None:
    words = ("--app", "travel", "--policy", "uniform", "--seeds", 1, *SMALL, "--json")
    first = answer(run(*words))
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "cells").iterdir()}
    assert answer(run(*words))["cells"] == first["cells"]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "cells").iterdir()} == files


def test_a_person_gets_a_table(run: Run) -> None:
    done = run("--app", "gaming", "--policy", "oracle", "--seeds", 1, *SMALL)
    assert done.exception is None
    for word in ("gaming/retention", "fixed:none", "regret", "opted", "Report and figures:"):
        assert word in done.stdout.replace("\n", " ")


def test_what_learning_cost_stands_beside_what_it_truly_cost(run: Run, tmp_path: Path) -> None:
    """Of the policy that has a loss account, seed by seed, as its last snapshot carries it; 12 days are enough that the
    account has left its first day.
    """
    words = ("--app", "travel", "--policy", "centred", "--policy", "uniform", "--seeds", 2, *SMALL, "--days", 12)
    losses = answer(run(*words, "--json"))["loss"]
    assert list(losses) == ["cart"]
    assert list(losses["cart"]) == ["centred"], "uniform has no account"
    assert len(losses["cart"]["centred"]) == 2
    cells = {cell["seed"]: cell for cell in losses["cart"]["centred"]}
    kept = [from_zip(archive.read_bytes()) for archive in (tmp_path / "out" / "cells").glob("*.cart.zip")]
    accounts = [(s.loss_account, s.stage_spec.reward.value) for s in kept]
    expected = sorted((a.share, -v * a.gain, v * a.room) for a, v in accounts if a is not None)
    found = sorted((cell["share"], cell["spent"], cell["left"]) for cell in cells.values())
    assert [pytest.approx(one) for one in expected] == found
    assert all(one["declared"] == 0.02 and one["budget"] > 0.0 for one in cells.values())
    shown = run(*words).stdout
    assert "cart: what learning cost" in shown
    assert all(f"centred, seed {seed}" in shown for seed in cells)
    assert "uniform, seed" not in shown


def test_a_learned_price_is_shown_with_its_evidence_and_the_holdout_beside_it(run: Run) -> None:
    words = ("--app", "fintech", "--policy", "centred", "--seeds", 1, *SMALL, "--holdout", "0.2")
    found = answer(run(*words, "--json"))
    price = found["prices"]["onboarding"]["centred"]
    assert price["low"] <= price["price"] <= price["high"]
    assert "settled decisions of" in price["evidence"]
    held = found["holdout"]["centred"]
    assert held["people"] + held["holdout"] <= 200
    assert held["low"] < held["difference"] < held["high"]
    shown = run(*words).stdout
    assert "what showing a nudge costs later" in shown
    assert "audit by the holdout" in shown
    assert "prices" not in answer(run("--app", "fintech", "--policy", "uniform", "--seeds", 1, *SMALL, "--json"))


def test_a_journey_has_a_table_for_each_stage(run: Run) -> None:
    found = answer(run("--app", "fashion", "--policy", "uniform", "--seeds", 1, "--journey", *SMALL, "--json"))
    assert list(found["stages"]) == ["onboarding", "browsing", "cart", "checkout", "retention"]
    whole = sum(stage["uniform"]["vs_none"] for stage in found["stages"].values())
    assert found["all_stages"]["uniform"]["vs_none"] == [pytest.approx(whole, abs=1e-3)]
    assert list(found["all_stages"]) == ["uniform"]


def test_what_if_turns_every_knob_and_draws_a_tornado(run: Run, tmp_path: Path) -> None:
    words = ("--app", "travel", "--policy", "fixed:reminder", "--seeds", 1, *SMALL, "--what-if")
    found = answer(run(*words, "--json"))
    assert found["policies"] == ["fixed:reminder", "fixed:none"]
    assert {"effect size", "delay", "drift", "fatigue", "traffic"} <= set(found["knobs"])
    assert found["knobs"]["effect size"]["low"] < found["knobs"]["effect size"]["high"]
    done = run(*words)
    assert "changes the choice?" in done.stdout.replace("\n", " ")
    (tornado,) = (tmp_path / "out" / "travel").glob("*/tornado.png")
    assert tornado.stat().st_size > 5000


def test_what_if_begins_with_other_worlds_of_the_first_policy(run: Run, tmp_path: Path) -> None:
    """A discount for all loses least where its effect is doubled, and the scenario's file says whose people come."""
    file = tmp_path / "mine.json"
    file.write_bytes(msgspec.json.encode(load("travel")))
    words = ("--policy", "fixed:discount_5", "--policy", "uniform", "--seeds", 2, *SMALL, "--what-if")
    found = answer(run("--scenario", file, *words, "--json"))
    worlds = found["worlds"]
    assert next(iter(found)) == "worlds"
    assert list(worlds) == ["x0", "all-0.1", "x0.5", "declared", "x2", "no-fatigue", "strong-fatigue"]
    assert {one["policy"] for one in worlds.values()} == {"fixed:discount_5"}
    mean = {name: one["vs_none"][0] for name, one in worlds.items()}
    assert mean["all-0.1"] < mean["x0"] < mean["x0.5"] < mean["declared"] < mean["x2"]
    assert mean["x0"] < 0.0
    assert worlds["no-fatigue"]["opted_out_pct"] == 0.0 < worlds["declared"]["opted_out_pct"]
    assert worlds["declared"]["opted_out_pct"] < worlds["strong-fatigue"]["opted_out_pct"]
    low, high = worlds["x0"]["vs_none"][1:]
    assert low < mean["x0"] < high
    shown = run("--app", "travel", *words).stdout
    assert shown.index("fixed:discount_5 in other worlds") < shown.index("Lead of fixed:discount_5")
    assert f"{mean['x0']:+.2f} [{low:+.2f}, {high:+.2f}]" in shown


def test_what_if_is_small_unless_somebody_says_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[SimulationPlan]()
    monkeypatch.setattr(simulate, "_what_if", lambda plan, **_: asked.append(plan))
    for words in ([], ["--users", "300", "--seeds", "2"]):
        CliRunner().invoke(group, ["simulate", "--app", "travel", "--what-if", *words], catch_exceptions=False)
    assert [(plan.users, len(plan.seeds)) for plan in asked] == [(1000, 4), (300, 2)]


def test_the_box_ranks_policies(run: Run) -> None:
    words = ("--app", "travel", "--policy", "fixed:discount_10", "--policy", "fixed:price_freeze", "--seeds", 1, *SMALL)
    found = answer(run(*words, "--box", 3, "--json"))
    assert found["policies"] == ["fixed:discount_10", "fixed:price_freeze", "fixed:none"]
    assert found["rank"][0] == 3.0, "a blanket discount is last in every world"
    assert sum(found["best"]) == pytest.approx(1.0)
    assert len(found["tau"]) == 3


def test_events_are_written(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    assert run("--app", "travel", "--policy", "uniform", *SMALL, "--events", file).exception is None
    assert {json.loads(line)["event"] for line in file.read_text().splitlines()} >= {"Cart Viewed", "Promotion Viewed"}


def test_validate_says_what_fits_and_ends_with_status_1_where_something_does_not(run: Run, tmp_path: Path) -> None:
    assert all(row["fits"] for row in answer(run("validate", "--app", "travel", "--json")))
    file, saved = tmp_path / "export.csv", tmp_path / "mine.json"
    file.write_text("metric,value\nrate.cart,0.20\nrepeat.p50,6\n")
    fitted = answer(run("validate", "--app", "travel", "--export", file, "--save", saved, "--json"))
    assert {row["moment"] for row in fitted if not row["fits"]} <= {"none"}, "tuned, and measured by nobody"
    assert [row["moment"] for row in fitted] == ["rate.cart", "repeat.p50", "effect", "none"]
    found = answer(run("--app", "travel", "--scenario", saved, "--policy", "uniform", "--seeds", 1, *SMALL, "--json"))
    shipped = answer(run("--app", "travel", "--policy", "uniform", "--seeds", 1, *SMALL, "--json"))
    assert found["cells"] != shipped["cells"]
    file.write_text("metric,value\nrepeat.p10,2\nrepeat.p50,4\nrepeat.p90,120\n")
    done = run("validate", "--app", "travel", "--export", file)
    assert done.exit_code == 1
    assert "NO" in done.stdout


def test_a_fit_that_breaks_what_was_calibrated_is_no_success(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "export.csv"
    file.write_text("what;how much\nrepeat.p50;60,5\n")
    words = ("validate", "--app", "gaming", "--export", file, "--map", "metric=what", "--map", "value=how much")
    done = run(*words)
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    for part in (
        "the fit left a calibration range: day.1: 0.332 before the fit, 0 after it",
        "half of all gaps between visits exceed 60.5 days, and 30 are simulated",
        "does not fit: day-1 retention, day-7 retention, day-30 retention",
    ):
        assert part in said
    rows = json.loads(run(*words, "--json").stdout)
    assert {row["moment"]: row["fits"] for row in rows}["day.1"] is False
    assert "--map goes with --export" in run("validate", "--app", "gaming", "--map", "metric=what").output


def test_a_simulation_shorter_than_the_gaps_of_its_scenario_says_so(run: Run) -> None:
    words = ("--app", "travel", "--policy", "uniform", "--seeds", 1, "--users", 200, "--backend", "serial")
    assert "half of all gaps" not in run(*words, "--days", 3).output
    assert "half of all gaps between visits exceed 3 days, and 2 are simulated" in " ".join(
        run(*words, "--days", 2).output.split()
    )


def test_a_blanket_discount_is_taken_apart(run: Run) -> None:
    parts = answer(run("blanket", "--app", "travel", "--json"))
    everybody = parts["everybody"]
    assert everybody["lifted"] > 1.3 * everybody["rate"]
    assert everybody["net"] < 0.0
    shown = run("blanket", "--app", "travel").stdout
    assert "Sure: would have come anyway" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("│ everybody")]
    assert row.split("│")[2].strip() == f"{everybody['net']:+.3f}", "money over no nudge comes first"


def test_the_long_run_is_solved(run: Run) -> None:
    found = answer(run("fatigue", "--app", "fintech", "--json"))
    assert found["none"] < found["priced"] <= found["best"]
    assert "dynamic programme" in run("fatigue", "--app", "fintech").stdout


@pytest.mark.parametrize(
    ("words", "kind", "found"),
    [
        (("--app", "travel", "--policy", "linaer", *SMALL), InvalidRequest, "did you mean `linear`"),
        (("--app", "travel", "--policy", "uniform", "--policy", "uniform", *SMALL), InvalidRequest, "twice"),
        (("blanket", "--app", "travel", "--arm", "free_flight"), InvalidRequest, "no nudge of cart"),
        (("validate",), SystemExit, "give --app, or --sessions"),
        (("validate", "--app", "travel", "--save", "x.json"), SystemExit, "--save goes with --export"),
        (("--policy", "uniform"), SystemExit, "give --app"),
        (("--scenario", "x.toml", "--url", "http://x"), SystemExit, "give --app"),
        (("--app", "travel", "--url", "http://x", "--policy", "uniform"), SystemExit, "--policy goes without --url"),
    ],
)
def test_what_cannot_be_run_is_said(run: Run, words: tuple[str, ...], kind: type[BaseException], found: str) -> None:
    done = run(*words)
    assert isinstance(done.exception, kind)
    assert found in (str(done.exception) + done.output)


def test_a_scenario_of_another_app_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"app": "x"}')
    refused = run("--app", "travel", "--scenario", file, *SMALL).exception
    assert isinstance(refused, InvalidRequest)
    assert str(refused) == f"scenario: {file} is about x → give --app x"


def test_conversions_are_decisions_with_a_reward_whatever_it_is_worth() -> None:
    """Three decisions, two purchases of 14 and 30: two thirds convert, not 1,467 %."""
    app = parse(read_shipped("gaming"))
    scenario = load("gaming")
    people = Population(scenario, app.stage(scenario.stage))
    k, zeros = len(people.stage.arms), np.zeros(3)
    seen = run_summary.VisitSummary(
        arm=np.zeros(3, dtype=np.intp), persona=np.zeros(3, dtype=np.intp), truth=np.zeros((3, k)), visible=zeros,
        regret=zeros, reward=np.array([14.0, 0.0, 30.0]), delay=np.ones(3), fatigue=zeros, propensity=np.ones(3),
    )  # fmt: skip
    total = run_summary.empty_summary(people)
    run_summary.add_step(total, people, seen, 1)
    assert (total.decisions, total.conversions, total.rewards) == ([3], [2], [44.0])


def test_options_of_offline_runs_are_refused_with_a_service(run: Run) -> None:
    done = run("--app", "travel", "--url", "http://127.0.0.1:9", "--journey", "--days", 3, "--log")
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert all(option in said for option in ("--journey", "--days", "--log", "leave them out, or --url"))


def test_a_stage_without_nudges_is_compared_with_itself(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text(BARE)
    told = ["scenario", "new", "--app", str(tmp_path / "bare.toml"), "--out", str(tmp_path / "people.toml")]
    assert CliRunner().invoke(group, told).exception is None
    words = ("--app", tmp_path / "bare.toml", "--scenario", tmp_path / "people.toml", "--policy", "uniform")
    found = answer(run(*words, "--seeds", 1, *SMALL, "--json"))
    assert found["stages"]["visit"]["uniform"]["vs_none"] == 0.0
    (page,) = found["reports"]
    assert "No nudge earns most of these policies." in Path(page).read_text(encoding="utf-8")


def test_other_code_of_the_same_name_writes_elsewhere(run: Run, tmp_path: Path) -> None:
    """A rule that was changed is another policy: the page of the first stays."""
    words = ("--app", "travel", "--policy", f"python:{tmp_path / 'rule.py'}:rule", "--seeds", 1, *SMALL, "--json")
    pages = []
    for arm in ("none", "reminder"):
        body = f"'{arm}' if '{arm}' in eligible else 'none'"
        (tmp_path / "rule.py").write_text(f"def rule(context, eligible):\n    return {body}\n")
        pages += answer(run(*words))["reports"]
    assert len(set(pages)) == 2
    assert all(Path(page).exists() for page in pages)


BARE = """
app = "bare"
currency = "EUR"
[stages.visit]
description = "Nothing can be shown here"
reward = { kind = "binary", window = "2d", description = "a visit" }
[stages.visit.features]
[stages.visit.nudges]
"""
