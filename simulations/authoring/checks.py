"""Checks of a scenario file: every mistake of form and of fit with a catalogue in one go, each with its line.

A file with mistakes of form is mended where they are, so that what is left can be held against the catalogue too.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bandit.catalogue.decoding import closest, decode
from bandit.catalogue.loading import read_toml
from bandit.catalogue.model import Catalogue, Feature, Stage
from bandit.errors import CatalogueError, NotFound, Problem
from bandit.tables.texts import decoded
from simulations import scenario
from simulations.authoring.lines import json_lines, line_of, toml_lines
from simulations.scenario import Persona, Scenario

_NEUTRAL: dict[str, Any] = {"weight": 0.0, "intent": 0.0, "effects": {}, "features": {}, "otherwise": {}, "base": 0.1}


def read(file: Path, catalogue: Catalogue) -> Scenario:
    """Scenario in a .toml or .json file, which fits the catalogue. Raises CatalogueError with every mistake in it, each
    with its line, and OSError if the file cannot be read.
    """
    return checked(decoded(file.read_bytes(), str(file)), catalogue, str(file), is_json=file.suffix == ".json")


def app_of(file: Path) -> str | None:
    """App that a scenario's file says it is about, whatever else is wrong with it; None if it does not say. Raises
    CatalogueError for text that is no TOML or JSON, OSError if the file cannot be read.
    """
    text = decoded(file.read_bytes(), str(file))
    raw = _read_json(text, str(file)) if file.suffix == ".json" else read_toml(text, str(file))
    said = raw.get("app") if isinstance(raw, dict) else None
    return said if isinstance(said, str) else None


def checked(text: str, catalogue: Catalogue, file: str, *, is_json: bool = False) -> Scenario:
    """Scenario in `text`, TOML or JSON, checked against the catalogue. Raises CatalogueError with every mistake of form
    and of fit, in the order of lines; `file` is for the message.
    """
    raw = _read_json(text, file) if is_json else read_toml(text, file)
    form = list[Problem]()
    found: Scenario | None = decode(raw, Scenario, "", form)
    mended = found if found is not None else _mended(raw, form, catalogue)
    mistakes = form + [one for one in fit_mistakes(mended, catalogue) if not _follows(one, form)]
    if mistakes:
        lines = json_lines(text) if is_json else toml_lines(text)
        located = sorted((line_of(one.field, lines), n) for n, one in enumerate(mistakes))
        raise CatalogueError(file, [_at_line(line, mistakes[n]) for line, n in located])
    return mended


def fit_mistakes(found: Scenario, catalogue: Catalogue) -> list[Problem]:
    """Every mistake of a scenario against the catalogue that it shall be simulated with; empty if it fits."""
    mistakes = list[Problem]()
    if found.app != catalogue.app:
        mistakes.append(Problem("app", f"{found.app!r}, and the catalogue is of {catalogue.app!r}", "give that one"))
    if not 0.0 < found.base < 1.0:
        mistakes.append(Problem("base", f"{found.base:g} is not between 0 and 1", "a rate above 0 and below 1"))
    try:
        stage = catalogue.stage(found.stage)
    except NotFound as error:
        mistakes.append(Problem("stage", error.problem.problem, error.problem.fix))
    else:
        mistakes += _stage_mistakes(found, stage)
    return mistakes + list(_journey_mistakes(found, catalogue))


def _stage_mistakes(found: Scenario, stage: Stage) -> Iterator[Problem]:
    if stage.has_request_actions:
        fix = "choose a stage that declares its nudges"
        yield Problem("stage", f"the actions of {found.stage!r} come with requests", fix)
        return
    yield from _raised(lambda: scenario.check(found, stage))
    for name, persona in found.personas.items():
        yield from _kind_mistakes(f"personas.{name}.features", persona, stage)
    if len(found.visits.weekly) != 7 or not sum(found.visits.weekly) > 0.0:
        yield Problem("visits.weekly", "not seven numbers with one above 0", "one for each weekday, Monday first")


def _kind_mistakes(path: str, persona: Persona, stage: Stage) -> Iterator[Problem]:
    """Features whose parameter is not of the kind that the catalogue declares."""
    for name, given in persona.features.items():
        feature = stage.features.get(name)
        if feature is None:
            continue
        if feature.type == "category" and isinstance(given, dict):
            yield from _share_mistakes(f"{path}.{name}", given, feature)
        elif feature.type == "category":
            fix = f"shares by value, e.g. {{ {feature.values[0]} = 0.5 }}"
            yield Problem(f"{path}.{name}", f"{given:g} for a category", fix)
        elif isinstance(given, dict):
            yield Problem(f"{path}.{name}", f"shares for a {feature.type}", "one number, 0 to 1")


def _share_mistakes(path: str, given: dict[str, float], feature: Feature) -> Iterator[Problem]:
    for value in given.keys() - set(feature.values):
        yield Problem(f"{path}.{value}", "unknown value", closest(value, feature.values))
    total = sum(given.values())
    if total > 1.0 + 1e-9:
        yield Problem(path, f"shares of {total:g} in all", "1 at most; what is left is shared by values left out")
    elif set(given) >= set(feature.values) and total < 1.0 - 1e-9:
        yield Problem(path, f"shares of {total:g} in all, and no value is left out", "make them 1")


def _journey_mistakes(found: Scenario, catalogue: Catalogue) -> Iterator[Problem]:
    if found.journey.keys() - {found.stage}:
        yield from _raised(lambda: scenario.check_journey(found, catalogue))
    for name, leg in found.journey.items():
        path, stage = f"journey.{name}", catalogue.stages.get(name)
        if leg.base is not None and name != found.stage and not 0.0 < leg.base < 1.0:
            yield Problem(f"{path}.base", f"{leg.base:g} is not between 0 and 1", "a rate above 0 and below 1")
        if stage is not None and not stage.reward.min <= leg.amount <= stage.reward.max:
            yield Problem(
                f"{path}.amount",
                f"{leg.amount:g} is no reward of this stage",
                f"between {stage.reward.min:g} and {stage.reward.max:g}, as the catalogue declares",
            )


def _raised(check: Callable[[], None]) -> list[Problem]:
    try:
        check()
    except CatalogueError as error:
        return error.mistakes
    return []


def _read_json(text: str, file: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}"
        raise CatalogueError(file, [Problem(where, f"not JSON: {error.msg}", "mend the syntax there")]) from None


def _at_line(line: int, mistake: Problem) -> Problem:
    return Problem(f"line {line}, {mistake.field}", mistake.problem, mistake.fix)


def _follows(mistake: Problem, form: list[Problem]) -> bool:
    """Whether a mistake of fit only follows from one of form: at the same place, around it or within it."""
    mine = mistake.field
    return any(
        mine == one.field or mine.startswith(f"{one.field}.") or one.field.startswith(f"{mine}.") for one in form
    )


def _mended(raw: Any, form: list[Problem], catalogue: Catalogue) -> Scenario:
    """A scenario with what is wrong in form left out, and neutral values where that was needed."""
    values = json.loads(json.dumps(raw, default=str)) if isinstance(raw, dict) else {}
    for mistake in form:
        _remove(values, mistake.field.split("[")[0].split("."))
    first = next(iter(catalogue.stages))
    values = {"app": catalogue.app, "stage": first, "base": 0.1, "personas": {}, "delay_hours": {}} | values
    for persona in values["personas"].values():
        _fill(persona, ("weight", "intent", "effects", "features"))
    for leg in values.get("journey", {}).values():
        _fill(leg, ("otherwise",))
        leg.setdefault("then", first)
    again = list[Problem]()
    found: Scenario | None = decode(values, Scenario, "", again)
    return found if found is not None else _mended(values, again, catalogue)


def _fill(table: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        table.setdefault(name, _NEUTRAL[name])


def _remove(values: Any, path: list[str]) -> None:
    for part in path[:-1]:
        values = values.get(part) if isinstance(values, dict) else None
    if isinstance(values, dict):
        values.pop(path[-1], None)
