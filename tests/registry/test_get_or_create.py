"""A real MLflow server that is empty: it tells nobody anything. Get-or-create on it: found, made, restored, and made
meanwhile by somebody else.
"""

from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments.mlflow.get_or_create import experiment_of, get_or_create, registered_model_of
from journey_bandit import mlflow_server
from journey_bandit.registry import ui
from tests.waiting import PATIENCE

pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")


class Late(MlflowClient):
    """A client that looks before somebody else makes the experiment or the model, and makes it after."""

    def get_experiment_by_name(self, name: str) -> Any:
        found = super().get_experiment_by_name(name)
        if found is None:
            MlflowClient(self.tracking_uri, self.tracking_uri).create_experiment(name)
        return found

    def get_registered_model(self, name: str) -> Any:
        try:
            return super().get_registered_model(name)
        except MlflowException:
            MlflowClient(self.tracking_uri, self.tracking_uri).create_registered_model(name, description="theirs")
            raise


def test_servers_are_started_without_telemetry(mlflow: tuple[str, Path]) -> None:
    """Neither the server nor its pages tell anybody anything: the page asks the server whether it may. MLflow is silent
    under pytest by itself, so that its answer alone would prove nothing of the setting.
    """
    assert mlflow_server.QUIET["MLFLOW_DISABLE_TELEMETRY"] == "true"
    asked = httpx.get(f"{mlflow[0]}/ajax-api/3.0/mlflow/ui-telemetry", timeout=PATIENCE).json()
    assert asked["disable_ui_telemetry"] is True
    assert ui.links(mlflow[0]) + ui.models(mlflow[0]) == []


def test_who_loses_the_race_reads_what_the_other_has_made(mlflow: tuple[str, Path]) -> None:
    late = Late(mlflow[0], registry_uri=mlflow[0])
    number, deleted = experiment_of(late, "raced")
    theirs = MlflowClient(mlflow[0], mlflow[0]).get_experiment_by_name("raced")
    assert theirs is not None
    assert (number, deleted) == (theirs.experiment_id, False)
    assert registered_model_of(late, "raced", "mine").description == "theirs"


def test_an_experiment_is_made_once_and_restored_where_somebody_deleted_it(mlflow: tuple[str, Path]) -> None:
    client = MlflowClient(mlflow[0], mlflow[0])
    number, _ = experiment_of(client, "once")
    assert experiment_of(client, "once") == (number, False)
    client.delete_experiment(number)
    assert experiment_of(client, "once") == (number, True)
    assert client.get_experiment(number).lifecycle_stage == "active"


def test_other_refusals_are_raised() -> None:
    def refuse() -> None:
        raise MlflowException("no")

    with pytest.raises(MlflowException, match="no"):
        get_or_create(lambda: None, refuse)
