"""Mistakes of a scenario file: all of them in one go, of form and against the catalogue, each with its line."""

import json
from pathlib import Path

import msgspec
import pytest

from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import CatalogueError
from simulations import scenario
from simulations.authoring import checks
from simulations.authoring.lines import json_lines, line_of, toml_lines

TRAVEL = (Path(__file__).parents[3] / "simulations" / "scenarios" / "travel.toml").read_text(encoding="utf-8")
CATALOGUE = parse(read_shipped("travel"))

_PLANNER, _COMPARER, _DREAMER = (f"personas.{name}" for name in ("planner", "comparer", "dreamer"))
_EFFECTS = "reminder = 0.05, price_freeze = 0.05"
_NEXT = 'then = "cart"\notherwise = { browsing'
MISTAKES = [  # what is written in place of what; the path and the problem that are found
    ("weight = 0.25", 'weight = "a"', f"{_PLANNER}.weight", "Expected `float`, got `str`"),
    (_EFFECTS, _EFFECTS.replace("der", "dr"), f"{_PLANNER}.effects.remindr", "unknown"),
    ("desktop = 0.4, mob", "desktp = 0.4, mob", f"{_COMPARER}.features.device.desktp", "unknown value"),
    ("desktop = 0.1, mob", "desktop = 0.9, mob", f"{_DREAMER}.features.device", "shares of 1.78 in all"),
    ("returning = 0.35", "returning = { yes = 0.4 }", f"{_COMPARER}.features.returning", "shares for a boolean"),
    ("keeps = 0.85", "keps = 0.85", "fatigue.keps", "unknown key"),
    ("base = 0.05\neff", "base = 0\neff", "journey.retention.base", "0 is not between 0 and 1"),
    ("delay_hours = 60.0", "delay_hours = -1", "journey.retention.delay_hours", "Expected `float` > 0.0"),
    ("weekly = [1.2, ", "weekly = [", "visits.weekly", "not seven numbers"),
    ('dwell = "minutes_idle"', 'dwell = "minutes"', "hesitation.minutes", "unknown"),
    (_NEXT, _NEXT.replace("cart", "crt"), "journey.browsing.then.crt", "unknown"),
    ("reminder = 22", "remnder = 22", "delay_hours.remnder", "unknown"),
]


def found(text: str, *, is_json: bool = False) -> dict[str, str]:
    with pytest.raises(CatalogueError) as caught:
        checks.checked(text, CATALOGUE, "mine", is_json=is_json)
    return {one.field: one.problem for one in caught.value.mistakes}


@pytest.mark.parametrize(("there", "wrong", "path", "problem"), MISTAKES, ids=lambda text: str(text)[:24])
def test_a_mistake_is_found_at_its_line(there: str, wrong: str, path: str, problem: str) -> None:
    text = TRAVEL.replace(there, wrong)
    assert text != TRAVEL
    line = text[: text.index(wrong)].count("\n") + 1 + wrong.split(path.rsplit(".", 1)[-1], maxsplit=1)[0].count("\n")
    mistakes = found(text)
    assert f"line {line}, {path}" in mistakes
    assert problem in mistakes[f"line {line}, {path}"]


def test_all_of_them_are_reported_in_one_go_in_the_order_of_lines() -> None:
    text = TRAVEL
    for there, wrong, *_ in MISTAKES:
        text = text.replace(there, wrong)
    mistakes = found(text)
    for _, _, path, _ in MISTAKES:
        assert any(field.endswith(f", {path}") for field in mistakes), path
    lines = [int(field.split(",")[0].removeprefix("line ")) for field in mistakes]
    assert lines == sorted(lines)
    assert not any("weights" in problem for problem in mistakes.values()), "it only follows from the wrong weight"


def test_json_is_checked_in_the_same_way() -> None:
    text = msgspec.json.format(msgspec.json.encode(scenario.load("travel")), indent=1).decode()
    assert checks.checked(text, CATALOGUE, "mine.json", is_json=True) == scenario.load("travel")
    wrong = (
        text.replace('"tires"', '"tirs"')
        .replace('"user_sd": 0.5', '"user_sd": -1')
        .replace('"reminder": 22', '"remnder": 22')
    )
    mistakes = found(wrong, is_json=True)
    for path in ("fatigue.tirs", "user_sd", "delay_hours.remnder"):
        key = f'"{path.rsplit(".", maxsplit=1)[-1]}"'
        line = wrong[: wrong.index(key)].count("\n") + 1
        assert f"line {line}, {path}" in mistakes
    assert list(found("{", is_json=True)) == ["line 1"]


def test_a_scenario_of_another_app_is_one_mistake_among_others() -> None:
    mistakes = found(TRAVEL.replace('app = "travel"', 'app = "fashion"').replace('stage = "cart"', 'stage = "crt"'))
    assert mistakes["line 2, app"] == "'fashion', and the catalogue is of 'travel'"
    assert mistakes["line 3, stage"] == "this app has no stage 'crt'"


@pytest.mark.parametrize("app", scenario.names())
def test_shipped_scenarios_have_no_mistakes(app: str) -> None:
    assert checks.fit_mistakes(scenario.load(app), parse(read_shipped(app))) == []


@pytest.mark.parametrize(
    "text", ["", "app = 3", "personas = 3\njourney = [1]", "[personas]\nx = 4", "personas = {x = {}}"]
)
def test_texts_that_are_no_scenario_are_refused_and_break_nothing(text: str) -> None:
    assert any(field.endswith(", delay_hours") for field in found(text))


def test_lines_of_every_form_of_toml() -> None:
    text = (
        'a = 1\n"b c" = { d = 2, e = { f = "x # y" } } # z\n[g.h]\ni.j = [\n  1, # one\n  2,\n]\n'
        'k = """\n[no]\nm = 1\n"""\n[[n]]\no = 3\n'
    )
    lines = toml_lines(text)
    assert {key: lines[key] for key in ("a", "b c.d", "b c.e.f", "g.h", "g.h.i.j", "g.h.k", "n.o")} == {
        "a": 1, "b c.d": 2, "b c.e.f": 2, "g.h": 3, "g.h.i.j": 4, "g.h.k": 8, "n.o": 13,
    }  # fmt: skip
    assert "no" not in lines
    assert line_of("g.h.missing.deep", lines) == 3
    assert line_of("nowhere", lines) == 1


def test_lines_of_json() -> None:
    value = {"a": {"b": [1, {"c": 2}], "d": "x"}, "e": {}}
    assert json_lines(json.dumps(value, indent=1)) == {"a": 2, "a.b": 3, "a.b.c": 6, "a.d": 9, "e": 11}
