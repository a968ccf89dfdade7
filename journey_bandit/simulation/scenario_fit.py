"""Command `journey-bandit scenario fit`: a twin of one's own app, from what its service logged, judged on what it did
not see.
"""

from pathlib import Path
from typing import Any

import click
import msgspec

from bandit.catalogue.model import Catalogue
from bandit.errors import InvalidRequest, NotFound, Problem
from journey_bandit import console
from journey_bandit.simulation import simulated_app
from journey_bandit.workflows import app_logs
from journey_bandit.workflows.app_logs import StageLog
from simulations.twin import fit as twin_fit
from simulations.twin import journey_fit, judgement, twin_file
from simulations.twin.fit import Twin
from simulations.twin.judgement import Prediction, TwinJudgement


@click.command()
@click.option("--app", required=True, metavar="CATALOGUE", help="Your FILE.toml, or the name of a shipped app.")
@click.option("--store", metavar="URL", help="The service's ledger, e.g. sqlite:///ledger.db. It is only read.")
@click.option("--log", "file", type=click.Path(path_type=Path), help="A Parquet log in its place: one stage.")
@click.option("--stage", help="The stage to describe in full.  [default: the one with most decisions]")
@click.option("--journey", is_flag=True, help="Also fit the other stages, and how people move between them.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("twin.toml"), show_default=True)
@click.option("--draws", default=80, show_default=True, type=click.IntRange(min=8, max=1000), help="Scenarios drawn.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Of the draws.")
@click.option("--force", is_flag=True, help="Replace the files if they exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fit(
    app: str,
    store: str | None,
    file: Path | None,
    stage: str | None,
    journey: bool,
    out: Path,
    draws: int,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Fit a twin: a scenario of your app, from its log, with draws of whole scenarios that the log allows.

    A twin that is fitted to the first four fifths of the log predicts the last fifth, and the table says how well. The
    one that is written knows the whole log. `simulate --scenario twin.toml` then ranks policies over its draws.
    """
    if (store is None) == (file is None):
        raise click.UsageError("give --store URL, or --log FILE")
    if out.suffix != ".toml":
        raise InvalidRequest(Problem("out", f"{out} does not end in .toml", "e.g. --out twin.toml"))
    taken = [path for path in (out, out.with_name(f"{out.stem}.draws.jsonl")) if path.exists()]
    if taken and not force:
        raise InvalidRequest(Problem("out", f"{taken[0]} exists", "give another name, or --force to replace it"))
    if journey and store is None:
        raise click.UsageError("--journey needs --store: a file holds one stage")
    catalogue, _ = simulated_app.read_app(app)
    rich = _rich(catalogue, store, file, stage)
    declared = catalogue.stage(rich.stage)
    judged = judgement.judge(catalogue.app, rich.stage, declared, rich.log, draws=draws, seed=seed)
    twin = twin_fit.fit(catalogue.app, rich.stage, declared, rich.log, draws=draws, seed=seed)
    if journey:
        assert store is not None  # noqa: S101 - looked at above
        twin = _with_journey(catalogue, store, rich, twin, draws=draws, seed=seed)
    beside = twin_file.write(twin.scenario, twin.draws, out, _head(twin, judged))
    _answer(catalogue, rich, twin, judged, (out, beside), app + " --journey" * journey, as_json=as_json)


def _rich(catalogue: Catalogue, store: str | None, file: Path | None, stage: str | None) -> StageLog:
    """Log of the stage that is described in full."""
    if file is not None:
        found = app_logs.of_parquet(file, catalogue)
        if stage not in (None, found.stage):
            raise InvalidRequest(Problem("stage", f"{file} is of {found.stage}", f"leave it out, or {found.stage}"))
        return found
    assert store is not None  # noqa: S101 - the command line has one of the two
    if stage is not None:
        catalogue.stage(stage)
        return app_logs.of_ledger(store, stage, catalogue.stage(stage))
    logs = _stages(catalogue, store)
    if not logs:
        raise InvalidRequest(Problem("store", "no decision at any stage", "fit to a ledger that has some"))
    return max(logs.values(), key=lambda one: len(one.log.arm))


def _stages(catalogue: Catalogue, store: str) -> dict[str, StageLog]:
    """Logs of all stages that the ledger has decisions of, and whose nudges are declared."""
    found = {}
    for name, declared in catalogue.stages.items():
        if declared.has_request_actions:
            continue
        try:
            found[name] = app_logs.of_ledger(store, name, declared)
        except (NotFound, InvalidRequest) as error:
            if isinstance(error, InvalidRequest) and error.problems[0].field == "app":
                raise
    return found


def _with_journey(catalogue: Catalogue, store: str, rich: StageLog, twin: Twin, *, draws: int, seed: int) -> Twin:
    """Twin with the other stages in short. Raises InvalidRequest with every stage whose log is too short."""
    logs = _stages(catalogue, store) | {rich.stage: rich}
    mistakes = [
        Problem(f"journey.{name}", "the ledger has no decision there", "fit without --journey")
        for name in catalogue.stages
        if name not in logs
    ]
    others = {}
    for name, one in logs.items():
        if name != rich.stage:
            try:
                others[name] = twin_fit.fit(catalogue.app, name, catalogue.stage(name), one.log, draws=draws, seed=seed)
            except InvalidRequest as error:
                mistakes += [Problem(f"journey.{name}", p.problem, "fit without --journey") for p in error.problems]
    if mistakes:
        raise InvalidRequest(*mistakes)
    names = tuple(catalogue.stages)
    seen = journey_fit.StageVisits.of([(names.index(name), one.log) for name, one in logs.items()])
    moves = journey_fit.moves(names, seen)
    return journey_fit.with_journey(twin, others, moves, journey_fit.visits(names, seen, moves), seed=seed)


def _head(twin: Twin, judged: TwinJudgement) -> list[str]:
    """Comment at the top of a twin's file."""
    about = twin.scenario
    told = [
        f"Twin of {about.app}, stage {about.stage}: fitted by `journey-bandit scenario fit` to "
        f"{twin.decisions:,} decisions, {twin.rewards:,} of them rewarded.",
        f"Judged on the last fifth of the log: {judged.covered} of {len(judged.predictions)} predictions were inside "
        "their 90 % intervals.",
    ]
    told += [f"Do not believe: {_doubt(one)}" for one in judged.doubts]
    return [*told, *twin_fit.NEUTRAL]


def _doubt(one: Prediction) -> str:
    return f"{one.what}: {one.seen:.3g} {one.unit}, predicted {one.low:.3g} to {one.high:.3g}"


def _answer(
    catalogue: Catalogue,
    rich: StageLog,
    twin: Twin,
    judged: TwinJudgement,
    written: tuple[Path, Path],
    app: str,
    *,
    as_json: bool,
) -> None:
    if as_json:
        body: dict[str, Any] = {
            "app": catalogue.app,
            "stage": rich.stage,
            "decisions": twin.decisions,
            "rewards": twin.rewards,
            "dropped": rich.dropped,
            "design_effect": twin.design_effect,
            "covered": judged.covered,
            "predictions": [one._asdict() | {"inside": one.inside} for one in judged.predictions],
            "doubts": [one.what for one in judged.doubts],
            "files": [str(path) for path in written],
        }
        console.out.print_json(msgspec.json.encode(body).decode())
        return
    from experiments.reports.report import ReportRow, ReportTable

    rows = [
        ReportRow(
            f"{one.what}, {catalogue.currency if one.unit == 'currency' else one.unit}",
            (f"{one.n:,}", f"{one.seen:.3g}", f"{one.low:.3g} to {one.high:.3g}",
             "NO" if one in judged.doubts else "yes" if one.inside else "no"),
        )
        for one in judged.predictions
    ]  # fmt: skip
    n = len(judged.predictions)
    note = f"{judged.covered} of {n} inside their 90 % intervals ({0.9 * n:.0f} expected). NO: by more than chance."
    title = f"{catalogue.app}/{rich.stage}: the last {judged.predicted:,} decisions, predicted from {judged.fitted:,}"
    console.show_table(ReportTable(title, ("n", "seen", "90 % interval", "inside"), tuple(rows), note))
    if rich.dropped:
        console.errors.print(f"note: {rich.dropped:,} decisions left out: the catalogue does not declare their nudges")
    if judged.doubts:
        console.out.print("Do not believe the twin where it says: " + "; ".join(_doubt(one) for one in judged.doubts))
    console.out.print(f"{written[0]}, and {len(twin.draws)} draws in {written[1].name}. Then:")
    console.out.print(f"  journey-bandit simulate --app {app} --scenario {written[0]} --policy default --policy oracle")
