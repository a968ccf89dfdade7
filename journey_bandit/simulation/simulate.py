"""Command `journey-bandit simulate`: people whose true behaviour is known, against a live service or offline."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from bandit.errors import InvalidRequest, Problem
from bandit.learning.loss_statement import statement
from journey_bandit import console
from journey_bandit.simulation import harm, price, scenario_checks, sensitivity, simulated_app, simulation_plan
from journey_bandit.simulation.policy_comparison import PolicyComparison, StageComparison, compared, comparison_json
from simulations import scenario
from simulations.live.client import ServiceClient
from simulations.offline.paired import paired
from simulations.offline.parallel import Backend
from simulations.scenario import Scenario
from simulations.twin import ranking

_DEFAULT = ("default", "uniform", "oracle")
_WHAT_IF = {"users": 1000, "seeds": 4}  # where the command line names none: a minute
_OFFLINE = {
    **{name: f"--{name}" for name in ("seeds", "days", "journey", "backend", "workers", "address", "out")},
    **{name: f"--{name}" for name in ("environment", "stage", "guard", "harvesters", "holdout", "box", "events")},
    "what_if": "--what-if", "logs": "--log",
}  # fmt: skip
_TWIN = {"users": 2000, "seeds": 40}  # the same, for a scenario with draws: a seed is a draw


@click.group(invoke_without_command=True)
@simulated_app.options
@click.option("--url", help="Drive this live service, started with `serve --app … --window-scale 1e-5`.")
@click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="API key, unless the service runs with --dev.")
@click.option("--users", default=12_000, show_default=True, type=click.IntRange(min=200))
@click.option("--seed", default=100, show_default=True, type=click.IntRange(min=0), help="The first seed.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="How many. Offline.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    help="default, oracle, fixed:ARM, linear:alpha=0.3, peer:vw, python:FILE.py:NAME … Several may be given. Offline.",
)
@click.option(
    "--days", default=scenario_checks.DAYS, show_default=True, type=click.IntRange(min=1, max=3650), help="Offline."
)
@click.option("--journey", is_flag=True, help="All stages, from onboarding to retention. Offline.")
@click.option("--backend", default="processes", show_default=True, type=click.Choice(("serial", "processes", "dask")))
@click.option("--workers", type=click.IntRange(min=1), help="Runs at a time.  [default: processors]")
@click.option("--address", help="Of a Dask scheduler, e.g. tcp://10.0.0.5:8786.  [default: start one here]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("simulation"), show_default=True)
@click.option("--environment", metavar="CODE", help="People from python:FILE.py:NAME, in place of a scenario. Offline.")
@click.option("--stage", help="The stage of --environment.  [default: the one with most nudges]")
@click.option("--guard", default=0.0, type=click.FloatRange(min=0.0), help="Days without a second coupon. Offline.")
@click.option("--harvesters", type=click.FloatRange(0.0, 1.0), help="Share of every persona who wait for coupons.")
@click.option("--holdout", default=0.0, type=click.FloatRange(0.0, 0.9), help="Share of people left alone. Offline.")
@click.option("--what-if", is_flag=True, help="Where would the first policy lose to no nudge?")
@click.option("--box", type=click.IntRange(min=2), help="The ranking over so many draws of all assumptions.")
@click.option("--events", type=click.Path(path_type=Path), help="Write the first policy's people as Segment events.")
@click.option("--log", "logs", is_flag=True, help="Write every decision, as Parquet, for `evaluate`. Offline.")
@click.option("--mlflow", "uri", help="Log each policy to this MLflow server, e.g. http://127.0.0.1:5000")
@click.option("--json", "as_json", is_flag=True, help="Print the headline metrics as JSON.")
@click.pass_context
def simulate(context: click.Context, /, app: str | None, url: str | None, **given: Any) -> None:
    """Policies on simulated people, so that the value of every decision is known.

    Offline by default: each policy and no nudge meet the same people, seed by seed, and what a policy earns over no
    nudge comes first; finished runs in --out are not run again. With --url: one run over HTTP, on the service's
    compressed clock.

    --what-if: the first policy in worlds whose nudges do nothing, harm, help half or twice as much, and with no fatigue
    or a strong one; then every assumption turned, one at a time. 1,000 users and 4 seeds, if none are given.

    A twin (`scenario fit`) is played in its draws, each seed in another, and policies are ranked by how surely they are
    best. 2,000 users and 40 seeds, if none are given.
    """
    if context.invoked_subcommand is not None:
        return
    if app is None and (url or not given["file"]):
        raise click.UsageError("give --app, or --scenario, or a command")
    if given["uri"]:
        console.need_mlflow()
    if url:
        if given["policies"]:
            raise click.UsageError("--policy goes without --url: the service has its own")
        said = [o for name, o in _OFFLINE.items() if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if said:
            why = "people come once, to one stage, with one seed"
            raise click.UsageError(f"{', '.join(said)}: not with --url, where {why}; leave them out, or --url")
        _live(str(app), url, **given)
    else:
        draws = _draws(given["file"])
        twin = _TWIN | {"seeds": min(_TWIN["seeds"], draws)}
        usual = _WHAT_IF if given["what_if"] else twin if draws and not given["box"] else {}
        unsaid = {name for name in usual if context.get_parameter_source(name) is ParameterSource.DEFAULT}
        _offline(app, **given | {name: usual[name] for name in unsaid})


def _draws(file: Path | None) -> int:
    """How many draws the scenario in `file` has, if that is a twin; else 0."""
    if file is None or file.suffix != ".toml":
        return 0
    return len(scenario.draws(scenario.read(file), file))


def _live(
    app: str,
    url: str,
    *,
    key: str,
    seed: int,
    users: int,
    file: Path | None,
    uri: str | None,
    as_json: bool,
    **_: Any,
) -> None:
    played = simulated_app.simulated_app(app, file)
    world, currency = played.scenario, played.catalogue.currency
    where = f" --scenario {file}" if file else ""
    with ServiceClient(url, key) as client:
        again = f"journey-bandit simulate --app {app}{where} --users {users} --seed {seed} --url {client.url}"
        report, snapshot = console.simulate(client, world, currency, seed=seed, users=users, again=again)
    if snapshot.loss_account is not None:
        words = statement(snapshot.stage_spec, snapshot.loss_account).in_words(currency)
        report = report._replace(loss=words)
    console.finish(report, snapshot, uri, as_json=as_json)


def _offline(
    app: str | None,
    *,
    uri: str | None,
    as_json: bool,
    what_if: bool,
    box: int | None,
    events: Path | None,
    **given: Any,
) -> None:
    plan = planned(app, **given, one_world=what_if or bool(box) or events is not None)
    if plan.environment and (events or what_if or box):
        refused = "--what-if, --box and --events turn what a scenario declares"
        raise InvalidRequest(Problem("environment", refused, "leave them out, or give --scenario"))
    if note := scenario.short_run_warning(plan.scenario, plan.days):
        console.errors.print(f"note: {note}; say --days")
    if events:
        simulation_plan.events(plan, events)
    elif what_if:
        _what_if(plan, as_json=as_json)
    elif box:
        _box(plan, box, as_json=as_json)
    elif plan.draws:
        _rank(plan, uri, as_json=as_json)
    else:
        _compare(plan, uri, as_json=as_json)


def _what_if(plan: simulation_plan.SimulationPlan, *, as_json: bool) -> None:
    app, currency, worlds = plan.scenario.app, plan.currency, harm.results(plan)
    if not as_json:
        console.show_table(harm.table(worlds, app, currency, plan.days))
    found, file = sensitivity.sweep(plan), plan.folder / "tornado.png"
    if as_json:
        answer = {"worlds": harm.as_json(worlds)} | sensitivity.as_json(found)
        console.out.print_json(msgspec.json.encode(answer).decode())
        return
    console.show_table(sensitivity.table(found, currency))
    try:
        from experiments.reports import figures
    except ImportError:
        return
    bars = [(f"{bar.name} ({bar.ends})", bar.low, bar.high) for bar in found.bars]
    title = f"{app}: lead of {found.policies[0]} over the best other policy"
    console.out.print(f"Figure: {figures.tornado(title, f'{currency}/user', bars, found.lead, file)}")


def _box(plan: simulation_plan.SimulationPlan, draws: int, *, as_json: bool) -> None:
    from experiments.reports.report import ReportRow, ReportTable

    found = sensitivity.ranks(plan, draws)
    if as_json:
        console.out.print_json(msgspec.json.encode(found._asdict()).decode())
        return
    rows = [
        ReportRow(policy, (f"{mean:+.2f}", f"{least:+.2f} … {most:+.2f}", f"{100 * best:.0f} %", f"{rank:.2f}"))
        for policy, (mean, least, most), best, rank in zip(*found[:4], strict=True)
    ]
    unit = f"{plan.currency}/user"
    head = (f"over no nudge, mean, {unit}", f"least … most, {unit}", "best", "mean rank")
    note = f"{draws} scenarios; Kendall's τ with the scenario as it stands: mean {sum(found.tau) / draws:+.2f}."
    console.show_table(ReportTable("Ranking by net value, over the whole box", head, tuple(rows), note))


def _rank(plan: simulation_plan.SimulationPlan, uri: str | None, *, as_json: bool) -> None:
    """The policies over the draws of a twin."""
    if uri:
        fix = "leave --mlflow out, or take the line `draws` out of the file for its central scenario alone"
        raise InvalidRequest(Problem("mlflow", "the runs of a twin are of different worlds", fix))
    done = simulation_plan.play(plan, plan.cells())
    ranked = ranking.ranks(paired(done), [policy for policy in plan.policies if policy.startswith("oracle")])
    if not as_json:
        console.show_table(sensitivity.rank_table(plan, ranked, done))
        return
    said: dict[str, Any] = {"app": plan.scenario.app, "users": plan.users, "days": plan.days, "seeds": plan.seeds}
    cells = {f"{one.label}/{one.seed}": one.digest for one in done}
    answer = said | {"ranking": [one._asdict() for one in ranked], "cells": cells}
    console.out.print_json(msgspec.json.encode(answer).decode())


def _compare(plan: simulation_plan.SimulationPlan, uri: str | None, *, as_json: bool) -> None:
    from experiments.reports import simulation_report
    from journey_bandit.simulation import loss_accounts

    made, files, runs = compared(plan), list[Path](), list[str]()
    if plan.journey and not as_json:
        console.show_table(harm.totals(made.done, plan.scenario.app, plan.currency))
    for stage, one in made.stages.items():
        if not as_json:
            console.show_table(simulation_report.table(one.about, one.everyone, one.baseline))
            if one.losses:
                console.show_table(loss_accounts.table(stage, one.losses, plan.currency))
        files += _drawn(plan, stage, one)
        if uri:
            runs += simulation_plan.log(uri, plan, stage, one.everyone)
    if not as_json:
        _show_prices(made)
    _finish(made, runs, files, as_json=as_json)


def _finish(made: PolicyComparison, runs: list[str], files: list[Path], *, as_json: bool) -> None:
    """Say which files there are; as JSON, print the whole answer."""
    answer, reports = comparison_json(made), [str(file) for file in files if file.suffix == ".html"]
    answer |= {"runs": runs} if runs else {}
    answer["figures"] = [str(file) for file in files if file.suffix == ".png"]
    if written := simulation_plan.logs(made.plan, made.done):
        answer["logs"] = written
    answer["reports"] = reports
    if as_json:
        console.out.print_json(msgspec.json.encode(answer).decode())
        return
    for name, file in written.items():
        console.out.print(f"Log of {name}: {file}", soft_wrap=True)
    if files:
        console.out.print(f"Report and figures: {', '.join(reports)}", soft_wrap=True)


def _show_prices(made: PolicyComparison) -> None:
    """Show the learned prices and the audit by the holdout, where there are some."""
    for stage, one in made.stages.items():
        if one.prices:
            console.show_table(price.table(made.done, made.plan.declared, stage))
    if made.audits:
        console.show_table(price.audit_table(made.audits, made.plan.scenario.app, made.plan.currency))


def _drawn(plan: simulation_plan.SimulationPlan, stage: str, one: StageComparison) -> list[Path]:
    """The files of the report and the figures of a stage; none without matplotlib."""
    try:
        from experiments.reports import figures, html_report, simulation_report
    except ImportError:
        console.errors.print("no figures: pip install 'journey-bandit[experiments]'")
        return []
    folder = plan.folder / stage
    drawn = figures.comparison(one.about, one.everyone, one.baseline, folder)
    facts = {"scenario": plan.scenario.app}
    page = html_report.render(simulation_report.study(one.about, one.everyone, one.baseline, facts))
    (folder / "report.html").write_text(page, encoding="utf-8")
    return [folder / "report.html", *drawn]


def planned(
    app: str | None,
    *,
    users: int,
    seed: int,
    seeds: int,
    policies: tuple[str, ...] = (),
    days: int,
    journey: bool = False,
    backend: Backend,
    workers: int | None,
    address: str | None,
    out: Path,
    logs: bool = False,
    holdout: float = 0.0,
    file: Path | None = None,
    guard: float = 0.0,
    harvesters: float | None = None,
    environment: str | None = None,
    stage: str | None = None,
    one_world: bool = False,
    command: str = "",
    **_: Any,
) -> simulation_plan.SimulationPlan:
    """Simulation plan that the options say. Raises InvalidRequest for options that do not go together. `seed` is the
    first of `seeds` seeds. `one_world`: leave the draws of a twin alone. `command`: what makes the run again, "" for
    the command line of this process.
    """
    if len(set(policies)) < len(policies):
        raise InvalidRequest(Problem("policy", "the same one twice", "name each once"))
    if environment and (journey or guard or harvesters is not None):
        raise InvalidRequest(
            Problem("environment", "--journey, --guard and --harvesters are of scenarios", "leave out")
        )
    if environment:
        played = simulated_app.environment_app(app, file, environment, stage)
    else:
        played = simulated_app.simulated_app(app, file)
    draws = scenario.draws(played.scenario, file) if file is not None and not one_world else ()
    if draws and seeds > len(draws):
        raise InvalidRequest(Problem("seeds", f"the twin has {len(draws)} draws", f"--seeds {len(draws)} or fewer"))
    return simulation_plan.SimulationPlan(
        scenario=_changed(played.scenario, guard, harvesters),
        draws=tuple(_changed(one, guard, harvesters) for one in draws[:seeds]),
        catalogue=played.text,
        environment=environment or "",
        policies=policies or _DEFAULT,
        users=users,
        days=days,
        seeds=tuple(range(seed, seed + seeds)),
        journey=journey,
        backend=backend,
        workers=workers,
        address=address,
        out=out,
        logs=logs,
        command=command or shlex.join(["journey-bandit", *sys.argv[1:]]),
        holdout=holdout,
    )


def _changed(made: Scenario, guard: float, harvesters: float | None) -> Scenario:
    """The scenario with the options that change it."""
    replace = msgspec.structs.replace
    if harvesters is not None:
        personas = {name: replace(p, harvests=harvesters) for name, p in made.personas.items()}
        made = replace(made, personas=personas)
    return replace(made, coupons=replace(made.coupons, cap_days=guard)) if guard else made


for _command in (scenario_checks.validate, scenario_checks.blanket, scenario_checks.fatigue):
    simulate.add_command(_command)
