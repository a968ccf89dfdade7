"""A scenario: who comes to one stage of an app, and how each nudge changes what they do. Data, written as TOML.

Parameters follow the scenario table of the methods this project is built on; what has no source says "assumed".
"""

import importlib.resources
import tomllib
from typing import Annotated

import msgspec

from bandit.catalogue import NONE, Stage
from bandit.decoding import closest, decode
from bandit.errors import CatalogueError, NotFound, Problem

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Persona(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of person. The service never sees which.

    intent: logits above the average person. effects: logits that each nudge adds. features: for a number, the mean
    of its position in the declared range (on its declared scale, 0 to 1); for a boolean, P(true); for a category,
    P(value).
    """

    weight: Share
    intent: float
    effects: dict[str, float]
    features: dict[str, Share | dict[str, Share]]


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """base: reward rate without any nudge. concentration: how alike people of one persona are (Beta a + b).

    slopes: nudge → feature → logits per unit of the encoded feature. delay_hours: mean of an exponential delay from the
    decision to the reward, by arm. proof: P(the app can prove the claim), by kind of evidence.
    """

    app: str
    stage: str
    base: Share
    concentration: Annotated[float, msgspec.Meta(gt=0)] = 6.0
    personas: dict[str, Persona]
    slopes: dict[str, dict[str, float]] = {}
    delay_hours: dict[str, float]
    proof: dict[str, Share] = {}
    people_per_day: Annotated[float, msgspec.Meta(gt=0)] = 600.0


def names() -> list[str]:
    """The scenarios that come with the package: one for each app."""
    files = importlib.resources.files("simulations.scenarios").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load(app: str) -> Scenario:
    """The scenario of an app. NotFound, or CatalogueError with every mistake."""
    if app not in names():
        raise NotFound("app", f"there is no scenario for {app!r}", closest(app, names()))
    file = importlib.resources.files("simulations.scenarios").joinpath(f"{app}.toml")
    mistakes: list[Problem] = []
    scenario: Scenario = decode(tomllib.loads(file.read_text(encoding="utf-8")), Scenario, "", mistakes)
    if mistakes:
        raise CatalogueError(f"scenario {app}", mistakes)
    return scenario


def check(scenario: Scenario, stage: Stage) -> None:
    """CatalogueError unless the scenario speaks of exactly the nudges and features that the stage declares."""
    mistakes: list[Problem] = []
    if abs(sum(p.weight for p in scenario.personas.values()) - 1.0) > 1e-9:
        mistakes.append(Problem("personas", "their weights do not sum to 1", "adjust them"))
    for name, persona in scenario.personas.items():
        _same(f"personas.{name}.effects", set(persona.effects), set(stage.nudges), mistakes)
        _same(f"personas.{name}.features", set(persona.features), set(stage.features), mistakes)
    _same("delay_hours", set(scenario.delay_hours), {NONE, *stage.nudges}, mistakes)
    for nudge, slopes in scenario.slopes.items():
        _known(f"slopes.{nudge}", {nudge}, set(stage.nudges), mistakes)
        _known(f"slopes.{nudge}", set(slopes), set(stage.features), mistakes)
    if mistakes:
        raise CatalogueError(f"scenario {scenario.app}", mistakes)


def _same(path: str, given: set[str], wanted: set[str], mistakes: list[Problem]) -> None:
    mistakes.extend(Problem(f"{path}.{name}", "missing", "the stage declares it") for name in sorted(wanted - given))
    _known(path, given, wanted, mistakes)


def _known(path: str, given: set[str], wanted: set[str], mistakes: list[Problem]) -> None:
    mistakes.extend(Problem(f"{path}.{name}", "unknown", closest(name, wanted)) for name in sorted(given - wanted))
