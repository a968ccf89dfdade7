"""Errors of MLflow's client: what it or the network raises, turned into ours or noted. Tracking, registry and audit
table use no other way.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from bandit.errors import RemoteError, masked

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""Error codes by which MLflow says that there is no such model, version, alias or run."""

TAKEN = "RESOURCE_ALREADY_EXISTS"
"""Error code by which MLflow says that an experiment or a model of that name is there already."""


@contextmanager
def remote_errors(uri: str) -> Iterator[None]:
    """Context manager that turns what MLflow at `uri` or the network raises into RemoteError, without the password that
    an address may hold.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        if "Connection refused" in str(error):
            fix = "start it (`mlflow server --port 5000`), or name another with --mlflow"
            raise RemoteError(f"no MLflow answers at {masked(uri)}: {fix}") from error
        raise RemoteError(masked(f"MLflow at {uri}: {error}")) from error


@contextmanager
def collecting_failures(what: str, untold: list[str]) -> Iterator[None]:
    """Context manager for what people read and nothing waits for: where MLflow refuses it, `what` and the reason are
    added to `untold` and nothing is raised.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        untold.append(f"{what}: {one_line(error)}")


def one_line(error: Exception) -> str:
    """What MLflow or the network said, on one line of at most 300 characters, without the user part of an address."""
    return " ".join(masked(str(error)).split())[:300]
