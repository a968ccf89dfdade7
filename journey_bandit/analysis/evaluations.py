"""Evaluation of policies on a log or on a stage of a ledger, as the command `evaluate` does it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from api.catalogue_files import read_catalogue
from bandit.errors import InvalidRequest, Problem
from bandit.tables.decision_log import KEY
from experiments.data.rounds import RewardRange
from experiments.inference.diagnostics import Refusal
from experiments.inference.intervals import LEVEL
from experiments.ope.estimators import EstimatorSettings
from experiments.ope.evaluate import Estimate, Evaluation
from experiments.ope.evaluation_policies import EvaluationPolicy
from journey_bandit.analysis import arguments, arrow_tables, result_html
from journey_bandit.analysis.arrow_tables import ArrowResult, ArrowStream
from journey_bandit.analysis.exported_logs import LedgerExport
from journey_bandit.evaluation import log_sources, presentation
from journey_bandit.evaluation.evaluate import EvaluatedLog, EvaluationOptions, evaluated
from journey_bandit.evaluation.log_sources import PricedStage, RequestedPolicies
from journey_bandit.evaluation.policy_table import in_words
from journey_bandit.workflows.verdicts import NONE, PolicyVerdict

_SETTINGS = EstimatorSettings()
_ESTIMATES = pa.schema(
    [
        ("policy", pa.string()),
        ("kind", pa.string()),
        ("name", pa.string()),
        *((name, pa.float64()) for name in ("value", "low", "high", "sequence_low", "sequence_high", "error")),
        ("biased", pa.bool_()),
        ("forced", pa.bool_()),
    ]
)


@dataclass(frozen=True, repr=False)
class EvaluationResult(ArrowResult):
    """Result of an evaluation: an `Evaluation` of each policy, in their order, and on a ledger a verdict on each.

    As a table it has one row for each figure: `policy`; `kind`, "difference" (the policy less another one, no nudge
    first) or "estimate"; `name`, of the other policy or of the estimator; `value`, interval `low` and `high` at this n,
    `sequence_low` and `sequence_high`, which hold at every n, and the standard `error`, all in `unit` per decision;
    whether the estimator is `biased`; whether the figure is `forced`, and must not be relied on. Policies that were
    refused have no rows, unless `force` asked for them; no policy has a difference from no nudge where the log is
    `silent` on it.
    """

    evaluated: EvaluatedLog

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The evaluation of each policy."""
        return tuple(self.evaluated.found)

    @property
    def verdicts(self) -> tuple[PolicyVerdict, ...]:
        """The verdict on each policy by the promotion rule of its stage; () where the log is no ledger."""
        return tuple(self.evaluated.verdicts)

    @property
    def refused(self) -> dict[str, tuple[Refusal, ...]]:
        """Reasons why the log cannot answer, by policy; empty if it can. Each has a `reason` in a word, the `detail`,
        and what would be `needed`.
        """
        return {found.policy: found.refused for found in self.evaluated.found if found.refused}

    @property
    def silent(self) -> tuple[Refusal, ...]:
        """Reasons why the log cannot say what no nudge earns, though prices are known; () if it can. Differences from
        no nudge would rest on predictions alone, so the result shows none.
        """
        return self.evaluated.shown.silent

    @property
    def unit(self) -> str:
        """Unit of values, per decision: the reward, or net value in a currency."""
        return self.evaluated.shown.unit.rstrip(",")

    @property
    def level(self) -> float:
        """Level of all intervals, in (0, 1)."""
        return self.evaluated.shown.level

    def __getitem__(self, policy: str) -> Evaluation:
        """The evaluation of the policy of this name. Raises KeyError if there is none."""
        return {found.policy: found for found in self.evaluated.found}[policy]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `journey-bandit evaluate --json` prints, `digest` included."""
        shown, ask, found, verdicts = self.evaluated
        body = presentation.evaluations_json(shown, found, ask, verdicts)
        decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
        return decoded

    def to_arrow(self) -> Any:
        """The figures as a `pyarrow.Table`; numbers that are not known are null."""
        rows = [row for found in self.evaluated.found for row in _rows(found, self.silent)]
        return pa.Table.from_pylist(rows, schema=_ESTIMATES)

    def plot(self) -> Any:
        """Figure of matplotlib: each policy less no nudge with its intervals (thick: at this n; thin: the sequence,
        which holds at every n), and beside it the values themselves. Where no nudge was not compared with, the champion
        takes its place; where the log is `silent` on no nudge, values stand alone. Policies whose figures are forced
        are marked. ImportError, which names the extra, if matplotlib is not installed.
        """
        arrow_tables.need("matplotlib")
        from experiments.reports import figures
        from experiments.reports.figures import ForestBar, ForestPanel

        answered = [found for found in self.evaluated.found if found.estimates]
        over = [ForestBar(_marked(f), *_ends(one)) for f in answered if (one := _lift(self, f))]
        values = [ForestBar(_marked(f), *_ends(next(iter(f.estimates.values())))) for f in answered]
        unit = f"{self.unit} per decision, {100 * self.level:g} % intervals"
        panels = [ForestPanel(f"Over {in_words(_other(self))}", unit, over, True), ForestPanel("Value", unit, values)]
        return figures.forest(panels[1:] if self.silent and _other(self) == NONE else panels)

    def __repr__(self) -> str:
        said = [f"{found.policy}: {_summary(self, found)}" for found in self.evaluated.found]
        if self.silent:
            said.append(f"the log cannot say what no nudge earns ({', '.join(one.reason for one in self.silent)})")
        return f"EvaluationResult({self.evaluated.shown.title}; {'; '.join(said)})"

    def _repr_html_(self) -> str:
        shown = self.evaluated.shown
        head = f"{shown.title}: {self.unit} per decision, {100 * self.level:g} % intervals"
        verdicts = {verdict.policy: verdict for verdict in self.evaluated.verdicts}
        found = self.evaluated.found
        notes = dict.fromkeys(note for evaluation in found for note in evaluation.notes)
        whys = [f"{one.reason}: {one.detail}. Needed: {one.needed}" for one in self.silent]
        return result_html.page(
            [
                result_html.heading(head),
                _overview(self),
                *(_said_html(self, evaluation, verdicts.get(evaluation.policy)) for evaluation in found),
                *(result_html.sentence(why, "the log cannot say what no nudge earns:") for why in whys),
                *(result_html.sentence(note, "note:") for note in notes),
                *(result_html.details(f"{one.policy}: all estimates", _estimate_tables(self, one)) for one in found),
            ]
        )


def evaluate_log(
    rounds: "str | Path | ArrowStream | LedgerExport",
    policies: Sequence[str | EvaluationPolicy] = (),
    against: Sequence[str | EvaluationPolicy] = (),
    *,
    renamed: Mapping[str, str] | None = None,
    context: Sequence[str] = (),
    app: str = "",
    stage: str = "",
    measure: str | None = None,
    rewards: tuple[float, float] | None = None,
    learned_elsewhere: bool = False,
    settings: EstimatorSettings = _SETTINGS,
    slope: bool = False,
    sequence: bool = True,
    prefix: bool = False,
    force: bool = False,
    level: float = LEVEL,
    workers: int = 1,
) -> EvaluationResult:
    """Evaluation of policies on a log: `journey-bandit evaluate --rounds`.

    `rounds`: a file, a folder of Parquet files, an export, or a table of any library with the Arrow PyCapsule
    interface, whose columns are those of files (guide `evaluation`). `policies`, `against`: names or
    `EvaluationPolicy`. `renamed`: {our column: theirs}, as `--map`. `app` and `stage`: the catalogue that says what
    rewards are worth. `rewards`: the least and largest one. The other arguments are the options of the same names.

    Raises InvalidRequest for a column, row or policy that cannot be used; what the log cannot answer is in `refused`.
    """
    if bool(app) != bool(stage):
        raise _invalid("stage", "app and stage go together: they say what rewards are worth", "give both, or neither")
    priced = PricedStage(read_catalogue(app).stage(stage), read_catalogue(app).currency) if app else None
    span = RewardRange(*rewards) if rewards else None
    arguments.check_lists(policies=policies, against=against, context=context)
    arguments.check_level(level)
    arguments.check_within("workers", workers, 1)
    options = EvaluationOptions(settings, slope, sequence, prefix, force, level, workers)
    told: dict[str, Any] = {"elsewhere": learned_elsewhere, "measure": _measured(measure), "priced": priced}
    with _opened(rounds) as path:
        wanted = RequestedPolicies(policies, against)
        log = log_sources.of_file(path, wanted, span, renamed or {}, context=context, **told)
        title = str(path) if isinstance(rounds, LedgerExport) else arrow_tables.title_of(path, rounds)
        return EvaluationResult(evaluated(log._replace(title=title), options))


def evaluate_ledger(
    ledger: str | Path,
    stage: str,
    policies: Sequence[str | EvaluationPolicy] = (),
    against: Sequence[str | EvaluationPolicy] = (),
    *,
    measure: str = "net",
    segment: str = "",
    learned_elsewhere: bool = False,
    settings: EstimatorSettings = _SETTINGS,
    slope: bool = False,
    sequence: bool = True,
    prefix: bool = False,
    force: bool = False,
    level: float = LEVEL,
) -> EvaluationResult:
    """Evaluation of policies on a stage of a service's ledger, with verdicts: `journey-bandit evaluate --ledger`. The
    service may be running.

    `ledger`: its file, or the URL of its store. `measure`: "net" (currency, less costs) or "reward". `segment`: a
    declared feature, by whose values the lift is split. `policies`, `against` and the other arguments as for
    `evaluate_log`. Raises NotFound if the ledger has no such stage, LedgerError if it cannot be opened, InvalidRequest
    for a policy that cannot be used; what the log cannot answer is in `refused`.
    """
    arguments.check_lists(policies=policies, against=against)
    arguments.check_level(level)
    options = EvaluationOptions(settings, slope, sequence, prefix, force, level)
    net, wanted = _measured(measure) != "reward", RequestedPolicies(policies, against)
    log = log_sources.of_ledger(str(ledger), stage, wanted, net=net, segment=segment, elsewhere=learned_elsewhere)
    try:
        return EvaluationResult(evaluated(log, options))
    finally:
        if log.ledger is not None:
            log.ledger.store.close()


@contextmanager
def _opened(rounds: "str | Path | ArrowStream | LedgerExport") -> Iterator[Path]:
    """The path of a log; of a table without one, that of a file which is there until the context ends."""
    if isinstance(rounds, LedgerExport):
        yield rounds.folder
    elif isinstance(rounds, ArrowStream):
        with arrow_tables.as_parquet(rounds) as path:
            _check_units(path)
            yield path
    else:
        yield arrow_tables.path_of(rounds, "rounds")


def _check_units(path: Path) -> None:
    """Raise InvalidRequest for the rows of an export that have lost its metadata on the way, as data frames do: only
    these say in which unit q̂ is.
    """
    schema = parquet.read_schema(path)
    exported = "expected_net_none" in schema.names and any(name.startswith("q_hat_") for name in schema.names)
    if exported and KEY not in (schema.metadata or {}):
        problem = "these rows of an export have lost its metadata, which say the unit of q̂ and what rewards are worth"
        fix = "give the export itself or its Arrow table, or leave the columns q_hat_0 … out"
        raise _invalid("q_hat_0", problem, fix)


def _invalid(field: str, problem: str, fix: str) -> Exception:
    return InvalidRequest(Problem(field, problem, fix))


def _measured(measure: str | None) -> str | None:
    if measure not in (None, "net", "reward"):
        raise _invalid("measure", f"{measure!r} is not known", '"net" or "reward"')
    return measure


def _rows(found: Evaluation, silent: Sequence[Refusal]) -> Iterator[dict[str, Any]]:
    for kind, estimates in (
        ("difference", presentation.differences(found, silent)),
        ("estimate", found.estimates),
    ):
        for name, one in estimates.items():
            numbers = zip(
                ("value", "low", "high", "sequence_low", "sequence_high", "error"),
                (one.value, *one.interval, *(one.sequence or (None, None)), one.error),
                strict=True,
            )
            known = {key: v if v is not None and np.isfinite(v) else None for key, v in numbers}
            told = {"biased": one.biased, "forced": found.forced}
            yield {"policy": found.policy, "kind": kind, "name": name, **known, **told}


def _ends(one: Estimate) -> tuple[float, tuple[float, float], tuple[float, float] | None]:
    return one.value, one.interval, one.sequence


def _other(result: EvaluationResult) -> str:
    """Name of the policy that lifts are over, as the command has it."""
    return presentation.compared_with(result.evaluated.found, result.evaluated.ask)


def _lift(result: EvaluationResult, found: Evaluation) -> Estimate | None:
    return presentation.differences(found, result.silent).get(_other(result))


def _marked(found: Evaluation) -> str:
    return f"{found.policy} (FORCED)" if found.forced else found.policy


def _summary(result: EvaluationResult, found: Evaluation) -> str:
    if not found.estimates:
        return f"refused ({', '.join(refusal.reason for refusal in found.refused)})"
    lift, (name, estimate) = _lift(result, found), next(iter(found.estimates.items()))
    value, interval, _ = presentation.cells(lift or estimate)
    said = f"less {_other(result)}" if lift else name
    return f"{'FORCED ' if found.forced else ''}{said} {value} {interval}"


def _overview(result: EvaluationResult) -> str:
    """Table of the policies that the log answers for: less no nudge first (or less the champion, where no nudge was not
    compared with), then the value.
    """
    rows = list[tuple[str, ...]]()
    for found in result.evaluated.found:
        if found.estimates:
            lift = _lift(result, found)
            over = presentation.cells(lift) if lift else ("–", "", "–")
            value = presentation.cells(next(iter(found.estimates.values())))
            rows.append((_marked(found), f"{over[0]} {over[1]}".strip(), over[2], f"{value[0]} {value[1]}"))
    return result_html.table(("", f"over {in_words(_other(result))}", "at any time", "value"), rows)


def _said_html(result: EvaluationResult, found: Evaluation, verdict: PolicyVerdict | None) -> str:
    """Verdict and money of a policy in sentences, or the reasons why the log cannot answer."""
    said, gain = list[str](), result.evaluated.shown.gains.get(found.policy)
    for refusal in found.refused:
        text = f"{refusal.detail}. Needed: {refusal.needed}"
        said.append(result_html.sentence(text, f"{found.policy}: refused: {refusal.reason}:"))
    if found.forced:
        text = "the log cannot answer; the numbers must not be relied on"
        said.append(result_html.sentence(text, f"{found.policy}: FORCED:"))
    if verdict is not None and not found.refused:
        reasons = f"{'; '.join(verdict.verdict.reasons)}."
        said.append(result_html.sentence(reasons, f"{found.policy}: {verdict.verdict.decision}:"))
    mark = "FORCED:" if found.forced else ""
    return "".join([*said, result_html.sentence(f"{gain.sentence}.", mark) if gain else ""])


def _estimate_tables(result: EvaluationResult, found: Evaluation) -> list[str]:
    """Tables of all estimates of a policy; none where there are no estimates."""
    head = (f"{result.unit} per decision", "interval", "sequence")
    biased = {name: one for name, one in found.estimates.items() if one.biased}
    sound = {name: one for name, one in found.estimates.items() if not one.biased}
    return [
        result_html.table((first, *head), [(name, *presentation.cells(one)) for name, one in estimates.items()], title)
        for first, title, estimates in (
            ("less", "Less another policy", presentation.differences(found, result.silent)),
            ("estimator", f"{found.n:,} rounds", sound),
            ("estimator", "Biased by design: the interval includes the bias", biased),
        )
    ]
