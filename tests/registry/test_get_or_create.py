"""Get-or-create against a real MLflow server: found, made, restored, and made meanwhile by somebody else."""

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments.mlflow.get_or_create import experiment_of, get_or_create, registered_model_of

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
