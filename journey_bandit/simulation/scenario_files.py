"""Commands `journey-bandit scenario new`, `check` and `fit`: a first scenario for one's own catalogue, its mistakes,
and a twin from the app's log.
"""

from pathlib import Path

import click

from bandit.errors import InvalidRequest, Problem
from journey_bandit.simulation import scenario_fit, simulated_app
from simulations.authoring import checks, draft

_APP = click.option("--app", required=True, metavar="CATALOGUE", help="Your FILE.toml, or the name of a shipped app.")


@click.group()
def scenario() -> None:
    """Write, check and fit a scenario: who uses your app, and what each nudge does to them."""


@scenario.command()
@_APP
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write.")
@click.option("--stage", help="The stage to describe in full.  [default: the one with most nudges]")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def new(app: str, out: Path, stage: str | None, force: bool) -> None:
    """Write a commented scenario for a catalogue. It runs at once; every number in it is an assumption to correct."""
    catalogue, _ = simulated_app.read_app(app)
    text = draft.draft(catalogue, stage, app)
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidRequest(Problem("out", f"{out} exists", "give another name, or --force to replace it")) from None
    found = checks.checked(text, catalogue, str(out))
    people = ", ".join(found.personas)
    click.echo(f"{out}: {catalogue.app}, stage {found.stage}, personas {people}. Correct what you know better, then:")
    click.echo(f"  journey-bandit scenario check {out} --app {app}")
    click.echo(f"  journey-bandit simulate --app {app} --scenario {out}")


@scenario.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="SCENARIO")
@_APP
def check(file: Path, app: str) -> None:
    """Report every mistake in SCENARIO (.toml or .json), of form and against the catalogue, each with its line, path
    and fix; exit status 1 if there is any.
    """
    catalogue, _ = simulated_app.read_app(app)
    found = checks.read(file, catalogue)
    legs = f"{len(found.journey)} stage(s) in its journey" if found.journey else "no journey"
    click.echo(f"{file}: {found.app}, stage {found.stage}, {len(found.personas)} persona(s), {legs}: no mistakes")


scenario.add_command(scenario_fit.fit)
