"""Command `journey-bandit monitor`: the live lift of a stage against its holdout, and whether nudges are shown as
drawn.
"""

import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from bandit.learning.holdout_audit import HoldoutAudit
from experiments.inference.sample_ratio import ALARM
from experiments.inference.wording import number
from experiments.ope.evaluate import evaluation_json
from experiments.promotion import lift_monitor as core
from experiments.promotion.lift_monitor import HOLDOUT, NONE, LiftReport
from journey_bandit import console
from journey_bandit.evaluation import presentation
from journey_bandit.evaluation.presentation import REFUSED
from journey_bandit.workflows import ledger_log


@click.command()
@click.option(
    "--ledger",
    required=True,
    envvar="JOURNEY_BANDIT_LEDGER",
    help="A service's ledger: its file; the service may be running.  [or JOURNEY_BANDIT_LEDGER]",
)
@click.option("--stage", required=True)
@click.option(
    "--measure",
    type=click.Choice(["net", "reward"]),
    default="net",
    show_default=True,
    help="net: in currency, less costs.",
)
@click.option("--level", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.999999))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def monitor(ledger: str, stage: str, measure: str, level: float, as_json: bool) -> None:
    """What the stage earns over no nudge, in the first line, and less what its holdout earns, by the decisions whose
    rewards are final.

    The interval is for one look at a time that was fixed beforehand; the sequence may be looked at always. Exit status
    3: the holdout cannot answer, or nudges are not shown as they were drawn.
    """
    log = ledger_log.open_log(ledger, stage)
    floor = log.spec.common_floor
    net = core.monitor(log.source(), log.rewards, log.worth, level, floor=floor)
    found = net if measure == "net" else core.monitor(log.source(), log.rewards, None, level, floor=floor)
    crossed, lacks = log.contamination(), ledger_log.of_those_who_stay(log)
    people = log.people()
    if as_json:
        presentation.write(
            {
                "app": log.app,
                "stage": stage,
                "measure": measure,
                "money": presentation.money_json(net.gain(log.currency)),
                **_body(found),
                "people": None if people is None else msgspec.structs.asdict(people),
                "notes": [*lacks, *notes(found)],
                "control": crossed._asdict(),
            }
        )
    else:
        unit = f"net value, {log.currency}," if measure == "net" else "reward"
        for line in _lines(net, f"{log.app}/{stage}", log.currency, level):
            console.out.print(line, soft_wrap=True, markup=False)
        _show(found, log.arms, f"{unit} per decision, {100 * level:g} %")
        if people is not None:
            console.out.print(f"people: {_of_people(people, log.currency)}", soft_wrap=True)
        for note in lacks:
            console.out.print(f"note: {note}")
        if crossed.exposed:
            share = f"{crossed.exposed:,} of {crossed.control:,} decisions of the holdout"
            before = "before they came into the holdout (it grew, or ids were joined)"
            console.out.print(f"note: {share} were of people who had been shown nudges {before}", soft_wrap=True)
    sys.exit(REFUSED if found.lift.refused or found.alarms else 0)


def _lines(net: LiftReport, name: str, currency: str, level: float) -> Iterator[str]:
    """What the stage earns over no nudge in lines, one figure first; `net` is in currency."""
    yield f"{name}: {net.headline(currency, level)}"
    yield f"measured {net.basis}"
    gain = net.gain(currency)
    if gain is not None:
        if gain.monthly:
            yield f"a month, with the same bounds: {gain.monthly}"
        yield f"by this look alone, whatever was looked at before: {gain.risk.removeprefix('by this look alone ')}"
        if gain.more_data:
            yield f"more data: {gain.more_data}"
    yield counted(net)


def counted(found: LiftReport) -> str:
    """How many of the decisions count, in words: those before the first whose reward is not final."""
    rows, lacks = found.over_none.rows, found.uncounted
    if not lacks:
        return f"counted: all {rows:,} decisions, their rewards are final"
    share = f"{rows - lacks:,} of {rows:,} decisions: {lacks:,} ({lacks / rows:.1%}) are open, or were made after one"
    much = "; so many that this is of earlier decisions, and may not be of today's" if lacks > 0.1 * rows else ""
    return f"counted: {share} that is{much}"


def _of_people(people: HoldoutAudit, currency: str) -> str:
    more = "more" if people.difference >= 0.0 else "less"
    amount = f"{number(abs(people.difference), '.4g')} {currency} {more}"
    words = f"a person brought {amount} in all with nudges than one in the holdout"
    if people.low is None or people.high is None:
        return f"{words} (too few people for an interval)"
    counts = f"{people.people:,} people with, {people.holdout:,} without"
    ends = f"{number(people.low, '+.4g')} to {number(people.high, '+.4g')}, above 0 is more"
    return f"{words} (95 %, one look: {ends}; {counts})"


def _body(found: LiftReport) -> dict[str, Any]:
    lift, over = evaluation_json(found.lift), evaluation_json(found.over_none)
    return {
        "n": found.lift.n,
        "lift": lift["contrasts"].get(HOLDOUT),
        "live": lift["estimates"].get("dr"),
        "over_none": over["contrasts"].get(NONE),
        "recurring_users": found.recurring,
        "routing": {"evidence": found.stage.evidence if found.stage else 1.0, "alarms": found.alarms},
        "diagnostics": lift["diagnostics"],
        "rows": found.over_none.rows,
        "uncounted": found.uncounted,
        "refused": lift["refused"],
        "over_none_refused": over["refused"] or [refusal._asdict() for refusal in found.silent],
        "assignment": {"holdout": lift.get("assignment"), "nudges": over.get("assignment")},
    }


def notes(found: LiftReport) -> list[str]:
    """Notes on a lift report, in words: on the comparison with the holdout, and on how nudges were assigned (sample
    ratio).
    """
    shares = found.over_none.shares
    nudges = shares and shares.note(found.over_none.diagnostics["propensity_evidence"])
    return [*found.lift.notes, *([f"nudges: {nudges}"] if nudges else [])]


def _show(found: LiftReport, arms: tuple[str, ...], unit: str) -> None:
    for what, refusals in (("", found.lift.refused), ("no nudge, by propensities: ", found.silent)):
        for refusal in refusals:
            why = f"{what}{refusal.reason}: {refusal.detail}. Needed: {refusal.needed}"
            console.out.print(f"[bold]refused[/]: {why}", soft_wrap=True)
    over = {"live less no nudge, by propensities": found.over_none.contrasts.get(NONE)}
    over |= {"live less holdout, a second answer": found.lift.contrasts.get(HOLDOUT)}
    lines = {name: e for name, e in over.items() if e is not None}
    if "dr" in found.lift.estimates:
        lines["live by itself, no difference"] = found.lift.estimates["dr"]
    counts = found.over_none.n + found.over_none.holdout
    presentation.print_table(f"{counts:,} decisions whose rewards are final", "", lines, unit)
    if len(over) == len(lines) - 1:
        held = f"by the {found.held:,} held-out decisions alone"
        console.out.print(f"both differences ask the same; the second answers {held}, so it varies more")
    for note in notes(found):
        console.out.print(f"note: {note}")
    if found.recurring:
        console.out.print("note: users come back, and stay in or out of the holdout: there is no sequence of the lift")
    if found.stage is None:
        return
    console.out.print(f"shown as drawn: evidence against it {found.stage.evidence:.3g}; {ALARM:g} would be an alarm")
    for version in found.alarms:
        suspect = arms[found.versions[version].suspect]
        console.out.print(f"[bold]ALARM[/]: version {version}: {suspect} is not shown as often as it was drawn")
