"""Commands `journey-bandit simulate validate`, `blanket` and `fatigue`: how far to believe a scenario, and what it
says.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
import msgspec

from bandit.errors import InvalidRequest, Problem
from journey_bandit import column_names, console
from journey_bandit.simulation import simulated_app
from simulations.scenario import short_run_warning
from simulations.validation import calibration as moments
from simulations.validation import dynamic_program
from simulations.validation import incrementality as apart
from simulations.validation import realism as real_sessions

AUC = 0.6
"""Above it, simulated sessions are too unlike real ones."""

DAYS = 30
"""That `simulate` takes unless it is told another number."""

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@simulated_app.options
@click.option("--sessions", type=click.Path(path_type=Path), help="The UCI online shoppers table: a two-sample test.")
@click.option("--export", type=click.Path(path_type=Path), help="Your own numbers: a CSV with metric,value.")
@column_names.OPTION
@click.option("--save", type=click.Path(path_type=Path), help="Where the fitted scenario goes, for `--scenario`.")
@_JSON
def validate(
    app: str | None,
    file: Path | None,
    sessions: Path | None,
    export: Path | None,
    renamed: tuple[str, ...],
    save: Path | None,
    as_json: bool,
) -> None:
    """Compare a scenario's moments with calibration ranges, or with your own export, and fit it to that.

    Metrics of an export: rate.STAGE, again.STAGE (reward at the next visit given one at this), repeat.p50 (days between
    visits), delay.p50 (hours to the reward, no nudge); quantiles p10, p25, p50, p75, p90.
    """
    if (app is None and file is None) == (sessions is None):
        raise click.UsageError("give --app, or --sessions FILE")
    if save and not export:
        raise click.UsageError("--save goes with --export")
    if renamed and not export:
        raise click.UsageError("--map goes with --export")
    if sessions is not None:
        _two_sample(sessions, as_json=as_json)
        return
    scenario, catalogue, text = simulated_app.simulated_app(app, file)
    app = catalogue.app
    if export is None:
        _answer(app, moments.check(scenario, moments.shipped_targets(app), text), as_json=as_json)
        return
    targets, notes = moments.read_export(export, column_names.pairs(renamed))
    others = moments.unmeasured_targets(app, targets)
    before, fitted = moments.check(scenario, targets, text), moments.fit(scenario, targets, text)
    after, kept = moments.check(fitted, targets, text), moments.check(fitted, others, text)
    left = moments.left_ranges(moments.check(scenario, others, text), kept)
    if save:
        save.write_bytes(msgspec.json.format(msgspec.json.encode(fitted), indent=1))
    if not as_json:
        console.show_table(_table(f"{app}: before the fit", before))
    for note in (
        *notes,
        *[f"the fit left a calibration range: {each}" for each in left],
        short_run_warning(fitted, DAYS),
    ):
        if note:
            console.errors.print(f"note: {note}")
    ours = [t for t in others if t.moment in moments.TUNED]  # no measurement contradicts what we tuned ourselves
    title = f"{app}: fitted, and the calibration that it must keep"
    _answer(app, [*after, *kept], as_json=as_json, title=title, noted=ours)


@click.command()
@simulated_app.options
@click.option("--arm", help="The nudge.  [default: the dearest]")
@_JSON
def blanket(app: str | None, file: Path | None, arm: str | None, as_json: bool) -> None:
    """One nudge to everyone: rewards up, net value up or down, and why, by persona. Exact, of first visits."""
    asked = _asked(app, file)
    people, app, currency = asked.rich, asked.catalogue.app, asked.catalogue.currency
    arms = people.stage.arms
    dear = people.stage.reward.value - people.worth.gain + people.worth.cost
    arm = arm or arms[1 + int(dear[1:].argmax())]
    if arm not in arms[1:]:
        raise InvalidRequest(Problem("arm", f"{arm!r} is no nudge of {people.name}", f"one of {', '.join(arms[1:])}"))
    parts = apart.incremental_parts(people, arm)
    if as_json:
        console.out.print_json(msgspec.json.encode({p.persona: {**p._asdict(), "net": p.net} for p in parts}).decode())
        return
    from experiments.reports.report import ReportRow, ReportTable

    rows = [
        ReportRow(
            p.persona,
            (
                f"{100 * p.weight:.0f} %",
                f"{100 * p.rate:.2f} → {100 * p.lifted:.2f} %",
                *(f"{v:+.3f}" for v in (p.won, -p.sure, -p.others, -p.shown, p.net)),
            ),
        )
        for p in parts
    ]
    head = ("share", "reward rate", "won", "given to sure", "given to won", "shown", "net")
    last = parts[-1]
    base = last.rate * people.stage.reward.value * people.amount
    note = (
        f"{currency} a visit. In all: rewards {100 * (last.lifted / last.rate - 1):+.1f} %, "
        f"net value {100 * last.net / base:+.1f} %. Sure: would have come anyway."
    )
    console.show_table(ReportTable(f"{app}/{people.name}: {arm} for everyone", head, tuple(rows), note))


@click.command()
@simulated_app.options
@click.option("--visits", default=10, show_default=True, type=click.IntRange(min=1, max=1000))
@_JSON
def fatigue(app: str | None, file: Path | None, visits: int, as_json: bool) -> None:
    """The long run by dynamic programming: what nudging now costs later, and the price that a nudge should carry."""
    asked = _asked(app, file)
    app, currency = asked.catalogue.app, asked.catalogue.currency
    found = dynamic_program.longrun(asked.scenario, asked.rich, visits)
    if as_json:
        console.out.print_json(msgspec.json.encode({**found._asdict(), "share": found.share}).decode())
        return
    from experiments.reports.report import ReportRow, ReportTable

    rows = tuple(
        ReportRow(name, (f"{value:.3f}", f"{100 * (value / found.none - 1):+.2f} %"))
        for name, value in (
            ("no nudge", found.none),
            ("myopic", found.myopic),
            (f"price {found.price:.3f}", found.priced),
            ("dynamic programme", found.best),
        )
    )
    note = f"The constant price brings {100 * found.share:.0f} % of the best policy's gain."
    head = (f"{currency} in {visits} visits", "over no nudge")
    console.show_table(ReportTable(f"{app}: the long run of one user", head, rows, note))


def _two_sample(file: Path, *, as_json: bool) -> None:
    """Show the test, and end with status 1 where a classifier tells real sessions from simulated ones too well."""
    found = real_sessions.two_sample(real_sessions.read(file))
    if as_json:
        console.out.print_json(msgspec.json.encode(found._asdict()).decode())
    else:
        console.out.print(
            f"{found.real:,} real sessions: told from simulated ones with an AUC of {found.auc:.3f} "
            f"(from shuffled real ones {found.shuffled:.3f}; 0.5 is by chance)"
        )
    if found.auc >= AUC:
        raise click.ClickException(f"an AUC of {found.auc:.3f} is not below {AUC}")


def _asked(app: str | None, file: Path | None) -> simulated_app.SimulatedApp:
    if app is None and file is None:
        raise click.UsageError("give --app, or --scenario")
    return simulated_app.simulated_app(app, file)


def _answer(
    app: str,
    checked: list[moments.CheckedMoment],
    *,
    as_json: bool,
    title: str | None = None,
    noted: Collection[moments.CalibrationTarget] = (),
) -> None:
    """Show, and end with status 1 where something does not fit that was not `noted` before."""
    if as_json:
        body: list[dict[str, Any]] = [{**c.target._asdict(), "value": c.value, "fits": c.fits} for c in checked]
        console.out.print_json(msgspec.json.encode(body).decode())
    else:
        console.show_table(_table(title or f"{app}: calibration", checked))
    wrong = [c.target.metric for c in checked if not (c.fits or c.target in noted)]
    if wrong:
        raise click.ClickException(f"does not fit: {', '.join(wrong)}")


def _table(title: str, checked: list[moments.CheckedMoment]) -> Any:
    from experiments.reports.report import ReportRow, ReportTable

    rows = [
        ReportRow(
            c.target.metric,
            (f"{c.value:.4g}", f"{c.target.low:.4g} – {c.target.high:.4g}", "yes" if c.fits else "NO", c.target.source),
        )
        for c in checked
    ]
    return ReportTable(title, ("simulator", "wanted", "fits", "source"), tuple(rows))
