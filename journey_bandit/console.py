"""Console: running a simulation or a replay against a service, showing its report, and logging it; shared by the
commands simulate, replay and demo.
"""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from bandit.errors import RemoteError
from bandit.snapshot import Snapshot, pack
from journey_bandit.mlflow_server import QUIET
from journey_bandit.progress import progress
from simulations.datasets import hillstrom
from simulations.live import driver, replay
from simulations.live.client import ServiceClient
from simulations.scenario import Scenario

if TYPE_CHECKING:
    from experiments.reports.report import ReplayPrices, Report, ReportSubject, ReportTable

_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110  # a pipe has no width of its own
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
    """Print one table of a report to standard output, columns aligned. Where it is too wide for the terminal, intervals
    stand whole below their estimates; where that is not enough, its columns are printed in parts, each with the names.
    Neither names nor numbers are cut.
    """
    below = _total(table, [_width(head, cells, 1, below=False) for head, cells in _columns(table)]) > out.width
    for cap in (40, 24, 16, 12, 1):  # heads are wrapped no more than they have to be
        widths = [_width(head, cells, cap, below=below) for head, cells in _columns(table)]
        if _total(table, widths) <= out.width:
            break
    groups = _groups(widths, out.width - _names(table) - 4)
    for number, group in enumerate(groups):
        shown = Table(title=table.title if number == 0 else f"{table.title}, continued")
        shown.title_justify, shown.title_style = "left", "bold"
        shown.add_column("", width=_names(table), overflow="fold")
        for place in group:
            head = table.head[place]
            broken = _below(head) if _INTERVAL.search(head) else head
            shown.add_column(broken, justify="right", width=widths[place], overflow="fold")
        for row in table.rows:
            cells = [row.cells[place] for place in group]
            shown.add_row(row.name, *(_below(cell) if below else cell for cell in cells))
        out.print(shown)
    if table.note:
        out.print(table.note, style="italic")


_INTERVAL = re.compile(r" \[\d+ %\]$")  # at the end of the head of a column of intervals
_LONGEST = 34  # characters of a cell or a name; what is longer is wrapped


def _columns(table: "ReportTable") -> list[tuple[str, list[str]]]:
    return [(head, [row.cells[place] for row in table.rows]) for place, head in enumerate(table.head)]


def _names(table: "ReportTable") -> int:
    """Characters of the column of names."""
    return min(max((len(row.name) for row in table.rows), default=0), _LONGEST)


def _total(table: "ReportTable", widths: list[int]) -> int:
    return _names(table) + 4 + sum(width + 3 for width in widths)


def _width(head: str, cells: list[str], cap: int, *, below: bool) -> int:
    """Characters that a column needs: of its cells, unbroken but for what is long, and of its head, which is wrapped
    at `cap` characters and between words.
    """
    lines = [line for cell in cells for line in (_below(cell).split("\n") if below else [cell])]
    words = textwrap.wrap(_INTERVAL.sub("", head), cap, break_long_words=False, break_on_hyphens=False)
    ends = max(map(len, _INTERVAL.findall(head)), default=1) - 1
    return max(ends, max(map(len, words), default=0), min(max(map(len, lines), default=0), _LONGEST))


def _groups(widths: list[int], room: int) -> list[list[int]]:
    """Columns by place in groups, each of which fits `room` characters; none is empty."""
    groups, left = [list[int]()], room
    for place, width in enumerate(widths):
        if groups[-1] and width + 3 > left:
            groups.append([])
            left = room
        groups[-1].append(place)
        left -= width + 3
    return groups


def _below(text: str) -> str:
    return text.replace(" [", "\n[")


def need_mlflow() -> None:
    """Check for MLflow before any work is done. Raises RemoteError, with the command that installs the extra, when it
    is missing.
    """
    if any(importlib.util.find_spec(name) is None for name in ("mlflow", "matplotlib")):
        raise RemoteError("MLflow is not installed: pip install 'journey-bandit[experiments]'")


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
