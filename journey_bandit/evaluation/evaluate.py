"""Command `journey-bandit evaluate`: off-policy evaluation, what a policy would have earned on a log that another one
made.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import click

from api.catalogue_files import read_catalogue
from experiments.data.rounds import LoggedRounds, RewardRange, Source
from experiments.inference.intervals import LEVEL
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.estimators import EstimatorSettings
from experiments.ope.evaluate import Evaluation, PartRunner
from journey_bandit import column_names
from journey_bandit.evaluation import log_sources, policy_names, presentation, workers
from journey_bandit.evaluation.experiment import events, table
from journey_bandit.evaluation.log_sources import EvaluationLog, RequestedPolicies
from journey_bandit.evaluation.presentation import DisplayOptions
from journey_bandit.evaluation.public_data import hillstrom, open_bandit
from journey_bandit.progress import Advance, progress
from journey_bandit.workflows import verdicts
from journey_bandit.workflows.verdicts import PolicyVerdict
from simulations.offline.parallel import Backend

T = TypeVar("T")


class EvaluationOptions(NamedTuple):
    """Options of an evaluation, whatever the log: the thresholds of estimators, with SLOPE's beside them or not
    (`slope`), with confidence sequences or not, `prefix` and `force` as in `EvaluationConfig`, the `level` of intervals
    in (0, 1), and how many workers read the log, and where.
    """

    knobs: EstimatorSettings = EstimatorSettings()
    slope: bool = False
    sequence: bool = True
    prefix: bool = False
    force: bool = False
    level: float = LEVEL
    workers: int = 1
    backend: Backend = "processes"
    address: str | None = None


class EvaluatedLog(NamedTuple):
    """Evaluation of a log, complete: what was asked, an evaluation of each policy, in the order of the policies, and
    on a ledger their verdicts; `shown` has titles and units. Command and notebooks show the same one.
    """

    shown: DisplayOptions
    ask: EvaluationConfig
    found: list[Evaluation]
    verdicts: list[PolicyVerdict]


def evaluated(log: EvaluationLog, options: EvaluationOptions) -> EvaluatedLog:
    """Evaluation of the log's policies, behind a progress bar. What the log cannot answer is refused in the result.
    Raises InvalidRequest for rows or policies that cannot be used.
    """
    ask = EvaluationConfig(
        log.targets,
        log.against,
        options.knobs,
        log.rewards,
        log.worth,
        options.slope,
        force=options.force,
        prefix=options.prefix,
    )
    ask = ask._replace(follow=options.sequence, heaviest=log.heaviest)
    ask = verdicts.with_no_nudge(ask) if log.prices is not None else ask
    run, money = workers.on(options.backend, options.workers, options.address), None
    alone = options.workers == 1 and options.address is None
    with progress(f"{log.title}: {'decisions' if alone else 'parts'} read") as advance:
        sources = [partial(_counted, source, advance) for source in log.sources] if alone else log.sources
        found = core.evaluate(sources, ask, options.level, run if alone else _counted_parts(run, advance))
        found = [evaluation._replace(notes=(*log.notes, *evaluation.notes)) for evaluation in found]
        if log.emptied:
            found = [_emptied(evaluation, log.emptied) for evaluation in found]
        if log.prices is not None:
            money = verdicts.net_gains(log.sources, ask, found, log.prices, log.currency, options.level, run)
        judged = verdicts.judged(log.ledger, ask, found, options.level, money=money) if log.ledger else []
    shown = DisplayOptions(log.title, log.unit, options.level, arms=log.arms, money=money, manifest=log.manifest)
    return EvaluatedLog(shown, ask, found, judged)


def _counted(source: Source, advance: Advance) -> Iterator[LoggedRounds]:
    for chunk in source():
        yield chunk
        advance(len(chunk.reward))


def _counted_parts(run: PartRunner, advance: Advance) -> PartRunner:
    def counted(tasks: Sequence[Callable[[], T]], /) -> Generator[T, None, None]:
        for result in run(tasks):
            advance(1)
            yield result

    return counted


@click.group(invoke_without_command=True)
@click.option(
    "--rounds", "file", type=click.Path(path_type=Path), help="A log: a table as text, or .parquet, one or a folder."
)
@column_names.OPTION
@click.option(
    "--context", multiple=True, metavar="COLUMN", help="Context of a file: numbers or words. Instead of x_0 …"
)
@click.option("--ledger", help="A service's ledger: its file; the service may be running.")
@click.option("--stage", help="Which stage of the ledger, or of --app.")
@click.option("--app", metavar="CATALOGUE", help="Costs and reward range of a file: FILE.toml or a shipped app.")
@click.option("--policy", "names", multiple=True, metavar="POLICY", help=f"{policy_names.FORMS}. Several may be given.")
@click.option("--against", multiple=True, metavar="POLICY", help="Contrast with this policy too, e.g. the champion.")
@click.option(
    "--measure",
    type=click.Choice(["net", "reward"]),
    help="net: in currency, less costs.  [default: net where costs are known]",
)
@click.option("--segment", default="", metavar="FEATURE", help="Lift by values of a feature that the stage declares.")
@click.option("--range", "span", nargs=2, type=float, help="The least and largest reward, unless they are 0 and 1.")
@click.option("--learned-elsewhere", is_flag=True, help="The snapshot did not learn from this log.")
@click.option("--clip", default=10.0, show_default=True, type=click.FloatRange(min=0.0, min_open=True))
@click.option("--tau", default=10.0, show_default=True, type=click.FloatRange(min=0.0, min_open=True))
@click.option("--shrink", default=10.0, show_default=True, type=click.FloatRange(min=0.0), help="λ of dros.")
@click.option("--slope", is_flag=True, help="Choose thresholds by SLOPE too: for foreign logs without floors.")
@click.option("--level", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.999999))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="For Parquet logs.")
@click.option("--backend", default="processes", show_default=True, type=click.Choice(get_args(Backend)))
@click.option("--address", help="Of a Dask scheduler, whose workers can read the file.")
@click.option("--no-sequence", is_flag=True, help="Leave out confidence sequences: faster on huge logs.")
@click.option("--prefix", is_flag=True, help="End the log where rewards are not final yet, however much comes after.")
@click.option("--force", is_flag=True, help="Print estimates that would be refused, labelled.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def evaluate(context: click.Context, /, file: Path | None, ledger: str | None, **given: Any) -> None:
    """Estimate what policies would have earned on a log, how sure that is, and whether the log can say at all.

    Exit status 3: the log cannot answer; it says why, and what would be enough.
    """
    if context.invoked_subcommand is not None:
        return
    if (file is None) == (ledger is None):
        raise click.UsageError("give --rounds FILE or --ledger FILE, or a command: table, events, obd, hillstrom")
    log = _of_file(file, given) if file is not None else _of_ledger(str(ledger), given)
    options = EvaluationOptions(
        EstimatorSettings(given["clip"], given["tau"], given["shrink"]),
        slope=given["slope"],
        sequence=not given["no_sequence"],
        prefix=given["prefix"],
        force=given["force"],
        level=given["level"],
        workers=given["workers"],
        backend=given["backend"],
        address=given["address"],
    )
    done = evaluated(log, options)
    presentation.finish(done.shown._replace(as_json=given["as_json"]), done.found, done.ask, done.verdicts)


def _emptied(evaluation: Evaluation, why: str) -> Evaluation:
    """The evaluation with its refusal for want of rounds in words that say where they went."""
    needed = (
        "evaluate it on decisions made after this snapshot, or take an older snapshot; `journey-bandit publish "
        "--hold-back 0.3` keeps the newest 30 % from a candidate to judge it by; `--learned-elsewhere` only if it "
        "never saw this log"
    )
    said = [r._replace(detail=why, needed=needed) if r.reason == "empty" else r for r in evaluation.refused]
    return evaluation._replace(refused=type(evaluation.refused)(said))


def _of_file(file: Path, given: dict[str, Any]) -> EvaluationLog:
    if given["segment"]:
        raise click.UsageError("--segment goes with --ledger")
    if bool(given["stage"]) != bool(given["app"]):
        raise click.UsageError("--stage goes with --ledger, or with --app")
    rewards = RewardRange(*given["span"]) if given["span"] else None
    wanted, elsewhere = RequestedPolicies(given["names"], given["against"]), given["learned_elsewhere"]
    renamed = column_names.pairs(given["renamed"])
    priced = None
    if given["app"]:
        found = read_catalogue(given["app"])
        priced = log_sources.PricedStage(found.stage(given["stage"]), found.currency)
    told: dict[str, Any] = {"elsewhere": elsewhere, "measure": given["measure"], "priced": priced}
    told["context"] = given["context"]
    return log_sources.of_file(file, wanted, rewards, renamed, **told)


def _of_ledger(ledger: str, given: dict[str, Any]) -> EvaluationLog:
    if not given["stage"]:
        raise click.UsageError("--ledger needs --stage")
    for option, name in (("renamed", "map"), ("context", "context"), ("app", "app")):
        if given[option]:
            raise click.UsageError(f"--{name} goes with --rounds")
    wanted, net = RequestedPolicies(given["names"], given["against"]), given["measure"] != "reward"
    return log_sources.of_ledger(
        ledger, given["stage"], wanted, net=net, segment=given["segment"], elsewhere=given["learned_elsewhere"]
    )


evaluate.add_command(open_bandit)
evaluate.add_command(hillstrom)
evaluate.add_command(table)
evaluate.add_command(events)
