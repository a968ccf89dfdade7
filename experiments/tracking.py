"""Writing a report to MLflow: one flat run, in the order a reviewer reads. The only file here that imports MLflow.

Clients go through an HTTP server, so that artifacts are stored as `mlflow-artifacts:/…` and not as paths of a machine.
One `log_batch` for the series; no autologging, no traces, no pickle.
"""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bandit.errors import RemoteError
from experiments import page
from experiments.report import POINTS, Report, Series

_PARAM_CHARS = 6000
_NOTE = "mlflow.note.content"


class Logged(NamedTuple):
    """Where a run is."""

    experiment_id: str
    run_id: str


def write(uri: str, report: Report, policy_files: dict[str, bytes], tags: dict[str, str]) -> Logged:
    """Log the report as one run of the experiment <app>-<stage>. `policy_files`: policy.json and posterior.npz.

    RemoteError when MLflow does not answer or refuses.
    """
    try:
        return _write(MlflowClient(uri), report, policy_files, tags)
    except MlflowException as error:
        raise RemoteError(f"MLflow at {uri}: {error}") from error


def _write(client: MlflowClient, report: Report, policy_files: dict[str, bytes], tags: dict[str, str]) -> Logged:
    found = client.get_experiment_by_name(report.experiment)
    experiment = found.experiment_id if found else client.create_experiment(report.experiment)
    note = _description(report)
    run = client.create_run(
        experiment,
        run_name=report.title.split(" at ")[0],
        tags={"kind": "policy", _NOTE: note, "verdict": report.verdict[:5000], **tags},
    )
    run_id = run.info.run_id
    status = "FAILED"
    try:
        params = [Param(key, value[:_PARAM_CHARS]) for key, value in report.facts.items()]
        now = int(time.time() * 1000)
        headline = [Metric(key, value, now, 0) for key, value in report.metrics.items()]
        client.log_batch(run_id, metrics=headline, params=params)
        client.log_batch(run_id, metrics=_series(report, now))
        client.log_text(run_id, page.render(report), "review/report.html")
        for number, table in enumerate(report.tables, 1):
            rows = [{"": row.name, **dict(zip(table.head, row.cells, strict=True))} for row in table.rows]
            content = {"title": table.title, "note": table.note, "rows": rows}
            client.log_dict(run_id, content, f"review/table_{number}.json")
        client.log_text(run_id, policy_files["policy.json"].decode(), "policy/policy.json")
        _log_bytes(client, run_id, policy_files["posterior.npz"], "posterior.npz", "policy")
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    return Logged(experiment, run_id)


def link(uri: str, logged: Logged) -> str:
    """The run in a browser; without the workflow type, MLflow opens a mode that hides metrics."""
    run = f"/#/experiments/{logged.experiment_id}/runs/{logged.run_id}"
    return f"{uri.rstrip('/')}{run}?workflowType=machine_learning"


def _description(report: Report) -> str:
    rows = ["| | " + " | ".join(report.tables[0].head) + " |", "|---" * (len(report.tables[0].head) + 1) + "|"]
    rows += ["| " + " | ".join((row.name, *row.cells)) + " |" for row in report.tables[0].rows]
    table = "\n".join(rows)
    more = f"Full report: `review/report.html` under Artifacts. Again: `{report.command}`"
    return f"{report.verdict}\n\n{table}\n\n{more}"


def _series(report: Report, now: int) -> list[Metric]:
    groups = [("regret", "Regret"), ("value", "Net value over no nudge")]
    named = {title: prefix for prefix, title in groups}
    metrics: list[Metric] = []
    for title, _, lines in report.curves:
        for line in lines:
            metrics += _points(f"{named.get(title, 'conv')}/{_key(line.name)}", line, now)
    for share in report.shares:
        metrics += _points(f"share/{_key(share.name)}", share, now)
    return metrics


def _points(key: str, series: Series, now: int) -> list[Metric]:
    assert len(series.step) <= POINTS  # noqa: S101 - the report promises it
    return [Metric(key, float(v), now, int(s)) for s, v in zip(series.step, series.value, strict=True)]


def _key(name: str) -> str:
    return "policy" if name == "this policy" else name.replace(" ", "_")


def _log_bytes(client: MlflowClient, run_id: str, data: bytes, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_bytes(data)
        client.log_artifact(run_id, str(path), folder)
