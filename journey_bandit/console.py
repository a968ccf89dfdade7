"""Console: running a simulation or a replay against a service, showing its report, and logging it; shared by the
commands simulate, replay and demo.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bandit.errors import RemoteError
from bandit.snapshot import Snapshot, pack
from journey_bandit.mlflow_server import QUIET
from simulations.datasets import hillstrom
from simulations.live import driver, replay
from simulations.live.client import ServiceClient
from simulations.scenario import Scenario

if TYPE_CHECKING:
    from experiments.reports.report import ReplayPrices, Report, ReportSubject, ReportTable

_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110  # a pipe has no width of its own
_INTERVAL = "[95 %]"  # in the head of a column of intervals
out = Console(highlight=False, width=_WIDTH)
errors = Console(stderr=True, highlight=False)


def simulate(
    client: ServiceClient, world: Scenario, currency: str, *, seed: int, users: int, again: str
) -> tuple["Report", Snapshot]:
    """Drive a live service with the people of a scenario; the report of the run, money in `currency`, and the snapshot
    at its end. `users`: how many people. `again`: the command that makes the run once more, for the report. Raises
    RemoteError if the service does not answer.
    """
    from experiments.reports import report

    app = world.app
    served, declared = client.stage(world.stage)
    if served != app:
        raise RemoteError(f"{client.url} serves {served!r}: start it with --app {app}")
    before = client.snapshot(world.stage)
    with progress(f"{app}: simulated people", users) as advance:
        done = driver.drive(client, world, before.stage_spec, seed=seed, users=users, progress=advance)
    if done.duplicates:
        raise RemoteError(
            f"{done.duplicates} of these people were here before: the ledger holds a run with seed {seed}. "
            "Give another --seed, or start the service on a new --store"
        )
    scale = declared["window_seconds"] / declared["declared_seconds"]
    snapshot = client.snapshot(world.stage)
    data = f"scenario {app}, {users} people, clock × {1 / scale:.0f}"
    subject = _subject(snapshot, seed, again, "simulation", data, alarms_of(client, world.stage))
    return report.simulated(subject, done.log, done.utility, done.net, currency), snapshot


def replay_hillstrom(
    client: ServiceClient, *, seed: int, limit: int | None, again: str | None = None
) -> tuple["Report", Snapshot]:
    """Pass the real customers of the Hillstrom experiment through the service; the report and the snapshot at its end.
    `limit`: how many customers, None for all; `again` as for `simulate`. Raises RemoteError.
    """
    from experiments.reports import report

    with progress("hillstrom: real customers", limit or 32_000) as advance:
        done = replay.hillstrom_replay(client, seed=seed, limit=limit, progress=advance)
    snapshot = client.snapshot(hillstrom.STAGE)
    some = f" --limit {limit}" if limit else ""
    command = again or f"journey-bandit replay hillstrom --seed {seed}{some} --url {client.url}"
    data = f"MineThatData e-mail experiment, even rows, {len(done.visit)} customers"
    subject = _subject(snapshot, seed, command, "replay", data, alarms_of(client, hillstrom.STAGE))
    prices = _prices(snapshot)
    return report.replayed(subject, done.log, done.agreed, done.sent, done.visit, "Visit rate", prices), snapshot


def _prices(snapshot: Snapshot) -> "ReplayPrices":
    """What a visit is worth and what each e-mail costs, as the snapshot's stage declares it."""
    from experiments.reports.report import ReplayPrices

    spec, currency = snapshot.stage_spec, currency_of(snapshot.app)
    nudges = [spec.nudges[arm] for arm in spec.arms[1:]]
    gain = np.array([spec.reward.value, *(spec.reward.value - nudge.cost_when_rewarded for nudge in nudges)])
    cost = np.array([0.0, *(nudge.cost for nudge in nudges)])
    free = not cost.any() and not (gain - gain[0]).any()
    costs = "e-mails cost nothing" if free else "e-mails cost what it declares"
    return ReplayPrices(
        currency, gain, cost, f"The catalogue counts {spec.reward.value:g} {currency} a visit; {costs}."
    )


def currency_of(app: str) -> str:
    """Currency code of the shipped catalogue of `app`, e.g. EUR, for labels of money. Raises NotFound if no catalogue
    of that name is shipped.
    """
    from bandit.catalogue.loading import parse, read_shipped

    return parse(read_shipped(app)).currency


def show(report: "Report") -> None:
    """Print the report's verdict and its tables, one after the other, to standard output, as a person reads them."""
    out.rule(f"[bold]{report.title}")
    out.print(report.verdict)
    if report.conversions:
        out.print(report.conversions, style="dim")
    for sentence in report.loss:
        out.print(sentence)
    for table in report.tables:
        out.print()
        show_table(table)


def show_table(table: "ReportTable") -> None:
    """Print one table of a report to standard output, columns aligned. Intervals are not broken: where the table is too
    wide for the terminal, they stand whole below their estimates.
    """
    widths = _widths(table)
    below = 4 + max((len(row.name) for row in table.rows), default=0) + sum(3 + width for width in widths) > out.width
    shown = Table(title=table.title, title_justify="left", title_style="bold", caption=table.note or None)
    shown.caption_justify = "left"
    shown.add_column("", no_wrap=any(_INTERVAL in head for head in table.head))
    for head, width in zip(table.head, widths, strict=True):
        if _INTERVAL in head:
            shown.add_column(_below(head.replace(", ", ",\n")), justify="right", no_wrap=True)
        else:
            shown.add_column(head, justify="right", max_width=width if below else None)
    for row in table.rows:
        cells = zip(table.head, row.cells, strict=True)
        shown.add_row(row.name, *(_below(cell) if below and _INTERVAL in head else cell for head, cell in cells))
    out.print(shown)


def _below(text: str) -> str:
    return text.replace(" [", "\n[")


def _widths(table: "ReportTable") -> list[int]:
    """How many characters each column but the first needs, if no cell is broken and heads are broken between words."""
    columns = zip(table.head, zip(*(row.cells for row in table.rows), strict=True), strict=False)
    found = [max(len(text) for text in (*head.split(), *cells)) for head, cells in columns]
    return found or [len(head) for head in table.head]


def need_mlflow() -> None:
    """Check for MLflow before any work is done. Raises RemoteError, with the command that installs the extra, when it
    is missing.
    """
    if any(importlib.util.find_spec(name) is None for name in ("mlflow", "matplotlib")):
        raise RemoteError("MLflow is not installed: pip install -c constraints.txt '.[experiments]'")


def quiet() -> None:
    """Settings to make before MLflow is imported: no telemetry, short waits. Raises RemoteError if MLflow is not
    installed.
    """
    need_mlflow()
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})


def log(uri: str, report: "Report", snapshot: Snapshot) -> str:
    """Write the report and its snapshot to MLflow at `uri` as one run; the link to it. Raises RemoteError if MLflow is
    missing or does not answer.
    """
    quiet()
    from experiments.mlflow import tracking

    logged = tracking.write(uri, report, pack(snapshot), {"package": version("journey-bandit"), **git()})
    return tracking.link(uri, logged)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress bar on standard error, as a context manager: call what it gives with the number of
    further steps done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task(what, total=total)
        yield lambda step: bar.update(task, advance=step)


def alarms_of(client: ServiceClient, stage: str) -> tuple[str, ...]:
    """Drift alarms of a stage, each in words, asked of the service. Raises RemoteError if it does not answer."""
    raised = client.policy(stage)["drift"]
    return tuple(f"{a['arm']} {a['direction']} at {a['raised_at']}" for a in raised)


def _subject(
    snapshot: Snapshot, seed: int, command: str, kind: str, data: str, alarms: tuple[str, ...]
) -> "ReportSubject":
    from experiments.reports.report import ReportSubject

    return ReportSubject(
        app=snapshot.app,
        stage=snapshot.stage,
        policy=msgspec.to_builtins(snapshot.stage_spec.policy),
        floor=snapshot.stage_spec.common_floor,
        version=snapshot.version,
        seed=seed,
        command=command,
        belief_sha256=snapshot.belief.digest(),
        kind=kind,
        data=data,
        alarms=alarms,
    )


def git() -> dict[str, str]:
    """Git commit that is checked out where the command runs, as tags for a run; empty if there is none."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit, changes = ask("rev-parse", "HEAD"), ask("status", "--porcelain")
    return {"git_sha": commit, "dirty": str(bool(changes)).lower()} if commit else {}


def finish(report: "Report", snapshot: Snapshot, uri: str | None, *, as_json: bool) -> None:
    """Show a run as a person (tables) or a program (`as_json`) wants it, and log it to MLflow if `uri` is given. Raises
    RemoteError as `log`.
    """
    link = log(uri, report, snapshot) if uri else None
    if as_json:
        body: dict[str, object] = {"policy": report.policy, "verdict": report.verdict, "metrics": report.metrics}
        body |= {"run": link}
        body |= {"conversions": report.conversions} if report.conversions else {}
        body |= {"loss": report.loss} if report.loss else {}
        out.print_json(msgspec.json.encode(body).decode())
        return
    show(report)
    if link:
        out.print(f"\nIn MLflow: {link}", soft_wrap=True)
