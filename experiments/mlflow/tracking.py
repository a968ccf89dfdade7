"""Tracking: writing a report to MLflow as one flat run, in the order a reviewer reads.

Clients go through an HTTP server, so that artifacts are stored as `mlflow-artifacts:/…` and not as paths of a machine.
One `log_batch` for the series; no autologging, no traces, no pickle.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.tracking import MlflowClient

from bandit.snapshot import Snapshot
from experiments.mlflow import reviewer_view
from experiments.mlflow.client_errors import remote_errors
from experiments.mlflow.get_or_create import experiment_of
from experiments.mlflow.registry import NOTE, Registry
from experiments.reports import html_report
from experiments.reports.report import POINTS, Report, ReportSeries

_PARAM_CHARS = 6000
_ON_VERSION = ("gate", "gate_reasons", "review", "why", "policy_sha256", "belief_sha256")  # the rest is on the run
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
        return _write(MlflowClient(uri), report, policy_files, tags)


def _write(client: MlflowClient, report: Report, policy_files: dict[str, bytes], tags: dict[str, str]) -> LoggedRun:
    experiment, _ = experiment_of(client, report.experiment)
    note = _verdict_markdown(report)
    run = client.create_run(
        experiment,
        run_name=report.title.split(" at ")[0],
        tags={"kind": "policy", NOTE: note, "verdict": report.verdict[:5000], **tags},
    )
    run_id = run.info.run_id
    status = "FAILED"
    try:
        params = [Param(key, value[:_PARAM_CHARS]) for key, value in report.facts.items()]
        now = int(time.time() * 1000)
        headline = [Metric(key, value, now, 0) for key, value in report.metrics.items()]
        client.log_batch(run_id, metrics=headline, params=params)
        client.log_batch(run_id, metrics=_series(report, now))
        client.log_text(run_id, html_report.render(report), "review/report.html")
        for number, table in enumerate(report.tables, 1):
            rows = [{"": row.name, **dict(zip(table.head, row.cells, strict=True))} for row in table.rows]
            content = {"title": table.title, "note": table.note, "rows": rows}
            client.log_dict(run_id, content, f"review/table_{number}.json")
        client.log_text(run_id, policy_files["policy.json"].decode(), "policy/policy.json")
        _log_bytes(client, run_id, policy_files["posterior.npz"], "posterior.npz", "policy")
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
) -> None:
    """Log one seed of a simulated policy as a run: runs grouped by the parameter `policy` show a band in MLflow.
    `series`: {metric key: points}. Raises RemoteError when MLflow does not answer or refuses.
    """
    client = MlflowClient(uri)
    with remote_errors(uri):
        number, _ = experiment_of(client, experiment)
        run = client.create_run(number, run_name=name, tags={"kind": "seed"}).info.run_id
        now = int(time.time() * 1000)
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
    client, registry, model = MlflowClient(uri), Registry(uri), report.experiment
    with remote_errors(uri):
        experiment, _ = experiment_of(client, model)
        again = _logged_before(client, experiment, tags.get("live_id"))
        if again:
            return PublishedVersion(LoggedRun(experiment, again), model, "")
        client.set_experiment_tag(
            experiment, reviewer_view.TAG, reviewer_view.tag(snapshot.stage_spec.arms, started // 1000)
        )
        run_tags = {"verdict": report.verdict[:5000], **tags}
        name = f"live {report.policy}" if "live_id" in tags else report.policy
        run = client.create_run(experiment, run_name=name, tags=run_tags, start_time=started // 1000)
        run_id, status = run.info.run_id, "FAILED"
        try:
            params = [Param(key, value[:_PARAM_CHARS]) for key, value in report.facts.items()]
            client.log_batch(run_id, params=params)
            client.log_inputs(run_id, [_dataset(data)])
            model_id = registry.log_policy(run_id, snapshot, packages)
            with_both = {"dataset_name": data.name, "dataset_digest": data.digest[:32], "model_id": model_id}
            now = started // 1000
            metrics = [Metric(k, v, now, 0, run_id=run_id, **with_both) for k, v in report.metrics.items()]
            client.log_batch(run_id, metrics=metrics)
            client.log_batch(run_id, metrics=_series(report, now))
            client.log_text(run_id, html_report.render(report), "review/report.html")
            _tables(client, run_id, report)
            version = ""
            if "live_id" not in tags:
                version = registry.register(
                    model, model_id, run_id, _headline(report), {k: tags[k] for k in _ON_VERSION if k in tags}
                )
                # without host and port: MLflow may be served at another one when somebody reads it
                link_ = f"[report and numbers]({reviewer_view.run_link('', experiment, run_id).lstrip('/')})"
                registry.describe(model, version, f"{_headline(report)}\n\n{link_}")
                client.set_tag(run_id, "version", version)
                client.set_tag(run_id, "mlflow.runName", f"v{version} {report.policy}: {tags['gate']}")
            client.set_tag(run_id, NOTE, f"{_headline(report)}\n\n{_answers_markdown(report)}"[:8000])
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)
    return PublishedVersion(LoggedRun(experiment, run_id), model, version)


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


def _answers_markdown(report: Report) -> str:
    lines = [f"{number}. **{a.question}** {' '.join(a.answer.split())}" for number, a in enumerate(report.answers, 1)]
    return "\n".join(lines) + "\n\nDrawings and tables: `review/report.html` under Artifacts."


def link(uri: str, logged: LoggedRun) -> str:
    """URL of the run in a browser; without the workflow type, MLflow opens a mode that hides metrics."""
    return reviewer_view.run_link(uri, logged.experiment_id, logged.run_id)


def _verdict_markdown(report: Report) -> str:
    rows = ["| | " + " | ".join(report.tables[0].head) + " |", "|---" * (len(report.tables[0].head) + 1) + "|"]
    rows += ["| " + " | ".join((row.name, *row.cells)) + " |" for row in report.tables[0].rows]
    table = "\n".join(rows)
    more = f"Full report: `review/report.html` under Artifacts. Again: `{report.command}`"
    return f"{report.verdict}\n\n{_small(report)}{table}\n\n{more}"


def _series(report: Report, now: int) -> list[Metric]:
    metrics: list[Metric] = []
    for curve in report.curves:
        for line in curve.lines:
            metrics += _points(f"{curve.key}/{_key(line.name)}", line, now)
    for share in report.shares:
        metrics += _points(f"share/{_key(share.name)}", share, now)
    for key, series in report.extra:
        metrics += _points(key, series, now)
    return metrics


def _points(key: str, series: ReportSeries, now: int) -> list[Metric]:
    assert len(series.step) <= POINTS  # noqa: S101 - the report promises it
    return [Metric(key, float(v), now, int(s)) for s, v in zip(series.step, series.value, strict=True)]


def _key(name: str) -> str:
    return "policy" if name == "this policy" else name.replace(" ", "_")


def _log_bytes(client: MlflowClient, run_id: str, data: bytes, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_bytes(data)
        client.log_artifact(run_id, str(path), folder)
