"""Simulated app: the catalogue and the scenario that `--app` and `--scenario` name, held against each other."""

from pathlib import Path
from typing import Any, NamedTuple

import click

from api.catalogue_files import read_file
from bandit.catalogue.decoding import closest
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Catalogue
from bandit.errors import InvalidRequest, NotFound, Problem
from bandit.tables.texts import decoded
from simulations import scenario
from simulations.authoring import checks
from simulations.contenders import own_code
from simulations.offline import study
from simulations.population import Population
from simulations.scenario import Scenario

APP = click.option(
    "--app", metavar="APP", help=f"One of {', '.join(scenario.names())}; or your FILE.toml, with --scenario."
)
SCENARIO = click.option(
    "--scenario", "file", type=click.Path(path_type=Path), help="A scenario: .toml, or .json of `validate --save`."
)


class SimulatedApp(NamedTuple):
    """App as a simulation plays it: its scenario, its catalogue, and the catalogue's TOML, "" for a shipped one."""

    scenario: Scenario
    catalogue: Catalogue
    text: str = ""

    @property
    def rich(self) -> Population:
        """The population that comes to the scenario's own stage."""
        return Population(self.scenario, self.catalogue.stage(self.scenario.stage))


def read_app(app: str) -> tuple[Catalogue, str]:
    """Catalogue that `--app` names, and its TOML text, "" for a shipped one. Raises NotFound for a name that is not
    shipped, CatalogueError with every mistake of a file, OSError if it cannot be read.
    """
    if app.endswith(".toml"):
        return read_file(Path(app)), decoded(Path(app).read_bytes(), app)
    if app not in scenario.names():
        fix = f"{closest(app, scenario.names())}; or give your FILE.toml"
        raise NotFound("app", f"there is no scenario for {app!r}", fix)
    return parse(read_shipped(app), f"{app}.toml"), ""


def simulated_app(app: str | None, file: Path | None) -> SimulatedApp:
    """App that the options name: `app` a shipped one or a catalogue's file, `file` a scenario. A scenario of a shipped
    app needs no `app`, a shipped app no `file`.

    Raises InvalidRequest if one of the two is missing, and what `read_app` and `checks.read` raise.
    """
    if app is None:
        assert file is not None  # noqa: S101 – the command line asked for one of the two
        app = scenario.read(file).app
        if app not in scenario.names():
            fix = "give --app with the TOML file of its catalogue"
            raise InvalidRequest(Problem("app", f"the scenario is of {app!r}, which is not shipped", fix))
    catalogue, text = read_app(app)
    if file is None and text:
        fix = f"journey-bandit scenario new --app {app} --out scenario.toml writes one; then give --scenario"
        raise InvalidRequest(Problem("scenario", f"{app} has none yet", fix))
    if file is not None and (about := checks.app_of(file)) not in (None, catalogue.app):
        raise InvalidRequest(Problem("scenario", f"{file} is about {about}", f"give --app {about}"))
    made = scenario.load(app) if file is None else checks.read(file, catalogue)
    return SimulatedApp(made, catalogue, text)


def environment_app(app: str | None, file: Path | None, environment: str, stage: str | None) -> SimulatedApp:
    """App whose people come from an environment, `python:FILE.py:NAME`, at `stage`; by default the one with most
    nudges. Raises InvalidRequest for options that do not go together, NotFound for a stage that is not there.
    """
    if app is None or file is not None:
        raise InvalidRequest(
            Problem("environment", "it takes the place of a scenario", "give --app, and no --scenario")
        )
    catalogue, text = read_app(app)
    name = stage or max(catalogue.stages, key=lambda one: len(catalogue.stages[one].nudges))
    catalogue.stage(name)
    own_code.load(environment, "environment")
    return SimulatedApp(study.nobody(catalogue.app, name), catalogue, text)


def options(command: Any) -> Any:
    """The options --app and --scenario, for a command."""
    return APP(SCENARIO(command))
