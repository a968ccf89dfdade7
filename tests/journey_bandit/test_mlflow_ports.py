"""One port, one MLflow: no command shows what another server has."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bandit.errors import RemoteError
from journey_bandit import mlflow_server
from journey_bandit.demos import review
from tests.waiting import PATIENCE


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(RemoteError, match=rf"127\.0\.0\.1:{port}: .*give --port another one"):
            mlflow_server.start(tmp_path / "mlflow", "127.0.0.1", port)
    assert not (tmp_path / "mlflow").exists()


def test_ui_refuses_a_taken_port_in_one_line_and_prints_no_link(tmp_path: Path) -> None:
    """Somebody listens there and may even be another MLflow: its experiments must not be shown as ours."""
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        command = [sys.executable, "-m", "journey_bandit", "ui", "--folder", str(tmp_path)]
        command += ["--port", str(other.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: MLflow cannot be served at 127.0.0.1:")


def test_a_history_prints_no_link_into_a_server_that_will_have_stopped() -> None:
    said = "travel-cart version 2. Its review: http://127.0.0.1:4711/#/experiments/1/runs/a?b=c\nhttp://else.example/"
    shown = review.without_links(said, "http://127.0.0.1:4711")
    assert "4711" not in shown
    assert shown.startswith("travel-cart version 2. Its review: (")
    assert shown.endswith("\nhttp://else.example/")
