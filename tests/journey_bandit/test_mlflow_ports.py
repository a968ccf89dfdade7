"""One port, one MLflow: no command shows what another server has."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bandit.errors import RemoteError
from journey_bandit import mlflow_server
from journey_bandit.demos import review
from journey_bandit.main import group
from tests.waiting import PATIENCE


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            RemoteError, match=rf"127\.0\.0\.1:{port}: process {os.getpid()} .* holds that port; --port \d+ is free"
        ):
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
    assert f"process {os.getpid()} (" in line


def test_a_folder_without_runs_says_where_some_are_or_what_makes_some(tmp_path: Path) -> None:
    def error(folder: Path) -> str:
        done = CliRunner().invoke(group, ["ui", "--folder", str(folder)])
        assert (done.exit_code, done.stdout) == (1, "")
        return str(done.exception) + done.stderr

    assert f"no runs in {tmp_path}: `journey-bandit demo` makes some" in error(tmp_path)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").touch()
    assert f"no runs in {tmp_path}: --folder {tmp_path / 'mlflow'} has some" in error(tmp_path)


def test_a_history_prints_no_link_into_a_server_that_will_have_stopped() -> None:
    said = "travel-cart version 2. Its review: http://127.0.0.1:4711/#/experiments/1/runs/a?b=c\nhttp://else.example/"
    shown = review.without_links(said, "http://127.0.0.1:4711")
    assert "4711" not in shown
    assert shown.startswith("travel-cart version 2. Its review: (")
    assert shown.endswith("\nhttp://else.example/")
