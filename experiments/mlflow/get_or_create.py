"""Get-or-create in MLflow: an experiment or a registered model by name, made if it is not there, also where several
processes ask at once.

MLflow has no such call: between looking and making, another process may make it. Whoever loses that race reads what the
other has made. All of `experiments.mlflow` makes experiments and registered models through here.
"""

from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments.mlflow.client_errors import ABSENT, TAKEN


def experiment_of(client: MlflowClient, name: str) -> tuple[str, bool]:
    """The id of the experiment called `name`, made if it is not there, restored if it was deleted; and whether it had
    been deleted. Raises MlflowException if MLflow refuses.
    """
    found = get_or_create(lambda: client.get_experiment_by_name(name), lambda: client.create_experiment(name))
    deleted = found.lifecycle_stage == "deleted"
    if deleted:
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id), deleted


def registered_model(client: MlflowClient, name: str) -> Any:
    """The registered model called `name`; None if there is none. Raises MlflowException if MLflow refuses."""
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def registered_model_of(client: MlflowClient, name: str, description: str) -> Any:
    """The registered model called `name`, made with `description` if it is not there. Raises MlflowException if MLflow
    refuses.
    """
    return get_or_create(
        lambda: registered_model(client, name), lambda: client.create_registered_model(name, description=description)
    )


def get_or_create(get: Callable[[], Any], create: Callable[[], object]) -> Any:
    """What `get` finds; if that is None, `create` is called once and `get` again. That `create` finds the name taken
    meanwhile is no error as long as `get` finds it then. Raises MlflowException as both do.
    """
    found = get()
    if found is not None:
        return found
    try:
        create()
    except MlflowException as error:
        if error.error_code != TAKEN or (found := get()) is None:
            raise
        return found
    return get()
