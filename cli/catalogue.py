"""`journey-bandit catalogue`: look at what an app declares, and check one's own."""

import sys
from pathlib import Path

import click

from api import ledger
from api.catalogues import read_file
from api.stores import open_store
from bandit.catalogue import NONE, Catalogue, parse, read_shipped, shipped


@click.group()
def catalogue() -> None:
    """Look at a catalogue, or check your own."""


@catalogue.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--store", help="Of a service: also say what its ledger would refuse, before the restart.")
@click.option("--salt", envvar="JOURNEY_BANDIT_SALT", help="With --store: if the service was given one.")
def check(file: Path, store: str | None, salt: str | None) -> None:
    """Report every mistake in FILE with its path and fix; exit status 1 if there is any, or if the ledger refuses."""
    found = read_file(file)
    nudges = sum(len(stage.nudges) for stage in found.stages.values())
    click.echo(f"{file}: {found.app}, {len(found.stages)} stage(s), {nudges} nudge(s): no mistakes")
    if store:
        sys.exit(_against(found, store, salt))


def _against(found: Catalogue, store: str, salt: str | None) -> int:
    """Say what a restart would do with the ledger; the exit status."""
    opened = open_store(store, read_only=True)
    try:
        refused = ledger.refusals(opened.meta(), found, salt)
        expected = [] if refused else ledger.consequences(opened, found)
    finally:
        opened.close()
    for line in refused:
        click.echo(f"refused: {line}")
    for line in expected:
        click.echo(f"  {line}")
    click.echo(f"{store}: {'would be refused' if refused else 'can be served'}")
    return 1 if refused else 0


@catalogue.command()
@click.argument("app", type=click.Choice(shipped()))
@click.option("--toml", is_flag=True, help="The file itself, to start your own from.")
def show(app: str, toml: bool) -> None:
    """Show a shipped catalogue: stages, features, nudges, rewards."""
    text = read_shipped(app)
    click.echo(text if toml else "\n".join(_lines(parse(text, app))))


def _lines(found: Catalogue) -> list[str]:
    lines = [f"{found.app}: {found.title} ({found.currency})", f"  {found.description}"]
    for name, stage in found.stages.items():
        reward, policy = stage.reward, stage.policy.__struct_config__.tag
        lines += ["", f"{name}: {stage.description}"]
        lines += [f"  reward   {reward.description}; {reward.kind}, worth {reward.value:g}, within {reward.window}"]
        lines += [f"  policy   {policy}, floor {stage.floor:g}, holdout {stage.holdout:.0%}"]
        for key, feature in stage.features.items():
            span = f"{feature.min:g} to {feature.max:g}" if feature.type == "number" else ", ".join(feature.values)
            lines.append(f"  feature  {key}: {feature.type} {span}".rstrip() + f" (default {feature.default})")
        lines.append(f"  nudge    {NONE}: shows nothing, the baseline")
        for key, nudge in stage.nudges.items():
            price = [f"{nudge.cost:g} shown"] * (nudge.cost > 0)
            price += [f"{nudge.cost_when_rewarded:g} when rewarded"] * (nudge.cost_when_rewarded > 0)
            needs = f"; needs evidence of {nudge.evidence.kind}" if nudge.evidence else ""
            cost = f", costs {' and '.join(price)}" if price else ""
            lines.append(f"  nudge    {key}: {nudge.type} as {nudge.format}{cost}{needs}")
    return lines
