"""Tracking: writing a report to MLflow as one flat run, in the order a reviewer reads.

Clients go through an HTTP server, so that artifacts are stored as `mlflow-artifacts:/…` and not as paths of a machine.
One `log_batch` for the series; no autologging, no traces, no pickle.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.tracking import MlflowClient

from bandit.snapshot import Snapshot, pack
from experiments.mlflow import reviewer_view
from experiments.mlflow.client_errors import remote_errors
from experiments.mlflow.get_or_create import experiment_of
from experiments.mlflow.registry import NOTE, Registry
from experiments.reports import html_report
from experiments.reports.report import POINTS, Report, ReportSeries

_PARAM_CHARS = 6000
_ON_VERSION = (  # the rest is on the run
    *("gate", "gate_reasons", "review", "why"),
    *("policy_sha256", "belief_sha256", "export_sha256"),
)
_DIGEST = 12  # characters of a digest that a run's tag shows
_NOBODY = "–"  # approved it, or asked a gate
_KINDS = {"offline simulation": "study"}  # the tag `kind` of a run, where the report has more words
_TITLES = {"propensity/min": "Least propensity"}
_NAMES = {2: "holdout", 3: "diff", 5: "ope", 8: "nudges", 10: "segments"}  # of tables, by question


class LoggedRun(NamedTuple):
    """Ids of a logged run and of its experiment."""

    experiment_id: str
    run_id: str


def write(uri: str, report: Report, policy_files: dict[str, bytes], tags: dict[str, str]) -> LoggedRun:
    """Log the report as one run of the experiment <app>-<stage>, without registering a version. `policy_files`:
    policy.json and posterior.npz. A run that breaks off is marked FAILED.

    Raises RemoteError when MLflow does not answer or refuses.
    """
    with remote_errors(uri):
        return _write(MlflowClient(uri, uri), report, policy_files, tags)


def _write(client: MlflowClient, report: Report, policy_files: dict[str, bytes], tags: dict[str, str]) -> LoggedRun:
    experiment, _ = experiment_of(client, report.experiment)
    kind, now = _KINDS.get(report.facts["kind"], report.facts["kind"]), int(time.time() * 1000)
    _seed_view(client, experiment, reviewer_view.view_of(kind), report, now)
    shown = {**_shown_tags(report), "gate": _NOBODY, "reviewer": _NOBODY, "kind": kind, **_short(tags)}
    run = client.create_run(experiment, run_name=report.title.split(" at ")[0], tags=shown)
    run_id = run.info.run_id
    status = "FAILED"
    try:
        params = [Param(key, value[:_PARAM_CHARS]) for key, value in report.facts.items()]
        headline = [Metric(key, value, now, 0) for key, value in report.metrics.items()]
        client.log_batch(run_id, metrics=headline, params=params)
        client.log_batch(run_id, metrics=_series(report, now))
        client.log_text(run_id, html_report.render(report), reviewer_view.REPORT)
        client.set_tag(run_id, NOTE, _verdict_markdown(report, _report_link(experiment, run_id)))
        for number, table in enumerate(report.tables, 1):
            rows = [{"": row.name, **dict(zip(table.head, row.cells, strict=True))} for row in table.rows]
            content = {"title": table.title, "note": table.note, "rows": rows}
            client.log_dict(run_id, content, f"review/table_{number}.json")
        _policy_files(client, run_id, policy_files)
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    return LoggedRun(experiment, run_id)


class PublishedVersion(NamedTuple):
    """A published review: its run with the model, and the version of the registered model that it became, "" if it is
    only a run.
    """

    logged: LoggedRun
    model: str
    version: str


def write_seed(
    uri: str,
    experiment: str,
    name: str,
    params: dict[str, str],
    metrics: dict[str, float],
    series: dict[str, ReportSeries],
    currency: str,
) -> None:
    """Log one seed of a simulated policy as a run: runs grouped by the parameter `policy` show a band in MLflow.
    `series`: {metric key with its unit: points}; `currency`: of the metrics. Raises RemoteError when MLflow does not
    answer or refuses.
    """
    client = MlflowClient(uri, uri)
    with remote_errors(uri):
        number, _ = experiment_of(client, experiment)
        run = client.create_run(number, run_name=name, tags={"kind": "seed"}).info.run_id
        now = int(time.time() * 1000)
        view = reviewer_view.tag(reviewer_view.SEEDS, currency, "user", {key: [key] for key in series}, now)
        client.set_experiment_tag(number, *view)
        points = [point for key, line in series.items() for point in _points(key, line, now)]
        headline = [Metric(key, value, now, 0) for key, value in metrics.items()]
        client.log_batch(run, metrics=headline + points, params=[Param(k, v) for k, v in params.items()])
        client.set_terminated(run)


class EvidenceData(NamedTuple):
    """The data that a run was computed from, for MLflow's data set record: a name, its digest, where it lies, and how
    many decisions it has.
    """

    name: str
    digest: str
    source: str
    rows: int


def publish(
    uri: str,
    report: Report,
    snapshot: Snapshot,
    data: EvidenceData,
    packages: Sequence[str],
    tags: dict[str, str],
    started: int,
) -> PublishedVersion:
    """Log a review and its policy as a run, and register the policy as a new version unless it is a live run (has the
    tag live_id). `started`: µs since 1970. `packages`: the pip requirements that can load the policy.

    A live run that was logged before, by its tag live_id, is not logged again. In this order: parameters, data, model,
    headline metrics with both, series, report, tables, description. Raises RemoteError when MLflow does not answer or
    refuses; the run is then marked FAILED.
    """
    client, registry, model = MlflowClient(uri, uri), Registry(uri), report.experiment
    with remote_errors(uri):
        experiment, _ = experiment_of(client, model)
        again = _logged_before(client, experiment, tags.get("live_id"))
        if again:
            return PublishedVersion(LoggedRun(experiment, again), model, "")
        _seed_view(client, experiment, reviewer_view.view_of(tags["kind"]), report, started // 1000)
        name, reviewer = _name_and_reviewer(client, experiment, report, tags)
        run_tags = _shown_tags(report) | reviewer_view.run_tags(tags) | {"reviewer": reviewer}
        run_tags |= {key: value for key, value in _short(tags).items() if key not in run_tags}
        run = client.create_run(experiment, run_name=name, tags=run_tags, start_time=started // 1000)
        run_id, status = run.info.run_id, "FAILED"
        try:
            params = [Param(key, value[:_PARAM_CHARS]) for key, value in report.facts.items()]
            client.log_batch(run_id, params=params)
            client.log_inputs(run_id, [_dataset(data)])
            model_id = "" if "live_id" in tags else registry.log_policy(run_id, snapshot, packages)
            if not model_id:  # of a version, or on its way to be one: a model of its own would list the policy twice
                _policy_files(client, run_id, pack(snapshot))
            with_both = {"dataset_name": data.name, "dataset_digest": data.digest[:32], "model_id": model_id or None}
            now = started // 1000
            metrics = [Metric(k, v, now, 0, run_id=run_id, **with_both) for k, v in report.metrics.items()]
            client.log_batch(run_id, metrics=metrics)
            client.log_batch(run_id, metrics=_series(report, now))
            client.log_text(run_id, html_report.render(report), reviewer_view.REPORT)
            _tables(client, run_id, report)
            version = ""
            if model_id:
                version = registry.register(
                    model, model_id, run_id, _headline(report), {k: tags[k] for k in _ON_VERSION if k in tags}
                )
                numbers = f"[Numbers]({reviewer_view.run_link('', experiment, run_id).lstrip('/')})"
                links = f"{_report_link(experiment, run_id)}. {numbers}."
                registry.describe(model, version, f"{_headline(report)}\n\n{links}")
                client.set_tag(run_id, "version", version)
                client.set_tag(run_id, "mlflow.runName", f"v{version} {report.policy}")
            answers = _answers_markdown(report, _report_link(experiment, run_id))
            client.set_tag(run_id, NOTE, f"{_headline(report)}\n\n{answers}"[:8000])
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)
    return PublishedVersion(LoggedRun(experiment, run_id), model, version)


def _seed_view(client: MlflowClient, experiment: str, view: reviewer_view.View, report: Report, now: int) -> None:
    """Write the view that shows this run, with a chart for each group of its lines."""
    lines: dict[str, list[str]] = {}
    for title, key, _ in _lines(report):
        lines.setdefault(title, []).append(key)
    client.set_experiment_tag(experiment, *reviewer_view.tag(view, report.currency, report.per, lines, now))


def _shown_tags(report: Report) -> dict[str, str]:
    """Tags for the columns that every view begins with: the net gain over no nudge, under a name with its unit."""
    return {reviewer_view.money_column(report.currency, report.per): reviewer_view.money(report.metrics)}


def _name_and_reviewer(client: MlflowClient, experiment: str, report: Report, tags: dict[str, str]) -> tuple[str, str]:
    """Name of the run, and who approved its policy. A live run is named after the version that it is of, found by the
    digest of the policy: no policy has two names.
    """
    if "live_id" not in tags:
        return report.policy, "waiting"
    query = f"tags.kind = 'candidate' AND tags.policy_sha256 = '{_short(tags)['policy_sha256']}'"
    found = client.search_runs([experiment], query, max_results=1)
    if not found:
        return f"{report.policy} live", _NOBODY
    return f"{found[0].info.run_name} live", found[0].data.tags.get("reviewer", _NOBODY)


def _logged_before(client: MlflowClient, experiment: str, live_id: str | None) -> str | None:
    query = f"tags.live_id = '{live_id}' AND attributes.status = 'FINISHED'"
    found = client.search_runs([experiment], query, max_results=1) if live_id else []
    return str(found[0].info.run_id) if found else None


def _dataset(data: EvidenceData) -> DatasetInput:
    source = json.dumps({"ledger": data.source})
    profile = json.dumps({"num_rows": data.rows})
    dataset = Dataset(data.name, data.digest[:32], "local", source, "", profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "review")])


def _tables(client: MlflowClient, run_id: str, report: Report) -> None:
    for number, answer in enumerate(report.answers, 1):
        tables = [
            {
                "title": table.title,
                "note": table.note,
                "rows": [{"": row.name, **dict(zip(table.head, row.cells, strict=True))} for row in table.rows],
            }
            for table in answer.tables
        ]
        name = _NAMES.get(number, f"answer_{number:02}")
        if tables:
            client.log_dict(run_id, {"question": answer.question, "tables": tables}, f"review/{name}.json")


def _headline(report: Report) -> str:
    """The verdict in money, the conversions smaller, and the answer about the gate: the first line says what the policy
    is and whether it is better.
    """
    gate = next((a.answer for a in report.answers if "gate" in a.question), "")
    return f"{report.verdict}\n\n{_small(report)}{gate}"[:3000]


def _small(report: Report) -> str:
    loss = "".join(f"- {sentence}\n" for sentence in report.loss)
    small = f"<small>{report.conversions}</small>\n\n" if report.conversions else ""
    return f"{small}{loss}\n" if loss else small


def _answers_markdown(report: Report, link_: str) -> str:
    lines = [f"{number}. **{a.question}** {' '.join(a.answer.split())}" for number, a in enumerate(report.answers, 1)]
    return f"{link_}.\n\n" + "\n".join(lines)


def _report_link(experiment: str, run_id: str) -> str:
    """Markdown link to the drawings and tables, without host and port: MLflow may be served at another one when
    somebody reads it.
    """
    return f"[Report with drawings and tables]({reviewer_view.report_link('', experiment, run_id).lstrip('/')})"


def _short(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run, of those that are given: digests in 12 characters, nothing that its description or parameters say
    in full. MLflow's page of a run shows all tags above the description.
    """
    kept = {key: value for key, value in tags.items() if key not in {"gate_reasons", "belief_sha256"}}
    return kept | {key: kept[key][:_DIGEST] for key in ("policy_sha256", "git_sha") if key in kept}


def link(uri: str, logged: LoggedRun) -> str:
    """URL of the run in a browser; without the workflow type, MLflow opens a mode that hides metrics."""
    return reviewer_view.run_link(uri, logged.experiment_id, logged.run_id)


def _verdict_markdown(report: Report, link_: str) -> str:
    rows = ["| | " + " | ".join(report.tables[0].head) + " |", "|---" * (len(report.tables[0].head) + 1) + "|"]
    rows += ["| " + " | ".join((row.name, *row.cells)) + " |" for row in report.tables[0].rows]
    table = "\n".join(rows)
    return f"{report.verdict}\n\n{link_}.\n\n{_small(report)}{table}\n\nAgain: `{report.command}`"


def _series(report: Report, now: int) -> list[Metric]:
    """Points of every line that is not constant: a constant says no more than the metric that it stands for."""
    moving = [(key, line) for _, key, line in _lines(report) if len(set(line.value.tolist())) > 1]
    return [point for key, line in moving for point in _points(key, line, now)]


def _lines(report: Report) -> list[tuple[str, str, ReportSeries]]:
    """Every line of the report: (title of its chart, metric key, line). Chart and key name the unit, because MLflow's
    axes show no more than the key.
    """
    lines = [
        (f"{curve.key.capitalize()}, {_unit(curve.unit)}", f"{curve.key} {_unit(curve.unit)}/{_key(line.name)}", line)
        for curve in report.curves
        for line in curve.lines
    ]
    lines += [("Share of decisions", f"share/{_key(share.name)}", share) for share in report.shares]
    return lines + [(_TITLES.get(key, key), key, line) for key, line in report.extra]


def _unit(unit: str) -> str:
    """A unit in the characters that MLflow allows in a metric's name, such as "EUR per user"."""
    return unit.split(",", maxsplit=1)[0].replace("%", "pct").replace("/", " per ")


def _points(key: str, series: ReportSeries, now: int) -> list[Metric]:
    assert len(series.step) <= POINTS  # noqa: S101 - the report promises it
    return [Metric(key, float(v), now, int(s)) for s, v in zip(series.step, series.value, strict=True)]


def _key(name: str) -> str:
    return "policy" if name == "this policy" else name.replace(" ", "_")


def _policy_files(client: MlflowClient, run_id: str, files: dict[str, bytes]) -> None:
    client.log_text(run_id, files["policy.json"].decode(), "policy/policy.json")
    _log_bytes(client, run_id, files["posterior.npz"], "posterior.npz", "policy")


def _log_bytes(client: MlflowClient, run_id: str, data: bytes, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_bytes(data)
        client.log_artifact(run_id, str(path), folder)
