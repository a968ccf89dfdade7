"""What MLflow or the network says is passed on without the password that MLflow's address may hold."""

import pytest

pytest.importorskip("mlflow", reason="the extra experiments is not installed")

from mlflow.exceptions import MlflowException

from bandit.errors import RemoteError
from experiments.mlflow.client_errors import collecting_failures, remote_errors

URI = "http://ana:s3cret@mlflow:5000"
pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Connection refused", "no MLflow answers at http://***@mlflow:5000: start it"),
        (f"API request to {URI}/api/2.0 failed", "MLflow at http://***@mlflow:5000: API request to http://***@mlflow"),
    ],
)
def test_a_failure_is_told_without_the_password(said: str, told: str) -> None:
    with pytest.raises(RemoteError) as raised, remote_errors(URI):
        raise MlflowException(said)
    assert str(raised.value).startswith(told)
    assert "s3cret" not in str(raised.value)


def test_a_note_is_made_without_the_password() -> None:
    untold: list[str] = []

    def fails() -> None:
        raise MlflowException(f"API request to {URI}/api/2.0 failed")

    with collecting_failures("tags", untold):
        fails()
    assert untold == ["tags: API request to http://***@mlflow:5000/api/2.0 failed"]
