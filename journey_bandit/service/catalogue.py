"""Command `journey-bandit catalogue`: look at what an app declares, and check one's own."""

import sys
from contextlib import AbstractContextManager, closing
from pathlib import Path

import click

from api.catalogue_files import read_catalogue, read_file
from api.ledger import catalogue_changes
from api.metrics import Metrics
from api.operations.traffic_settings import TrafficSettings
from api.releases.service import ReleaseService
from api.stores import Store, file_of, is_database, open_store
from api.stores.sqlite.copies import to_look_at
from bandit.catalogue.loading import parse, read_shipped, shipped
from bandit.catalogue.model import NONE, Catalogue
from bandit.learning.loss_account import DAY, MONTH
from journey_bandit.service.floor_price import floor_price, loss_sentence, sentence

_NEWEST = 1_000  # decisions of a stage by which its traffic is judged


@click.group()
def catalogue() -> None:
    """Look at a catalogue, or check your own."""


@catalogue.command()
@click.argument("file", metavar="CATALOGUE")
@click.option("--store", help="Also say what becomes of this ledger; its service may be running.")
@click.option("--salt", envvar="JOURNEY_BANDIT_SALT", help="If the service is given one.")
@click.option(
    "--monthly", type=click.FloatRange(min=0.0), help="Decisions of a month at each stage.  [default: as in --store]"
)
def check(file: str, store: str | None, salt: str | None, monthly: float | None) -> None:
    """Report every mistake in CATALOGUE (FILE.toml, or a shipped one) with its path and fix; exit status 1 if there is
    any. Without mistakes it says what learning may cost at each stage, and what its floor costs if nudges do
    nothing, in money.

    With --store: what the ledger refuses when the service starts with this catalogue, what begins anew, what is kept.
    Exit status 0: it starts, and everything that was learned counts. 1: it does not start. 3: it starts, and something
    begins anew, is not declared any more, or (a release) is not served any more.
    """
    found = read_catalogue(file) if file in shipped() else read_file(Path(file))
    nudges = sum(len(stage.nudges) for stage in found.stages.values())
    click.echo(f"{file}: {found.app}, {len(found.stages)} stage(s), {nudges} nudge(s): no mistakes")
    traffic = {} if store is None else _traffic(found, store)
    for name, stage in found.stages.items():
        price, count = floor_price(stage), traffic.get(name) if monthly is None else monthly
        if may := loss_sentence(name, stage, found.currency, count):
            click.echo(may)
        if price is not None:
            click.echo(sentence(name, stage, price, found.currency, count))
    if store is not None:
        sys.exit(_becomes(found, store, salt))


def _to_look_at(store: str) -> AbstractContextManager[Store]:
    return closing(open_store(store, read_only=True)) if is_database(store) else to_look_at(file_of(store))


def _traffic(found: Catalogue, store: str) -> dict[str, float]:
    """Decisions of a month at each stage, as the newest of the ledger came; none for stages with too few to tell."""
    with _to_look_at(store) as ledger:
        end = ledger.last().decision + 1
        newest = {
            name: [row.decision.at for row in ledger.decisions_before(name, end, _NEWEST)] for name in found.stages
        }
    spans = {name: (len(times) - 1, times[0] - times[-1]) for name, times in newest.items() if len(times) > 1}
    return {name: n * MONTH * DAY / span for name, (n, span) in spans.items() if span > 0}


def _becomes(found: Catalogue, store: str, salt: str | None) -> int:
    """Say what becomes of a ledger; the exit status."""
    with _to_look_at(store) as ledger:
        fates = catalogue_changes.fates(ledger, found, salt or None)
        unserved = ReleaseService(ledger, found, Metrics(), TrafficSettings(ledger, found)).unfit
    for fate in fates:
        click.echo(f"{fate.what:<8}  {f'{fate.stage}: ' if fate.stage and fate.what != 'refused' else ''}{fate.why}")
    for why in unserved.values():
        click.echo(f"unserved  {why}")
    what = {fate.what for fate in fates}
    if "refused" in what:
        click.echo("the service does not start with this catalogue on this ledger", err=True)
        return 1
    return 3 if what & {"anew", "removed"} or unserved else 0


@catalogue.command()
@click.argument("app", type=click.Choice(shipped()))
@click.option("--toml", is_flag=True, help="The file itself, to start your own from.")
def show(app: str, toml: bool) -> None:
    """Show a shipped catalogue: each stage with its reward, policy, features and their ranges, and nudges with what
    they cost. With --toml: the file itself.
    """
    text = read_shipped(app)
    click.echo(text if toml else "\n".join(_lines(parse(text, app))))


def _lines(found: Catalogue) -> list[str]:
    lines = [f"{found.app}: {found.title} ({found.currency})", f"  {found.description}"]
    for name, stage in found.stages.items():
        reward, policy = stage.reward, stage.policy.__struct_config__.tag
        lines += ["", f"{name}: {stage.description}"]
        lines += [f"  reward   {reward.description}; {reward.kind}, worth {reward.value:g}, within {reward.window}"]
        lines += [f"  policy   {policy}, floor {stage.common_floor:g}, holdout {stage.holdout:.0%}"]
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
