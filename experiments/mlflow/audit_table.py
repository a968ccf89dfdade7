"""Audit table of a registered model: a run of its experiment whose file audit.json has every approval and rollback, in
order.
"""

import json
from collections.abc import Sequence
from typing import Any

import mlflow
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from experiments.mlflow import approvals
from experiments.mlflow.approvals import Approval
from experiments.mlflow.get_or_create import experiment_of

_FILE = "audit.json"
_NOTE = "Every approval and rollback, in order; each line holds the hash of the one before. See audit.json."


class AuditTable:
    """The audit table of one registered model. Methods raise MlflowException or OSError where MLflow does not answer or
    refuses; `Registry` turns these into RemoteError.
    """

    def __init__(self, client: MlflowClient, model: str):
        self._client, self._model = client, model

    def read(self) -> list[Approval]:
        """The moves in the table, oldest first, also of a run that somebody deleted in MLflow; none if there is no
        table. Raises RemoteError if the table cannot be read as moves.
        """
        run = self._run()
        if run is None:
            return []
        if _FILE not in {file.path for file in self._client.list_artifacts(run.info.run_id)}:
            return []
        return approvals.read(json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{_FILE}")))

    def write(self, lines: Sequence[Approval]) -> list[str]:
        """Replace the table by these moves, one at least. Returns sentences on what had to be brought back for that: a
        run or an experiment that was deleted.
        """
        restored: list[str] = []
        number, deleted = experiment_of(self._client, self._model)
        if deleted:
            restored.append(f"the experiment {self._model} had been deleted in MLflow: it was restored")
        run = self._run()
        if run is None:
            run = self._client.create_run(number, run_name="audit", tags={"kind": "audit"})
            self._client.set_tag(run.info.run_id, "mlflow.note.content", _NOTE)
            self._client.set_terminated(run.info.run_id)
            if lines[0].number > 1:
                restored.append(f"the audit table had been deleted in MLflow: the new one begins at {lines[0].number}")
        elif run.info.lifecycle_stage == "deleted":
            self._client.restore_run(run.info.run_id)
            restored.append("the audit run had been deleted in MLflow: it was restored")
        self._client.log_dict(run.info.run_id, approvals.table(lines), _FILE)
        return restored

    def _run(self) -> Any:
        experiment = self._client.get_experiment_by_name(self._model)
        if experiment is None:
            return None
        query = "tags.kind = 'audit'"
        for kind in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            found = self._client.search_runs([experiment.experiment_id], query, run_view_type=kind, max_results=1)
            if found:
                return found[0]
        return None
